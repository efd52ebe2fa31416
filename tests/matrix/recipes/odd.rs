//! G1, G2: an object that no program can read beside good ones, and a panic.

use std::sync::Arc;

use broadcast_operator::api::{Broadcast, BroadcastBatch, BroadcastChannel};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{CHATS, script};
use crate::cases::Case;
use crate::common::stage::{broadcast, chat_id, condition};
use crate::invariants;
use crate::observer::Seen;
use crate::play::{Reference, SALE, disturbed, finish, is_over, state_of};
use crate::scene::{CHANNEL, Failure, Scene};
use crate::tap::{Fault, Planned};

/// Name of the bad one.
const BAD: &str = "bad";
/// Chats of a Broadcast with a second page.
const TWO_PAGES: usize = 300;

/// Every kind of object that cannot be read, and a page whose outcomes are none.
pub fn unreadable(reference: &Arc<Reference>, _: bool) -> Vec<Case> {
    let cases = ["Broadcast", "BroadcastChannel", "BroadcastBatch", "outcomes"].map(|kind| {
        let run = script(move |scene| {
            Box::pin(async move {
                match kind {
                    "Broadcast" | "BroadcastChannel" => beside(scene, kind).await,
                    "BroadcastBatch" => page(scene, true).await,
                    _ => page(scene, false).await,
                }
            })
        });
        Case { name: reference.case("G1", kind), meets: 0, run }
    });
    let under_way = script(|scene| Box::pin(async move { spoiled_under_way(scene).await }));
    let in_view = script(|scene| Box::pin(async move { spoiled_in_view(scene).await }));
    let case = |what: &str, run| Case { name: reference.case("G1", what), meets: 0, run };
    let running = [case("outcomes/running", under_way), case("BroadcastBatch/running", in_view)];
    cases.into_iter().chain(running).collect()
}

async fn beside(scene: &mut Scene, kind: &str) -> Result<(), Failure> {
    scene.tap.garble(kind, BAD);
    match kind {
        "Broadcast" => scene.apply(&bad(json!({}))).await?,
        _ => scene.apply(&scene.channel(BAD, json!({}))).await?,
    }
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    // It may come while somebody watches, and not only before.
    match kind {
        "Broadcast" => scene.patch::<Broadcast>(BAD, label()).await?,
        _ => scene.patch::<BroadcastChannel>(BAD, label()).await?,
    }
    sent_nothing(scene)?;
    finish(scene, None).await?;
    sent_nothing(scene)
}

/// A page of a Broadcast that is stopped becomes unreadable; nothing of that Broadcast is sent then, and the other one is.
async fn page(scene: &mut Scene, is_garbled: bool) -> Result<(), Failure> {
    scene.patch::<BroadcastChannel>(CHANNEL, super::spec(json!({"paused": true}))).await?;
    scene.start_operator().await;
    scene.apply(&bad(json!({}))).await?;
    scene.until("bad is sealed", |seen| state_of(seen, BAD) == "ChannelPaused").await?;
    if is_garbled {
        scene.tap.garble("BroadcastBatch", "bad-00000");
        scene.kill().await?;
    } else {
        let patch = Patch::Merge(json!({"status": {"outcomes": "nonsense"}}));
        let api = scene.api::<BroadcastBatch>();
        let patched = api.patch_status("bad-00000", &PatchParams::default(), &patch).await;
        patched.map_err(|error| format!("failed to spoil a page: {error}"))?;
        scene.kill().await?;
    }
    scene.patch::<BroadcastChannel>(CHANNEL, super::spec(json!({"paused": false}))).await?;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    let sale_is_over = |seen: &Seen| {
        seen.broadcasts.get(SALE).is_some_and(crate::common::stage::is_complete)
            && matches!(state_of(seen, BAD).as_str(), "BatchesMissing" | "Planning")
    };
    scene.until("sale is complete, and bad is not", sale_is_over).await?;
    sent_nothing(scene)
}

/// A page is spoiled while its Broadcast is being sent: nothing more of that is sent, also from the other page, until it can be read
/// again. What was in flight is recorded then.
async fn spoiled_under_way(scene: &mut Scene) -> Result<(), Failure> {
    let limits = super::spec(json!({"limits": {"messagesPerSecond": 40, "burst": 1}}));
    scene.patch::<BroadcastChannel>(CHANNEL, limits).await?;
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, TWO_PAGES, json!({}))).await?;
    let ledger = scene.gateway.ledger();
    let under_way = ledger.wait_until(|summary| summary.requests.requests >= 20);
    let under_way = tokio::time::timeout(scene.patience, under_way).await;
    under_way.map_err(|_| "it is not being sent")?;
    let was = change_outcomes(scene, |_| "nonsense".to_owned()).await?;
    let is_missing = |seen: &Seen| {
        let is_free = |page: &BroadcastBatch| page.status.as_ref().is_some_and(|page| page.claim.is_none());
        missing(seen, SALE) && seen.pages.get("sale-00000").is_some_and(is_free)
    };
    scene
        .until("its page is missed, and what was in flight of the other one is recorded", is_missing)
        .await?;
    let sent = scene.requests_of(SALE);
    if sent >= TWO_PAGES {
        return Err("everything was sent before".into());
    }
    others_go_on(scene).await?;
    if scene.requests_of(SALE) > sent {
        return Err(format!("{} requests after a page could not be read", scene.requests_of(SALE) - sent));
    }
    change_outcomes(scene, move |_| was.clone()).await?;
    scene.patch::<BroadcastChannel>(CHANNEL, super::spec(json!({"limits": null}))).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    invariants::check(scene, "at the end").await?;
    match scene.requests_of(SALE) {
        TWO_PAGES => Ok(()),
        sent => Err(format!("{sent} requests for {TWO_PAGES} chats")),
    }
}

/// A page that does not fit its schema comes by the watch. What was known of it before counts no more.
async fn spoiled_in_view(scene: &mut Scene) -> Result<(), Failure> {
    scene.patch::<BroadcastChannel>(CHANNEL, super::spec(json!({"paused": true}))).await?;
    scene.start_operator().await;
    scene.apply(&bad(json!({}))).await?;
    scene.until("bad is sealed", |seen| state_of(seen, BAD) == "ChannelPaused").await?;
    scene.tap.garble("BroadcastBatch", "bad-00000");
    scene.patch::<BroadcastBatch>("bad-00000", label()).await?;
    scene.until("its page is missed", |seen| missing(seen, BAD)).await?;
    scene.patch::<BroadcastChannel>(CHANNEL, super::spec(json!({"paused": false}))).await?;
    others_go_on(scene).await?;
    sent_nothing(scene)?;
    scene.tap.mend();
    scene.patch::<BroadcastBatch>("bad-00000", json!({"metadata": {"labels": {"seen": "again"}}})).await?;
    scene.until("bad is complete", |seen| is_over(seen, &[BAD])).await?;
    invariants::check(scene, "at the end").await?;
    match scene.requests_of(BAD) {
        1 => Ok(()),
        number => Err(format!("{number} requests for one chat")),
    }
}

/// Whether a Broadcast waits for a page. After half a minute that is a hold.
pub(super) fn missing(seen: &Seen, name: &str) -> bool {
    let message = seen.broadcasts.get(name).and_then(|it| condition(it, "Ready")).map(|ready| ready.message);
    match state_of(seen, name).as_str() {
        "BatchesMissing" => true,
        "Planning" => message.is_some_and(|message| message.contains("all batches of the log are in view")),
        _ => false,
    }
}

/// Changes the outcomes of the second page of sale, in the version in which they were read. Out: what they were.
async fn change_outcomes(scene: &Scene, change: impl Fn(&str) -> String) -> Result<String, Failure> {
    let api = scene.api::<BroadcastBatch>();
    loop {
        let mut page = api.get("sale-00001").await.map_err(|error| error.to_string())?;
        let status = page.status.as_mut().ok_or("it has no status")?;
        let next = change(&status.outcomes);
        let was = std::mem::replace(&mut status.outcomes, next);
        match api.replace_status("sale-00001", &PostParams::default(), &page).await {
            Ok(_) => return Ok(was),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(format!("failed to change a page: {error}")),
        }
    }
}

/// Another Broadcast on another channel goes from its beginning to its end, which takes several writes.
async fn others_go_on(scene: &mut Scene) -> Result<(), Failure> {
    scene.apply(&scene.channel("free", json!({}))).await?;
    let mut free = broadcast("free", 0, json!({"channelRef": {"name": "free"}}));
    free["spec"]["recipients"] = json!({"csv": "chat,name\n15557777777,Nobody\n"});
    scene.apply(&free).await?;
    let is_done = |seen: &Seen| seen.broadcasts.get("free").is_some_and(crate::common::stage::is_complete);
    scene.until("another Broadcast comes to its end", is_done).await
}

/// A Broadcast to chats of its own.
fn bad(spec: Value) -> Value {
    let mut manifest = broadcast(BAD, 0, spec);
    manifest["spec"]["recipients"] = json!({"csv": "chat,name\n15558888888,Nobody\n"});
    manifest
}

fn label() -> Value {
    json!({"metadata": {"labels": {"seen": "yes"}}})
}

fn sent_nothing(scene: &Scene) -> Result<(), Failure> {
    match scene.requests_of(BAD) {
        0 => Ok(()),
        number => Err(format!("{number} requests for a Broadcast that cannot be read")),
    }
}

/// The task that makes a write panics: of a reconcile, of the dispatcher, of the receipts server, of the leases.
pub fn panics(reference: &Arc<Reference>, _: bool) -> Vec<Case> {
    let cases = reference.writes().map(|write| {
        let name = reference.case("G2", &write.point.to_string());
        let (reference, plan) = (reference.clone(), vec![Planned::at(&write.point, Fault::Panic)]);
        let run = script(move |scene| {
            let (reference, plan) = (reference.clone(), plan.clone());
            Box::pin(async move {
                scene.may_fail = true;
                scene.doubtful.extend((0..CHATS).map(chat_id));
                disturbed(scene, &reference, plan).await
            })
        });
        Case { name, meets: 1, run }
    });
    cases.collect()
}
