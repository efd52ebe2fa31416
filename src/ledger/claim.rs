//! Claim → send → record. A planned window and a recorded claim are different types, and only a recorded claim can be
//! sent: there is no other way to get one than to store it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::store::Base;
use super::{Ledger, LedgerError};
use crate::clock;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::outcome::Row;
use crate::domain::page::{Page, Recipient};
#[cfg(feature = "mutants")]
use crate::mutants::{Mutant, is_on};

/// Rows that somebody would like to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedWindow {
    /// The page.
    pub page: ObjectKey,
    /// Number of the page in its Broadcast.
    pub index: usize,
    /// The Broadcast that the page must belong to.
    pub broadcast: BroadcastUid,
    /// Rows from and up to, not including.
    pub rows: Range<usize>,
    /// Whether Unknown rows are to be sent again.
    pub resend: bool,
}

/// A stored claim of this process. While it exists, nobody else sends its rows; when it is dropped without having been
/// released, its rows become Unknown.
#[derive(Debug)]
pub struct RecordedClaim {
    window: PlannedWindow,
    sends: Vec<ClaimedRow>,
    attempt: u64,
    live: Arc<LiveClaims>,
}

/// One row that may be sent once.
#[derive(Clone, Debug)]
pub struct ClaimedRow {
    /// Row in the page.
    pub row: usize,
    /// To whom, with parameters.
    pub recipient: Recipient,
    /// What was known of it before.
    pub before: Row,
}

/// What becomes of a claim with the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRecord {
    /// Requests are still in flight: the claim stays.
    Keep,
    /// All requests are answered: rows without a result were not sent and are Pending again.
    Release,
}

/// Numbers of the claims that this process still answers for.
#[derive(Debug, Default)]
pub(super) struct LiveClaims(Mutex<HashSet<u64>>);

impl LiveClaims {
    fn insert(&self, attempt: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt);
    }

    fn remove(&self, attempt: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&attempt);
    }

    fn contains(&self, attempt: i64) -> bool {
        u64::try_from(attempt)
            .is_ok_and(|attempt| self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&attempt))
    }
}

impl RecordedClaim {
    /// The window that is claimed.
    #[must_use]
    pub fn window(&self) -> &PlannedWindow {
        &self.window
    }

    /// The rows that may be sent, each once. Empties itself: a row cannot be taken twice.
    #[must_use]
    pub fn take_sends(&mut self) -> Vec<ClaimedRow> {
        std::mem::take(&mut self.sends)
    }
}

#[cfg(test)]
impl RecordedClaim {
    /// A claim that is stored nowhere.
    pub fn fake(window: PlannedWindow, sends: Vec<ClaimedRow>) -> Self {
        Self { window, sends, attempt: 0, live: Arc::default() }
    }
}

impl Drop for RecordedClaim {
    /// From here on nobody answers for the claim. If it is still stored, it is an orphan.
    fn drop(&mut self) {
        self.live.remove(self.attempt);
    }
}

impl Ledger {
    /// Stores a claim. Only when this returns may its rows be sent.
    ///
    /// A claim that was given up without a definite answer may still be stored later; its number is never used again, so
    /// it is found as an orphan.
    pub async fn claim(&self, window: PlannedWindow) -> Result<RecordedClaim, LedgerError> {
        let attempt = self.next_attempt();
        self.live.insert(attempt);
        let mut claim = RecordedClaim { window, sends: Vec::new(), attempt, live: self.live.clone() };
        let window = &claim.window;
        let slot = self.slot(&window.page);
        let mut stored = slot.lock().await;
        let now = clock::now();
        let sends = self
            .write(&window.page, &window.broadcast, &slot, &mut stored, Base::Latest, |page| {
                if !page.is_claimed_by(&self.incarnation, attempt) {
                    page.make_claim(&window.rows, window.resend, &self.incarnation, attempt, now)
                        .map_err(|refusal| LedgerError::refused(&window.page, &refusal))?;
                }
                let rows = claimed_rows(page);
                #[cfg(feature = "mutants")]
                if is_on(Mutant::RecordBeforeSend) {
                    for row in &rows {
                        page.merge(row.row, &Row::known(crate::domain::outcome::Outcome::Sent, 1, now));
                    }
                }
                Ok(rows)
            })
            .await?;
        claim.sends = sends;
        Ok(claim)
    }

    /// Stores results of a claim. Results are evidence: they are merged, whatever has become of the page since. Only a refusal
    /// says nothing any more of a chat that another process, which took this one for dead, may have sent to since.
    ///
    /// # Errors
    /// Only when the page is gone, with its whole Broadcast.
    pub async fn record(
        &self,
        claim: &RecordedClaim,
        results: &[(usize, Row)],
        after: AfterRecord,
    ) -> Result<(), LedgerError> {
        let window = &claim.window;
        let slot = self.slot(&window.page);
        let mut stored = slot.lock().await;
        self.write_at_any_cost(&window.page, &window.broadcast, &slot, &mut stored, |page| {
            let is_ours = page.is_claimed_by(&self.incarnation, claim.attempt);
            for (row, result) in results {
                if is_ours {
                    page.merge(*row, result);
                } else {
                    page.merge_late(*row, result);
                }
            }
            if after == AfterRecord::Release && is_ours {
                page.release_claim();
            }
        })
        .await
    }

    /// Turns the claim of a process that is gone into Unknown rows. A claim that this process still answers for is left
    /// alone. Returns how many rows became Unknown.
    pub async fn recover(&self, page: &ObjectKey, broadcast: &BroadcastUid) -> Result<usize, LedgerError> {
        let slot = self.slot(page);
        let mut stored = slot.lock().await;
        let now = clock::now();
        self.write(page, broadcast, &slot, &mut stored, Base::Any, |page| {
            let orphaned = page.claim().is_some_and(|claim| !self.answers_for(claim));
            let rows = if orphaned { page.claimed_rows().len() } else { 0 };
            #[cfg(feature = "mutants")]
            if orphaned && is_on(Mutant::OrphanClaimedAgain) {
                page.release_claim();
            }
            if orphaned {
                page.orphan_claim(now);
            }
            Ok(rows)
        })
        .await
    }

    /// Whether this process made the claim and has it in hand.
    #[must_use]
    pub fn answers_for(&self, claim: &crate::api::Claim) -> bool {
        claim.incarnation == self.incarnation.as_str() && self.live.contains(claim.attempt)
    }
}

fn claimed_rows(page: &Page) -> Vec<ClaimedRow> {
    page.claimed_rows()
        .into_iter()
        .map(|row| ClaimedRow {
            row,
            recipient: page.recipients()[row].clone(),
            before: page.rows()[row].clone(),
        })
        .collect()
}
