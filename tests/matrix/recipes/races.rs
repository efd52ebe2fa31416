//! D1 with a restart: an operator that knows nothing of a stop claims late, while another one that knows nothing of it takes
//! the chats over. What keeps the two apart then is the page alone.

use std::sync::Arc;

use broadcast_operator::api::Broadcast;
use broadcast_operator::clock;
use serde_json::json;

use super::{CHATS, script, spec};
use crate::cases::Case;
use crate::common::stage::{broadcast, chat_id, is_complete, restart};
use crate::invariants;
use crate::observer::Seen;
use crate::play::{Reference, SALE, is_over, state_of};
use crate::scene::{Failure, Scene, Sharing};
use crate::tap::{EventFault, Fault, Gate, LATE, Planned, Point};

const PAGE: &str = "broadcastbatches-sale-00000";
const PAGE_STATUS: &str = "PUT-broadcastbatches-status-sale-00000";
const CHILD: &str = "again";

/// Where the one that takes over is when the late claim comes.
#[derive(Clone, Copy, Debug)]
enum Held {
    /// The restart is complete.
    Nowhere,
    /// It is about to read the page that it closes.
    BeforeTheRead,
    /// It has read the page, and does not know it yet: what it closes then is not what stands there.
    AfterTheRead,
    /// It is about to close the page.
    BeforeTheSeal,
    /// It has closed the page, and does not know it yet.
    AfterTheSeal,
}

pub fn late_claims(reference: &Arc<Reference>) -> Vec<Case> {
    let places = [
        ("after-the-restart", Held::Nowhere),
        ("before-the-read", Held::BeforeTheRead),
        ("after-the-read", Held::AfterTheRead),
        ("before-the-seal", Held::BeforeTheSeal),
        ("after-the-seal", Held::AfterTheSeal),
    ];
    let cases = places.map(|(tag, held)| {
        let run = script(move |scene| Box::pin(async move { late_claim(scene, held).await }));
        Case { name: reference.case("D1", &format!("late-claim/{tag}")), meets: 2, run }
    });
    cases.into()
}

async fn late_claim(scene: &mut Scene, held: Held) -> Result<(), Failure> {
    scene.sharing = Sharing::Strangers;
    scene.doubtful.extend((0..CHATS).map(chat_id));
    if matches!(held, Held::BeforeTheRead) {
        // Its requests are in flight while the other one reads.
        let slow = json!({"latencyMs": LATE.as_millis()});
        let sale = format!("{}/{SALE}", scene.namespace);
        scene.set_gateway_faults(json!([{"when": {"broadcast": sale}, "do": slow}]));
    }
    let claim = Gate::new();
    let first_claim = Point { name: PAGE_STATUS.into(), occurrence: 1 };
    let plan = vec![Planned::at(&first_claim, Fault::HoldBefore(claim.clone()))];
    scene.tap.plan(plan.clone());
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    scene.reach(&claim, |seen| is_over(seen, &[SALE])).await?;
    let seal = hear_of_nothing(scene, plan, held);
    scene.patch::<Broadcast>(SALE, spec(json!({"paused": true}))).await?;
    scene.replicas = 2;
    scene.replace_the_dead().await?;
    scene.until("the other one says that it has stopped", |seen| state_of(seen, SALE) == "Stopped").await?;
    scene.apply(&restart(CHILD, SALE, json!({}))).await?;
    let is_done = |seen: &Seen| seen.broadcasts.get(CHILD).is_some_and(is_complete);
    match &seal {
        Some(seal) => scene.reach(seal, is_done).await?,
        None => scene.until("the restart is complete", is_done).await?,
    }
    claim.open();
    // It sends what it has claimed, if it may. That it does not is seen only by waiting.
    clock::wait(LATE / 2).await;
    if let Some(seal) = seal {
        seal.open();
    }
    invariants::check(scene, "after the late claim").await?;
    scene.until("both are complete", |seen| is_over(seen, &[SALE, CHILD])).await?;
    invariants::check(scene, "at the end").await
}

/// From here on the operator that runs hears late of what happens to Broadcasts, and the next one is held where it is
/// wanted.
fn hear_of_nothing(scene: &Scene, mut plan: Vec<Planned>, held: Held) -> Option<Gate> {
    let next = |name: String| Point { occurrence: scene.tap.count(&name), name };
    let pause = next("EVENT-broadcasts-MODIFIED-sale".into());
    plan.push(Planned::at(&pause, Fault::Event(EventFault::LongDelay)));
    // Neither of them sees the late claim by a watch.
    let claim = next("EVENT-broadcastbatches-MODIFIED-sale-00000".into());
    plan.push(Planned::from(&claim, 2, Fault::Event(EventFault::LongDelay)));
    let seal = Gate::new();
    let (point, fault) = match held {
        Held::Nowhere => {
            scene.tap.plan(plan);
            return None;
        }
        Held::BeforeTheRead => (next(format!("GET-{PAGE}")), Fault::HoldBefore(seal.clone())),
        Held::AfterTheRead => (next(format!("GET-{PAGE}")), Fault::HoldAfter(seal.clone())),
        Held::BeforeTheSeal => (next(PAGE_STATUS.into()), Fault::HoldBefore(seal.clone())),
        Held::AfterTheSeal => (next(PAGE_STATUS.into()), Fault::HoldAfter(seal.clone())),
    };
    plan.push(Planned::at(&point, fault));
    scene.tap.plan(plan);
    Some(seal)
}
