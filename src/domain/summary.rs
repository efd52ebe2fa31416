//! What is known of a page without its rows: enough to count, to choose the next page, and to show what went wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::ids::ObjectKey;
use super::outcome::{Outcome, Row};
use super::page::{Page, Recipient};
use super::standing::Standing;
use crate::api::{BatchCounts, ChatOutcome, Claim, OutcomeError};

/// Rows of a page that a summary holds at most: as many as a Broadcast's status shows.
pub const MAX_NOTABLE: usize = 200;

/// Where a page is stored, and in which version.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Namespace and name of the page.
    pub key: ObjectKey,
    /// Number of the page, from 0.
    pub index: usize,
    /// UID of the page.
    pub uid: String,
    /// Version of the page.
    pub resource_version: u64,
}

/// Pages in view, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many there are.
    pub pages: usize,
    /// How far their rows are.
    pub standing: Standing,
    /// Rows of pages of which an earlier version was further.
    pub behind: i32,
}

impl Seen {
    /// Adds pages up.
    #[must_use]
    pub fn of(pages: &[Arc<PageSummary>]) -> Self {
        pages.iter().fold(Self::default(), |seen, page| seen.with(page))
    }

    /// With one page more.
    #[must_use]
    pub fn with(self, page: &PageSummary) -> Self {
        Self {
            pages: self.pages + 1,
            standing: self.standing.with(page.standing()),
            behind: self.behind + page.behind,
        }
    }

    /// With a page less, one that it has.
    #[must_use]
    pub fn without(self, page: &PageSummary) -> Self {
        Self {
            pages: self.pages - 1,
            standing: self.standing.without(page.standing()),
            behind: self.behind - page.behind,
        }
    }
}

/// What is known of one page.
#[derive(Clone, Debug, PartialEq)]
pub struct PageSummary {
    /// Namespace and name of the page.
    pub key: ObjectKey,
    /// Number of the page, from 0.
    pub index: usize,
    /// Rows of the page.
    pub rows: usize,
    /// Outcomes, counted from the rows.
    pub counts: BatchCounts,
    /// Whether a restart took it over.
    pub sealed: bool,
    /// The window that is being sent, if any.
    pub claim: Option<Claim>,
    /// Rows under the claim without an outcome.
    pub sending: i32,
    /// Unknown rows, by how often they were tried.
    pub unknown_by_attempts: BTreeMap<u32, i32>,
    /// UID of the page: one that was deleted and made anew is another page.
    pub uid: String,
    /// Version of the page that this speaks of.
    pub resource_version: u64,
    /// Rows that were further in an earlier version of this very page: somebody put it back. Zero, unless one was seen.
    pub behind: i32,
    /// All rows of a page of at most 200, else its failed and unknown ones, at most 200.
    pub notable: Vec<ChatOutcome>,
}

impl PageSummary {
    /// The summary of a stored page.
    #[must_use]
    pub fn of(place: Place, page: &Page) -> Self {
        let mut unknown_by_attempts = BTreeMap::new();
        for row in page.rows().iter().filter(|row| row.outcome == Outcome::Unknown) {
            *unknown_by_attempts.entry(row.attempts).or_insert(0) += 1;
        }
        Self {
            key: place.key,
            index: place.index,
            rows: page.rows().len(),
            counts: page.counts(),
            sealed: page.is_sealed(),
            claim: page.claim().cloned(),
            sending: i32::try_from(page.claimed_rows().len()).unwrap_or(i32::MAX),
            unknown_by_attempts,
            uid: place.uid,
            resource_version: place.resource_version,
            behind: 0,
            notable: notable_of(page),
        }
    }

    /// How far its rows are.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::of_page(&self.counts)
    }

    /// The same page as somebody sees it who has seen `earlier` before.
    #[must_use]
    pub fn after(mut self, earlier: &Self) -> Self {
        if self.uid == earlier.uid {
            let lost = self.standing().chats_behind(earlier.standing());
            self.behind = earlier.behind + lost;
        }
        self
    }

    /// Whether anything of it may have been sent.
    #[must_use]
    pub fn was_used(&self) -> bool {
        let untouched = usize::try_from(self.counts.pending + self.counts.skipped) == Ok(self.rows);
        self.claim.is_some() || self.sealed || !untouched
    }

    /// Unknown rows that were tried fewer than `max_attempts` times.
    #[must_use]
    pub fn unknown_below(&self, max_attempts: u32) -> i32 {
        self.unknown_by_attempts.range(..max_attempts).map(|(_, rows)| rows).sum()
    }
}

/// Rows of a page that a Broadcast's status may show.
fn notable_of(page: &Page) -> Vec<ChatOutcome> {
    let all = page.rows().len() <= MAX_NOTABLE;
    let rows = page.recipients().iter().zip(page.rows());
    rows.filter(|(_, row)| all || matches!(row.outcome, Outcome::Failed | Outcome::Unknown))
        .take(MAX_NOTABLE)
        .map(|(recipient, row)| chat_outcome(recipient, row))
        .collect()
}

fn chat_outcome(recipient: &Recipient, row: &Row) -> ChatOutcome {
    let error =
        (!row.code.is_empty()).then(|| OutcomeError { code: row.code.clone(), message: row.detail.clone() });
    ChatOutcome {
        chat: recipient.chat.clone(),
        outcome: row.outcome,
        time: row.time.map(whole_seconds),
        attempts: i32::try_from(row.attempts).unwrap_or(i32::MAX),
        message_id: (!row.message_id.is_empty()).then(|| row.message_id.clone()),
        error,
    }
}

/// A time as a status holds it: the API server gives back whole seconds, and a status with more would never equal what
/// is stored.
fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_outcome_is_the_same_after_it_was_stored() {
        let recipient = Recipient { chat: "15550100".into(), skip: String::new(), params: BTreeMap::new() };
        let time = "2026-11-23T10:00:00.987Z".parse().expect("time");
        let shown = chat_outcome(&recipient, &Row::known(Outcome::Sent, 1, time));
        let stored = serde_json::to_value(&shown).and_then(serde_json::from_value).expect("round trip");
        assert_eq!(shown, stored);
    }
}
