//! What the loop of a channel sees: its Broadcasts, and claims that nobody answers for.

use std::sync::Arc;
use std::time::Instant;

use kube::ResourceExt;

use super::super::lane::Lane;
use super::super::unfinished_channel;
use super::Sender;
use crate::api::{Broadcast, BroadcastChannel};
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::observed::version_of;

/// The channel when its sender began. Whoever sent for it before has written there what the next one must know, and the cache may
/// not have it yet.
pub(super) enum Begun {
    /// It is being read.
    Unread,
    /// As it was then; the cache was behind it when last looked at.
    Read(Arc<BroadcastChannel>),
    /// The cache is not behind it.
    Seen,
}

impl Sender {
    /// The channel, as it was when this sender began or later; `None` also before that is known.
    pub(super) fn channel(&mut self) -> Option<Arc<BroadcastChannel>> {
        let cached = self.context.observed.channel(&self.key);
        match (&self.begun, cached) {
            (Begun::Unread, _) => None,
            (Begun::Read(read), Some(cached))
                if cached.uid() == read.uid() && version_of(&*cached) < version_of(&**read) =>
            {
                Some(read.clone())
            }
            (_, cached) => {
                self.begun = Begun::Seen;
                cached
            }
        }
    }

    pub(super) fn look_at_broadcasts(&mut self, channel: Option<&BroadcastChannel>, now: Instant) {
        let broadcasts: Vec<Arc<Broadcast>> = self.context.observed.broadcasts.state_filter(|broadcast| {
            broadcast.namespace().as_deref() == Some(&self.key.namespace)
                && unfinished_channel(broadcast).is_some_and(|channel| channel == self.key)
        });
        for broadcast in &broadcasts {
            let Some(uid) = broadcast.metadata.uid.as_deref() else { continue };
            if !self.lanes.iter().any(|lane| lane.uid.as_str() == uid) {
                let key = ObjectKey::new(&self.key.namespace, broadcast.name_any());
                self.lanes.extend(Lane::new(broadcast, key).map(|mut lane| {
                    if let Some((_, stop)) = self.stops.remove(&lane.uid) {
                        lane.take_up(&stop, now);
                    }
                    lane
                }));
            }
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.uid.as_str() == uid) {
                lane.observe(broadcast, channel, now);
                let judged = lane.judge_receipts(broadcast, &self.context.observed);
                if let Some(stop) = judged.or_else(|| lane.lost_stop(broadcast, now)) {
                    let (key, uid) = (lane.key.clone(), lane.uid.clone());
                    self.spawn_stop(key, uid, stop);
                }
            }
        }
        for lane in &mut self.lanes {
            let is_there = broadcasts.iter().any(|b| b.metadata.uid.as_deref() == Some(lane.uid.as_str()));
            if !is_there {
                lane.drop_unsent();
            }
        }
        let (stops, observed) = (&mut self.stops, &self.context.observed);
        let is_there = |key: &ObjectKey, uid: &BroadcastUid| {
            observed.broadcast(key).is_some_and(|broadcast| broadcast.uid().as_deref() == Some(uid.as_str()))
        };
        stops.retain(|uid, (key, _)| is_there(key, uid));
        self.lanes.retain(|lane| {
            let uid = lane.uid.as_str();
            let stays = !lane.is_idle() || broadcasts.iter().any(|b| b.metadata.uid.as_deref() == Some(uid));
            if let Some(stop) = lane.stop().filter(|_| !stays && is_there(&lane.key, &lane.uid)) {
                stops.insert(lane.uid.clone(), (lane.key.clone(), stop.clone()));
            }
            stays
        });
    }

    /// Claims of processes that are gone become Unknown.
    pub(super) fn recover_orphans(&mut self, now: Instant) {
        self.unrecovered.retain(|_, again| now < *again);
        let orphans: Vec<(BroadcastUid, ObjectKey)> = self
            .lanes
            .iter()
            .flat_map(|lane| {
                let pages = self.context.observed.pages.of(&lane.key.namespace, &lane.uid);
                pages.into_iter().map(|page| (lane.uid.clone(), page))
            })
            .filter(|(_, page)| {
                page.claim.as_ref().is_some_and(|claim| !self.context.ledger.answers_for(claim))
            })
            .map(|(uid, page)| (uid, page.key.clone()))
            .filter(|(_, page)| !self.recovering.contains(page) && !self.unrecovered.contains_key(page))
            .collect();
        for (uid, page) in orphans {
            self.recovering.insert(page.clone());
            self.spawn_recovery(uid, page);
        }
    }
}
