//! Takes and gives back what this process holds: looks at all leases, and acts on the difference between what is and what
//! should be.
//!
//! What is held is what the stored leases say, not what this process remembers to have asked for: a write whose answer was
//! lost is noticed when the watch brings it.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;

use super::names::{GROUP_LABEL, channel_lease};
use super::objects::Reign;
use super::shared::Shared;
use super::view::{Myself, View};
use super::write::{Found, Write, make};
use super::{Held, LeaseSettings, Tenure, note, objects};
use crate::admin::Readiness;
use crate::clock;
use crate::cluster::ApiError;
use crate::domain::ids::ReplicaId;
use crate::domain::share::share;
use crate::observed::{Change, Scope, changes};

/// Leases that are written at the same time: many channels change hands together when a replica joins or dies.
const WRITES_AT_ONCE: usize = 8;
/// Longest wait without looking, in case a signal was missed.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long the lease of a replica that was given up stays, for one on a machine that sleeps.
const MARKS_STAY: SignedDuration = SignedDuration::from_hours(24);

pub(super) struct Keeper {
    api: Api<Lease>,
    settings: LeaseSettings,
    shared: Arc<Shared>,
    changes: mpsc::Receiver<Change<Lease>>,
    view: View,
    is_synced: bool,
    /// UIDs of leases of long ago for which it was noted down that the cluster was restored.
    noted: BTreeSet<String>,
    /// Whether it was found out that the cluster may have been restored, and does not stand anywhere yet.
    is_unnoted: bool,
    /// When to try to give others up again, after one could not be: something else writes into its lease.
    next_giving_up: Instant,
    readiness: Readiness,
}

impl Keeper {
    pub(super) fn new(
        client: &Client,
        api: Api<Lease>,
        settings: LeaseSettings,
        shared: Arc<Shared>,
        readiness: Readiness,
    ) -> Self {
        let scope = Scope::Namespace(settings.namespace.clone());
        let labels = format!("{GROUP_LABEL}={}", settings.name);
        let changes = changes(client, &[scope], Some(&labels), &shared.sight);
        Self {
            api,
            settings,
            shared,
            changes,
            view: View::default(),
            is_synced: false,
            noted: BTreeSet::new(),
            is_unnoted: false,
            next_giving_up: clock::monotonic(),
            readiness,
        }
    }

    /// Acts until nothing feeds it any more.
    pub(super) async fn keep(mut self) {
        loop {
            let is_done = self.act().await;
            let wait = if is_done { self.next_look() } else { self.settings.times.retry_period };
            tokio::select! {
                change = self.changes.recv() => match change {
                    Some(change) => self.take(change),
                    None => return,
                },
                () = self.shared.for_keeper.notified() => {}
                () = clock::wait(wait) => {}
            }
            while let Ok(change) = self.changes.try_recv() {
                self.take(change);
            }
        }
    }

    fn take(&mut self, change: Change<Lease>) {
        match change {
            Change::Applied(lease) => self.view.apply(lease, clock::monotonic()),
            Change::Deleted(lease) => self.view.remove(&lease),
            // Its holder cannot renew it either. It is as silent as it is.
            Change::Unreadable(_) => {}
            Change::Synced => self.is_synced = true,
        }
    }

    fn next_look(&self) -> Duration {
        let now = clock::monotonic();
        let silence = self.shared.id().and_then(|id| self.view.next_silence(&self.myself(&id, now), now));
        let again = self.next_giving_up.saturating_duration_since(now);
        silence.map_or(LONGEST_WAIT, |silence| silence.max(again).min(LONGEST_WAIT))
    }

    fn myself<'a>(&'a self, id: &'a ReplicaId, now: Instant) -> Myself<'a> {
        let (pod_uid, duration) = (self.settings.pod_uid.as_deref(), self.settings.times.duration);
        Myself { id, pod_uid, duration, renews_since: self.shared.renews_since(now) }
    }

    /// Without its watch it knows of no other replica, and of nothing that others have given back.
    fn show_sight(&self) {
        match self.shared.sight.failing(&self.settings.namespace, clock::monotonic()) {
            None => self.readiness.open("lease-watch"),
            Some(reason) => self.readiness.close("lease-watch", reason),
        }
    }

    /// One look, and what follows from it. Returns whether everything succeeded.
    async fn act(&mut self) -> bool {
        self.show_sight();
        let Some(id) = self.shared.id().filter(|_| self.is_synced) else {
            self.shared.publish(None, Held::default(), false);
            return true;
        };
        self.read_leader();
        let now = clock::monotonic();
        let me = self.myself(&id, now);
        let silent = self.view.silent(&me, now);
        let mut of_long_ago = self.view.of_long_ago(&me, self.long_ago(now));
        of_long_ago.retain(|lease| !lease.uid().is_some_and(|uid| self.noted.contains(&uid)));
        if of_long_ago.iter().any(|lease| !silent.contains(lease)) {
            // It may only have a wrong clock. Nothing is taken before it gave a sign of life, or none for the lease duration.
            self.publish(&id);
            return true;
        }
        if self.is_unnoted || !of_long_ago.is_empty() {
            // What this process held before is given up too: nothing may be sent before the note stands there. Nor afterwards
            // without it, when what has shown the restore is gone meanwhile.
            self.shared.publish(Some(&id), Held::default(), false);
            self.is_unnoted = true;
            if !self.note_restore().await {
                return false;
            }
            self.is_unnoted = false;
            self.noted.extend(of_long_ago.iter().filter_map(|lease| lease.uid()));
        }
        self.publish(&id);
        let silent = if now < self.next_giving_up { Vec::new() } else { silent };
        for lease in &silent {
            tracing::warn!(replica = ?objects::holder(lease), "is silent for too long, taking over what it had");
        }
        let giving_up = silent.into_iter().map(|lease| self.give_up(lease, &id)).collect();
        let mut is_done = self.write(giving_up).await;
        let writes = self.wanted_writes(&id);
        is_done &= self.write(writes).await;
        self.read_leader();
        self.publish(&id);
        is_done
    }

    fn publish(&self, id: &ReplicaId) {
        self.shared.publish(Some(id), self.held(id), self.leads(id));
    }

    /// One that is surely dead needs no mark. Any other may only have slept.
    fn give_up(&self, lease: Arc<Lease>, id: &ReplicaId) -> Write {
        match self.myself(id, clock::monotonic()).is_of_same_pod(&lease) {
            true => Write::Delete(lease),
            false => Write::GiveUp(objects::given_up(&lease, clock::now())),
        }
    }

    fn read_leader(&self) {
        if let Some(lease) = self.view.find(&self.settings.name) {
            self.shared.saw_leader(&Reign::of(&lease), note::of(&lease));
        }
    }

    /// A replica that dies is replaced within minutes. What one sent after a last sign of life before this, nobody can say: it
    /// may have lived in a time that a backup took away. Only the API server's clock counts: it wrote down when that was, too.
    fn long_ago(&self, now: Instant) -> Timestamp {
        self.server_time(now).saturating_sub(self.settings.assume_restored_after).unwrap_or(Timestamp::MIN)
    }

    fn server_time(&self, now: Instant) -> Timestamp {
        self.shared.server_time(now).unwrap_or_else(clock::now)
    }

    /// Notes down that the cluster was restored, before anything is taken over. Returns whether it stands there.
    async fn note_restore(&mut self) -> bool {
        match Box::pin(note::write(&self.api, &self.settings)).await {
            Ok(note) => {
                tracing::error!(
                    %note, "a replica of long ago said no farewell, so this may be a backup: Broadcasts that were not complete are held"
                );
                self.shared.saw_note(Some(note));
                self.readiness.open(note::GATE);
                true
            }
            Err(error) => {
                tracing::error!(%error, "failed to note down that the cluster was restored, trying again");
                self.readiness.close(note::GATE, note::not_noted(&self.settings, &error));
                false
            }
        }
    }

    fn leads(&self, id: &ReplicaId) -> bool {
        self.view.holder(&self.settings.name).as_ref() == Some(id)
    }

    /// What this process holds: what it is to keep, and what others are to have or nobody needs any more.
    fn held(&self, id: &ReplicaId) -> Held {
        let holders = self.view.holders();
        let wanted = self.shared.wanted().unwrap_or_default();
        let shares = share(&wanted, &self.view.staying(), &holders);
        let mut held = Held::default();
        for (channel, _) in holders.into_iter().filter(|(_, holder)| holder == id) {
            let is_kept = shares.get(&channel) == Some(id);
            let of = if is_kept { &mut held.kept } else { &mut held.withdrawn };
            of.insert(channel.clone(), Tenure { channel, replica: id.clone() });
        }
        held
    }

    /// Taking what is free and this process's to have, and giving back what was given up.
    fn wanted_writes(&self, id: &ReplicaId) -> Vec<Write> {
        let (holders, now) = (self.view.holders(), clock::now());
        let mut writes = Vec::new();
        let staying = self.view.staying();
        if staying.contains(id) && self.view.holder(&self.settings.name).is_none() {
            writes.push(self.take_lead(id, now));
        }
        let Some(wanted) = self.shared.wanted() else { return writes };
        for channel in self.shared.given_up() {
            let lease = self.view.find(&channel_lease(&self.settings.name, &channel));
            match lease.filter(|_| holders.get(&channel) == Some(id)) {
                Some(lease) => writes.push(Write::Replace(objects::given_back(&lease, now))),
                None => self.shared.gave_back(&channel),
            }
        }
        for (channel, _) in share(&wanted, &staying, &holders).iter().filter(|(_, replica)| *replica == id) {
            if !holders.contains_key(channel) {
                writes.push(match self.view.find(&channel_lease(&self.settings.name, channel)) {
                    Some(lease) => self.take_free(&lease, id, now),
                    None => Write::Create(objects::of_channel(&self.settings, channel, id, now)),
                });
            }
        }
        if self.leads(id) {
            let limit =
                self.server_time(clock::monotonic()).saturating_sub(MARKS_STAY).unwrap_or(Timestamp::MIN);
            let needless = self.view.abandoned(&wanted).into_iter().chain(self.view.given_up_before(limit));
            writes.extend(needless.map(Write::Delete));
        }
        writes
    }

    /// Takes a lease that nobody in view holds.
    fn take_free(&self, lease: &Lease, id: &ReplicaId, now: Timestamp) -> Write {
        let next = objects::taken(lease, &self.settings, id, now);
        match objects::holder(lease).filter(|holder| holder != id) {
            Some(holder) => Write::TakeOver(next, holder),
            None => Write::Replace(next),
        }
    }

    fn take_lead(&self, id: &ReplicaId, now: Timestamp) -> Write {
        if let Some(lease) = self.view.find(&self.settings.name) {
            return self.take_free(&lease, id, now);
        }
        let mut lease = objects::of_leader(&self.settings, id, now);
        // Whoever deletes the lease does not take the note away with it.
        self.shared.restored().iter().for_each(|restored| note::put(&mut lease, restored));
        Write::Create(lease)
    }

    /// Makes writes. Each fails when its lease is not as it was seen. Returns whether all succeeded.
    async fn write(&mut self, writes: Vec<Write>) -> bool {
        let (api, group) = (self.api.clone(), self.settings.name.clone());
        let made = futures::stream::iter(writes)
            .map(|write| async { (make(&api, &group, &write).await, write) })
            .buffer_unordered(WRITES_AT_ONCE)
            .ready_chunks(WRITES_AT_ONCE);
        let mut made = pin!(made);
        let mut is_done = true;
        while let Some(results) = made.next().await {
            for (result, write) in results {
                is_done &= self.made(result, &write);
            }
            // What one slow write holds up is itself alone.
            if let Some(id) = self.shared.id() {
                self.publish(&id);
            }
        }
        is_done
    }

    /// Takes in how a write ended.
    fn made(&mut self, result: Result<Found, ApiError>, write: &Write) -> bool {
        let now = clock::monotonic();
        match (result, write) {
            (Ok(Some(lease)), Write::GiveUp(_)) if !objects::is_given_up(&lease) => {
                tracing::warn!(replica = ?objects::holder(&lease), "was written into meanwhile, and is not given up yet");
                self.next_giving_up = now + self.settings.times.retry_period;
                self.view.apply(Arc::new(lease), now);
                true
            }
            (Ok(Some(lease)), _) => {
                self.view.apply(Arc::new(lease), now);
                true
            }
            (Ok(None), Write::Delete(lease)) => {
                self.view.remove(lease);
                true
            }
            (
                Ok(None),
                Write::Create(lease)
                | Write::Replace(lease)
                | Write::TakeOver(lease, _)
                | Write::GiveUp(lease),
            ) => {
                if let Some(known) = self.view.find(&lease.name_any()) {
                    self.view.remove(&known);
                }
                false
            }
            (Err(error), _) => {
                tracing::warn!(%error, "failed to write a lease, trying again");
                false
            }
        }
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
