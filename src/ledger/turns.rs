//! Turns to write pages for receipts: so many at the same time, in the order in which they were asked for, and never all of them
//! for one Broadcast.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::domain::ids::BroadcastUid;

/// Pages that are written for receipts at the same time. Those of other pages wait, and more and more of them go together then:
/// so receipts never take the API server away from sending, however many come.
const AT_ONCE: usize = 16;
/// Of these, pages of one Broadcast. One that gets receipts for all of its pages at once leaves room for the others.
const OF_ONE_BROADCAST: usize = 12;

/// Gives turns.
pub(super) struct Turns {
    all: Semaphore,
    of_broadcasts: Mutex<HashMap<BroadcastUid, Weak<Semaphore>>>,
}

/// A turn, until it is dropped.
pub(super) struct Turn<'a> {
    _of_broadcast: Option<OwnedSemaphorePermit>,
    _of_all: Option<SemaphorePermit<'a>>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { all: Semaphore::new(AT_ONCE), of_broadcasts: Mutex::default() }
    }

    /// Waits for a turn of this Broadcast.
    pub(super) async fn take(&self, broadcast: &BroadcastUid) -> Turn<'_> {
        // Neither is ever closed. In this order: who waits for its Broadcast keeps nobody else.
        let of_broadcast = self.of_broadcast(broadcast).acquire_owned().await.ok();
        Turn { _of_broadcast: of_broadcast, _of_all: self.all.acquire().await.ok() }
    }

    fn of_broadcast(&self, broadcast: &BroadcastUid) -> Arc<Semaphore> {
        let mut all = self.of_broadcasts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = all.get(broadcast).and_then(Weak::upgrade) {
            return turns;
        }
        all.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(OF_ONE_BROADCAST));
        all.insert(broadcast.clone(), Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_broadcast_with_many_pages_leaves_turns_for_others_and_is_forgotten() {
        let (turns, flood, sale) =
            (Turns::new(), BroadcastUid::new("flood".into()), BroadcastUid::new("sale".into()));
        let taken: Vec<_> = (0..AT_ONCE).map_while(|_| turns.take(&flood).now_or_never()).collect();
        assert_eq!(taken.len(), OF_ONE_BROADCAST);
        let others: Vec<_> = (0..AT_ONCE).map_while(|_| turns.take(&sale).now_or_never()).collect();
        assert_eq!(taken.len() + others.len(), AT_ONCE);
        drop((taken, others));
        assert!(turns.take(&sale).now_or_never().is_some());
        assert!(turns.take(&BroadcastUid::new("next".into())).now_or_never().is_some());
        assert_eq!(turns.of_broadcasts.lock().expect("unpoisoned").len(), 1, "the others are gone");
    }
}
