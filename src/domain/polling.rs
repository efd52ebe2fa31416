//! Which messages a provider is asked about, because their receipts are missing. Pure.
//!
//! In: rows, the wait of a channel, what is remembered of earlier looks, the time. Out: rows to ask about, and when to look again.
//! When a message is due follows from its own time, so nothing of it is stored: a process that is new asks once more, and that
//! is all.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::ids::BroadcastUid;
use super::outcome::{Outcome, Row};

/// A message is asked about at these multiples of the wait after it was sent: with 15 minutes, after 15 minutes, 1, 6 and 24
/// hours. Most receipts come within minutes; those of a handset that is switched off, or of a message that waits in a queue, come
/// within the hours for which networks try: 10 hours at Twilio.
const STEPS: [i32; 4] = [1, 4, 24, 96];
/// Nothing changes any more when a message is so old: it is not asked about again.
pub const TOO_OLD: SignedDuration = SignedDuration::from_hours(96);
/// Between two looks at one page, at least and at most: its messages become due one after the other, and one look takes all of
/// them.
const SHORTEST_REST: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_REST: SignedDuration = SignedDuration::from_mins(5);

/// When the provider of a channel is asked about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    after: SignedDuration,
}

impl Schedule {
    /// Asks for the first time when nothing was heard of a message for so long.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self { after: SignedDuration::try_from(after).unwrap_or(TOO_OLD) }
    }

    /// Between two looks at one page.
    #[must_use]
    pub fn rest(&self) -> SignedDuration {
        (self.after / 4).clamp(SHORTEST_REST, LONGEST_REST)
    }

    /// Whether a message of this time is to be asked about, if all that were due at `looked` have been.
    #[must_use]
    pub fn is_due(&self, sent: Timestamp, looked: Option<Timestamp>, now: Timestamp) -> bool {
        let is_new = |step: Timestamp| step <= now && looked.is_none_or(|looked| looked < step);
        now < later(sent, TOO_OLD) && self.ages().any(|age| is_new(later(sent, age)))
    }

    /// When a page is to be looked at: the first time at which one of its messages may be due that was not at `looked`. `None`:
    /// never again.
    #[must_use]
    pub fn next_look(&self, waiting: &Waiting, looked: Option<Timestamp>) -> Option<Timestamp> {
        let Waiting { oldest, newest } = *waiting;
        let earliest = looked.map(|looked| later(looked, self.rest()));
        let next = |age| {
            let first = later(oldest, age);
            match (looked, earliest) {
                (Some(looked), _) if later(newest, age) <= looked => None,
                (_, earliest) => Some(earliest.map_or(first, |earliest| earliest.max(first))),
            }
        };
        self.ages().filter_map(next).min().filter(|next| *next < later(newest, TOO_OLD))
    }

    fn ages(&self) -> impl Iterator<Item = SignedDuration> {
        let after = self.after;
        STEPS.into_iter().map(move |step| after.saturating_mul(step)).filter(|age| *age < TOO_OLD)
    }
}

/// The messages of a page of which the last word is not known: when the first and the last of them were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The time of the oldest.
    pub oldest: Timestamp,
    /// The time of the newest.
    pub newest: Timestamp,
}

impl Waiting {
    /// Those of these rows. `None`: there are none.
    #[must_use]
    pub fn of(rows: &[Row]) -> Option<Self> {
        rows.iter().filter_map(waits_since).fold(None, |waiting, time| {
            let Self { oldest, newest } = waiting.unwrap_or(Self { oldest: time, newest: time });
            Some(Self { oldest: oldest.min(time), newest: newest.max(time) })
        })
    }

    /// Whether nothing more is to be learned of any of them.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        later(self.newest, TOO_OLD) <= now
    }
}

/// Since when the last word on a row is waited for. `None`: it is there, or the provider has no id for the message.
fn waits_since(row: &Row) -> Option<Timestamp> {
    let is_open = matches!(row.outcome, Outcome::Sent | Outcome::Unknown) && !row.message_id.is_empty();
    row.time.filter(|_| is_open)
}

/// A page: its Broadcast, and its number there.
pub type PageNumber = (BroadcastUid, usize);

/// What a process remembers of its looks: a time for each page that has something to ask about, and the rows of which the provider
/// knows nothing.
#[derive(Debug, Default)]
pub struct Looks {
    pages: HashMap<PageNumber, Look>,
}

#[derive(Debug, Default)]
struct Look {
    looked: Option<Timestamp>,
    gone: BTreeSet<usize>,
}

impl Looks {
    /// When all messages of a page that were due then had been asked about.
    #[must_use]
    pub fn last(&self, page: &PageNumber) -> Option<Timestamp> {
        self.pages.get(page)?.looked
    }

    /// The rows of a page to ask about now, with their message ids.
    #[must_use]
    pub fn due(
        &self,
        page: &PageNumber,
        schedule: &Schedule,
        rows: &[Row],
        now: Timestamp,
    ) -> Vec<(usize, String)> {
        let look = self.pages.get(page);
        let looked = look.and_then(|look| look.looked);
        let is_gone = |row: usize| look.is_some_and(|look| look.gone.contains(&row));
        let is_due = |row: &Row| waits_since(row).is_some_and(|sent| schedule.is_due(sent, looked, now));
        let due = rows.iter().enumerate().filter(|(number, row)| !is_gone(*number) && is_due(row));
        due.map(|(number, row)| (number, row.message_id.clone())).collect()
    }

    /// The provider knows nothing of the message of this row, and is not asked again.
    pub fn note_gone(&mut self, page: &PageNumber, row: usize) {
        self.pages.entry(page.clone()).or_default().gone.insert(row);
    }

    /// All messages of a page that were due at this time have been asked about.
    pub fn note(&mut self, page: &PageNumber, looked: Timestamp) {
        self.pages.entry(page.clone()).or_default().looked = Some(looked);
    }

    /// Forgets all pages but these.
    pub fn retain(&mut self, is_wanted: impl Fn(&PageNumber) -> bool) {
        self.pages.retain(|page, _| is_wanted(page));
    }
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
