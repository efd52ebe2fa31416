//! The way into a journal: what comes for a Broadcast within a moment is stored by one write, and answered then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{Semaphore, oneshot};

use super::folder::Backlog;
use super::segments::Segment;
use super::{Journal, JournalError, Owner, lock};
use crate::api::BroadcastJournal;
use crate::clock;
use crate::cluster::{ApiError, CALL_TIMEOUT, chain};
use crate::domain::ids::BroadcastUid;
use crate::domain::journal::Receipts;

/// How long receipts wait for others: that makes twenty writes a second for each Broadcast, and leaves most of the 250 ms in which
/// providers want their answer.
const GATHER: Duration = Duration::from_millis(50);
/// Journals that are written at the same time, those of all Broadcasts. What comes while the API server has enough to do waits,
/// and more of it goes together.
const AT_ONCE: usize = 4;
/// Waits between the tries of one write. All of them together take no longer than one call may: whoever waits sends again.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
const TRIES: usize = 4;

/// How a write ended, for each who waits for it.
type Answer = Result<(), Arc<ApiError>>;

/// Receipts that wait, by their Broadcast.
pub(super) struct Desks {
    waiting: Mutex<HashMap<BroadcastUid, Desk>>,
    turns: Semaphore,
}

impl Default for Desks {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

/// Receipts of one Broadcast that wait, and who waits for them.
#[derive(Default)]
struct Desk {
    receipts: Receipts,
    answers: Vec<oneshot::Sender<Answer>>,
}

impl Journal {
    /// Stores receipts in a journal, and returns when they are stored.
    pub(super) async fn write(
        self: &Arc<Self>,
        owner: &Owner,
        receipts: Receipts,
    ) -> Result<(), JournalError> {
        let (answer, answered) = oneshot::channel();
        if self.desks.put(&owner.uid, receipts, answer) {
            // A task of its own: whoever waits may go away, and the others still wait.
            tokio::spawn(self.clone().commit(owner.clone()));
        }
        let broadcast = owner.key.clone();
        match answered.await {
            Ok(stored) => stored.map_err(|source| JournalError::NotStored { broadcast, source }),
            Err(_) => Err(JournalError::Abandoned { broadcast }),
        }
    }

    async fn commit(self: Arc<Self>, owner: Owner) {
        clock::wait(GATHER).await;
        // It is never closed.
        let _turn = self.desks.turns.acquire().await;
        let Desk { receipts, answers } = self.desks.take(&owner.uid);
        let stored = self.store_all(&owner, receipts).await.map_err(Arc::new);
        if let Err(error) = &stored {
            tracing::warn!(broadcast = %owner.key, error = %chain(error), "a journal is not stored, its receipts have to come again");
            self.rest(&owner.key.namespace);
        }
        #[cfg(feature = "mutants")]
        let stored = stored.or_else(|error| {
            if crate::mutants::is_on(crate::mutants::Mutant::AnsweredUnstored) { Ok(()) } else { Err(error) }
        });
        for answer in answers {
            // Whoever is gone sends them again.
            let _ = answer.send(stored.clone());
        }
    }

    async fn store_all(&self, owner: &Owner, receipts: Receipts) -> Result<(), ApiError> {
        let (mut segments, mut ended) = (Vec::new(), Ok(()));
        for part in receipts.parts() {
            let journal = self.segments.make(owner, &part);
            let stored = tokio::time::timeout(CALL_TIMEOUT, self.create(&journal)).await;
            match stored.unwrap_or(Err(ApiError::TimedOut)) {
                Ok(stored) => {
                    self.metrics.journaled(part.len());
                    segments.push(Segment::of(&stored, &part));
                }
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        if !segments.is_empty() {
            // Together: a journal that is deleted was taken in whole. What was refused is as true, and comes again.
            lock(&self.waiting).add(Backlog::new(owner.clone(), segments, receipts, clock::monotonic()));
        }
        ended
    }

    async fn create(&self, journal: &BroadcastJournal) -> Result<BroadcastJournal, ApiError> {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(FIRST_WAIT)
            .with_max_delay(LONGEST_WAIT)
            .with_max_times(TRIES - 1)
            .build();
        loop {
            let error = match self.segments.create(journal).await {
                Ok(stored) => return Ok(stored),
                Err(error) if error.is_temporary() => error,
                Err(error) => return Err(error),
            };
            match waits.next() {
                Some(wait) => clock::wait(wait).await,
                None => return Err(error),
            }
        }
    }
}

impl Desks {
    /// Puts receipts where the next write takes them. Out: whether nobody is on the way to write them yet.
    fn put(&self, broadcast: &BroadcastUid, receipts: Receipts, answer: oneshot::Sender<Answer>) -> bool {
        let mut waiting = lock(&self.waiting);
        let is_first = !waiting.contains_key(broadcast);
        let desk = waiting.entry(broadcast.clone()).or_default();
        desk.receipts.extend(receipts);
        desk.answers.push(answer);
        is_first
    }

    fn take(&self, broadcast: &BroadcastUid) -> Desk {
        lock(&self.waiting).remove(broadcast).unwrap_or_default()
    }
}
