//! Which row a gateway's message id belongs to, for receipts that do not carry our token.
//!
//! In: rows with message ids. Out: places. It holds a hash and a place per message, about 30 bytes, and no id: 64 bits
//! under a random key confuse two of a million ids of one Broadcast with a chance below one in ten million.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::ids::BroadcastUid;

/// Page and row of a message.
type At = (u32, u32);

/// The message ids of all Broadcasts.
#[derive(Debug, Default)]
pub struct MessageIds {
    known: Mutex<HashMap<BroadcastUid, HashMap<u64, At>>>,
    key: RandomState,
}

impl MessageIds {
    /// Takes in message ids of one page. Empty ones are left out.
    pub fn note<'a>(
        &self,
        broadcast: &BroadcastUid,
        page: usize,
        ids: impl Iterator<Item = (usize, &'a str)>,
    ) {
        let mut known = self.lock();
        for (row, id) in ids.filter(|(_, id)| !id.is_empty()) {
            let (Ok(page), Ok(row)) = (u32::try_from(page), u32::try_from(row)) else { continue };
            known.entry(broadcast.clone()).or_default().insert(self.key.hash_one(id), (page, row));
        }
    }

    /// Page and row of a message of this Broadcast.
    pub fn find(&self, broadcast: &BroadcastUid, id: &str) -> Option<(usize, usize)> {
        let (page, row) = *self.lock().get(broadcast)?.get(&self.key.hash_one(id))?;
        Some((page as usize, row as usize))
    }

    /// Drops what is known of a Broadcast.
    pub fn forget(&self, broadcast: &BroadcastUid) {
        self.lock().remove(broadcast);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BroadcastUid, HashMap<u64, At>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_is_found_in_its_own_broadcast_until_that_is_forgotten() {
        let ids = MessageIds::default();
        let (sale, other) = (BroadcastUid::new("a".into()), BroadcastUid::new("b".into()));
        ids.note(&sale, 3, [(17, "wamid.1"), (18, "")].into_iter());
        assert_eq!(ids.find(&sale, "wamid.1"), Some((3, 17)));
        assert_eq!(ids.find(&sale, ""), None);
        assert_eq!(ids.find(&other, "wamid.1"), None);
        ids.forget(&sale);
        assert_eq!(ids.find(&sale, "wamid.1"), None);
    }
}
