//! The turn of one page within this process: its last stored version, and the evidence that waits to be stored.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use tokio::sync::{Mutex, MutexGuard, oneshot};

use super::{LedgerError, Merged};
use crate::api::BroadcastBatch;
use crate::domain::discretion::without_chat;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::outcome::Row;
use crate::domain::page::Page;

/// Pages whose last version is kept in memory, so that the next write needs no read. At 50 KB a page that is 50 MB at
/// most; pages that are being written are never dropped.
const CACHED_PAGES: usize = 1024;
/// So many pages are not worth looking through.
const FEW_PAGES: usize = 64;

/// The turns of all pages that are written, or were written last.
pub(super) struct Slots {
    slots: HashMap<ObjectKey, Arc<Slot>>,
    /// Number at which they are looked through: well above what was left the last time, so that a look costs little for
    /// each page that came since.
    full: usize,
}

impl Default for Slots {
    fn default() -> Self {
        Self { slots: HashMap::new(), full: FEW_PAGES }
    }
}

impl Slots {
    /// The turn of a page. When there are many, those of pages that do not exist any more are dropped, and at last all that
    /// nobody is writing.
    pub(super) fn of(
        &mut self,
        page: &ObjectKey,
        existing: impl FnOnce() -> HashSet<ObjectKey>,
    ) -> Arc<Slot> {
        let Self { slots, full } = self;
        if slots.len() >= *full && !slots.contains_key(page) {
            let existing = existing();
            slots.retain(|page, slot| Arc::strong_count(slot) > 1 || existing.contains(page));
            if slots.len() >= CACHED_PAGES {
                slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
            let left = slots.len();
            *full = (left + FEW_PAGES).max(CACHED_PAGES.min(2 * left));
        }
        slots.entry(page.clone()).or_default().clone()
    }

    /// The turn of a page that is written, or was lately.
    pub(super) fn get(&self, page: &ObjectKey) -> Option<&Arc<Slot>> {
        self.slots.get(page)
    }
}

/// The turn of one page.
#[derive(Default)]
pub(super) struct Slot {
    /// As it came from the API server: its rows as values would take several times as much, and are made anew as fast as
    /// they are copied.
    stored: Mutex<Option<BroadcastBatch>>,
    waiting: SyncMutex<Vec<Waiting>>,
    /// Of all whose evidence waits, one is on its way to write it.
    writer: Mutex<()>,
}

impl Slot {
    pub(super) async fn lock(&self) -> MutexGuard<'_, Option<BroadcastBatch>> {
        self.stored.lock().await
    }

    /// The right to write the evidence that waits, for one at a time. Who sends, seals or reads the page does not need it.
    pub(super) async fn write_waiting(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().await
    }

    /// Puts evidence where the next write takes it. Out: how many wait now.
    pub(super) fn enqueue(&self, waiting: Waiting) -> usize {
        let mut queue = self.queue();
        queue.push(waiting);
        queue.len()
    }

    /// Drops evidence that nobody waits for any more: whoever brought it was told that it is not stored.
    pub(super) fn forget_abandoned(&self) {
        self.queue().retain(|waiting| !waiting.answer.is_closed());
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue().len()
    }

    /// Takes all evidence that waits. Whoever takes it must store and answer it, or put it back.
    pub(super) fn take_waiting(&self) -> Vec<Waiting> {
        std::mem::take(&mut *self.queue())
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

    /// How much evidence it is.
    pub(super) fn len(&self) -> usize {
        self.evidence.len()
    }

    /// Takes the evidence into the page, if it is of the same Broadcast.
    pub(super) fn apply(&self, owner: &BroadcastUid, page: &mut Page) -> Merged {
        if &self.broadcast != owner {
            return Merged { unmatched: self.evidence.len(), ..Merged::default() };
        }
        let mut merged = Merged::default();
        for (row, evidence) in &self.evidence {
            let Some(recipient) = page.recipients().get(*row) else {
                merged.unmatched += 1;
                continue;
            };
            // What the provider says may have the number in it. The row has it already, and its details go on elsewhere.
            let detail = without_chat(&evidence.detail, &recipient.chat);
            merged.changed += usize::from(page.merge_receipt(*row, &evidence.clone().with_detail(&detail)));
        }
        merged
    }

    /// Tells who waits. Nobody may be left: the gateway then sends the receipt again.
    pub(super) fn answer(self, result: Result<Merged, LedgerError>) {
        let _ = self.answer.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: usize) -> ObjectKey {
        ObjectKey::new("shop", format!("sale-{number:05}"))
    }

    #[test]
    fn pages_that_are_gone_take_no_memory_for_long() {
        let mut slots = Slots::default();
        for number in 1..50_000 {
            slots.of(&page(number), || HashSet::from([page(number - 1)]));
            assert!(slots.slots.len() <= 2 * FEW_PAGES);
        }
    }

    #[test]
    fn evidence_that_nobody_waits_for_is_forgotten_alone() {
        let slot = Slot::default();
        let uid = || BroadcastUid::new("1".into());
        let (given_up, answer) = Waiting::new(uid(), Vec::new());
        let (wanted, _answer) = Waiting::new(uid(), vec![(7, Row::pending())]);
        slot.enqueue(given_up);
        slot.enqueue(wanted);
        drop(answer);
        slot.forget_abandoned();
        let left = slot.take_waiting();
        assert_eq!(left.iter().map(|waiting| waiting.evidence.len()).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn pages_that_exist_are_kept_up_to_a_limit_and_those_that_are_written_beyond_it() {
        let mut slots = Slots::default();
        let existing = || (0..2 * CACHED_PAGES).map(page).collect::<HashSet<_>>();
        let first = slots.of(&page(0), existing);
        for number in 1..CACHED_PAGES {
            slots.of(&page(number), existing);
            assert_eq!(slots.slots.len(), number + 1);
        }
        slots.of(&page(CACHED_PAGES), existing);
        assert_eq!(slots.slots.len(), 2, "the one that is written, and the new one");
        let held: Vec<_> = (0..2 * CACHED_PAGES).map(|number| slots.of(&page(number), existing)).collect();
        assert_eq!(slots.slots.len(), held.len());
        assert!(Arc::ptr_eq(&first, &held[0]), "a page has one turn");
    }
}
