//! The ledger: the one write path to pages.
//!
//! In: plans, windows, results, receipts. Out: stored pages. Every write is a PUT of the status with the resourceVersion
//! that the page was read with, so a writer with a stale view fails instead of overwriting. Within this process the
//! writers of one page take turns, and receipts that wait for their turn ride on the next write of anybody.
//! So many receipts come at their worst, each for another page, that all of their writes together take turns too.

mod claim;
mod error;
mod gathering;
mod not_stored;
mod plan;
mod slot;
mod store;
mod turns;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::{Api, Client};
use rand::distr::{Alphanumeric, SampleString};
use tokio::sync::broadcast;

use crate::api::BroadcastBatch;
use crate::clock;
use crate::domain::ids::{BroadcastUid, Incarnation, ObjectKey};
use crate::domain::outcome::Row;
use crate::domain::page::Page;
use crate::observed::PageIndex;

pub use claim::{AfterRecord, ClaimedRow, PlannedWindow, RecordedClaim};
pub use error::LedgerError;
use gathering::{Arrivals, longest_wait};
pub use not_stored::NotStored;
pub use plan::{SealedPage, pages_under};
use slot::{Slot, Slots, Waiting};
use store::Base;
use turns::Turns;

/// Length of the random incarnation id: 24 letters and digits hold 142 bits.
const INCARNATION_LENGTH: usize = 24;

/// Longest wait of evidence for its write to begin. Who sends receipts asks again then, and what waits in an API server's trouble does
/// not grow.
const LONGEST_TURN: Duration = Duration::from_secs(10);

/// What became of evidence that was handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Rows that it changed.
    pub changed: usize,
    /// Rows that the page does not have.
    pub unmatched: usize,
    /// Evidence that the same write stored, this one included.
    pub together: usize,
}

/// Whether evidence waits for more, to be stored with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    ForMore,
    None,
}

/// The one write path to pages. Shared by planner, dispatcher and receipts server.
pub struct Ledger {
    client: Client,
    observed: Arc<PageIndex>,
    incarnation: Incarnation,
    attempts: AtomicU64,
    live: Arc<claim::LiveClaims>,
    slots: Mutex<Slots>,
    arrivals: Mutex<Arrivals>,
    receipt_writes: Turns,
    refused: broadcast::Sender<NotStored>,
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
            arrivals: Mutex::default(),
            receipt_writes: Turns::new(),
            refused: broadcast::Sender::new(not_stored::REMEMBERED),
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
        self.store(page, broadcast, evidence, Patience::ForMore).await
    }

    /// The same for evidence that was gathered before: it waits for no more.
    pub async fn merge_gathered(
        &self,
        page: &ObjectKey,
        broadcast: &BroadcastUid,
        evidence: Vec<(usize, Row)>,
    ) -> Result<Merged, LedgerError> {
        self.store(page, broadcast, evidence, Patience::None).await
    }

    /// Whether evidence waits for a write of this page, with which more can go.
    #[must_use]
    pub fn is_awaited(&self, page: &ObjectKey) -> bool {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(page).is_some_and(|slot| slot.waiting() > 0)
    }

    async fn store(
        &self,
        page: &ObjectKey,
        broadcast: &BroadcastUid,
        evidence: Vec<(usize, Row)>,
        patience: Patience,
    ) -> Result<Merged, LedgerError> {
        let slot = self.slot(page);
        let (waiting, mut answer) = Waiting::new(broadcast.clone(), evidence);
        let turn = async {
            match patience {
                Patience::ForMore => self.gather(&slot, waiting).await,
                Patience::None => {
                    slot.enqueue(waiting);
                }
            }
            // In this order: who waits for room must not keep the page from its sender.
            (slot.write_waiting().await, self.receipt_writes.take(broadcast).await, slot.lock().await)
        };
        let turn = tokio::select! {
            biased;
            stored = &mut answer => return stored.unwrap_or(Err(LedgerError::Abandoned)),
            turn = tokio::time::timeout(LONGEST_TURN, turn) => turn,
        };
        let Ok((_writer, _room, mut stored)) = turn else {
            drop(answer);
            slot.forget_abandoned();
            return Err(LedgerError::Abandoned);
        };
        if let Ok(answered) = answer.try_recv() {
            return answered;
        }
        self.write(page, broadcast, &slot, &mut stored, Base::Any, |_| Ok(())).await?;
        drop(stored);
        answer.await.unwrap_or(Err(LedgerError::Abandoned))
    }

    /// Puts evidence where the next write takes it, and waits until it should be written. The first one that waits looks out for
    /// more; the others rely on it, but not for ever.
    async fn gather(&self, slot: &Slot, waiting: Waiting) {
        let since = clock::monotonic();
        self.arrivals().note(since);
        let is_first = slot.enqueue(waiting) == 1;
        loop {
            let until = self.arrivals().wait_until(since, slot.waiting());
            let left = until.saturating_duration_since(clock::monotonic());
            if left.is_zero() {
                return;
            }
            clock::wait(if is_first { left } else { longest_wait() }).await;
        }
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
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
