//! What is known of a page without its rows: enough to count, to choose the next page, and to show what went wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::breaker::failed_since;
use super::ids::ObjectKey;
use super::outcome::{Outcome, Row};
use super::page::{Page, Recipient};
use super::polling::Waiting;
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
        let seen = self.with_stored(page.standing());
        Self { behind: seen.behind + page.behind, ..seen }
    }

    /// With one page more, of which no earlier version was seen.
    #[must_use]
    pub fn with_stored(self, page: Standing) -> Self {
        Self { pages: self.pages + 1, standing: self.standing.with(page), ..self }
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

/// Rows of a page, a bit for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSet(Box<[u64]>);

impl RowSet {
    /// The rows of which this says so, in their order.
    #[must_use]
    pub fn of(rows: impl ExactSizeIterator<Item = bool>) -> Self {
        let mut words = vec![0; rows.len().div_ceil(64)];
        for (row, _) in rows.enumerate().filter(|(_, is_in)| *is_in) {
            words[row / 64] |= 1 << (row % 64);
        }
        Self(words.into())
    }

    /// Whether a row is among them.
    #[must_use]
    pub fn contains(&self, row: usize) -> bool {
        self.0.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }
}

/// How far a page had come, for whoever sees it again, or another one in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// UID of the page.
    pub uid: String,
    /// Its version.
    pub resource_version: u64,
    /// How far its rows were.
    pub standing: Standing,
    /// Rows that were being sent.
    pub sending: i32,
    /// Rows that an earlier version was further with.
    pub behind: i32,
    /// Whether anything of it may have been sent.
    pub is_used: bool,
}

impl Reached {
    /// How many rows at least are not as far in the page of this UID as they once were. A page in the place of one that was deleted is
    /// either from a backup, or made by the operator for one that was given up: that has nothing but chats that are Unknown.
    #[must_use]
    pub fn lost_in(&self, uid: &str, now: Standing) -> i32 {
        let is_given_up = now == Standing::default();
        match self.uid == uid {
            true => self.behind + now.chats_behind(self.standing),
            false if !self.is_used || is_given_up => self.behind,
            // What was being sent may have arrived, and no backup knows of it.
            false => self.behind + now.chats_behind(self.standing) + self.sending.min(now.pending),
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
    /// Rows whose message the gateway has taken, and of which no failure is the outcome.
    pub accepted: RowSet,
    /// Rows of which a failure is the outcome, though the gateway had taken the message: it gave it an id.
    pub failed_later: i32,
    /// What became of its first messages, where all of them failed alike after they were taken. See [`failed_since`].
    pub failed_since: Option<OutcomeError>,
    /// Messages of which the last word is not known.
    pub waiting: Option<Waiting>,
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
            accepted: RowSet::of(page.rows().iter().map(is_accepted)),
            failed_later: failed_later(page.rows()),
            failed_since: failed_since(page.rows()).and_then(error_of),
            waiting: Waiting::of(page.rows()),
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

    /// How far it has come.
    #[must_use]
    pub fn reached(&self) -> Reached {
        Reached {
            uid: self.uid.clone(),
            resource_version: self.resource_version,
            standing: self.standing(),
            sending: self.sending,
            behind: self.behind,
            is_used: self.was_used() || self.behind > 0,
        }
    }

    /// The page as somebody sees it who has seen it, or another one in its place, before.
    #[must_use]
    pub fn after(mut self, earlier: &Reached) -> Self {
        self.behind = earlier.lost_in(&self.uid, self.standing());
        self
    }

    /// Whether a gateway has taken a message of it, or refused one.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.standing().evidence > 0
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

/// Whether a gateway has taken a message, as far as a row says. One that failed is not among them: what is heard of it then is more
/// than how far it came.
fn is_accepted(row: &Row) -> bool {
    matches!(row.outcome, Outcome::Sent | Outcome::Delivered | Outcome::Read)
}

fn failed_later(rows: &[Row]) -> i32 {
    let failed = rows.iter().filter(|row| row.outcome == Outcome::Failed && !row.message_id.is_empty());
    i32::try_from(failed.count()).unwrap_or(i32::MAX)
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
    ChatOutcome {
        chat: recipient.chat.clone(),
        outcome: row.outcome,
        time: row.time.map(whole_seconds),
        attempts: i32::try_from(row.attempts).unwrap_or(i32::MAX),
        message_id: (!row.message_id.is_empty()).then(|| row.message_id.clone()),
        error: error_of(row),
        participants: row.participants.counts(),
    }
}

fn error_of(row: &Row) -> Option<OutcomeError> {
    (!row.code.is_empty()).then(|| OutcomeError { code: row.code.clone(), message: row.detail.clone() })
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
    fn the_accepted_rows_are_those_with_a_message_that_was_taken() {
        let time = "2026-11-23T10:00:00Z".parse().expect("time");
        let recipient = |row: usize| Recipient {
            chat: format!("1555{row:07}"),
            skip: String::new(),
            params: BTreeMap::new(),
        };
        let mut page = Page::planned((0..250).map(recipient).collect());
        for (row, outcome) in [
            (0, Outcome::Sent),
            (63, Outcome::Delivered),
            (64, Outcome::Read),
            (65, Outcome::Failed),
            (66, Outcome::Unknown),
            (249, Outcome::Sent),
        ] {
            page.merge(row, &Row::known(outcome, 1, time));
        }
        let key = ObjectKey::new("shop", "sale-00000");
        let place = Place { key, index: 0, uid: "1".into(), resource_version: 1 };
        let accepted = PageSummary::of(place, &page).accepted;
        let rows: Vec<usize> = (0..1000).filter(|row| accepted.contains(*row)).collect();
        assert_eq!(rows, [0, 63, 64, 249]);
    }

    #[test]
    fn a_page_in_the_place_of_a_used_one_must_not_know_less_unless_it_was_given_up() {
        let standing = |pending, evidence| Standing { pending, evidence };
        let used = Reached {
            uid: "1".into(),
            resource_version: 7,
            standing: standing(100, 150),
            sending: 40,
            behind: 0,
            is_used: true,
        };
        let untouched = Reached { standing: standing(250, 0), sending: 0, is_used: false, ..used.clone() };
        let behind = Reached { behind: 3, ..used.clone() };
        for (earlier, uid, now, lost) in [
            (&used, "1", standing(100, 150), 0),
            (&used, "1", standing(101, 150), 1),
            (&used, "2", standing(60, 190), 40),
            (&used, "2", standing(250, 0), 190),
            (&used, "2", standing(0, 250), 0),
            (&used, "2", standing(0, 0), 0),
            (&untouched, "2", standing(500, 0), 0),
            (&behind, "1", standing(60, 190), 3),
            (&behind, "2", standing(0, 0), 3),
        ] {
            assert_eq!(earlier.lost_in(uid, now), lost, "{earlier:?} {uid} {now:?}");
        }
    }

    #[test]
    fn a_shown_outcome_is_the_same_after_it_was_stored() {
        let recipient = Recipient { chat: "15550100".into(), skip: String::new(), params: BTreeMap::new() };
        let time = "2026-11-23T10:00:00.987Z".parse().expect("time");
        let shown = chat_outcome(&recipient, &Row::known(Outcome::Sent, 1, time));
        let stored = serde_json::to_value(&shown).and_then(serde_json::from_value).expect("round trip");
        assert_eq!(shown, stored);
    }
}
