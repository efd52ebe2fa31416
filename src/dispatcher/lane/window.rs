//! One claimed window of a page: what of it is to be sent, what is in flight, and what is to be recorded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::answer::SendPolicy;
use crate::domain::outcome::Row;
use crate::ledger::{AfterRecord, ClaimedRow, RecordedClaim};

/// Results are stored at least this often while a window is being sent, so that a crash leaves little Unknown and a
/// person who watches sees progress.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);

/// A window whose claim is stored.
pub(super) struct OpenWindow {
    claim: Arc<RecordedClaim>,
    todo: VecDeque<ClaimedRow>,
    in_flight: usize,
    results: Vec<(usize, Row)>,
    oldest_result: Option<Instant>,
    is_recording: bool,
    /// Results of it were lost: nobody knows any more which of its rows were sent.
    has_lost: bool,
}

/// Results to be stored now.
pub(in crate::dispatcher) struct Due {
    pub(in crate::dispatcher) page: usize,
    pub(in crate::dispatcher) claim: Arc<RecordedClaim>,
    pub(in crate::dispatcher) results: Vec<(usize, Row)>,
    pub(in crate::dispatcher) after: AfterRecord,
    /// The window ends with them.
    pub(in crate::dispatcher) is_last: bool,
}

impl OpenWindow {
    /// The rows of a stored claim that may be sent now.
    pub(super) fn new(mut claim: RecordedClaim, sendable: impl Fn(&Row) -> bool) -> Self {
        let todo = claim.take_sends().into_iter().filter(|row| sendable(&row.before)).collect();
        Self {
            claim: Arc::new(claim),
            todo,
            in_flight: 0,
            results: Vec::new(),
            oldest_result: None,
            is_recording: false,
            has_lost: false,
        }
    }

    pub(super) fn claim(&self) -> &RecordedClaim {
        &self.claim
    }

    /// Rows that are not sent yet.
    pub(super) fn unsent(&self) -> usize {
        self.todo.len()
    }

    /// Requests that are not answered yet.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Takes the next chat, to be sent now.
    pub(super) fn take(&mut self) -> Option<ClaimedRow> {
        let row = self.todo.pop_front()?;
        self.in_flight += 1;
        Some(row)
    }

    /// Takes in the answer to one request; `result` is what is to be recorded, if anything.
    pub(super) fn answered(&mut self, row: usize, result: Option<Row>, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(result) = result {
            self.results.push((row, result));
            self.oldest_result.get_or_insert(now);
        }
    }

    /// Forgets what is not sent.
    pub(super) fn drop_unsent(&mut self) {
        self.todo.clear();
    }

    /// Forgets what this policy would not send.
    pub(super) fn keep_due(&mut self, policy: &SendPolicy) {
        self.todo.retain(|row| policy.due(&row.before).is_some());
    }

    /// When its results have waited for long enough.
    pub(super) fn records_in(&self, now: Instant) -> Option<Duration> {
        let since = self.oldest_result.filter(|_| !self.is_recording)?;
        Some((since + RECORD_INTERVAL).saturating_duration_since(now))
    }

    /// What is to be stored now: when it is done, or its results have waited for long enough.
    ///
    /// A window that has lost results is never released: that would call the rows Pending whose results were lost. It ends
    /// as that of a dead process does.
    pub(super) fn due(&mut self, page: usize, now: Instant) -> Option<Due> {
        let is_last = self.todo.is_empty() && self.in_flight == 0;
        let has_waited = self.records_in(now).is_some_and(|wait| wait.is_zero());
        if self.is_recording || !(is_last || has_waited) {
            return None;
        }
        self.is_recording = true;
        self.oldest_result = None;
        let results = std::mem::take(&mut self.results);
        let after = if is_last && !self.has_lost { AfterRecord::Release } else { AfterRecord::Keep };
        Some(Due { page, claim: self.claim.clone(), results, after, is_last })
    }

    /// What is not on its way to be stored yet. The claim stays: what it has in flight may still come.
    pub(super) fn rest(&mut self, page: usize) -> Option<Due> {
        let results = std::mem::take(&mut self.results);
        let claim = self.claim.clone();
        (!results.is_empty()).then_some(Due {
            page,
            claim,
            results,
            after: AfterRecord::Keep,
            is_last: false,
        })
    }

    /// Results are stored, and it goes on.
    pub(super) fn recorded(&mut self) {
        self.is_recording = false;
    }

    /// Results that were to be stored are lost. Nothing more of it is sent, and what still comes is recorded.
    pub(super) fn lost_results(&mut self) {
        self.is_recording = false;
        self.has_lost = true;
        self.todo.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock;
    use crate::domain::ids::{BroadcastUid, ObjectKey};
    use crate::domain::outcome::Outcome;
    use crate::domain::page::Recipient;
    use crate::ledger::PlannedWindow;

    fn window(rows: usize) -> OpenWindow {
        let plan = PlannedWindow {
            page: ObjectKey::new("shop", "sale-00000"),
            index: 0,
            broadcast: BroadcastUid::new("1".into()),
            rows: 0..rows,
            resend: false,
        };
        let row = |row| ClaimedRow { row, recipient: recipient(), before: Row::pending() };
        OpenWindow::new(RecordedClaim::fake(plan, (0..rows).map(row).collect()), |_| true)
    }

    fn recipient() -> Recipient {
        Recipient { chat: "15550100".into(), skip: String::new(), params: BTreeMap::new() }
    }

    fn sent() -> Row {
        Row::known(Outcome::Sent, 1, clock::now())
    }

    #[test]
    fn a_window_is_released_with_its_last_results_and_keeps_its_claim_until_then() {
        let (mut window, now) = (window(2), clock::monotonic());
        assert!(window.due(0, now).is_none(), "nothing was sent");
        let rows = [window.take(), window.take()].map(|row| row.expect("a row").row);
        assert!(window.take().is_none());
        window.answered(rows[0], Some(sent()), now);
        assert!(window.due(0, now).is_none(), "it is not long enough");
        let later = now + RECORD_INTERVAL;
        let due = window.due(0, later).expect("results have waited");
        assert_eq!((due.results.len(), due.after, due.is_last), (1, AfterRecord::Keep, false));
        window.answered(rows[1], Some(sent()), later);
        assert!(window.due(0, later + RECORD_INTERVAL).is_none(), "one record at a time");
        window.recorded();
        let due = window.due(0, later).expect("it is done");
        assert_eq!((due.results.len(), due.after, due.is_last), (1, AfterRecord::Release, true));
    }

    #[test]
    fn a_window_that_lost_results_sends_nothing_more_and_is_never_released() {
        let (mut window, now) = (window(3), clock::monotonic());
        let rows = [window.take(), window.take()].map(|row| row.expect("a row").row);
        window.answered(rows[0], Some(sent()), now);
        assert!(window.due(0, now + RECORD_INTERVAL).is_some());
        window.lost_results();
        assert!(window.take().is_none() && window.unsent() == 0);
        assert!(window.due(0, now).is_none(), "a request is in flight");
        window.answered(rows[1], Some(sent()), now);
        let due = window.due(0, now).expect("it is done");
        assert_eq!((due.results.len(), due.after, due.is_last), (1, AfterRecord::Keep, true));
        // That one is lost as well.
        window.lost_results();
        let due = window.due(0, now).expect("it ends");
        assert_eq!((due.results.len(), due.after, due.is_last), (0, AfterRecord::Keep, true));
    }
}
