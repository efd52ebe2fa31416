//! The outcome of one chat, and the laws by which two views of it are merged.
//!
//! Merging is the join of a semilattice: commutative, associative, idempotent and monotone. So it does not matter in
//! which order the gateway's answer, its receipts and a recovered page come together, nor how often.
//!
//! A chat may have several messages, when a try without an answer was made again. That one of them arrived is good news whichever
//! it was. That one of them failed says nothing of the others: the chat is Failed only when no message is left that was taken.

use std::cmp::{Ordering, Reverse};

use jiff::Timestamp;

use super::fates::Fates;
use super::page_csv;
pub use super::participants::MAX_PARTICIPANTS;
use super::participants::Participants;
use super::text::cut_to_line;
pub use crate::api::OutcomeName as Outcome;

/// Longest detail kept of a gateway's error, in bytes as they stand in a page. A full page may have room for less.
pub const MAX_DETAIL: usize = 160;
/// Longest error code kept, in bytes as they stand in a page.
pub const MAX_CODE: usize = 64;
/// Longest message id kept, in bytes as they stand in a page. A longer one is dropped: half an id finds nothing.
pub const MAX_MESSAGE_ID: usize = 128;
/// What is between a message id and the fates of other messages in a page. An id with one is dropped.
pub(super) const AFTER_ID: char = '\t';
/// What is between a detail and the participants of a group in a page. No detail has one.
pub(super) const AFTER_DETAIL: char = '\t';

/// What is known of one chat of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Outcome so far.
    pub outcome: Outcome,
    /// When the outcome became known; for a Pending row with attempts, when the last try ended.
    pub time: Option<Timestamp>,
    /// Tries so far.
    pub attempts: u32,
    /// The gateway's id of the message, or empty. Of several messages, one of them.
    pub message_id: String,
    /// What became of the messages of this chat, unless outcome and message id say it: then it is empty.
    pub(super) fates: Fates,
    /// Error code, or empty.
    pub code: String,
    /// What the gateway said, or empty.
    pub detail: String,
    /// Participants of a group that have the message, as far as they are known. Of no other row than a Delivered or Read one.
    pub(super) participants: Participants,
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
            fates: Fates::default(),
            code: String::new(),
            detail: String::new(),
            participants: Participants::default(),
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

    /// The same row with another text. It is cut as all are.
    #[must_use]
    pub fn with_detail(mut self, detail: &str) -> Self {
        self.detail = cut_to_line(detail, MAX_DETAIL);
        self
    }

    /// The same row with the gateway's id of the message.
    #[must_use]
    pub fn with_message_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.message_id);
        if page_csv::bytes_of(id) > MAX_MESSAGE_ID || id.contains(AFTER_ID) {
            self.message_id.clear();
        }
        self
    }

    /// The same row as one participant of a group tells it. Nothing but a delivery speaks for a participant.
    #[must_use]
    pub fn with_participant(mut self, group: &str, participant: &str) -> Self {
        if self.has_arrived() {
            self.participants = Participants::one(group, participant, self.outcome == Outcome::Read);
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

    /// Whether somebody has the message.
    pub(super) fn has_arrived(&self) -> bool {
        matches!(self.outcome, Outcome::Delivered | Outcome::Read)
    }

    /// Takes in another view of the same chat. The greater evidence wins; message ids and attempts are kept of both.
    pub fn merge(&mut self, other: &Self) {
        let attempts = self.attempts.max(other.attempts);
        // Ids that a guess names are dropped with it.
        let message_id = match class(self).cmp(&class(other)) {
            Ordering::Equal => (&self.message_id).max(&other.message_id),
            Ordering::Less => &other.message_id,
            Ordering::Greater => &self.message_id,
        };
        let message_id = message_id.clone();
        let fates = self.all_fates().join(&other.all_fates());
        let participants = self.participants.join(&other.participants);
        let outcome = match weight(other) > weight(self) {
            true => other.outcome,
            false => self.outcome,
        };
        if reason_weight(other) > reason_weight(self) {
            self.clone_from(other);
        }
        (self.attempts, self.message_id, self.outcome) = (attempts, message_id, outcome);
        self.participants = if self.has_arrived() { participants } else { Participants::default() };
        self.settle(fates);
    }

    /// Takes in that a message failed, without taking that for the outcome: another message of this chat may be on its way, and
    /// nobody knows yet what became of it. When that is known, the failure counts. More messages than tries are not kept apart.
    pub fn note_failure(&mut self, failed: &Self) {
        let known = self.all_fates();
        let tries = usize::try_from(self.attempts.saturating_add(1)).unwrap_or(usize::MAX);
        if known.failures() >= tries {
            return;
        }
        if reason_weight(failed) > reason_weight(self) {
            (self.code, self.detail) = (failed.code.clone(), failed.detail.clone());
            // A Pending row says when its last try ended: the next one waits for that.
            self.time = self.time.filter(|_| self.outcome == Outcome::Pending).or(failed.time);
        }
        self.settle(known.join(&failed.all_fates()));
    }

    /// Makes a chat Failed whose every try is known to have failed.
    pub(super) fn conclude(&mut self) {
        let failures = u32::try_from(self.fates.failures()).unwrap_or(u32::MAX);
        if self.outcome == Outcome::Unknown && self.fates.is_failure() && failures >= self.attempts {
            self.outcome = Outcome::Failed;
            self.settle(self.fates.clone());
        }
    }

    /// What became of the messages of this chat, as far as it matters any more.
    pub(super) fn all_fates(&self) -> Fates {
        if self.fates.is_empty() { implied(self.outcome, &self.message_id) } else { self.fates.clone() }
    }

    /// Makes the outcome that of the messages, and keeps of them what the row does not say by itself.
    fn settle(&mut self, fates: Fates) {
        match self.outcome {
            Outcome::Sent | Outcome::Failed if fates.is_failure() => self.outcome = Outcome::Failed,
            Outcome::Sent | Outcome::Failed => self.outcome = Outcome::Sent,
            // Somebody has it, or nobody ever will.
            Outcome::Delivered | Outcome::Read | Outcome::Skipped => {
                self.fates = Fates::default();
                return;
            }
            Outcome::Pending | Outcome::Cancelled | Outcome::Unknown => {}
        }
        let is_implied = fates == implied(self.outcome, &self.message_id);
        self.fates = if is_implied { Fates::default() } else { fates };
    }
}

/// What a row says of its messages by itself.
fn implied(outcome: Outcome, message_id: &str) -> Fates {
    match outcome {
        Outcome::Sent => Fates::taken(message_id),
        Outcome::Failed => Fates::failed(message_id),
        _ => Fates::default(),
    }
}

/// Guesses, evidence, and what is decided for ever.
fn class(row: &Row) -> u8 {
    match row.outcome {
        Outcome::Skipped => 2,
        _ => u8::from(row.has_evidence()),
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

/// A total order over outcomes: evidence before guesses; among guesses the later try.
fn weight(row: &Row) -> impl Ord + use<> {
    let try_number = if class(row) == 0 { row.attempts } else { 0 };
    (class(row), try_number, rank(row.outcome))
}

/// A total order over what rows say beside their outcome: a failure before everything but a delivery, else as their outcomes;
/// among equals the one with a reason, and then the earlier one.
fn reason_weight(row: &Row) -> impl Ord + use<'_> {
    let is_over = rank(row.outcome) > rank(Outcome::Failed);
    let of_failure = !is_over && row.all_fates().has_failure();
    let by_outcome = (!of_failure).then(|| weight(row));
    (is_over, of_failure, by_outcome, !row.code.is_empty(), Reverse(row.time), &row.code, &row.detail)
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
