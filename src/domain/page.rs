//! One page of the ledger: recipients, their outcomes, the claim of a sender, the seal of a restart.
//!
//! In: a stored `BroadcastBatch`. Out: its next status. Whether that status may be written is decided by the API server:
//! every write carries the resourceVersion that the page was read with.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::ids::Incarnation;
use super::outcome::{Outcome, Row};
use super::page_csv;
use crate::api::{BatchCounts, BatchStatus, BroadcastBatch, Claim};

/// One recipient of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Phone number or chat id.
    pub chat: String,
    /// Why the chat is never sent to, or empty.
    pub skip: String,
    /// Parameters for the message; none of them is empty.
    pub params: BTreeMap<String, String>,
}

/// A stored page that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The recipients are no CSV.
    #[error("failed to read the recipients of a page")]
    Recipients(#[source] csv::Error),
    /// The recipients have another header than the operator writes.
    #[error("failed to read the recipients of a page: the header is {found}")]
    Header {
        /// The header as it stands there.
        found: String,
    },
    /// The outcomes are no CSV.
    #[error("failed to read the outcomes of a page")]
    Outcomes(#[source] csv::Error),
    /// The outcomes do not match the recipients.
    #[error("failed to read the outcomes of a page: row {line} does not match its recipient")]
    Row {
        /// Number of the row, from 0.
        line: usize,
    },
    /// The page has no outcomes at all: it was never finished, or restored without its status.
    #[error("the page has no outcomes")]
    NoOutcomes,
    /// The claim names rows that the page does not have.
    #[error("the claim of the page is out of its bounds")]
    Claim,
}

/// Why a window cannot be claimed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClaimRefused {
    /// A restart took the page over.
    #[error("the page is sealed")]
    Sealed,
    /// Another window of this page is being sent.
    #[error("the page is claimed already")]
    Claimed,
    /// No row of the window can be sent.
    #[error("the window has no row to send")]
    Empty,
}

/// Why a page cannot be sealed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the page is claimed: its requests in flight are not recorded yet")]
pub struct SealRefused;

/// One page of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    recipients: Vec<Recipient>,
    rows: Vec<Row>,
    claim: Option<Claim>,
    sealed: bool,
}

impl Page {
    /// A page before its first message: every row Pending, or Skipped with its reason.
    #[must_use]
    pub fn planned(recipients: Vec<Recipient>) -> Self {
        let rows = recipients
            .iter()
            .map(|recipient| match recipient.skip.as_str() {
                "" => Row::pending(),
                reason => Row::skipped(reason),
            })
            .collect();
        Self { recipients, rows, claim: None, sealed: false }
    }

    /// A page before its first message, with the recipients of a stored one, whatever has become of its outcomes.
    ///
    /// # Errors
    /// When the recipients are not as the operator writes them.
    pub fn planned_as(batch: &BroadcastBatch) -> Result<Self, PageError> {
        Ok(Self::planned(page_csv::read_recipients(&batch.spec.recipients)?))
    }

    /// Reads a stored page.
    ///
    /// # Errors
    /// When it is not as the operator writes it, or has no outcomes.
    pub fn parse(batch: &BroadcastBatch) -> Result<Self, PageError> {
        let recipients = page_csv::read_recipients(&batch.spec.recipients)?;
        let status = batch.status.as_ref().filter(|status| !status.outcomes.is_empty());
        let status = status.ok_or(PageError::NoOutcomes)?;
        let rows = page_csv::read_outcomes(&recipients, &status.outcomes)?;
        let page = Self { recipients, rows, claim: status.claim.clone(), sealed: status.sealed };
        match &page.claim {
            Some(claim) if bounds(claim).is_none_or(|range| range.end > page.rows.len()) => {
                Err(PageError::Claim)
            }
            _ => Ok(page),
        }
    }

    /// The recipients as a page's spec holds them.
    #[must_use]
    pub fn recipients_csv(&self) -> String {
        page_csv::write_recipients(&self.recipients)
    }

    /// The status to store.
    #[must_use]
    pub fn status(&self) -> BatchStatus {
        BatchStatus {
            claim: self.claim.clone(),
            sealed: self.sealed,
            counts: self.counts(),
            outcomes: page_csv::write_outcomes(&self.recipients, &self.rows),
        }
    }

    /// Recipients, in the order of the rows.
    #[must_use]
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// Rows, in the order of the recipients.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The window that is being sent, if any.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// Whether a restart took the page over.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Outcomes of this page, counted from its rows.
    #[must_use]
    pub fn counts(&self) -> BatchCounts {
        let mut counts = BatchCounts::default();
        for row in &self.rows {
            *count_of(&mut counts, row.outcome) += 1;
        }
        counts
    }

    /// Makes a claim on the rows of `window` that can be sent: Pending ones, and with `resend` Unknown ones. The claim
    /// counts only once it is stored.
    ///
    /// # Errors
    /// When the page is sealed or claimed, or nothing in the window can be sent.
    pub fn make_claim(
        &mut self,
        window: &Range<usize>,
        resend: bool,
        incarnation: &Incarnation,
        attempt: u64,
        now: Timestamp,
    ) -> Result<(), ClaimRefused> {
        if self.sealed {
            return Err(ClaimRefused::Sealed);
        }
        if self.claim.is_some() {
            return Err(ClaimRefused::Claimed);
        }
        let end = window.end.min(self.rows.len());
        if !(window.start..end).any(|row| is_sendable(&self.rows[row], resend)) {
            return Err(ClaimRefused::Empty);
        }
        self.claim = Some(Claim {
            incarnation: incarnation.as_str().to_owned(),
            attempt: i64::try_from(attempt).expect("should count fewer claims than i64 holds"),
            from: row_number(window.start),
            to: row_number(end),
            resend,
            time: Time(now),
        });
        Ok(())
    }

    /// Whether the claim on this page is this very one.
    #[must_use]
    pub fn is_claimed_by(&self, incarnation: &Incarnation, attempt: u64) -> bool {
        self.claim.as_ref().is_some_and(|claim| {
            claim.incarnation == incarnation.as_str() && u64::try_from(claim.attempt) == Ok(attempt)
        })
    }

    /// Rows that the claim on this page locks, and that have no outcome since.
    #[must_use]
    pub fn claimed_rows(&self) -> Vec<usize> {
        let Some((claim, range)) = self.claim.as_ref().and_then(|claim| Some((claim, bounds(claim)?))) else {
            return Vec::new();
        };
        range.filter(|row| is_sendable(&self.rows[*row], claim.resend)).collect()
    }

    /// Takes in evidence on one row. Returns whether it changed anything.
    pub fn merge(&mut self, row: usize, evidence: &Row) -> bool {
        let Some(known) = self.rows.get_mut(row) else { return false };
        // Which rows are skipped is decided when the page is planned, and by nothing that happens later.
        let is_about_skipping = [known.outcome, evidence.outcome].contains(&Outcome::Skipped);
        // A try that came to nothing would make a cancelled row Pending again, while the restart that took it over has it too.
        let is_too_late = self.sealed && evidence.outcome == Outcome::Pending;
        if is_about_skipping || is_too_late {
            return false;
        }
        let before = known.clone();
        known.merge(evidence);
        if evidence.outcome == Outcome::Unknown && !self.claimed_rows().contains(&row) {
            // Receipts may have come before the answer did not.
            self.rows[row].conclude();
        }
        self.rows[row] != before
    }

    /// Takes in what a receipt says of one row. That a message failed is noted, and is not the outcome, while nobody knows what became
    /// of the others: of a chat that is being sent to, that is to be tried again, or that was tried again without an answer. Returns
    /// whether it changed anything.
    pub fn merge_receipt(&mut self, row: usize, receipt: &Row) -> bool {
        let Some(known) = self.rows.get(row) else { return false };
        if receipt.outcome != Outcome::Failed {
            return self.merge(row, receipt);
        }
        let names_its_message = !receipt.message_id.is_empty();
        // A claim that holds an Unknown row was made to send it again.
        let is_claimed = self.claimed_rows().contains(&row);
        let is_noted = match known.outcome {
            // Nothing is on its way. The answer to its last try has said so, and this says nothing of the next one.
            Outcome::Pending if !is_claimed && !names_its_message => return false,
            Outcome::Pending => names_its_message,
            Outcome::Unknown => names_its_message && (known.attempts > 1 || is_claimed),
            _ => false,
        };
        if !is_noted {
            return self.merge(row, receipt);
        }
        let before = known.clone();
        self.rows[row].note_failure(receipt);
        if !is_claimed {
            self.rows[row].conclude();
        }
        self.rows[row] != before
    }

    /// Takes in the answer to a request whose claim does not stand here any more, because another process took it for
    /// orphaned. What was accepted is true for ever. A refusal speaks of its own try alone: it says nothing of a chat that
    /// another claim holds, or that was tried again since.
    pub fn merge_late(&mut self, row: usize, answer: &Row) -> bool {
        let is_refusal = matches!(answer.outcome, Outcome::Failed | Outcome::Pending);
        let is_tried_since = self.rows.get(row).is_some_and(|known| known.attempts > answer.attempts);
        if is_refusal && (is_tried_since || self.claimed_rows().contains(&row)) {
            return false;
        }
        self.merge(row, answer)
    }

    /// Ends the claim. Rows of it without an outcome are Pending again, so the caller must know that they were not sent.
    pub fn release_claim(&mut self) {
        let claimed = self.claimed_rows();
        self.claim = None;
        for row in claimed {
            self.rows[row].conclude();
        }
    }

    /// Ends a claim whose process is gone: what it may have sent becomes Unknown, and nothing of it is sent again by
    /// itself.
    pub fn orphan_claim(&mut self, now: Timestamp) {
        for row in self.claimed_rows() {
            let attempts = self.rows[row].attempts.saturating_add(1);
            let unknown = Row::known(Outcome::Unknown, attempts, now)
                .with_error("Interrupted", "the operator stopped between sending and recording");
            self.rows[row].merge(&unknown);
            self.rows[row].conclude();
        }
        self.claim = None;
    }

    /// A page whose log is lost: what may have been sent becomes Unknown, which is all of it.
    pub fn give_up(&mut self, now: Timestamp) {
        for row in self.rows.iter_mut().filter(|row| row.outcome == Outcome::Pending) {
            let unknown = Row::known(Outcome::Unknown, row.attempts + 1, now)
                .with_error("LogLost", "its batch was lost, and given up");
            row.merge(&unknown);
        }
    }

    /// Closes the page for ever: rows that were not sent become Cancelled.
    ///
    /// # Errors
    /// While the page is claimed.
    pub fn seal(&mut self, now: Timestamp) -> Result<(), SealRefused> {
        if self.claim.is_some() {
            return Err(SealRefused);
        }
        for row in &mut self.rows {
            if row.outcome == Outcome::Pending {
                let cancelled = Row { outcome: Outcome::Cancelled, time: Some(now), ..row.clone() };
                row.merge(&cancelled);
            }
        }
        self.sealed = true;
        Ok(())
    }
}

/// Whether a row may be sent in a claim: Pending, or with `resend` Unknown.
#[must_use]
pub fn is_sendable(row: &Row, resend: bool) -> bool {
    match row.outcome {
        Outcome::Pending => true,
        Outcome::Unknown => resend,
        Outcome::Skipped
        | Outcome::Cancelled
        | Outcome::Sent
        | Outcome::Failed
        | Outcome::Delivered
        | Outcome::Read => false,
    }
}

fn bounds(claim: &Claim) -> Option<Range<usize>> {
    let from = usize::try_from(claim.from).ok()?;
    let to = usize::try_from(claim.to).ok()?;
    (from <= to).then_some(from..to)
}

fn row_number(row: usize) -> i32 {
    i32::try_from(row).expect("should have far fewer rows in a page than i32 holds")
}

fn count_of(counts: &mut BatchCounts, outcome: Outcome) -> &mut i32 {
    match outcome {
        Outcome::Pending => &mut counts.pending,
        Outcome::Skipped => &mut counts.skipped,
        Outcome::Cancelled => &mut counts.cancelled,
        Outcome::Unknown => &mut counts.unknown,
        Outcome::Sent => &mut counts.sent,
        Outcome::Failed => &mut counts.failed,
        Outcome::Delivered => &mut counts.delivered,
        Outcome::Read => &mut counts.read,
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
