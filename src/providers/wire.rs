//! What every provider is made of: a message becomes a request, an answer becomes an [`Answer`]. Both are pure; how they travel is
//! the business of [`gateway`](super::gateway).

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use reqwest::Url;
use serde::Serialize;

use super::gateway::GatewayError;
use crate::domain::answer::{Answer, RefusalKind, SenderTrouble};
use crate::domain::content::Content;

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

/// The answer to a message that no provider gave, but something on the way: a proxy, a load balancer, a server that broke down. Only
/// the status is known.
#[must_use]
pub fn answer_of_status(status: u16) -> Answer {
    let said = || format!("the provider answered {status}");
    let sender = |trouble| Answer::refused(RefusalKind::Sender(trouble), status.to_string(), said());
    match status {
        // By these, servers also answer what they have carried out: "see there for the result".
        302 | 303 => Answer::unknown(status.to_string(), said()),
        300..=399 => sender(SenderTrouble::Redirected),
        401 | 403 => sender(SenderTrouble::AuthenticationFailed),
        // It gave up waiting for the request, which it may have read whole.
        408 => Answer::unknown("408", "the provider timed out"),
        429 => Answer::refused(RefusalKind::RateLimited, "429", said()),
        400..=499 => Answer::refused(RefusalKind::Permanent, status.to_string(), said()),
        _ => Answer::unknown(status.to_string(), said()),
    }
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
