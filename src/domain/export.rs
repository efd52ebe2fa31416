//! The log of a Broadcast as one CSV, for people and their spreadsheets.
//!
//! In: its pages. Out: a row per chat, in the order of the audience: `chat,outcome,time,attempts,messageId,code,detail`, then
//! the parameters of all recipients, and where participants of a group were told apart, how many of them have it. Pages keep
//! every text as it was written. A spreadsheet runs some texts as formulas, and so may send the whole log to whoever chose a
//! name such as `=HYPERLINK(…)`. So [`Cells::Guarded`] puts a single quote in front of what could be a formula, as OWASP's
//! guidance on CSV injection has it.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use super::ids::page_name;
use super::outcome::Row;
use super::page::{Page, PageError, Recipient};
use super::page_csv::{OUTCOME_HEADER, name};
use super::text::is_invisible;
use crate::api::{Broadcast, BroadcastBatch};

/// Columns behind all others, of a log in which participants of a group were told apart.
const PARTICIPANT_HEADER: [&str; 2] = ["participantsDelivered", "participantsRead"];

/// Missing pages that are named at most.
const MAX_NAMED: usize = 10;

/// Pages that are not the whole log of their Broadcast.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no log yet, or nobody knows how many pages it has.
    #[error(
        "its status does not say how many pages it has: its audience is not sealed yet, or its status is lost"
    )]
    NotSealed,
    /// Pages were deleted.
    #[error("{missing} of its {total} pages are missing: {names}")]
    Missing {
        /// How many.
        missing: usize,
        /// How many there should be.
        total: i32,
        /// Which ones, or the first of them.
        names: String,
    },
    /// There are more pages than were planned.
    #[error("it has {found} pages and should have {total}")]
    Surplus {
        /// How many there are.
        found: usize,
        /// How many there should be.
        total: i32,
    },
    /// A page makes no sense.
    #[error("page {page} cannot be read")]
    Page {
        /// Its name.
        page: String,
        /// What is wrong with it.
        #[source]
        source: PageError,
    },
}

/// The pages of a Broadcast, in their order, out of those under its name: those that an earlier Broadcast of this name has
/// left are none of them.
///
/// # Errors
/// When any is missing, or cannot be read.
pub fn whole_log(broadcast: &Broadcast, batches: Vec<BroadcastBatch>) -> Result<Vec<Page>, LogError> {
    let uid = broadcast.uid().unwrap_or_default();
    let progress = broadcast.status.as_ref().and_then(|status| status.batches);
    let total = progress.ok_or(LogError::NotSealed)?.total;
    let own: Vec<BroadcastBatch> =
        batches.into_iter().filter(|batch| batch.spec.broadcast.uid == uid).collect();
    let found = own.len();
    let by_index: BTreeMap<i32, BroadcastBatch> =
        own.into_iter().map(|batch| (batch.spec.index, batch)).collect();
    let missing: Vec<i32> = (0..total).filter(|index| !by_index.contains_key(index)).collect();
    if !missing.is_empty() {
        let names = missing.iter().take(MAX_NAMED).filter_map(|index| usize::try_from(*index).ok());
        let names: Vec<String> = names.map(|index| page_name(&broadcast.name_any(), index)).collect();
        let more = if missing.len() > MAX_NAMED { ", …" } else { "" };
        let names = format!("{}{more}", names.join(", "));
        return Err(LogError::Missing { missing: missing.len(), total, names });
    }
    if usize::try_from(total) != Ok(found) {
        return Err(LogError::Surplus { found, total });
    }
    let read = |batch: BroadcastBatch| {
        Page::parse(&batch).map_err(|source| LogError::Page { page: batch.name_any(), source })
    };
    by_index.into_values().map(read).collect()
}

/// How texts stand in the CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cells {
    /// No cell can be taken for a formula. For spreadsheets.
    Guarded,
    /// As they stand in the pages. For programs.
    Raw,
}

/// What a formula begins with. The wide forms, of East Asian keyboards, are taken for the usual ones.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];
/// Makes a spreadsheet take a cell for text.
const GUARD: char = '\'';

/// All pages of a Broadcast, in their order, as CSV.
#[must_use]
pub fn csv(pages: &[Page], cells: Cells) -> String {
    let params: BTreeSet<&str> = pages
        .iter()
        .flat_map(Page::recipients)
        .flat_map(|recipient| recipient.params.keys().map(String::as_str))
        .collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |fields: &[String]| {
        let fields = fields.iter().map(|field| match cells {
            Cells::Guarded => guarded(field),
            Cells::Raw => field.clone(),
        });
        writer.write_record(fields).expect("should write CSV to memory");
    };
    let has_participants = pages.iter().flat_map(Page::rows).any(|row| !row.participants.is_empty());
    write(&header(&params, has_participants));
    for page in pages {
        for (recipient, row) in page.recipients().iter().zip(page.rows()) {
            write(&line(recipient, row, &params, has_participants));
        }
    }
    let bytes = writer.into_inner().expect("should flush CSV to memory");
    String::from_utf8(bytes).expect("should write CSV of strings as UTF-8")
}

/// The columns. A parameter that has the name of another column is told apart by what no name of a parameter has: a dot.
fn header(params: &BTreeSet<&str>, has_participants: bool) -> Vec<String> {
    let last = if has_participants { &PARTICIPANT_HEADER[..] } else { &[] };
    let column = |param: &&str| match OUTCOME_HEADER.contains(param) || last.contains(param) {
        true => format!("params.{param}"),
        false => (*param).to_owned(),
    };
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    own(&OUTCOME_HEADER).into_iter().chain(params.iter().map(column)).chain(own(last)).collect()
}

fn line(recipient: &Recipient, row: &Row, params: &BTreeSet<&str>, has_participants: bool) -> Vec<String> {
    // Without `..`: a field that is added belongs into the log.
    let Row { outcome, time, attempts, message_id, fates: _, code, detail, participants } = row;
    let fixed = [
        recipient.chat.clone(),
        name(*outcome).to_owned(),
        time.map(|time| time.to_string()).unwrap_or_default(),
        attempts.to_string(),
        message_id.clone(),
        code.clone(),
        detail.clone(),
    ];
    let params = params.iter().map(|param| recipient.params.get(*param).cloned().unwrap_or_default());
    let counts = participants.counts();
    let counts = [counts.map(|counts| counts.delivered), counts.map(|counts| counts.read)];
    let counts = counts.map(|count| count.map(|count| count.to_string()).unwrap_or_default());
    let counts = counts.into_iter().filter(|_| has_participants);
    fixed.into_iter().chain(params).chain(counts).collect()
}

/// A text with a quote in front of all that a spreadsheet could run: in front of the text itself, and in front of what
/// would begin a cell if the file were split at semicolons, tabs and line breaks, as spreadsheets do where the comma is a
/// decimal sign. Taking one quote away at each of these places undoes it.
fn guarded(text: &str) -> String {
    let mut guarded = text.to_owned();
    for place in places(text) {
        guarded.insert(place, GUARD);
    }
    guarded
}

/// Where a cell could begin and be run, the last place first. Quotes before a formula change nothing, so that a text and
/// the same with a guard have the same places.
fn places(text: &str) -> Vec<usize> {
    let mut places = Vec::new();
    let mut runs = false;
    let mut rest = text.char_indices().rev().peekable();
    while let Some((place, c)) = rest.next() {
        runs = FORMULA.contains(&c) || (runs && is_passed_over(c));
        if runs && rest.peek().is_none_or(|(_, before)| splits_cells(*before)) {
            places.push(place);
        }
    }
    // Tabs and line ends count as the beginning of a formula too, and no usual text begins with a control character.
    let is_first = places.last() == Some(&0);
    if !is_first && text.trim_start_matches(GUARD).starts_with(char::is_control) {
        places.push(0);
    }
    places
}

/// What a spreadsheet may pass over on its way to a formula.
fn is_passed_over(c: char) -> bool {
    c.is_whitespace() || c.is_control() || is_invisible(c) || c == GUARD || c == '"'
}

fn splits_cells(c: char) -> bool {
    matches!(c, ';' | '\t' | '\n' | '\r')
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
