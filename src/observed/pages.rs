//! Summaries of all pages: what the planner counts and the dispatcher looks for, without the rows themselves.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use tokio::sync::watch as signal;

use super::gone::GonePages;
use super::message_ids::MessageIds;
use super::watch::version_of;
use crate::api::{Broadcast, BroadcastBatch};
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::page::Page;
use crate::domain::standing::Standing;
use crate::domain::summary::{PageSummary, Place, Reached, Seen};

/// Deletions that are remembered: the answer to a write takes milliseconds, in which far fewer pages are deleted.
const REMEMBERED_DELETIONS: usize = 512;

/// Pages of one Broadcast.
#[derive(Debug, Default)]
struct Pages {
    by_index: BTreeMap<usize, Arc<PageSummary>>,
    /// Those that cannot be read as they are now. They count as missing.
    unread: BTreeMap<usize, Unread>,
    /// All that can be read added up: it is looked at before every message.
    seen: Seen,
    /// The hold that was accepted last, as the status of the Broadcast says.
    accepted: Option<String>,
}

/// A page that cannot be read: it was never finished, or somebody else has written into it.
#[derive(Debug)]
struct Unread {
    key: ObjectKey,
    version: u64,
    /// What it was when it could be read last. When it can be again, it must not be less.
    earlier: Option<Arc<PageSummary>>,
}

impl Pages {
    /// `gone`: how far the page had come that was deleted from its place.
    fn insert(&mut self, summary: PageSummary, gone: Option<&Reached>) {
        let earlier = self.take(summary.index).map(|earlier| earlier.reached());
        let summary = match earlier.as_ref().or(gone.filter(|gone| gone.uid != summary.uid)) {
            Some(earlier) => summary.after(earlier),
            None => summary,
        };
        self.seen = self.seen.with(&summary);
        self.by_index.insert(summary.index, Arc::new(summary));
    }

    /// A page cannot be read in this version of it. Returns whether it could be before.
    fn lose(&mut self, index: usize, key: ObjectKey, version: u64) -> bool {
        let could_be_read = self.by_index.contains_key(&index);
        let earlier = self.take(index);
        self.unread.insert(index, Unread { key, version, earlier });
        could_be_read
    }

    /// Takes a page away. Out: as it could be read last.
    fn take(&mut self, index: usize) -> Option<Arc<PageSummary>> {
        let unread = self.unread.remove(&index);
        let Some(read) = self.by_index.remove(&index) else { return unread?.earlier };
        self.seen = self.seen.without(&read);
        Some(read)
    }

    /// Whether this version of a page is no news. One that could not be read may be readable as it stands, when it was the way
    /// to here that has spoiled it.
    fn has(&self, index: usize, version: u64) -> bool {
        self.by_index.get(&index).is_some_and(|page| page.resource_version >= version)
            || self.unread.get(&index).is_some_and(|unread| unread.version > version)
    }

    /// The latest version that is known of a page.
    fn version(&self, index: usize) -> Option<u64> {
        let read = self.by_index.get(&index).map(|page| page.resource_version);
        read.or_else(|| self.unread.get(&index).map(|unread| unread.version))
    }

    /// A page as it could be read last.
    fn last_read(&self, index: usize) -> Option<&Arc<PageSummary>> {
        self.by_index.get(&index).or_else(|| self.unread.get(&index)?.earlier.as_ref())
    }

    fn keys(&self) -> impl Iterator<Item = (usize, &ObjectKey)> {
        let read = self.by_index.iter().map(|(index, page)| (*index, &page.key));
        read.chain(self.unread.iter().map(|(index, unread)| (*index, &unread.key)))
    }

    /// Takes the pages as they are now for what they should be.
    fn accept(&mut self) {
        let pages = std::mem::take(&mut self.by_index);
        self.seen = Seen::default();
        for page in pages.into_values() {
            self.insert(PageSummary { behind: 0, ..page.as_ref().clone() }, None);
        }
        self.unread.values_mut().for_each(|unread| unread.earlier = None);
    }
}

/// Summaries of all pages, by namespace and Broadcast.
#[derive(Debug)]
pub struct PageIndex {
    pages: Mutex<HashMap<(String, BroadcastUid), Pages>>,
    /// Message ids of all pages.
    pub message_ids: MessageIds,
    /// Locked after `pages`, where both are.
    gone: Mutex<GonePages>,
    /// Versions in which pages were deleted: a write that was stored just before may be heard of just after.
    deleted: Mutex<VecDeque<(ObjectKey, u64)>>,
    synced: signal::Sender<bool>,
}

impl Default for PageIndex {
    fn default() -> Self {
        Self {
            pages: Mutex::default(),
            message_ids: MessageIds::default(),
            gone: Mutex::default(),
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

    /// The first page of a Broadcast of which this says so.
    #[must_use]
    pub fn first(
        &self,
        namespace: &str,
        uid: &BroadcastUid,
        is_it: impl Fn(&PageSummary) -> bool,
    ) -> Option<Arc<PageSummary>> {
        let pages = self.lock();
        pages
            .get(&(namespace.to_owned(), uid.clone()))
            .and_then(|pages| pages.by_index.values().find(|page| is_it(page)).cloned())
    }

    /// One page of a Broadcast, as it could be read last: what comes for it must not be taken for that of a stranger.
    #[must_use]
    pub fn page(&self, namespace: &str, uid: &BroadcastUid, index: usize) -> Option<Arc<PageSummary>> {
        let pages = self.lock();
        pages.get(&(namespace.to_owned(), uid.clone())).and_then(|pages| pages.last_read(index).cloned())
    }

    /// Whether anything of a Broadcast may have been sent, by all pages that could ever be read, those that are gone among them.
    #[must_use]
    pub fn were_used(&self, namespace: &str, uid: &BroadcastUid) -> bool {
        let owner = (namespace.to_owned(), uid.clone());
        let pages = self.lock();
        let is_used = pages.get(&owner).is_some_and(|pages| {
            let unread = pages.unread.values().filter_map(|unread| unread.earlier.as_ref());
            pages.by_index.values().chain(unread).any(|page| page.reached().is_used)
        });
        is_used || self.gone().has_some_of(&owner)
    }

    /// Whether a Broadcast has a page of this number or a greater one, finished or not.
    #[must_use]
    pub fn has_from(&self, namespace: &str, uid: &BroadcastUid, index: usize) -> bool {
        self.lock().get(&(namespace.to_owned(), uid.clone())).is_some_and(|pages| {
            let last = pages.by_index.keys().chain(pages.unread.keys()).max();
            last.is_some_and(|last| *last >= index)
        })
    }

    /// Takes in a page as the watch shows it: what the watch has dropped before, because a list was of the past, is back.
    pub(super) fn show(&self, batch: &BroadcastBatch) {
        let key = ObjectKey::new(batch.namespace().unwrap_or_default(), batch.name_any());
        let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        deleted.retain(|(page, _)| *page != key);
        drop(deleted);
        self.note(batch);
    }

    /// Takes in that a page cannot be read any more; `batch` is what was known of it, in the version that it has now.
    pub(super) fn lose(&self, batch: &BroadcastBatch) {
        let (owner, index) = place_of(batch);
        let key = ObjectKey::new(owner.0.clone(), batch.name_any());
        self.lost(owner, index, key, version_of(batch), &"it does not fit its schema");
    }

    /// Takes in a stored page, unless a later version of it is known. One that cannot be read, or has no outcomes, counts as
    /// missing from then on: what is known of it from before may have been overtaken.
    pub fn note(&self, batch: &BroadcastBatch) {
        let (owner, index) = place_of(batch);
        let version = version_of(batch);
        if self.lock().get(&owner).is_some_and(|pages| pages.has(index, version)) {
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
            Err(error) => self.lost(owner, index, key, version, &error),
        }
    }

    fn lost(
        &self,
        owner: (String, BroadcastUid),
        index: usize,
        key: ObjectKey,
        version: u64,
        why: &dyn std::fmt::Display,
    ) {
        let mut pages = self.lock();
        let pages = pages.entry(owner).or_default();
        // A later version may have come meanwhile.
        if pages.has(index, version) {
            return;
        }
        let page = key.to_string();
        if pages.lose(index, key, version) {
            tracing::error!(page, %why, "page cannot be read any more: nothing of its Broadcast is sent");
        } else {
            tracing::debug!(page, %why, "page has no readable outcomes yet");
        }
    }

    /// Whether nobody has stored or deleted a page after this version of it, as far as is known.
    #[must_use]
    pub fn is_latest(&self, batch: &BroadcastBatch) -> bool {
        let (owner, index) = place_of(batch);
        let known = self.lock().get(&owner).and_then(|pages| pages.version(index));
        known.is_some_and(|known| known <= version_of(batch))
    }

    /// Whether a page as it was read is not as far as this process has seen it before. Then the page was put back, or with
    /// it the whole cluster: resourceVersions of one object only rise.
    #[must_use]
    pub fn is_behind(&self, batch: &BroadcastBatch, page: &Page) -> bool {
        let (owner, index) = place_of(batch);
        let uid = batch.metadata.uid.as_deref().unwrap_or_default();
        let known = self.page(&owner.0, &owner.1, index).map(|known| known.reached());
        let known =
            known.or_else(|| self.gone().reached(&owner, index).filter(|gone| gone.uid != uid).cloned());
        known.is_some_and(|known| {
            let is_of_the_past = known.uid == uid && known.resource_version > version_of(batch);
            is_of_the_past || known.lost_in(uid, Standing::of_page(&page.counts())) > 0
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
        let pages = match accepted {
            Some(_) => Some(all.entry(owner.clone()).or_default()),
            None => all.get_mut(&owner),
        };
        if let Some(pages) = pages.filter(|pages| pages.accepted.as_ref() != accepted) {
            pages.accepted = accepted.cloned();
            pages.accept();
            self.gone().forget(&owner);
        }
    }

    /// All pages.
    #[must_use]
    pub fn keys(&self) -> HashSet<ObjectKey> {
        self.lock().values().flat_map(Pages::keys).map(|(_, key)| key.clone()).collect()
    }

    /// Drops a page that the API server no longer has.
    pub fn forget_gone(&self, key: &ObjectKey) {
        let found = self.lock().iter().find_map(|(owner, pages)| {
            let index = pages.keys().find(|(_, page)| *page == key).map(|(index, _)| index);
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
            if let Some(page) = of_owner.take(index) {
                self.gone().note(owner, &page);
            }
            if of_owner.by_index.is_empty() && of_owner.unread.is_empty() {
                self.message_ids.forget(&owner.1);
                // What was accepted once is not accepted again for pages that come back.
                if of_owner.accepted.is_none() {
                    pages.remove(owner);
                }
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
        let place = (owner.clone(), summary.index);
        let pages = pages.entry(owner).or_default();
        if !pages.has(summary.index, summary.resource_version) {
            let gone = self.gone();
            pages.insert(summary, gone.reached(&place.0, place.1));
        }
    }

    fn gone(&self) -> MutexGuard<'_, GonePages> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
