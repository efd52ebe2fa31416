//! An audience, from inline chats and CSV texts to rows: normalised, without duplicates, and with nothing dropped. What
//! cannot be sent to is a row too, with the reason why.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest, Sha256};

use super::page::{Page, Recipient};
use crate::api::Chat;

/// Rows of a page at most: with typical rows a page then stays below 50 KB, outcomes included.
pub const MAX_PAGE_ROWS: usize = 250;
/// Bytes of recipients in a page at most, unless a single row is longer.
pub const MAX_PAGE_BYTES: usize = 16 * 1024;
/// Rows of an audience at most: 4,000 pages, which is what an API server keeps without trouble.
pub const MAX_ROWS: usize = 1_000_000;
/// Longest chat id, in characters.
const MAX_CHAT: usize = 128;
/// Digits of a phone number or numeric chat id: E.164 has 15 at most, Telegram ids 16.
const CHAT_DIGITS: std::ops::RangeInclusive<usize> = 3..=20;
/// Longest value of a parameter, in characters, and most parameters of a recipient.
const MAX_VALUE: usize = 1024;
const MAX_PARAMS: usize = 32;
/// Columns that can hold the chat, the first one found.
const CHAT_COLUMNS: [&str; 3] = ["chat", "id", "phone"];

/// An audience that cannot be read at all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AudienceError {
    /// No column holds the chats.
    #[error(
        "{source_name} has no column chat, id or phone (its first line is \"{first_line}\"): name the column that holds the chats"
    )]
    NoChatColumn {
        /// Where it was read.
        source_name: String,
        /// How it begins.
        first_line: String,
    },
    /// A column cannot be a parameter.
    #[error(
        "{source_name} has a column \"{column}\", which {problem}: column names are parameter names, letters, digits and _ only, \
         each once, at most 32"
    )]
    BadHeader {
        /// Where it was read.
        source_name: String,
        /// The column.
        column: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// It is no CSV.
    #[error("{source_name} cannot be read as CSV: {problem}")]
    NotCsv {
        /// Where it was read.
        source_name: String,
        /// What is wrong.
        problem: String,
    },
    /// There is nobody in it.
    #[error("the audience is empty: no source has a row with a chat")]
    Empty,
    /// There are too many in it.
    #[error("the audience has more than {MAX_ROWS} rows: split it into several Broadcasts")]
    TooLarge,
}

impl AudienceError {
    /// One word, as a condition's reason.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NoChatColumn { .. } => "NoChatColumn",
            Self::BadHeader { .. } => "InvalidColumn",
            Self::NotCsv { .. } => "InvalidCsv",
            Self::Empty => "EmptyAudience",
            Self::TooLarge => "AudienceTooLarge",
        }
    }
}

/// Collects an audience from several sources.
#[derive(Debug, Default)]
pub struct Audience {
    recipients: Vec<Recipient>,
    seen: HashSet<String>,
}

impl Audience {
    /// Adds inline chats.
    ///
    /// # Errors
    /// When the audience grows too large.
    pub fn add_chats(&mut self, chats: &[Chat]) -> Result<(), AudienceError> {
        for chat in chats {
            let params = chat.params.iter().map(|(name, value)| (name.clone(), value.trim().to_owned()));
            self.add(&chat.id, params.filter(|(_, value)| !value.is_empty()).collect())?;
        }
        Ok(())
    }

    /// Adds CSV text: with a header, or one chat per line.
    ///
    /// # Errors
    /// When the text as a whole makes no sense. A bad row is a row with a reason.
    pub fn add_csv(&mut self, source_name: &str, text: &str) -> Result<(), AudienceError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter_of(text))
            .from_reader(text.as_bytes());
        let mut columns: Option<Columns> = None;
        for record in reader.records() {
            let record = record.map_err(|error| AudienceError::NotCsv {
                source_name: source_name.to_owned(),
                problem: error.to_string(),
            })?;
            if record.iter().all(|cell| cell.trim().is_empty()) {
                continue;
            }
            if let Some(columns) = &columns {
                self.add_record(columns, &record)?;
                continue;
            }
            let found = Columns::of(source_name, &record)?;
            if found.is_headerless {
                self.add_record(&found, &record)?;
            }
            columns = Some(found);
        }
        Ok(())
    }

    /// The rows, in their order.
    ///
    /// # Errors
    /// When there are none.
    pub fn finish(self) -> Result<Vec<Recipient>, AudienceError> {
        if self.recipients.is_empty() { Err(AudienceError::Empty) } else { Ok(self.recipients) }
    }

    fn add_record(&mut self, columns: &Columns, record: &csv::StringRecord) -> Result<(), AudienceError> {
        let chat = record.get(columns.chat).unwrap_or_default();
        if record.len() != columns.number {
            let line = record.position().map_or(0, csv::Position::line);
            let reason = format!(
                "RaggedRow: line {line} has {} fields, the header has {}",
                record.len(),
                columns.number
            );
            return self.push(shown(chat), reason, BTreeMap::new());
        }
        let params =
            columns.params.iter().map(|(index, name)| (name.clone(), record[*index].trim().to_owned()));
        self.add(chat, params.filter(|(_, value)| !value.is_empty()).collect())
    }

    fn add(&mut self, chat: &str, params: BTreeMap<String, String>) -> Result<(), AudienceError> {
        let Some(normal) = normalise(chat) else {
            return self.push(shown(chat), "InvalidChat: not a phone number or chat id".into(), params);
        };
        if params.len() > MAX_PARAMS || params.values().any(|value| value.chars().count() > MAX_VALUE) {
            return self.push(
                normal,
                format!("ParameterTooLong: at most {MAX_VALUE} characters"),
                BTreeMap::new(),
            );
        }
        if !self.seen.insert(normal.clone()) {
            return self.push(normal, "Duplicate: the chat is in the audience already".into(), params);
        }
        self.push(normal, String::new(), params)
    }

    fn push(
        &mut self,
        chat: String,
        skip: String,
        params: BTreeMap<String, String>,
    ) -> Result<(), AudienceError> {
        if self.recipients.len() == MAX_ROWS {
            return Err(AudienceError::TooLarge);
        }
        // A row that is never sent needs no parameters, and they may be what is wrong with it.
        let params = if skip.is_empty() { params } else { BTreeMap::new() };
        self.recipients.push(Recipient { chat, skip, params });
        Ok(())
    }
}

/// What the columns of one source hold.
struct Columns {
    chat: usize,
    params: Vec<(usize, String)>,
    number: usize,
    is_headerless: bool,
}

impl Columns {
    fn of(source_name: &str, first: &csv::StringRecord) -> Result<Self, AudienceError> {
        let names: Vec<&str> = first.iter().map(str::trim).collect();
        let chat = CHAT_COLUMNS
            .iter()
            .find_map(|wanted| names.iter().position(|name| name.eq_ignore_ascii_case(wanted)));
        match chat {
            Some(chat) => Self::with_header(source_name, &names, chat),
            // A list of ids: a name would have no digit and no sign of an address in it.
            None if names.len() == 1 && names[0].contains(|c: char| c.is_ascii_digit() || c == '@') => {
                Ok(Self { chat: 0, params: Vec::new(), number: 1, is_headerless: true })
            }
            None => Err(AudienceError::NoChatColumn {
                source_name: source_name.to_owned(),
                first_line: names.join(",").chars().take(80).collect(),
            }),
        }
    }

    fn with_header(source_name: &str, names: &[&str], chat: usize) -> Result<Self, AudienceError> {
        let bad = |column: &str, problem| AudienceError::BadHeader {
            source_name: source_name.to_owned(),
            column: column.chars().take(64).collect(),
            problem,
        };
        let mut params: Vec<(usize, String)> = Vec::new();
        for (index, name) in
            names.iter().enumerate().filter(|(index, name)| *index != chat && !name.is_empty())
        {
            if !is_variable(name) {
                return Err(bad(name, "cannot be used in a message"));
            }
            if params.iter().any(|(_, known)| known == name) {
                return Err(bad(name, "stands there twice"));
            }
            params.push((index, (*name).to_owned()));
        }
        if params.len() > MAX_PARAMS {
            return Err(bad(names[names.len() - 1], "is one too many"));
        }
        Ok(Self { chat, params, number: names.len(), is_headerless: false })
    }
}

fn is_variable(name: &str) -> bool {
    let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    starts_well && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Comma, or what spreadsheets use instead where the comma is a decimal sign.
fn delimiter_of(text: &str) -> u8 {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    [b',', b';', b'\t'].into_iter().find(|delimiter| first.contains(char::from(*delimiter))).unwrap_or(b',')
}

/// A chat in the one form in which it is sent and compared, or `None` when it is none. Phone numbers become their digits
/// (`+1 (555) 123-0001`, `001 555 1230001` and `15551230001` are one chat); ids of chat networks stay as they are.
#[must_use]
pub fn normalise(chat: &str) -> Option<String> {
    let chat = chat.trim();
    let looks_like_phone = !chat.starts_with('-')
        && chat.chars().all(|c| c.is_ascii_digit() || " +-().\u{a0}".contains(c))
        && chat.contains(|c: char| c.is_ascii_digit());
    if looks_like_phone {
        let digits: String = chat.chars().filter(char::is_ascii_digit).collect();
        let digits = digits.strip_prefix("00").map(str::to_owned).unwrap_or(digits);
        return CHAT_DIGITS.contains(&digits.len()).then_some(digits);
    }
    let is_id = !chat.is_empty()
        && chat.chars().count() <= MAX_CHAT
        && chat.chars().any(char::is_alphanumeric)
        && !chat.contains(|c: char| c.is_whitespace() || c.is_control());
    is_id.then(|| chat.to_owned())
}

/// What a row shows of a chat that is none.
fn shown(chat: &str) -> String {
    chat.trim().chars().filter(|c| !c.is_control()).take(MAX_CHAT).collect()
}

/// Splits an audience into pages.
#[must_use]
pub fn pages(recipients: Vec<Recipient>) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut rows: Vec<Recipient> = Vec::new();
    let mut bytes = 0;
    for recipient in recipients {
        let size = size_of(&recipient);
        if !rows.is_empty() && (rows.len() == MAX_PAGE_ROWS || bytes + size > MAX_PAGE_BYTES) {
            pages.push(Page::planned(std::mem::take(&mut rows)));
            bytes = 0;
        }
        bytes += size;
        rows.push(recipient);
    }
    if !rows.is_empty() {
        pages.push(Page::planned(rows));
    }
    pages
}

fn size_of(recipient: &Recipient) -> usize {
    let params: usize = recipient.params.values().map(|value| value.len() + 3).sum();
    recipient.chat.len() + recipient.skip.len() + params + 3
}

/// Digest of a planned audience: the same chats with the same parameters in the same order have the same one.
#[must_use]
pub fn digest(pages: &[Page]) -> String {
    let mut hash = Sha256::new();
    for page in pages {
        hash.update(page.recipients_csv());
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(text: &str) -> Vec<(String, String)> {
        let mut audience = Audience::default();
        audience.add_csv("chats.csv", text).expect("readable");
        let recipients = audience.finish().expect("somebody");
        recipients
            .into_iter()
            .map(|r| (r.chat, r.skip.split(':').next().unwrap_or_default().to_owned()))
            .collect()
    }

    fn error(text: &str) -> &'static str {
        let mut audience = Audience::default();
        match audience.add_csv("chats.csv", text) {
            Err(error) => error.category(),
            Ok(()) => audience.finish().expect_err("should fail").category(),
        }
    }

    fn chats(text: &str) -> Vec<String> {
        rows(text).into_iter().map(|(chat, _)| chat).collect()
    }

    #[test]
    fn a_header_names_the_chat_column_whatever_its_case_and_place() {
        for text in [
            "chat,name\n15550100,Ana\n",
            "name,Phone\nAna,15550100\n",
            "\u{feff}ID;name\r\n15550100;Ana\r\n",
            "name\tid\nAna\t15550100",
        ] {
            assert_eq!(chats(text), ["15550100"], "{text}");
        }
    }

    #[test]
    fn a_list_without_header_is_one_chat_per_line() {
        assert_eq!(chats("15550100\n\n15550101\r\n"), ["15550100", "15550101"]);
    }

    #[test]
    fn forms_of_one_number_are_one_chat() {
        let all = rows("chat\n+1 (555) 010-0123\n0015550100123\n15550100123\n");
        let skips: Vec<&str> = all.iter().map(|(_, skip)| skip.as_str()).collect();
        assert_eq!(skips, ["", "Duplicate", "Duplicate"]);
        assert!(all.iter().all(|(chat, _)| chat == "15550100123"));
    }

    #[test]
    fn ids_of_chat_networks_stay_as_they_are() {
        for id in ["-1001234567890", "@channel", "123-456@g.us", "ana@example.com"] {
            assert_eq!(normalise(id).as_deref(), Some(id));
        }
    }

    #[test]
    fn bad_rows_are_rows_with_a_reason() {
        let all = rows("chat,name\n15550100,Ana,extra\n12,Bo\nnot a chat,Cy\n15550101\n,Di\n15550102,Ed\n");
        let skips: Vec<&str> = all.iter().map(|(_, skip)| skip.as_str()).collect();
        assert_eq!(skips, ["RaggedRow", "InvalidChat", "InvalidChat", "RaggedRow", "InvalidChat", ""]);
    }

    #[test]
    fn a_text_that_makes_no_sense_is_refused_as_a_whole() {
        assert_eq!(error("name,city\nAna,Madrid\n"), "NoChatColumn");
        assert_eq!(error("name\nAna\n"), "NoChatColumn");
        assert_eq!(error("chat,first name\n15550100,Ana\n"), "InvalidColumn");
        assert_eq!(error("chat,name,name\n15550100,Ana,Bo\n"), "InvalidColumn");
        assert_eq!(error(""), "EmptyAudience");
        assert_eq!(error("chat,name\n"), "EmptyAudience");
    }

    #[test]
    fn quoted_fields_may_hold_anything() {
        let mut audience = Audience::default();
        audience.add_csv("x", "chat,note\n15550100,\"a, \"\"b\"\"\nc\"\n").expect("readable");
        assert_eq!(audience.finish().expect("one")[0].params["note"], "a, \"b\"\nc");
    }

    proptest! {
        #[test]
        fn pages_hold_every_row_once_and_survive_storage(
            values in prop::collection::vec(("[0-9]{5,9}", "\\PC{0,40}"), 1..600)
        ) {
            let chats: Vec<Chat> = values
                .into_iter()
                .map(|(id, value)| Chat { id, params: BTreeMap::from([("p".to_owned(), value)]) })
                .collect();
            let mut audience = Audience::default();
            audience.add_chats(&chats).expect("small");
            let recipients = audience.finish().expect("somebody");
            let pages = pages(recipients.clone());
            let stored: Vec<Recipient> = pages.iter().flat_map(|page| page.recipients().to_vec()).collect();
            prop_assert_eq!(stored, recipients);
            for page in &pages {
                prop_assert!(page.rows().len() <= MAX_PAGE_ROWS);
                prop_assert!(page.recipients_csv().len() <= MAX_PAGE_BYTES * 2);
            }
        }
    }
}
