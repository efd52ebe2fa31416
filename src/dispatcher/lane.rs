//! One Broadcast on a channel: its claimed windows, and which of its chats is next.

mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::{Broadcast, BroadcastChannel, OnUnknown, ProviderName, StopReason, StopStatus};
use crate::domain::answer::{BroadcastStop, SendPolicy, Settled};
use crate::domain::breaker::Breaker;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::message::{MAX_TEXT, MessageTemplate};
use crate::domain::outcome::Row;
use crate::domain::rate::RateLimit;
use crate::domain::summary::PageSummary;
use crate::domain::text::cut_to_line;
use crate::ledger::{ClaimedRow, PlannedWindow, RecordedClaim};
use crate::observed::Observed;
pub(super) use window::Due;
use window::OpenWindow;

/// Between two looks at whether a stop is still in the status that it was stored in.
const STOP_AGAIN: Duration = Duration::from_secs(1);

/// One Broadcast on a channel.
pub(super) struct Lane {
    pub(super) key: ObjectKey,
    pub(super) uid: BroadcastUid,
    pub(super) template: Arc<MessageTemplate>,
    /// Whose chats it has, if its status says so.
    pub(super) provider: Option<ProviderName>,
    pub(super) policy: SendPolicy,
    pub(super) rate: Option<RateLimit>,
    windows: HashMap<usize, Window>,
    resting: HashMap<usize, Instant>,
    generation: Option<i64>,
    /// What stops it, also while nothing in its status says so yet.
    stop: Option<StopStatus>,
    /// When to store it at the earliest if its status does not say it: `None` while that is being done.
    stop_again: Option<Instant>,
    breaker: Breaker,
    /// Whether somebody has let it go on after a stop: what receipts say of its first messages is known then.
    has_gone_on: bool,
}

enum Window {
    /// The claim is being stored; it may bring so many rows, chosen by this policy.
    Claiming {
        rows: usize,
        policy: SendPolicy,
    },
    Open(OpenWindow),
}

impl Lane {
    /// A lane without windows. `None` when the Broadcast is not sealed.
    pub(super) fn new(broadcast: &Broadcast, key: ObjectKey) -> Option<Self> {
        let resolved = broadcast.status.as_ref()?.resolved.as_ref()?;
        // Planning has held every text against what the channel takes.
        let template = MessageTemplate::parse(&resolved.message, MAX_TEXT)
            .inspect_err(|error| tracing::error!(broadcast = %key, %error, "sealed message cannot be read"))
            .ok()?;
        let policy = SendPolicy { retry: broadcast.spec.retry, resend: false, idempotent: false };
        Some(Self {
            uid: BroadcastUid::new(broadcast.metadata.uid.clone()?),
            key,
            template: Arc::new(template),
            provider: resolved.provider,
            policy,
            rate: None,
            windows: HashMap::new(),
            resting: HashMap::new(),
            generation: broadcast.metadata.generation,
            stop: None,
            stop_again: None,
            breaker: Breaker::default(),
            has_gone_on: false,
        })
    }

    /// Goes on with the stop of an earlier lane of the same Broadcast, whose status was lost and is there again.
    pub(super) fn take_up(&mut self, stop: &StopStatus, now: Instant) {
        if self.generation == Some(stop.observed_generation) {
            self.stop = Some(stop.clone());
            self.stop_again = Some(now);
        }
    }

    /// Why it stopped by itself, to be stored again: somebody has put its status back, or has taken the stop out of it.
    pub(super) fn lost_stop(&mut self, broadcast: &Broadcast, now: Instant) -> Option<StopStatus> {
        let stop = self.stop.as_ref()?;
        let stored = broadcast.status.as_ref().and_then(|status| status.stop.as_ref());
        let is_stored = stored.is_some_and(|stored| stored.observed_generation == stop.observed_generation);
        if is_stored || self.stop_again.is_none_or(|again| now < again) {
            return None;
        }
        self.stop_again = None;
        Some(stop.clone())
    }

    /// Its stop is stored. What is in view may be a little older.
    pub(super) fn stop_stored(&mut self, now: Instant) {
        self.stop_again = Some(now + STOP_AGAIN);
    }

    /// Takes in what may change while sending: pacing, retry, onUnknown.
    pub(super) fn observe(
        &mut self,
        broadcast: &Broadcast,
        channel: Option<&BroadcastChannel>,
        now: Instant,
    ) {
        let idempotent = channel.is_some_and(|channel| channel.spec.is_idempotent());
        let resend = idempotent || broadcast.spec.on_unknown == OnUnknown::Resend;
        self.follow(SendPolicy { retry: broadcast.spec.retry, resend, idempotent });
        let pace = broadcast.spec.pacing.and_then(|pacing| u32::try_from(pacing.messages_per_second).ok());
        match (pace, &mut self.rate) {
            (None, rate) => *rate = None,
            (Some(pace), Some(rate)) => rate.set(pace, None, now),
            (Some(pace), rate @ None) => *rate = Some(RateLimit::new(pace, None, now)),
        }
        if self.generation != broadcast.metadata.generation {
            self.generation = broadcast.metadata.generation;
            if self.stop.take().is_some() {
                self.breaker.reset();
                self.has_gone_on = true;
            }
        }
        let status = broadcast.status.as_ref();
        self.has_gone_on |= status.is_some_and(|status| status.settled_time.is_some());
        let counts = status.and_then(|status| status.counts).unwrap_or_default();
        if counts.sent + counts.delivered + counts.read > 0 {
            self.breaker.prove();
        }
        if !is_sending(broadcast, &self.uid) {
            self.drop_unsent();
        }
    }

    /// Takes in what an answer means for the whole Broadcast. Returns what is to be stored when it stops by that.
    pub(super) fn judge(&mut self, settled: &Settled) -> Option<StopStatus> {
        let row = settled.row.as_ref();
        let failed = row.and_then(|row| Some((self.breaker.note(row, settled.is_unlisted)?, row)));
        let (reason, code, message) = match (&settled.stop, failed) {
            (Some(BroadcastStop { reason, code, detail }), _) => (*reason, code, detail),
            (None, Some((reason, row))) => (reason, &row.code, &row.detail),
            (None, None) => return None,
        };
        self.stop_by(reason, code, message)
    }

    /// Takes in what receipts tell of its first messages: all of them were taken, and failed alike. Returns what is to be stored when it
    /// stops by that.
    pub(super) fn judge_receipts(
        &mut self,
        broadcast: &Broadcast,
        observed: &Observed,
    ) -> Option<StopStatus> {
        let counts = broadcast.status.as_ref().and_then(|status| status.counts).unwrap_or_default();
        let has_arrived = counts.delivered + counts.read > 0;
        if self.has_gone_on || self.is_stopped() || has_arrived || !is_sending(broadcast, &self.uid) {
            return None;
        }
        let first = observed.pages.first(&self.key.namespace, &self.uid, PageSummary::is_begun)?;
        let error = first.failed_since.as_ref()?;
        self.stop_by(StopReason::FirstMessagesFailed, &error.code, &error.message)
    }

    fn stop_by(&mut self, reason: StopReason, code: &str, message: &str) -> Option<StopStatus> {
        self.drop_unsent();
        if self.is_stopped() {
            return None;
        }
        let stop = StopStatus {
            reason,
            code: cut_to_line(code, 64),
            message: cut_to_line(message, 160),
            observed_generation: self.generation.unwrap_or_default(),
        };
        self.stop = Some(stop.clone());
        self.stop_again = None;
        Some(stop)
    }

    /// Whether it stopped by itself, and nobody has changed its spec since.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_some()
    }

    /// Why it stopped by itself.
    pub(super) fn stop(&self) -> Option<&StopStatus> {
        self.stop.as_ref()
    }

    /// Treats answers by this policy from now on. Rows that it would not send are forgotten: when their claim is released
    /// they are what they were. Pages that rest by the earlier policy are looked at again.
    fn follow(&mut self, policy: SendPolicy) {
        if self.policy == policy {
            return;
        }
        self.policy = policy;
        self.resting.clear();
        for window in self.windows.values_mut() {
            if let Window::Open(open) = window {
                open.keep_due(&policy);
            }
        }
    }

    /// Rows that are claimed, or about to be, and not sent yet.
    pub(super) fn unsent(&self) -> usize {
        self.windows
            .values()
            .map(|window| match window {
                Window::Claiming { rows, .. } => *rows,
                Window::Open(open) => open.unsent(),
            })
            .sum()
    }

    /// Whether nothing of it is claimed or being claimed.
    pub(super) fn is_idle(&self) -> bool {
        self.windows.is_empty()
    }

    /// The next page that may have rows to send and is not being sent.
    pub(super) fn next_page(&self, observed: &Observed, now: Instant) -> Option<Arc<PageSummary>> {
        let max_attempts = self.policy.max_attempts();
        observed.pages.first(&self.key.namespace, &self.uid, |page| {
            let resendable = if self.policy.resend { page.unknown_below(max_attempts) } else { 0 };
            let open = page.counts.pending + resendable > 0;
            let resting = self.resting.get(&page.index).is_some_and(|until| now < *until);
            open && !page.sealed
                && page.claim.is_none()
                && !resting
                && !self.windows.contains_key(&page.index)
        })
    }

    /// When a page that rests may be looked at again.
    pub(super) fn wakes_in(&self, now: Instant) -> Option<Duration> {
        let rests = self.resting.values().map(|until| until.saturating_duration_since(now));
        let results = self.open_windows().filter_map(|open| open.records_in(now));
        rests.filter(|wait| !wait.is_zero()).chain(results).min()
    }

    /// Begins to claim rows of a page.
    pub(super) fn begin_claim(&mut self, page: &PageSummary, budget: usize) {
        self.resting.remove(&page.index);
        self.windows.insert(page.index, Window::Claiming { rows: budget, policy: self.policy });
    }

    /// Leaves a page alone until then.
    pub(super) fn rest_page(&mut self, page: usize, until: Instant) {
        self.windows.remove(&page);
        self.resting.insert(page, until);
    }

    /// Nothing of a page that was to be claimed is due before then, by the policy that it was looked at with.
    pub(super) fn not_due(&mut self, page: usize, until: Instant) {
        if let Some(Window::Claiming { policy, .. }) = self.windows.remove(&page)
            && policy == self.policy
        {
            self.resting.insert(page, until);
        }
    }

    /// Takes in a stored claim.
    pub(super) fn opened(&mut self, claim: RecordedClaim, sendable: impl Fn(&Row) -> bool) {
        let page = claim.window().index;
        self.windows.insert(page, Window::Open(OpenWindow::new(claim, sendable)));
    }

    /// Whether a chat is ready and may be sent to before others are answered, and if its pace forbids it now, how long to wait.
    pub(super) fn ready_in(&self, now: Instant) -> Option<Duration> {
        let has_row = self.open_windows().any(|open| open.unsent() > 0);
        let has_room = || {
            let room = self.breaker.room();
            room.is_none_or(|room| self.open_windows().map(OpenWindow::in_flight).sum::<usize>() < room)
        };
        (has_row && has_room()).then(|| self.rate.as_ref().map_or(Duration::ZERO, |rate| rate.wait(now)))
    }

    fn open_windows(&self) -> impl Iterator<Item = &OpenWindow> {
        self.windows.values().filter_map(|window| match window {
            Window::Open(open) => Some(open),
            Window::Claiming { .. } => None,
        })
    }

    /// Takes the next chat, to be sent now.
    pub(super) fn take(&mut self, now: Instant) -> Option<(usize, ClaimedRow)> {
        let (page, row) = self.windows.iter_mut().find_map(|(page, window)| match window {
            Window::Open(open) => open.take().map(|row| (*page, row)),
            Window::Claiming { .. } => None,
        })?;
        if let Some(rate) = &mut self.rate {
            rate.take(now);
        }
        Some((page, row))
    }

    /// Takes in the answer to one request; `result` is what is to be recorded, if anything.
    pub(super) fn answered(&mut self, page: usize, row: usize, result: Option<Row>, now: Instant) {
        if let Some(open) = self.open_window(page) {
            open.answered(row, result, now);
        }
    }

    /// Forgets what is claimed and not sent: it is Pending again when the claims are released.
    pub(super) fn drop_unsent(&mut self) {
        for window in self.windows.values_mut() {
            if let Window::Open(open) = window {
                open.drop_unsent();
            }
        }
    }

    /// Results that are to be stored now: of windows that are done, and of those that have waited long enough.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        let due = self.windows.iter_mut().filter_map(|(page, window)| match window {
            Window::Open(open) => open.due(*page, now),
            Window::Claiming { .. } => None,
        });
        due.collect()
    }

    /// Results that wait for others of their page to be stored, when nobody will look after them any more.
    pub(super) fn rest(&mut self) -> Vec<Due> {
        let rest = self.windows.iter_mut().filter_map(|(page, window)| match window {
            Window::Open(open) => open.rest(*page),
            Window::Claiming { .. } => None,
        });
        rest.collect()
    }

    /// Results are stored. After the last ones the window is gone.
    pub(super) fn recorded(&mut self, page: usize, was_last: bool) {
        if was_last {
            self.windows.remove(&page);
        } else if let Some(open) = self.open_window(page) {
            open.recorded();
        }
    }

    /// Results of a window are lost. What of it is in flight is still recorded; then its claim is as that of a dead process.
    pub(super) fn lost_results(&mut self, page: usize) {
        if let Some(open) = self.open_window(page) {
            open.lost_results();
        }
    }

    fn open_window(&mut self, page: usize) -> Option<&mut OpenWindow> {
        match self.windows.get_mut(&page) {
            Some(Window::Open(open)) => Some(open),
            _ => None,
        }
    }

    /// The page of an open window.
    pub(super) fn page_key(&self, page: usize) -> Option<ObjectKey> {
        match self.windows.get(&page) {
            Some(Window::Open(open)) => Some(open.claim().window().page.clone()),
            _ => None,
        }
    }

    /// The window to ask for on a page.
    pub(super) fn window(&self, page: &PageSummary, rows: std::ops::Range<usize>) -> PlannedWindow {
        PlannedWindow {
            page: page.key.clone(),
            index: page.index,
            broadcast: self.uid.clone(),
            rows,
            resend: self.policy.resend,
        }
    }
}

/// Whether a Broadcast may send at all, as far as it is itself concerned. One that is held does not. One that is complete
/// never does again, also when Unknown chats could be sent to again by what its channel says since.
pub(super) fn is_sending(broadcast: &Broadcast, uid: &BroadcastUid) -> bool {
    let ended = broadcast.status.as_ref().is_some_and(|status| {
        let stopped = status.stop.as_ref().map(|stop| stop.observed_generation);
        status.restarted_by.is_some()
            || status.completion_time.is_some()
            || status.hold.is_some()
            || (stopped.is_some() && stopped == broadcast.metadata.generation)
    });
    let same = broadcast.metadata.uid.as_deref() == Some(uid.as_str());
    same && !broadcast.spec.paused && broadcast.metadata.deletion_timestamp.is_none() && !ended
}
