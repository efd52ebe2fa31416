//! Takes and gives back what this process holds: looks at all leases, and acts on the difference between what is and what
//! should be.
//!
//! What is held is what the stored leases say, not what this process remembers to have asked for: a write whose answer was
//! lost is noticed when the watch brings it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;

use super::names::{GROUP_LABEL, channel_lease, replica_lease};
use super::objects::Reign;
use super::shared::Shared;
use super::view::{Myself, View};
use super::{LeaseSettings, Tenure, Tenures, note, objects};
use crate::admin::Readiness;
use crate::clock;
use crate::cluster::{ApiError, as_seen, within};
use crate::domain::ids::ReplicaId;
use crate::domain::share::share;
use crate::observed::{Change, Scope, WatchHealth, changes};

/// Leases that are written at the same time: many channels change hands together when a replica joins or dies.
const WRITES_AT_ONCE: usize = 8;
/// Longest wait without looking, in case a signal was missed.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Keeper {
    api: Api<Lease>,
    settings: LeaseSettings,
    shared: Arc<Shared>,
    changes: mpsc::Receiver<Change<Lease>>,
    view: View,
    is_synced: bool,
    health: Arc<WatchHealth>,
    readiness: Readiness,
}

/// One write of one lease.
enum Write {
    Create(Lease),
    /// A lease that is this process's, or nobody's.
    Replace(Lease),
    /// A lease of a replica that is not in view. It may have come just now, so its own lease is asked for first.
    TakeOver(Lease, ReplicaId),
    Delete(Arc<Lease>),
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
        let health = Arc::new(WatchHealth::default());
        let changes = changes(client, &[scope], Some(&labels), &health);
        Self { api, settings, shared, changes, view: View::default(), is_synced: false, health, readiness }
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
            Change::Synced => self.is_synced = true,
        }
    }

    fn next_look(&self) -> Duration {
        let silence =
            self.shared.id().and_then(|id| self.view.next_silence(&self.myself(&id), clock::monotonic()));
        silence.map_or(LONGEST_WAIT, |silence| silence.min(LONGEST_WAIT))
    }

    fn myself<'a>(&'a self, id: &'a ReplicaId) -> Myself<'a> {
        Myself { id, pod_uid: self.settings.pod_uid.as_deref(), duration: self.settings.times.duration }
    }

    /// Without its watch it knows of no other replica, and of nothing that others have given back.
    fn show_sight(&self) {
        match self.health.failing(&self.settings.namespace, clock::monotonic()) {
            None => self.readiness.open("lease-watch"),
            Some(reason) => self.readiness.close("lease-watch", reason),
        }
    }

    /// One look, and what follows from it. Returns whether everything succeeded.
    async fn act(&mut self) -> bool {
        self.show_sight();
        let Some(id) = self.shared.id().filter(|_| self.is_synced) else {
            self.shared.publish(Tenures::new(), false);
            return true;
        };
        self.read_leader();
        self.shared.publish(self.kept(&id), self.leads(&id));
        let silent = self.view.silent(&self.myself(&id), clock::monotonic());
        let of_long_ago = self.view.of_long_ago(&self.myself(&id), self.long_ago());
        if of_long_ago.iter().any(|lease| !silent.contains(lease)) {
            // It may only have a wrong clock. Nothing is taken before it gave a sign of life, or none for the lease duration.
            return true;
        }
        if !of_long_ago.is_empty() && !self.note_restore().await {
            return false;
        }
        for lease in &silent {
            tracing::warn!(replica = ?objects::holder(lease), "is silent for too long, taking over what it had");
        }
        let mut is_done = self.write(silent.into_iter().map(Write::Delete).collect()).await;
        let writes = self.wanted_writes(&id);
        is_done &= self.write(writes).await;
        self.read_leader();
        self.shared.publish(self.kept(&id), self.leads(&id));
        is_done
    }

    fn read_leader(&self) {
        if let Some(lease) = self.view.find(&self.settings.name) {
            self.shared.saw_leader(&Reign::of(&lease), note::of(&lease));
        }
    }

    /// A replica that dies is replaced within minutes. What one sent after a last sign of life before this, nobody can say: it
    /// may have lived in a time that a backup took away.
    fn long_ago(&self) -> Timestamp {
        clock::now().saturating_sub(self.settings.assume_restored_after).unwrap_or(Timestamp::MIN)
    }

    /// Notes down that the cluster was restored, before anything is taken over. Returns whether it stands there.
    async fn note_restore(&mut self) -> bool {
        match note::write(&self.api, &self.settings).await {
            Ok(note) => {
                tracing::error!(
                    %note, "a replica of long ago said no farewell, so this may be a backup: Broadcasts that were not complete are held"
                );
                self.shared.saw_note(Some(note));
                true
            }
            Err(error) => {
                tracing::warn!(%error, "failed to note down that the cluster was restored, trying again");
                false
            }
        }
    }

    fn leads(&self, id: &ReplicaId) -> bool {
        self.view.holder(&self.settings.name).as_ref() == Some(id)
    }

    /// What this process holds and is to keep.
    fn kept(&self, id: &ReplicaId) -> Tenures {
        let (given_up, holders) = (self.shared.given_up(), self.view.holders());
        let wanted = self.shared.wanted().unwrap_or_default();
        let shares = share(&wanted, &self.view.staying(), &holders);
        let kept = shares.into_iter().filter(|(channel, replica)| {
            replica == id && holders.get(channel) == Some(id) && !given_up.contains(channel)
        });
        kept.map(|(channel, replica)| (channel.clone(), Tenure { channel, replica })).collect()
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
            writes.extend(self.view.abandoned(&wanted).into_iter().map(Write::Delete));
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
            .buffer_unordered(WRITES_AT_ONCE);
        let mut made = pin!(made);
        let mut is_done = true;
        while let Some((result, write)) = made.next().await {
            is_done &= self.made(result, &write);
            // What one slow write holds up is itself alone.
            if let Some(id) = self.shared.id() {
                self.shared.publish(self.kept(&id), self.leads(&id));
            }
        }
        is_done
    }

    /// Takes in how a write ended.
    fn made(&mut self, result: Result<Found, ApiError>, write: &Write) -> bool {
        let now = clock::monotonic();
        match (result, write) {
            (Ok(Some(lease)), _) => {
                self.view.apply(Arc::new(lease), now);
                true
            }
            (Ok(None), Write::Delete(lease)) => {
                self.view.remove(lease);
                true
            }
            (Ok(None), Write::Create(lease) | Write::Replace(lease) | Write::TakeOver(lease, _)) => {
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

/// A lease after a write, whoever made the last one; `None` when there is none any more.
type Found = Option<Lease>;

async fn make(api: &Api<Lease>, group: &str, write: &Write) -> Result<Found, ApiError> {
    if let Write::TakeOver(_, holder) = write {
        match within(api.get(&replica_lease(group, holder))).await {
            // It lives, and is known from now on.
            Ok(lease) => return Ok(Some(lease)),
            // Its id is never used again, so it never comes back.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let (name, written) = match write {
        Write::Create(lease) => {
            (lease.name_any(), within(api.create(&PostParams::default(), lease)).await.map(Some))
        }
        Write::Replace(lease) | Write::TakeOver(lease, _) => {
            let name = lease.name_any();
            let written = within(api.replace(&name, &PostParams::default(), lease)).await;
            (name, written.map(Some))
        }
        Write::Delete(lease) => {
            let params = DeleteParams::default().preconditions(as_seen(lease.as_ref()));
            (lease.name_any(), within(api.delete(&lease.name_any(), &params)).await.map(|_| None))
        }
    };
    match written {
        // Somebody else was first, or nobody knows: what stands there now decides.
        Err(error) if error.is_conflict() || error.is_already_exists() || error.is_ambiguous() => {
            match within(api.get(&name)).await {
                Ok(lease) => Ok(Some(lease)),
                Err(missing) if missing.is_not_found() => Ok(None),
                Err(_) => Err(error),
            }
        }
        Err(error) if error.is_not_found() => Ok(None),
        written => written,
    }
}
