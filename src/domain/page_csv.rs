//! Rows of a page as CSV, both ways. What is read back is what was written, for every text that a user can put there.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::outcome::{Outcome, Row};
use super::page::{PageError, Recipient};

const OUTCOME_HEADER: [&str; 7] = ["chat", "outcome", "time", "attempts", "messageId", "code", "detail"];
/// Columns before the parameters.
const FIXED_COLUMNS: usize = 2;

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

/// One row per recipient, in the same order.
pub(super) fn write_outcomes(recipients: &[Recipient], rows: &[Row]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::with_capacity(rows.len() * 80));
    write(&mut writer, OUTCOME_HEADER.into_iter());
    for (recipient, row) in recipients.iter().zip(rows) {
        let time = row.time.map(|time| time.to_string()).unwrap_or_default();
        let attempts = row.attempts.to_string();
        let fields = [
            recipient.chat.as_str(),
            name(row.outcome),
            &time,
            &attempts,
            &row.message_id,
            &row.code,
            &row.detail,
        ];
        write(&mut writer, fields.into_iter());
    }
    finish(writer)
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
    Some(Row {
        outcome: outcome(&record[1])?,
        time,
        attempts: record[3].parse().ok()?,
        message_id: record[4].to_owned(),
        code: record[5].to_owned(),
        detail: record[6].to_owned(),
    })
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
