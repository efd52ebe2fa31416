//! Names of leases, and what tells them apart. Pure.

use sha2::{Digest, Sha256};

use crate::domain::ids::{ObjectKey, ReplicaId};

/// Label on every lease: the name that replicas who share their work have in common.
pub(super) const GROUP_LABEL: &str = "broadcast-operator.dev/replicas-of";
/// Label on every lease: what it is for.
pub(super) const ROLE_LABEL: &str = "broadcast-operator.dev/lease";
/// Annotation on the lease of a channel: which one, as `namespace/name`.
pub(super) const CHANNEL_ANNOTATION: &str = "broadcast-operator.dev/channel";
/// Annotation on the lease of a replica: UID of its pod.
pub(super) const POD_ANNOTATION: &str = "broadcast-operator.dev/pod-uid";
/// Annotation on the lease of a replica that is ending: it takes nothing more.
pub(super) const LEAVING_ANNOTATION: &str = "broadcast-operator.dev/leaving";

/// Annotation on the lease of a replica that another one gave up: when, for people. It stands there for the
/// replica itself, which may only have slept, and learns by it that nothing else took its lease away.
pub(super) const GIVEN_UP_ANNOTATION: &str = "broadcast-operator.dev/given-up";

/// Label of such a lease, in place of its role.
pub(super) const GIVEN_UP_ROLE: &str = "given-up";

/// Annotation on the lease of a replica: how often it was renewed.
pub(super) const RENEWALS_ANNOTATION: &str = "broadcast-operator.dev/renewals";

/// Annotation on the lease of the leader: that the cluster was put back to a backup.
pub(super) const RESTORED_ANNOTATION: &str = "broadcast-operator.dev/restored";

/// Hex digits of a channel's hash in the name of its lease: 80 bits, so that no two channels ever meet.
const HASH_DIGITS: usize = 20;

/// What a lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It shows that a replica lives.
    Replica,
    /// It names the replica that plans and reports.
    Leader,
    /// It names the replica that sends for a channel.
    Channel,
}

impl Role {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Leader => "leader",
            Self::Channel => "channel",
        }
    }

    pub(super) fn of_label(label: &str) -> Option<Self> {
        [Self::Replica, Self::Leader, Self::Channel].into_iter().find(|role| role.label() == label)
    }
}

/// Random letters and digits that make the id of a replica its own: 51 bits, among the handful that there ever are.
pub(super) const REPLICA_LETTERS: usize = 10;

/// Name of the lease of a replica. It follows from the id, so it is found without a list.
pub(super) fn replica_lease(group: &str, id: &ReplicaId) -> String {
    let letters: Vec<char> = id.as_str().chars().collect();
    let own: String = letters[letters.len().saturating_sub(REPLICA_LETTERS)..].iter().collect();
    format!("{group}-{own}")
}

/// Name of the lease of a channel: a hash, because names of channels and namespaces together may be longer than a name.
pub(super) fn channel_lease(group: &str, channel: &ObjectKey) -> String {
    let hash = Sha256::digest(channel.to_string());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{group}-{}", &hex[..HASH_DIGITS])
}

/// The channel that an annotation names.
pub(super) fn channel_of(annotation: &str) -> Option<ObjectKey> {
    annotation.split_once('/').map(|(namespace, name)| ObjectKey::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_of_a_channel_has_the_same_short_name_for_ever_and_no_other_channel_has_it() {
        let channel = ObjectKey::new("shop", "sms");
        assert_eq!(channel_lease("broadcast-operator", &channel), "broadcast-operator-11c70c553563d6decefe");
        assert_ne!(
            channel_lease("o", &ObjectKey::new("a", "b-c")),
            channel_lease("o", &ObjectKey::new("a-b", "c"))
        );
        let long = ObjectKey::new("n".repeat(63), "c".repeat(253));
        assert!(channel_lease("broadcast-operator", &long).len() < 63);
    }

    #[test]
    fn the_lease_of_a_replica_is_found_by_its_id() {
        let id = ReplicaId::new("broadcast-operator-7d9f_x7k2m4p9q1".into());
        assert_eq!(replica_lease("broadcast-operator", &id), "broadcast-operator-x7k2m4p9q1");
        assert_eq!(replica_lease("o", &ReplicaId::new("é".into())), "o-é", "whatever somebody wrote there");
    }

    #[test]
    fn a_channel_is_found_again_in_its_annotation() {
        let channel = ObjectKey::new("shop", "sms");
        assert_eq!(channel_of(&channel.to_string()), Some(channel));
        assert_eq!(channel_of("sms"), None);
    }

    #[test]
    fn a_role_is_found_again_in_its_label() {
        for role in [Role::Replica, Role::Leader, Role::Channel] {
            assert_eq!(Role::of_label(role.label()), Some(role));
        }
        assert_eq!(Role::of_label("other"), None);
    }
}
