//! E1: a user acts right after each write, before the operator hears that it was done.

use std::sync::Arc;

use broadcast_operator::api::{Broadcast, BroadcastChannel};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::{script, spec};
use crate::cases::Case;
use crate::common::stage::{broadcast, is_complete, restart};
use crate::ending::Ending;
use crate::invariants;
use crate::observer::Seen;
use crate::play::{Reference, SALE, check_rest, is_claimed, is_over, state_of};
use crate::scene::{CHANNEL, Failure, Scene};
use crate::tap::{Fault, Gate, Planned, Point};

/// What a user does, and takes back where it can be taken back.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Pause,
    Brake,
    Edit,
    Delete,
    Restart,
    Annotate,
    DeleteSecret,
    ChangeSecret,
}

pub const ACTIONS: [(&str, Action); 8] = [
    ("pause", Action::Pause),
    ("brake", Action::Brake),
    ("edit", Action::Edit),
    ("delete", Action::Delete),
    ("restart", Action::Restart),
    ("annotate", Action::Annotate),
    ("delete-secret", Action::DeleteSecret),
    ("change-secret", Action::ChangeSecret),
];

/// Every action after every write.
pub fn act(reference: &Arc<Reference>, _: bool) -> Vec<Case> {
    let points =
        reference.writes().filter(|write| matches!(write.kind.as_str(), "broadcasts" | "broadcastbatches"));
    points
        .flat_map(|write| {
            ACTIONS.map(|(tag, action)| {
                let name = reference.case("E1", &format!("{}/{tag}", write.point));
                let (reference, point) = (reference.clone(), write.point.clone());
                let run = script(move |scene| {
                    let (reference, point) = (reference.clone(), point.clone());
                    Box::pin(async move { act_at(scene, &reference, &point, action, Vec::new()).await })
                });
                Case { name, meets: 1, run }
            })
        })
        .collect()
}

/// One action after one write, with other faults besides.
pub async fn act_at(
    scene: &mut Scene,
    reference: &Reference,
    point: &Point,
    action: Action,
    mut plan: Vec<Planned>,
) -> Result<(), Failure> {
    let gate = Gate::new();
    plan.insert(0, Planned::at(point, Fault::HoldAfter(gate.clone())));
    scene.tap.plan(plan);
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, super::CHATS, json!({}))).await?;
    scene.reach(&gate, |seen| is_over(seen, &[SALE])).await?;
    begin(scene, action).await?;
    gate.open();
    invariants::check(scene, "after the action").await?;
    let requests = follow(scene, action).await?;
    invariants::check(scene, "at the end").await?;
    match action {
        // The same end as if nobody had done anything, apart from what was edited.
        Action::Pause | Action::Brake | Action::Edit | Action::DeleteSecret | Action::ChangeSecret => {
            Ending::read(scene).await?.check_outcomes(&reference.ending)?;
        }
        Action::Delete | Action::Restart | Action::Annotate => {}
    }
    check_rest(scene).await?;
    if let Some(requests) = requests {
        let now = scene.requests_of(SALE);
        if now != requests {
            return Err(format!("it was deleted after {requests} requests, and sent {now}"));
        }
    }
    invariants::check(scene, "after the end").await
}

async fn begin(scene: &Scene, action: Action) -> Result<(), Failure> {
    match action {
        Action::Pause => scene.patch::<Broadcast>(SALE, spec(json!({"paused": true}))).await,
        Action::Brake => scene.patch::<BroadcastChannel>(CHANNEL, spec(json!({"paused": true}))).await,
        Action::Edit => {
            scene.patch::<Broadcast>(SALE, spec(json!({"pacing": {"messagesPerSecond": 500}}))).await
        }
        Action::Delete => scene.delete::<Broadcast>(SALE).await,
        Action::Restart => scene.apply(&restart("again", SALE, json!({}))).await,
        Action::Annotate => {
            let annotation = json!({"broadcast-operator.dev/restart": "once"});
            scene.patch::<Broadcast>(SALE, json!({"metadata": {"annotations": annotation}})).await
        }
        Action::DeleteSecret => scene.delete::<Secret>("gateway").await,
        Action::ChangeSecret => {
            scene.gateway.set_token(Some("another".into()));
            scene.patch::<Secret>("gateway", json!({"stringData": {"token": "another"}})).await
        }
    }
}

/// Waits for what the action leads to, and for the end. Out: how many requests there were when it had to stop for good.
async fn follow(scene: &mut Scene, action: Action) -> Result<Option<usize>, Failure> {
    let ended = |seen: &Seen| is_over(seen, &[SALE]);
    match action {
        Action::Pause => {
            let stopped = |seen: &Seen| ended(seen) || state_of(seen, SALE) == "Stopped";
            scene.until("sale has stopped", stopped).await?;
            invariants::check(scene, "when it has stopped").await?;
            scene.patch::<Broadcast>(SALE, spec(json!({"paused": false}))).await?;
            scene.until("sale is complete", ended).await?;
        }
        Action::Brake => {
            let idle = |seen: &Seen| {
                let state = state_of(seen, SALE);
                !is_claimed(seen)
                    && (seen.broadcasts.get(SALE).is_some_and(is_complete) || state == "ChannelPaused")
            };
            scene.until("the channel has stopped", idle).await?;
            invariants::check(scene, "when it has stopped").await?;
            scene.patch::<BroadcastChannel>(CHANNEL, spec(json!({"paused": false}))).await?;
            scene.until("sale is complete", ended).await?;
        }
        Action::Edit | Action::ChangeSecret => scene.until("sale is complete", ended).await?,
        Action::Delete => {
            let gone = |seen: &Seen| !seen.broadcasts.contains_key(SALE) && seen.pages.is_empty();
            scene.until("sale and its pages are gone", gone).await?;
            return Ok(Some(scene.requests_of(SALE)));
        }
        // A restart takes over what is stopped; what has not begun is not.
        Action::Restart => stop_for(scene, |seen| is_over(seen, &[SALE, "again"])).await?,
        Action::Annotate => {
            let both = |seen: &Seen| {
                let names: Vec<&str> = seen.broadcasts.keys().map(String::as_str).collect();
                names.len() == 2 && is_over(seen, &names)
            };
            stop_for(scene, both).await?;
        }
        Action::DeleteSecret => {
            let noticed = |seen: &Seen| {
                let state = state_of(seen, SALE);
                seen.broadcasts.get(SALE).is_some_and(is_complete) || state == "SecretNotFound"
            };
            scene.until("the Secret is missed, or was not needed any more", noticed).await?;
            scene.make_secret().await?;
            scene.until("sale is complete", ended).await?;
        }
    }
    Ok(None)
}

/// Stops sale, so that its restart can take it over. One that stopped before it began is let go on.
async fn stop_for(scene: &mut Scene, over: impl Fn(&Seen) -> bool) -> Result<(), Failure> {
    scene.patch::<Broadcast>(SALE, spec(json!({"paused": true}))).await?;
    let has_begun = |seen: &Seen| {
        let status = seen.broadcasts.get(SALE).and_then(|sale| sale.status.as_ref());
        status.is_some_and(|status| status.audience_digest.is_some())
    };
    let stopped = |seen: &Seen| over(seen) || (state_of(seen, SALE) == "Stopped" && !has_begun(seen));
    scene.until("the restart is complete, or sale has not begun", stopped).await?;
    scene.patch::<Broadcast>(SALE, spec(json!({"paused": false}))).await?;
    scene.until("both are complete", over).await
}
