//! What a provider tells after it took messages: receipts of messages, and chats that want no more of them.

use jiff::{Timestamp, Unit};

use super::answer::{Answer, RefusalKind, SenderTrouble};
use super::discretion::without_secret;
use super::outcome::{Outcome, Row};

/// Longest id that is looked up, in bytes: a token has about 50, a provider's message id at most 128.
const MAX_ID: usize = 256;
/// Earliest time that is believed, 2000-01-01: what is older is a clock that was never set. The API server takes no year
/// before 0, and one such time would keep its whole page from being stored.
const EARLIEST: Timestamp = Timestamp::constant(946_684_800, 0);
/// Most notices of one request: about 20 MiB.
pub const MAX_NOTICES: usize = 65_536;

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Token or message id.
    pub id: String,
    /// Other ids of the same message, where the provider has several and the answer to it may have named any.
    pub aliases: Vec<String>,
    /// What is known of its row by it.
    pub evidence: Row,
    /// The recipient wants no more messages of this sender.
    pub is_opt_out: bool,
    /// What its code says of the sender: that nothing can be sent.
    pub trouble: Option<SenderTrouble>,
    /// Its code says that the sender was too fast.
    pub is_too_fast: bool,
    /// Its code says that the message can be sent to nobody.
    pub is_about_content: bool,
    /// The recipient, where the provider names it; or empty.
    pub chat: String,
    /// Of a group, the participant that it speaks of; or empty, where it speaks of all.
    pub participant: String,
    /// The provider's id of the number that sent, where one webhook is that of several; or empty.
    pub number: String,
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
    /// Since when.
    pub time: Timestamp,
    /// The provider's id of the number that it speaks of, where one webhook is that of several; or empty.
    pub number: String,
}

impl Preference {
    /// What a chat wants since `time`; since `now` where the provider does not say, or says a later time.
    #[must_use]
    pub fn new(chat: &str, is_wanted: bool, code: &str, time: Option<Timestamp>, now: Timestamp) -> Self {
        let time = time.map_or(now, |time| believable(time, now));
        Self { chat: chat.to_owned(), is_wanted, code: code.to_owned(), time, number: String::new() }
    }
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

impl Notices {
    /// Takes in a receipt.
    ///
    /// # Errors
    /// When there are too many notices.
    pub fn add_receipt(&mut self, receipt: Receipt) -> Result<(), NoticeError> {
        self.has_room().map(|()| self.receipts.push(receipt))
    }

    /// Takes in what a chat wants.
    ///
    /// # Errors
    /// When there are too many notices.
    pub fn add_preference(&mut self, preference: Preference) -> Result<(), NoticeError> {
        self.has_room().map(|()| self.preferences.push(preference))
    }

    fn has_room(&self) -> Result<(), NoticeError> {
        let is_full = self.receipts.len() + self.preferences.len() >= MAX_NOTICES;
        if is_full { Err(NoticeError::TooMany) } else { Ok(()) }
    }
}

/// What a provider said when it was asked what became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This.
    News(Receipt),
    /// The message is still on its way.
    NoNews,
    /// It has no such message, and nothing can be learned of it any more.
    Gone,
    /// It did not say: the credentials or the speed are refused, it cannot be reached, or its answer cannot be read.
    NotTold(Answer),
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
    /// It tells more than is taken at once.
    #[error("the body tells of more than {MAX_NOTICES} messages and chats: send fewer at once")]
    TooMany,
    /// It is a form with more fields than the provider sends.
    #[error("the form has more than {0} fields, which is not what the provider sends")]
    TooManyFields(usize),
}

impl Receipt {
    /// A receipt: what has one was tried once at least. A time in the future is `now`: a provider whose clock is ahead must not write
    /// into the future. `None` when the id cannot be one.
    #[must_use]
    pub fn new(id: &str, outcome: Outcome, time: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        let time = time.map_or(now, |time| believable(time, now));
        let is_id = (1..=MAX_ID).contains(&id.len());
        let receipt = || Self {
            id: id.to_owned(),
            aliases: Vec::new(),
            evidence: Row::known(outcome, 1, time),
            is_opt_out: false,
            trouble: None,
            is_too_fast: false,
            is_about_content: false,
            chat: String::new(),
            participant: String::new(),
            number: String::new(),
        };
        is_id.then(receipt)
    }

    /// The same with other ids of the message.
    #[must_use]
    pub fn with_aliases<'a>(self, ids: impl IntoIterator<Item = &'a str>) -> Self {
        let ids = ids.into_iter().filter(|id| (1..=MAX_ID).contains(&id.len()) && *id != self.id);
        Self { aliases: ids.map(str::to_owned).collect(), ..self }
    }

    /// All ids of the message.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.id.as_str()).chain(self.aliases.iter().map(String::as_str))
    }

    /// The same with the provider's id of the message, for one that names its token.
    #[must_use]
    pub fn with_message_id(self, id: &str) -> Self {
        Self { evidence: self.evidence.with_message_id(id), ..self }
    }

    /// The same with what the provider's code for its error means: a refusal of the recipient, or trouble of the sender,
    /// or that it was too fast, or of the message.
    #[must_use]
    pub fn with_kind(self, kind: Option<RefusalKind>) -> Self {
        match kind {
            Some(RefusalKind::OptedOut) => Self { is_opt_out: true, ..self },
            Some(RefusalKind::Sender(trouble)) => Self { trouble: Some(trouble), ..self },
            Some(RefusalKind::RateLimited) => Self { is_too_fast: true, ..self },
            Some(RefusalKind::Content) => Self { is_about_content: true, ..self },
            _ => self,
        }
    }

    /// The same with the recipient, as the provider names it.
    #[must_use]
    pub fn with_chat(self, chat: &str) -> Self {
        Self { chat: chat.chars().take(MAX_ID).collect(), ..self }
    }

    /// The same of one participant of a group.
    #[must_use]
    pub fn with_participant(self, group: &str, participant: &str) -> Self {
        let evidence = self.evidence.clone().with_participant(group, participant);
        let participant = participant.chars().take(MAX_ID).collect();
        Self { evidence, participant, ..self.with_chat(group) }
    }

    /// What it shows of its chat. That one participant did not get the message of a group shows no more than that the provider took it.
    #[must_use]
    pub fn evidence_of_chat(&self) -> Row {
        match self.evidence.outcome {
            Outcome::Failed if !self.participant.is_empty() => {
                let taken = Row { outcome: Outcome::Sent, ..self.evidence.clone() };
                taken.with_error("", "")
            }
            _ => self.evidence.clone(),
        }
    }

    /// The same without these secrets in what the provider says.
    #[must_use]
    pub fn without<'a>(self, secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let said = (self.evidence.code.clone(), self.evidence.detail.clone());
        let told = |(code, detail): (String, String), secret| {
            (without_secret(&code, secret), without_secret(&detail, secret))
        };
        let (code, detail) = secrets.into_iter().fold(said, told);
        self.with_error(&code, &detail)
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
