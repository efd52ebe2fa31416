//! A7 with objects that are gone: what a request is about is deleted just before the API server gets it, so that it answers 404 by
//! itself, and nothing of the object is left for those who look again. What a POST has made is deleted before its maker hears of it.

use std::sync::Arc;

use broadcast_operator::api::{
    ACCEPT_ANNOTATION, Broadcast, BroadcastBatch, BroadcastChannel, OutcomeName as Outcome,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::gateway::recorded;
use super::odd::missing;
use super::takeovers::two;
use super::thefts::{GIVE_UP, landed};
use super::{CHATS, script};
use crate::cases::Case;
use crate::common::stage::{broadcast, chat_id, is_complete};
use crate::holders;
use crate::invariants;
use crate::observer::Seen;
use crate::play::{Reference, SALE, check_rest, come_to_rest, finish, is_over, state_of};
use crate::process::{End, SHORT};
use crate::scene::{CHANNEL, Failure, Scene};
use crate::tap::{Fault, Gate, Planned, Point};

const PAGE: &str = "sale-00000";
const RENEWAL: &str = "PUT-leases-replica";
const FAREWELL: &str = "DELETE-leases-replica";
/// The short matrix has one of so many.
const SHARE: usize = 3;

/// What is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    Broadcast,
    Page,
    Channel,
    /// By its role.
    Lease(&'static str),
}

impl Object {
    /// What a request is about.
    fn of(request: &Point) -> Option<Self> {
        let name = request.name.as_str();
        let of = |kind: &str, object: &str| {
            let verbs = ["GET", "PUT", "PATCH", "DELETE"];
            let parts = ["", "status-"];
            let mut names =
                verbs.iter().flat_map(|verb| parts.map(|part| format!("{verb}-{kind}-{part}{object}")));
            names.any(|known| known == name)
        };
        match name {
            "POST-leases-replica" | RENEWAL => Some(Self::Lease("replica")),
            "POST-leases-leader" => Some(Self::Lease("leader")),
            "POST-leases-channel-sms" => Some(Self::Lease("channel")),
            _ if of("broadcasts", SALE) => Some(Self::Broadcast),
            _ if of("broadcastbatches", PAGE) => Some(Self::Page),
            _ if of("broadcastchannels", CHANNEL) => Some(Self::Channel),
            _ => None,
        }
    }
}

/// Each request about one object, and writes of a take-over and of a farewell.
pub fn all(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let renewal = Point { name: RENEWAL.into(), occurrence: 0 };
    let points = reference.log.iter().map(|logged| logged.point.clone()).chain([renewal]);
    let at_points = points.filter_map(|point| Some((Object::of(&point)?, point))).map(|(object, point)| {
        let name = reference.case("A7", &format!("{point}/gone"));
        let reference = reference.clone();
        let run = script(move |scene| {
            let (reference, point) = (reference.clone(), point.clone());
            Box::pin(async move { gone(scene, &reference, object, &point).await })
        });
        Case { name, meets: 1, run }
    });
    let writes =
        [(GIVE_UP, "replica"), ("PUT-leases-channel-sms", "channel"), ("PUT-leases-leader", "leader")];
    let take_overs = writes.map(|(write, role)| {
        let name = reference.case("A7", &format!("take-over/{write}/gone"));
        let reference = reference.clone();
        let run = script(move |scene| {
            let reference = reference.clone();
            Box::pin(async move { take_over(scene, &reference, write, role).await })
        });
        Case { name, meets: 1, run }
    });
    let name = reference.case("A7", &format!("farewell/{FAREWELL}/gone"));
    let reference = reference.clone();
    let farewell = script(move |scene| {
        let reference = reference.clone();
        Box::pin(async move { farewell(scene, &reference).await })
    });
    let cases = at_points.chain(take_overs).chain([Case { name, meets: 1, run: farewell }]);
    cases.enumerate().filter(|(number, _)| is_whole || number % SHARE == 0).map(|(_, case)| case).collect()
}

async fn gone(
    scene: &mut Scene,
    reference: &Reference,
    object: Object,
    point: &Point,
) -> Result<(), Failure> {
    let gate = Gate::new();
    let hold = if point.name.starts_with("POST-") { Fault::HoldAfter } else { Fault::HoldBefore };
    scene.tap.plan(vec![Planned::at(point, hold(gate.clone()))]);
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    scene.reach(&gate, |seen| is_over(seen, &[SALE])).await?;
    // As it is stored: the view may not have heard of the seal yet.
    let sale = scene.api::<Broadcast>().get_opt(SALE).await.map_err(|error| error.to_string())?;
    let was_sealed = sale.as_ref().is_some_and(is_sealed);
    delete(scene, object).await?;
    gate.open();
    match object {
        Object::Broadcast => without_broadcast(scene).await,
        Object::Page if was_sealed => without_page(scene).await,
        Object::Channel => without_channel(scene).await,
        Object::Lease("replica") => without_own_lease(scene).await,
        // Nothing was sent from the page, and it is made again.
        Object::Page | Object::Lease(_) => {
            scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
            come_to_rest(scene).await?;
            recorded(scene, |_| Outcome::Sent).await?;
            finish(scene, (object != Object::Page).then_some(reference)).await
        }
    }
}

fn is_sealed(broadcast: &Broadcast) -> bool {
    broadcast.status.as_ref().is_some_and(|status| status.audience_digest.is_some())
}

/// Deletes it for good, and waits until it is gone.
async fn delete(scene: &mut Scene, object: Object) -> Result<(), Failure> {
    match object {
        Object::Broadcast => {
            scene.delete::<Broadcast>(SALE).await?;
            // As a person does who does not want to wait.
            scene.patch::<Broadcast>(SALE, json!({"metadata": {"finalizers": null}})).await?;
            scene.until("sale is gone", |seen| !seen.broadcasts.contains_key(SALE)).await
        }
        Object::Page => {
            scene.delete::<BroadcastBatch>(PAGE).await?;
            scene.until("its page is gone", |seen| !seen.pages.contains_key(PAGE)).await
        }
        Object::Channel => {
            scene.delete::<BroadcastChannel>(CHANNEL).await?;
            scene.until("the channel is gone", |seen| !seen.channels.contains_key(CHANNEL)).await
        }
        Object::Lease(role) => delete_lease(scene, role).await,
    }
}

/// Deletes the lease of this role that was made first: that of the first replica.
async fn delete_lease(scene: &Scene, role: &str) -> Result<(), Failure> {
    let params = ListParams::default().labels(&format!("broadcast-operator.dev/lease={role}"));
    let leases = scene.api::<Lease>().list(&params).await.map_err(|error| error.to_string())?;
    let first = leases.items.iter().find(|lease| {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        holder.is_some_and(|holder| scene.tap.process_of(holder) == Some(0))
    });
    scene.delete::<Lease>(&first.ok_or_else(|| format!("there is no lease of a {role}"))?.name_any()).await
}

/// Nothing more is sent.
async fn without_broadcast(scene: &mut Scene) -> Result<(), Failure> {
    come_to_rest(scene).await?;
    invariants::check(scene, "without the Broadcast").await?;
    let requests = scene.requests_of(SALE);
    check_rest(scene).await?;
    match scene.requests_of(SALE) {
        now if now == requests => invariants::check(scene, "at the end").await,
        now => Err(format!("{} requests without a Broadcast", now - requests)),
    }
}

/// Nothing but a restore takes the lease of a replica that lives away, so that is what it is taken for: the process ends, and what is not
/// complete waits for a person. It goes on from its pages then.
async fn without_own_lease(scene: &mut Scene) -> Result<(), Failure> {
    match scene.processes[0].ended().await {
        End::Failed(why) if why.contains("went back in time") => scene.may_fail = true,
        end => return Err(format!("it did not end as one whose lease is gone: {end:?}")),
    }
    let is_decided = |seen: &Seen| is_over(seen, &[SALE]) || state_of(seen, SALE) == "ClusterRestored";
    scene.until("sale is complete, or held", is_decided).await?;
    invariants::check(scene, "after the process has begun anew").await?;
    if !scene.view.seen().broadcasts.get(SALE).is_some_and(is_complete) {
        accept(scene).await?;
    }
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    invariants::check(scene, "at the end").await?;
    // Whatever is applied within the hour is held too, so nothing else goes its way.
    holders::check(scene).await?;
    match scene.requests_of(SALE) {
        CHATS => Ok(()),
        requests => Err(format!("{requests} requests for {CHATS} chats")),
    }
}

/// Accepts the hold that is shown.
pub(super) async fn accept(scene: &Scene) -> Result<(), Failure> {
    let hold = scene.view.seen().broadcasts.get(SALE).and_then(|sale| sale.status.clone()?.hold);
    let accepted = json!({ ACCEPT_ANNOTATION: hold.ok_or("it shows no hold")?.token });
    scene.patch::<Broadcast>(SALE, json!({"metadata": {"annotations": accepted}})).await
}

/// Nothing more is sent until a person gives the page up, and then its chats are Unknown, also those whose answers could not be
/// recorded.
async fn without_page(scene: &mut Scene) -> Result<(), Failure> {
    scene.doubtful.extend((0..CHATS).map(chat_id));
    scene.until("the page is missed", |seen| missing(seen, SALE)).await?;
    // It could be on its way for half a minute.
    let long_ago = Patch::Merge(json!({"status": {"startTime": "2026-01-01T00:00:00Z"}}));
    let patched = scene.api::<Broadcast>().patch_status(SALE, &PatchParams::default(), &long_ago).await;
    patched.map_err(|error| format!("failed to make it older: {error}"))?;
    scene.until("it is held", |seen| state_of(seen, SALE) == "BatchesMissing").await?;
    let requests = scene.requests_of(SALE);
    accept(scene).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    recorded(scene, |_| Outcome::Unknown).await?;
    finish(scene, None).await?;
    match scene.requests_of(SALE) {
        now if now == requests => Ok(()),
        now => Err(format!("{requests} requests before the page was given up, and {now} after it")),
    }
}

/// What is in flight is recorded, and the rest is sent when the channel is there again.
async fn without_channel(scene: &mut Scene) -> Result<(), Failure> {
    let is_missed = |seen: &Seen| {
        seen.broadcasts.get(SALE).is_some_and(is_complete) || state_of(seen, SALE) == "ChannelNotFound"
    };
    scene.until("the channel is missed, or was not needed any more", is_missed).await?;
    invariants::check(scene, "without the channel").await?;
    scene.apply(&scene.channel(CHANNEL, json!({}))).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    recorded(scene, |_| Outcome::Sent).await?;
    finish(scene, None).await?;
    match scene.requests_of(SALE) {
        CHATS => Ok(()),
        requests => Err(format!("{requests} requests for {CHATS} chats")),
    }
}

/// A lease is gone that is written by who takes over from a dead one.
async fn take_over(
    scene: &mut Scene,
    reference: &Reference,
    write: &str,
    role: &'static str,
) -> Result<(), Failure> {
    scene.lease_times = SHORT;
    two(scene).await?;
    landed(scene, 1, RENEWAL).await?;
    let (gate, point) = (Gate::new(), scene.tap.next_of(1, write));
    scene.tap.plan(vec![Planned::at(&point, Fault::HoldBefore(gate.clone())).of(1)]);
    scene.replicas = 1;
    scene.processes[0].kill().await;
    scene.replace_the_dead().await?;
    scene.reach(&gate, |_| false).await?;
    delete_lease(scene, role).await?;
    gate.open();
    reference.play.run(scene).await?;
    come_to_rest(scene).await?;
    finish(scene, Some(reference)).await
}

/// One that ends wants to take its lease away, and somebody has done so.
async fn farewell(scene: &mut Scene, reference: &Reference) -> Result<(), Failure> {
    scene.lease_times = SHORT;
    two(scene).await?;
    let (gate, point) = (Gate::new(), scene.tap.next_of(0, FAREWELL));
    scene.tap.plan(vec![Planned::at(&point, Fault::HoldBefore(gate.clone())).of(0)]);
    // It ends as it should, and nobody takes its place.
    (scene.replicas, scene.may_fail) = (1, true);
    let deleted = async {
        let reached = tokio::time::timeout(scene.patience, gate.reached()).await;
        reached.map_err(|_| "it does not say farewell")?;
        let deleted = delete_lease(scene, "replica").await;
        gate.open();
        deleted
    };
    let (end, deleted) = tokio::join!(scene.processes[0].stop(), deleted);
    deleted?;
    if end != End::Stopped {
        return Err(format!("it did not stop cleanly: {end:?}"));
    }
    reference.play.run(scene).await?;
    come_to_rest(scene).await?;
    finish(scene, Some(reference)).await
}
