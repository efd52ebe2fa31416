//! The ledger: the one write path to pages.
//!
//! In: plans, windows, results, receipts. Out: stored pages. Every write is a PUT of the status with the resourceVersion
//! that the page was read with, so a writer with a stale view fails instead of overwriting. Within this process the
//! writers of one page take turns, and receipts that wait for their turn ride on the next write of anybody.

mod claim;
mod error;
mod plan;
mod slot;
mod store;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kube::{Api, Client};
use rand::distr::{Alphanumeric, SampleString};

use crate::api::BroadcastBatch;
use crate::domain::ids::{BroadcastUid, Incarnation, ObjectKey};
use crate::domain::outcome::Row;
use crate::domain::page::Page;
use crate::observed::PageIndex;

pub use claim::{AfterRecord, ClaimedRow, PlannedWindow, RecordedClaim};
pub use error::LedgerError;
pub use plan::{SealedPage, pages_under};
use slot::{Slot, Slots, Waiting};
use store::Base;

/// Length of the random incarnation id: 24 letters and digits hold 142 bits.
const INCARNATION_LENGTH: usize = 24;

/// What became of evidence that was handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Rows that it changed.
    pub changed: usize,
    /// Rows that the page does not have.
    pub unmatched: usize,
}

/// The one write path to pages. Shared by planner, dispatcher and receipts server.
pub struct Ledger {
    client: Client,
    observed: Arc<PageIndex>,
    incarnation: Incarnation,
    attempts: AtomicU64,
    live: Arc<claim::LiveClaims>,
    slots: Mutex<Slots>,
}

impl Ledger {
    /// A ledger of a new incarnation: every claim that is stored now is of a process that is gone.
    #[must_use]
    pub fn new(client: Client, observed: Arc<PageIndex>) -> Self {
        let random = Alphanumeric.sample_string(&mut rand::rng(), INCARNATION_LENGTH);
        Self {
            client,
            observed,
            incarnation: Incarnation::new(random),
            attempts: AtomicU64::new(0),
            live: Arc::default(),
            slots: Mutex::default(),
        }
    }

    /// The id that this process puts into its claims.
    #[must_use]
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// Reads a page, as far as this process or the API server last stored it.
    pub async fn read(&self, page: &ObjectKey) -> Result<Page, LedgerError> {
        let slot = self.slot(page);
        let mut stored = slot.lock().await;
        store::parse(page, self.load(page, &mut stored).await?)
    }

    /// A page as it is now, if it is of this Broadcast and not of a later one of its name.
    pub async fn read_of(&self, page: &ObjectKey, broadcast: &BroadcastUid) -> Result<Page, LedgerError> {
        let slot = self.slot(page);
        let mut stored = slot.lock().await;
        let batch = self.load(page, &mut stored).await?;
        match batch.spec.broadcast.uid == broadcast.as_str() {
            true => store::parse(page, batch),
            false => Err(LedgerError::Foreign { page: page.clone() }),
        }
    }

    /// Stores evidence on rows of a page, as receipts bring it, and returns when it is stored. Evidence that comes
    /// together is stored together.
    pub async fn merge(
        &self,
        page: &ObjectKey,
        broadcast: &BroadcastUid,
        evidence: Vec<(usize, Row)>,
    ) -> Result<Merged, LedgerError> {
        let slot = self.slot(page);
        let (waiting, mut answer) = Waiting::new(broadcast.clone(), evidence);
        slot.enqueue(waiting);
        tokio::select! {
            biased;
            stored = &mut answer => return stored.unwrap_or(Err(LedgerError::Abandoned)),
            () = slot.linger() => {}
        }
        let mut stored = slot.lock().await;
        if let Ok(answered) = answer.try_recv() {
            return answered;
        }
        self.write(page, broadcast, &slot, &mut stored, Base::Any, |_| Ok(())).await?;
        drop(stored);
        answer.await.unwrap_or(Err(LedgerError::Abandoned))
    }

    fn next_attempt(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed)
    }

    fn api(&self, namespace: &str) -> Api<BroadcastBatch> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn slot(&self, page: &ObjectKey) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.of(page, || self.observed.keys())
    }
}
