//! Summaries of all pages: what the planner counts and the dispatcher looks for, without the rows themselves.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use tokio::sync::watch as signal;

use super::watch::version_of;
use crate::api::{BatchCounts, BroadcastBatch, ChatOutcome, Claim, OutcomeError};
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::outcome::{Outcome, Row};
use crate::domain::page::{Page, Recipient};

/// Rows of a page that a summary holds at most: as many as a Broadcast's status shows.
const MAX_NOTABLE: usize = 200;

/// What is known of one page.
#[derive(Clone, Debug, PartialEq)]
pub struct PageSummary {
    /// Namespace and name of the page.
    pub key: ObjectKey,
    /// Number of the page, from 0.
    pub index: usize,
    /// Rows of the page.
    pub rows: usize,
    /// Outcomes, counted from the rows.
    pub counts: BatchCounts,
    /// Whether a restart took it over.
    pub sealed: bool,
    /// The window that is being sent, if any.
    pub claim: Option<Claim>,
    /// Rows under the claim without an outcome.
    pub sending: i32,
    /// Unknown rows, by how often they were tried.
    pub unknown_by_attempts: BTreeMap<u32, i32>,
    /// Version of the page that this speaks of.
    pub resource_version: u64,
    /// All rows of a page of at most 200, else its failed and unknown ones, at most 200.
    pub notable: Vec<ChatOutcome>,
}

impl PageSummary {
    /// Unknown rows that were tried fewer than `max_attempts` times.
    #[must_use]
    pub fn unknown_below(&self, max_attempts: u32) -> i32 {
        self.unknown_by_attempts.range(..max_attempts).map(|(_, rows)| rows).sum()
    }
}

/// Pages of one Broadcast, by index.
type Pages = BTreeMap<usize, Arc<PageSummary>>;

/// Summaries of all pages, by namespace and Broadcast.
#[derive(Debug)]
pub struct PageIndex {
    pages: Mutex<HashMap<(String, BroadcastUid), Pages>>,
    synced: signal::Sender<bool>,
}

impl Default for PageIndex {
    fn default() -> Self {
        Self { pages: Mutex::default(), synced: signal::Sender::new(false) }
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
        match Page::parse(batch) {
            Ok(page) => self.insert(owner, summarise(batch, &page)),
            Err(error) => {
                tracing::debug!(page = batch.name_any(), %error, "page has no readable outcomes yet");
            }
        }
    }

    /// Drops a deleted page.
    pub fn forget(&self, batch: &BroadcastBatch) {
        let (owner, index) = place_of(batch);
        let mut pages = self.lock();
        if let Some(of_owner) = pages.get_mut(&owner) {
            of_owner.remove(&index);
            if of_owner.is_empty() {
                pages.remove(&owner);
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

fn summarise(batch: &BroadcastBatch, page: &Page) -> PageSummary {
    let mut unknown_by_attempts = BTreeMap::new();
    for row in page.rows().iter().filter(|row| row.outcome == Outcome::Unknown) {
        *unknown_by_attempts.entry(row.attempts).or_insert(0) += 1;
    }
    PageSummary {
        key: ObjectKey::new(batch.namespace().unwrap_or_default(), batch.name_any()),
        index: place_of(batch).1,
        rows: page.rows().len(),
        counts: page.counts(),
        sealed: page.is_sealed(),
        claim: page.claim().cloned(),
        sending: i32::try_from(page.claimed_rows().len()).unwrap_or(i32::MAX),
        unknown_by_attempts,
        resource_version: version_of(batch),
        notable: notable_of(page),
    }
}

/// Rows of a page that a Broadcast's status may show.
#[must_use]
pub fn notable_of(page: &Page) -> Vec<ChatOutcome> {
    let all = page.rows().len() <= MAX_NOTABLE;
    let rows = page.recipients().iter().zip(page.rows());
    rows.filter(|(_, row)| all || matches!(row.outcome, Outcome::Failed | Outcome::Unknown))
        .take(MAX_NOTABLE)
        .map(|(recipient, row)| chat_outcome(recipient, row))
        .collect()
}

fn chat_outcome(recipient: &Recipient, row: &Row) -> ChatOutcome {
    let error =
        (!row.code.is_empty()).then(|| OutcomeError { code: row.code.clone(), message: row.detail.clone() });
    ChatOutcome {
        chat: recipient.chat.clone(),
        outcome: row.outcome,
        time: row.time.map(Time),
        attempts: i32::try_from(row.attempts).unwrap_or(i32::MAX),
        message_id: (!row.message_id.is_empty()).then(|| row.message_id.clone()),
        error,
    }
}
