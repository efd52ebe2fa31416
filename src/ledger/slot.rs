//! The turn of one page within this process: its last stored version, and the evidence that waits to be stored.

use std::sync::{Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, oneshot};

use super::{LedgerError, Merged};
use crate::api::BroadcastBatch;
use crate::domain::ids::BroadcastUid;
use crate::domain::outcome::Row;
use crate::domain::page::Page;

/// How long evidence waits for more of the same page before it is written by itself. It bounds the writes of receipts
/// to ten per second and page, and stays well below the 250 ms in which providers want their answer.
const GROUP_COMMIT_DELAY: Duration = Duration::from_millis(100);

/// A page as it was last stored.
pub(super) struct Stored {
    pub(super) batch: BroadcastBatch,
    pub(super) page: Page,
}

/// The turn of one page.
#[derive(Default)]
pub(super) struct Slot {
    stored: Mutex<Option<Stored>>,
    waiting: SyncMutex<Vec<Waiting>>,
}

impl Slot {
    pub(super) async fn lock(&self) -> MutexGuard<'_, Option<Stored>> {
        self.stored.lock().await
    }

    pub(super) fn enqueue(&self, waiting: Waiting) {
        self.queue().push(waiting);
    }

    /// Takes all evidence that waits. Whoever takes it must store and answer it, or put it back.
    pub(super) fn take_waiting(&self) -> Vec<Waiting> {
        std::mem::take(&mut *self.queue())
    }

    pub(super) async fn linger(&self) {
        crate::clock::wait(GROUP_COMMIT_DELAY).await;
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evidence that waits to be stored, and who waits for that.
pub(super) struct Waiting {
    broadcast: BroadcastUid,
    evidence: Vec<(usize, Row)>,
    answer: oneshot::Sender<Result<Merged, LedgerError>>,
}

impl Waiting {
    pub(super) fn new(
        broadcast: BroadcastUid,
        evidence: Vec<(usize, Row)>,
    ) -> (Self, oneshot::Receiver<Result<Merged, LedgerError>>) {
        let (answer, answered) = oneshot::channel();
        (Self { broadcast, evidence, answer }, answered)
    }

    /// Takes the evidence into the page, if it is of the same Broadcast.
    pub(super) fn apply(&self, owner: &BroadcastUid, page: &mut Page) -> Merged {
        if &self.broadcast != owner {
            return Merged { changed: 0, unmatched: self.evidence.len() };
        }
        let mut merged = Merged::default();
        for (row, evidence) in &self.evidence {
            merged.unmatched += usize::from(*row >= page.rows().len());
            merged.changed += usize::from(page.merge(*row, evidence));
        }
        merged
    }

    /// Tells who waits. Nobody may be left: the gateway then sends the receipt again.
    pub(super) fn answer(self, result: Result<Merged, LedgerError>) {
        let _ = self.answer.send(result);
    }
}
