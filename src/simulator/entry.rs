//! What the ledger says: of each request, and of all of them in numbers. Types only.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::text::Text;
use super::wire::Format;

/// One request that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Requests are numbered in the order in which they were decided on, from 1, and no number is used again.
    pub sequence: u64,
    /// When it arrived.
    pub arrived: Timestamp,
    /// The same on a clock that never jumps, since the simulator's start.
    pub arrived_micros: u64,
    /// What it looked like.
    #[serde(default)]
    pub format: Format,
    /// Token of the message. Empty where the format has no place for it: Telegram, Periskope.
    pub token: Text,
    /// As in `POST /messages/{account}`, or empty; in other formats the sender: phone number id, bot id, account, phone.
    pub account: Text,
    /// The Broadcast, as `namespace/name`; where the format has no place for it, the uid in the token, or empty.
    pub broadcast: Text,
    /// To whom. A phone number is its digits, whatever the provider puts around it.
    pub chat: Text,
    /// The text, or the caption of the media.
    pub text: Text,
    /// The template and its parameters as JSON of the provider, or empty.
    #[serde(default, skip_serializing_if = "Text::is_absent")]
    pub template: Text,
    /// Where the media is, or empty.
    #[serde(default, skip_serializing_if = "Text::is_absent")]
    pub media: Text,
    /// Whether this request made the gateway accept the message. True at most once per key of an idempotent gateway.
    pub accepted: bool,
    /// What the client was told.
    #[serde(flatten)]
    pub done: Done,
    /// Id of the message, where it was accepted by this request or an earlier one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Text>,
    /// When the answer was ready, the connection was cut, or the client left. `None` while the request is in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<Timestamp>,
    /// Whether the client left before there was an answer.
    pub client_left: bool,
}

/// What the client was told. Whether the message was accepted is another question: see [`Entry::accepted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "camelCase")]
pub enum Done {
    /// 200 or 201 with a message id.
    Accepted,
    /// 200 with the message id of an earlier request with the same key.
    Repeated,
    /// No, in the gateway's own words.
    Refused {
        /// Status of the answer.
        status: u16,
        /// Code in its body.
        code: String,
    },
    /// 429.
    RateLimited,
    /// Sent elsewhere.
    Redirected {
        /// Status of the answer.
        status: u16,
    },
    /// A 5xx that leaves open what became of the message.
    Failed {
        /// Status of the answer.
        status: u16,
    },
    /// Nothing: the connection was cut.
    Reset,
    /// Nothing: the client was left waiting.
    Hung,
}

/// Which entries. Nothing given fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SendQuery {
    /// In this format.
    pub format: Option<Format>,
    /// By this account.
    pub account: Option<String>,
    /// Of this Broadcast, as the entries have it.
    pub broadcast: Option<String>,
    /// To this chat.
    pub chat: Option<String>,
    /// With this text.
    pub text: Option<String>,
    /// With this token.
    pub token: Option<String>,
    /// Accepted ones, or the others.
    pub accepted: Option<bool>,
}

impl SendQuery {
    pub(super) fn fits(&self, entry: &Entry) -> bool {
        let fits =
            |wanted: &Option<String>, given: &str| wanted.as_ref().is_none_or(|wanted| wanted == given);
        self.format.is_none_or(|format| format == entry.format)
            && fits(&self.account, &entry.account)
            && fits(&self.broadcast, &entry.broadcast)
            && fits(&self.chat, &entry.chat)
            && fits(&self.text, &entry.text)
            && fits(&self.token, &entry.token)
            && self.accepted.is_none_or(|accepted| accepted == entry.accepted)
    }
}

/// Counts over all entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestCounts {
    /// Requests that arrived.
    pub requests: u64,
    /// Messages accepted, whatever the client was told.
    pub accepted: u64,
    /// Requests answered with an earlier message id.
    pub repeated: u64,
    /// Requests refused in the gateway's own words.
    pub refused: u64,
    /// Requests answered 429.
    pub rate_limited: u64,
    /// Requests redirected.
    pub redirected: u64,
    /// Requests answered with a bare 5xx.
    pub failed: u64,
    /// Requests whose connection was cut.
    pub reset: u64,
    /// Requests left without an answer.
    pub hung: u64,
    /// Requests whose client left before there was an answer.
    pub clients_left: u64,
    /// Different tokens that arrived, but for none.
    pub distinct_tokens: u64,
    /// Different chats with at least one accepted message, counted per Broadcast.
    pub distinct_chats: u64,
    /// What was accepted more than once.
    pub twice: Twice,
    /// Most messages accepted with one token.
    pub max_accepted_per_token: u64,
    /// Requests without an answer yet.
    pub in_flight: u64,
    /// Most requests in flight at one time.
    pub highest_in_flight: u64,
    /// When the last request arrived.
    pub last_arrival: Option<Timestamp>,
    /// Most requests that arrived within one second, at whatever fraction it begins.
    pub highest_arrivals_per_second: u64,
}

/// What was accepted more than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twice {
    /// Chats, counted per Broadcast.
    pub chats: u64,
    /// Tokens.
    pub tokens: u64,
}
