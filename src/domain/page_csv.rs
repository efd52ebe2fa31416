//! Rows of a page as CSV, both ways. What is read back is what was written, for every text that a user can put there.
//! Only what a gateway said is cut where a page has no room for it, so that a page stays small whatever it says.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::fates::Fates;
use super::outcome::{AFTER_DETAIL, AFTER_ID, MAX_CODE, MAX_DETAIL, MAX_MESSAGE_ID, Outcome, Row};
use super::page::{PageError, Recipient};
use super::participants::{MARK_BYTES, Participants};

/// Columns of the outcomes.
pub(super) const OUTCOME_HEADER: [&str; 7] =
    ["chat", "outcome", "time", "attempts", "messageId", "code", "detail"];
/// Columns before the parameters.
const FIXED_COLUMNS: usize = 2;

/// Bytes of both texts of a page together, as they stand in its JSON. With names, owner, claim and counts a page then stays
/// below 50 KiB, which the guidance on the scalability of custom resources asks for.
pub(super) const MAX_TEXTS: usize = 48_128;
/// Bytes of the header of the outcomes.
pub(super) const OUTCOME_HEADER_BYTES: usize = 51;
/// Bytes of outcome, time, attempts, separators and the end of a line.
const OUTCOME_FRAME: usize = 9 + 24 + 3 + 6 + 2;
/// Bytes of a tab within JSON.
const TAB_BYTES: usize = 2;
/// What a page keeps at least of a message id, a code and a detail, in bytes. A shorter code says nothing. Participants of a group
/// have what these leave: eight of them fit beside an id of 70 bytes.
const LEAST: Cut = Cut { message_id: 96, code: 8, detail: 0, row: 96 + 8 };
/// How much of what a gateway said is kept, the first that fits. Details go first, ids last: they find receipts.
const CUTS: [Cut; 8] = [
    Cut { message_id: MAX_MESSAGE_ID, code: MAX_CODE, detail: MAX_DETAIL, row: usize::MAX },
    Cut { message_id: MAX_MESSAGE_ID, code: MAX_CODE, detail: 120, row: usize::MAX },
    Cut { message_id: MAX_MESSAGE_ID, code: MAX_CODE, detail: 80, row: usize::MAX },
    Cut { message_id: MAX_MESSAGE_ID, code: MAX_CODE, detail: 40, row: usize::MAX },
    Cut { message_id: MAX_MESSAGE_ID, code: MAX_CODE, detail: 0, row: usize::MAX },
    Cut { message_id: MAX_MESSAGE_ID, code: 16, detail: 0, row: usize::MAX },
    Cut { message_id: MAX_MESSAGE_ID, code: 8, detail: 0, row: usize::MAX },
    LEAST,
];

/// Most bytes of the parts of a row that a gateway gives.
#[derive(Clone, Copy)]
struct Cut {
    message_id: usize,
    code: usize,
    detail: usize,
    /// All three together, with the participants of a group: they take what is left.
    row: usize,
}

impl Cut {
    /// A message id is kept whole or not at all: half an id finds nothing. A row that was never sent keeps its reason,
    /// which its page was planned with.
    fn of<'a>(&self, row: &'a Row) -> [Cow<'a, str>; 3] {
        if row.outcome == Outcome::Skipped {
            return [&row.message_id, &row.code, &row.detail].map(Cow::from);
        }
        let (id, code) = (self.id(row), cut(&row.code, self.code));
        let detail = self.detail(row, bytes_of(&id) + bytes_of(code));
        [id, code.into(), detail]
    }

    /// What was said, and the participants behind it: as many as fit beside what takes so many bytes.
    fn detail<'a>(&self, row: &'a Row, taken: usize) -> Cow<'a, str> {
        let said = cut(&row.detail, self.detail);
        if row.participants.is_empty() {
            return said.into();
        }
        let with = format!("{said}{AFTER_DETAIL}{}", row.participants);
        let least = bytes_of(said) + TAB_BYTES;
        let room = self.row.saturating_sub(taken + least) / MARK_BYTES * MARK_BYTES;
        if room == 0 { said.into() } else { cut(&with, least + room).to_owned().into() }
    }

    /// Where both do not fit, what failed is kept rather than the id, and the id rather than what was only taken.
    fn id<'a>(&self, row: &'a Row) -> Cow<'a, str> {
        let fits = |text: &str| bytes_of(text) <= self.message_id;
        if !row.fates.is_empty() {
            let whole = format!("{}{AFTER_ID}{}", row.message_id, row.fates);
            if fits(&whole) {
                return whole.into();
            }
            let alone = format!("{AFTER_ID}{}", row.fates);
            if row.fates.has_failure() && fits(&alone) {
                // The id may be that of a message that failed, and would be taken for the one that did not.
                return alone.into();
            }
        }
        if fits(&row.message_id) { row.message_id.as_str().into() } else { "".into() }
    }
}

/// Bytes of a CSV field as it stands in the JSON of a page: CSV doubles its quotes, and JSON escapes each of them. Counted
/// as the API server writes it, which escapes more than is needed.
pub(super) fn bytes_of(field: &str) -> usize {
    measure(field).last().map_or(0, |(_, bytes)| bytes)
}

/// The longest beginning of a field that has so many bytes.
pub(super) fn cut(field: &str, most: usize) -> &str {
    let end = measure(field).take_while(|(_, bytes)| *bytes <= most).last().map_or(0, |(end, _)| end);
    &field[..end]
}

/// Each beginning of a field: where it ends, and its bytes.
fn measure(field: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut inner = 0;
    let mut quotes = 0;
    field.char_indices().map(move |(start, c)| {
        if matches!(c, ',' | '"' | '\n' | '\r') {
            quotes = 4;
        }
        inner += if c == '"' { 2 * json_bytes(c) } else { json_bytes(c) };
        (start + c.len_utf8(), inner + quotes)
    })
}

/// Bytes of a character within JSON, as Go writes it.
fn json_bytes(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => 6,
        c if c.is_ascii_control() => 6,
        c => c.len_utf8(),
    }
}

/// Bytes that the outcome of a recipient may need in the end, if what a gateway says is cut.
pub(super) fn outcome_room(recipient: &Recipient) -> usize {
    let texts = match recipient.skip.as_str() {
        "" => LEAST.message_id + LEAST.code + LEAST.detail,
        reason => {
            let row = Row::skipped(reason);
            bytes_of(&row.code) + bytes_of(&row.detail)
        }
    };
    bytes_of(&recipient.chat) + texts + OUTCOME_FRAME
}

/// `chat,skip,<parameters…>`, a row per recipient.
pub(super) fn write_recipients(recipients: &[Recipient]) -> String {
    let names: Vec<&str> = {
        let mut names: Vec<&str> =
            recipients.iter().flat_map(|r| r.params.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    write(&mut writer, ["chat", "skip"].into_iter().chain(names.iter().copied()));
    for recipient in recipients {
        let params = names.iter().map(|name| recipient.params.get(*name).map_or("", String::as_str));
        write(&mut writer, [recipient.chat.as_str(), recipient.skip.as_str()].into_iter().chain(params));
    }
    finish(writer)
}

/// Reads what [`write_recipients`] wrote. An empty parameter is an absent one.
pub(super) fn read_recipients(text: &str) -> Result<Vec<Recipient>, PageError> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(PageError::Recipients)?.clone();
    if header.len() < FIXED_COLUMNS || &header[0] != "chat" || &header[1] != "skip" {
        return Err(PageError::Header { found: header.iter().collect::<Vec<_>>().join(",") });
    }
    let mut recipients = Vec::new();
    for record in reader.records() {
        let record = record.map_err(PageError::Recipients)?;
        let params: BTreeMap<String, String> = header
            .iter()
            .zip(&record)
            .skip(FIXED_COLUMNS)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        recipients.push(Recipient { chat: record[0].to_owned(), skip: record[1].to_owned(), params });
    }
    Ok(recipients)
}

/// One row per recipient, in the same order. What a gateway said is cut if the page has no room for it.
pub(super) fn write_outcomes(recipients: &[Recipient], rows: &[Row]) -> String {
    let cut = fitting_cut(recipients, rows);
    let mut writer = csv::Writer::from_writer(Vec::with_capacity(rows.len() * 80));
    write(&mut writer, OUTCOME_HEADER.into_iter());
    for (recipient, row) in recipients.iter().zip(rows) {
        let time = row.time.map(|time| time.to_string()).unwrap_or_default();
        let attempts = row.attempts.to_string();
        let [message_id, code, detail] = cut.of(row);
        let fields =
            [recipient.chat.as_str(), name(row.outcome), &time, &attempts, &message_id, &code, &detail];
        write(&mut writer, fields.into_iter());
    }
    finish(writer)
}

/// The first cut with which a page stays as small as it should.
fn fitting_cut(recipients: &[Recipient], rows: &[Row]) -> Cut {
    let frames: usize = recipients.iter().map(|recipient| bytes_of(&recipient.chat) + OUTCOME_FRAME).sum();
    let texts =
        |cut: &Cut| -> usize { rows.iter().flat_map(|row| cut.of(row)).map(|text| bytes_of(&text)).sum() };
    let planned: usize = recipients.iter().map(outcome_room).sum();
    let [whole, shorter @ ..] = CUTS;
    // A planned page always has this much room, and most pages need no more: then nothing else has to be counted.
    if frames + texts(&whole) <= planned {
        return whole;
    }
    let room = MAX_TEXTS.saturating_sub(OUTCOME_HEADER_BYTES + text_bytes(&write_recipients(recipients)));
    let fits = |cut: &Cut| frames + texts(cut) <= room;
    if fits(&whole) { whole } else { shorter.into_iter().find(fits).unwrap_or(LEAST) }
}

/// Bytes of a text within JSON.
fn text_bytes(csv: &str) -> usize {
    csv.chars().map(json_bytes).sum()
}

/// Reads what [`write_outcomes`] wrote, and checks that it speaks of these recipients.
pub(super) fn read_outcomes(recipients: &[Recipient], text: &str) -> Result<Vec<Row>, PageError> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let mut rows = Vec::with_capacity(recipients.len());
    for record in reader.records() {
        let record = record.map_err(PageError::Outcomes)?;
        let line = rows.len();
        let belongs =
            recipients.get(line).is_some_and(|recipient| record.get(0) == Some(recipient.chat.as_str()));
        if !belongs || record.len() != OUTCOME_HEADER.len() {
            return Err(PageError::Row { line });
        }
        rows.push(read_row(&record).ok_or(PageError::Row { line })?);
    }
    if rows.len() == recipients.len() { Ok(rows) } else { Err(PageError::Row { line: rows.len() }) }
}

fn read_row(record: &csv::StringRecord) -> Option<Row> {
    let time = match &record[2] {
        "" => None,
        text => Some(text.parse::<Timestamp>().ok()?),
    };
    let (id, fates) = record[4].split_once(AFTER_ID).unwrap_or((&record[4], ""));
    let (id, fates) = fates.parse().map_or((&record[4], Fates::default()), |fates| (id, fates));
    let outcome = outcome(&record[1])?;
    let (detail, participants) = split_detail(&record[6], outcome);
    Some(Row {
        outcome,
        time,
        attempts: record[3].parse().ok()?,
        message_id: id.to_owned(),
        fates,
        code: record[5].to_owned(),
        detail: detail.to_owned(),
        participants,
    })
}

/// What was said, and the participants of a group that have the message.
fn split_detail(detail: &str, outcome: Outcome) -> (&str, Participants) {
    let has_arrived = matches!(outcome, Outcome::Delivered | Outcome::Read);
    let split = detail.split_once(AFTER_DETAIL).filter(|_| has_arrived);
    let split = split.and_then(|(said, participants)| Some((said, participants.parse().ok()?)));
    split.unwrap_or((detail, Participants::default()))
}

/// Name of an outcome in a page.
pub(super) fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pending => "Pending",
        Outcome::Skipped => "Skipped",
        Outcome::Cancelled => "Cancelled",
        Outcome::Unknown => "Unknown",
        Outcome::Sent => "Sent",
        Outcome::Failed => "Failed",
        Outcome::Delivered => "Delivered",
        Outcome::Read => "Read",
    }
}

fn outcome(text: &str) -> Option<Outcome> {
    [
        Outcome::Pending,
        Outcome::Skipped,
        Outcome::Cancelled,
        Outcome::Unknown,
        Outcome::Sent,
        Outcome::Failed,
        Outcome::Delivered,
        Outcome::Read,
    ]
    .into_iter()
    .find(|outcome| name(*outcome) == text)
}

fn write<'a>(writer: &mut csv::Writer<Vec<u8>>, fields: impl Iterator<Item = &'a str>) {
    writer.write_record(fields).expect("should write CSV to memory");
}

fn finish(writer: csv::Writer<Vec<u8>>) -> String {
    let bytes = writer.into_inner().expect("should flush CSV to memory");
    String::from_utf8(bytes).expect("should write CSV of strings as UTF-8")
}

#[cfg(test)]
#[path = "page_csv_tests.rs"]
mod tests;
