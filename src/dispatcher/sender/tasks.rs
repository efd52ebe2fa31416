//! What runs beside the loop of a channel: reading its account, claims, requests, records, recoveries.
//!
//! Each reports exactly once, also when it panics, so that nothing is waited for in vain.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc::UnboundedSender;

use super::super::account::{self, DoorNumber, Looked, LookupRefused, Opened, Trouble, Version, Way};
use super::super::lane::{Due, is_sending};
use super::super::polling::Polling;
use super::{CLAIM_RETRY, Context, Sender};
use crate::api::{Broadcast, BroadcastChannel, ProviderName, StopStatus, SuppressionReason};
use crate::clock;
use crate::cluster::{chain, within};
use crate::domain::answer::{Answer, Refusal, RefusalKind, SendPolicy};
use crate::domain::error_policy::judged;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::outcome::{Outcome, Row};
use crate::domain::suppression::reason_of;
use crate::domain::token::MessageToken;
use crate::domain::window::{Choice, next_window};
use crate::lease::Tenure;
use crate::ledger::{AfterRecord, ClaimedRow, Ledger, LedgerError, PlannedWindow, RecordedClaim};
use crate::providers::whatsapp;
use crate::providers::wire::{BroadcastName, Outgoing};
use crate::{stops, suppressions};

/// Longest wait for the page before an Unknown row is sent again. It is in memory, and only a slow write of it is in the
/// way; who waited longer would send long after the last look at the brakes.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Between two tries to store that a Broadcast stopped by itself, at first and at most.
const STOP_RETRY: Duration = Duration::from_millis(200);
const LONGEST_STOP_RETRY: Duration = Duration::from_secs(10);

/// What was spawned reports with one of these.
pub(super) enum Event {
    /// The channel as it was when the sender began, if there was one.
    Began(Option<Arc<BroadcastChannel>>),
    Opened(Version, Result<Opened, Trouble>),
    /// Whether receipts can be checked.
    LookedAtReceipts(Looked),
    Claimed {
        lane: BroadcastUid,
        page: usize,
        result: Result<Claimed, LedgerError>,
    },
    Answered(Answered),
    Recorded {
        lane: BroadcastUid,
        page: usize,
        was_last: bool,
        result: Result<(), LedgerError>,
    },
    /// Results were not stored, by a panic: they are nowhere any more.
    ResultsLost {
        lane: BroadcastUid,
        page: usize,
    },
    Recovered {
        page: ObjectKey,
        result: Result<(), LedgerError>,
    },
    StopStored {
        lane: BroadcastUid,
    },
    /// The provider was asked what became of a message, and refused the sender.
    LookupRefused(LookupRefused),
}

/// What became of one message.
pub(super) struct Answered {
    pub(super) token: MessageToken,
    pub(super) before: Row,
    pub(super) door: DoorNumber,
    /// `None` when it was not sent after all.
    pub(super) answer: Option<Answer>,
}

pub(super) enum Claimed {
    Window(RecordedClaim),
    NotBefore(Timestamp),
    Nothing,
}

impl Sender {
    pub(super) fn read_account(&self, channel: Arc<BroadcastChannel>) {
        let (context, key, version) = (self.context.clone(), self.key.clone(), Version::of(&channel));
        let known = self.account.known(clock::monotonic());
        let lost = Event::Opened(version.clone(), Err(Trouble::interrupted()));
        self.spawn(lost, async move {
            let read = account::read(&context, &key, &channel, &known).await;
            Event::Opened(version, read)
        });
    }

    /// Looks whether receipts can be checked, when it is time for that.
    pub(super) fn look_at_receipts(&mut self, channel: Option<&Arc<BroadcastChannel>>) {
        let Some(channel) = channel else { return };
        if self.account.wants_receipt_look(clock::monotonic()) {
            let (context, key, channel) = (self.context.clone(), self.key.clone(), channel.clone());
            self.spawn(Event::LookedAtReceipts(Looked::interrupted(&channel)), async move {
                let looked = account::look_at_receipt_secrets(&context, &key, &channel).await;
                Event::LookedAtReceipts(looked)
            });
        }
    }

    /// Claims what is due of a page, and gives it back when the Broadcast has been stopped meanwhile.
    pub(super) fn spawn_claim(&self, plan: PlannedWindow, wanted: Wanted, policy: SendPolicy, budget: usize) {
        let (lane, page) = (plan.broadcast.clone(), plan.index);
        let lost = Event::Claimed { lane: lane.clone(), page, result: Err(LedgerError::Abandoned) };
        let (ledger, client) = (self.context.ledger.clone(), self.context.client.clone());
        self.spawn(lost, async move {
            let result = async {
                let content = ledger.read(&plan.page).await?;
                let rows = match next_window(content.rows(), &policy, clock::now(), budget) {
                    Choice::Window(rows) => rows,
                    Choice::NotBefore(time) => return Ok(Claimed::NotBefore(time)),
                    Choice::Nothing => return Ok(Claimed::Nothing),
                };
                let claim = ledger.claim(PlannedWindow { rows, ..plan }).await?;
                if wanted.is_still_so(&client).await {
                    return Ok(Claimed::Window(claim));
                }
                // Nothing of it was sent.
                ledger.record(&claim, &[], AfterRecord::Release).await?;
                Ok(Claimed::Nothing)
            };
            Event::Claimed { lane, page, result: result.await }
        });
    }

    pub(super) fn spawn_send(&self, way: Way, turn: usize, page: usize, claimed: ClaimedRow) {
        let lane = &self.lanes[turn];
        let Way { gateway, door, rules, provider } = way;
        let ClaimedRow { row, recipient, before } = claimed;
        let token = MessageToken { broadcast: lane.uid.clone(), page, row };
        let (broadcast, template) = (lane.key.clone(), lane.template.clone());
        let (context, channel) = (self.context.clone(), self.key.clone());
        let tried = (before.attempts > 0).then(|| lane.page_key(page)).flatten();
        let id = token.to_string();
        let before_outcome = before.outcome;
        let report = move |answer| Event::Answered(Answered { token, before, door, answer });
        let lost = Answer::unknown("Interrupted", "the request was interrupted");
        self.spawn(report.clone()(Some(lost)), async move {
            if let Some(key) = tried
                && !is_still(before_outcome, &context.ledger, &key, row).await
            {
                return report(None);
            }
            let answer = match template.render(row, &recipient.params) {
                Ok(content) => {
                    let started = clock::monotonic();
                    let message = Outgoing {
                        token: &id,
                        chat: &recipient.chat,
                        content: &content,
                        params: &recipient.params,
                        broadcast: BroadcastName { namespace: &broadcast.namespace, name: &broadcast.name },
                        now: clock::now(),
                    };
                    let answer = gateway.send(&message).await.about_media(template.has_own_media());
                    let answer = judged(&rules, answer);
                    context.metrics.sent(&channel, started.elapsed());
                    context.metrics.said(provider, &answer);
                    answer
                }
                // Planning has made this text once already; if it cannot be made now, nothing was sent.
                Err(error) => Answer::refused(RefusalKind::Permanent, error.category(), error.to_string()),
            };
            // First: once the answer is recorded, nothing would bring the opt-out again.
            if let Answer::Refused(Refusal { kind, code, .. }) = &answer {
                suppress(&context, &channel, (*kind, code), &recipient.chat, &id).await;
            }
            report(Some(answer))
        });
    }

    /// Stores that a Broadcast stopped by itself. Until that is stored its lane keeps it from being sent; if it never is, the next
    /// process gets the same answer and stops it too.
    pub(super) fn spawn_stop(&self, key: ObjectKey, uid: BroadcastUid, stop: StopStatus) {
        tracing::warn!(broadcast = %key, code = stop.code, reason = ?stop.reason, "stops by itself");
        let client = self.context.client.clone();
        self.spawn(Event::StopStored { lane: uid.clone() }, async move {
            let mut wait = STOP_RETRY;
            while let Err(error) = stops::stop_broadcast(&client, &key, &uid, &stop, None).await {
                tracing::warn!(broadcast = %key, %error, "its stop is not stored yet, trying again");
                clock::wait(wait).await;
                wait = (2 * wait).min(LONGEST_STOP_RETRY);
            }
            Event::StopStored { lane: uid }
        });
    }

    pub(super) fn spawn_record(&self, lane: BroadcastUid, due: Due) {
        let Due { page, claim, results, after, is_last } = due;
        let lost = Event::ResultsLost { lane: lane.clone(), page };
        let ledger = self.context.ledger.clone();
        self.spawn(lost, async move {
            let result = match (results.is_empty(), after) {
                (true, AfterRecord::Keep) => Ok(()),
                _ => ledger.record(&claim, &results, after).await,
            };
            Event::Recorded { lane, page, was_last: is_last, result }
        });
    }

    /// Stores what came while earlier results of the same page could not be stored. This process may live on, and whoever sends for
    /// the channel next may have called those chats Unknown.
    pub(super) fn record_rest(&mut self) {
        for index in 0..self.lanes.len() {
            for due in self.lanes[index].rest() {
                self.spawn_record(self.lanes[index].uid.clone(), due);
            }
        }
    }

    pub(super) fn spawn_recovery(&self, uid: BroadcastUid, page: ObjectKey) {
        let ledger = self.context.ledger.clone();
        let metrics = self.context.metrics.clone();
        let lost = Event::Recovered { page: page.clone(), result: Err(LedgerError::Abandoned) };
        self.spawn(lost, async move {
            let result = ledger.recover(&page, &uid).await.map(|rows| metrics.orphaned(rows));
            Event::Recovered { page, result }
        });
    }

    pub(super) fn recovered(&mut self, page: ObjectKey, result: Result<(), LedgerError>, now: Instant) {
        self.recovering.remove(&page);
        if let Err(error) = result {
            tracing::warn!(%page, %error, "claim of an earlier process is not recovered yet");
            self.unrecovered.insert(page, now + CLAIM_RETRY);
            self.next_look = self.next_look.min(now + CLAIM_RETRY);
        }
    }

    /// Lets the provider be asked what became of messages while the channel works and no message waits for an answer in vain.
    pub(super) fn allow_lookups(&self) {
        let is_free = !self.is_ending()
            && self.context.leases.holds(&self.tenure)
            && self.context.observed.blind(&self.key.namespace).is_none();
        let way = if is_free { self.account.may_look_up(self.in_flight, clock::monotonic()) } else { None };
        self.polling.allow(way);
    }

    /// Runs `work` beside the loop. It reports once: with its event, or with `lost` when it does not come to its end.
    fn spawn(&self, lost: Event, work: impl Future<Output = Event> + Send + 'static) {
        let report = Report { events: self.events.clone(), event: Some(lost) };
        tokio::spawn(async move {
            let mut report = report;
            report.event = Some(work.await);
        });
    }
}

/// Reads the channel, until that succeeds or the sender has ended.
pub(super) fn read_channel(context: &Arc<Context>, key: &ObjectKey, events: &UnboundedSender<Event>) {
    let api: Api<BroadcastChannel> = Api::namespaced(context.client.clone(), &key.namespace);
    let (name, events) = (key.name.clone(), events.clone());
    let report = Report { events: events.clone(), event: Some(Event::Began(None)) };
    tokio::spawn(async move {
        let mut report = report;
        while !events.is_closed() {
            match within(api.get_opt(&name)).await {
                Ok(channel) => {
                    report.event = Some(Event::Began(channel.map(Arc::new)));
                    return;
                }
                Err(error) => {
                    tracing::warn!(channel = name, %error, "cannot read the channel to send for, trying again");
                    clock::wait(CLAIM_RETRY).await;
                }
            }
        }
    });
}

/// Starts the task that asks about messages, without leave.
pub(super) fn start_polling(
    context: &Arc<Context>,
    tenure: &Tenure,
    events: &UnboundedSender<Event>,
) -> Polling {
    let events = events.clone();
    // A sender that has ended wants to know nothing any more.
    let tell = move |refused| drop(events.send(Event::LookupRefused(refused)));
    Polling::start(context.clone(), tenure.clone(), Arc::new(tell))
}

/// A Broadcast that may be sent from, in its version, and the channel that it goes through, as far as this process has seen.
pub(super) struct Wanted {
    pub(super) key: ObjectKey,
    pub(super) uid: BroadcastUid,
    pub(super) version: Option<String>,
    pub(super) channel: Arc<BroadcastChannel>,
}

impl Wanted {
    /// Looks at both brakes after a claim was stored. A stop that was written before the claim is seen here; one that was
    /// written after it finds the claim, and waits for it. So who says that all has stopped is right, whoever says it.
    async fn is_still_so(&self, client: &Client) -> bool {
        let (is_same, is_open) = tokio::join!(self.is_sending(client), self.is_channel_open(client));
        if !is_same || !is_open {
            tracing::debug!(broadcast = %self.key, "was stopped while it was claimed from, or cannot be read");
        }
        is_same && is_open
    }

    async fn is_sending(&self, client: &Client) -> bool {
        let api: Api<Broadcast> = Api::namespaced(client.clone(), &self.key.namespace);
        match within(api.get_metadata(&self.key.name)).await {
            // It is as it was looked at. A hold, and what a receipt stops, are in its status: the spec alone does not say enough.
            Ok(now) if now.metadata.resource_version == self.version => true,
            Ok(_) => within(api.get(&self.key.name)).await.is_ok_and(|now| is_sending(&now, &self.uid)),
            Err(_) => false,
        }
    }

    async fn is_channel_open(&self, client: &Client) -> bool {
        let api: Api<BroadcastChannel> = Api::namespaced(client.clone(), &self.key.namespace);
        let (name, known) = (self.channel.name_any(), &self.channel.metadata);
        match within(api.get_metadata(&name)).await {
            Ok(now) if now.metadata.uid == known.uid && now.metadata.generation == known.generation => true,
            // What else has changed is taken up when the watch brings it.
            Ok(now) if now.metadata.uid == known.uid => {
                within(api.get(&name)).await.is_ok_and(|now| !now.spec.paused)
            }
            Ok(_) | Err(_) => false,
        }
    }
}

/// Writes down that a chat opted out, or that a rule of the channel says so. If that fails, its row says so all the same, and later
/// Broadcasts get the same answer.
async fn suppress(
    context: &Context,
    channel: &ObjectKey,
    (kind, code): (RefusalKind, &str),
    chat: &str,
    token: &str,
) {
    let provider = context.observed.channel(channel).map(|channel| channel.spec.provider);
    let reason = match kind {
        // One of its participants says so, if at all, and nobody knows which.
        RefusalKind::OptedOut if provider == Some(ProviderName::WhatsApp) && whatsapp::is_group(chat) => {
            return;
        }
        RefusalKind::OptedOut => provider.map_or(SuppressionReason::OptedOut, reason_of),
        RefusalKind::Suppressed => SuppressionReason::ErrorPolicy,
        _ => return,
    };
    let recorded = suppressions::record(&context.client, channel, chat, reason, code, clock::now()).await;
    if let Err(error) = recorded {
        // The token, and not the chat: a log is no place for phone numbers.
        tracing::warn!(%channel, token, error = %chain(&error), "failed to record that a chat opted out");
    }
}

/// The last look before a chat that was tried before: a receipt of that try may have come since its row was claimed.
async fn is_still(outcome: Outcome, ledger: &Ledger, page: &ObjectKey, row: usize) -> bool {
    match tokio::time::timeout(LAST_LOOK, ledger.read(page)).await {
        Ok(Ok(content)) => content.rows().get(row).is_some_and(|row| row.outcome == outcome),
        // It stays as it is, and is claimed again.
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Sends its event when it is dropped, in a panic too.
struct Report {
    events: UnboundedSender<Event>,
    event: Option<Event>,
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            // The loop ends only after all reports; a closed inbox means that the process is ending.
            let _ = self.events.send(event);
        }
    }
}
