//! D2 with a stop that one replica does not see: the leader says that all has stopped, and another one is the sender. And
//! what the sender alone has seen is shown to a person all the same.

use std::sync::Arc;

use broadcast_operator::api::{Broadcast, BroadcastBatch, BroadcastChannel, StopReason, StopStatus};
use broadcast_operator::domain::ids::{BroadcastUid, ObjectKey};
use broadcast_operator::domain::page::Page;
use broadcast_operator::stops;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::json;

use super::thefts::{SECOND, holds, landed};
use super::{script, spec};
use crate::cases::Case;
use crate::common::stage::{broadcast, counts, is_complete};
use crate::invariants;
use crate::observer::Seen;
use crate::play::{Reference, SALE, check_rest, state_of};
use crate::scene::{Failure, Scene, Sharing};
use crate::tap::{EventFault, Fault, Gate, Planned, Tap};

/// Enough for several seconds of sending.
const MANY: usize = 100;
/// Its page, and the name of it in points.
const PAGE: &str = "sale-00000";
const LEADER: usize = 0;
const SENDER: usize = 1;

pub fn unseen(reference: &Arc<Reference>) -> Vec<Case> {
    let late = script(|scene| Box::pin(async move { the_sender_sees_no_stop(scene).await }));
    let claimed = script(|scene| Box::pin(async move { the_leader_sees_no_claim(scene).await }));
    let brake = script(|scene| Box::pin(async move { the_sender_sees_no_brake(scene).await }));
    let status = script(|scene| Box::pin(async move { the_sender_sees_no_status(scene).await }));
    let case = |what: &str, run, meets| Case { name: reference.case("D2", what), meets, run };
    vec![
        case("unseen/stop", late, 1),
        case("unseen/brake", brake, 1),
        case("unseen/status", status, 1),
        case("unseen/stop-and-claim", claimed, 3),
    ]
}

pub fn put_back(reference: &Arc<Reference>) -> Case {
    let run = script(|scene| Box::pin(async move { only_the_sender_saw_more(scene).await }));
    Case { name: reference.case("B3", "older-page/seen-by-the-sender-alone"), meets: 1, run }
}

/// Lets the sender send until some requests have come, and see nothing of this kind from then on, until the gate opens.
async fn sending_blind(scene: &mut Scene, event: &str) -> Result<Gate, Failure> {
    apart(scene, json!({"limits": {"messagesPerSecond": 20}})).await?;
    scene.apply(&broadcast(SALE, MANY, json!({"channelRef": {"name": SECOND}}))).await?;
    let tap = scene.tap.clone();
    requests(scene, 5).await?;
    let sight = Gate::new();
    scene.tap.plan(vec![from_now_on(&tap, SENDER, event, &sight)]);
    Ok(sight)
}

/// The sender goes on claiming, and gives back each claim.
async fn the_sender_sees_no_stop(scene: &mut Scene) -> Result<(), Failure> {
    let sight = sending_blind(scene, "EVENT-broadcasts-MODIFIED-sale").await?;
    scene.patch::<Broadcast>(SALE, spec(json!({"paused": true}))).await?;
    stopped_for_good(scene).await?;
    sight.open();
    go_on(scene).await
}

/// The same with the brake of the channel.
async fn the_sender_sees_no_brake(scene: &mut Scene) -> Result<(), Failure> {
    let sight = sending_blind(scene, &format!("EVENT-broadcastchannels-MODIFIED-{SECOND}")).await?;
    scene.patch::<BroadcastChannel>(SECOND, spec(json!({"paused": true}))).await?;
    said_for_good(scene, "ChannelPaused").await?;
    sight.open();
    scene.patch::<BroadcastChannel>(SECOND, spec(json!({"paused": false}))).await?;
    at_its_end(scene).await
}

/// The same with what a receipt stops on another replica, which changes no spec.
async fn the_sender_sees_no_status(scene: &mut Scene) -> Result<(), Failure> {
    let sight = sending_blind(scene, "EVENT-broadcasts-MODIFIED-sale").await?;
    let api = scene.api::<Broadcast>();
    let sale = api.get(SALE).await.map_err(|error| error.to_string())?;
    let stop = StopStatus {
        reason: StopReason::ErrorPolicy,
        code: "1".into(),
        message: String::new(),
        observed_generation: sale.metadata.generation.unwrap_or_default(),
    };
    let (key, uid) =
        (ObjectKey::new(&scene.namespace, SALE), BroadcastUid::new(sale.uid().unwrap_or_default()));
    let is_stored = stops::stop_broadcast(&api.into_client(), &key, &uid, &stop, None).await;
    if !is_stored.map_err(|error| error.to_string())? {
        return Err("the stop was not stored".into());
    }
    said_for_good(scene, "StoppedByErrorPolicy").await?;
    sight.open();
    scene.patch::<Broadcast>(SALE, spec(json!({"paused": true}))).await?;
    scene.until("the stop is settled", |seen| state_of(seen, SALE) == "Stopped").await?;
    go_on(scene).await
}

/// The leader does not see by its watch that something is claimed, and the sender does not see the stop.
async fn the_leader_sees_no_claim(scene: &mut Scene) -> Result<(), Failure> {
    apart(scene, json!({"limits": {"messagesPerSecond": 20}})).await?;
    let (pages, sight, look) = (Gate::new(), Gate::new(), Gate::new());
    let tap = scene.tap.clone();
    let mut plan =
        vec![from_now_on(&tap, LEADER, &format!("EVENT-broadcastbatches-MODIFIED-{PAGE}"), &pages)];
    scene.tap.plan(plan.clone());
    scene.apply(&broadcast(SALE, MANY, json!({"channelRef": {"name": SECOND}}))).await?;
    // The leader has written what it knows by then, so the sender has seen the Broadcast as it is.
    requests(scene, 30).await?;
    // It has seen that nothing is stopped, and does not know it yet.
    let last_look = tap.next_of(SENDER, "GET-broadcasts-sale");
    plan.push(Planned::at(&last_look, Fault::HoldAfter(look.clone())).of(SENDER));
    scene.tap.plan(plan.clone());
    scene.reach(&look, |_| false).await?;
    plan.push(from_now_on(&tap, SENDER, "EVENT-broadcasts-MODIFIED-sale", &sight));
    scene.tap.plan(plan);
    scene.patch::<Broadcast>(SALE, spec(json!({"paused": true}))).await?;
    let is_seen = |seen: &Seen| ["Stopping", "Stopped"].contains(&state_of(seen, SALE).as_str());
    scene.until("the leader has seen the stop", is_seen).await?;
    let said = state_of(&scene.view.seen(), SALE);
    let before = scene.line.arrivals().len();
    look.open();
    requests(scene, before + 1).await?;
    if said == "Stopped" {
        return Err("a request came after it was said that all has stopped".into());
    }
    pages.open();
    stopped_for_good(scene).await?;
    sight.open();
    go_on(scene).await
}

/// The page is put back, and the leader has seen nothing of it before: its counts are no further than what stands there.
async fn only_the_sender_saw_more(scene: &mut Scene) -> Result<(), Failure> {
    apart(scene, json!({"limits": {"messagesPerSecond": 10}})).await?;
    let pages = Gate::new();
    let tap = scene.tap.clone();
    let of_page = format!("EVENT-broadcastbatches-MODIFIED-{PAGE}");
    scene.tap.plan(vec![from_now_on(&tap, LEADER, &of_page, &pages)]);
    scene.apply(&broadcast(SALE, MANY, json!({"channelRef": {"name": SECOND}}))).await?;
    let is_recorded = |seen: &Seen| {
        let page = seen.pages.get(PAGE).and_then(|page| page.status.as_ref());
        page.is_some_and(|page| page.counts.sent > 5) && active(seen) == Some(1)
    };
    scene.until("something is recorded", is_recorded).await?;
    scene.view.forget_rows();
    let api = scene.api::<BroadcastBatch>();
    loop {
        let mut page = api.get(PAGE).await.map_err(|error| error.to_string())?;
        let recipients = Page::parse(&page).map_err(|error| error.to_string())?.recipients().to_vec();
        page.status = Some(Page::planned(recipients).status());
        match api.replace_status(PAGE, &PostParams::default(), &page).await {
            Ok(_) => break,
            // The sender was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(format!("failed to put it back: {error}")),
        }
    }
    pages.open();
    scene.until("it is held", |seen| state_of(seen, SALE) == "BatchesWentBack").await?;
    scene.until("what was on its way is recorded", |seen| active(seen) == Some(0)).await?;
    let before = scene.requests_of(SALE);
    check_rest(scene).await?;
    match (scene.requests_of(SALE), state_of(&scene.view.seen(), SALE).as_str()) {
        (after, "BatchesWentBack") if after == before => Ok(()),
        (after, state) => {
            Err(format!("{before} requests before it was held, then {after}, and it is {state}"))
        }
    }
}

/// How many Broadcasts the second channel says that it works on.
fn active(seen: &Seen) -> Option<i32> {
    let status = seen.channels.get(SECOND).and_then(|channel| channel.status.as_ref());
    status.map(|status| status.active_broadcasts)
}

/// Starts two operators: one leads, and the other one sends for a channel with these fields.
async fn apart(scene: &mut Scene, channel: serde_json::Value) -> Result<(), Failure> {
    scene.sharing = Sharing::Replicas;
    scene.start_operator().await;
    holds(scene, LEADER, crate::scene::CHANNEL).await?;
    scene.replicas = 2;
    scene.replace_the_dead().await?;
    landed(scene, SENDER, "POST-leases-replica").await?;
    // Who has nothing gets what comes, also if the leader does not know of it yet.
    let taking = Gate::new();
    let own_try = scene.tap.next_of(LEADER, &format!("POST-leases-channel-{SECOND}"));
    scene.tap.plan(vec![Planned::at(&own_try, Fault::HoldBefore(taking.clone())).of(LEADER)]);
    scene.apply(&scene.channel(SECOND, channel)).await?;
    let held = holds(scene, SENDER, SECOND).await;
    taking.open();
    held
}

/// A process sees nothing of this kind from the next such event on, until the gate opens.
fn from_now_on(tap: &Tap, process: usize, event: &str, gate: &Gate) -> Planned {
    Planned::at(&tap.next_of(process, event), Fault::Event(EventFault::Held(gate.clone()))).of(process)
}

/// Waits until so many requests have come to the gateway.
async fn requests(scene: &mut Scene, number: usize) -> Result<(), Failure> {
    let (tap, arrived) = (scene.tap.clone(), scene.line.counter());
    scene.until_with("requests come", move |_, _| arrived() >= number, &tap).await
}

/// Waits until it is said that all has stopped, and until the sender, which does not know, has tried twice to go on.
async fn stopped_for_good(scene: &mut Scene) -> Result<(), Failure> {
    said_for_good(scene, "Stopped").await
}

/// The same, said in this way and with nothing in flight.
async fn said_for_good(scene: &mut Scene, said: &'static str) -> Result<(), Failure> {
    let is_said = move |seen: &Seen| {
        let sending = seen.broadcasts.get(SALE).map(counts).map(|counts| counts.sending);
        state_of(seen, SALE) == said && sending == Some(0)
    };
    scene.until("it has stopped", is_said).await?;
    let before = scene.line.arrivals().len();
    let claims = |tap: &Tap| tap.claims().iter().filter(|claim| claim.landed.is_some()).count();
    let (tap, known) = (scene.tap.clone(), claims(&scene.tap));
    let tries = move |_: &Seen, tap: &Tap| claims(tap) >= known + 2;
    scene.until_with("the sender claims all the same", tries, &tap).await?;
    scene.until("what it claimed is given back", is_said).await?;
    match scene.line.arrivals().len() {
        after if after == before => Ok(()),
        after => Err(format!("{} requests came after it was said that all has stopped", after - before)),
    }
}

/// Lets it go on to its end. Every chat has the message once.
async fn go_on(scene: &mut Scene) -> Result<(), Failure> {
    scene.patch::<Broadcast>(SALE, spec(json!({"paused": false}))).await?;
    at_its_end(scene).await
}

async fn at_its_end(scene: &mut Scene) -> Result<(), Failure> {
    let done = |seen: &Seen| seen.broadcasts.get(SALE).is_some_and(is_complete);
    scene.until("it is complete", done).await?;
    invariants::check(scene, "at the end").await?;
    let sent = scene.view.seen().broadcasts.get(SALE).map(counts).unwrap_or_default().sent;
    match (usize::try_from(sent), scene.requests_of(SALE)) {
        (Ok(MANY), MANY) => Ok(()),
        (_, requests) => Err(format!("{sent} of {MANY} are sent, with {requests} requests")),
    }
}
