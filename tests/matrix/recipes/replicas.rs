//! D1, D2, D3: more than one operator, and leases that do not do what they should.

use std::sync::Arc;

use broadcast_operator::api::{BroadcastChannel, OutcomeName};
use broadcast_operator::clock;
use serde_json::json;

use super::gateway::recorded;
use super::{CHATS, script};
use crate::cases::Case;
use crate::common::stage::{broadcast, chat_id, counts, is_complete};
use crate::gateway_line::Moment;
use crate::invariants;
use crate::observer::Seen;
use crate::play::{AFTER_CHAT, Reference, SALE, disturbed, finish, is_over};
use crate::process::SHORT;
use crate::scene::{CHANNEL, Failure, Scene, Sharing};
use crate::tap::{Fault, Gate, LATE, Planned, Point};

/// Two operators, each of which believes that it leads and holds the channel. Each write of either of them is held, before or
/// after it is done, until the other one has gone on.
pub fn strangers(reference: &Arc<Reference>, _: bool) -> Vec<Case> {
    let mut points: Vec<Point> = points(reference);
    // Together they write once more than one alone: what was taken for the claim of a dead process is mended.
    let last = points.iter().rfind(|point| point.name.contains("broadcastbatches-status")).cloned();
    points.extend(last.map(|point| Point { occurrence: point.occurrence + 1, ..point }));
    let cases = points.into_iter().flat_map(|point| {
        [("before", false), ("after", true)].map(|(tag, is_after)| {
            let name = reference.case("D1", &format!("{point}/{tag}"));
            let point = point.clone();
            let run = script(move |scene| {
                let point = point.clone();
                Box::pin(async move { two_strangers(scene, &point, is_after).await })
            });
            Case { name, meets: 1, run }
        })
    });
    let cases = cases.chain(super::races::late_claims(reference));
    cases.chain(super::audiences::both_lead(reference)).collect()
}

/// Writes of Broadcasts and pages.
fn points(reference: &Reference) -> Vec<Point> {
    let is_wanted = |kind: &str| matches!(kind, "broadcasts" | "broadcastbatches");
    reference.writes().filter(|write| is_wanted(&write.kind)).map(|write| write.point.clone()).collect()
}

async fn two_strangers(scene: &mut Scene, point: &Point, is_after: bool) -> Result<(), Failure> {
    let gate = Gate::new();
    let fault = if is_after { Fault::HoldAfter(gate.clone()) } else { Fault::HoldBefore(gate.clone()) };
    scene.tap.plan(vec![Planned::at(point, fault)]);
    (scene.sharing, scene.replicas) = (Sharing::Strangers, 2);
    // Each takes the other's open claims for those of the dead, until their answers are recorded.
    scene.doubtful.extend((0..CHATS).map(chat_id).chain([AFTER_CHAT.to_owned()]));
    scene.replace_the_dead().await?;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    scene.reach(&gate, |seen| is_over(seen, &[SALE])).await?;
    let done = |seen: &Seen| seen.broadcasts.get(SALE).is_some_and(is_complete);
    // The other one goes on as far as it can.
    tokio::select! {
        done = scene.until("sale is complete", done) => done?,
        () = clock::wait(LATE) => {}
    }
    invariants::check(scene, "while one is held up").await?;
    gate.open();
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    finish(scene, None).await
}

/// The holder stands still at each write, until another replica has brought the Broadcast to its end. Then it goes on.
pub fn frozen(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let cases = points(reference).into_iter().flat_map(|point| {
        [("before", false), ("after", true)].map(|(tag, is_after)| {
            let name = reference.case("D2", &format!("{point}/{tag}"));
            let point = point.clone();
            let run = script(move |scene| {
                let point = point.clone();
                Box::pin(async move { freeze(scene, &point, is_after).await })
            });
            Case { name, meets: 1, run }
        })
    });
    let cases = cases.chain(in_flight(reference, is_whole));
    let cases = cases.chain([super::audiences::deposed(reference)]);
    let cases = cases.chain(super::thefts::blind(reference)).chain(super::pauses::unseen(reference));
    cases.chain(super::takeovers::by_sleep_and_sight(reference)).collect()
}

async fn freeze(scene: &mut Scene, point: &Point, is_after: bool) -> Result<(), Failure> {
    let gate = Gate::new();
    let fault = if is_after { Fault::FreezeAfter(gate.clone()) } else { Fault::FreezeBefore(gate.clone()) };
    scene.tap.plan(vec![Planned::at(point, fault)]);
    (scene.sharing, scene.lease_times) = (Sharing::Replicas, SHORT);
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    // Whoever fails from here on must not leave a thread that stands still for ever.
    let thaw = Thaw(gate.clone());
    scene.reach(&gate, |seen| is_over(seen, &[SALE])).await?;
    another_goes_on(scene, thaw).await?;
    // What it had sent it still records, over what the other one took for Unknown.
    let (ledger, sale) = (scene.gateway.ledger(), format!("{}/{SALE}", scene.namespace));
    let is_told = move |seen: &Seen| {
        let status = seen.broadcasts.get(SALE).and_then(|broadcast| broadcast.status.as_ref());
        let mut outcomes = status.iter().flat_map(|status| &status.outcomes);
        is_over(seen, &[SALE])
            && outcomes.all(|it| it.outcome != OutcomeName::Unknown || ledger.accepted(&sale, &it.chat) == 0)
    };
    scene.until("nothing is claimed, and what arrived is known", is_told).await?;
    finish(scene, None).await
}

/// The first operator stands still. Another one brings the Broadcast to its end, and then the first one goes on.
async fn another_goes_on(scene: &mut Scene, thaw: Thaw) -> Result<(), Failure> {
    // What it had claimed is as good as a dead one's to the other.
    scene.dead.push(0);
    scene.replicas = 2;
    let done = |seen: &Seen| seen.broadcasts.get(SALE).is_some_and(is_complete);
    scene.until("another replica brings it to its end", done).await?;
    invariants::check(scene, "while one stands still").await?;
    let asked = scene.tap.log().iter().filter(|logged| logged.process == 0).count();
    drop(thaw);
    let tap = scene.tap.clone();
    let has_woken = move |_: &Seen, tap: &crate::tap::Tap| {
        let log = tap.log();
        let mut of_it = log.iter().filter(|logged| logged.process == 0).skip(asked);
        of_it.any(|logged| logged.point.name.contains("leases-replica") && logged.status.is_some())
    };
    scene.until_with("it is with the others again", has_woken, &tap).await
}

/// The holder stands still with a request in flight, and more of its claim unsent.
fn in_flight(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    type Still = fn(Gate) -> Moment;
    let moments: [(&str, Still); 2] =
        [("in-flight", Moment::StandStill), ("in-flight-and-late", Moment::StandStillAndLate)];
    let cases = (0..CHATS).flat_map(|request| {
        moments.iter().enumerate().filter(move |(number, _)| is_whole || *number == request).map(
            move |(_, (tag, moment))| {
                let (name, moment) = (reference.case("D2", &format!("send#{request}/{tag}")), *moment);
                let run = script(move |scene| {
                    Box::pin(async move { freeze_in_flight(scene, request, moment).await })
                });
                Case { name, meets: 1, run }
            },
        )
    });
    cases.collect()
}

async fn freeze_in_flight(
    scene: &mut Scene,
    request: usize,
    moment: fn(Gate) -> Moment,
) -> Result<(), Failure> {
    let gate = Gate::new();
    scene.line.plan(request, moment(gate.clone()));
    let thaw = Thaw(gate.clone());
    (scene.sharing, scene.lease_times) = (Sharing::Replicas, SHORT);
    // One after the other, so that the rest of the claim has not left; and nothing is a time-out.
    let one = json!({"limits": {"maxInFlight": 1}, "http": {"timeoutSeconds": 60}});
    scene.patch::<BroadcastChannel>(CHANNEL, super::spec(one)).await?;
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    scene.reach(&gate, |seen| is_over(seen, &[SALE])).await?;
    another_goes_on(scene, thaw).await?;
    // What has left arrives and is recorded, and nothing else leaves.
    let known = |seen: &Seen| {
        let sent = seen.broadcasts.get(SALE).map(counts).unwrap_or_default().sent;
        is_over(seen, &[SALE]) && usize::try_from(sent) == Ok(request + 1)
    };
    scene.until("what was in flight is recorded", known).await?;
    recorded(scene, |chat| if chat <= request { OutcomeName::Sent } else { OutcomeName::Unknown }).await?;
    finish(scene, None).await?;
    match scene.requests_of(SALE) {
        requests if requests == request + 1 => Ok(()),
        requests => Err(format!("{requests} requests, and {} had left before it stood still", request + 1)),
    }
}

/// Opens its gate in the end.
struct Thaw(Gate);

impl Drop for Thaw {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Each write of a lease fails, once, and for longer than the lease lasts.
pub fn lease_writes(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let writes =
        ["POST-leases-replica", "POST-leases-leader", "POST-leases-channel-sms", "PUT-leases-replica"];
    let faults = [
        ("409", Fault::Answer(409)),
        ("500", Fault::Answer(500)),
        ("unsent", Fault::Unsent),
        ("never", Fault::LandsThenNothing),
    ];
    let mut cases = Vec::new();
    for write in writes {
        for (tag, fault) in &faults {
            // The keeper waits for each answer as long as for any; the heart does not.
            let is_slow =
                !write.ends_with("replica") && matches!(fault, Fault::Unsent | Fault::LandsThenNothing);
            for (often, times) in [("once", 1), ("often", if is_slow { 2 } else { 8 })] {
                if !is_whole && (often == "once") == matches!(fault, Fault::Unsent | Fault::LandsThenNothing)
                {
                    continue;
                }
                let name = reference.case("D3", &format!("{write}#0/{tag}/{often}"));
                let point = Point { name: write.to_owned(), occurrence: 0 };
                let plan = vec![Planned::from(&point, times, fault.clone())];
                let reference = reference.clone();
                let run = script(move |scene| {
                    let (reference, plan) = (reference.clone(), plan.clone());
                    Box::pin(async move {
                        scene.lease_times = SHORT;
                        disturbed(scene, &reference, plan).await?;
                        // Nobody else is there to take its claims for orphans, so there is no doubt about any chat.
                        each_got_it_once(scene)
                    })
                });
                cases.push(Case { name, meets: 1, run });
            }
        }
    }
    cases.extend(super::takeovers::hindered(reference, is_whole));
    cases
}

/// Checks that each chat of sale got its message by one request. What is recorded of it has been held against the reference.
fn each_got_it_once(scene: &Scene) -> Result<(), Failure> {
    let (ledger, sale) = (scene.gateway.ledger(), format!("{}/{SALE}", scene.namespace));
    let other = (0..CHATS).map(chat_id).find(|chat| ledger.accepted(&sale, chat) != 1);
    match (other, scene.requests_of(SALE)) {
        (None, CHATS) => Ok(()),
        (None, requests) => Err(format!("{requests} requests for {CHATS} chats")),
        (Some(chat), _) => Err(format!("{chat} got it {} times, not once", ledger.accepted(&sale, &chat))),
    }
}
