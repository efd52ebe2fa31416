//! Ids that no message had when their receipts came: perhaps the answer to the send was still on its way, perhaps the
//! message is none of ours. Time tells them apart. Time comes in.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Ids that are remembered for a channel. With a hash and a time each that is about 400 KiB.
const MAX_IDS: usize = 8192;

/// The ids of one channel that were refused as perhaps too early, and when first.
#[derive(Default)]
pub struct RefusedIds {
    remembered: Mutex<Remembered>,
    key: RandomState,
}

#[derive(Default)]
struct Remembered {
    first: HashMap<u64, Instant>,
    order: VecDeque<u64>,
}

impl RefusedIds {
    /// Whether one of these ids has not been refused before.
    pub fn is_any_new<'a>(&self, mut ids: impl Iterator<Item = &'a str>) -> bool {
        let remembered = self.lock();
        ids.any(|id| !remembered.first.contains_key(&self.key.hash_one(id)))
    }

    /// Whether this id may still turn out to be of a message whose answer is on its way, and should come again.
    /// After `patience`, the longest time that a request waits for its answer, it is none of ours.
    pub fn is_early(&self, id: &str, now: Instant, patience: Duration) -> bool {
        self.lock().is_early(self.key.hash_one(id), now, patience)
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn is_early(&mut self, id: u64, now: Instant, patience: Duration) -> bool {
        if let Some(first) = self.first.get(&id) {
            return now.saturating_duration_since(*first) < patience;
        }
        if self.order.len() == MAX_IDS && !self.forget_oldest(now, patience) {
            // What cannot be remembered would be refused for ever.
            return false;
        }
        self.first.insert(id, now);
        self.order.push_back(id);
        true
    }

    /// Makes room, unless the oldest id may still be wanted.
    fn forget_oldest(&mut self, now: Instant, patience: Duration) -> bool {
        let oldest = self.order.front().and_then(|id| Some((*id, *self.first.get(id)?)));
        match oldest {
            Some((id, first)) if now.saturating_duration_since(first) >= patience => {
                self.order.pop_front();
                self.first.remove(&id);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const PATIENCE: Duration = Duration::from_secs(32);

    fn early(ids: &RefusedIds, id: &str, now: Instant) -> bool {
        ids.is_early(id, now, PATIENCE)
    }

    #[test]
    fn an_unknown_id_is_early_until_every_send_of_its_time_has_been_answered() {
        let (ids, start) = (RefusedIds::default(), clock::monotonic());
        assert!(ids.is_any_new(["a"].into_iter()));
        assert!(early(&ids, "a", start));
        assert!(!ids.is_any_new(["a"].into_iter()), "it is waited for only once");
        assert!(early(&ids, "a", start + PATIENCE / 2));
        assert!(early(&ids, "b", start + PATIENCE / 2));
        assert!(!early(&ids, "a", start + PATIENCE));
        assert!(!early(&ids, "a", start + 2 * PATIENCE));
        assert!(early(&ids, "b", start + PATIENCE), "each id has its own time");
    }

    #[test]
    fn ids_that_cannot_be_remembered_are_not_refused_for_ever() {
        let (ids, start) = (RefusedIds::default(), clock::monotonic());
        let many: Vec<String> = (0..2 * MAX_IDS).map(|id| id.to_string()).collect();
        let early_of = |number, now| many.iter().take(number).filter(|id| early(&ids, id, now)).count();
        assert_eq!(early_of(many.len(), start), MAX_IDS);
        assert_eq!(ids.lock().first.len(), MAX_IDS);
        // The old ones are done with, and make room for others.
        assert_eq!(early_of(MAX_IDS, start + PATIENCE), 0);
        assert!(early(&ids, "new", start + PATIENCE));
        assert_eq!(ids.lock().first.len(), MAX_IDS);
    }
}
