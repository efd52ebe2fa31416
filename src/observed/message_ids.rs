//! Which row a gateway's message id belongs to, for receipts that do not carry our token.
//!
//! In: rows with message ids. Out: places. It holds a hash and a place per message, about 40 bytes, and no id: 64 bits
//! under a random key confuse two of a million ids of one Broadcast with a chance below one in ten million.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::ids::BroadcastUid;

/// Broadcast, page and row of a message. A Broadcast is a number here: UIDs are long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At {
    broadcast: u32,
    page: u32,
    row: u32,
}

/// The message ids of all Broadcasts.
#[derive(Debug, Default)]
pub struct MessageIds {
    known: Mutex<Known>,
    key: RandomState,
}

#[derive(Debug, Default)]
struct Known {
    places: HashMap<u64, At>,
    /// Those of ids that several Broadcasts have, as gateways give that count from one for each of their senders.
    more: HashMap<u64, Vec<At>>,
    numbers: HashMap<BroadcastUid, u32>,
    /// By number.
    broadcasts: HashMap<u32, Own>,
    next: u32,
}

/// What is known of one Broadcast.
#[derive(Debug)]
struct Own {
    uid: BroadcastUid,
    hashes: Vec<u64>,
}

impl MessageIds {
    /// Takes in message ids of one page. Empty ones are left out.
    pub fn note<'a>(
        &self,
        broadcast: &BroadcastUid,
        page: usize,
        ids: impl Iterator<Item = (usize, &'a str)>,
    ) {
        let mut ids = ids.filter(|(_, id)| !id.is_empty()).peekable();
        if ids.peek().is_none() {
            return;
        }
        let mut known = self.lock();
        let number = known.number_of(broadcast);
        for (row, id) in ids {
            let (Ok(page), Ok(row)) = (u32::try_from(page), u32::try_from(row)) else { continue };
            known.insert(self.key.hash_one(id), At { broadcast: number, page, row });
        }
    }

    /// Broadcast, page and row of all messages with this id: of one at most in each Broadcast.
    pub fn find_all(&self, id: &str) -> Vec<(BroadcastUid, usize, usize)> {
        let (hash, known) = (self.key.hash_one(id), self.lock());
        let more = known.more.get(&hash).into_iter().flatten();
        let all = known.places.get(&hash).into_iter().chain(more);
        let place = |at: &At| {
            let own = known.broadcasts.get(&at.broadcast)?;
            Some((own.uid.clone(), at.page as usize, at.row as usize))
        };
        all.filter_map(place).collect()
    }

    /// Page and row of a message of this Broadcast.
    pub fn find(&self, broadcast: &BroadcastUid, id: &str) -> Option<(usize, usize)> {
        let found = self.find_all(id).into_iter().find(|(uid, ..)| uid == broadcast);
        found.map(|(_, page, row)| (page, row))
    }

    /// Drops what is known of a Broadcast.
    pub fn forget(&self, broadcast: &BroadcastUid) {
        self.lock().forget(broadcast);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn number_of(&mut self, broadcast: &BroadcastUid) -> u32 {
        if let Some(number) = self.numbers.get(broadcast) {
            return *number;
        }
        // One that is still in use is passed over, should they ever begin anew.
        while self.broadcasts.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        self.numbers.insert(broadcast.clone(), self.next);
        self.broadcasts.insert(self.next, Own { uid: broadcast.clone(), hashes: Vec::new() });
        self.next
    }

    fn insert(&mut self, hash: u64, at: At) {
        match self.places.entry(hash) {
            Entry::Vacant(place) => {
                place.insert(at);
            }
            Entry::Occupied(mut place) if place.get().broadcast == at.broadcast => {
                place.insert(at);
                return;
            }
            Entry::Occupied(_) => {
                let more = self.more.entry(hash).or_default();
                if let Some(known) = more.iter_mut().find(|known| known.broadcast == at.broadcast) {
                    *known = at;
                    return;
                }
                more.push(at);
            }
        }
        if let Some(own) = self.broadcasts.get_mut(&at.broadcast) {
            own.hashes.push(hash);
        }
    }

    fn forget(&mut self, broadcast: &BroadcastUid) {
        let Some(number) = self.numbers.remove(broadcast) else { return };
        let own = self.broadcasts.remove(&number);
        for hash in own.into_iter().flat_map(|own| own.hashes) {
            let mut more = self.more.remove(&hash).unwrap_or_default();
            more.retain(|at| at.broadcast != number);
            if self.places.get(&hash).is_some_and(|at| at.broadcast == number) {
                match more.pop() {
                    Some(other) => self.places.insert(hash, other),
                    None => self.places.remove(&hash),
                };
            }
            if !more.is_empty() {
                self.more.insert(hash, more);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> BroadcastUid {
        BroadcastUid::new(text.into())
    }

    #[test]
    fn a_message_id_is_found_in_its_own_broadcast_until_that_is_forgotten() {
        let ids = MessageIds::default();
        let sale = uid("a");
        ids.note(&sale, 3, [(17, "wamid.1"), (18, "")].into_iter());
        assert_eq!(ids.find_all("wamid.1"), [(sale.clone(), 3, 17)]);
        assert_eq!((ids.find(&sale, "wamid.1"), ids.find(&uid("b"), "wamid.1")), (Some((3, 17)), None));
        assert_eq!(ids.find_all(""), []);
        // The chat was sent to again, and the gateway gave the same id to another.
        ids.note(&sale, 4, [(1, "wamid.1")].into_iter());
        assert_eq!(ids.find_all("wamid.1"), [(sale.clone(), 4, 1)]);
        ids.forget(&sale);
        assert_eq!(ids.find_all("wamid.1"), []);
    }

    #[test]
    fn an_id_that_several_broadcasts_have_is_found_in_each_that_is_left() {
        let ids = MessageIds::default();
        let all = ["a", "b", "c"].map(uid);
        for (page, broadcast) in all.iter().enumerate() {
            for _ in 0..2 {
                ids.note(broadcast, page, [(7, "1"), (page, broadcast.as_str())].into_iter());
            }
        }
        let found = || {
            let mut found = ids.find_all("1");
            found.sort();
            found
        };
        let place = |page: usize| (all[page].clone(), page, 7);
        assert_eq!(found(), [place(0), place(1), place(2)]);
        ids.forget(&all[0]);
        assert_eq!(found(), [place(1), place(2)]);
        ids.forget(&all[2]);
        assert_eq!(found(), [place(1)]);
        assert_eq!(ids.find_all("b"), [(all[1].clone(), 1, 1)]);
        ids.forget(&all[1]);
        let known = ids.lock();
        assert!(known.places.is_empty() && known.more.is_empty() && known.broadcasts.is_empty());
    }
}
