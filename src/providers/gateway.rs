//! One message to one gateway, with a hard time-out, and an honest answer to the question whether it can have been taken.
//!
//! The client never repeats a request and follows no redirect: either would be a second message.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderValue, InvalidHeaderValue, RETRY_AFTER};

use super::http::{BroadcastName, SendRequest, read_answer};
use crate::address_guard::{AddressNotAllowed, AddressPolicy};
use crate::api::HttpChannel;
use crate::clock;
use crate::domain::answer::Answer;
use crate::domain::ids::ObjectKey;

/// Longest wait for a connection. A gateway that does not accept within it is unreachable, and nothing was sent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are closed before most servers and proxies close them (60 s and more), so that few requests meet a
/// connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest answer that is read. An answer is an id or an error; what is longer is cut, not refused.
const MAX_ANSWER: usize = 64 * 1024;

/// A gateway that cannot be used as it is described.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The url is none.
    #[error("http.url is not a valid URL: {0}")]
    InvalidUrl(String),
    /// The url points to an address that users may not reach.
    #[error(transparent)]
    AddressNotAllowed(#[from] AddressNotAllowed),
    /// The token cannot be sent in a header.
    #[error("the token has characters that cannot stand in a header: check for line breaks in the Secret")]
    InvalidToken(#[from] InvalidHeaderValue),
    /// The client cannot be made.
    #[error("failed to set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl GatewayError {
    /// One word, as a condition's reason.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::InvalidUrl(_) => "InvalidUrl",
            Self::AddressNotAllowed(_) => "AddressNotAllowed",
            Self::InvalidToken(_) => "InvalidToken",
            Self::Client(_) => "ClientFailed",
        }
    }
}

/// A gateway, ready to take messages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    client: Client,
    url: reqwest::Url,
    timeout: Duration,
}

impl Gateway {
    /// A gateway as its channel describes it.
    ///
    /// # Errors
    /// When the url or the token cannot be used.
    pub fn new(
        channel: &HttpChannel,
        token: Option<&str>,
        policy: &Arc<AddressPolicy>,
    ) -> Result<Self, GatewayError> {
        let url: reqwest::Url =
            channel.url.parse().map_err(|error| GatewayError::InvalidUrl(format!("{error}")))?;
        policy.check_url(&url)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
            value.set_sensitive(true);
            headers.insert(reqwest::header::AUTHORIZATION, value);
        }
        let client = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("broadcast-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .no_proxy()
            .dns_resolver(policy.resolver())
            .build()
            .map_err(GatewayError::Client)?;
        let timeout = Duration::from_secs(u64::try_from(channel.timeout_seconds).unwrap_or(1).max(1));
        Ok(Self { client, url, timeout })
    }

    /// Sends one message. Never fails: whatever happens is an answer.
    pub async fn send(&self, broadcast: &ObjectKey, token: &str, chat: &str, text: &str) -> Answer {
        match tokio::time::timeout(self.timeout, self.request(broadcast, token, chat, text)).await {
            Ok(answer) => answer,
            Err(_) => Answer::Unknown {
                code: "Timeout".into(),
                detail: format!("no answer within {} s", self.timeout.as_secs()),
            },
        }
    }

    async fn request(&self, broadcast: &ObjectKey, token: &str, chat: &str, text: &str) -> Answer {
        let name = BroadcastName { namespace: &broadcast.namespace, name: &broadcast.name };
        let body = SendRequest { id: token, to: chat, text, broadcast: name };
        let sent =
            self.client.post(self.url.clone()).header("Idempotency-Key", token).json(&body).send().await;
        let response = match sent {
            Ok(response) => response,
            // No connection: nothing of the request left this machine.
            Err(error) if error.is_connect() || error.is_builder() => {
                return Answer::Unreachable { detail: cause_of(&error) };
            }
            Err(error) => return Answer::Unknown { code: "NoAnswer".into(), detail: cause_of(&error) },
        };
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let answer = read_body(response).await;
        read_answer(status, retry_after.as_deref(), &answer, clock::now())
    }
}

/// The body as far as it can be read. The status alone decides most answers, so a body that breaks off is no error.
async fn read_body(mut response: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = MAX_ANSWER - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_ANSWER {
            break;
        }
    }
    body
}

/// The innermost cause: it says what happened, and holds no url and so no secret in one.
fn cause_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
