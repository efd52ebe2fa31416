//! D2, D3: one replica takes over from another, or must not, whatever becomes of its own writes.

use std::sync::Arc;
use std::time::Duration;

use broadcast_operator::clock;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use super::thefts::{GIVE_UP, HEARTBEAT, SECOND, holds, landed};
use super::{CHATS, script};
use crate::cases::Case;
use crate::common::stage::{broadcast, chat_id, counts};
use crate::observer::Seen;
use crate::play::{Reference, SALE, finish, is_at_rest, is_over};
use crate::process::{End, LONG, SHORT};
use crate::scene::{CHANNEL, Failure, Scene, Sharing};
use crate::tap::{EventFault, Fault, Planned, Point, Tap};

const RENEWAL: &str = "PUT-leases-replica";
const FAREWELL: &str = "DELETE-leases-replica";
/// Renewals that fail in an outage: twice as long as a lease lasts.
const OUTAGE: usize = 12;
/// How long a channel is not handed over because of results that nobody stores, and some more.
const UNRECORDED: Duration = Duration::from_secs(60);
/// The page of the Broadcast: first it is planned, then claimed.
const RESULTS: &str = "PUT-broadcastbatches-status-sale-00000";
const BEFORE_RESULTS: usize = 2;
/// Renewals of a process that may fail from its last one on until it gives itself up, when something else writes into its lease
/// all the time: three tries in each round, and as many rounds as the lease duration has, with one at its beginning and one at its end.
const CONTESTED: usize = 3 * (3000 / 500 + 2);
/// What a process takes to find out that its watch is broken, and then to bear no more of it.
const BLIND: Duration = Duration::from_secs(60);

/// D3: each write of a take-over fails, once, and often. And nobody takes over in an outage.
pub fn hindered(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let writes = [GIVE_UP, "PUT-leases-channel-sms", "PUT-leases-leader"];
    let faults = [
        ("409", Fault::Answer(409), 8),
        ("500", Fault::Answer(500), 8),
        ("504", Fault::LandsThenTimeout, 1),
        ("reset", Fault::LandsThenReset, 1),
        ("unsent", Fault::Unsent, 2),
        ("never", Fault::LandsThenNothing, 1),
    ];
    let mut cases = Vec::new();
    for write in writes {
        for (tag, fault, often) in &faults {
            for (times, word) in [(1, "once"), (*often, "often")] {
                if (*often == 1 && word == "often") || (!is_whole && word == "once" && *often == 8) {
                    continue;
                }
                let name = reference.case("D3", &format!("take-over/{write}/{tag}/{word}"));
                let (fault, reference) = (fault.clone(), reference.clone());
                let run = script(move |scene| {
                    let (fault, reference) = (fault.clone(), reference.clone());
                    Box::pin(async move { take_over(scene, &reference, write, times, fault).await })
                });
                cases.push(Case { name, meets: times, run });
            }
        }
    }
    let contested = {
        let reference = reference.clone();
        script(move |scene| {
            let reference = reference.clone();
            Box::pin(async move { contested(scene, &reference).await })
        })
    };
    cases.push(Case { name: reference.case("D3", "contested/gives-itself-up"), meets: 3, run: contested });
    let name = reference.case("D3", "outage/nobody-is-given-up");
    let reference = reference.clone();
    let run = script(move |scene| {
        let reference = reference.clone();
        Box::pin(async move { outage(scene, &reference).await })
    });
    cases.push(Case { name, meets: 2 * OUTAGE, run });
    cases
}

/// D2: one that slept, and one that is blind.
pub fn by_sleep_and_sight(reference: &Arc<Reference>) -> Vec<Case> {
    let slept = {
        let reference = reference.clone();
        script(move |scene| {
            let reference = reference.clone();
            Box::pin(async move { slept(scene, &reference).await })
        })
    };
    let blind = {
        let reference = reference.clone();
        script(move |scene| {
            let reference = reference.clone();
            Box::pin(async move { blind(scene, &reference).await })
        })
    };
    let unrecorded = script(|scene| Box::pin(async move { unrecorded(scene).await }));
    let later = script(|scene| Box::pin(async move { recorded_later(scene).await }));
    vec![
        Case { name: reference.case("D2", "given-up/while-it-slept"), meets: 0, run: slept },
        Case { name: reference.case("D2", "blind/hands-over"), meets: 3, run: blind },
        Case { name: reference.case("D2", "record-refused/hands-over"), meets: 1, run: unrecorded },
        Case { name: reference.case("D2", "record-refused/recorded-later"), meets: 1, run: later },
    ]
}

/// Two replicas, of which the first one leads and holds the channel.
pub(super) async fn two(scene: &mut Scene) -> Result<(), Failure> {
    scene.sharing = Sharing::Replicas;
    scene.start_operator().await;
    holds(scene, 0, CHANNEL).await?;
    landed(scene, 0, "POST-leases-leader").await?;
    scene.replicas = 2;
    scene.replace_the_dead().await?;
    landed(scene, 1, HEARTBEAT).await
}

async fn take_over(
    scene: &mut Scene,
    reference: &Reference,
    write: &str,
    times: usize,
    fault: Fault,
) -> Result<(), Failure> {
    scene.lease_times = SHORT;
    two(scene).await?;
    // It has seen the one that is to die.
    landed(scene, 1, RENEWAL).await?;
    let point = scene.tap.next_of(1, write);
    scene.tap.plan(vec![Planned::from(&point, times, fault).of(1)]);
    scene.replicas = 1;
    scene.processes[0].kill().await;
    scene.replace_the_dead().await?;
    reference.play.run(scene).await?;
    let tap = scene.tap.clone();
    let is_over = |seen: &Seen, tap: &Tap| tap.hanging() == 0 && is_at_rest(seen);
    scene.until_with("nobody waits for an answer", is_over, &tap).await?;
    finish(scene, Some(reference)).await
}

/// Something else writes into the lease of the holder all the time, so each of its renewals conflicts, and so does the mark that
/// the other one wants to leave there. Both try again in rounds, and when the lease duration is over the holder gives everything
/// up by itself.
async fn contested(scene: &mut Scene, reference: &Reference) -> Result<(), Failure> {
    scene.lease_times = SHORT;
    two(scene).await?;
    landed(scene, 1, RENEWAL).await?;
    let refused = [(0, RENEWAL), (1, GIVE_UP)].map(|(process, name)| {
        let first = scene.tap.next_of(process, name);
        Planned::from(&first, usize::MAX, Fault::Answer(409)).of(process)
    });
    scene.tap.plan(refused.into());
    landed(scene, 0, FAREWELL).await?;
    landed(scene, 1, "PUT-leases-channel-sms").await?;
    landed(scene, 1, "PUT-leases-leader").await?;
    let log = scene.tap.log();
    let until_then = log.iter().take_while(|logged| logged.process != 0 || logged.point.name != FAREWELL);
    // What was not forwarded has no answer of the API server.
    let refused =
        until_then.filter(|logged| logged.status.is_none()).map(|logged| logged.point.name.as_str());
    let (renewals, marks): (Vec<&str>, Vec<&str>) =
        refused.filter(|name| [RENEWAL, GIVE_UP].contains(name)).partition(|name| *name == RENEWAL);
    if !(3..=CONTESTED).contains(&renewals.len()) || marks.len() > CONTESTED {
        let (renewals, marks) = (renewals.len(), marks.len());
        return Err(format!("{renewals} renewals and {marks} marks were tried, and not at most {CONTESTED}"));
    }
    if !scene.log.text().contains("something else writes into the lease of this replica all the time") {
        return Err("it does not say why".into());
    }
    // It joins anew again and again, and holds up nobody.
    reference.play.run(scene).await?;
    finish(scene, Some(reference)).await
}

/// No renewal is stored for two lease durations, and everything else is: as when etcd is full, or as the race after an API
/// server is back. Both live, so neither takes anything from the other, and nothing becomes Unknown.
async fn outage(scene: &mut Scene, reference: &Reference) -> Result<(), Failure> {
    scene.lease_times = SHORT;
    two(scene).await?;
    landed(scene, 1, RENEWAL).await?;
    let renewals = [0, 1].map(|process| {
        Planned::from(&scene.tap.next_of(process, RENEWAL), OUTAGE, Fault::Answer(500)).of(process)
    });
    scene.tap.plan(renewals.into());
    let is_past = |_: &Seen, tap: &Tap| tap.met() == 2 * OUTAGE;
    let tap = scene.tap.clone();
    scene.until_with("no renewal fails any more", is_past, &tap).await?;
    reference.play.run(scene).await?;
    let takes = |name: &str| name == GIVE_UP || name == FAREWELL || name.starts_with("PUT-leases-channel");
    if let Some(theft) = scene.tap.log().iter().find(|logged| logged.landed() && takes(&logged.point.name)) {
        return Err(format!("a replica that lives was given up: {} of {}", theft.point, theft.process));
    }
    finish(scene, Some(reference)).await
}

/// Another replica marks the lease of the holder as given up, although the holder counts no time since its last renewal: its
/// machine slept. It joins again, and takes nothing of it for a restore.
async fn slept(scene: &mut Scene, reference: &Reference) -> Result<(), Failure> {
    scene.lease_times = LONG;
    two(scene).await?;
    mark_as_given_up(scene, "pod-0").await?;
    landed(scene, 1, "PUT-leases-leader").await?;
    landed(scene, 1, "PUT-leases-channel-sms").await?;
    landed(scene, 0, FAREWELL).await?;
    let joins = |logged: &&crate::tap::Logged| logged.process == 0 && logged.point.name == HEARTBEAT;
    let is_back =
        |_: &Seen, tap: &Tap| tap.log().iter().filter(joins).filter(|logged| logged.landed()).count() == 2;
    let tap = scene.tap.clone();
    scene.until_with("it has joined again", is_back, &tap).await?;
    reference.play.run(scene).await?;
    let leases = leases(scene).await?;
    let noted =
        leases.iter().find(|lease| lease.annotations().contains_key("broadcast-operator.dev/restored"));
    match noted {
        Some(lease) => Err(format!("it was taken for a restore: {:?}", lease.annotations())),
        None => finish(scene, Some(reference)).await,
    }
}

async fn mark_as_given_up(scene: &mut Scene, pod: &str) -> Result<(), Failure> {
    // A renewal may come in between.
    for _ in 0..20 {
        let is_it = |lease: &&Lease| {
            let holder =
                lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
            lease.labels().get("broadcast-operator.dev/lease").is_some_and(|role| role == "replica")
                && holder.starts_with(pod)
        };
        let leases = leases(scene).await?;
        let mut lease = leases.iter().find(is_it).cloned().ok_or("it has no lease")?;
        let mark = ("broadcast-operator.dev/given-up".to_owned(), clock::now().to_string());
        lease.annotations_mut().extend([mark]);
        let name = lease.name_any();
        match scene.api::<Lease>().replace(&name, &PostParams::default(), &lease).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("it renews without a pause".into())
}

async fn leases(scene: &Scene) -> Result<Vec<Lease>, Failure> {
    let list = scene.api::<Lease>().list(&ListParams::default()).await;
    list.map(|list| list.items).map_err(|error| error.to_string())
}

/// Watches of the leader break for good, while everything else that it asks for is answered: it stops, and gives everything
/// back, so the other one goes on and nothing becomes Unknown.
async fn blind(scene: &mut Scene, reference: &Reference) -> Result<(), Failure> {
    scene.lease_times = SHORT;
    scene.patience += BLIND;
    two(scene).await?;
    let broken = ["LIST-broadcasts", "WATCH-broadcasts"]
        .map(|name| Planned::from(&scene.tap.next_of(0, name), usize::MAX, Fault::Answer(500)).of(0));
    let first = Point { name: format!("EVENT-broadcasts-ADDED-{SALE}"), occurrence: 0 };
    let cut = Planned::at(&first, Fault::Event(EventFault::Error)).of(0);
    scene.tap.plan([cut].into_iter().chain(broken).collect());
    (scene.may_fail, scene.replicas) = (true, 1);
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    // Its farewell frees the channel, whether it was in time to give that back first or not.
    landed(scene, 0, FAREWELL).await?;
    landed(scene, 1, "PUT-leases-channel-sms").await?;
    if scene.tap.log().iter().any(|logged| logged.landed() && logged.point.name == GIVE_UP) {
        return Err("it was given up, although it renewed its lease".into());
    }
    match scene.processes[0].ended().await {
        End::Failed(why) if why.contains("has seen nothing for too long") => {}
        end => return Err(format!("it did not end as one that sees nothing: {end:?}")),
    }
    finish(scene, Some(reference)).await
}

/// The results of a window are refused for good, and the channel is another one's to have: it gets it, and calls the chats Unknown.
async fn unrecorded(scene: &mut Scene) -> Result<(), Failure> {
    until_its_results_are_refused(scene).await?;
    scene.replicas = 2;
    scene.replace_the_dead().await?;
    landed(scene, 1, "PUT-leases-channel-sms").await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    let unknown = format!("PUT-broadcastbatches-status-{SALE}-00000");
    let settled = |logged: &&crate::tap::Logged| logged.process == 1 && logged.point.name == unknown;
    if !scene.tap.log().iter().filter(settled).any(crate::tap::Logged::landed) {
        return Err("the other one did not settle the page".into());
    }
    finish(scene, None).await
}

/// The same with answers that come while the first result is refused. The process lives on, and records all of them when it can.
async fn recorded_later(scene: &mut Scene) -> Result<(), Failure> {
    let rest: Vec<_> = (1..CHATS).map(chat_id).collect();
    scene.set_gateway_faults(json!([{"when": {"chats": rest}, "do": {"latencyMs": 3000}}]));
    until_its_results_are_refused(scene).await?;
    let ledger = scene.gateway.ledger();
    let all = ledger.wait_until(|summary| u64::try_from(CHATS) == Ok(summary.requests.accepted));
    tokio::time::timeout(scene.patience, all).await.map_err(|_| "not all messages are answered")?;
    scene.replicas = 2;
    scene.replace_the_dead().await?;
    landed(scene, 1, "PUT-leases-channel-sms").await?;
    scene.until("the other one has settled the page", |seen| is_over(seen, &[SALE])).await?;
    scene.tap.plan(Vec::new());
    let sent = |seen: &Seen| {
        let sent = seen.broadcasts.get(SALE).map(|sale| counts(sale).sent);
        sent.and_then(|sent| usize::try_from(sent).ok()) == Some(CHATS)
    };
    scene.until("the answers are recorded", sent).await?;
    finish(scene, None).await
}

/// A process that sends for two channels, of which it may keep one, and whose results are refused from now on.
async fn until_its_results_are_refused(scene: &mut Scene) -> Result<(), Failure> {
    (scene.sharing, scene.lease_times) = (Sharing::Replicas, SHORT);
    scene.patience += UNRECORDED;
    scene.doubtful.extend((0..CHATS).map(chat_id));
    scene.start_operator().await;
    // Of two channels the other one stays.
    scene.apply(&scene.channel(SECOND, json!({}))).await?;
    holds(scene, 0, CHANNEL).await?;
    holds(scene, 0, SECOND).await?;
    let results = Point { name: RESULTS.into(), occurrence: BEFORE_RESULTS };
    scene.tap.plan(vec![Planned::from(&results, usize::MAX, Fault::Answer(403)).of(0)]);
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    let tap = scene.tap.clone();
    scene.until_with("its results are refused", |_: &Seen, tap: &Tap| tap.met() > 0, &tap).await
}
