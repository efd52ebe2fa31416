//! D2 with a watch of leases that shows nothing: a replica that does not see the others live must not take what they have.

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use super::{CHATS, script};
use crate::cases::Case;
use crate::common::stage::broadcast;
use crate::invariants;
use crate::observer::Seen;
use crate::play::{AFTER_CHAT, Reference, SALE, finish, is_over};
use crate::process::SHORT;
use crate::scene::{CHANNEL, Failure, Scene, Sharing};
use crate::tap::{Fault, Gate, Logged, Planned, Tap};

/// A channel that comes later.
pub const SECOND: &str = "mms";
/// A Broadcast on it.
const MORE: &str = "more";
pub const HEARTBEAT: &str = "POST-leases-replica";
/// The mark on the lease of another replica.
pub const GIVE_UP: &str = "PUT-leases-given-up";

pub fn blind(reference: &Arc<Reference>) -> Vec<Case> {
    let known = script(|scene| Box::pin(async move { it_saw_the_other_once(scene).await }));
    let unseen = script(|scene| Box::pin(async move { it_never_saw_the_other(scene).await }));
    let case = |what: &str, run, meets| Case { name: reference.case("D2", what), meets, run };
    vec![case("blind/saw-it-once", known, 2), case("blind/never-saw-it", unseen, 3)]
}

/// The other one holds everything, and stands still as far as the blind one sees.
async fn it_saw_the_other_once(scene: &mut Scene) -> Result<(), Failure> {
    (scene.sharing, scene.lease_times) = (Sharing::Replicas, SHORT);
    scene.start_operator().await;
    holds(scene, 0, CHANNEL).await?;
    let sight = start_blind(scene).await?;
    refused(scene, 1, 2).await?;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    refused(scene, 1, 3).await?;
    nothing_was_taken(scene, 1, CHANNEL, "pod-0").await?;
    sight.open();
    finish(scene, None).await
}

/// The other one came when the blind one saw nothing any more: it finds a lease whose holder it does not know.
async fn it_never_saw_the_other(scene: &mut Scene) -> Result<(), Failure> {
    (scene.sharing, scene.lease_times) = (Sharing::Replicas, SHORT);
    let sight = start_blind(scene).await?;
    holds(scene, 0, CHANNEL).await?;
    let taking = Gate::new();
    let own_try = scene.tap.next_of(0, &format!("POST-leases-channel-{SECOND}"));
    scene.tap.plan(vec![Planned::at(&own_try, Fault::HoldBefore(taking.clone())).of(0)]);
    scene.replicas = 2;
    scene.replace_the_dead().await?;
    landed(scene, 1, HEARTBEAT).await?;
    scene.apply(&scene.channel(SECOND, json!({}))).await?;
    holds(scene, 1, SECOND).await?;
    scene.reach(&taking, |_| false).await?;
    taking.open();
    let taken = format!("PUT-leases-channel-{SECOND}");
    let has_acted = move |_: &Seen, tap: &Tap| {
        tap.log().iter().any(|logged| {
            let acts = logged.point.name == GIVE_UP || logged.point.name == taken;
            logged.process == 0 && logged.status.is_some() && acts
        })
    };
    let tap = scene.tap.clone();
    scene.until_with("it has taken it, or knows that the other one lives", has_acted, &tap).await?;
    nothing_was_taken(scene, 0, SECOND, "pod-1").await?;
    refused(scene, 0, 1).await?;
    let mut more = broadcast(MORE, 0, json!({"channelRef": {"name": SECOND}}));
    more["spec"]["recipients"] = json!({"csv": format!("chat,name\n{AFTER_CHAT},Nobody\n")});
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    scene.apply(&more).await?;
    scene.until("both are complete", |seen: &Seen| is_over(seen, &[SALE, MORE])).await?;
    nothing_was_taken(scene, 0, SECOND, "pod-1").await?;
    sight.open();
    invariants::check(scene, "at the end").await
}

/// Starts an operator that knows the leases that were there when it joined, its own among them, and hears of nothing after.
async fn start_blind(scene: &mut Scene) -> Result<Gate, Failure> {
    let (number, list, sight) = (scene.processes.len(), Gate::new(), Gate::new());
    let point = |name: &str| scene.tap.next_of(number, name);
    scene.tap.plan(vec![
        Planned::at(&point("LIST-leases"), Fault::HoldBefore(list.clone())).of(number),
        Planned::at(&point("WATCH-leases"), Fault::HoldBefore(sight.clone())).of(number),
    ]);
    scene.replicas = number + 1;
    scene.replace_the_dead().await?;
    landed(scene, number, HEARTBEAT).await?;
    list.open();
    scene.reach(&sight, |_| false).await?;
    Ok(sight)
}

/// Waits until a process has stored something of this name.
pub async fn landed(scene: &mut Scene, process: usize, name: &str) -> Result<(), Failure> {
    let is_it = |logged: &Logged| logged.process == process && logged.point.name == name && logged.landed();
    let tap = scene.tap.clone();
    let what = format!("{name} of process {process}");
    scene.until_with(&what, |_, tap: &Tap| tap.log().iter().any(is_it), &tap).await
}

/// Waits until a process has taken a channel.
pub async fn holds(scene: &mut Scene, process: usize, channel: &str) -> Result<(), Failure> {
    landed(scene, process, &format!("POST-leases-channel-{channel}")).await
}

/// Waits until a process has tried so often in vain to give the other one up.
async fn refused(scene: &mut Scene, process: usize, often: usize) -> Result<(), Failure> {
    let is_it = |logged: &&Logged| {
        logged.process == process && logged.point.name == GIVE_UP && logged.status == Some(409)
    };
    let tap = scene.tap.clone();
    let is_refused = |_: &Seen, tap: &Tap| tap.log().iter().filter(is_it).count() >= often;
    scene.until_with("it tries to give the other one up, in vain", is_refused, &tap).await
}

/// Checks that a channel is where it was all the time, and that the blind process has taken nothing from the other one.
async fn nothing_was_taken(
    scene: &mut Scene,
    blind: usize,
    channel: &str,
    holder: &str,
) -> Result<(), Failure> {
    let log = scene.tap.log();
    let is_theft = |logged: &&Logged| {
        let name = logged.point.name.as_str();
        let takes = name == GIVE_UP || name.contains(&format!("leases-channel-{channel}"));
        logged.process == blind && logged.landed() && takes
    };
    if let Some(theft) = log.iter().find(is_theft) {
        return Err(format!("the blind process took what the other one had: {}", theft.point));
    }
    let holders = scene.api::<Lease>().list(&kube::api::ListParams::default()).await;
    let holders = holders.map_err(|error| error.to_string())?;
    let of_channel = holders.items.iter().find(|lease| {
        let named = lease.metadata.annotations.as_ref();
        let named = named.and_then(|named| named.get("broadcast-operator.dev/channel"));
        named.is_some_and(|named| named.ends_with(&format!("/{channel}")))
    });
    let spec = of_channel.and_then(|lease| lease.spec.as_ref());
    let found = spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
    let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    match found.starts_with(holder) && transitions == 0 {
        true => Ok(()),
        false => Err(format!("channel {channel} is held by {found}, after {transitions} others")),
    }
}
