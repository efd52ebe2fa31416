//! What runs beside the loop of a channel: reading its account, claims, requests, records, recoveries.
//!
//! Each reports exactly once, also when it panics, so that nothing is waited for in vain.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;

use super::super::account::{self, DoorNumber, Opened, Trouble, Version, Way};
use super::super::lane::Due;
use super::Sender;
use crate::api::BroadcastChannel;
use crate::clock;
use crate::domain::answer::{Answer, SendPolicy};
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::outcome::{Outcome, Row};
use crate::domain::token::MessageToken;
use crate::domain::window::{Choice, next_window};
use crate::ledger::{AfterRecord, ClaimedRow, Ledger, LedgerError, PlannedWindow, RecordedClaim};

/// Longest wait for the page before an Unknown row is sent again. It is in memory, and only a slow write of it is in the
/// way; who waited longer would send long after the last look at the brakes.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What was spawned reports with one of these.
pub(super) enum Event {
    Opened(Version, Result<Opened, Trouble>),
    Claimed { lane: BroadcastUid, page: usize, result: Result<Claimed, LedgerError> },
    Answered(Answered),
    Recorded { lane: BroadcastUid, page: usize, was_last: bool, result: Result<(), LedgerError> },
    Recovered { page: ObjectKey, result: Result<(), LedgerError> },
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
        let lost = Event::Opened(version.clone(), Err(Trouble::interrupted()));
        self.spawn(
            lost,
            async move { Event::Opened(version, account::read(&context, &key, &channel).await) },
        );
    }

    pub(super) fn spawn_claim(&self, plan: PlannedWindow, policy: SendPolicy, budget: usize) {
        let (lane, page) = (plan.broadcast.clone(), plan.index);
        let lost = Event::Claimed { lane: lane.clone(), page, result: Err(LedgerError::Abandoned) };
        let ledger = self.context.ledger.clone();
        self.spawn(lost, async move {
            let result = async {
                let content = ledger.read(&plan.page).await?;
                match next_window(content.rows(), &policy, clock::now(), budget) {
                    Choice::Window(rows) => {
                        ledger.claim(PlannedWindow { rows, ..plan }).await.map(Claimed::Window)
                    }
                    Choice::NotBefore(time) => Ok(Claimed::NotBefore(time)),
                    Choice::Nothing => Ok(Claimed::Nothing),
                }
            };
            Event::Claimed { lane, page, result: result.await }
        });
    }

    pub(super) fn spawn_send(&self, way: Way, turn: usize, page: usize, claimed: ClaimedRow) {
        let lane = &self.lanes[turn];
        let Way { gateway, door } = way;
        let ClaimedRow { row, recipient, before } = claimed;
        let token = MessageToken { broadcast: lane.uid.clone(), page, row };
        let (broadcast, template) = (lane.key.clone(), lane.template.clone());
        let (metrics, channel) = (self.context.metrics.clone(), self.key.clone());
        let resend = (before.outcome == Outcome::Unknown).then(|| lane.page_key(page)).flatten();
        let ledger = self.context.ledger.clone();
        let id = token.to_string();
        let report = move |answer| Event::Answered(Answered { token, before, door, answer });
        let lost =
            Answer::Unknown { code: "Interrupted".into(), detail: "the request was interrupted".into() };
        self.spawn(report.clone()(Some(lost)), async move {
            if let Some(key) = resend
                && !is_still_unknown(&ledger, &key, row).await
            {
                return report(None);
            }
            let answer = match template.render(row, &recipient.params) {
                Ok(text) => {
                    let started = clock::monotonic();
                    let answer = gateway.send(&broadcast, &id, &recipient.chat, &text).await;
                    metrics.sent(&channel, started.elapsed());
                    answer
                }
                // Planning has made this text once already; if it cannot be made now, nothing was sent.
                Err(error) => Answer::Refused {
                    retryable: false,
                    code: error.category().into(),
                    detail: error.to_string(),
                },
            };
            report(Some(answer))
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
