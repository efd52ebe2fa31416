//! What the gateway decides about one request. Everything that the decision needs and everything that it changes is here,
//! behind one lock, so that each request is decided at one point in time. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::entry::Done;
use super::faults::{Action, Fault, Faults, Refusal, Target};
use super::records::{Arrived, Records};
use super::text::Text;

/// Body of `POST /messages`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) to: String,
    pub(super) text: String,
    pub(super) broadcast: BroadcastName,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct BroadcastName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Message {
    /// The Broadcast as `namespace/name`.
    pub(super) fn broadcast(&self) -> String {
        format!("{}/{}", self.broadcast.namespace, self.broadcast.name)
    }
}

/// One request, whole.
#[derive(Debug)]
pub(super) struct Request {
    /// As in `POST /messages/{account}`, or empty.
    pub(super) account: String,
    /// Where a client that is redirected to the same place goes.
    pub(super) path: String,
    /// Token of `Authorization: Bearer`.
    pub(super) bearer: Option<String>,
    /// `Idempotency-Key`.
    pub(super) key: Option<String>,
    /// The Broadcast as `namespace/name`, or empty.
    pub(super) broadcast: String,
    /// The body, or why it could not be read.
    pub(super) message: Result<Message, String>,
}

impl Request {
    /// What the ledger keeps of it, also when it makes no sense.
    fn arrived(&self) -> Arrived<'_> {
        let message = self.message.as_ref().ok();
        Arrived {
            token: message.map(|message| &*message.id).or(self.key.as_deref()).unwrap_or_default(),
            account: &self.account,
            broadcast: &self.broadcast,
            chat: message.map(|message| &*message.to).unwrap_or_default(),
            text: message.map(|message| &*message.text).unwrap_or_default(),
        }
    }
}

/// How the client is answered.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// An answer in the gateway's own words.
    Json(u16, Value),
    /// 429, with `Retry-After` in seconds.
    TooManyRequests(Option<u64>),
    /// An answer of something on the way.
    Plain(u16),
    /// Elsewhere.
    Redirect(u16, String),
    /// The connection is cut.
    Cut,
    /// None at all.
    Hang,
}

/// A message that the gateway has accepted.
#[derive(Clone, Debug)]
pub(super) struct AcceptedMessage {
    pub(super) namespace: String,
    pub(super) account: String,
    pub(super) token: String,
    pub(super) message_id: Text,
    pub(super) time: Timestamp,
}

/// What was decided, and is in the ledger already.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) sequence: u64,
    pub(super) latency: Duration,
    pub(super) reply: Reply,
    pub(super) accepted: Option<AcceptedMessage>,
}

/// The gateway without its network.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) records: Records,
    pub(super) faults: Faults,
    pub(super) token: Option<String>,
    pub(super) latency: Duration,
    pub(super) is_idempotent: bool,
}

impl Desk {
    /// Decides about one request. `at` is the time and the microseconds since the start.
    pub(super) fn decide(&mut self, request: &Request, at: (Timestamp, u64)) -> Decision {
        match self.fit_message(request) {
            Ok(message) => self.decide_message(request, message, at),
            Err(refusal) => self.refuse(request, &refusal, at),
        }
    }

    /// The message, if it comes from whom it should and is whole.
    fn fit_message<'a>(&self, request: &'a Request) -> Result<&'a Message, Refusal> {
        let refusal = |status, code: &str, message: String| Refusal {
            status,
            code: code.into(),
            message,
            retryable: false,
        };
        if self.token.is_some() && self.token != request.bearer {
            return Err(refusal(401, "unauthorized", "the bearer token is not the one configured".into()));
        }
        let message =
            request.message.as_ref().map_err(|error| refusal(400, "invalid_request", error.clone()))?;
        for (field, value) in [("id", &message.id), ("to", &message.to)] {
            if value.is_empty() {
                return Err(refusal(400, "invalid_request", format!("{field} is empty")));
            }
        }
        if request.key.as_ref().is_some_and(|key| *key != message.id) {
            let text = "Idempotency-Key and the id in the body differ".into();
            return Err(refusal(400, "idempotency_key_mismatch", text));
        }
        Ok(message)
    }

    fn decide_message(&mut self, request: &Request, message: &Message, at: (Timestamp, u64)) -> Decision {
        let target = Target { account: &request.account, broadcast: &request.broadcast, chat: &message.to };
        let Action { latency_ms, fault } = self.faults.choose(target);
        let earlier = self.is_idempotent.then(|| self.records.message_id(&message.id)).flatten();
        let is_repeat = earlier.is_some();
        let accepts = !is_repeat && fault.as_ref().is_none_or(Fault::accepts);
        let entry = self.records.push(&request.arrived(), accepts, done(fault.as_ref(), is_repeat), at);
        let accepted = entry.message_id.clone().filter(|_| accepts).map(|message_id| AcceptedMessage {
            namespace: message.broadcast.namespace.clone(),
            account: request.account.clone(),
            token: message.id.clone(),
            message_id,
            time: at.0,
        });
        let id = entry.message_id.as_deref().unwrap_or_default();
        Decision {
            sequence: entry.sequence,
            latency: self.latency + Duration::from_millis(latency_ms),
            reply: reply(fault, id, request),
            accepted,
        }
    }

    fn refuse(&mut self, request: &Request, refusal: &Refusal, at: (Timestamp, u64)) -> Decision {
        let done = Done::Refused { status: refusal.status, code: refusal.code.clone() };
        let sequence = self.records.push(&request.arrived(), false, done, at).sequence;
        Decision { sequence, latency: self.latency, reply: refusal_reply(refusal), accepted: None }
    }
}

fn done(fault: Option<&Fault>, is_repeat: bool) -> Done {
    match fault {
        None if is_repeat => Done::Repeated,
        None => Done::Accepted,
        Some(Fault::Refuse(refusal)) => Done::Refused { status: refusal.status, code: refusal.code.clone() },
        Some(Fault::TooManyRequests(_)) => Done::RateLimited,
        Some(Fault::StatusBeforeAccept(status) | Fault::StatusAfterAccept(status)) => {
            Done::Failed { status: *status }
        }
        Some(Fault::ResetBeforeAccept {} | Fault::ResetAfterAccept {}) => Done::Reset,
        Some(Fault::Hang {} | Fault::HangAfterAccept {}) => Done::Hung,
        Some(Fault::Redirect(redirect)) => Done::Redirected { status: redirect.status },
    }
}

fn reply(fault: Option<Fault>, message_id: &str, request: &Request) -> Reply {
    match fault {
        None => Reply::Json(200, json!({"id": message_id})),
        Some(Fault::Refuse(refusal)) => refusal_reply(&refusal),
        Some(Fault::TooManyRequests(limit)) => Reply::TooManyRequests(limit.retry_after_seconds),
        Some(Fault::StatusBeforeAccept(status) | Fault::StatusAfterAccept(status)) => Reply::Plain(status),
        Some(Fault::ResetBeforeAccept {} | Fault::ResetAfterAccept {}) => Reply::Cut,
        Some(Fault::Hang {} | Fault::HangAfterAccept {}) => Reply::Hang,
        Some(Fault::Redirect(redirect)) => {
            Reply::Redirect(redirect.status, redirect.location.unwrap_or_else(|| request.path.clone()))
        }
    }
}

fn refusal_reply(Refusal { status, code, message, retryable }: &Refusal) -> Reply {
    Reply::Json(*status, json!({"error": {"code": code, "message": message, "retryable": retryable}}))
}
