//! One kind in one or more namespaces, as a stream of changes.
//!
//! In: watch events, which after a relist may repeat, skip or go back. Out: changes that never go back: an object older
//! than the one seen before is dropped, and one that a relist no longer has is deleted.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::api::{Broadcast, BroadcastBatch, BroadcastBatchSpec, BroadcastChannel};
use crate::clock;
use crate::domain::ids::ObjectKey;

use super::health::{WatchHealth, WatchName};

/// Changes waiting for the cache; taking one is cheap.
const CHANGE_CAPACITY: usize = 256;

/// Errors in a row after which a watch is begun anew with a list: an expired resourceVersion that comes back as an HTTP
/// error would otherwise be asked for again for ever.
const ERRORS_BEFORE_NEW_WATCH: u32 = 5;

/// A watch that failed and then brings nothing for so long is begun anew with a list too: it may work again and have nothing to
/// bring, and until that is known nothing is sent.
const QUIET_AFTER_ERROR: std::time::Duration = std::time::Duration::from_secs(5);

/// Seconds after which the API server ends a quiet watch, so that it is begun anew: the client waits for the next byte a
/// little longer than this, and so notices a connection that is dead without having been closed.
pub const WATCH_SECONDS: u32 = 60;

/// Wait before a list after a failed one; doubled up to 16 s.
const FIRST_RELIST_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// Where to watch.
#[derive(Clone, Debug)]
pub enum Scope {
    /// In every namespace.
    All,
    /// In this one.
    Namespace(String),
}

impl Scope {
    /// The scopes for these namespaces; none means all.
    pub fn all(namespaces: &[String]) -> Vec<Self> {
        if namespaces.is_empty() {
            return vec![Self::All];
        }
        namespaces.iter().cloned().map(Self::Namespace).collect()
    }
}

/// A change of one object.
#[derive(Debug)]
pub enum Change<K> {
    /// It is there, new or changed.
    Applied(Arc<K>),
    /// It is gone.
    Deleted(Arc<K>),
    /// It is there, and cannot be read any more: what was known of it, in the version that it has now.
    Unreadable(Arc<K>),
    /// Everything that was there at the start has been passed on.
    Synced,
}

/// A kind that can be watched.
pub trait Watched:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// What the watch keeps of an object, to know its version and to say which one was deleted.
    fn remembered(object: &Arc<Self>) -> Arc<Self> {
        object.clone()
    }

    /// Whether the notes of the API server, who wrote which field when, are of use. They are long.
    const HAS_USE_FOR_MANAGED_FIELDS: bool = false;
}

impl Watched for Lease {
    const HAS_USE_FOR_MANAGED_FIELDS: bool = true;
}
impl Watched for Broadcast {}
impl Watched for BroadcastChannel {}

impl Watched for BroadcastBatch {
    /// Without the rows: they are most of the object, and all pages together are the whole audience.
    fn remembered(object: &Arc<Self>) -> Arc<Self> {
        let spec = BroadcastBatchSpec {
            broadcast: object.spec.broadcast.clone(),
            index: object.spec.index,
            recipients: String::new(),
        };
        Arc::new(Self { metadata: object.metadata.clone(), spec, status: None })
    }
}

/// Watches `K` in all scopes, or those with these labels, until the receiver is dropped.
pub fn changes<K>(
    client: &Client,
    scopes: &[Scope],
    labels: Option<&str>,
    health: &Arc<WatchHealth>,
) -> mpsc::Receiver<Change<K>>
where
    K: Watched,
{
    let (sender, receiver) = mpsc::channel(CHANGE_CAPACITY);
    let scopes = scopes.to_vec();
    let client = client.clone();
    let health = health.clone();
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
    config.label_selector = labels.map(str::to_owned);
    tokio::spawn(async move {
        let (synced_sender, mut synced) = mpsc::channel(scopes.len().max(1));
        let number = scopes.len();
        let mut feeds = JoinSet::new();
        for scope in scopes {
            let (api, namespace) = match scope {
                Scope::All => (Api::all(client.clone()), None),
                Scope::Namespace(namespace) => (Api::namespaced(client.clone(), &namespace), Some(namespace)),
            };
            let name = WatchName { kind: K::plural(&()).into_owned(), namespace };
            let feed = Feed::<K>::new(sender.clone(), synced_sender.clone());
            feeds.spawn(feed.run(api, config.clone(), name, health.clone()));
        }
        drop(synced_sender);
        for _ in 0..number {
            let _ = synced.recv().await;
        }
        let _ = sender.send(Change::Synced).await;
        drop(sender);
        // A feed ends only by a panic or with the process. When one does, all of them do, and the receiver is told.
        let _ = feeds.join_next().await;
    });
    receiver
}

/// What one watch has seen.
struct Feed<K> {
    changes: mpsc::Sender<Change<K>>,
    synced: mpsc::Sender<()>,
    known: HashMap<ObjectKey, Arc<K>>,
    listed: Option<HashMap<ObjectKey, K>>,
    is_synced: bool,
}

impl<K> Feed<K>
where
    K: Watched,
{
    fn new(changes: mpsc::Sender<Change<K>>, synced: mpsc::Sender<()>) -> Self {
        Self { changes, synced, known: HashMap::new(), listed: None, is_synced: false }
    }

    async fn run(
        mut self,
        api: Api<DeserializeGuard<K>>,
        config: watcher::Config,
        name: WatchName,
        health: Arc<WatchHealth>,
    ) {
        let mut errors = 0;
        while !self.changes.is_closed() {
            let mut events = kube::runtime::watcher(api.clone(), config.clone()).default_backoff().boxed();
            while let Some(event) = next_event(&mut events, errors > 0).await {
                match event {
                    Ok(event) => {
                        // `Init` comes before the API server was asked for anything.
                        if !matches!(event, Event::Init) {
                            errors = 0;
                            health.works(&name);
                        }
                        self.take(event).await;
                    }
                    Err(error) => {
                        errors += 1;
                        tracing::warn!(watch = %name, %error, "watch failed, retrying");
                        let is_refused = is_forbidden(&error);
                        health.failed(&name, error.to_string(), is_refused, clock::monotonic());
                        if is_refused {
                            // What may not be seen holds up nothing else.
                            self.mark_synced().await;
                        }
                        if errors >= ERRORS_BEFORE_NEW_WATCH {
                            break;
                        }
                    }
                }
                if self.changes.is_closed() {
                    return;
                }
            }
            // A list that succeeds shows at once that the watch works again, so it is tried until it does.
            let doublings = u32::min(errors.saturating_sub(ERRORS_BEFORE_NEW_WATCH), 4);
            clock::wait(FIRST_RELIST_WAIT * 2_u32.pow(doublings)).await;
        }
    }

    async fn mark_synced(&mut self) {
        if !self.is_synced {
            self.is_synced = true;
            let _ = self.synced.send(()).await;
        }
    }

    async fn take(&mut self, event: Event<DeserializeGuard<K>>) {
        match event {
            Event::Apply(DeserializeGuard(Ok(object))) => self.apply(object).await,
            Event::Delete(DeserializeGuard(Ok(object))) => self.delete(&key_of(&object)).await,
            Event::Apply(DeserializeGuard(Err(invalid))) => self.spoiled(invalid).await,
            // It is none of those that are listed, so what was known of it goes.
            Event::InitApply(DeserializeGuard(Err(invalid))) => log_invalid::<K>(&invalid),
            Event::Delete(DeserializeGuard(Err(_))) => {}
            Event::Init => self.listed = Some(HashMap::new()),
            Event::InitApply(DeserializeGuard(Ok(object))) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(key_of(&object), object);
                }
            }
            Event::InitDone => self.relist().await,
        }
    }

    async fn relist(&mut self) {
        let listed = self.listed.take().unwrap_or_default();
        let gone: Vec<ObjectKey> =
            self.known.keys().filter(|key| !listed.contains_key(key)).cloned().collect();
        for key in gone {
            self.delete(&key).await;
        }
        for object in listed.into_values() {
            self.apply(object).await;
        }
        self.mark_synced().await;
    }

    async fn apply(&mut self, mut object: K) {
        if !K::HAS_USE_FOR_MANAGED_FIELDS {
            object.meta_mut().managed_fields = None;
        }
        let key = key_of(&object);
        if self.known.get(&key).is_some_and(|known| is_older(&object, known.as_ref())) {
            return;
        }
        let object = Arc::new(object);
        self.known.insert(key, K::remembered(&object));
        let _ = self.changes.send(Change::Applied(object)).await;
    }

    /// An object cannot be read any more. One that was never read was never passed on.
    async fn spoiled(&mut self, invalid: InvalidObject) {
        log_invalid::<K>(&invalid);
        let metadata = invalid.metadata;
        let key = ObjectKey::new(
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        let Some(known) = self.known.get(&key).filter(|known| known.uid() == metadata.uid) else { return };
        let mut object = known.as_ref().clone();
        object.meta_mut().resource_version = metadata.resource_version;
        if is_older(&object, known.as_ref()) {
            return;
        }
        let object = Arc::new(object);
        self.known.insert(key, object.clone());
        let _ = self.changes.send(Change::Unreadable(object)).await;
    }

    async fn delete(&mut self, key: &ObjectKey) {
        if let Some(object) = self.known.remove(key) {
            let _ = self.changes.send(Change::Deleted(object)).await;
        }
    }
}

fn log_invalid<K: Resource<DynamicType = ()>>(invalid: &InvalidObject) {
    let name = invalid.metadata.name.as_deref().unwrap_or_default();
    tracing::error!(kind = %K::kind(&()), name, error = invalid.error, "object does not fit its schema, left alone");
}

/// The next event of a watch. `None` when it is to be begun anew.
async fn next_event<T>(events: &mut (impl futures::Stream<Item = T> + Unpin), has_failed: bool) -> Option<T> {
    if !has_failed {
        return events.next().await;
    }
    tokio::time::timeout(QUIET_AFTER_ERROR, events.next()).await.ok().flatten()
}

fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status.code == 403,
        _ => false,
    }
}

fn key_of<K: Resource>(object: &K) -> ObjectKey {
    ObjectKey::new(
        object.meta().namespace.clone().unwrap_or_default(),
        object.meta().name.clone().unwrap_or_default(),
    )
}

/// Whether `object` is an older version of `known`: resourceVersions of one kind are comparable numbers.
fn is_older<K: Resource>(object: &K, known: &K) -> bool {
    object.uid() == known.uid() && version_of(object) < version_of(known)
}

/// The resourceVersion as a number; 0 when it is none.
pub fn version_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}
