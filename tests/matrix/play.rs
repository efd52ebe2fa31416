//! What happens in a case apart from its faults: small stories with an end. Each runs undisturbed once, for reference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broadcast_operator::api::{Broadcast, BroadcastBatch, OutcomeName as Outcome};
use broadcast_operator::clock;
use broadcast_operator::journal::JournalSettings;
use broadcast_operator::simulator::ReceiptSettings;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::common::stage::{broadcast, chat_id, counts, is_complete, restart, state};
use crate::ending::Ending;
use crate::holders;
use crate::invariants;
use crate::observer::Seen;
use crate::poster;
use crate::process::{End, Process};
use crate::scene::{CHANNEL, Env, Failure, Scene, Sharing};
use crate::tap::{LATE, Logged, Planned, Point, Tap};

/// Name of the Broadcast that all plays begin with.
pub const SALE: &str = "sale";
/// Name of the Broadcast whose end shows that the others have come to rest.
const AFTER: &str = "after";

/// Its only chat.
pub const AFTER_CHAT: &str = "15559999999";

/// Name of the Broadcast that is sent while receipts of sale come, and its chats.
const MORE: &str = "more";
const MORE_CHATS: std::ops::Range<usize> = 10..14;

/// A story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Play {
    /// A Broadcast to so many chats, to its end.
    Send(usize),
    /// The gateway refuses a chat, and a restart reaches it.
    Restart,
    /// A Broadcast is deleted after its end.
    Delete,
    /// Every message is delivered and read, and the gateway says so.
    Receipts,
    /// Receipts of one Broadcast come by way of journals while another one is sent.
    Journals,
}

impl Play {
    /// What stands between the recipe and the point in the name of a case; the smallest play has nothing there.
    pub fn tag(self) -> String {
        match self {
            Self::Send(3) => String::new(),
            Self::Send(chats) => format!("send-{chats}/"),
            Self::Restart => "restart/".into(),
            Self::Delete => "delete/".into(),
            Self::Receipts => "receipts/".into(),
            Self::Journals => "journals/".into(),
        }
    }

    /// Says with what operators are to be started.
    pub fn prepare(self, scene: &mut Scene) {
        if self == Self::Journals {
            let (fold_after, sweep_every) = (Duration::from_secs(1), Duration::from_secs(2));
            scene.journals = JournalSettings { poor_writes_per_second: 0, fold_after, sweep_every };
        }
    }

    /// Plays it: returns when it has come to its end.
    pub async fn run(self, scene: &mut Scene) -> Result<(), Failure> {
        match self {
            Self::Send(chats) => {
                scene.apply(&broadcast(SALE, chats, json!({}))).await?;
                scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await
            }
            Self::Restart => {
                refuse_one(scene, 1);
                scene.apply(&broadcast(SALE, 3, json!({}))).await?;
                scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
                scene.apply(&restart("again", SALE, json!({}))).await?;
                scene.until("the restart is complete", |seen| is_over(seen, &[SALE, "again"])).await
            }
            Self::Delete => {
                scene.apply(&broadcast(SALE, 3, json!({}))).await?;
                scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
                scene.delete::<Broadcast>(SALE).await?;
                let is_gone = |seen: &Seen| !seen.broadcasts.contains_key(SALE) && seen.pages.is_empty();
                scene.until("sale and its pages are gone", is_gone).await
            }
            Self::Receipts => {
                scene.send_receipts(&ReceiptSettings { read_percent: 100, ..ReceiptSettings::default() });
                scene.apply(&broadcast(SALE, 3, json!({}))).await?;
                scene.until("all messages of sale are read", |seen| is_read(seen, 3)).await
            }
            Self::Journals => {
                tell(scene).await?;
                all_is_told(scene).await
            }
        }
    }
}

/// Sends sale, and tells what became of its messages while another one is sent: it is answered from journals.
pub async fn tell(scene: &mut Scene) -> Result<(), Failure> {
    send_both(scene).await?;
    tell_of_sale(scene).await
}

/// Sends sale, and begins with the other one.
pub async fn send_both(scene: &mut Scene) -> Result<(), Failure> {
    scene.apply(&broadcast(SALE, 3, json!({}))).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    let mut more = broadcast(MORE, 0, json!({"pacing": {"messagesPerSecond": 4}}));
    let chats: String = MORE_CHATS.map(|chat| format!("{},Guest\n", chat_id(chat))).collect();
    more["spec"]["recipients"] = json!({"csv": format!("chat,name\n{chats}")});
    scene.apply(&more).await?;
    scene.until("the other one is under way", |seen| seen.pages.contains_key("more-00000")).await
}

/// Tells what became of the messages of sale.
pub async fn tell_of_sale(scene: &mut Scene) -> Result<(), Failure> {
    poster::post(scene, &[(0, Outcome::Delivered), (1, Outcome::Delivered)]).await?;
    poster::post(scene, &[(0, Outcome::Read), (2, Outcome::Read)]).await
}

/// Waits until what was told is in its page, and the other one is sent too.
pub async fn all_is_told(scene: &mut Scene) -> Result<(), Failure> {
    poster::taken_in(scene).await?;
    scene.until("both are complete", |seen| is_over(seen, &[SALE, MORE])).await
}

/// Whether these Broadcasts are complete, nothing is claimed, and the channel has nothing to do.
pub fn is_over(seen: &Seen, names: &[&str]) -> bool {
    let complete = names.iter().all(|name| {
        seen.broadcasts.get(*name).is_some_and(|broadcast| {
            let observed = broadcast.status.as_ref().map(|status| status.observed_generation);
            // A fault can leave a restart nobody but Unknown chats, which it does not include.
            let is_done = is_complete(broadcast) || state(broadcast) == "NobodyIncluded";
            is_done && observed == broadcast.metadata.generation
        })
    });
    complete && !is_claimed(seen) && is_at_rest(seen)
}

/// Whether any page has a claim on it.
pub fn is_claimed(seen: &Seen) -> bool {
    seen.pages.values().any(|page| page.status.as_ref().is_some_and(|status| status.claim.is_some()))
}

/// The gateway takes no message of sale to this chat.
pub fn refuse_one(scene: &Scene, chat: usize) {
    let sale = format!("{}/{SALE}", scene.namespace);
    scene.set_gateway_faults(json!([
        {"when": {"broadcast": sale, "chats": [chat_id(chat)]}, "do": {"refuse": {"code": "no"}}},
    ]));
}

/// Whether sale is over, and so many of its messages are read or Unknown for ever.
pub fn is_read(seen: &Seen, number: i32) -> bool {
    let counts = seen.broadcasts.get(SALE).map(counts).unwrap_or_default();
    is_over(seen, &[SALE]) && counts.read + counts.unknown == number
}

/// Whether the channel says that it is ready and idle.
pub fn is_at_rest(seen: &Seen) -> bool {
    let status = seen.channels.get(CHANNEL).and_then(|channel| channel.status.as_ref());
    status.is_some_and(|status| {
        let ready = broadcast_operator::api::Condition::find(&status.conditions, "Ready");
        status.active_broadcasts == 0 && ready.is_some_and(|ready| ready.reason == "Ready")
    })
}

/// Waits for receipts that were refused while a fault lasted: their gateway brings them again seconds later, and the status says so one
/// second after that.
async fn late_receipts(scene: &mut Scene) -> Result<(), Failure> {
    let ledger = scene.gateway.ledger();
    if ledger.summary().receipts.pending == 0 {
        return Ok(());
    }
    let waited = ledger.wait_until(|summary| summary.receipts.pending == 0);
    // Those of a log that is gone are never taken.
    if tokio::time::timeout(scene.patience, waited).await.is_err() {
        return Ok(());
    }
    scene
        .until("the status says what late receipts said", |seen| {
            let known = |broadcast: &Broadcast| counts(broadcast).read + counts(broadcast).delivered;
            let stored = |name: &str| {
                let own = seen.pages.values().filter(|page| page.spec.broadcast.name == name);
                let counts = own.filter_map(|page| page.status.as_ref()).map(|status| status.counts);
                counts.map(|counts| counts.read + counts.delivered).sum::<i32>()
            };
            seen.broadcasts.iter().all(|(name, broadcast)| known(broadcast) >= stored(name))
        })
        .await
}

/// I8: nothing more is written once all is over, and every channel has a holder. Another Broadcast on another channel goes from its
/// beginning to its end meanwhile; the time that it takes is that of several writes.
pub async fn check_rest(scene: &mut Scene) -> Result<(), Failure> {
    late_receipts(scene).await?;
    let before = scene.tap.log().len();
    another_goes_its_way(scene).await?;
    let written = scene.tap.log().into_iter().skip(before).filter(|logged| {
        let is_other = logged.point.name.contains(AFTER) || logged.point.name.ends_with("-other");
        logged.landed() && logged.kind.starts_with("broadcast") && !is_other
    });
    let (of_channels, written): (BTreeSet<String>, BTreeSet<String>) =
        written.map(|logged| logged.point.to_string()).partition(|name| name.contains("broadcastchannels"));
    // What a channel says follows a second later: that it is idle, and of a process that has just come, that it opens the
    // channel and then that it is ready. Who hands it over to that one says before what it knew last.
    let openings = if scene.sharing == Sharing::Replicas { 3 } else { 2 };
    let written = if of_channels.len() > openings { &written | &of_channels } else { written };
    // Two that know nothing of each other see the same a little later, and each says it once more.
    let is_told_again = scene.sharing == Sharing::Strangers && written.len() <= scene.replicas;
    // So does the status of one whose pages are gone from view, and back again.
    let is_of_sale = |name: &String| name.starts_with("PUT-broadcasts-status-");
    let is_of_the_past =
        scene.tap.has_shown_the_past() && written.len() <= 2 && written.iter().all(is_of_sale);
    let written = if is_told_again || is_of_the_past { BTreeSet::new() } else { written };
    if !written.is_empty() {
        return Err(format!("I8 settles: it wrote on after the end: {written:?}\n{}", scene.log.text()));
    }
    holders::check(scene).await
}

/// Another Broadcast goes from its beginning to its end, on another channel and to another chat than all before.
pub async fn another_goes_its_way(scene: &mut Scene) -> Result<(), Failure> {
    let number = scene.view.seen().broadcasts.keys().filter(|name| name.starts_with(AFTER)).count();
    let (name, chat) = match number {
        0 => (AFTER.to_owned(), AFTER_CHAT.to_owned()),
        more => (format!("{AFTER}-{more}"), format!("{AFTER_CHAT}{more}")),
    };
    scene.apply(&scene.channel("other", json!({}))).await?;
    let mut after = broadcast(&name, 0, json!({"channelRef": {"name": "other"}}));
    after["spec"]["recipients"] = json!({"csv": format!("chat,name\n{chat},Nobody\n")});
    scene.apply(&after).await?;
    let is_done = |seen: &Seen| seen.broadcasts.get(&name).is_some_and(is_complete);
    scene.until("another Broadcast comes to its end", is_done).await
}

/// An undisturbed run of a play.
pub struct Reference {
    pub play: Play,
    /// Every request and what it led to, in order.
    pub log: Vec<Logged>,
    /// Every watch event.
    pub events: Vec<Point>,
    /// How many requests came before each.
    pub heard: BTreeMap<Point, usize>,
    pub ending: Ending,
}

impl Reference {
    /// Plays it twice: whatever differs between the two ends differs from run to run, and would be seen as a failure later.
    /// Points that only one of them came by are no points: a case would look for them in vain.
    pub async fn record(env: &Arc<Env>, play: Play, tag: &str) -> Result<Self, Failure> {
        let tags = [format!("{tag}-1"), format!("{tag}-2")];
        let (mut first, second) =
            futures::future::try_join(Self::once(env, play, &tags[0]), Self::once(env, play, &tags[1]))
                .await?;
        second
            .ending
            .check(&first.ending, &[])
            .map_err(|error| format!("two undisturbed runs differ: {error}"))?;
        let asked: BTreeSet<&Point> = second.log.iter().map(|logged| &logged.point).collect();
        first.log.retain(|logged| asked.contains(&logged.point));
        first.events.retain(|point| second.events.contains(point));
        Ok(first)
    }

    async fn once(env: &Arc<Env>, play: Play, tag: &str) -> Result<Self, Failure> {
        let mut scene = Scene::new(env.clone(), tag).await?;
        play.prepare(&mut scene);
        scene.start_operator().await;
        play.run(&mut scene).await.map_err(|error| format!("{error}\n{}", scene.log.text()))?;
        // Renewals come with time, and are not part of the play.
        let is_renewal = |point: &Point| {
            ["PUT-leases-replica", "EVENT-leases-MODIFIED-replica"].contains(&point.name.as_str())
        };
        let (mut log, mut events) = (scene.tap.log(), scene.tap.events());
        log.retain(|logged| !is_renewal(&logged.point));
        events.retain(|(point, _)| !is_renewal(point));
        invariants::check(&scene, "at the end of the reference run").await?;
        until_all_is_seen(&mut scene).await?;
        let ending = Ending::read(&scene).await?;
        check_rest(&mut scene).await?;
        let ends = futures::future::join_all(scene.processes.iter().map(Process::stop)).await;
        match ends.iter().all(|end| *end == End::Stopped) {
            true => {
                let heard: BTreeMap<Point, usize> = events.iter().cloned().collect();
                let events = events.into_iter().map(|(point, _)| point).collect();
                Ok(Self { play, log, events, heard, ending })
            }
            false => Err(format!("it did not stop cleanly: {ends:?}")),
        }
    }

    /// Every write that landed.
    pub fn writes(&self) -> impl Iterator<Item = &Logged> {
        self.log.iter().filter(|logged| logged.landed())
    }

    /// The name of a case at a point.
    pub fn case(&self, recipe: &str, what: &str) -> String {
        format!("{recipe}/{}{what}", self.play.tag())
    }
}

/// Plays with these faults from the beginning, takes them away once the play is over or they have all come, and checks
/// everything.
pub async fn disturbed(scene: &mut Scene, reference: &Reference, plan: Vec<Planned>) -> Result<(), Failure> {
    reference.play.prepare(scene);
    scene.tap.plan(plan);
    scene.start_operator().await;
    reference.play.run(scene).await?;
    come_to_rest(scene).await?;
    finish(scene, Some(reference)).await
}

/// Waits until the observer has seen all pages as they are stored: an ending counts what it has seen.
async fn until_all_is_seen(scene: &mut Scene) -> Result<(), Failure> {
    let stored = scene.api::<BroadcastBatch>().list(&ListParams::default()).await;
    let stored = stored.map_err(|error| format!("failed to list pages: {error}"))?.items;
    let is_seen = move |seen: &Seen| {
        stored.iter().all(|page| {
            let version = page.resource_version().and_then(|version| version.parse::<u64>().ok());
            seen.version("BroadcastBatch", &page.name_any()) >= version
        })
    };
    scene.until("all pages are seen", is_seen).await
}

/// Waits until nothing that was asked has yet to be answered, and the channel is idle.
pub async fn come_to_rest(scene: &mut Scene) -> Result<(), Failure> {
    let tap = scene.tap.clone();
    let is_over = |seen: &Seen, tap: &Tap| tap.hanging() == 0 && is_at_rest(seen);
    scene.until_with("nobody waits for an answer", is_over, &tap).await
}

/// Checks I7. What a channel says of itself follows what happens, a second later.
pub async fn ends_as(scene: &mut Scene, reference: &Reference) -> Result<(), Failure> {
    let deadline = clock::monotonic() + 3 * LATE;
    loop {
        let mut changes = scene.view.changes();
        let checked = Ending::read(scene).await?.check(&reference.ending, &scene.doubtful);
        if checked.is_err() {
            // Who has just taken the channel over opens it first.
            scene.until("the channel is at rest", is_at_rest).await?;
        }
        if checked.is_ok() || clock::monotonic() >= deadline {
            return checked;
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = clock::wait(LATE) => {}
        }
    }
}

/// What is checked at the end of each case.
pub async fn finish(scene: &mut Scene, reference: Option<&Reference>) -> Result<(), Failure> {
    invariants::check(scene, "at the end").await?;
    poster::check(scene).await?;
    if let Some(reference) = reference {
        ends_as(scene, reference).await?;
    }
    scene.tap.plan(Vec::new());
    check_rest(scene).await?;
    invariants::check(scene, "after the end").await
}

/// Reason of Ready of a Broadcast.
pub fn state_of(seen: &Seen, name: &str) -> String {
    seen.broadcasts.get(name).map(state).unwrap_or_default()
}
