//! Leases as objects: making them, and reading what they say. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, MicroTime};
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::LeaseSettings;
use super::names::{
    CHANNEL_ANNOTATION, GIVEN_UP_ANNOTATION, GIVEN_UP_ROLE, GROUP_LABEL, LEAVING_ANNOTATION, POD_ANNOTATION,
    RENEWALS_ANNOTATION, ROLE_LABEL, Role, channel_lease, channel_of,
};
use crate::domain::ids::{ObjectKey, ReplicaId};

/// A new lease of a replica, which keeps it alive from `now`.
pub(super) fn of_replica(settings: &LeaseSettings, name: &str, id: &ReplicaId, now: Timestamp) -> Lease {
    let pod = settings.pod_uid.iter().map(|uid| (POD_ANNOTATION.to_owned(), uid.clone()));
    held(lease(settings, name, Role::Replica, pod.collect()), settings, id, now)
}

/// The lease of a replica one renewal later.
pub(super) fn renewed(lease: &Lease, is_leaving: bool, now: Timestamp) -> Lease {
    let mut next = lease.clone();
    next.spec.get_or_insert_default().renew_time = Some(MicroTime(now));
    let renewals = renewals(lease).saturating_add(1);
    next.annotations_mut().insert(RENEWALS_ANNOTATION.to_owned(), renewals.to_string());
    if is_leaving {
        mark_leaving(&mut next);
    }
    next
}

/// Says that a replica takes nothing more.
pub(super) fn mark_leaving(lease: &mut Lease) {
    lease.annotations_mut().insert(LEAVING_ANNOTATION.to_owned(), "true".to_owned());
}

/// The lease of a replica that is given up, in the version that was seen: a renewal since then makes this one fail.
pub(super) fn given_up(lease: &Lease, now: Timestamp) -> Lease {
    let mut next = lease.clone();
    next.annotations_mut().insert(GIVEN_UP_ANNOTATION.to_owned(), now.to_string());
    // Versions that do not know the mark must not take it for a replica that is there, or that died long ago.
    next.labels_mut().insert(ROLE_LABEL.to_owned(), GIVEN_UP_ROLE.to_owned());
    next
}

/// A new lease of the leader.
pub(super) fn of_leader(settings: &LeaseSettings, id: &ReplicaId, now: Timestamp) -> Lease {
    held(lease(settings, &settings.name, Role::Leader, BTreeMap::new()), settings, id, now)
}

/// A lease of the leader that nobody has.
pub(super) fn of_nobody(settings: &LeaseSettings) -> Lease {
    lease(settings, &settings.name, Role::Leader, BTreeMap::new())
}

/// A new lease of a channel.
pub(super) fn of_channel(
    settings: &LeaseSettings,
    channel: &ObjectKey,
    id: &ReplicaId,
    now: Timestamp,
) -> Lease {
    let annotations = BTreeMap::from([(CHANNEL_ANNOTATION.to_owned(), channel.to_string())]);
    let name = channel_lease(&settings.name, channel);
    held(lease(settings, &name, Role::Channel, annotations), settings, id, now)
}

/// A lease with another holder, in the version that was seen.
pub(super) fn taken(lease: &Lease, settings: &LeaseSettings, id: &ReplicaId, now: Timestamp) -> Lease {
    held(lease.clone(), settings, id, now)
}

/// A lease that its holder gives back.
pub(super) fn given_back(lease: &Lease, now: Timestamp) -> Lease {
    let mut next = lease.clone();
    let spec = next.spec.get_or_insert_default();
    spec.holder_identity = Some(String::new());
    spec.renew_time = Some(MicroTime(now));
    next
}

fn lease(settings: &LeaseSettings, name: &str, role: Role, annotations: BTreeMap<String, String>) -> Lease {
    let labels = [
        ("app.kubernetes.io/managed-by", "broadcast-operator"),
        (GROUP_LABEL, &settings.name),
        (ROLE_LABEL, role.label()),
    ];
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(settings.namespace.clone()),
            labels: Some(
                labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: None,
    }
}

fn held(mut lease: Lease, settings: &LeaseSettings, id: &ReplicaId, now: Timestamp) -> Lease {
    let before = lease.spec.take();
    let transitions =
        before.and_then(|spec| spec.lease_transitions).map_or(0, |number| number.saturating_add(1));
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(id.as_str().to_owned()),
        lease_duration_seconds: Some(i32::try_from(settings.times.duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    });
    lease
}

/// What a lease is for, if it is one of ours.
pub(super) fn role(lease: &Lease) -> Option<Role> {
    lease.labels().get(ROLE_LABEL).and_then(|label| Role::of_label(label))
}

/// Who holds a lease by what stands in it; nobody, when it was given back.
pub(super) fn holder(lease: &Lease) -> Option<ReplicaId> {
    let holder = lease.spec.as_ref()?.holder_identity.as_ref().filter(|holder| !holder.is_empty())?;
    Some(ReplicaId::new(holder.clone()))
}

/// How long the holder counts on it without a renewal.
pub(super) fn duration(lease: &Lease) -> Option<Duration> {
    let seconds = lease.spec.as_ref()?.lease_duration_seconds?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// How often a replica has renewed its lease. Only it counts, so a number that is lower than one that was stored once shows
/// an older state of the cluster.
pub(super) fn renewals(lease: &Lease) -> u64 {
    lease.annotations().get(RENEWALS_ANNOTATION).and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// What only its holder changes in the lease of a replica, and does with each renewal. Whatever else changes in it, who keeps
/// labels in order or counts objects, is no sign of life.
pub(super) fn sign_of_life(lease: &Lease) -> (Option<&LeaseSpec>, Option<&String>, bool) {
    (lease.spec.as_ref(), lease.annotations().get(RENEWALS_ANNOTATION), is_leaving(lease))
}

/// How far the leader's lease has come. It only ever goes on, but in a cluster that was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reign {
    uid: Option<String>,
    created: Option<Timestamp>,
    /// How often it has changed hands.
    transitions: i32,
}

impl Reign {
    pub(super) fn of(lease: &Lease) -> Self {
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
        Self { uid: lease.uid(), created: lease.creation_timestamp().map(|time| time.0), transitions }
    }

    /// Whether this is an earlier state than `other`. A lease that somebody deleted is made anew, and begins again.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        match self.uid == other.uid {
            true => self.transitions < other.transitions,
            false => self.created < other.created,
        }
    }
}

/// When a lease was last renewed, by the clock of the API server, which notes down who wrote a field last; by the clock of its
/// holder where that is not there.
pub(super) fn renew_time(lease: &Lease) -> Option<Timestamp> {
    let wrote_it = |entry: &&ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_some_and(|fields| !fields.0["f:spec"]["f:renewTime"].is_null())
    };
    let written = lease.managed_fields().iter().filter(wrote_it).filter_map(|entry| entry.time.as_ref());
    let by_holder = || lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0);
    written.map(|time| time.0).max().or_else(by_holder)
}

/// Whether a replica was given up by another one.
pub(super) fn is_given_up(lease: &Lease) -> bool {
    lease.annotations().contains_key(GIVEN_UP_ANNOTATION)
}

/// UID of the pod of a replica.
pub(super) fn pod_uid(lease: &Lease) -> Option<&str> {
    lease.annotations().get(POD_ANNOTATION).map(String::as_str)
}

/// Whether a replica takes nothing more.
pub(super) fn is_leaving(lease: &Lease) -> bool {
    lease.annotations().contains_key(LEAVING_ANNOTATION)
}

/// The channel that a lease is for.
pub(super) fn channel(lease: &Lease) -> Option<ObjectKey> {
    lease.annotations().get(CHANNEL_ANNOTATION).and_then(|name| channel_of(name))
}
