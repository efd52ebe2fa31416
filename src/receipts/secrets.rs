//! Who may send receipts of a channel: its signing secrets, read when they are needed and remembered for a short time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client};
use tokio::sync::Mutex as AsyncMutex;

use super::source::{Content, Source};
use crate::api::{BroadcastChannelSpec, KeyRef};
use crate::clock;
use crate::cluster::{ApiError, chain, within};
use crate::webhooks::WebhookError;

/// How long a secret is used without another look: a secret that was taken away counts so long.
const FRESH: Duration = Duration::from_secs(10);
/// A secret that does not match, or cannot be used, is looked at again when it is older than this: a rotation is noticed at
/// once, and a forger causes one look per second at most.
const RECHECK: Duration = Duration::from_secs(1);

/// Why receipts are not taken. It is said to whoever asks, so it names no Secret.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// The channel has nothing to check receipts with, and does not take them unsigned.
    #[error("this channel takes no receipts: its spec has no {0}")]
    NotConfigured(&'static str),
    /// The request has no signature.
    #[error("the header {0} is needed")]
    NoSignature(&'static str),
    /// The signature is not genuine.
    #[error(transparent)]
    Signature(#[from] WebhookError),
    /// The channel's own secret cannot be used, or not be read now. Why is in the log.
    #[error("the signing secret of the channel cannot be used")]
    Unusable,
}

/// Signing secrets of all channels.
pub struct SigningSecrets {
    client: Client,
    known: Mutex<HashMap<(String, String, String), Arc<Entry>>>,
}

/// What is known of one secret. Whoever reads it holds the lock, so that a thousand requests cause one look.
type Entry = AsyncMutex<Option<Known>>;

#[derive(Clone)]
struct Known {
    /// When it was last asked for.
    looked: Instant,
    /// When it was last read.
    read: Instant,
    /// `None`: it cannot be used.
    secrets: Option<Arc<[String]>>,
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the Secret has no such key")]
    NoKey,
    #[error("it is empty")]
    Empty,
}

impl SigningSecrets {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// Checks that a request comes from the provider of a channel.
    pub async fn check(
        &self,
        namespace: &str,
        source: &Source<'_>,
        content: &Content<'_>,
    ) -> Result<(), Untrusted> {
        let Some(secret) = source.secret else { return Ok(()) };
        let verify = |secrets: &[String]| source.check(secrets, content, clock::now());
        let known = self.known(namespace, secret, FRESH).await?;
        match verify(&known) {
            Err(Untrusted::Signature(WebhookError::NoMatch)) => {
                verify(&self.known(namespace, secret, RECHECK).await?)
            }
            checked => checked,
        }
    }

    /// What a channel's provider may have of its secrets, and must not be told again when it repeats it. A secret that cannot be read
    /// is not in it.
    pub async fn words(&self, namespace: &str, channel: &BroadcastChannelSpec) -> Vec<String> {
        let certificates = channel.ca_secret_ref.as_ref();
        let mut words = BTreeSet::new();
        for from in channel.sending_secrets().chain(channel.receipt_secrets()) {
            if Some(from) != certificates {
                let known = self.known(namespace, from, FRESH).await;
                words.extend(known.iter().flat_map(|values| values.iter().cloned()));
            }
        }
        let mut words: Vec<String> = words.into_iter().collect();
        // One may be the beginning of another.
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words
    }

    /// The values of a key: one, or several in a rotation.
    pub async fn values(&self, namespace: &str, from: &KeyRef) -> Result<Arc<[String]>, Untrusted> {
        self.known(namespace, from, FRESH).await
    }

    /// The secrets of a key, read at most `max_age` ago or asked for just now.
    async fn known(
        &self,
        namespace: &str,
        from: &KeyRef,
        max_age: Duration,
    ) -> Result<Arc<[String]>, Untrusted> {
        let entry = self.entry(namespace, from);
        let mut known = entry.lock().await;
        let is_fresh = known.as_ref().is_some_and(|known| {
            (known.secrets.is_some() && age(known.read) < max_age) || age(known.looked) < RECHECK
        });
        if !is_fresh {
            *known = Some(self.look(namespace, from, known.clone()).await);
        }
        known.as_ref().and_then(|known| known.secrets.clone()).ok_or(Untrusted::Unusable)
    }

    /// Reads a secret. While the API server is in trouble, what was read before counts for its time.
    async fn look(&self, namespace: &str, from: &KeyRef, before: Option<Known>) -> Known {
        let now = clock::monotonic;
        let trouble = match self.read(namespace, from).await {
            Ok(secrets) => return Known { looked: now(), read: now(), secrets: Some(secrets.into()) },
            Err(trouble) => trouble,
        };
        let KeyRef { name, key } = from;
        let reason = chain(&trouble);
        tracing::warn!(namespace, secret = name, key, reason, "a secret of a channel cannot be used");
        match before.filter(|before| trouble.is_temporary() && age(before.read) < FRESH) {
            Some(before) => Known { looked: now(), ..before },
            None => Known { looked: now(), read: now(), secrets: None },
        }
    }

    async fn read(&self, namespace: &str, from: &KeyRef) -> Result<Vec<String>, Trouble> {
        let api: Api<KubeSecret> = Api::namespaced(self.client.clone(), namespace);
        let secret = within(api.get(&from.name)).await?;
        let value = secret.data.as_ref().and_then(|data| data.get(&from.key)).ok_or(Trouble::NoKey)?;
        let text = String::from_utf8_lossy(&value.0);
        let values: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if values.is_empty() { Err(Trouble::Empty) } else { Ok(values) }
    }

    fn entry(&self, namespace: &str, from: &KeyRef) -> Arc<Entry> {
        let key = (namespace.to_owned(), from.name.clone(), from.key.clone());
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = all.get(&key) {
            return entry.clone();
        }
        // Those that somebody reads now, or has read lately.
        all.retain(|_, entry| {
            entry.try_lock().map_or(true, |known| known.as_ref().is_some_and(|known| age(known.read) < FRESH))
        });
        all.entry(key).or_default().clone()
    }
}

impl Trouble {
    fn is_temporary(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_temporary())
    }
}

fn age(time: Instant) -> Duration {
    clock::monotonic().saturating_duration_since(time)
}
