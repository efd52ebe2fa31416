//! G1, G2: an object that no program can read beside good ones, and a panic.

use std::sync::Arc;

use broadcast_operator::api::{Broadcast, BroadcastBatch, BroadcastChannel};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{CHATS, script};
use crate::cases::Case;
use crate::common::stage::{broadcast, chat_id};
use crate::observer::Seen;
use crate::play::{Reference, SALE, disturbed, finish, is_over, state_of};
use crate::scene::{Failure, Scene};
use crate::tap::{Fault, Planned};

/// Name of the bad one.
const BAD: &str = "bad";

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
    cases.into()
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
    scene.patch::<BroadcastChannel>(crate::scene::CHANNEL, super::spec(json!({"paused": true}))).await?;
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
    scene.patch::<BroadcastChannel>(crate::scene::CHANNEL, super::spec(json!({"paused": false}))).await?;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    let sale_is_over = |seen: &Seen| {
        seen.broadcasts.get(SALE).is_some_and(crate::common::stage::is_complete)
            && matches!(state_of(seen, BAD).as_str(), "BatchesMissing" | "Planning")
    };
    scene.until("sale is complete, and bad is not", sale_is_over).await?;
    sent_nothing(scene)
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
