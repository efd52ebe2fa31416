//! Who sends for which channel: replicas share the channels evenly, and a change among them moves as few as it can.
//!
//! In: channels, living replicas, and who holds what. Out: for each channel the replica that should hold it. Every replica
//! computes this by itself; from the same view all of them come to the same result, and where views differ for a moment the
//! lease of the channel decides.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::{ObjectKey, ReplicaId};

/// Which replica should hold each channel. Empty when there is no replica.
#[must_use]
pub fn share(
    channels: &BTreeSet<ObjectKey>,
    replicas: &BTreeSet<ReplicaId>,
    holders: &BTreeMap<ObjectKey, ReplicaId>,
) -> BTreeMap<ObjectKey, ReplicaId> {
    if replicas.is_empty() {
        return BTreeMap::new();
    }
    let mut held: BTreeMap<&ReplicaId, Vec<&ObjectKey>> =
        replicas.iter().map(|replica| (replica, Vec::new())).collect();
    let mut free = Vec::new();
    for channel in channels {
        match holders.get(channel).and_then(|holder| held.get_mut(holder)) {
            Some(of_holder) => of_holder.push(channel),
            None => free.push(channel),
        }
    }
    // Whoever holds most keeps one more, where the channels do not divide evenly.
    let mut order: Vec<&ReplicaId> = replicas.iter().collect();
    order.sort_by_key(|replica| std::cmp::Reverse(held[*replica].len()));
    let (each, one_more) = (channels.len() / replicas.len(), channels.len() % replicas.len());
    let mut shares = BTreeMap::new();
    let mut rooms = Vec::new();
    for (place, replica) in order.into_iter().enumerate() {
        let room = each + usize::from(place < one_more);
        let of_replica = &held[replica];
        let kept = of_replica.len().min(room);
        shares.extend(of_replica[..kept].iter().map(|channel| ((*channel).clone(), replica.clone())));
        free.extend(&of_replica[kept..]);
        rooms.extend(std::iter::repeat_n(replica, room - kept));
    }
    free.sort();
    shares.extend(free.into_iter().zip(rooms).map(|(channel, replica)| (channel.clone(), replica.clone())));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(number: usize) -> ObjectKey {
        ObjectKey::new("shop", format!("channel-{number:02}"))
    }

    fn replica(number: usize) -> ReplicaId {
        ReplicaId::new(format!("replica-{number}"))
    }

    fn loads(shares: &BTreeMap<ObjectKey, ReplicaId>, replicas: &BTreeSet<ReplicaId>) -> Vec<usize> {
        replicas.iter().map(|replica| shares.values().filter(|holder| *holder == replica).count()).collect()
    }

    prop_compose! {
        /// Channels, replicas, and holders of which some are gone.
        fn any_state()(
            channels in prop::collection::btree_set(0_usize..30, 0..20),
            replicas in prop::collection::btree_set(0_usize..6, 1..6),
            holders in prop::collection::btree_map(0_usize..30, 0_usize..8, 0..25),
        ) -> (BTreeSet<ObjectKey>, BTreeSet<ReplicaId>, BTreeMap<ObjectKey, ReplicaId>) {
            (
                channels.into_iter().map(channel).collect(),
                replicas.into_iter().map(replica).collect(),
                holders.into_iter().map(|(of, by)| (channel(of), replica(by))).collect(),
            )
        }
    }

    proptest! {
        #[test]
        fn every_channel_has_one_living_replica_and_none_has_two_more_than_another(
            (channels, replicas, holders) in any_state()
        ) {
            let shares = share(&channels, &replicas, &holders);
            prop_assert_eq!(shares.keys().cloned().collect::<BTreeSet<_>>(), channels);
            prop_assert!(shares.values().all(|holder| replicas.contains(holder)));
            let loads = loads(&shares, &replicas);
            let (least, most) = (loads.iter().min(), loads.iter().max());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{:?}", loads);
        }

        #[test]
        fn what_is_shared_evenly_stays_where_it_is((channels, replicas, holders) in any_state()) {
            let shares = share(&channels, &replicas, &holders);
            prop_assert_eq!(share(&channels, &replicas, &shares), shares);
        }

        #[test]
        fn nothing_moves_that_need_not((channels, replicas, holders) in any_state()) {
            let shares = share(&channels, &replicas, &holders);
            let moved = |from: &ReplicaId| {
                shares.iter().filter(|(channel, to)| holders.get(*channel) == Some(from) && *to != from).count()
            };
            let most = channels.len().div_ceil(replicas.len());
            for replica in &replicas {
                let held = channels.iter().filter(|channel| holders.get(*channel) == Some(replica)).count();
                // Whoever has the greater share gives away only what is above it; others may have to go one lower.
                prop_assert!(moved(replica) <= (held + 1).saturating_sub(most), "{} of {}", moved(replica), held);
            }
        }

        #[test]
        fn a_replica_that_dies_moves_only_its_own_channels((channels, replicas, holders) in any_state()) {
            let before = share(&channels, &replicas, &holders);
            let dead = replicas.first().expect("at least one").clone();
            let left: BTreeSet<ReplicaId> = replicas.iter().filter(|replica| **replica != dead).cloned().collect();
            let after = share(&channels, &left, &before);
            for (channel, holder) in before.iter().filter(|(_, holder)| **holder != dead) {
                prop_assert_eq!(after.get(channel), Some(holder));
            }
        }
    }

    #[test]
    fn without_replicas_nobody_holds_anything() {
        assert!(share(&BTreeSet::from([channel(1)]), &BTreeSet::new(), &BTreeMap::new()).is_empty());
    }
}
