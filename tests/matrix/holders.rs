//! I8 of leases: at rest each channel has one holder, which lives; and who ended as it was told to leaves nothing that it held.

use std::collections::{BTreeMap, BTreeSet};

use broadcast_operator::api::BroadcastChannel;
use broadcast_operator::clock;
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::process::{End, Process};
use crate::scene::{Failure, Scene};
use crate::tap::LATE;

const GROUP: &str = "broadcast-operator.dev/replicas-of";
const ROLE: &str = "broadcast-operator.dev/lease";
const CHANNEL: &str = "broadcast-operator.dev/channel";
/// Name of what the leader holds.
const LEADER: &str = "leader";

/// The leases of one group of replicas.
#[derive(Default)]
struct Group {
    /// Those that show that a replica lives, by its id. One that was given up is not among them.
    replicas: BTreeSet<String>,
    /// Who holds what: `leader`, or a channel by its name.
    holders: BTreeMap<String, Vec<String>>,
}

/// Waits until each channel has one holder, as it must at rest.
pub async fn check(scene: &mut Scene) -> Result<(), Failure> {
    let deadline = clock::monotonic() + scene.patience;
    loop {
        let mut changes = scene.tap.changes();
        let broken = unheld(scene).await?;
        if broken.is_empty() {
            return Ok(());
        }
        if clock::monotonic() >= deadline {
            return Err(format!("I8 settles:\n  {}", broken.join("\n  ")));
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = clock::wait(LATE) => {}
        }
        scene.replace_the_dead().await?;
    }
}

/// Ends all operators as a signal does. Nothing is held afterwards.
pub async fn let_go(scene: &Scene) -> Result<(), Failure> {
    scene.tap.plan(Vec::new());
    let alive: Vec<&Process> = scene.processes.iter().filter(|process| process.is_alive()).collect();
    let stopped = join_all(alive.iter().map(|process| process.stop()));
    let ends = tokio::time::timeout(scene.patience, stopped).await;
    let ends = ends.map_err(|_| "I8 settles: it does not end when it is told to")?;
    if let Some(end) = ends.iter().find(|end| **end != End::Stopped) {
        return Err(format!("I8 settles: it did not stop cleanly: {end:?}"));
    }
    let mut broken = Vec::new();
    for Group { replicas, holders } in groups(scene).await?.values() {
        for replica in replicas.iter().filter(|replica| has_stopped(scene, replica)) {
            broken.push(format!("the lease of {replica} is left, which ended properly"));
        }
        for (what, holders) in holders {
            let held = holders.iter().filter(|holder| replicas.contains(*holder));
            broken.extend(
                held.filter(|holder| has_stopped(scene, holder))
                    .map(|holder| format!("{what} is held by {holder}, which ended properly")),
            );
        }
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(format!("I8 settles:\n  {}", broken.join("\n  "))),
    }
}

/// What has no holder that lives, or more than one.
async fn unheld(scene: &Scene) -> Result<Vec<String>, Failure> {
    let channels = scene.api::<BroadcastChannel>().list(&ListParams::default()).await;
    let channels = channels.map_err(|error| format!("failed to list channels: {error}"))?;
    let names = channels.items.iter().map(ResourceExt::name_any);
    let mut wanted: Vec<String> = names.filter(|name| !scene.tap.hides("BroadcastChannel", name)).collect();
    wanted.push(LEADER.to_owned());
    let mut broken = Vec::new();
    for (name, Group { replicas, holders }) in groups(scene).await? {
        if !replicas.iter().any(|replica| is_alive(scene, replica)) {
            continue;
        }
        for what in &wanted {
            let named = holders.get(what).map_or(&[][..], Vec::as_slice);
            let living: Vec<&String> = named.iter().filter(|holder| replicas.contains(*holder)).collect();
            match living.as_slice() {
                [holder] if is_alive(scene, holder) => {}
                [holder] => broken.push(format!("{what} of {name} is held by {holder}, which does not live")),
                [] => broken.push(format!("{what} of {name} is held by nobody: {named:?}")),
                all => broken.push(format!("{what} of {name} is held by {all:?}")),
            }
        }
    }
    Ok(broken)
}

async fn groups(scene: &Scene) -> Result<BTreeMap<String, Group>, Failure> {
    let leases = scene.api::<Lease>().list(&ListParams::default()).await;
    let leases = leases.map_err(|error| format!("failed to list leases: {error}"))?;
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for lease in leases.items {
        let group = lease.labels().get(GROUP).cloned().unwrap_or_default();
        let group = groups.entry(group).or_default();
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        let Some(holder) = holder.filter(|holder| !holder.is_empty()) else { continue };
        let channel = lease.annotations().get(CHANNEL).and_then(|name| name.split_once('/'));
        match lease.labels().get(ROLE).map(String::as_str) {
            Some("replica") => drop(group.replicas.insert(holder)),
            Some("leader") => group.holders.entry(LEADER.to_owned()).or_default().push(holder),
            Some("channel") => {
                let name = channel.map(|(_, name)| name).unwrap_or_default();
                group.holders.entry(name.to_owned()).or_default().push(holder);
            }
            _ => {}
        }
    }
    Ok(groups)
}

fn process_of<'a>(scene: &'a Scene, replica: &str) -> Option<&'a Process> {
    scene.processes.get(scene.tap.process_of(replica)?)
}

fn is_alive(scene: &Scene, replica: &str) -> bool {
    process_of(scene, replica).is_some_and(Process::is_alive)
}

fn has_stopped(scene: &Scene, replica: &str) -> bool {
    process_of(scene, replica).is_some_and(Process::has_stopped)
}
