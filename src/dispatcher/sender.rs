//! The loop of one channel: look, claim ahead, send, record.
//!
//! All state is in this task; claims, requests and records run beside it and report back as events.

mod looking;
mod tasks;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;

use super::account::{Account, Way};
use super::lane::{Lane, is_sending};
use super::polling::Polling;
use super::status::StatusWriter;
use super::{Context, LONGEST_WAIT};
use crate::api::{Broadcast, StopStatus};
use crate::clock;
use crate::domain::answer::Answer;
use crate::domain::hold::{Books, Hold};
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::rate::RateLimit;
use crate::lease::Tenure;
use crate::ledger::LedgerError;
use crate::pulse::Loop;
use looking::Begun;
use tasks::{Answered, Claimed, Event, Wanted};

/// Rows that are claimed ahead where there is no rate limit: two pages, so that the next page's claim is stored while
/// this page is sent. At 20,000 messages/s it is 25 ms of work.
const UNLIMITED_AHEAD: usize = 500;
/// A page whose claim or recovery failed is left alone for so long.
const CLAIM_RETRY: Duration = Duration::from_secs(1);

/// Longest wait for results to be stored before the channel is handed over all the same: what is not stored by then becomes
/// Unknown, and one page that the API server does not take must not hold up all the others. A process that ends waits longer.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(20);

/// The task of one channel.
pub(super) struct Sender {
    context: Arc<Context>,
    key: ObjectKey,
    tenure: Tenure,
    begun: Begun,
    account: Account,
    lanes: Vec<Lane>,
    /// Why Broadcasts stopped whose lanes are gone: with their status, which may come back.
    stops: HashMap<BroadcastUid, (ObjectKey, StopStatus)>,
    next_lane: usize,
    in_flight: usize,
    recovering: HashSet<ObjectKey>,
    /// Pages whose recovery failed, and when to try it again.
    unrecovered: HashMap<ObjectKey, Instant>,
    /// When to look at all Broadcasts at the latest.
    next_look: Instant,
    status: StatusWriter,
    polling: Polling,
    events: UnboundedSender<Event>,
    inbox: UnboundedReceiver<Event>,
    /// Since when nothing more is to be started.
    ending_since: Option<Instant>,
}

impl Sender {
    pub(super) fn new(context: Arc<Context>, tenure: Tenure) -> Self {
        let (events, inbox) = mpsc::unbounded_channel();
        let key = tenure.channel.clone();
        let status = StatusWriter::new(context.clone(), key.clone());
        let polling = tasks::start_polling(&context, &tenure, &events);
        tasks::read_channel(&context, &key, &events);
        Self {
            context,
            key,
            tenure,
            begun: Begun::Unread,
            account: Account::new(),
            lanes: Vec::new(),
            stops: HashMap::new(),
            next_lane: 0,
            in_flight: 0,
            recovering: HashSet::new(),
            unrecovered: HashMap::new(),
            next_look: clock::monotonic(),
            status,
            polling,
            events,
            inbox,
            ending_since: None,
        }
    }

    /// Sends until `end`, and then until everything is recorded.
    pub(super) async fn run(mut self, end: CancellationToken) {
        let mut changes = self.context.observed.changes();
        let pulse = Loop::Sender(self.key.clone());
        loop {
            self.context.pulse.beat(&pulse, clock::monotonic());
            let changed = changes.has_changed().unwrap_or(false);
            changes.mark_unchanged();
            if end.is_cancelled() {
                self.ending_since.get_or_insert_with(clock::monotonic);
            }
            self.look(changed);
            self.claim_ahead();
            let wait = self.send().min(self.status.wakes_in(clock::monotonic()));
            self.record();
            self.allow_lookups();
            if self.is_done() {
                self.context.pulse.end(&pulse);
                return Box::pin(self.finish()).await;
            }
            tokio::select! {
                event = self.inbox.recv() => {
                    if let Some(event) = event {
                        self.take(event);
                    }
                    while let Ok(event) = self.inbox.try_recv() {
                        self.take(event);
                    }
                }
                _ = changes.changed() => { changes.mark_changed(); }
                () = end.cancelled(), if self.ending_since.is_none() => {}
                () = clock::wait(wait) => {}
            }
        }
    }

    /// Leaves what it knows of the account for whoever sends for the channel next.
    async fn finish(mut self) {
        self.record_rest();
        let (now, wall) = (clock::monotonic(), clock::now());
        let is_its = self.context.leases.is_named_by(&self.tenure);
        let state = self.account.state(!self.lanes.is_empty(), now, wall);
        self.status.finish(is_its.then(|| (state, self.account.day())), wall).await;
    }

    fn is_ending(&self) -> bool {
        self.ending_since.is_some()
    }

    fn is_done(&self) -> bool {
        let Some(since) = self.ending_since else { return false };
        let is_answered = self.in_flight == 0 && self.recovering.is_empty();
        let has_waited =
            || clock::monotonic() >= since + HAND_OVER_PATIENCE && !self.context.leases.is_leaving();
        is_answered && (self.lanes.iter().all(Lane::is_idle) || has_waited())
    }

    /// Takes in the caches.
    fn look(&mut self, changed: bool) {
        let (now, wall) = (clock::monotonic(), clock::now());
        let channel = self.channel();
        if let Some(channel) = self.account.observe(channel.clone(), now, wall) {
            self.read_account(channel);
        }
        self.look_at_receipts(channel.as_ref());
        if changed || self.lanes.is_empty() || now >= self.next_look {
            self.next_look = now + LONGEST_WAIT;
            self.look_at_broadcasts(channel.as_deref(), now);
            // Without the tenure, another replica's claims would look like those of a dead process.
            if self.context.leases.holds(&self.tenure) {
                self.recover_orphans(now);
            }
        }
        let active = self.lanes.iter().filter(|lane| !lane.is_idle()).count();
        match &channel {
            // Who has lost the tenure has nothing to say of the channel any more.
            Some(channel) if self.context.leases.holds(&self.tenure) => {
                let state = self.account.state(!self.lanes.is_empty(), now, wall);
                self.status.show(channel, &state, active, self.account.day(), now, wall);
            }
            _ => self.status.forget(),
        }
        if !self.may_begin(now) {
            self.lanes.iter_mut().for_each(Lane::drop_unsent);
        }
    }

    /// Whether anything may be claimed or sent, as far as the channel and this replica are concerned.
    fn may_begin(&mut self, now: Instant) -> bool {
        let is_blind = self.context.observed.blind(&self.key.namespace).is_some();
        !self.is_ending()
            && !is_blind
            && self.context.leases.holds(&self.tenure)
            && self.account.is_open(now, clock::now())
    }

    /// Stores claims for about one second of work, shared evenly by the Broadcasts that have something to send.
    fn claim_ahead(&mut self) {
        let now = clock::monotonic();
        if !self.may_begin(now) {
            return;
        }
        let total = self.account.second_of_work(UNLIMITED_AHEAD);
        let sharing = self.lanes.iter().filter(|lane| !lane.is_idle()).count().max(1);
        let share = total.div_ceil(sharing);
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            let pace = lane.rate.as_ref().map_or(share, RateLimit::per_second);
            let ahead = share.min(pace).max(1);
            let budget = ahead.saturating_sub(lane.unsent());
            if !self.may_send(lane) || budget < ahead.div_ceil(2) {
                continue;
            }
            if let Some(page) = lane.next_page(&self.context.observed, now)
                && let Some(wanted) = self.wanted(lane)
            {
                let plan = lane.window(&page, 0..0);
                let policy = lane.policy;
                self.lanes[index].begin_claim(&page, budget);
                self.spawn_claim(plan, wanted, policy, budget);
            }
        }
    }

    /// Starts as many requests as the limits allow. Returns how long to wait before looking again.
    fn send(&mut self) -> Duration {
        loop {
            let now = clock::monotonic();
            let wakes =
                self.lanes.iter().filter_map(|lane| lane.wakes_in(now)).chain(self.account.wakes_in(now));
            let look = self.next_look.saturating_duration_since(now);
            let wakes = wakes.min().unwrap_or(LONGEST_WAIT).min(look);
            let ready = self.lanes.iter().filter_map(|lane| lane.ready_in(now)).min();
            let Some(ready) = ready.filter(|_| !self.is_ending()) else { return wakes };
            if !ready.is_zero() {
                return wakes.min(ready);
            }
            match self.account.may_send(self.in_flight, now, clock::now()) {
                Ok(way) => self.send_one(way, now),
                Err(wait) => return wakes.min(wait.unwrap_or(LONGEST_WAIT)),
            }
        }
    }

    /// Starts the next request, of the lane whose turn it is.
    fn send_one(&mut self, way: Way, now: Instant) {
        let number = self.lanes.len();
        let turn = (0..number)
            .map(|step| (self.next_lane + step) % number)
            .find(|index| self.lanes[*index].ready_in(now) == Some(Duration::ZERO));
        let Some(turn) = turn else { return };
        self.next_lane = (turn + 1) % number;
        // The last look before the request: a stop that was seen by now is obeyed.
        if !self.may_send(&self.lanes[turn]) {
            self.lanes[turn].drop_unsent();
            return;
        }
        let Some((page, claimed)) = self.lanes[turn].take(now) else { return };
        self.account.take(now, clock::now());
        self.in_flight += 1;
        self.spawn_send(way, turn, page, claimed);
    }

    /// Stores results that are due.
    fn record(&mut self) {
        let now = clock::monotonic();
        for index in 0..self.lanes.len() {
            for due in self.lanes[index].due(now) {
                self.spawn_record(self.lanes[index].uid.clone(), due);
            }
        }
    }

    fn take(&mut self, event: Event) {
        let now = clock::monotonic();
        match event {
            Event::Began(channel) => self.begun = channel.map_or(Begun::Seen, Begun::Read),
            Event::Opened(version, read) => self.account.open(version, read, now, clock::now()),
            Event::LookedAtReceipts(looked) => self.account.looked_at_receipts(looked, now),
            Event::Claimed { lane, page, result } => self.claimed(&lane, page, result, now),
            Event::Answered(answered) => self.answered(answered, now),
            Event::Recorded { lane, page, was_last, result } => {
                if let Err(error) = result {
                    tracing::error!(channel = %self.key, page, %error, "results could not be stored");
                }
                if let Some(lane) = self.lane(&lane) {
                    lane.recorded(page, was_last);
                }
            }
            Event::ResultsLost { lane, page } => {
                tracing::error!(channel = %self.key, page, "results were lost: what is not recorded becomes Unknown");
                if let Some(lane) = self.lane(&lane) {
                    lane.lost_results(page);
                }
            }
            Event::StopStored { lane } => {
                if let Some(lane) = self.lane(&lane) {
                    lane.stop_stored(now);
                }
            }
            Event::Recovered { page, result } => self.recovered(page, result, now),
            Event::LookupRefused(refused) => self.account.lookup_refused(&refused, now),
        }
    }

    fn claimed(
        &mut self,
        lane: &BroadcastUid,
        page: usize,
        result: Result<Claimed, LedgerError>,
        now: Instant,
    ) {
        let wall = clock::now();
        self.context.metrics.claimed(result.is_ok());
        // A lane that is gone drops the claim, which then is an orphan and recovered.
        let Some(lane) = self.lane(lane) else { return };
        match result {
            Ok(Claimed::Window(claim)) => {
                let policy = lane.policy;
                lane.opened(claim, |row| policy.due_by(row, wall).is_some_and(|due| due <= wall));
            }
            Ok(Claimed::NotBefore(time)) => {
                let wait = Duration::try_from(time.duration_since(wall)).unwrap_or(Duration::ZERO);
                lane.not_due(page, now + wait);
            }
            Ok(Claimed::Nothing) => lane.rest_page(page, now + CLAIM_RETRY),
            Err(LedgerError::Sealed { .. } | LedgerError::Gone { .. } | LedgerError::Claimed { .. }) => {
                lane.rest_page(page, now + CLAIM_RETRY);
            }
            Err(error) => {
                tracing::warn!(broadcast = %lane.key, page, %error, "claim failed, trying again");
                lane.rest_page(page, now + CLAIM_RETRY);
            }
        }
    }

    fn answered(&mut self, answered: Answered, now: Instant) {
        let Answered { token, before, door, answer } = answered;
        let wall = clock::now();
        self.in_flight -= 1;
        if let Some(Answer::Accepted { message_id, .. }) = &answer
            && !message_id.is_empty()
        {
            // Its receipt may come before the row is recorded.
            let ids = &self.context.observed.pages.message_ids;
            ids.note(&token.broadcast, token.page, std::iter::once((token.row, message_id.as_str())));
        }
        let answer = answer.map(|answer| self.account.weigh(door, answer));
        let Some(lane) = self.lane(&token.broadcast) else { return };
        let Some(answer) = answer else {
            lane.answered(token.page, token.row, None, now);
            return;
        };
        let settled = lane.policy.settle(&before, answer, wall);
        let stop = lane.judge(&settled);
        lane.answered(token.page, token.row, settled.row.clone(), now);
        let (key, uid) = (lane.key.clone(), lane.uid.clone());
        self.context.metrics.answered(&self.key, settled.row.as_ref().map(|row| row.outcome));
        self.account.feel(door, settled.effect, now, wall);
        if let Some(stop) = stop {
            self.spawn_stop(key, uid, stop);
        }
    }

    /// The Broadcast of a lane and its channel, in the versions by which it may be claimed from.
    fn wanted(&self, lane: &Lane) -> Option<Wanted> {
        let broadcast = self.context.observed.broadcast(&lane.key)?;
        Some(Wanted {
            key: lane.key.clone(),
            uid: lane.uid.clone(),
            version: broadcast.metadata.resource_version.clone(),
            channel: self.context.observed.channel(&self.key)?,
        })
    }

    fn lane(&mut self, uid: &BroadcastUid) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| &lane.uid == uid)
    }

    /// Whether a lane may start a request, by what is observed at this moment.
    fn may_send(&self, lane: &Lane) -> bool {
        let observed = &self.context.observed;
        let brake = observed.channel(&self.key).is_none_or(|channel| {
            channel.spec.paused || lane.provider.is_some_and(|provider| provider != channel.spec.provider)
        });
        let restored = self.context.leases.restored();
        let is_held = |broadcast: &Broadcast| {
            restored.as_ref().is_some_and(|restored| Hold::of_restored(broadcast, restored, None).is_some())
        };
        let is_wanted = |broadcast: &Broadcast| {
            is_sending(broadcast, &lane.uid)
                && observed.books(broadcast) == Books::Agree
                && !is_held(broadcast)
        };
        !brake
            && !lane.is_stopped()
            && self.context.leases.holds(&self.tenure)
            && observed.blind(&self.key.namespace).is_none()
            && observed.broadcast(&lane.key).is_some_and(|b| is_wanted(&b))
    }
}
