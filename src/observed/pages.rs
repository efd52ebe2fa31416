//! Summaries of all pages: what the planner counts and the dispatcher looks for, without the rows themselves.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use tokio::sync::watch as signal;

use super::message_ids::MessageIds;
use super::watch::version_of;
use crate::api::BroadcastBatch;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::page::Page;
use crate::domain::summary::{PageSummary, Place};

/// Deletions that are remembered: the answer to a write takes milliseconds, in which far fewer pages are deleted.
const REMEMBERED_DELETIONS: usize = 512;

/// Pages of one Broadcast, by index.
type Pages = BTreeMap<usize, Arc<PageSummary>>;

/// Summaries of all pages, by namespace and Broadcast.
#[derive(Debug)]
pub struct PageIndex {
    pages: Mutex<HashMap<(String, BroadcastUid), Pages>>,
    /// Message ids of all pages.
    pub message_ids: MessageIds,
    /// Versions in which pages were deleted: a write that was stored just before may be heard of just after.
    deleted: Mutex<VecDeque<(ObjectKey, u64)>>,
    synced: signal::Sender<bool>,
}

impl Default for PageIndex {
    fn default() -> Self {
        Self {
            pages: Mutex::default(),
            message_ids: MessageIds::default(),
            deleted: Mutex::default(),
            synced: signal::Sender::new(false),
        }
    }
}

impl PageIndex {
    /// Pages of one Broadcast, in their order.
    #[must_use]
    pub fn of(&self, namespace: &str, uid: &BroadcastUid) -> Vec<Arc<PageSummary>> {
        let pages = self.lock();
        pages
            .get(&(namespace.to_owned(), uid.clone()))
            .map(|pages| pages.values().cloned().collect())
            .unwrap_or_default()
    }

    /// One page of a Broadcast.
    #[must_use]
    pub fn page(&self, namespace: &str, uid: &BroadcastUid, index: usize) -> Option<Arc<PageSummary>> {
        self.lock().get(&(namespace.to_owned(), uid.clone())).and_then(|pages| pages.get(&index).cloned())
    }

    /// Takes in a stored page, unless a later version of it is known.
    pub fn note(&self, batch: &BroadcastBatch) {
        let (owner, index) = place_of(batch);
        let version = version_of(batch);
        if self
            .lock()
            .get(&owner)
            .and_then(|pages| pages.get(&index))
            .is_some_and(|p| p.resource_version >= version)
        {
            return;
        }
        let key = ObjectKey::new(owner.0.clone(), batch.name_any());
        if self.was_deleted(&key, version) {
            return;
        }
        match Page::parse(batch) {
            Ok(page) => {
                let ids = page.rows().iter().map(|row| row.message_id.as_str()).enumerate();
                self.message_ids.note(&owner.1, index, ids);
                self.insert(owner, PageSummary::of(Place { key, index, resource_version: version }, &page));
            }
            Err(error) => {
                tracing::debug!(page = batch.name_any(), %error, "page has no readable outcomes yet");
            }
        }
    }

    /// Whether nobody has stored or deleted a page after this version of it, as far as is known.
    #[must_use]
    pub fn is_latest(&self, batch: &BroadcastBatch) -> bool {
        let (owner, index) = place_of(batch);
        let known = self.page(&owner.0, &owner.1, index);
        known.is_some_and(|known| known.resource_version <= version_of(batch))
    }

    /// How many pages of a Broadcast there are.
    #[must_use]
    pub fn number(&self, namespace: &str, uid: &BroadcastUid) -> usize {
        self.lock().get(&(namespace.to_owned(), uid.clone())).map_or(0, BTreeMap::len)
    }

    /// All pages.
    #[must_use]
    pub fn keys(&self) -> HashSet<ObjectKey> {
        self.lock().values().flat_map(BTreeMap::values).map(|page| page.key.clone()).collect()
    }

    /// Drops a page that the API server no longer has.
    pub fn forget_gone(&self, key: &ObjectKey) {
        let found = self.lock().iter().find_map(|(owner, pages)| {
            let index = pages.iter().find(|(_, page)| page.key == *key).map(|(index, _)| *index);
            index.map(|index| (owner.clone(), index))
        });
        if let Some((owner, index)) = found {
            self.remove(&owner, index);
        }
    }

    /// Drops a deleted page.
    pub fn forget(&self, batch: &BroadcastBatch) {
        let (owner, index) = place_of(batch);
        let key = ObjectKey::new(owner.0.clone(), batch.name_any());
        let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        deleted.push_back((key, version_of(batch)));
        if deleted.len() > REMEMBERED_DELETIONS {
            deleted.pop_front();
        }
        drop(deleted);
        self.remove(&owner, index);
    }

    fn was_deleted(&self, key: &ObjectKey, version: u64) -> bool {
        let deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        deleted.iter().any(|(page, at)| page == key && version <= *at)
    }

    fn remove(&self, owner: &(String, BroadcastUid), index: usize) {
        let mut pages = self.lock();
        if let Some(of_owner) = pages.get_mut(owner) {
            of_owner.remove(&index);
            if of_owner.is_empty() {
                pages.remove(owner);
                self.message_ids.forget(&owner.1);
            }
        }
    }

    /// All pages that were there at the start are known.
    pub(super) fn mark_synced(&self) {
        self.synced.send_replace(true);
    }

    /// Waits until all pages that were there at the start are known.
    pub(super) async fn synced(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn insert(&self, owner: (String, BroadcastUid), summary: PageSummary) {
        let mut pages = self.lock();
        let slot = pages.entry(owner).or_default();
        let is_newer =
            slot.get(&summary.index).is_none_or(|known| known.resource_version < summary.resource_version);
        if is_newer {
            slot.insert(summary.index, Arc::new(summary));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, BroadcastUid), Pages>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place_of(batch: &BroadcastBatch) -> ((String, BroadcastUid), usize) {
    let uid = BroadcastUid::new(batch.spec.broadcast.uid.clone());
    let index = usize::try_from(batch.spec.index).unwrap_or_default();
    ((batch.namespace().unwrap_or_default(), uid), index)
}
