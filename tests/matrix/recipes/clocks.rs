//! C3: the wall clock jumps by a day, forward or back, while the operator works. Nothing hangs on it but times that people read,
//! and waits that are kept across restarts.

use std::sync::Arc;

use broadcast_operator::api::{Broadcast, OutcomeName};
use serde_json::{Value, json};

use super::gateway::recorded;
use super::{CHATS, script};
use crate::cases::Case;
use crate::common::stage::{broadcast, chat_id};
use crate::observer::Seen;
use crate::play::{Reference, SALE, finish, is_over, state_of};
use crate::scene::{Failure, Scene};
use crate::tap::{Fault, Gate, Planned, Point};

/// A day, in milliseconds.
const DAY: i64 = 86_400_000;
const JUMPS: [(&str, i64); 2] = [("forward", DAY), ("back", -DAY)];
/// The first claim, in the short matrix.
const CLAIM: (&str, usize) = ("PUT-broadcastbatches-status-sale-00000", 1);

/// After each write, and while a chat waits for its next try.
pub fn jumps(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let is_wanted = |point: &Point| is_whole || (point.name.as_str(), point.occurrence) == CLAIM;
    let points = reference
        .writes()
        .filter(|write| write.kind.starts_with("broadcast"))
        .map(|write| &write.point)
        .filter(|point| is_wanted(point));
    let mut cases = Vec::new();
    for point in points {
        for (tag, by) in JUMPS {
            let (reference, at) = (reference.clone(), point.clone());
            let name = reference.case("C3", &format!("{point}/{tag}"));
            let run = script(move |scene| {
                let (reference, at) = (reference.clone(), at.clone());
                Box::pin(async move { jump(scene, &at, by, json!({}), Some(&reference)).await })
            });
            cases.push(Case { name, meets: 1, run });
        }
    }
    let run = script(|scene| Box::pin(async move { jump_past_the_end_of_a_key(scene).await }));
    cases.push(Case { name: reference.case("C3", "campaign/forward"), meets: 0, run });
    for (tag, by) in JUMPS {
        let run = script(move |scene| Box::pin(async move { jump_before_the_next_try(scene, by).await }));
        cases.push(Case { name: reference.case("C3", &format!("retry/{tag}")), meets: 1, run });
    }
    cases
}

async fn jump(
    scene: &mut Scene,
    point: &Point,
    by: i64,
    spec: Value,
    reference: Option<&Reference>,
) -> Result<(), Failure> {
    let gate = Gate::new();
    scene.tap.plan(vec![Planned::at(point, Fault::HoldAfter(gate.clone()))]);
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, CHATS, spec)).await?;
    scene.reach(&gate, |seen| is_over(seen, &[SALE])).await?;
    scene.processes[0].jump(by);
    gate.open();
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    recorded(scene, |_| OutcomeName::Sent).await?;
    finish(scene, reference).await
}

/// A chat was refused once, and its next try is due a second later by a clock that says another day then.
async fn jump_before_the_next_try(scene: &mut Scene, by: i64) -> Result<(), Failure> {
    let refuse = json!({"refuse": {"status": 503, "code": "later", "retryable": true}});
    scene.set_gateway_faults(json!([{"when": {"chats": [chat_id(1)], "first": 1}, "do": refuse}]));
    let results = Point { name: CLAIM.0.to_owned(), occurrence: CLAIM.1 + 1 };
    jump(scene, &results, by, json!({"retry": {"minBackoffSeconds": 1}}), None).await
}

/// A campaign was sent and deleted, its key is kept for an hour, and then it is tomorrow by the clock of the operator.
async fn jump_past_the_end_of_a_key(scene: &mut Scene) -> Result<(), Failure> {
    scene.start_operator().await;
    let sale = broadcast(SALE, CHATS, json!({"campaignKey": "spring", "campaignRetentionSeconds": 3600}));
    scene.apply(&sale).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    scene.delete::<Broadcast>(SALE).await?;
    scene.until("it is gone", |seen| !seen.broadcasts.contains_key(SALE) && seen.pages.is_empty()).await?;
    scene.processes[0].jump(DAY);
    scene.apply(&sale).await?;
    let is_decided = |seen: &Seen| is_over(seen, &[SALE]) || state_of(seen, SALE) == "CampaignAlreadySent";
    scene.until("it is refused or sent", is_decided).await?;
    match (scene.requests_of(SALE), state_of(&scene.view.seen(), SALE).as_str()) {
        (CHATS, "CampaignAlreadySent") => Ok(()),
        (requests, state) => Err(format!("{requests} requests, and it is {state}")),
    }
}
