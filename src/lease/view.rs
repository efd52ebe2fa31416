//! What is known of the leases: who lives, who holds what, and who has been silent for too long. Pure; time comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;

use super::names::Role;
use super::objects;
use crate::domain::ids::{ObjectKey, ReplicaId};
use crate::observed::version_of;

/// All leases of the group, as last seen.
#[derive(Debug, Default)]
pub(super) struct View(BTreeMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    lease: Arc<Lease>,
    /// When its holder was last seen to change it, or it was first seen. Only this process's own clock counts.
    since: Instant,
    /// Whether its holder has changed it since it was first seen.
    has_changed: bool,
}

impl View {
    /// Takes in a lease as it is stored, unless a later version of it is known.
    pub(super) fn apply(&mut self, lease: Arc<Lease>, now: Instant) {
        let known = self.0.get(&lease.name_any());
        let is_new = known.is_none_or(|known| {
            known.lease.uid() != lease.uid() || version_of(known.lease.as_ref()) < version_of(lease.as_ref())
        });
        if is_new {
            let same = known.filter(|known| known.lease.uid() == lease.uid());
            let seen = match same {
                None => Seen { lease, since: now, has_changed: false },
                Some(known) if is_silent(known, &lease) => Seen { lease, ..*known },
                Some(_) => Seen { lease, since: now, has_changed: true },
            };
            self.0.insert(seen.lease.name_any(), seen);
        }
    }

    /// A lease is gone.
    pub(super) fn remove(&mut self, lease: &Lease) {
        if self.0.get(&lease.name_any()).is_some_and(|known| known.lease.uid() == lease.uid()) {
            self.0.remove(&lease.name_any());
        }
    }

    /// The lease of this name.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Lease>> {
        self.0.get(name).map(|seen| seen.lease.clone())
    }

    /// Replicas that are there, those that are ending too.
    pub(super) fn living(&self) -> BTreeSet<ReplicaId> {
        self.replicas().filter_map(|seen| objects::holder(&seen.lease)).collect()
    }

    /// Replicas that can be given something.
    pub(super) fn staying(&self) -> BTreeSet<ReplicaId> {
        let staying = self.replicas().filter(|seen| !objects::is_leaving(&seen.lease));
        staying.filter_map(|seen| objects::holder(&seen.lease)).collect()
    }

    /// Who holds the lease of this name; nobody, when its holder is gone.
    pub(super) fn holder(&self, name: &str) -> Option<ReplicaId> {
        let holder = objects::holder(&self.0.get(name)?.lease)?;
        self.living().contains(&holder).then_some(holder)
    }

    /// Who holds which channel.
    pub(super) fn holders(&self) -> BTreeMap<ObjectKey, ReplicaId> {
        let living = self.living();
        let of_channels = self.0.values().filter(|seen| objects::role(&seen.lease) == Some(Role::Channel));
        of_channels
            .filter_map(|seen| {
                let holder = objects::holder(&seen.lease).filter(|holder| living.contains(holder))?;
                Some((objects::channel(&seen.lease)?, holder))
            })
            .collect()
    }

    /// Leases of channels that nobody wants and nobody holds.
    pub(super) fn abandoned(&self, wanted: &BTreeSet<ObjectKey>) -> Vec<Arc<Lease>> {
        let holders = self.holders();
        let is_abandoned = |channel: &ObjectKey| !wanted.contains(channel) && !holders.contains_key(channel);
        let of_channels =
            self.0.values().filter(|seen| objects::channel(&seen.lease).is_some_and(|it| is_abandoned(&it)));
        of_channels.map(|seen| seen.lease.clone()).collect()
    }

    /// Leases of replicas that were given up, and were renewed before `limit` for the last time. Nobody is there any more who
    /// would learn something by them.
    pub(super) fn given_up_before(&self, limit: Timestamp) -> Vec<Arc<Lease>> {
        let given_up = self.0.values().map(|seen| &seen.lease).filter(|lease| objects::is_given_up(lease));
        let is_old = |lease: &&Arc<Lease>| objects::renew_time(lease).is_none_or(|time| time < limit);
        given_up.filter(is_old).cloned().collect()
    }

    /// Replicas that are surely dead, or were silent for so long that they must be given up.
    pub(super) fn silent(&self, me: &Myself<'_>, now: Instant) -> Vec<Arc<Lease>> {
        let silent = self.others(me).filter(|seen| me.given_up_at(seen).is_some_and(|time| now >= time));
        silent.map(|seen| seen.lease.clone()).collect()
    }

    /// Replicas that said no farewell, gave no sign of life since they were first seen here, and gave the last one before
    /// `long_ago`. Whether they are dead is for [`silent`](Self::silent) to say.
    pub(super) fn of_long_ago(&self, me: &Myself<'_>, long_ago: Timestamp) -> Vec<Arc<Lease>> {
        let is_old = |seen: &&Seen| objects::renew_time(&seen.lease).is_some_and(|time| time < long_ago);
        let old = self.others(me).filter(|seen| !seen.has_changed).filter(is_old);
        old.map(|seen| seen.lease.clone()).collect()
    }

    /// How long until a replica is to be given up, if none of them says anything more.
    pub(super) fn next_silence(&self, me: &Myself<'_>, now: Instant) -> Option<Duration> {
        let times = self.others(me).filter_map(|seen| me.given_up_at(seen));
        times.map(|time| time.saturating_duration_since(now)).min()
    }

    /// Those that were not given up.
    fn replicas(&self) -> impl Iterator<Item = &Seen> {
        let of_replicas = self.0.values().filter(|seen| objects::role(&seen.lease) == Some(Role::Replica));
        of_replicas.filter(|seen| !objects::is_given_up(&seen.lease))
    }

    fn others(&self, me: &Myself<'_>) -> impl Iterator<Item = &Seen> {
        self.replicas().filter(|seen| objects::holder(&seen.lease).as_ref() != Some(me.id))
    }
}

/// Whether a later version of a lease was written by somebody else than its holder.
fn is_silent(known: &Seen, later: &Lease) -> bool {
    objects::sign_of_life(&known.lease) == objects::sign_of_life(later)
}

/// Who looks at the leases.
pub(super) struct Myself<'a> {
    /// This replica.
    pub(super) id: &'a ReplicaId,
    /// UID of its pod.
    pub(super) pod_uid: Option<&'a str>,
    /// The lease duration that it was told.
    pub(super) duration: Duration,
    /// Since when its own renewals have succeeded one after the other; `None` while they do not. Where it could not say
    /// anything itself, the silence of the others means nothing.
    pub(super) renews_since: Option<Instant>,
}

impl Myself<'_> {
    /// An earlier process of the same pod is dead already. Of another one, what it counts on itself decides, and it gets all of
    /// that after an outage of the API server, during which nobody could renew.
    fn given_up_at(&self, seen: &Seen) -> Option<Instant> {
        if self.is_of_same_pod(&seen.lease) {
            return Some(seen.since);
        }
        let since = seen.since.max(self.renews_since?);
        Some(since + objects::duration(&seen.lease).unwrap_or(self.duration))
    }

    /// Whether a lease is that of a process of the same pod.
    pub(super) fn is_of_same_pod(&self, lease: &Lease) -> bool {
        self.pod_uid.is_some() && objects::pod_uid(lease) == self.pod_uid
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
