//! What a provider tells after it took messages: receipts of messages, and chats that want no more of them.

use jiff::{Timestamp, Unit};

use super::outcome::{Outcome, Row};

/// Longest id that is looked up, in bytes: a token has about 50, a provider's message id at most 128.
const MAX_ID: usize = 256;
/// Earliest time that is believed, 2000-01-01: what is older is a clock that was never set. The API server takes no year
/// before 0, and one such time would keep its whole page from being stored.
const EARLIEST: Timestamp = Timestamp::constant(946_684_800, 0);

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Token or message id.
    pub id: String,
    /// What is known of its row by it.
    pub evidence: Row,
    /// The recipient wants no more messages of this sender.
    pub is_opt_out: bool,
}

/// A chat that wants no more messages, or wants them again, whatever message made it say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// The chat, as the provider names it.
    pub chat: String,
    /// Whether it wants messages.
    pub is_wanted: bool,
    /// The provider's code or word for it.
    pub code: String,
}

/// Everything that one request of a provider told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// What became of messages.
    pub receipts: Vec<Receipt>,
    /// What chats want.
    pub preferences: Vec<Preference>,
    /// Items that could not be read: they are left out, so that they do not hold up the others for ever.
    pub malformed: usize,
}

/// A request that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// It is no JSON.
    #[error("the body is not JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// It is something else than the provider sends.
    #[error("the body is not what the provider sends: {0} is missing")]
    Missing(&'static str),
    /// It is no list of receipts.
    #[error("the body must be a JSON array of receipts: [{{\"id\": …, \"status\": \"delivered\"}}]")]
    NotAList,
}

impl Receipt {
    /// A receipt: what has one was tried once at least. A time in the future is `now`: a provider whose clock is ahead must not write
    /// into the future. `None` when the id cannot be one.
    #[must_use]
    pub fn new(id: &str, outcome: Outcome, time: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        let time = time.map_or(now, |time| believable(time, now));
        let is_id = (1..=MAX_ID).contains(&id.len());
        let receipt =
            || Self { id: id.to_owned(), evidence: Row::known(outcome, 1, time), is_opt_out: false };
        is_id.then(receipt)
    }

    /// The same with the provider's id of the message, for one that names its token.
    #[must_use]
    pub fn with_message_id(self, id: &str) -> Self {
        Self { evidence: self.evidence.with_message_id(id), ..self }
    }

    /// The same with the provider's error.
    #[must_use]
    pub fn with_error(self, code: &str, detail: &str) -> Self {
        Self { evidence: self.evidence.with_error(code, detail), ..self }
    }
}

/// The time of a receipt in milliseconds, as all times of a page.
fn believable(time: Timestamp, now: Timestamp) -> Timestamp {
    time.round(Unit::Millisecond).unwrap_or(now).min(now).max(EARLIEST)
}
