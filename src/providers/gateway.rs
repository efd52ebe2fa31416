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

/// Longest wait for a connection, and never more than half of the time for an answer: a gateway that does not accept in
/// time is unreachable and nothing was sent, while a request that runs out of time is Unknown.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the body of an answer whose status is there.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
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
        let timeout = Duration::from_secs(u64::try_from(channel.timeout_seconds).unwrap_or(1).max(1));
        let client = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("broadcast-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT.min(timeout / 2))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .no_proxy()
            .dns_resolver(policy.resolver())
            .build()
            .map_err(GatewayError::Client)?;
        Ok(Self { client, url, timeout })
    }

    /// Sends one message. Never fails: whatever happens is an answer.
    pub async fn send(&self, broadcast: &ObjectKey, token: &str, chat: &str, text: &str) -> Answer {
        let started = clock::monotonic();
        let name = BroadcastName { namespace: &broadcast.namespace, name: &broadcast.name };
        let body = SendRequest { id: token, to: chat, text, broadcast: name };
        let request = self.client.post(self.url.clone()).header("Idempotency-Key", token).json(&body);
        let response = match tokio::time::timeout(self.timeout, request.send()).await {
            Ok(Ok(response)) => response,
            // No connection: nothing of the request left this machine.
            Ok(Err(error)) if error.is_connect() || error.is_builder() => {
                return Answer::Unreachable { detail: cause_of(&error) };
            }
            Ok(Err(error)) => return Answer::Unknown { code: "NoAnswer".into(), detail: cause_of(&error) },
            Err(_) => {
                return Answer::Unknown {
                    code: "Timeout".into(),
                    detail: format!("no answer within {} s", self.timeout.as_secs()),
                };
            }
        };
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let rest = self.timeout.saturating_sub(started.elapsed()).min(BODY_TIMEOUT);
        // The status has come: a body that does not follow takes nothing away from it.
        let answer = tokio::time::timeout(rest, read_body(response)).await.unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn gateway(scheme: &str, listener: &TcpListener, timeout_seconds: i32) -> Gateway {
        // Another test may have set it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = listener.local_addr().expect("address");
        let channel =
            HttpChannel { url: format!("{scheme}://{address}/"), timeout_seconds, ..HttpChannel::default() };
        let loopback = "127.0.0.0/8".parse().expect("range");
        Gateway::new(&channel, None, &Arc::new(AddressPolicy::new(vec![loopback]))).expect("gateway")
    }

    async fn send(gateway: &Gateway) -> Answer {
        gateway.send(&ObjectKey::new("shop", "sale"), "u.0.0", "15550100", "Hi").await
    }

    /// Answers one request with `answer` and then says nothing more.
    async fn answer_once(listener: TcpListener, answer: &[u8]) {
        let (mut connection, _) = listener.accept().await.expect("connection");
        let mut seen = Vec::new();
        while !seen.ends_with(b"}}") {
            assert_ne!(connection.read_buf(&mut seen).await.expect("request"), 0, "cut off");
        }
        connection.write_all(answer).await.expect("answer");
        // Held open until the caller has its answer.
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn a_gateway_that_never_comes_to_a_connection_is_unreachable_also_with_a_short_time_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let answer = send(&gateway("https", &listener, 1)).await;
        assert!(matches!(answer, Answer::Unreachable { .. }), "{answer:?}");
    }

    #[tokio::test]
    async fn a_body_that_never_comes_leaves_the_status_as_the_answer() {
        let answers: [(&[u8], Answer); 2] = [
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
                Answer::Accepted { message_id: String::new() },
            ),
            (
                b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\n{",
                Answer::RateLimited { wait: Some(Duration::from_secs(7)) },
            ),
        ];
        for (stored, expected) in answers {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
            let gateway = gateway("http", &listener, 1);
            let answer = tokio::select! {
                answer = send(&gateway) => answer,
                () = answer_once(listener, stored) => unreachable!("the connection stays open"),
            };
            assert_eq!(answer, expected);
        }
    }

    #[tokio::test]
    async fn a_gateway_that_takes_the_request_and_says_nothing_is_unknown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let gateway = gateway("http", &listener, 1);
        let answer = tokio::select! {
            answer = send(&gateway) => answer,
            () = answer_once(listener, b"") => unreachable!("the connection stays open"),
        };
        assert!(matches!(answer, Answer::Unknown { ref code, .. } if code == "Timeout"), "{answer:?}");
    }
}
