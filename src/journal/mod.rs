//! Receipts on their way into pages: those that come together go there at once, scattered ones by way of journals.
//!
//! In: evidence that receipts brought. Out: it is stored, in its page or in a journal, when this returns. A write of a page that
//! carries one receipt costs as much as one that carries fifty. So where receipts come one here and one there, faster than such
//! writes should be made, they are stored together in a `BroadcastJournal` first, and taken into their pages some seconds later, page by
//! page. Only what says how far a message came goes this way, and only of messages that the page has as taken: everything that
//! decides who is sent to is in the pages at once.
//!
//! To take a journal in twice, late or in another order changes nothing, so whoever finds one may do it: the process that wrote
//! it, the leader when that process is gone, and the planner before it closes the pages of a Broadcast that is restarted.

mod error;
mod fold;
mod folder;
mod segments;
mod sweep;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::journal::Receipts;
use crate::domain::outcome::Row;
use crate::domain::spread::{Spread, Way};
use crate::lease::Leases;
use crate::ledger::{Ledger, Merged};
use crate::metrics::Metrics;
use crate::observed::Observed;
pub use error::JournalError;
use fold::Pace;
use folder::Waiting;
use segments::Segments;
use writer::Desks;

/// Poor writes of pages in a second, unless a flag says otherwise: few enough to be a small part of what an API server takes,
/// and enough for the receipts of most days to be in their pages at once.
pub const POOR_WRITES_PER_SECOND: u32 = 50;

/// How long receipts stay in a journal before they are taken into their pages: the longer, the more of them are of one page.
const FOLD_AFTER: Duration = Duration::from_secs(15);

/// Between two looks for journals that others left.
const SWEEP: Duration = Duration::from_secs(30);

/// After a journal was refused, those of its namespace go into pages alone for so long: what is sent again by then must not be refused again.
const REST: Duration = Duration::from_secs(10);

/// How receipts go through journals.
#[derive(Clone, Copy, Debug)]
pub struct JournalSettings {
    /// Pages that are written in a second for receipts that come one here and one there; the others go through journals.
    pub poor_writes_per_second: u32,
    /// How long receipts stay in a journal before they are taken into their pages.
    pub fold_after: Duration,
    /// Between two looks of the leader for journals that others left. One that was seen for twice as long was left.
    pub sweep_every: Duration,
}

impl Default for JournalSettings {
    fn default() -> Self {
        let poor_writes_per_second = POOR_WRITES_PER_SECOND;
        Self { poor_writes_per_second, fold_after: FOLD_AFTER, sweep_every: SWEEP }
    }
}

/// A Broadcast that receipts are of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The very one.
    pub uid: BroadcastUid,
}

/// A page that receipts are of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageOf {
    /// Its Broadcast.
    pub broadcast: Owner,
    /// Its name.
    pub key: ObjectKey,
    /// Its number, from 0.
    pub index: usize,
}

/// Stores receipts. Shared by all who have some.
pub struct Journal {
    ledger: Arc<Ledger>,
    observed: Observed,
    metrics: Metrics,
    segments: Segments,
    settings: JournalSettings,
    spread: Mutex<Spread>,
    desks: Desks,
    waiting: Mutex<Waiting>,
    pace: Pace,
    /// Namespaces in which no journals are written, and until when.
    rests: Mutex<HashMap<String, Instant>>,
}

impl Journal {
    /// A journal of a process that has stored nothing yet.
    #[must_use]
    pub fn new(
        client: Client,
        ledger: Arc<Ledger>,
        observed: Observed,
        metrics: Metrics,
        settings: JournalSettings,
    ) -> Self {
        let now = clock::monotonic();
        Self {
            segments: Segments::new(client, ledger.incarnation()),
            ledger,
            observed,
            metrics,
            settings,
            spread: Mutex::new(Spread::new(settings.poor_writes_per_second, now)),
            desks: Desks::default(),
            waiting: Mutex::default(),
            pace: Pace::new(now),
            rests: Mutex::default(),
        }
    }

    /// The pages that everything ends up in.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Stores evidence on rows of a page, as receipts bring it, and returns when it is stored.
    ///
    /// # Errors
    /// When it is not: whoever sent it has to send it again.
    pub async fn store(
        self: &Arc<Self>,
        page: &PageOf,
        evidence: Vec<(usize, Row)>,
    ) -> Result<Merged, JournalError> {
        let owner = &page.broadcast;
        let way = match self.receipts_of(page, &evidence) {
            Some(receipts) => match self.way_of(&page.key, evidence.len()) {
                Way::Journal => {
                    self.write(owner, receipts).await?;
                    return Ok(Merged::default());
                }
                way => way,
            },
            None => Way::Page,
        };
        let mut poor_write = (way == Way::PoorWrite).then(|| PoorWrite { spread: &self.spread, receipts: 0 });
        let merged = self.ledger.merge(&page.key, &owner.uid, evidence).await?;
        if let Some(poor_write) = &mut poor_write {
            poor_write.receipts = merged.together;
        }
        Ok(merged)
    }

    /// What evidence says, if it may go into a journal: only how far messages came that are recorded as taken, under ids that
    /// are known.
    fn receipts_of(&self, page: &PageOf, evidence: &[(usize, Row)]) -> Option<Receipts> {
        let Owner { key, uid } = &page.broadcast;
        let known = self.observed.pages.page(&key.namespace, uid, page.index)?;
        let ids = &self.observed.pages.message_ids;
        let has_id = |row: usize, id: &str| id.is_empty() || ids.find(uid, id) == Some((page.index, row));
        let may_wait =
            |(row, of): &(usize, Row)| known.accepted.contains(*row) && has_id(*row, &of.message_id);
        if evidence.iter().all(may_wait) { Receipts::of(page.index, evidence) } else { None }
    }

    fn way_of(&self, page: &ObjectKey, receipts: usize) -> Way {
        let is_awaited = self.ledger.is_awaited(page);
        let now = clock::monotonic();
        let way = lock(&self.spread).way_of(page, receipts, is_awaited, now);
        let rests = lock(&self.rests).get(&page.namespace).is_some_and(|until| now < *until);
        let is_open = !rests && lock(&self.waiting).has_room();
        if way == Way::Journal && !is_open { Way::Page } else { way }
    }

    /// No more journals in this namespace for a while.
    fn rest(&self, namespace: &str) {
        let now = clock::monotonic();
        let mut rests = lock(&self.rests);
        rests.retain(|_, until| now < *until);
        rests.insert(namespace.to_owned(), now + REST);
    }

    /// Takes journals into their pages until `ended`: those of this process, and while it leads what others left.
    pub async fn run(self: Arc<Self>, leases: Leases, ended: CancellationToken) {
        tokio::select! {
            () = self.fold_own(&ended) => {}
            () = self.sweep(&leases) => {}
        }
    }
}

/// A poor write that is under way, until it is dropped.
struct PoorWrite<'a> {
    spread: &'a Mutex<Spread>,
    receipts: usize,
}

impl Drop for PoorWrite<'_> {
    fn drop(&mut self) {
        lock(self.spread).poor_write_ended(self.receipts);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
