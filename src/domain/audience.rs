//! An audience, from inline chats and CSV texts to rows: normalised, without duplicates, and with nothing dropped. What
//! cannot be sent to is a row too, with the reason why.

mod paging;
mod quotes;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::chat::{ChatRules, MAX_CHAT};
use super::page::Recipient;
use super::page_csv::bytes_of;
use crate::api::Chat;

pub use paging::{MAX_PAGE_ROWS, digest, pages};

/// Rows of an audience at most: 4,000 pages, which is what an API server keeps without trouble.
pub const MAX_ROWS: usize = 1_000_000;
/// Longest value of a parameter, in characters.
const MAX_VALUE: usize = 1024;
/// Most parameter names of an audience: each is a column of its pages.
const MAX_PARAMS: usize = 32;
/// Most bytes of all values of a recipient, as they stand in a page: far more than a text has room for, and little enough
/// for one row to fit into a page.
const MAX_VALUES: usize = 32 * 1024;
/// Why a chat is not sent to that is in the audience already.
pub(super) const DUPLICATE: &str = "Duplicate: the chat is in the audience already";
/// Columns that can hold the chat. With two of them it would be a guess which one does.
const CHAT_COLUMNS: [&str; 3] = ["chat", "id", "phone"];

/// An audience that cannot be read at all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AudienceError {
    /// No column holds the chats.
    #[error(
        "{source_name} has no column chat, id or phone among the {columns} of its first line: name the column that holds the chats there"
    )]
    NoChatColumn {
        /// Where it was read.
        source_name: String,
        /// How many columns its first line has. What is in them may be a person, or a password: errors stand in the log.
        columns: usize,
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
    /// A parameter of an inline chat cannot be used.
    #[error(
        "recipients.chats has a parameter \"{name}\", which cannot be used in a message: names have letters, digits and _ \
         only, and begin with a letter or _"
    )]
    BadParameter {
        /// Its name.
        name: String,
    },
    /// The recipients have too many different parameters.
    #[error(
        "the recipients have more than {MAX_PARAMS} different parameter names, \"{name}\" is one too many: use the same \
         names for all recipients, and leave out what the message does not use"
    )]
    TooManyParameters {
        /// The first name that is too many.
        name: String,
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
    /// There is nobody in it who can be sent to.
    #[error("none of the {rows} rows of the audience can be sent to; the first one is {first}")]
    OnlyBadRows {
        /// How many rows there are.
        rows: usize,
        /// What is wrong with the first.
        first: String,
    },
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
            Self::BadParameter { .. } => "InvalidParameter",
            Self::TooManyParameters { .. } => "TooManyParameters",
            Self::NotCsv { .. } => "InvalidCsv",
            Self::Empty | Self::OnlyBadRows { .. } => "EmptyAudience",
            Self::TooLarge => "AudienceTooLarge",
        }
    }
}

/// Collects an audience from several sources.
#[derive(Debug, Default)]
pub struct Audience {
    rules: ChatRules,
    recipients: Vec<Recipient>,
    seen: HashSet<String>,
    params: BTreeSet<String>,
}

impl Audience {
    /// An audience without anybody in it, of a channel with these rules. By default, of a gateway.
    #[must_use]
    pub fn new(rules: ChatRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Adds inline chats.
    ///
    /// # Errors
    /// When the audience grows too large, or has parameters that cannot be used.
    pub fn add_chats(&mut self, chats: &[Chat]) -> Result<(), AudienceError> {
        for chat in chats {
            if let Some(name) = chat.params.keys().find(|name| !is_variable(name)) {
                return Err(AudienceError::BadParameter { name: name.chars().take(64).collect() });
            }
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
        self.read_csv(source_name, text, true)
    }

    /// The same of a text that may be something else by mistake, such as a password: it is an audience only if its first line says
    /// which column holds the chats.
    ///
    /// # Errors
    /// As [`add_csv`](Self::add_csv), and when there is no such line.
    pub fn add_csv_with_header(&mut self, source_name: &str, text: &str) -> Result<(), AudienceError> {
        self.read_csv(source_name, text, false)
    }

    fn read_csv(
        &mut self,
        source_name: &str,
        text: &str,
        may_be_headerless: bool,
    ) -> Result<(), AudienceError> {
        let text = text.trim_start_matches('\u{feff}');
        let delimiter = delimiter_of(text);
        let not_csv = |problem| AudienceError::NotCsv { source_name: source_name.to_owned(), problem };
        if let Some(line) = quotes::unclosed(text, delimiter) {
            return Err(not_csv(format!(
                "the quote that opens in line {line} is not closed before the field ends: close it, or write \"\" for a \
                 quote within quotes"
            )));
        }
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .from_reader(text.as_bytes());
        let mut columns: Option<Columns> = None;
        for record in reader.records() {
            let record = record.map_err(|error| not_csv(error.to_string()))?;
            if record.iter().all(|cell| cell.trim().is_empty()) {
                continue;
            }
            if let Some(columns) = &columns {
                self.add_record(columns, &record)?;
                continue;
            }
            let found = Columns::of(source_name, &record, may_be_headerless)?;
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
    /// When there are none, or none that can be sent to: a Broadcast that reached nobody must not end as a success.
    pub fn finish(self) -> Result<Vec<Recipient>, AudienceError> {
        let rows = self.recipients.len();
        match self.recipients.first() {
            None => Err(AudienceError::Empty),
            Some(first) if self.seen.is_empty() => {
                Err(AudienceError::OnlyBadRows { rows, first: first.skip.clone() })
            }
            Some(_) => Ok(self.recipients),
        }
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
        let normal = match self.rules.normalise(chat) {
            Ok(normal) => normal,
            Err(problem) => return self.push(shown(chat), problem.to_string(), params),
        };
        let values = || params.values().map(String::as_str);
        if values().any(|value| value.chars().count() > MAX_VALUE) {
            let reason = format!("ParameterTooLong: at most {MAX_VALUE} characters");
            return self.push(normal, reason, BTreeMap::new());
        }
        if values().map(bytes_of).sum::<usize>() > MAX_VALUES {
            let reason = format!("ParametersTooLong: at most {} KiB together", MAX_VALUES / 1024);
            return self.push(normal, reason, BTreeMap::new());
        }
        if !self.seen.insert(self.rules.identity(&normal).into_owned()) {
            return self.push(normal, DUPLICATE.into(), params);
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
        for name in params.keys() {
            if self.params.contains(name) {
                continue;
            }
            if self.params.len() == MAX_PARAMS {
                return Err(AudienceError::TooManyParameters { name: name.clone() });
            }
            self.params.insert(name.clone());
        }
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
    fn of(
        source_name: &str,
        first: &csv::StringRecord,
        may_be_headerless: bool,
    ) -> Result<Self, AudienceError> {
        let names: Vec<&str> = first.iter().map(str::trim).collect();
        let is_chat = |name: &str| CHAT_COLUMNS.iter().any(|wanted| name.eq_ignore_ascii_case(wanted));
        if let Some(second) = names.iter().filter(|name| is_chat(name)).nth(1) {
            return Err(AudienceError::BadHeader {
                source_name: source_name.to_owned(),
                column: (*second).to_owned(),
                problem: "may hold the chat as well: of chat, id and phone keep one, and rename the others",
            });
        }
        match names.iter().position(|name| is_chat(name)) {
            Some(chat) => Self::with_header(source_name, &names, chat),
            // A list of ids: a name would have no digit and no sign of an address in it.
            None if may_be_headerless
                && names.len() == 1
                && names[0].contains(|c: char| c.is_ascii_digit() || c == '@') =>
            {
                Ok(Self { chat: 0, params: Vec::new(), number: 1, is_headerless: true })
            }
            None => {
                Err(AudienceError::NoChatColumn { source_name: source_name.to_owned(), columns: names.len() })
            }
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
    // Some programs end lines with a carriage return alone.
    let first = text.split(['\n', '\r']).find(|line| !line.trim().is_empty()).unwrap_or_default();
    [b',', b';', b'\t'].into_iter().find(|delimiter| first.contains(char::from(*delimiter))).unwrap_or(b',')
}

/// What a row shows of a chat that is none.
fn shown(chat: &str) -> String {
    chat.trim().chars().filter(|c| !c.is_control()).take(MAX_CHAT).collect()
}

#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod tests;
