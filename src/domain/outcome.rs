//! The outcome of one chat, and the laws by which two views of it are merged.
//!
//! Merging is the join of a semilattice: commutative, associative, idempotent and monotone. So it does not matter in
//! which order the gateway's answer, its receipts and a recovered page come together, nor how often.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::page_csv;
use super::text::cut_to_line;
pub use crate::api::OutcomeName as Outcome;

/// Longest detail kept of a gateway's error, in bytes as they stand in a page. A full page may have room for less.
pub const MAX_DETAIL: usize = 160;
/// Longest error code kept, in bytes as they stand in a page.
pub const MAX_CODE: usize = 64;
/// Longest message id kept, in bytes as they stand in a page. A longer one is dropped: half an id finds nothing.
pub const MAX_MESSAGE_ID: usize = 128;

/// What is known of one chat of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Outcome so far.
    pub outcome: Outcome,
    /// When the outcome became known; for a Pending row with attempts, when the last try ended.
    pub time: Option<Timestamp>,
    /// Tries so far.
    pub attempts: u32,
    /// The gateway's id of the message, or empty.
    pub message_id: String,
    /// Error code, or empty.
    pub code: String,
    /// What the gateway said, or empty.
    pub detail: String,
}

impl Row {
    /// A chat that is yet to be sent to.
    #[must_use]
    pub fn pending() -> Self {
        Self {
            outcome: Outcome::Pending,
            time: None,
            attempts: 0,
            message_id: String::new(),
            code: String::new(),
            detail: String::new(),
        }
    }

    /// A chat that is never sent to, and why: a word, or a word, a colon and more.
    #[must_use]
    pub fn skipped(reason: &str) -> Self {
        let (code, detail) = reason.split_once(": ").unwrap_or((reason, ""));
        Self { outcome: Outcome::Skipped, ..Self::pending() }.with_error(code, detail)
    }

    /// A row with this outcome, known since `time`.
    #[must_use]
    pub fn known(outcome: Outcome, attempts: u32, time: Timestamp) -> Self {
        Self { outcome, time: Some(time), attempts, ..Self::pending() }
    }

    /// The same row with the gateway's id of the message.
    #[must_use]
    pub fn with_message_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.message_id);
        if page_csv::bytes_of(id) > MAX_MESSAGE_ID {
            self.message_id.clear();
        }
        self
    }

    /// The same row with an error, cut to what a page has room for.
    #[must_use]
    pub fn with_error(mut self, code: &str, detail: &str) -> Self {
        self.code = cut_to_line(code, MAX_CODE);
        self.detail = cut_to_line(detail, MAX_DETAIL);
        self
    }

    /// Whether the gateway has said or shown what became of the message.
    #[must_use]
    pub fn has_evidence(&self) -> bool {
        rank(self.outcome) >= rank(Outcome::Sent) && self.outcome != Outcome::Skipped
    }

    /// Takes in another view of the same chat. The greater evidence wins; message ids and attempts are kept of both.
    pub fn merge(&mut self, other: &Self) {
        let attempts = self.attempts.max(other.attempts);
        let message_id = (&self.message_id).max(&other.message_id).clone();
        if weight(other) > weight(self) {
            self.clone_from(other);
        }
        self.attempts = attempts;
        self.message_id = message_id;
    }
}

/// Order of evidence.
fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Pending => 0,
        Outcome::Cancelled => 1,
        Outcome::Unknown => 2,
        Outcome::Sent => 3,
        Outcome::Failed => 4,
        Outcome::Delivered => 5,
        Outcome::Read => 6,
        Outcome::Skipped => 7,
    }
}

/// A total order over what a row says: evidence before guesses; among guesses the later try; among equals the one with
/// a reason, and then the earlier one.
fn weight(row: &Row) -> impl Ord + use<'_> {
    let evidence = row.has_evidence() || row.outcome == Outcome::Skipped;
    let try_number = if evidence { 0 } else { row.attempts };
    (evidence, try_number, rank(row.outcome), !row.code.is_empty(), Reverse(row.time), &row.code, &row.detail)
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
