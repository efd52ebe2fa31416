//! One message to one gateway, with a hard time-out, and an honest answer to the question whether it can have been taken.
//!
//! The client never repeats a request and follows no redirect: either would be a second message.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, InvalidHeaderValue};
use reqwest::{Certificate, Client};

use super::SecretValues;
use super::wire::{Outgoing, Protocol, WireAnswer, WireRequest};
use crate::address_guard::{AddressNotAllowed, AddressPolicy, GuardedResolver};
use crate::api::BroadcastChannelSpec;
use crate::clock;
use crate::domain::answer::Answer;
use crate::domain::discretion::{without_chat, without_secret};
use crate::domain::ids::ObjectKey;
use crate::domain::outcome::Row;
use crate::domain::receipt::Lookup;
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

/// What helps where nobody is trusted who vouches for a gateway.
const NAME_AUTHORITY: &str =
    "put the certificate of its authority into a Secret and name that in spec.caSecretRef";

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
        Self::with_names(key, channel, secrets, policy, policy.resolver())
    }

    fn with_names(
        key: &ObjectKey,
        channel: &BroadcastChannelSpec,
        secrets: &SecretValues,
        policy: &AddressPolicy,
        names: Arc<GuardedResolver>,
    ) -> Result<Self, GatewayError> {
        let protocol = super::protocol(key, channel, secrets)?;
        // Every request goes to this host. An address is checked here once; a name at each connection, by the resolver.
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
            .dns_resolver(names)
            .build()
            .map_err(GatewayError::Client)?;
        let mut secrets: Vec<String> = secrets.words().map(str::to_owned).collect();
        // One may be the beginning of another.
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        Ok(Self { client, protocol, timeout, secrets: secrets.into() })
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

    /// Asks the provider what became of the message with this id, to this chat. `None`: it cannot be asked.
    pub async fn look_up(&self, message_id: &str, chat: &str) -> Option<Lookup> {
        let request = self.protocol.lookup(message_id)?;
        let lookup = match self.exchange(request).await {
            Ok(reply) => self.protocol.looked_up(&reply.as_answer()),
            Err(answer) => Lookup::NotTold(answer),
        };
        Some(self.told(lookup, message_id, chat))
    }

    /// What was told of this message, without what it must not tell.
    fn told(&self, lookup: Lookup, message_id: &str, chat: &str) -> Lookup {
        match lookup {
            Lookup::News(receipt) if receipt.id != message_id => {
                Lookup::NotTold(Answer::unknown("OtherMessage", "the answer is about another message"))
            }
            Lookup::News(receipt) => {
                let Row { code, detail, .. } = receipt.evidence.clone();
                Lookup::News(receipt.with_error(&code, &self.hide(&detail, chat)))
            }
            Lookup::NotTold(answer) => Lookup::NotTold(self.discreet(answer, chat)),
            Lookup::NoNews | Lookup::Gone => lookup,
        }
    }

    /// An answer without what it must not tell: providers repeat tokens that they refuse and numbers that they do not know, and
    /// details go on into conditions, events and logs.
    fn discreet(&self, answer: Answer, chat: &str) -> Answer {
        // A code is no sentence with a number in it, and what is done depends on it.
        answer.reworded(|text| self.without_secrets(text), |detail| self.hide(detail, chat))
    }

    fn hide(&self, detail: &str, chat: &str) -> String {
        without_chat(&self.without_secrets(detail), chat)
    }

    fn without_secrets(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| without_secret(&text, secret))
    }

    async fn exchange(&self, request: WireRequest) -> Result<Reply, Answer> {
        let started = clock::monotonic();
        let WireRequest { method, url, headers, body } = request;
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

/// The innermost cause: it says what happened, and holds no url and so no secret in one. Where the channel's settings are the cure, it
/// names them.
fn cause_of(error: &reqwest::Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match is_vouched_for_by_nobody(cause) {
        true => format!("{cause}; {NAME_AUTHORITY}"),
        false => cause.to_string(),
    }
}

/// Whether an error is that no authority which the channel trusts has signed the certificate of its gateway.
fn is_vouched_for_by_nobody(cause: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    let mut error = cause;
    // Errors of I/O do not name as their source what they wrap.
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    // With a wrong authority that has the name of the right one, it is the signature that does not fit.
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)))
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
