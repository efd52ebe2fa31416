//! What this process sees of the cluster: caches of Broadcasts, channels and pages, fed by watches.
//!
//! In: watch events. Out: snapshots, and signals that something changed. A cache may be stale; nothing here decides a
//! send: that is what the resourceVersion-checked claim of the ledger is for.

mod message_ids;
mod pages;
mod watch;

use std::sync::Arc;

use kube::runtime::reflector::{self, ObjectRef, Store, store::Writer};
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt};
use tokio::sync::{mpsc, watch as signal};
use tokio_util::sync::CancellationToken;

use crate::api::{Broadcast, BroadcastBatch, BroadcastChannel};
use crate::domain::ids::ObjectKey;

pub use pages::PageIndex;
use watch::{Change, Scope};

/// Changes waiting for the planner. Bounded, so that a slow planner slows the watch and not the memory: it holds one
/// key per event, and the planner takes keys much faster than the API server makes events.
const TRIGGER_CAPACITY: usize = 4096;

/// Caches, cheap to clone.
#[derive(Clone)]
pub struct Observed {
    /// All Broadcasts.
    pub broadcasts: Store<Broadcast>,
    /// All channels.
    pub channels: Store<BroadcastChannel>,
    /// Summaries of all pages.
    pub pages: Arc<PageIndex>,
    changed: signal::Receiver<u64>,
}

/// Broadcasts to look at: they were changed themselves, or their pages, channel, source or restart were.
pub type Triggers = mpsc::Receiver<ObjectRef<Broadcast>>;

/// Feeds the caches until it is cancelled.
pub struct Watches {
    client: Client,
    namespaces: Vec<String>,
    broadcasts: Sink<Broadcast>,
    channels: Sink<BroadcastChannel>,
    pages: Arc<PageIndex>,
    triggers: mpsc::Sender<ObjectRef<Broadcast>>,
    changed: signal::Sender<u64>,
}

struct Sink<K: kube::runtime::reflector::Lookup + Clone + 'static>
where
    K::DynamicType: std::hash::Hash + Eq + Clone,
{
    writer: Writer<K>,
    store: Store<K>,
}

impl Observed {
    /// Empty caches, what feeds them, and what they trigger. No namespaces means all of them.
    #[must_use]
    pub fn new(client: Client, namespaces: Vec<String>) -> (Self, Watches, Triggers) {
        let (broadcasts, broadcast_writer) = reflector::store();
        let (channels, channel_writer) = reflector::store();
        let pages = Arc::new(PageIndex::default());
        let (changed_sender, changed) = signal::channel(0);
        let (trigger_sender, triggers) = mpsc::channel(TRIGGER_CAPACITY);
        let observed = Self {
            broadcasts: broadcasts.clone(),
            channels: channels.clone(),
            pages: pages.clone(),
            changed,
        };
        let watches = Watches {
            client,
            namespaces,
            broadcasts: Sink { writer: broadcast_writer, store: broadcasts },
            channels: Sink { writer: channel_writer, store: channels },
            pages,
            triggers: trigger_sender,
            changed: changed_sender,
        };
        (observed, watches, triggers)
    }

    /// A signal that changes whenever one of the caches does.
    #[must_use]
    pub fn changes(&self) -> signal::Receiver<u64> {
        self.changed.clone()
    }

    /// Waits until all caches hold what the API server had at the start.
    pub async fn synced(&self) {
        // The writers live as long as the process; an error means that it is ending.
        let _ = self.broadcasts.wait_until_ready().await;
        let _ = self.channels.wait_until_ready().await;
        self.pages.synced().await;
    }

    /// The Broadcast of this name, as last seen.
    #[must_use]
    pub fn broadcast(&self, key: &ObjectKey) -> Option<Arc<Broadcast>> {
        self.broadcasts.get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    /// The channel of this name, as last seen.
    #[must_use]
    pub fn channel(&self, key: &ObjectKey) -> Option<Arc<BroadcastChannel>> {
        self.channels.get(&ObjectRef::new(&key.name).within(&key.namespace))
    }
}

impl Watches {
    /// Watches until `ended`. Errors of a watch are retried with backoff for ever: readiness shows them.
    pub async fn run(self, ended: CancellationToken) {
        let Self { client, namespaces, broadcasts, channels, pages, triggers, changed } = self;
        let scopes = Scope::all(&namespaces);
        let store = broadcasts.store.clone();
        let feeds = async {
            tokio::join!(
                feed_broadcasts(watch::changes(&client, &scopes), broadcasts, &triggers, &changed),
                feed_channels(watch::changes(&client, &scopes), channels, &store, &triggers, &changed),
                feed_pages(watch::changes(&client, &scopes), &pages, &triggers, &changed),
            )
        };
        tokio::select! {
            () = ended.cancelled() => {}
            _ = feeds => {}
        }
    }
}

async fn feed_broadcasts(
    mut changes: mpsc::Receiver<Change<Broadcast>>,
    mut sink: Sink<Broadcast>,
    triggers: &mpsc::Sender<ObjectRef<Broadcast>>,
    changed: &signal::Sender<u64>,
) {
    sink.writer.apply_watcher_event(&Event::Init);
    while let Some(change) = changes.recv().await {
        sink.store_change(&change);
        changed.send_modify(bump);
        if let Change::Applied(broadcast) | Change::Deleted(broadcast) = change {
            for relative in relatives(&broadcast, &sink.store) {
                let _ = triggers.send(relative).await;
            }
            let _ = triggers.send(ObjectRef::from_obj(broadcast.as_ref())).await;
        }
    }
}

async fn feed_channels(
    mut changes: mpsc::Receiver<Change<BroadcastChannel>>,
    mut sink: Sink<BroadcastChannel>,
    broadcasts: &Store<Broadcast>,
    triggers: &mpsc::Sender<ObjectRef<Broadcast>>,
    changed: &signal::Sender<u64>,
) {
    sink.writer.apply_watcher_event(&Event::Init);
    while let Some(change) = changes.recv().await {
        sink.store_change(&change);
        changed.send_modify(bump);
        if let Change::Applied(channel) | Change::Deleted(channel) = change {
            for broadcast in broadcasts.state() {
                if broadcast.namespace() == channel.namespace()
                    && uses_channel(&broadcast, &channel.name_any())
                {
                    let _ = triggers.send(ObjectRef::from_obj(broadcast.as_ref())).await;
                }
            }
        }
    }
}

async fn feed_pages(
    mut changes: mpsc::Receiver<Change<BroadcastBatch>>,
    pages: &PageIndex,
    triggers: &mpsc::Sender<ObjectRef<Broadcast>>,
    changed: &signal::Sender<u64>,
) {
    while let Some(change) = changes.recv().await {
        match change {
            Change::Applied(batch) => {
                pages.note(&batch);
                let _ = triggers.send(owner_of(&batch)).await;
            }
            Change::Deleted(batch) => {
                pages.forget(&batch);
                let _ = triggers.send(owner_of(&batch)).await;
            }
            Change::Synced => pages.mark_synced(),
        }
        changed.send_modify(bump);
    }
}

impl<K> Sink<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    fn store_change(&mut self, change: &Change<K>) {
        match change {
            Change::Applied(object) => {
                self.writer.apply_watcher_event(&Event::Apply(object.as_ref().clone()));
            }
            Change::Deleted(object) => {
                self.writer.apply_watcher_event(&Event::Delete(object.as_ref().clone()));
            }
            Change::Synced => self.writer.apply_watcher_event(&Event::InitDone),
        }
    }
}

fn bump(version: &mut u64) {
    *version += 1;
}

/// Broadcasts whose state depends on this one: those that restart it, and those that it restarts.
fn relatives(broadcast: &Broadcast, all: &Store<Broadcast>) -> Vec<ObjectRef<Broadcast>> {
    let name = broadcast.name_any();
    let source = broadcast.spec.restart_from.as_ref().map(|source| source.name.as_str());
    all.state()
        .iter()
        .filter(|other| other.namespace() == broadcast.namespace())
        .filter(|other| {
            let restarts_this = other.spec.restart_from.as_ref().is_some_and(|from| from.name == name);
            restarts_this || source == Some(other.name_any().as_str())
        })
        .map(|other| ObjectRef::from_obj(other.as_ref()))
        .collect()
}

fn uses_channel(broadcast: &Broadcast, channel: &str) -> bool {
    let resolved = broadcast.status.as_ref().and_then(|status| status.resolved.as_ref());
    let name = resolved.map(|resolved| &resolved.channel_ref).or(broadcast.spec.channel_ref.as_ref());
    name.is_none_or(|reference| reference.name == channel)
}

fn owner_of(batch: &BroadcastBatch) -> ObjectRef<Broadcast> {
    ObjectRef::new(&batch.spec.broadcast.name).within(&batch.namespace().unwrap_or_default())
}
