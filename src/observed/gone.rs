//! Pages that were deleted after they were used: whoever puts one back from a backup puts it back in time.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::domain::ids::BroadcastUid;
use crate::domain::summary::{PageSummary, Reached};

/// Deleted pages that are remembered: those of two Broadcasts of 1,000,000 chats.
const REMEMBERED: usize = 8192;

/// A Broadcast: its namespace and itself.
type Owner = (String, BroadcastUid);

/// How far pages had come that are not there any more, by their place.
#[derive(Debug, Default)]
pub(super) struct GonePages {
    places: HashMap<Owner, BTreeMap<usize, Reached>>,
    order: VecDeque<(Owner, usize)>,
}

impl GonePages {
    /// A page is gone. One that was never used may come back as anything.
    pub(super) fn note(&mut self, owner: &Owner, page: &PageSummary) {
        let reached = page.reached();
        if !reached.is_used {
            return;
        }
        self.order.push_back((owner.clone(), page.index));
        self.places.entry(owner.clone()).or_default().insert(page.index, reached);
        if self.order.len() > REMEMBERED
            && let Some((owner, index)) = self.order.pop_front()
            && !self.order.contains(&(owner.clone(), index))
        {
            self.drop_place(&owner, index);
        }
    }

    /// How far the page had come that was in this place.
    pub(super) fn reached(&self, owner: &Owner, index: usize) -> Option<&Reached> {
        self.places.get(owner)?.get(&index)
    }

    /// Whether a page of a Broadcast is gone that was used.
    pub(super) fn has_some_of(&self, owner: &Owner) -> bool {
        self.places.contains_key(owner)
    }

    /// A person has accepted the pages of a Broadcast as they are.
    pub(super) fn forget(&mut self, owner: &Owner) {
        if self.places.remove(owner).is_some() {
            self.order.retain(|(of, _)| of != owner);
        }
    }

    fn drop_place(&mut self, owner: &Owner, index: usize) {
        if let Some(places) = self.places.get_mut(owner) {
            places.remove(&index);
            if places.is_empty() {
                self.places.remove(owner);
            }
        }
    }
}
