//! What runs beside the loop of a channel: reading its account, claims, requests, records, recoveries.
//!
//! Each reports exactly once, also when it panics, so that nothing is waited for in vain.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc::UnboundedSender;

use super::super::account::{self, DoorNumber, Opened, Trouble, Version, Way};
use super::super::lane::{Due, is_sending};
use super::{Context, Sender};
use crate::api::{Broadcast, BroadcastChannel, StopStatus, SuppressionReason};
use crate::clock;
use crate::cluster::{chain, within};
use crate::domain::answer::{Answer, Refusal, RefusalKind, SendPolicy};
use crate::domain::error_policy::judged;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::outcome::{Outcome, Row};
use crate::domain::suppression::reason_of;
use crate::domain::token::MessageToken;
use crate::domain::window::{Choice, next_window};
use crate::ledger::{AfterRecord, ClaimedRow, Ledger, LedgerError, PlannedWindow, RecordedClaim};
use crate::providers::wire::{BroadcastName, Outgoing};
use crate::suppressions;

/// Longest wait for the page before an Unknown row is sent again. It is in memory, and only a slow write of it is in the
/// way; who waited longer would send long after the last look at the brakes.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Between two tries to store that a Broadcast stopped by itself, at first and at most.
const STOP_RETRY: Duration = Duration::from_millis(200);
const LONGEST_STOP_RETRY: Duration = Duration::from_secs(10);

/// What was spawned reports with one of these.
pub(super) enum Event {
    Opened(Version, Result<Opened, Trouble>),
    Claimed { lane: BroadcastUid, page: usize, result: Result<Claimed, LedgerError> },
    Answered(Answered),
    Recorded { lane: BroadcastUid, page: usize, was_last: bool, result: Result<(), LedgerError> },
    Recovered { page: ObjectKey, result: Result<(), LedgerError> },
    StopStored,
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
        let known_to_be_bad = self.account.known_to_be_bad(clock::monotonic());
        let lost = Event::Opened(version.clone(), Err(Trouble::interrupted()));
        self.spawn(lost, async move {
            let read = account::read(&context, &key, &channel, known_to_be_bad.as_ref()).await;
            Event::Opened(version, read)
        });
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
        let resend = (before.outcome == Outcome::Unknown).then(|| lane.page_key(page)).flatten();
        let id = token.to_string();
        let report = move |answer| Event::Answered(Answered { token, before, door, answer });
        let lost = Answer::unknown("Interrupted", "the request was interrupted");
        self.spawn(report.clone()(Some(lost)), async move {
            if let Some(key) = resend
                && !is_still_unknown(&context.ledger, &key, row).await
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
                    let answer = judged(&rules, gateway.send(&message).await);
                    context.metrics.sent(&channel, started.elapsed());
                    context.metrics.said(provider, &answer);
                    answer
                }
                // Planning has made this text once already; if it cannot be made now, nothing was sent.
                Err(error) => Answer::refused(RefusalKind::Permanent, error.category(), error.to_string()),
            };
            // First: once the answer is recorded, nothing would bring the opt-out again.
            if let Answer::Refused(Refusal { kind: RefusalKind::OptedOut, code, .. }) = &answer {
                suppress(&context, &channel, &recipient.chat, code, &id).await;
            }
            report(Some(answer))
        });
    }

    /// Stores that a Broadcast stopped by itself. Until that is stored its lane keeps it from being sent; if it never is, the next
    /// process gets the same answer and stops it too.
    pub(super) fn spawn_stop(&self, key: ObjectKey, uid: BroadcastUid, stop: StopStatus) {
        tracing::warn!(broadcast = %key, code = stop.code, reason = ?stop.reason, "stops by itself");
        let api: Api<Broadcast> = Api::namespaced(self.context.client.clone(), &key.namespace);
        self.spawn(Event::StopStored, async move {
            let mut wait = STOP_RETRY;
            while !store_stop(&api, &key, &uid, &stop).await {
                clock::wait(wait).await;
                wait = (2 * wait).min(LONGEST_STOP_RETRY);
            }
            Event::StopStored
        });
    }

    pub(super) fn spawn_record(&self, lane: BroadcastUid, due: Due) {
        let Due { page, claim, results, is_last } = due;
        let lost =
            Event::Recorded { lane: lane.clone(), page, was_last: true, result: Err(LedgerError::Abandoned) };
        let ledger = self.context.ledger.clone();
        let after = if is_last { AfterRecord::Release } else { AfterRecord::Keep };
        self.spawn(lost, async move {
            let result = ledger.record(&claim, &results, after).await;
            Event::Recorded { lane, page, was_last: is_last, result }
        });
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

    /// Runs `work` beside the loop. It reports once: with its event, or with `lost` when it does not come to its end.
    fn spawn(&self, lost: Event, work: impl Future<Output = Event> + Send + 'static) {
        let report = Report { events: self.events.clone(), event: Some(lost) };
        tokio::spawn(async move {
            let mut report = report;
            report.event = Some(work.await);
        });
    }
}

/// Writes the stop into the status, unless the spec was changed since. Returns whether there is nothing more to do.
async fn store_stop(api: &Api<Broadcast>, key: &ObjectKey, uid: &BroadcastUid, stop: &StopStatus) -> bool {
    let mut broadcast = match within(api.get(&key.name)).await {
        Ok(broadcast) => broadcast,
        Err(error) => return error.is_not_found(),
    };
    let is_same = broadcast.metadata.uid.as_deref() == Some(uid.as_str())
        && broadcast.metadata.generation == Some(stop.observed_generation);
    match &mut broadcast.status {
        Some(status) if is_same => status.stop = Some(stop.clone()),
        _ => return true,
    }
    match within(api.replace_status(&key.name, &PostParams::default(), &broadcast)).await {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(broadcast = %key, %error, "its stop is not stored yet, trying again");
            false
        }
    }
}

/// A Broadcast that may be sent from, as far as this process has seen.
pub(super) struct Wanted {
    pub(super) key: ObjectKey,
    pub(super) uid: BroadcastUid,
    pub(super) generation: Option<i64>,
}

impl Wanted {
    /// Looks at the Broadcast after a claim was stored. A stop that was written before the claim is seen here; one that was
    /// written after it finds the claim, and waits for it. So who says that all has stopped is right, whoever says it.
    async fn is_still_so(&self, client: &Client) -> bool {
        #[cfg(feature = "mutants")]
        if crate::mutants::is_blind() {
            return true;
        }
        let api: Api<Broadcast> = Api::namespaced(client.clone(), &self.key.namespace);
        let is_same = match within(api.get_metadata(&self.key.name)).await {
            // The spec is the one that was looked at: nothing but a deletion can have stopped it.
            Ok(now) if now.metadata.generation == self.generation => {
                now.metadata.uid.as_deref() == Some(self.uid.as_str())
                    && now.metadata.deletion_timestamp.is_none()
            }
            Ok(_) => within(api.get(&self.key.name)).await.is_ok_and(|now| is_sending(&now, &self.uid)),
            Err(_) => false,
        };
        if !is_same {
            tracing::debug!(broadcast = %self.key, "was stopped while it was claimed from, or cannot be read");
        }
        is_same
    }
}

/// Writes down that a chat opted out. If that fails, its row says so all the same, and later Broadcasts get the same answer.
async fn suppress(context: &Context, channel: &ObjectKey, chat: &str, code: &str, token: &str) {
    let provider = context.observed.channel(channel).map(|channel| channel.spec.provider);
    let reason = provider.map_or(SuppressionReason::OptedOut, reason_of);
    if let Err(error) = suppressions::record(&context.client, channel, chat, reason, code).await {
        // The token, and not the chat: a log is no place for phone numbers.
        tracing::warn!(%channel, token, error = %chain(&error), "failed to record that a chat opted out");
    }
}

/// The last look before a message that may have arrived already: a receipt may have come since its row was claimed.
async fn is_still_unknown(ledger: &Ledger, page: &ObjectKey, row: usize) -> bool {
    match tokio::time::timeout(LAST_LOOK, ledger.read(page)).await {
        Ok(Ok(content)) => content.rows().get(row).is_some_and(|row| row.outcome == Outcome::Unknown),
        // It stays Unknown, and is claimed again.
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
