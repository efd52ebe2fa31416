//! What every provider is made of: a message becomes a request, an answer becomes an [`Answer`]. Both are pure; how they travel is
//! the business of [`gateway`](super::gateway).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use reqwest::Url;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gateway::GatewayError;
use crate::domain::answer::{Answer, RefusalKind, SenderTrouble};
use crate::domain::content::Content;
use crate::domain::receipt::Lookup;

/// What Traefik, and the default backend of ingresses, answer where they have no route.
const PROXY_LINES: [&[u8]; 2] = [b"404 page not found", b"default backend - 404"];

/// One message to one chat.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Names the row of the ledger. It goes out with the message where the provider sends it back with receipts.
    pub token: &'a str,
    /// Phone number in digits, or chat id.
    pub chat: &'a str,
    /// What to send.
    pub content: &'a Content,
    /// The recipient's parameters, for gateways that want to know them.
    pub params: &'a BTreeMap<String, String>,
    /// The Broadcast that it is part of.
    pub broadcast: BroadcastName<'a>,
    /// When it is sent.
    pub now: Timestamp,
}

/// Namespace and name of a Broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BroadcastName<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
}

/// A request to a provider. It may hold secrets in its url and headers, so it cannot be printed.
#[derive(Clone, PartialEq)]
pub struct WireRequest {
    /// Method.
    pub method: Method,
    /// Where it goes.
    pub url: Url,
    /// Headers, those with secrets marked as sensitive.
    pub headers: HeaderMap,
    /// Body, as it is sent.
    pub body: Vec<u8>,
}

/// The answer to a request, as far as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct WireAnswer<'a> {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// The body, cut to 64 KiB, and as much of it as came.
    pub body: &'a [u8],
    /// When it came.
    pub now: Timestamp,
}

/// An id or a code: some number them. Text, or a whole number below 2^64; of others digits would be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(String);

impl Word {
    /// Its text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyWord)
    }
}

/// Takes a word as it comes: whatever else stands in its place is not read.
struct AnyWord;

impl Visitor<'_> for AnyWord {
    type Value = Word;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("text or a whole number")
    }

    fn visit_str<E>(self, text: &str) -> Result<Word, E> {
        Ok(Word(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Word, E> {
        Ok(Word(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Word, E> {
        Ok(Word(number.to_string()))
    }
}

/// An error as REST APIs write it: `{"code": 21211, "message": "…"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// Its code, as text. Empty: it has none.
    pub code: String,
    /// What it says.
    pub message: String,
}

impl ErrorBody {
    /// Reads the body of an answer. `None`: it is no JSON object, or has neither of the two.
    #[must_use]
    pub fn of(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok().filter(Value::is_object)?;
        let error = Self::new(&body["code"], body["message"].as_str());
        (error != Self::default()).then_some(error)
    }

    /// An error with this code, which may be a number or a text.
    #[must_use]
    pub fn new(code: &Value, message: Option<&str>) -> Self {
        let code = match code {
            Value::String(code) => code.clone(),
            Value::Number(code) => code.to_string(),
            _ => String::new(),
        };
        Self { code, message: message.unwrap_or_default().to_owned() }
    }
}

/// A provider's protocol, with the settings and credentials of one channel.
pub trait Protocol: Send + Sync {
    /// The request that sends a message.
    ///
    /// # Errors
    /// When this message cannot be put into a request: nothing was sent, and the chat fails with this answer.
    fn request(&self, message: &Outgoing<'_>) -> Result<WireRequest, Answer>;

    /// What the provider said to a message.
    fn answer(&self, answer: &WireAnswer<'_>) -> Answer;

    /// The cheapest request that shows whether the credentials are good. `None`: there is none.
    fn probe(&self) -> Option<WireRequest>;

    /// What the provider said to the probe: `Accepted` when the credentials are good, a refusal of the sender when they are not, and
    /// anything else when that is not known.
    fn probed(&self, answer: &WireAnswer<'_>) -> Answer;

    /// The request that asks what became of the message with this id. `None`: the provider cannot be asked.
    fn lookup(&self, _message_id: &str) -> Option<WireRequest> {
        None
    }

    /// What the provider said to that. Asked for only where [`lookup`](Self::lookup) makes a request.
    fn looked_up(&self, answer: &WireAnswer<'_>) -> Lookup {
        Lookup::NotTold(answer_of_status(answer))
    }
}

impl WireRequest {
    /// A POST of JSON.
    #[must_use]
    pub fn json(url: Url, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("should be able to write a message as JSON");
        let json = HeaderValue::from_static("application/json");
        Self {
            method: Method::POST,
            url,
            headers: HeaderMap::from_iter([(http::header::CONTENT_TYPE, json)]),
            body,
        }
    }

    /// A GET.
    #[must_use]
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: Vec::new() }
    }

    /// The same request with one more header.
    #[must_use]
    pub fn with(mut self, name: http::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl WireAnswer<'_> {
    /// Whether it is what proxies answer for themselves: a page for people, or one of the lines by which common ones say that they
    /// have no way to the gateway. Nothing that takes messages from programs answers so.
    #[must_use]
    pub fn is_of_proxy(&self) -> bool {
        let kind = self.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_html = kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"));
        let body = self.body.trim_ascii();
        let start = body.get(..9).unwrap_or(body).to_ascii_lowercase();
        let is_page = start.starts_with(b"<html") || start.starts_with(b"<!doctype");
        is_html || is_page || PROXY_LINES.contains(&body)
    }

    /// How long a server asks to wait that is not available. With other answers the header means something else, or nothing.
    #[must_use]
    pub fn unavailable_for(&self) -> Option<Duration> {
        if self.status == 503 { self.retry_after() } else { None }
    }

    /// What `Retry-After` asks for: seconds, or a date as in RFC 9110 §10.2.3.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
            // More digits than fit are a very long wait, not none: the channel bounds it.
            return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
        }
        let until = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
        Some(Duration::try_from(until.duration_since(self.now)).unwrap_or(Duration::ZERO))
    }
}

/// What an answer means that is not in the provider's own words: it comes from something on the way, a proxy, a load balancer, a server
/// that broke down. Only the status is known, and how long to wait.
///
/// What is surely not sent is no trouble of the chat, for the provider has not said a word about it. Surely are the refusals that
/// RFC 9110 knows for requests that were not carried out. An intermediary gives them before it passes the request on.
#[must_use]
pub fn answer_of_status(answer: &WireAnswer<'_>) -> Answer {
    let status = answer.status;
    let said = || format!("the provider answered {status}");
    let code = || status.to_string();
    let sender = |trouble| Answer::refused(RefusalKind::Sender(trouble), code(), said());
    match status {
        // By these, servers also answer what they have carried out: "see there for the result".
        302 | 303 => Answer::unknown(code(), said()),
        300..=399 => sender(SenderTrouble::Redirected),
        401 | 403 | 407 => sender(SenderTrouble::AuthenticationFailed),
        // It gave up waiting for the request, which it may have read whole.
        408 => Answer::unknown(code(), "the provider timed out"),
        429 => Answer::refused(RefusalKind::RateLimited, code(), said()).with_wait(answer.retry_after()),
        _ if is_of_another(status) => {
            let detail = format!("{status}, which is not in the words of the provider");
            Answer::refused(RefusalKind::Sender(SenderTrouble::UnexpectedAnswer), code(), detail)
        }
        // Among them 4xx that no standard knows, such as 499 and 460: somebody hung up. And 409: there may be such a message.
        _ => Answer::unknown(code(), said()).with_wait(answer.unavailable_for()),
    }
}

/// Whether by this status something says that it passed the request on to nobody, if it is not the provider that says it.
#[must_use]
pub fn is_of_another(status: u16) -> bool {
    matches!(status, 400 | 402 | 404..=406 | 410..=417 | 421..=428 | 431 | 451)
}

/// A base url with a path below it. Both are text that was checked by the schema.
///
/// # Errors
/// When they make no url.
pub fn join(base: &str, path: &str) -> Result<Url, GatewayError> {
    let text = format!("{}/{path}", base.trim_end_matches('/'));
    text.parse().map_err(|error| GatewayError::InvalidUrl(format!("{error}")))
}

/// The value of a header with a secret in it.
///
/// # Errors
/// When the secret cannot stand in a header.
pub fn secret_header(text: &str) -> Result<HeaderValue, GatewayError> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}
