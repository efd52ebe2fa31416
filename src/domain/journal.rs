//! What a journal holds: how far messages came that their gateway took, by page and row. Pure.
//!
//! In: evidence of receipts, or the text of a stored journal. Out: the text, or evidence for pages. It is the greater one of what
//! is known of a row that counts, as in a page: so it does not matter in which order journals are taken in, and how often.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::outcome::{Outcome, Row};
use super::page_csv::name;

/// Receipts of one journal at most: 46 KB, so that it is no larger than a page.
pub const MAX_RECEIPTS: usize = 1000;
const HEADER: &str = "page,row,outcome,time";

/// How far one message came. Of two, the greater one is what both say together: read before delivered, then the earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Progress {
    is_read: bool,
    time: Reverse<Timestamp>,
}

/// How far messages of one Broadcast came, by page and row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipts(BTreeMap<(usize, usize), Progress>);

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
        let Row { outcome, time, attempts, message_id: _, fates, code, detail } = evidence;
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

    fn evidence(self) -> Row {
        Row::known(self.outcome(), 1, self.time.0)
    }
}

impl Receipts {
    /// What evidence says of rows of a page. `None` when it says more than how far their messages came. That a message has this or
    /// that id is left out: whoever asks knows that the row has it.
    #[must_use]
    pub fn of(page: usize, evidence: &[(usize, Row)]) -> Option<Self> {
        let mut receipts = Self::default();
        for (row, evidence) in evidence {
            receipts.add((page, *row), Progress::of(evidence)?);
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
        for (at, progress) in others.0 {
            self.add(at, progress);
        }
    }

    fn add(&mut self, at: (usize, usize), progress: Progress) {
        self.0.entry(at).and_modify(|known| *known = progress.max(*known)).or_insert(progress);
    }

    /// The same in parts that each fit into a journal.
    #[must_use]
    pub fn parts(&self) -> Vec<Self> {
        let all: Vec<_> = self.0.iter().map(|(at, progress)| (*at, *progress)).collect();
        all.chunks(MAX_RECEIPTS).map(|part| Self(part.iter().copied().collect())).collect()
    }

    /// The text of a journal that holds them.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.0.iter().map(|(at, progress)| line(*at, *progress));
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
            let (at, progress) = read_line(text).ok_or(NotAJournal { line })?;
            receipts.add(at, progress);
        }
        Ok(receipts)
    }

    /// Evidence by page, for its rows.
    #[must_use]
    pub fn by_page(&self) -> BTreeMap<usize, Vec<(usize, Row)>> {
        let mut pages: BTreeMap<usize, Vec<(usize, Row)>> = BTreeMap::new();
        for ((page, row), progress) in &self.0 {
            pages.entry(*page).or_default().push((*row, progress.evidence()));
        }
        pages
    }

    /// Those of these pages alone.
    #[must_use]
    pub fn of_pages(&self, pages: &BTreeSet<usize>) -> Self {
        Self(self.0.iter().filter(|((page, _), _)| pages.contains(page)).map(|(at, of)| (*at, *of)).collect())
    }
}

fn line((page, row): (usize, usize), progress: Progress) -> String {
    format!("{page},{row},{},{}\n", name(progress.outcome()), progress.time.0)
}

fn read_line(text: &str) -> Option<((usize, usize), Progress)> {
    let mut fields = text.split(',');
    let (page, row) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let outcome = fields.next()?;
    let is_read = [(Outcome::Delivered, false), (Outcome::Read, true)]
        .into_iter()
        .find_map(|(known, is_read)| (name(known) == outcome).then_some(is_read))?;
    let time = Reverse(fields.next()?.parse().ok()?);
    fields.next().is_none().then_some(((page, row), Progress { is_read, time }))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
