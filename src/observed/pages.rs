//! Summaries of all pages: what the planner counts and the dispatcher looks for, without the rows themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use tokio::sync::watch as signal;

use super::message_ids::MessageIds;
use super::watch::version_of;
use crate::api::{Broadcast, BroadcastBatch};
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::page::Page;
use crate::domain::standing::Standing;
use crate::domain::summary::{PageSummary, Place, Seen};

/// Deletions that are remembered: the answer to a write takes milliseconds, in which far fewer pages are deleted.
const REMEMBERED_DELETIONS: usize = 512;

/// Pages of one Broadcast.
#[derive(Debug, Default)]
struct Pages {
    by_index: BTreeMap<usize, Arc<PageSummary>>,
    /// Numbers of those that have no outcomes that can be read, and never had.
    unfinished: BTreeSet<usize>,
    /// All of them added up: it is looked at before every message.
    seen: Seen,
    /// The hold that was accepted last, as the status of the Broadcast says.
    accepted: Option<String>,
}

impl Pages {
    fn insert(&mut self, summary: PageSummary) {
        let summary = match self.remove(summary.index) {
            Some(earlier) => summary.after(&earlier),
            None => summary,
        };
        self.unfinished.remove(&summary.index);
        self.seen = self.seen.with(&summary);
        self.by_index.insert(summary.index, Arc::new(summary));
    }

    fn remove(&mut self, index: usize) -> Option<Arc<PageSummary>> {
        let removed = self.by_index.remove(&index)?;
        self.seen = self.seen.without(&removed);
        Some(removed)
    }

    /// Takes the pages as they are now for what they should be.
    fn accept(&mut self) {
        let pages = std::mem::take(&mut self.by_index);
        self.seen = Seen::default();
        for page in pages.into_values() {
            self.insert(PageSummary { behind: 0, ..page.as_ref().clone() });
        }
    }
}

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
            .map(|pages| pages.by_index.values().cloned().collect())
            .unwrap_or_default()
    }

    /// One page of a Broadcast.
    #[must_use]
    pub fn page(&self, namespace: &str, uid: &BroadcastUid, index: usize) -> Option<Arc<PageSummary>> {
        self.lock()
            .get(&(namespace.to_owned(), uid.clone()))
            .and_then(|pages| pages.by_index.get(&index).cloned())
    }

    /// Whether a Broadcast has a page of this number or a greater one, finished or not.
    #[must_use]
    pub fn has_from(&self, namespace: &str, uid: &BroadcastUid, index: usize) -> bool {
        self.lock().get(&(namespace.to_owned(), uid.clone())).is_some_and(|pages| {
            let last = pages.by_index.keys().chain(&pages.unfinished).max();
            last.is_some_and(|last| *last >= index)
        })
    }

    /// Takes in a stored page, unless a later version of it is known.
    pub fn note(&self, batch: &BroadcastBatch) {
        let (owner, index) = place_of(batch);
        let version = version_of(batch);
        if self
            .lock()
            .get(&owner)
            .and_then(|pages| pages.by_index.get(&index))
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
                let uid = batch.uid().unwrap_or_default();
                self.insert(
                    owner,
                    PageSummary::of(Place { key, index, uid, resource_version: version }, &page),
                );
            }
            Err(error) => {
                tracing::debug!(page = batch.name_any(), %error, "page has no readable outcomes yet");
                let mut pages = self.lock();
                let pages = pages.entry(owner).or_default();
                if !pages.by_index.contains_key(&index) {
                    pages.unfinished.insert(index);
                }
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

    /// Whether a page as it was read is not as far as this process has seen it before. Then the page was put back, or with
    /// it the whole cluster: resourceVersions of one object only rise.
    #[must_use]
    pub fn is_behind(&self, batch: &BroadcastBatch, page: &Page) -> bool {
        let (owner, index) = place_of(batch);
        let known = self.page(&owner.0, &owner.1, index);
        known.filter(|known| Some(&known.uid) == batch.metadata.uid.as_ref()).is_some_and(|known| {
            let standing = Standing::of_page(&page.counts());
            known.behind > 0
                || known.resource_version > version_of(batch)
                || standing.is_behind(known.standing())
        })
    }

    /// The pages of a Broadcast, added up.
    #[must_use]
    pub fn seen(&self, namespace: &str, uid: &BroadcastUid) -> Seen {
        self.lock().get(&(namespace.to_owned(), uid.clone())).map_or(Seen::default(), |pages| pages.seen)
    }

    /// Takes in what a Broadcast says of holds. Pages that went back are no longer a reason once somebody has accepted them.
    pub fn accept(&self, broadcast: &Broadcast) {
        let owner = (
            broadcast.namespace().unwrap_or_default(),
            BroadcastUid::new(broadcast.uid().unwrap_or_default()),
        );
        let accepted = broadcast.status.as_ref().and_then(|status| status.accepted_token.as_ref());
        let mut all = self.lock();
        // Few Broadcasts have ever been held. One that was is remembered before its pages come.
        let pages =
            if accepted.is_some() { Some(all.entry(owner).or_default()) } else { all.get_mut(&owner) };
        if let Some(pages) = pages.filter(|pages| pages.accepted.as_ref() != accepted) {
            pages.accepted = accepted.cloned();
            pages.accept();
        }
    }

    /// All pages.
    #[must_use]
    pub fn keys(&self) -> HashSet<ObjectKey> {
        self.lock().values().flat_map(|pages| pages.by_index.values()).map(|page| page.key.clone()).collect()
    }

    /// Drops a page that the API server no longer has.
    pub fn forget_gone(&self, key: &ObjectKey) {
        let found = self.lock().iter().find_map(|(owner, pages)| {
            let index = pages.by_index.iter().find(|(_, page)| page.key == *key).map(|(index, _)| *index);
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
            of_owner.remove(index);
            of_owner.unfinished.remove(&index);
            if of_owner.by_index.is_empty() && of_owner.unfinished.is_empty() {
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
        let pages = pages.entry(owner).or_default();
        let known = pages.by_index.get(&summary.index);
        if known.is_none_or(|known| known.resource_version < summary.resource_version) {
            pages.insert(summary);
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
