//! The wire formats that the gateway speaks: a request is read into what the desk looks at, and what the desk decided is written as
//! the provider writes it. Pure.
//!
//! Each format has a file with the same functions: `read`, `accepted`, `refused`, `too_many_requests`, `probed` and `notice`.

mod form;
mod http;
mod periskope;
mod route;
mod signature;
mod telegram;
mod twilio;
mod whatsapp;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::desk::{AcceptedMessage, Request};
use super::faults::{Fault, Refusal};
use super::receipts::{Receipt, ReceiptPlan};
pub(super) use route::{Call, Verb, route};
pub(super) use twilio::status as twilio_status;

/// A wire format: how a provider's requests, answers and receipts look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// The `HTTP` channel's own.
    #[default]
    Http,
    /// `WhatsApp` Cloud API of Meta.
    WhatsApp,
    /// Telegram Bot API.
    Telegram,
    /// Messages of Twilio's REST API.
    Twilio,
    /// Periskope.
    Periskope,
}

/// Headers and body of a request as they came. The body may be one that could not be read; then there is the reason.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Result<&'a [u8], String>,
}

impl Incoming<'_> {
    /// A header as text.
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Token of `Authorization: Bearer`.
    fn bearer(&self) -> Option<String> {
        self.header(AUTHORIZATION.as_str())?.strip_prefix("Bearer ").map(str::to_owned)
    }

    /// The body as a JSON object, or why it is none.
    fn json(&self) -> Result<Value, String> {
        let body = self.body.clone()?;
        let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if value.is_object() { Ok(value) } else { Err("the body is no JSON object".into()) }
    }
}

/// An answer of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self { status, content_type: "application/json", body: body.to_string(), ..Self::default() }
    }

    fn plain(status: u16, body: &str) -> Self {
        Self { status, content_type: "text/plain", body: body.into(), ..Self::default() }
    }

    /// What a proxy shows to people.
    pub(super) fn page(status: u16) -> Self {
        let body = format!("<html><body><h1>{status}</h1></body></html>\n");
        Self { status, content_type: "text/html", body, ..Self::default() }
    }

    fn with(mut self, name: &'static str, value: &impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// The same with `Retry-After`, where there are seconds.
    fn with_wait(self, seconds: Option<u64>) -> Self {
        match seconds {
            Some(seconds) => self.with("retry-after", &seconds),
            None => self,
        }
    }

    /// The client is sent elsewhere.
    pub(super) fn redirect(status: u16, location: &str) -> Self {
        Self { status, ..Self::default() }.with("location", &location)
    }

    /// There is no such place.
    pub(super) fn not_found() -> Self {
        Self { status: 404, ..Self::default() }
    }
}

/// A request with receipts, but for where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// One receipt and the message that it is about.
pub(super) type Item<'a> = (&'a AcceptedMessage, &'a Receipt);

impl Format {
    /// Reads a request that sends a message.
    pub(super) fn read(self, call: &Call, incoming: &Incoming<'_>) -> Request {
        match self {
            Self::Http => http::read(call, incoming),
            Self::WhatsApp => whatsapp::read(call, incoming),
            Self::Telegram => telegram::read(call, incoming),
            Self::Twilio => twilio::read(call, incoming),
            Self::Periskope => periskope::read(call, incoming),
        }
    }

    /// What a request shows of its sender: the secret that is compared with the expected one.
    pub(super) fn credential(self, call: &Call, incoming: &Incoming<'_>) -> Option<String> {
        match self {
            Self::Http | Self::WhatsApp | Self::Periskope => incoming.bearer(),
            Self::Telegram => call.token.clone(),
            Self::Twilio => twilio::password(&call.account, incoming),
        }
    }

    /// How this provider says no to somebody whom it does not know.
    pub(super) fn unauthorized(self) -> Refusal {
        let (code, message) = match self {
            Self::Http => ("unauthorized", "the bearer token is not the one configured"),
            Self::WhatsApp => ("190", "Invalid OAuth access token - Cannot parse access token"),
            Self::Telegram | Self::Periskope => ("401", "Unauthorized"),
            Self::Twilio => ("20003", "Authenticate"),
        };
        Refusal { status: 401, code: code.into(), message: message.into(), retryable: false }
    }

    /// A fault as this provider has it: status and code of a refusal are ones that it could give.
    pub(super) fn fit(self, fault: Fault) -> Fault {
        let Fault::Refuse(refusal) = fault else { return fault };
        Fault::Refuse(match self {
            Self::Http => refusal,
            Self::WhatsApp => whatsapp::fit(refusal),
            Self::Telegram | Self::Periskope => fit_status_code(refusal),
            Self::Twilio => twilio::fit(refusal),
        })
    }

    /// The message was accepted.
    pub(super) fn accepted(self, message: &AcceptedMessage) -> Answer {
        match self {
            Self::Http => http::accepted(message),
            Self::WhatsApp => whatsapp::accepted(message),
            Self::Telegram => telegram::accepted(message),
            Self::Twilio => twilio::accepted(message),
            Self::Periskope => periskope::accepted(message),
        }
    }

    /// No, in the provider's own words. `chat` is to whom the message was to go.
    pub(super) fn refused(self, refusal: &Refusal, chat: &str) -> Answer {
        match self {
            Self::Http => http::refused(refusal),
            Self::WhatsApp => whatsapp::refused(refusal),
            Self::Telegram => telegram::refused(refusal, chat),
            Self::Twilio => twilio::refused(refusal),
            Self::Periskope => periskope::refused(refusal),
        }
    }

    /// 429, with the seconds to wait.
    pub(super) fn too_many_requests(self, seconds: Option<u64>) -> Answer {
        match self {
            Self::Http => Answer { status: 429, ..Answer::default() }.with_wait(seconds),
            Self::WhatsApp => whatsapp::too_many_requests(seconds),
            Self::Telegram => telegram::too_many_requests(seconds),
            Self::Twilio => twilio::too_many_requests(seconds),
            Self::Periskope => periskope::too_many_requests(seconds),
        }
    }

    /// A 5xx that says nothing of the message. A provider's own words stand in it only where they leave open what became of it.
    pub(super) fn broken(self, status: u16) -> Answer {
        match self {
            Self::Telegram => telegram::broken(status),
            Self::Twilio => twilio::broken(status),
            Self::Http | Self::WhatsApp | Self::Periskope => Answer::plain(status, "upstream error\n"),
        }
    }

    /// The credentials are good.
    pub(super) fn probed(self, call: &Call) -> Answer {
        match self {
            Self::Http => Answer::not_found(),
            Self::WhatsApp => whatsapp::probed(&call.account),
            Self::Telegram => telegram::probed(&call.account),
            Self::Twilio => twilio::probed(&call.account),
            Self::Periskope => periskope::probed(),
        }
    }

    /// Id of the message that is the `number`th to be accepted.
    pub(super) fn message_id(self, number: u64) -> String {
        match self {
            Self::Http => format!("sim-{number}"),
            Self::WhatsApp => format!("wamid.sim-{number}"),
            Self::Telegram => number.to_string(),
            Self::Twilio => format!("SM{number:032x}"),
            Self::Periskope => format!("3EB0{number:018X}"),
        }
    }

    /// Most receipts that this provider puts into one request.
    pub(super) fn batch_size(self, wanted: usize) -> usize {
        match self {
            Self::Http | Self::WhatsApp => wanted,
            Self::Telegram | Self::Twilio | Self::Periskope => 1,
        }
    }

    /// How often this provider tries to bring a receipt to this address. `usual` is how often it does where nothing is known.
    pub(super) fn tries(self, url: &str, usual: u32) -> u32 {
        if self == Self::Twilio { twilio::tries(url) } else { usual }
    }

    /// Whether it tries again when somebody was there and did not take the receipt.
    pub(super) fn repeats_refused(self) -> bool {
        self != Self::Twilio
    }

    /// A request with receipts of one account, for this address, signed. `id` is the same for each try.
    pub(super) fn notice(
        self,
        items: &[Item<'_>],
        plan: &ReceiptPlan,
        url: &str,
        (id, now): (&str, Timestamp),
    ) -> Notice {
        match self {
            Self::Http => http::notice(items, plan, (id, now)),
            Self::WhatsApp => whatsapp::notice(items, plan),
            Self::Telegram => telegram::notice(items, plan),
            Self::Twilio => twilio::notice(items, plan, url),
            Self::Periskope => periskope::notice(items, plan),
        }
    }
}

/// Where the code is the status: a code that could be one is taken for both.
fn fit_status_code(refusal: Refusal) -> Refusal {
    let named = refusal.code.parse().ok().filter(|code| (400..=599).contains(code));
    let status = named.unwrap_or(refusal.status);
    Refusal { status, code: status.to_string(), ..refusal }
}

/// The Broadcast's uid in a token `<uid>.<page>.<row>`, or nothing.
fn uid_of(token: &str) -> &str {
    let mut parts = token.rsplitn(3, '.');
    let are_numbers = [parts.next(), parts.next()].iter().all(|part| {
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    });
    parts.next().filter(|_| are_numbers).unwrap_or_default()
}

/// A text at this place of a JSON value, or nothing.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
