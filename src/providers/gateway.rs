//! One message to one gateway, with a hard time-out, and an honest answer to the question whether it can have been taken.
//!
//! The client never repeats a request and follows no redirect: either would be a second message.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, InvalidHeaderValue};
use reqwest::{Certificate, Client};

use super::SecretValues;
use super::secrecy::hidden;
use super::wire::{Outgoing, Protocol, WireAnswer, WireRequest};
use crate::address_guard::{AddressNotAllowed, AddressPolicy};
use crate::api::BroadcastChannelSpec;
use crate::clock;
use crate::domain::answer::Answer;
use crate::domain::ids::ObjectKey;
use crate::webhooks::InvalidSecret;

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

/// Shortest chat that is cut out of what a provider says. Numbers of fewer digits stand for other things there, such as its codes.
const SHORTEST_CHAT: usize = 5;

/// A gateway that cannot be used as it is described.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The settings of the provider are missing: only a schema of another version lets them be.
    #[error("spec.{0} is missing: the provider needs it")]
    NoSettings(&'static str),
    /// A url is none.
    #[error("the url of the channel is not valid: {0}")]
    InvalidUrl(String),
    /// The url points to an address that users may not reach.
    #[error(transparent)]
    AddressNotAllowed(#[from] AddressNotAllowed),
    /// The token cannot be sent in a header.
    #[error("the token has characters that cannot stand in a header: check for line breaks in the Secret")]
    InvalidToken(#[from] InvalidHeaderValue),
    /// The token cannot be a part of a url, as the provider wants it. It is not shown.
    #[error("the token is no token of this provider: check for line breaks and spaces in the Secret")]
    UnusableToken,
    /// A signing secret is none.
    #[error(transparent)]
    InvalidSecret(#[from] InvalidSecret),
    /// A header of the channel is none.
    #[error("{0} cannot be the name of a header: correct spec.http.headers")]
    InvalidHeader(String),
    /// The certificates of the channel cannot be read.
    #[error("the certificates of spec.caSecretRef cannot be read: they must be PEM")]
    InvalidCertificates,
    /// The client cannot be made.
    #[error("failed to set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl GatewayError {
    /// One word, as a condition's reason.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NoSettings(_) => "InvalidSpec",
            Self::InvalidUrl(_) => "InvalidUrl",
            Self::AddressNotAllowed(_) => "AddressNotAllowed",
            Self::InvalidToken(_) | Self::UnusableToken => "InvalidToken",
            Self::InvalidSecret(_) => "InvalidSecret",
            Self::InvalidHeader(_) => "InvalidHeader",
            Self::InvalidCertificates => "InvalidCertificates",
            Self::Client(_) => "ClientFailed",
        }
    }
}

/// A gateway, ready to take messages. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    client: Client,
    protocol: Arc<dyn Protocol>,
    policy: Arc<AddressPolicy>,
    timeout: Duration,
    secrets: Arc<[String]>,
}

/// What came back.
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Gateway {
    /// The gateway of a channel. `secrets` holds the values of all keys that [`BroadcastChannelSpec::sending_secrets`] names.
    ///
    /// # Errors
    /// When the settings or a secret cannot be used.
    pub fn new(
        key: &ObjectKey,
        channel: &BroadcastChannelSpec,
        secrets: &SecretValues,
        policy: &Arc<AddressPolicy>,
    ) -> Result<Self, GatewayError> {
        let protocol = super::protocol(key, channel, secrets)?;
        policy.check_url(&super::base_url(channel)?)?;
        let seconds = u64::try_from(channel.timeout_seconds()).unwrap_or(1).max(1);
        let timeout = Duration::from_secs(seconds);
        let mut builder = Client::builder();
        if let Some(reference) = &channel.ca_secret_ref {
            let roots = Certificate::from_pem_bundle(secrets.of(reference).as_bytes())
                .ok()
                .filter(|roots| !roots.is_empty())
                .ok_or(GatewayError::InvalidCertificates)?;
            builder = builder.tls_certs_merge(roots);
        }
        let client = builder
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
        let mut secrets: Vec<String> = secrets.words().map(str::to_owned).collect();
        // One may be the beginning of another.
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        Ok(Self { client, protocol, policy: policy.clone(), timeout, secrets: secrets.into() })
    }

    /// Sends one message. Never fails: whatever happens is an answer.
    pub async fn send(&self, message: &Outgoing<'_>) -> Answer {
        let request = match self.protocol.request(message) {
            Ok(request) => request,
            Err(refused) => return refused,
        };
        let answer = match self.exchange(request).await {
            Ok(reply) => self.protocol.answer(&reply.as_answer()),
            Err(answer) => answer,
        };
        self.discreet(answer, message.chat)
    }

    /// Asks the provider whether the credentials are good. `None`: it has no request for that.
    pub async fn probe(&self) -> Option<Answer> {
        let request = self.protocol.probe()?;
        let answer = match self.exchange(request).await {
            Ok(reply) => self.protocol.probed(&reply.as_answer()),
            Err(answer) => answer,
        };
        Some(self.discreet(answer, ""))
    }

    /// An answer without what it must not tell: providers repeat tokens that they refuse and numbers that they do not know, and
    /// details go on into conditions, events and logs.
    fn discreet(&self, answer: Answer, chat: &str) -> Answer {
        let chat = if chat.len() < SHORTEST_CHAT { "" } else { chat };
        let secrets = self.secrets.iter().map(String::as_str).chain([chat]);
        answer.with_detail(|detail| secrets.fold(detail.to_owned(), |text, secret| hidden(&text, secret)))
    }

    async fn exchange(&self, request: WireRequest) -> Result<Reply, Answer> {
        let started = clock::monotonic();
        let WireRequest { method, url, headers, body } = request;
        if let Err(refused) = self.policy.check_url(&url) {
            return Err(Answer::Unreachable { detail: refused.to_string() });
        }
        let request = self.client.request(method, url).headers(headers).body(body);
        let response = match tokio::time::timeout(self.timeout, request.send()).await {
            Ok(Ok(response)) => response,
            // No connection: nothing of the request left this machine.
            Ok(Err(error)) if error.is_connect() || error.is_builder() => {
                return Err(Answer::Unreachable { detail: cause_of(&error) });
            }
            Ok(Err(error)) => return Err(Answer::unknown("NoAnswer", cause_of(&error))),
            Err(_) => {
                let detail = format!("no answer within {} s", self.timeout.as_secs());
                return Err(Answer::unknown("Timeout", detail));
            }
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let rest = self.timeout.saturating_sub(started.elapsed()).min(BODY_TIMEOUT);
        // The status has come: a body that does not follow takes nothing away from it.
        let body = tokio::time::timeout(rest, read_body(response)).await.unwrap_or_default();
        Ok(Reply { status, headers, body })
    }
}

impl Reply {
    fn as_answer(&self) -> WireAnswer<'_> {
        WireAnswer { status: self.status, headers: &self.headers, body: &self.body, now: clock::now() }
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

    use std::collections::BTreeMap;

    use super::*;
    use crate::api::{HttpChannel, ProviderName};
    use crate::domain::answer::{Refusal, RefusalKind};
    use crate::domain::content::Content;
    use crate::providers::wire::BroadcastName;

    fn gateway(scheme: &str, listener: &TcpListener, timeout_seconds: i32) -> Gateway {
        // Another test may have set it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = listener.local_addr().expect("address");
        let http =
            HttpChannel { url: format!("{scheme}://{address}/"), timeout_seconds, ..HttpChannel::default() };
        let channel =
            BroadcastChannelSpec { http: Some(http), ..BroadcastChannelSpec::of(ProviderName::Http) };
        let loopback = "127.0.0.0/8".parse().expect("range");
        let policy = Arc::new(AddressPolicy::new(vec![loopback]));
        Gateway::new(&ObjectKey::new("shop", "sms"), &channel, &SecretValues::default(), &policy)
            .expect("gateway")
    }

    async fn send(gateway: &Gateway) -> Answer {
        let (content, params) = (Content::text("Hi"), BTreeMap::new());
        let broadcast = BroadcastName { namespace: "shop", name: "sale" };
        let message = Outgoing {
            token: "u.0.0",
            chat: "15550100",
            content: &content,
            params: &params,
            broadcast,
            now: clock::now(),
        };
        gateway.send(&message).await
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
            (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", Answer::accepted("")),
            (
                b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\n{",
                Answer::Refused(Refusal {
                    kind: RefusalKind::RateLimited,
                    code: "429".into(),
                    detail: "the gateway answered 429".into(),
                    wait: Some(Duration::from_secs(7)),
                }),
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
    async fn what_a_gateway_repeats_of_secrets_and_chats_is_not_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let gateway = Gateway { secrets: Arc::new(["s3cret".into()]), ..gateway("http", &listener, 1) };
        for (said, told) in [
            ("no +15550100 (555), whatsapp:+15550100", "no +… (555), whatsapp:+…"),
            ("you sent s3cret", "you sent …"),
        ] {
            let answer = Answer::refused(RefusalKind::Permanent, "21211", said);
            let expected = Answer::refused(RefusalKind::Permanent, "21211", told);
            assert_eq!(gateway.discreet(answer, "15550100"), expected);
        }
        let short = Answer::unknown("502", "error 502");
        assert_eq!(gateway.discreet(short.clone(), "502"), short);
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
