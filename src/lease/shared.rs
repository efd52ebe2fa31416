//! What the heart, the keeper and the rest of the process know together. Small, and never held while waiting.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch as signal};

use super::objects::Reign;
use super::{Tenure, Tenures};
use crate::domain::ids::{ObjectKey, ReplicaId};
use crate::domain::restored::Restored;
use crate::metrics::Metrics;

pub(super) struct Shared {
    state: Mutex<State>,
    leadership: signal::Sender<bool>,
    tenures: signal::Sender<Tenures>,
    /// Something changed that the keeper has to act on.
    pub(super) for_keeper: Notify,
    /// The next renewal must not wait.
    pub(super) for_heart: Notify,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    standing: Option<Standing>,
    wanted: Option<BTreeSet<ObjectKey>>,
    given_up: BTreeSet<ObjectKey>,
    is_leaving: bool,
    restored: Option<Restored>,
    /// The leader's lease, as far as it was ever seen.
    reign: Option<Reign>,
}

/// This process among the replicas.
struct Standing {
    id: ReplicaId,
    /// Until when its last renewal counts, by its own clock.
    until: Instant,
}

impl Shared {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            state: Mutex::default(),
            leadership: signal::Sender::new(false),
            tenures: signal::Sender::new(Tenures::new()),
            for_keeper: Notify::new(),
            for_heart: Notify::new(),
            metrics,
        }
    }

    /// The lease of this process was stored or renewed; its last renewal counts until `until`.
    pub(super) fn renewed(&self, id: &ReplicaId, until: Instant, now: Instant) {
        let before = self.lock().standing.replace(Standing { id: id.clone(), until });
        if before.as_ref().is_none_or(|before| before.id != *id) {
            self.for_keeper.notify_one();
        } else if before.is_some_and(|before| before.until <= now) {
            // Nobody took anything meanwhile, but what changed meanwhile was looked at by nobody: the leader begins anew.
            self.leadership.send_modify(|_| {});
            self.tenures.send_modify(|_| {});
            self.show();
        }
    }

    /// Whether the last renewal is too old: nothing may be started.
    pub(super) fn is_lapsed(&self, now: Instant) -> bool {
        let lapsed = self.lock().standing.as_ref().is_some_and(|standing| standing.until <= now);
        if lapsed {
            self.metrics.holds(false, 0);
        }
        lapsed
    }

    /// The lease of this process is gone, and everything that it held with it.
    pub(super) fn lost(&self) {
        let mut state = self.lock();
        state.standing = None;
        state.given_up.clear();
        drop(state);
        self.publish(Tenures::new(), false);
    }

    /// Who this process is among the replicas.
    pub(super) fn id(&self) -> Option<ReplicaId> {
        self.lock().standing.as_ref().map(|standing| standing.id.clone())
    }

    pub(super) fn is_leader(&self, now: Instant) -> bool {
        *self.leadership.borrow()
            && self.lock().standing.as_ref().is_some_and(|standing| now < standing.until)
    }

    pub(super) fn holds(&self, tenure: &Tenure, now: Instant) -> bool {
        let is_kept = self.tenures.borrow().get(&tenure.channel) == Some(tenure);
        let is_standing = |standing: &Standing| standing.id == tenure.replica && now < standing.until;
        is_kept && self.lock().standing.as_ref().is_some_and(is_standing)
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

    pub(super) fn gave_up(&self, tenure: &Tenure) {
        let mut state = self.lock();
        if state.standing.as_ref().is_some_and(|standing| standing.id == tenure.replica) {
            state.given_up.insert(tenure.channel.clone());
            drop(state);
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

    /// Says what this process holds and is to keep.
    pub(super) fn publish(&self, tenures: Tenures, is_leader: bool) {
        self.leadership.send_if_modified(|known| std::mem::replace(known, is_leader) != is_leader);
        self.tenures.send_if_modified(|known| {
            let is_changed = *known != tenures;
            *known = tenures;
            is_changed
        });
        self.show();
    }

    fn show(&self) {
        self.metrics.holds(*self.leadership.borrow(), self.tenures.borrow().len());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
