//! Pages that the API server refuses to store: people see it, nothing is sent twice, and all goes on when they are stored again.

use broadcast_operator::api::{BroadcastBatch, BroadcastBatchSpec, BroadcastIdentity};
use serde_json::json;

use crate::common::books;
use crate::common::policy::Policy;
use crate::common::stage::{CHANNEL, Stage, broadcast, condition, counts};
use crate::common::wait::until;

const GROUP: &str = "broadcast-operator.dev";

/// A page of nobody.
fn page() -> BroadcastBatch {
    let spec = BroadcastBatchSpec {
        broadcast: BroadcastIdentity { name: "nobody".into(), uid: "none".into() },
        index: 0,
        recipients: "chat\n".into(),
    };
    BroadcastBatch::new("nobody-00000", spec)
}

/// Waits until there is a warning for people.
async fn is_told(stage: &Stage) -> String {
    until("there is an event", async || {
        let events =
            stage.kubectl(&["get", "events", "--field-selector", "reason=BatchNotStored", "-o", "yaml"]);
        if events.contains("kind: Broadcast") { Ok(events) } else { Err(events) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_refused_while_planning_is_said_and_the_plan_goes_on_when_it_is_taken() {
    let stage = Stage::new().await;
    let policy = Policy::apply(stage.plane, &stage.namespace, (GROUP, "broadcastbatches"), "false");
    policy.refuses(&stage.api(), &page()).await;
    stage.apply(&broadcast("sale", 20, json!({})));
    let held_up = stage.wait_state("sale", "BatchNotStored").await;
    let stalled = condition(&held_up, "Stalled").expect("it needs a person");
    assert!(
        stalled.message.contains("sale-00000") && stalled.message.contains("the policy of a test"),
        "{stalled:?}"
    );
    is_told(&stage).await;
    assert!(stage.operator.metric("broadcast_batches_not_stored_total", "Invalid").await > 0);
    policy.lift();
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_and_claims_that_are_refused_are_told_and_nothing_is_sent_twice_or_lost() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 50}})));
    stage.apply(&broadcast("sale", 400, json!({})));
    stage.accepted("sale", 40).await;
    let policy = Policy::apply(stage.plane, &stage.namespace, (GROUP, "broadcastbatches/status"), "false");
    let events = is_told(&stage).await;
    assert!(events.contains("sale-0000") && events.contains("type: Warning"), "{events}");
    assert!(stage.operator.metric("broadcast_batches_not_stored_total", "Invalid").await > 0);
    assert!(stage.requests_now("sale") < 400, "it stopped in the middle");
    policy.lift();
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 400).await;
    assert_eq!(counts(&done).sent, 400, "the answers were in memory, and are recorded now");
}
