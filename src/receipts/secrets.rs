//! Who may send receipts of a channel: its signing secrets, read when they are needed and remembered for a short time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client};

use crate::api::{HttpChannel, KeyRef};
use crate::clock;
use crate::cluster::{ApiError, within};
use crate::webhooks::{self, Secret, Signed, WebhookError};

/// How long a secret is used without another look: a secret that was taken away counts so long.
const FRESH: Duration = Duration::from_secs(10);
/// A secret that does not match is looked at again when it is older than this: a rotation is noticed at once, and a
/// forger causes one look per second at most.
const RECHECK: Duration = Duration::from_secs(1);

/// Why receipts are not taken.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// The channel neither has a secret nor takes unsigned receipts.
    #[error(
        "this channel takes no receipts: give it http.signingSecretRef, or http.allowUnsigned if its receipts cannot be signed"
    )]
    NotConfigured,
    /// The signature is not genuine.
    #[error(transparent)]
    Signature(#[from] WebhookError),
    /// The channel's own secret cannot be used.
    #[error("the signing secret of the channel cannot be used: {0}")]
    Secret(String),
    /// The channel's secret cannot be read now.
    #[error("failed to read the signing secret of the channel")]
    Unreadable(#[source] ApiError),
}

/// Signing secrets of all channels.
pub struct SigningSecrets {
    client: Client,
    known: Mutex<HashMap<(String, String, String), Known>>,
}

#[derive(Clone)]
struct Known {
    read: Instant,
    secrets: Arc<[Secret]>,
}

impl SigningSecrets {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// Checks that a request comes from the gateway of a channel.
    pub async fn check(
        &self,
        namespace: &str,
        channel: &HttpChannel,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), Untrusted> {
        let Some(reference) = &channel.signing_secret_ref else {
            return if channel.allow_unsigned { Ok(()) } else { Err(Untrusted::NotConfigured) };
        };
        let signed = headers_of(headers)?;
        let known = self.secrets(namespace, reference, FRESH).await?;
        match webhooks::verify(&known.secrets, signed, body, clock::now()) {
            Err(WebhookError::NoMatch) if known.read.elapsed_by(clock::monotonic()) >= RECHECK => {
                let known = self.secrets(namespace, reference, RECHECK).await?;
                Ok(webhooks::verify(&known.secrets, signed, body, clock::now())?)
            }
            checked => Ok(checked?),
        }
    }

    async fn secrets(&self, namespace: &str, from: &KeyRef, max_age: Duration) -> Result<Known, Untrusted> {
        let key = (namespace.to_owned(), from.name.clone(), from.key.clone());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known.filter(|known| known.read.elapsed_by(clock::monotonic()) < max_age) {
            return Ok(known);
        }
        let api: Api<KubeSecret> = Api::namespaced(self.client.clone(), namespace);
        let secret = within(api.get(&from.name)).await.map_err(|error| match error.is_not_found() {
            true => Untrusted::Secret(format!("Secret {} does not exist", from.name)),
            false => Untrusted::Unreadable(error),
        })?;
        let value = secret.data.as_ref().and_then(|data| data.get(&from.key));
        let value = value
            .ok_or_else(|| Untrusted::Secret(format!("Secret {} has no key {}", from.name, from.key)))?;
        let secrets = Secret::parse_all(&String::from_utf8_lossy(&value.0))
            .map_err(|error| Untrusted::Secret(error.to_string()))?;
        let known = Known { read: clock::monotonic(), secrets: secrets.into() };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, known| known.read.elapsed_by(clock::monotonic()) < FRESH);
        all.insert(key, known.clone());
        Ok(known)
    }
}

fn headers_of(headers: &HeaderMap) -> Result<Signed<'_>, WebhookError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(webhooks::ID_HEADER), text(webhooks::TIMESTAMP_HEADER), text(webhooks::SIGNATURE_HEADER)) {
        (Some(id), Some(timestamp), Some(signatures)) => Ok(Signed { id, timestamp, signatures }),
        _ => Err(WebhookError::MissingHeaders),
    }
}

trait Age {
    fn elapsed_by(&self, now: Instant) -> Duration;
}

impl Age for Instant {
    fn elapsed_by(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*self)
    }
}
