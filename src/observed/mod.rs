//! What this process sees of the cluster: caches of Broadcasts, channels and pages, fed by watches.
//!
//! In: watch events. Out: snapshots, and signals that something changed. A cache may be stale; nothing here decides a
//! send: that is what the resourceVersion-checked claim of the ledger is for.

mod by_uid;
mod gone;
mod health;
mod message_ids;
mod pages;
mod watch;

pub use health::WatchHealth;
pub use watch::{Change, Scope, WATCH_SECONDS, changes, version_of};

use std::sync::Arc;

use kube::runtime::reflector::{self, ObjectRef, Store, store::Writer};
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt};
use tokio::sync::{mpsc, watch as signal};
use tokio_util::sync::CancellationToken;

use crate::api::{Broadcast, BroadcastBatch, BroadcastChannel};
use crate::clock;
use crate::domain::hold::{Books, books};
use crate::domain::ids::{BroadcastUid, ObjectKey};

pub use by_uid::ByUid;
pub use pages::PageIndex;

/// Caches, cheap to clone.
#[derive(Clone)]
pub struct Observed {
    /// All Broadcasts.
    pub broadcasts: Store<Broadcast>,
    /// All channels.
    pub channels: Store<BroadcastChannel>,
    /// The same Broadcasts, by UID.
    pub by_uid: Arc<ByUid>,
    /// Summaries of all pages.
    pub pages: Arc<PageIndex>,
    namespaces: Arc<[String]>,
    health: Arc<WatchHealth>,
    changed: signal::Receiver<u64>,
}

/// Broadcasts to look at: they were changed themselves, or their pages, channel, source or restart were. Not bounded: until
/// the planner starts it holds one key per Broadcast, and afterwards the planner takes keys, each once however often it
/// comes, faster than the API server makes events.
pub type Triggers = mpsc::UnboundedReceiver<ObjectRef<Broadcast>>;

/// Feeds the caches until it is cancelled.
pub struct Watches {
    client: Client,
    namespaces: Vec<String>,
    broadcasts: Sink<Broadcast>,
    channels: Sink<BroadcastChannel>,
    by_uid: Arc<ByUid>,
    pages: Arc<PageIndex>,
    health: Arc<WatchHealth>,
    triggers: mpsc::UnboundedSender<ObjectRef<Broadcast>>,
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
        let (by_uid, pages) = (Arc::new(ByUid::default()), Arc::new(PageIndex::default()));
        let health = Arc::new(WatchHealth::default());
        let (changed_sender, changed) = signal::channel(0);
        let (trigger_sender, triggers) = mpsc::unbounded_channel();
        let observed = Self {
            broadcasts: broadcasts.clone(),
            channels: channels.clone(),
            by_uid: by_uid.clone(),
            pages: pages.clone(),
            namespaces: namespaces.clone().into(),
            health: health.clone(),
            changed,
        };
        let watches = Watches {
            client,
            namespaces,
            broadcasts: Sink { writer: broadcast_writer, store: broadcasts },
            channels: Sink { writer: channel_writer, store: channels },
            by_uid,
            pages,
            health,
            triggers: trigger_sender,
            changed: changed_sender,
        };
        (observed, watches, triggers)
    }

    /// Caches that show these, and nothing else ever.
    #[cfg(test)]
    #[must_use]
    pub fn showing(
        client: Client,
        broadcasts: Vec<Broadcast>,
        channels: Vec<BroadcastChannel>,
        batches: &[BroadcastBatch],
    ) -> Self {
        let (observed, mut watches, _) = Self::new(client, Vec::new());
        for broadcast in broadcasts.into_iter().map(Arc::new) {
            watches.by_uid.note(&broadcast);
            watches.broadcasts.store_change(&Change::Applied(broadcast));
        }
        for channel in channels.into_iter().map(Arc::new) {
            watches.channels.store_change(&Change::Applied(channel));
        }
        for batch in batches {
            watches.pages.note(batch);
        }
        observed
    }

    /// The namespaces that are looked at; none means all.
    #[must_use]
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
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

    /// Why the caches cannot be trusted in this namespace, if a watch of it has been failing for a while: a stop might not
    /// be seen.
    #[must_use]
    pub fn blind(&self, namespace: &str) -> Option<String> {
        self.health.failing(namespace, clock::monotonic())
    }

    /// Whether a watch of this namespace has failed lately, and has brought nothing since.
    #[must_use]
    pub fn has_trouble(&self, namespace: &str) -> bool {
        self.health.has_trouble(namespace, clock::monotonic())
    }

    /// Why the caches cannot be trusted in this namespace, where another process may see more: the watch was not refused.
    #[must_use]
    pub fn broken(&self, namespace: &str) -> Option<String> {
        self.health.broken(namespace, clock::monotonic())
    }

    /// Whether the pages in view are what the status of a Broadcast says of them; `Missing` before it is sealed. One that lost
    /// a page, or whose pages went back in time, must not send the rest.
    #[must_use]
    pub fn books(&self, broadcast: &Broadcast) -> Books {
        let uid = BroadcastUid::new(broadcast.uid().unwrap_or_default());
        let seen = self.pages.seen(&broadcast.namespace().unwrap_or_default(), &uid);
        let sealed = broadcast.status.as_ref().filter(|status| status.batches.is_some());
        sealed.map_or(Books::Missing, |status| books(status, &seen))
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
    /// Watches until `ended`, or until a feed dies: it returns then, because a cache that nobody feeds must not be sent from.
    /// Errors of a watch are retried with backoff for ever; see [`Observed::blind`].
    pub async fn run(self, ended: CancellationToken) {
        let Self { client, namespaces, broadcasts, channels, by_uid, pages, health, triggers, changed } =
            self;
        let scopes = Scope::all(&namespaces);
        let store = broadcasts.store.clone();
        tokio::select! {
            () = ended.cancelled() => {}
            () = feed_broadcasts(watch::changes(&client, &scopes, None, &health), broadcasts, (&by_uid, &pages), &triggers, &changed) => {}
            () = feed_channels(watch::changes(&client, &scopes, None, &health), channels, &store, &triggers, &changed) => {}
            () = feed_pages(watch::changes(&client, &scopes, None, &health), &pages, &triggers, &changed) => {}
        }
    }
}

async fn feed_broadcasts(
    mut changes: mpsc::Receiver<Change<Broadcast>>,
    mut sink: Sink<Broadcast>,
    (by_uid, pages): (&ByUid, &PageIndex),
    triggers: &mpsc::UnboundedSender<ObjectRef<Broadcast>>,
    changed: &signal::Sender<u64>,
) {
    let mut is_synced = false;
    sink.writer.apply_watcher_event(&Event::Init);
    while let Some(change) = changes.recv().await {
        is_synced |= matches!(change, Change::Synced);
        match &change {
            Change::Applied(broadcast) => {
                pages.accept(broadcast);
                by_uid.note(broadcast);
            }
            Change::Deleted(broadcast) => by_uid.forget(broadcast),
            Change::Unreadable(_) | Change::Synced => {}
        }
        sink.store_change(&change);
        changed.send_modify(bump);
        if let Change::Applied(broadcast) | Change::Deleted(broadcast) = change {
            // Before everything is known, each Broadcast comes by itself anyway.
            let relatives = if is_synced { relatives(&broadcast, &sink.store) } else { Vec::new() };
            for changed in relatives.into_iter().chain([ObjectRef::from_obj(broadcast.as_ref())]) {
                let _ = triggers.send(changed);
            }
        }
    }
}

async fn feed_channels(
    mut changes: mpsc::Receiver<Change<BroadcastChannel>>,
    mut sink: Sink<BroadcastChannel>,
    broadcasts: &Store<Broadcast>,
    triggers: &mpsc::UnboundedSender<ObjectRef<Broadcast>>,
    changed: &signal::Sender<u64>,
) {
    let mut is_synced = false;
    sink.writer.apply_watcher_event(&Event::Init);
    while let Some(change) = changes.recv().await {
        is_synced |= matches!(change, Change::Synced);
        sink.store_change(&change);
        changed.send_modify(bump);
        if let Change::Applied(channel) | Change::Deleted(channel) = change
            && is_synced
        {
            for broadcast in broadcasts.state() {
                if broadcast.namespace() == channel.namespace()
                    && uses_channel(&broadcast, &channel.name_any())
                {
                    let _ = triggers.send(ObjectRef::from_obj(broadcast.as_ref()));
                }
            }
        }
    }
}

async fn feed_pages(
    mut changes: mpsc::Receiver<Change<BroadcastBatch>>,
    pages: &PageIndex,
    triggers: &mpsc::UnboundedSender<ObjectRef<Broadcast>>,
    changed: &signal::Sender<u64>,
) {
    let mut is_synced = false;
    while let Some(change) = changes.recv().await {
        match &change {
            Change::Applied(batch) => pages.show(batch),
            Change::Deleted(batch) => pages.forget(batch),
            Change::Unreadable(batch) => pages.lose(batch),
            Change::Synced => {
                is_synced = true;
                pages.mark_synced();
            }
        }
        if let Change::Applied(batch) | Change::Deleted(batch) | Change::Unreadable(batch) = &change
            && is_synced
        {
            let _ = triggers.send(owner_of(batch));
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
            // It stays what it was. A spec that is not known is no reason to forget a Broadcast and its claims, and before each
            // send after a claim the object is read anew.
            Change::Unreadable(_) => {}
            Change::Synced => {
                // InitDone puts what came as InitApply in the place of everything else.
                for object in self.store.state() {
                    self.writer.apply_watcher_event(&Event::InitApply(object.as_ref().clone()));
                }
                self.writer.apply_watcher_event(&Event::InitDone);
            }
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
