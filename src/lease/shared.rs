//! What the heart, the keeper and the rest of the process know together. Small, and never held while waiting.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{Notify, watch as signal};

use super::objects::Reign;
use super::{Held, LeaseSettings, LeaseTimes, Tenure, Tenures};
use crate::clock;
use crate::domain::ids::{ObjectKey, ReplicaId};
use crate::domain::restored::Restored;
use crate::metrics::Metrics;
use crate::observed::WatchHealth;

pub(super) struct Shared {
    times: LeaseTimes,
    /// Of the leases.
    pub(super) namespace: String,
    state: Mutex<State>,
    leadership: signal::Sender<bool>,
    tenures: signal::Sender<Tenures>,
    /// Whether the watch of the leases works.
    pub(super) sight: Arc<WatchHealth>,
    /// Something changed that the keeper has to act on.
    pub(super) for_keeper: Notify,
    /// The next renewal must not wait.
    pub(super) for_heart: Notify,
    pub(super) metrics: Metrics,
}

#[derive(Default)]
struct State {
    standing: Option<Standing>,
    /// As whom this process leads.
    leads_as: Option<ReplicaId>,
    wanted: Option<BTreeSet<ObjectKey>>,
    given_up: BTreeSet<ObjectKey>,
    /// What the leases say that this process holds, and another one is to have.
    withdrawn: Tenures,
    is_leaving: bool,
    restored: Option<Restored>,
    /// The leader's lease, as far as it was ever seen.
    reign: Option<Reign>,
    /// What the API server took for the time, and when it said so by this process's own clock.
    told: Option<(Timestamp, Instant)>,
}

/// This process among the replicas.
struct Standing {
    id: ReplicaId,
    /// When the call of its last renewal began.
    renewed: Instant,
    /// Since when its renewals have succeeded one after the other.
    since: Instant,
}

impl Shared {
    pub(super) fn new(settings: &LeaseSettings, metrics: Metrics) -> Self {
        Self {
            times: settings.times,
            namespace: settings.namespace.clone(),
            state: Mutex::default(),
            leadership: signal::Sender::new(false),
            tenures: signal::Sender::new(Tenures::new()),
            sight: Arc::default(),
            for_keeper: Notify::new(),
            for_heart: Notify::new(),
            metrics,
        }
    }

    /// The lease of this process was stored or renewed by a call that began at `started`: it counts from then on.
    pub(super) fn renewed(&self, id: &ReplicaId, started: Instant) {
        let mut state = self.lock();
        // Read under the lock, as by all who ask: whoever found the one before too old has found it so before this moment.
        let now = clock::monotonic();
        let before = state.standing.take().filter(|before| before.id == *id);
        let unbroken =
            before.as_ref().filter(|before| started <= before.renewed + self.times.longest_pause());
        let since = unbroken.map_or(now, |before| before.since);
        state.standing = Some(Standing { id: id.clone(), renewed: started, since });
        drop(state);
        let Some(before) = before else {
            self.for_keeper.notify_one();
            return;
        };
        if self.is_too_old(&before, now) {
            // Nobody took anything meanwhile, but what changed meanwhile was looked at by nobody: everything is looked at.
            self.leadership.send_modify(|_| {});
            self.tenures.send_modify(|_| {});
            self.show();
        }
    }

    /// Whether the last renewal is too old: nothing may be started.
    pub(super) fn is_lapsed(&self) -> bool {
        let state = self.lock();
        let now = clock::monotonic();
        let lapsed = state.standing.as_ref().is_some_and(|standing| self.is_too_old(standing, now));
        drop(state);
        if lapsed {
            self.metrics.holds(false, 0);
        }
        lapsed
    }

    fn is_too_old(&self, standing: &Standing, now: Instant) -> bool {
        standing.renewed + self.times.renew_deadline <= now
    }

    /// Since when the renewals of this process have succeeded one after the other, without one that failed for long; `None`
    /// while they do not.
    pub(super) fn renews_since(&self, now: Instant) -> Option<Instant> {
        let state = self.lock();
        let standing = state.standing.as_ref()?;
        (now <= standing.renewed + self.times.longest_pause()).then_some(standing.since)
    }

    /// The API server took it for `time` at `now`.
    pub(super) fn was_told(&self, time: Timestamp, now: Instant) {
        self.lock().told = Some((time, now));
    }

    /// The time by the API server's clock; `None` before it has said one. Where this process stood still meanwhile, it is earlier
    /// than that.
    pub(super) fn server_time(&self, now: Instant) -> Option<Timestamp> {
        let (time, told) = self.lock().told?;
        time.saturating_add(now.saturating_duration_since(told)).ok()
    }

    /// The lease of this process is gone, and everything that it held with it.
    pub(super) fn lost(&self) {
        let mut state = self.lock();
        state.standing = None;
        state.given_up.clear();
        drop(state);
        self.publish(None, Held::default(), false);
    }

    /// Who this process is among the replicas.
    pub(super) fn id(&self) -> Option<ReplicaId> {
        self.lock().standing.as_ref().map(|standing| standing.id.clone())
    }

    /// Whether this process leads, as who it is now: what it was before it joined again says nothing.
    pub(super) fn is_leader(&self) -> bool {
        let state = self.lock();
        let now = clock::monotonic();
        let standing =
            state.standing.as_ref().filter(|standing| state.leads_as.as_ref() == Some(&standing.id));
        standing.is_some_and(|standing| !self.is_too_old(standing, now))
    }

    pub(super) fn holds(&self, tenure: &Tenure) -> bool {
        // Not held together with the lock: who publishes takes them in the other order.
        let is_kept = self.tenures.borrow().get(&tenure.channel) == Some(tenure);
        let state = self.lock();
        let now = clock::monotonic();
        let standing = state.standing.as_ref().filter(|standing| standing.id == tenure.replica);
        is_kept && standing.is_some_and(|standing| !self.is_too_old(standing, now))
    }

    /// Whether this process is still who took the tenure, and nobody can have taken it away.
    pub(super) fn is_named_by(&self, tenure: &Tenure) -> bool {
        let state = self.lock();
        let now = clock::monotonic();
        let standing = state.standing.as_ref().filter(|standing| standing.id == tenure.replica);
        standing.is_some_and(|standing| !self.is_too_old(standing, now))
    }

    pub(super) fn leadership(&self) -> signal::Receiver<bool> {
        self.leadership.subscribe()
    }

    pub(super) fn tenures(&self) -> signal::Receiver<Tenures> {
        self.tenures.subscribe()
    }

    pub(super) fn want(&self, channels: BTreeSet<ObjectKey>) {
        let mut state = self.lock();
        if state.wanted.as_ref() != Some(&channels) {
            state.wanted = Some(channels);
            drop(state);
            self.for_keeper.notify_one();
        }
    }

    /// Channels that somebody has to send for; `None` before that is known.
    pub(super) fn wanted(&self) -> Option<BTreeSet<ObjectKey>> {
        self.lock().wanted.clone()
    }

    /// Nothing is sent under a tenure any more. It is taken away at once, and not only when the keeper has looked: until its
    /// lease is given back, the same tenure would look like a new one.
    pub(super) fn gave_up(&self, tenure: &Tenure) {
        let mut state = self.lock();
        if state.standing.as_ref().is_some_and(|standing| standing.id == tenure.replica) {
            state.given_up.insert(tenure.channel.clone());
            state.withdrawn.remove(&tenure.channel);
            self.tenures.send_if_modified(|known| {
                let is_it = known.get(&tenure.channel) == Some(tenure);
                is_it && known.remove(&tenure.channel).is_some()
            });
            drop(state);
            self.show();
            self.for_keeper.notify_one();
        }
    }

    /// Channels that were given up and whose leases still name this process.
    pub(super) fn given_up(&self) -> BTreeSet<ObjectKey> {
        self.lock().given_up.clone()
    }

    /// The lease of a channel names this process no more.
    pub(super) fn gave_back(&self, channel: &ObjectKey) {
        self.lock().given_up.remove(channel);
    }

    pub(super) fn leave(&self) {
        self.lock().is_leaving = true;
        self.for_heart.notify_one();
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.lock().is_leaving
    }

    /// Takes in the leader's lease, and the note on it.
    pub(super) fn saw_leader(&self, reign: &Reign, restored: Option<Restored>) {
        let mut state = self.lock();
        if state.reign.as_ref().is_none_or(|known| !reign.is_before(known)) {
            state.reign = Some(reign.clone());
        }
        drop(state);
        self.saw_note(restored);
    }

    /// Takes in a note. It counts from the moment at which it is seen, and everything is looked at again.
    pub(super) fn saw_note(&self, restored: Option<Restored>) {
        let mut state = self.lock();
        let is_new = restored.is_some() && state.restored != restored;
        if is_new {
            state.restored = restored;
        }
        drop(state);
        if is_new {
            self.leadership.send_modify(|_| {});
            self.tenures.send_modify(|_| {});
        }
    }

    /// The leader's lease, as far as it was ever seen; `None` when it never was.
    pub(super) fn reign(&self) -> Option<Reign> {
        self.lock().reign.clone()
    }

    pub(super) fn restored(&self) -> Option<Restored> {
        self.lock().restored.clone()
    }

    /// Tenures of which the leases still name this process, and that are to be another one's. Whoever does nothing under one has to
    /// give it up; it may never have heard that it had it.
    pub(super) fn withdrawn(&self) -> Tenures {
        self.lock().withdrawn.clone()
    }

    /// Says what this process holds, as `id`. What was given up since that was found out is not in it.
    pub(super) fn publish(&self, id: Option<&ReplicaId>, held: Held, is_leader: bool) {
        let Held { mut kept, mut withdrawn } = held;
        let mut state = self.lock();
        state.leads_as = id.filter(|_| is_leader).cloned();
        for tenures in [&mut kept, &mut withdrawn] {
            tenures.retain(|channel, _| !state.given_up.contains(channel));
        }
        self.leadership.send_if_modified(|known| std::mem::replace(known, is_leader) != is_leader);
        let is_withdrawn = state.withdrawn != withdrawn;
        state.withdrawn = withdrawn;
        self.tenures.send_if_modified(|known| {
            let is_changed = *known != kept;
            *known = kept;
            is_changed || is_withdrawn
        });
        drop(state);
        self.show();
    }

    fn show(&self) {
        self.metrics.holds(*self.leadership.borrow(), self.tenures.borrow().len());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
