//! What a journal holds: how far messages came that their gateway took, by page and row. Pure.
//!
//! In: evidence of receipts, or the text of a stored journal. Out: the text, or evidence for pages. It is the greater one of what
//! is known of a row that counts, as in a page: so it does not matter in which order journals are taken in, and how often.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::outcome::{Outcome, Row};
use super::page_csv::name;
use super::participants::Participants;

/// Receipts of one journal at most: 46 KB, so that it is no larger than a page. Those of a group count for several, as they are longer.
pub const MAX_RECEIPTS: usize = 1000;
/// Bytes of a receipt.
const RECEIPT_BYTES: usize = 46;
const HEADER: &str = "page,row,outcome,time";

/// How far one message came. Of two, the greater one is what both say together: read before delivered, then the earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Progress {
    is_read: bool,
    time: Reverse<Timestamp>,
}

/// What is known of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    progress: Progress,
    /// Of a group, which participants have the message.
    participants: Participants,
}

/// How far messages of one Broadcast came, by page and row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipts(BTreeMap<(usize, usize), Known>);

/// The text of a journal that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("failed to read line {line} of a journal")]
pub struct NotAJournal {
    /// Number of the line, from 1.
    pub line: usize,
}

impl Progress {
    /// What evidence says, if it says nothing but how far the message came.
    fn of(evidence: &Row) -> Option<Self> {
        // What it says of participants is kept beside this.
        let Row { outcome, time, attempts, message_id: _, fates, code, detail, participants: _ } = evidence;
        let is_read = match outcome {
            Outcome::Delivered => false,
            Outcome::Read => true,
            _ => return None,
        };
        let is_plain = *attempts == 1 && fates.is_empty() && code.is_empty() && detail.is_empty();
        let time = time.filter(|_| is_plain)?;
        Some(Self { is_read, time: Reverse(time) })
    }

    fn outcome(self) -> Outcome {
        if self.is_read { Outcome::Read } else { Outcome::Delivered }
    }
}

impl Known {
    fn of(evidence: &Row) -> Option<Self> {
        let participants = evidence.participants.clone();
        Progress::of(evidence).map(|progress| Self { progress, participants })
    }

    fn join(&mut self, other: &Self) {
        self.progress = self.progress.max(other.progress);
        self.participants = self.participants.join(&other.participants);
    }

    fn evidence(&self) -> Row {
        let Self { progress, participants } = self;
        let row = Row::known(progress.outcome(), 1, progress.time.0);
        Row { participants: participants.clone(), ..row }
    }

    /// For how many receipts it counts.
    fn weight(&self) -> usize {
        1 + self.participants.text_bytes().div_ceil(RECEIPT_BYTES)
    }
}

impl Receipts {
    /// What evidence says of rows of a page. `None` when it says more than how far their messages came. That a message has this or
    /// that id is left out: whoever asks knows that the row has it.
    #[must_use]
    pub fn of(page: usize, evidence: &[(usize, Row)]) -> Option<Self> {
        let mut receipts = Self::default();
        for (row, evidence) in evidence {
            receipts.add((page, *row), Known::of(evidence)?);
        }
        Some(receipts)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds others of the same Broadcast.
    pub fn extend(&mut self, others: Self) {
        for (at, known) in others.0 {
            self.add(at, known);
        }
    }

    fn add(&mut self, at: (usize, usize), news: Known) {
        match self.0.entry(at) {
            Entry::Occupied(mut known) => known.get_mut().join(&news),
            Entry::Vacant(free) => drop(free.insert(news)),
        }
    }

    /// The same in parts that each fit into a journal.
    #[must_use]
    pub fn parts(&self) -> Vec<Self> {
        let (mut parts, mut filled) = (Vec::<Self>::new(), 0);
        for (at, known) in &self.0 {
            filled += known.weight();
            if parts.is_empty() || filled > MAX_RECEIPTS {
                parts.push(Self::default());
                filled = known.weight();
            }
            parts.last_mut().expect("should have just made one").0.insert(*at, known.clone());
        }
        parts
    }

    /// The text of a journal that holds them.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.0.iter().map(|(at, known)| line(*at, known));
        [format!("{HEADER}\n")].into_iter().chain(lines).collect()
    }

    /// The pages that they are of.
    #[must_use]
    pub fn pages(&self) -> BTreeSet<usize> {
        self.0.keys().map(|(page, _)| *page).collect()
    }

    /// Reads the text of a journal.
    ///
    /// # Errors
    /// When it is not as [`text`](Self::text) writes it.
    pub fn parse(text: &str) -> Result<Self, NotAJournal> {
        let mut lines = text.lines().zip(1..);
        if lines.next().is_none_or(|(header, _)| header != HEADER) {
            return Err(NotAJournal { line: 1 });
        }
        let mut receipts = Self::default();
        for (text, line) in lines {
            let (at, known) = read_line(text).ok_or(NotAJournal { line })?;
            receipts.add(at, known);
        }
        Ok(receipts)
    }

    /// Evidence by page, for its rows.
    #[must_use]
    pub fn by_page(&self) -> BTreeMap<usize, Vec<(usize, Row)>> {
        let mut pages: BTreeMap<usize, Vec<(usize, Row)>> = BTreeMap::new();
        for ((page, row), known) in &self.0 {
            pages.entry(*page).or_default().push((*row, known.evidence()));
        }
        pages
    }

    /// Those of these pages alone.
    #[must_use]
    pub fn of_pages(&self, pages: &BTreeSet<usize>) -> Self {
        let of_them = self.0.iter().filter(|((page, _), _)| pages.contains(page));
        Self(of_them.map(|(at, known)| (*at, known.clone())).collect())
    }
}

/// Participants make a field of their own, which other lines do not have.
fn line((page, row): (usize, usize), Known { progress, participants }: &Known) -> String {
    let comma = if participants.is_empty() { "" } else { "," };
    format!("{page},{row},{},{}{comma}{participants}\n", name(progress.outcome()), progress.time.0)
}

fn read_line(text: &str) -> Option<((usize, usize), Known)> {
    let mut fields = text.split(',');
    let (page, row) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let outcome = fields.next()?;
    let is_read = [(Outcome::Delivered, false), (Outcome::Read, true)]
        .into_iter()
        .find_map(|(known, is_read)| (name(known) == outcome).then_some(is_read))?;
    let time = Reverse(fields.next()?.parse().ok()?);
    let participants = fields.next().map_or(Ok(Participants::default()), Participants::parse_whole).ok()?;
    let known = Known { progress: Progress { is_read, time }, participants };
    fields.next().is_none().then_some(((page, row), known))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
