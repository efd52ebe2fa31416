//! What is stored, seen from beside the operators: the newest objects of each namespace, and everything that went back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broadcast_operator::api::{
    Broadcast, BroadcastBatch, BroadcastChannel, Condition, OutcomeName as Outcome,
};
use broadcast_operator::domain::outcome::Row;
use broadcast_operator::domain::page::Page;
use broadcast_operator::simulator::{Ledger, SendQuery};
use futures::StreamExt;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::common::stage::{condition, counts};

/// One for the whole control plane.
#[derive(Clone, Default)]
pub struct Observer(Arc<Mutex<HashMap<String, Arc<View>>>>);

/// One namespace.
pub struct View {
    seen: Mutex<Seen>,
    changed: watch::Sender<()>,
}

/// The objects of a namespace.
#[derive(Default)]
pub struct Seen {
    pub broadcasts: BTreeMap<String, Broadcast>,
    pub channels: BTreeMap<String, BroadcastChannel>,
    pub pages: BTreeMap<String, BroadcastBatch>,
    /// Outcomes that were stored, by page UID: the most that was ever known of each row.
    rows: HashMap<String, Vec<Row>>,
    pub went_back: Vec<String>,
    /// What the gateway of the namespace did.
    ledger: Option<Ledger>,
    /// What was stored of a row and was not so, at any moment.
    pub untrue: Vec<String>,
    /// UIDs of the objects that were ever there, by kind.
    pub created: BTreeMap<String, BTreeSet<String>>,
    /// UIDs of those that were deleted.
    pub deleted: BTreeMap<String, BTreeSet<String>>,
}

impl Observer {
    /// Begins to watch.
    pub fn start(client: &Client) -> Self {
        let observer = Self::default();
        observer.feed::<Broadcast>(client, |seen, name, object| {
            note_completion(seen, object.as_ref());
            put(&mut seen.broadcasts, name, object);
        });
        observer.feed::<BroadcastChannel>(client, |seen, name, object| {
            put(&mut seen.channels, name, object);
        });
        observer.feed::<BroadcastBatch>(client, |seen, name, object| {
            if let Some(page) = &object {
                note_rows(seen, page);
            }
            put(&mut seen.pages, name, object);
        });
        observer
    }

    /// The view of a namespace.
    pub fn view(&self, namespace: &str) -> Arc<View> {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(View { seen: Mutex::default(), changed: watch::Sender::new(()) });
        views.entry(namespace.to_owned()).or_insert_with(new).clone()
    }

    /// Forgets a namespace.
    pub fn forget(&self, namespace: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    fn feed<K>(&self, client: &Client, take: fn(&mut Seen, String, Option<K>))
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let (observer, api) = (self.clone(), Api::<DeserializeGuard<K>>::all(client.clone()));
        tokio::spawn(async move {
            let mut events = watcher::watcher(api, watcher::Config::default()).default_backoff().boxed();
            while let Some(event) = events.next().await {
                let (object, is_there) = match event {
                    Ok(
                        Event::Apply(DeserializeGuard(Ok(object)))
                        | Event::InitApply(DeserializeGuard(Ok(object))),
                    ) => (object, true),
                    Ok(Event::Delete(DeserializeGuard(Ok(object)))) => (object, false),
                    _ => continue,
                };
                let namespace = object.namespace().unwrap_or_default();
                let known =
                    observer.0.lock().unwrap_or_else(PoisonError::into_inner).get(&namespace).cloned();
                if let Some(view) = known {
                    view.seen().count(&K::kind(&()), object.uid(), is_there);
                    take(&mut view.seen(), object.name_any(), is_there.then_some(object));
                    view.changed.send_replace(());
                }
            }
        });
    }
}

impl View {
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A signal for every change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// From here on every outcome that is stored is held against what this gateway did.
    pub fn hold_against(&self, ledger: Ledger) {
        self.seen().ledger = Some(ledger);
    }

    /// From here on outcomes may be what they were: somebody has put an old version back.
    pub fn forget_rows(&self) {
        self.seen().rows.clear();
    }
}

impl Seen {
    /// The version of an object as it was seen last.
    pub fn version(&self, kind: &str, name: &str) -> Option<u64> {
        let version = match kind {
            "Broadcast" => self.broadcasts.get(name)?.resource_version(),
            "BroadcastChannel" => self.channels.get(name)?.resource_version(),
            "BroadcastBatch" => self.pages.get(name)?.resource_version(),
            _ => None,
        };
        version?.parse().ok()
    }

    /// What is stored now, for a message.
    pub fn text(&self) -> String {
        let broadcasts = self.broadcasts.values().map(|broadcast| {
            let ready = condition(broadcast, "Ready");
            let ready = ready.map(|ready| format!("{}: {}", ready.reason, ready.message));
            format!(
                "{}: {}\n",
                broadcast.metadata.name.as_deref().unwrap_or_default(),
                ready.unwrap_or_default()
            )
        });
        let pages = self.pages.iter().map(|(name, page)| {
            let status = page.status.clone().unwrap_or_default();
            format!(
                "{name}: claim {:?}\n{}",
                status.claim,
                status.outcomes.chars().take(600).collect::<String>()
            )
        });
        let channels = self.channels.iter().map(|(name, channel)| {
            let status = channel.status.clone().unwrap_or_default();
            let ready = Condition::find(&status.conditions, "Ready").cloned();
            let ready = ready.map(|ready| ready.reason).unwrap_or_default();
            format!("channel {name}: {ready}, {} active\n", status.active_broadcasts)
        });
        let counts = self.broadcasts.values().map(|broadcast| format!("{:?}\n", counts(broadcast)));
        broadcasts.chain(counts).chain(channels).chain(pages).collect()
    }

    fn count(&mut self, kind: &str, uid: Option<String>, is_there: bool) {
        let counts = if is_there { &mut self.created } else { &mut self.deleted };
        counts.entry(kind.to_owned()).or_default().extend(uid);
    }
}

fn put<K>(objects: &mut BTreeMap<String, K>, name: String, object: Option<K>) {
    match object {
        Some(object) => drop(objects.insert(name, object)),
        None => drop(objects.remove(&name)),
    }
}

/// A Broadcast that was complete stays so.
fn note_completion(seen: &mut Seen, object: Option<&Broadcast>) {
    let completed = |broadcast: &Broadcast| {
        broadcast.status.as_ref().is_some_and(|status| status.completion_time.is_some())
    };
    let Some(now) = object else { return };
    let before = seen.broadcasts.get(&now.name_any()).filter(|before| before.uid() == now.uid());
    if before.is_some_and(completed) && !completed(now) {
        seen.went_back.push(format!("{} was complete and is not any more", now.name_any()));
    }
}

/// An outcome that was stored is never followed by a weaker one.
fn note_rows(seen: &mut Seen, page: &BroadcastBatch) {
    let Ok(content) = Page::parse(page) else { return };
    let known = seen.rows.entry(page.uid().unwrap_or_default()).or_default();
    for (number, row) in content.rows().iter().enumerate() {
        let is_new = known.get(number).is_none_or(|before| before.outcome != row.outcome);
        if is_new && let Some(ledger) = &seen.ledger {
            let chat = &content.recipients()[number].chat;
            seen.untrue.extend(untrue(ledger, page, number, chat, row.outcome));
        }
        match known.get_mut(number) {
            Some(before) if rank(row.outcome) < rank(before.outcome) => {
                let (name, was, is) = (page.name_any(), before.outcome, row.outcome);
                seen.went_back.push(format!("row {number} of {name} was {was:?} and is {is:?}"));
            }
            Some(before) => before.clone_from(row),
            None => known.push(row.clone()),
        }
    }
}

/// What is wrong with an outcome at the moment at which it is seen. The gateway is asked after it was stored, so what is recorded
/// as sent must be in its books by now, and what is recorded as not sent must never come there.
fn untrue(
    ledger: &Ledger,
    page: &BroadcastBatch,
    row: usize,
    chat: &str,
    outcome: Outcome,
) -> Option<String> {
    let says_sent = match outcome {
        Outcome::Sent | Outcome::Delivered | Outcome::Read => true,
        Outcome::Failed | Outcome::Cancelled | Outcome::Skipped => false,
        Outcome::Pending | Outcome::Unknown => return None,
    };
    let of = &page.spec.broadcast;
    let query = SendQuery {
        broadcast: Some(format!("{}/{}", page.namespace().unwrap_or_default(), of.name)),
        chat: Some(chat.to_owned()),
        token: Some(format!("{}.{}.{row}", of.uid, page.spec.index)),
        accepted: Some(true),
        ..SendQuery::default()
    };
    let was_accepted = !ledger.sends(&query).is_empty();
    let (name, was) = (page.name_any(), if was_accepted { "was" } else { "was not" });
    (says_sent != was_accepted)
        .then(|| format!("row {row} of {name} was stored as {outcome:?} when it {was} accepted"))
}

/// Order of evidence, as `docs/delivery-guarantees.md` has it.
fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Pending => 0,
        Outcome::Cancelled => 1,
        Outcome::Unknown => 2,
        Outcome::Sent => 3,
        Outcome::Failed => 4,
        Outcome::Delivered => 5,
        Outcome::Read => 6,
        Outcome::Skipped => 7,
    }
}
