//! An audience split into pages, none of which outgrows what the API server handles well in great number, whatever becomes
//! of its chats.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::domain::page::{Page, Recipient};
use crate::domain::page_csv::{MAX_TEXTS, OUTCOME_HEADER_BYTES, bytes_of, outcome_room, write_recipients};
use crate::domain::suppression::unmarked;

/// Rows of a page at most. Phone numbers with a short name fit in that number.
pub const MAX_PAGE_ROWS: usize = 250;

/// Splits an audience into pages.
#[must_use]
pub fn pages(recipients: Vec<Recipient>) -> Vec<Page> {
    let lengths = lengths(&recipients);
    let mut recipients = recipients.into_iter();
    lengths.into_iter().map(|rows| Page::planned(recipients.by_ref().take(rows).collect())).collect()
}

/// How many rows each page gets.
fn lengths(recipients: &[Recipient]) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut page = Filling::default();
    for recipient in recipients {
        if !page.take(recipient) {
            lengths.push(page.rows);
            page = Filling::default();
            page.take(recipient);
        }
    }
    lengths.extend((page.rows > 0).then_some(page.rows));
    lengths
}

/// A page that is being filled: what its rows take, and what their outcomes may take in the end.
#[derive(Default)]
struct Filling<'a> {
    columns: BTreeSet<&'a str>,
    names: usize,
    rows: usize,
    cells: usize,
}

impl<'a> Filling<'a> {
    /// Takes one more row, if there is room for it. An empty page has room for any row.
    fn take(&mut self, recipient: &'a Recipient) -> bool {
        let values: usize = recipient.params.values().map(|value| bytes_of(value)).sum();
        let cells = bytes_of(&recipient.chat) + bytes_of(&recipient.skip) + values;
        let cells = self.cells + cells + outcome_room(recipient);
        let new = || recipient.params.keys().map(String::as_str).filter(|name| !self.columns.contains(name));
        let columns = self.columns.len() + new().count();
        let names = self.names + new().map(bytes_of).sum::<usize>();
        // Each row has a cell for every column of the page, be it empty.
        let frame = ",".len() + columns + r"\n".len();
        let bytes = "chatskip".len() + names + OUTCOME_HEADER_BYTES + cells + frame * (self.rows + 2);
        if self.rows > 0 && (self.rows == MAX_PAGE_ROWS || bytes > MAX_TEXTS) {
            return false;
        }
        self.columns.extend(recipient.params.keys().map(String::as_str));
        (self.names, self.cells, self.rows) = (names, cells, self.rows + 1);
        true
    }
}

/// Digest of a planned audience: the same chats with the same parameters in the same order have the same one, whoever of them
/// has opted out.
#[must_use]
pub fn digest(pages: &[Page]) -> String {
    let mut hash = Sha256::new();
    for page in pages {
        hash.update(write_recipients(&unmarked(page)));
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
#[path = "paging_tests.rs"]
mod tests;
