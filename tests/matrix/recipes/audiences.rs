//! D1 and D2 with a source that changes: two leaders plan the same Broadcast, each with the audience that it has read. One of
//! them is sealed, whole, and nothing is left of the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broadcast_operator::api::{Broadcast, BroadcastBatch, BroadcastChannel};
use broadcast_operator::clock;
use broadcast_operator::domain::audience::digest;
use broadcast_operator::domain::page::Page;
use broadcast_operator::simulator::SendQuery;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::{script, spec};
use crate::cases::Case;
use crate::common::stage::{broadcast, chat_id, is_complete};
use crate::invariants;
use crate::observer::Seen;
use crate::play::{Reference, SALE};
use crate::process::SHORT;
use crate::scene::{CHANNEL, Failure, Scene, Sharing};
use crate::tap::{Fault, Gate, LATE, Logged, Planned, Tap};

/// Name of the `ConfigMap`.
const SOURCE: &str = "audience";
/// Chats of the audience that the first leader reads. The second one has a chat on another page, and fewer pages.
const FIRST: &[usize] = &[0, 1, 2];
const SECOND: &[usize] = &[1, 3];
const SEAL: &str = "PUT-broadcasts-status-sale";
/// Pages that a plan writes at the same time.
const AT_ONCE: usize = 8;

/// A request of one of them, of which it hears late, or that leaves late.
type Held = (&'static str, fn(Gate) -> Fault);

/// Where the first leader is held: it has read its audience.
const FIRST_HELD: [Held; 4] = [
    ("POST-broadcastbatches-sale-00001", Fault::HoldBefore),
    ("POST-broadcastbatches-sale-00002", Fault::HoldBefore),
    ("PUT-broadcastbatches-status-sale-00001", Fault::HoldAfter),
    (SEAL, Fault::HoldBefore),
];
/// Where the second one is held, which plans over the pages of the first, until that one has gone on.
const SECOND_HELD: [Option<Held>; 3] = [
    None,
    Some(("POST-broadcastbatches-sale-00000", Fault::HoldBefore)),
    Some(("PUT-broadcastbatches-status-sale-00001", Fault::HoldAfter)),
];

pub fn both_lead(reference: &Arc<Reference>) -> Vec<Case> {
    let pairs = FIRST_HELD.iter().flat_map(|first| SECOND_HELD.iter().map(move |second| (*first, *second)));
    let cases = pairs.map(|(first, second)| {
        let at = second.map_or("nowhere", |(name, _)| name);
        let name = reference.case("D1", &format!("two-audiences/{}/{at}", first.0));
        let run = script(move |scene| Box::pin(async move { two_leaders(scene, first, second).await }));
        Case { name, meets: 1 + usize::from(second.is_some()), run }
    });
    cases.collect()
}

pub fn deposed(reference: &Arc<Reference>) -> Case {
    let run = script(|scene| Box::pin(async move { deposed_leader(scene).await }));
    Case { name: reference.case("D2", "two-audiences/deposed"), meets: 1, run }
}

async fn two_leaders(scene: &mut Scene, first: Held, second: Option<Held>) -> Result<(), Failure> {
    scene.sharing = Sharing::Strangers;
    begin(scene, FIRST).await?;
    let (held, second_held) = (Gate::new(), Gate::new());
    let mut at = scene.tap.next_of(0, first.0);
    // The first status is that it is planning.
    at.occurrence += usize::from(first.0 == SEAL);
    let mut plan = vec![Planned::at(&at, first.1(held.clone())).of(0)];
    plan.extend(
        second
            .map(|(name, fault)| Planned::at(&scene.tap.next_of(1, name), fault(second_held.clone())).of(1)),
    );
    scene.tap.plan(plan);
    scene.start_operator().await;
    scene.reach(&held, is_sealed).await?;
    write_audience(scene, SECOND).await?;
    scene.replicas = 2;
    scene.replace_the_dead().await?;
    match second {
        Some(_) => scene.reach(&second_held, is_sealed).await?,
        None => scene.until("the second one has sealed its audience", is_sealed).await?,
    }
    let before = scene.tap.log().len();
    held.open();
    // Its plan ends with the seal or with a refusal.
    let has_ended = move |_: &Seen, tap: &Tap| {
        tap.log().iter().enumerate().any(|(number, logged)| {
            let is_new = number >= before || logged.point == at;
            let is_end = logged.point.name == SEAL || logged.status.is_some_and(|status| status >= 400);
            logged.process == 0 && is_new && is_end && logged.status.is_some()
        })
    };
    let tap = scene.tap.clone();
    scene.until_with("the first one has gone on", has_ended, &tap).await?;
    second_held.open();
    ends_with_one(scene).await?;
    // Two that know nothing of each other would send both.
    scene.replicas = 1;
    scene.processes[0].kill().await;
    every_chat_has_it_once(scene).await
}

/// A leader stands still in the middle of its plan until another one leads, and then goes on.
async fn deposed_leader(scene: &mut Scene) -> Result<(), Failure> {
    let (all, some): (Vec<usize>, Vec<usize>) = ((0..12).collect(), (0..2).collect());
    (scene.sharing, scene.lease_times) = (Sharing::Replicas, SHORT);
    begin(scene, &all).await?;
    let gate = Gate::new();
    let at = scene.tap.next_of(0, "POST-broadcastbatches-sale-00000");
    scene.tap.plan(vec![Planned::at(&at, Fault::FreezeBefore(gate.clone())).of(0)]);
    scene.start_operator().await;
    // Whoever fails from here on must not leave a thread that stands still for ever.
    let thaw = Thaw(gate.clone());
    scene.reach(&gate, is_sealed).await?;
    write_audience(scene, &some).await?;
    scene.replicas = 2;
    scene.replace_the_dead().await?;
    scene.until("another one has sealed its audience", is_sealed).await?;
    let before = scene.tap.log().len();
    drop(thaw);
    let has_woken = move |_: &Seen, tap: &Tap| {
        let log = tap.log();
        let mut of_it = log.iter().skip(before).filter(|logged| logged.process == 0);
        of_it.any(|logged| logged.point.name == "POST-leases-replica" && logged.landed())
    };
    let tap = scene.tap.clone();
    scene.until_with("it is with the others again", has_woken, &tap).await?;
    ends_with_one(scene).await?;
    let is_late = |logged: &&Logged| {
        let page = logged.point.name.strip_prefix("POST-broadcastbatches-sale-");
        let page = page.and_then(|page| page.parse::<usize>().ok());
        logged.process == 0 && page.is_some_and(|page| page >= AT_ONCE)
    };
    if let Some(late) = scene.tap.log().iter().find(is_late) {
        return Err(format!("it went on with its plan, although another one leads: {}", late.point));
    }
    every_chat_has_it_once(scene).await
}

/// Opens its gate in the end.
struct Thaw(Gate);

impl Drop for Thaw {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A Broadcast to a source with these chats, on a channel that sends nothing yet.
async fn begin(scene: &mut Scene, chats: &[usize]) -> Result<(), Failure> {
    scene.patch::<BroadcastChannel>(CHANNEL, spec(json!({"paused": true}))).await?;
    write_audience(scene, chats).await?;
    let source = json!([{"configMapRef": {"name": SOURCE, "key": "chats.csv"}}]);
    let recipients = json!({"csv": null, "from": source});
    scene.apply(&broadcast(SALE, 0, json!({"recipients": recipients, "message": {"text": "Hi"}}))).await
}

/// Writes the source. Each chat has so many parameters that a page has room for one.
async fn write_audience(scene: &Scene, chats: &[usize]) -> Result<(), Failure> {
    let names: String = (0..30).map(|number| format!(",p{number}")).collect();
    let values = format!(",{}", "x".repeat(1000)).repeat(30);
    let rows: String = chats.iter().map(|chat| format!("{}{values}\n", chat_id(*chat))).collect();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": SOURCE},
        "data": {"chats.csv": format!("chat{names}\n{rows}")},
    });
    let params = PatchParams::apply("user").force();
    let applied = scene.api::<ConfigMap>().patch(SOURCE, &params, &Patch::Apply(&map)).await;
    applied.map(drop).map_err(|error| error.to_string())
}

fn is_sealed(seen: &Seen) -> bool {
    let status = seen.broadcasts.get(SALE).and_then(|sale| sale.status.as_ref());
    status.is_some_and(|status| status.audience_digest.is_some())
}

/// Waits until the pages are those of the sealed audience and no other, as the API server has them. It was sealed once.
async fn ends_with_one(scene: &mut Scene) -> Result<(), Failure> {
    scene.until("an audience is sealed", is_sealed).await?;
    let deadline = clock::monotonic() + 5 * LATE;
    loop {
        let mut changes = scene.view.changes();
        let checked = check_pages(scene).await;
        if checked.is_ok() || clock::monotonic() >= deadline {
            return checked;
        }
        // The last page of the one that lost may have come just now, and goes again.
        tokio::select! {
            _ = changes.changed() => {}
            () = clock::wait(LATE) => {}
        }
    }
}

async fn check_pages(scene: &Scene) -> Result<(), Failure> {
    let failed = |error: kube::Error| error.to_string();
    let sale = scene.api::<Broadcast>().get(SALE).await.map_err(failed)?;
    let mut stored = scene.api::<BroadcastBatch>().list(&ListParams::default()).await.map_err(failed)?.items;
    stored.sort_by_key(|page| page.spec.index);
    let pages: Result<Vec<Page>, _> = stored.iter().map(Page::parse).collect();
    let pages = pages.map_err(|error| error.to_string())?;
    let seals = scene.log.text().matches("audience sealed").count();
    let sealed = sale.status.unwrap_or_default();
    let total = sealed.batches.map_or(0, |batches| batches.total);
    let is_whole = usize::try_from(total) == Ok(pages.len());
    if is_whole && sealed.audience_digest == Some(digest(&pages)) && seals == 1 {
        return Ok(());
    }
    let found: Vec<Vec<String>> = pages.iter().map(chats_of).collect();
    Err(format!("sealed {seals} times, and the pages are of no sealed audience: {found:?}"))
}

fn chats_of(page: &Page) -> Vec<String> {
    page.recipients().iter().map(|recipient| recipient.chat.clone()).collect()
}

/// Lets the channel send, and checks that each chat of the sealed audience gets one message, and nobody else.
async fn every_chat_has_it_once(scene: &mut Scene) -> Result<(), Failure> {
    scene.patch::<BroadcastChannel>(CHANNEL, spec(json!({"paused": false}))).await?;
    let done = |seen: &Seen| seen.broadcasts.get(SALE).is_some_and(is_complete);
    scene.until("sale is complete", done).await?;
    invariants::check(scene, "at the end").await?;
    let wanted: BTreeSet<String> = {
        let seen = scene.view.seen();
        let pages = seen.pages.values().filter_map(|page| Page::parse(page).ok());
        pages.flat_map(|page| chats_of(&page)).collect()
    };
    let mut got: BTreeMap<String, usize> = BTreeMap::new();
    for send in scene.gateway.ledger().sends(&SendQuery::default()) {
        *got.entry(send.chat.to_string()).or_default() += 1;
    }
    match got.keys().eq(wanted.iter()) && got.values().all(|times| *times == 1) {
        true => Ok(()),
        false => Err(format!("the chats are {wanted:?}, and messages were sent to {got:?}")),
    }
}
