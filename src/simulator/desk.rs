//! What the gateway decides about one request. Everything that the decision needs and everything that it changes is here,
//! behind one lock, so that each request is decided at one point in time. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::entry::{Done, Entry};
use super::faults::{Action, Fault, Faults, Refusal, Target};
use super::records::{Arrived, Records};
use super::text::Text;
use super::wire::{Answer, Format};

/// A message as its request has it. What its format has no place for, or the request left out, is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// What the client knows it by.
    pub(super) token: String,
    /// The Broadcast, as `namespace/name` or as its uid.
    pub(super) broadcast: String,
    /// To whom, in the same form in all formats: a phone number is its digits.
    pub(super) chat: String,
    /// To whom, as the provider has it.
    pub(super) to: String,
    /// Who sends, where that is in the message.
    pub(super) from: String,
    /// The text, or the caption of the media.
    pub(super) text: String,
    /// The template and its parameters, as JSON of the provider.
    pub(super) template: String,
    /// Where the media is.
    pub(super) media: String,
    /// Where its receipts go.
    pub(super) callback: String,
}

/// One request, whole.
#[derive(Debug)]
pub(super) struct Request {
    /// What it looks like.
    pub(super) format: Format,
    /// Who sends: the account of `POST /messages/{account}`, the phone number, the bot, or empty.
    pub(super) account: String,
    /// Where a client that is redirected to the same place goes.
    pub(super) path: String,
    /// What shows who the client is.
    pub(super) credential: Option<String>,
    /// The body, read as far as it could be.
    pub(super) message: Message,
    /// Why it makes no sense.
    pub(super) refusal: Option<Refusal>,
}

impl Request {
    /// What the ledger keeps of it, also when it makes no sense.
    fn arrived(&self) -> Arrived<'_> {
        let Message { token, broadcast, chat, text, template, media, .. } = &self.message;
        Arrived { format: self.format, token, account: &self.account, broadcast, chat, text, template, media }
    }
}

/// How the client is answered.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// With this.
    Answer(Answer),
    /// The connection is cut.
    Cut,
    /// None at all.
    Hang,
}

/// A message that the gateway has accepted. Fields are as in its request and its entry.
#[derive(Clone, Debug)]
pub(super) struct AcceptedMessage {
    pub(super) format: Format,
    pub(super) account: Text,
    pub(super) broadcast: Text,
    pub(super) token: Text,
    pub(super) chat: Text,
    pub(super) to: String,
    pub(super) from: String,
    pub(super) text: Text,
    pub(super) template: Text,
    pub(super) media: Text,
    pub(super) callback: String,
    pub(super) message_id: Text,
    pub(super) time: Timestamp,
}

impl AcceptedMessage {
    /// What the gateway knows of a message that this or an earlier request made it accept.
    fn new(message: &Message, entry: &Entry) -> Option<Self> {
        Some(Self {
            format: entry.format,
            account: entry.account.clone(),
            broadcast: entry.broadcast.clone(),
            token: entry.token.clone(),
            chat: entry.chat.clone(),
            to: message.to.clone(),
            from: message.from.clone(),
            text: entry.text.clone(),
            template: entry.template.clone(),
            media: entry.media.clone(),
            callback: message.callback.clone(),
            message_id: entry.message_id.clone()?,
            time: entry.arrived,
        })
    }
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
    pub(super) tokens: Tokens,
    pub(super) latency: Duration,
    pub(super) is_idempotent: bool,
    /// Messages of formats that can be asked for them, by message id.
    pub(super) known: HashMap<Text, AcceptedMessage>,
    /// Ids that somebody asked about.
    pub(super) lookups: Vec<String>,
}

/// The only secret that is taken, by format. Where there is none, any is.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens(BTreeMap<Format, String>);

impl Tokens {
    /// One for all formats, or none.
    pub(super) fn of_all(token: Option<String>) -> Self {
        let formats = [Format::Http, Format::WhatsApp, Format::Telegram, Format::Twilio, Format::Periskope];
        Self(token.map(|token| formats.map(|format| (format, token.clone())).into()).unwrap_or_default())
    }

    /// Another one for one format, or none.
    pub(super) fn set(&mut self, format: Format, token: Option<String>) {
        match token {
            Some(token) => self.0.insert(format, token),
            None => self.0.remove(&format),
        };
    }

    /// Whether a client that shows this is taken.
    pub(super) fn take(&self, format: Format, credential: Option<&str>) -> bool {
        self.0.get(&format).is_none_or(|token| credential == Some(token))
    }
}

impl Desk {
    /// Decides about one request. `at` is the time and the microseconds since the start.
    pub(super) fn decide(&mut self, request: &Request, at: (Timestamp, u64)) -> Decision {
        if !self.tokens.take(request.format, request.credential.as_deref()) {
            return self.refuse(request, &request.format.unauthorized(), at);
        }
        match &request.refusal {
            Some(refusal) => self.refuse(request, refusal, at),
            None => self.decide_message(request, at),
        }
    }

    fn decide_message(&mut self, request: &Request, at: (Timestamp, u64)) -> Decision {
        let Request { format, account, message, .. } = request;
        let target = Target { account, broadcast: &message.broadcast, chat: &message.chat, to: &message.to };
        let Action { latency_ms, fault } = self.faults.choose(target);
        let fault = fault.map(|fault| format.fit(fault));
        // No other format has a key for it.
        let can_repeat = self.is_idempotent && *format == Format::Http;
        let is_repeat = can_repeat && self.records.message_id(&message.token).is_some();
        let accepts = !is_repeat && fault.as_ref().is_none_or(Fault::accepts);
        let entry = self.records.push(&request.arrived(), accepts, done(fault.as_ref(), is_repeat), at);
        let sequence = entry.sequence;
        let known = AcceptedMessage::new(message, entry);
        if let Some(known) = known.as_ref().filter(|_| accepts && *format == Format::Twilio) {
            self.known.insert(known.message_id.clone(), known.clone());
        }
        Decision {
            sequence,
            latency: self.latency + Duration::from_millis(latency_ms),
            reply: reply(fault, known.as_ref(), request),
            accepted: known.filter(|_| accepts),
        }
    }

    fn refuse(&mut self, request: &Request, refusal: &Refusal, at: (Timestamp, u64)) -> Decision {
        let done = Done::Refused { status: refusal.status, code: refusal.code.clone() };
        let sequence = self.records.push(&request.arrived(), false, done, at).sequence;
        let reply = Reply::Answer(request.format.refused(refusal, &request.message.chat));
        Decision { sequence, latency: self.latency, reply, accepted: None }
    }
}

fn done(fault: Option<&Fault>, is_repeat: bool) -> Done {
    match fault {
        None if is_repeat => Done::Repeated,
        None => Done::Accepted,
        Some(Fault::Refuse(refusal)) => Done::Refused { status: refusal.status, code: refusal.code.clone() },
        Some(Fault::TooManyRequests(_)) => Done::RateLimited,
        Some(
            Fault::StatusBeforeAccept(status) | Fault::StatusAfterAccept(status) | Fault::ProxyPage(status),
        ) => Done::Failed { status: *status },
        Some(Fault::ResetBeforeAccept {} | Fault::ResetAfterAccept {}) => Done::Reset,
        Some(Fault::Hang {} | Fault::HangAfterAccept {}) => Done::Hung,
        Some(Fault::Redirect(redirect)) => Done::Redirected { status: redirect.status },
    }
}

fn reply(fault: Option<Fault>, known: Option<&AcceptedMessage>, request: &Request) -> Reply {
    let format = request.format;
    Reply::Answer(match fault {
        None => {
            format.accepted(known.expect("should have an id: without a fault a message is accepted, or was"))
        }
        Some(Fault::Refuse(refusal)) => format.refused(&refusal, &request.message.chat),
        Some(Fault::TooManyRequests(limit)) => format.too_many_requests(limit.retry_after_seconds),
        Some(Fault::StatusBeforeAccept(status) | Fault::StatusAfterAccept(status)) => format.broken(status),
        Some(Fault::ProxyPage(status)) => Answer::page(status),
        Some(Fault::ResetBeforeAccept {} | Fault::ResetAfterAccept {}) => return Reply::Cut,
        Some(Fault::Hang {} | Fault::HangAfterAccept {}) => return Reply::Hang,
        Some(Fault::Redirect(redirect)) => {
            Answer::redirect(redirect.status, redirect.location.as_deref().unwrap_or(&request.path))
        }
    })
}
