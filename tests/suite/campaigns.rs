//! A campaign key is used once: the same campaign from a pipeline that runs again is not sent again.

use broadcast_operator::api::{Broadcast, BroadcastCampaign};
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::common::stage::{CHANNEL, Stage, broadcast, condition, restart, state};
use crate::restores::{lose_status, run_shown_command};

/// A Broadcast to five chats under a key, as a pipeline applies it.
fn campaign(name: &str, key: &str) -> Value {
    broadcast(name, 5, json!({"campaignKey": key}))
}

async fn campaigns(stage: &Stage) -> Vec<BroadcastCampaign> {
    stage.api::<BroadcastCampaign>().list(&ListParams::default()).await.expect("a list").items
}

async fn message(stage: &Stage, name: &str) -> String {
    condition(&stage.broadcast(name).await, "Stalled").expect("Stalled").message
}

/// Lets another Broadcast go its whole way: one that is refused has had its chance.
async fn another_goes(stage: &Stage, name: &str) {
    stage.apply(&broadcast(name, 5, json!({})));
    stage.complete(name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_runs_again_sends_nothing_and_another_key_does() {
    let mut stage = Stage::new().await;
    stage.apply(&campaign("sale", "spring-2026"));
    stage.complete("sale").await;
    stage.kubectl(&["delete", "bc", "sale", "--timeout=60s"]);
    stage.pages_gone("sale").await;
    stage.operator.kill_and_restart().await;
    stage.apply(&campaign("sale", "spring-2026"));
    stage.wait_state("sale", "CampaignAlreadySent").await;
    another_goes(&stage, "other").await;
    assert_eq!(
        (state(&stage.broadcast("sale").await), stage.requests_now("sale")),
        ("CampaignAlreadySent".into(), 5)
    );
    let message = message(&stage, "sale").await;
    assert!(message.contains("spring-2026") && message.contains("Broadcast sale"), "{message}");
    let kept = campaigns(&stage).await.remove(0).spec.kept_until.expect("an end");
    assert!(message.contains(&format!("until {}", kept.0)), "{message}");
    stage.apply(&campaign("sale", "spring-2026-again"));
    stage.complete("sale").await;
    assert_eq!(stage.accepted_now("sale"), 10);
    assert_eq!(campaigns(&stage).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broadcast_with_the_key_is_refused_while_the_first_is_there() {
    let stage = Stage::new().await;
    stage.apply(&campaign("first", "spring"));
    stage.complete("first").await;
    let mut second = campaign("second", "spring");
    second["spec"]["paused"] = json!(true);
    stage.apply(&second);
    stage.wait_state("second", "CampaignAlreadySent").await;
    stage.pause("second", false).await;
    another_goes(&stage, "other").await;
    let message = message(&stage, "second").await;
    assert!(message.contains("Broadcast first"), "{message}");
    assert_eq!(stage.requests_now("second"), 0);
    // The very command that the message shows.
    let (_, command) = message.split_once("kubectl ").expect("a command");
    stage.plane.kubectl(&command.split_whitespace().collect::<Vec<_>>(), "");
    stage.complete("second").await;
    assert_eq!(stage.accepted_now("second"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_broadcasts_with_one_key_at_the_same_time_one_is_sent() {
    let stage = Stage::new().await;
    let names: Vec<String> = (0..6).map(|number| format!("sale-{number}")).collect();
    let items: Vec<Value> = names.iter().map(|name| campaign(name, "spring")).collect();
    stage.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
    for name in &names {
        stage
            .wait(name, "sent or refused", |sale| {
                matches!(state(sale).as_str(), "Succeeded" | "CampaignAlreadySent")
            })
            .await;
    }
    let mut sent = 0;
    for name in &names {
        sent += usize::from(state(&stage.broadcast(name).await) == "Succeeded");
    }
    assert_eq!((sent, stage.gateway.ledger().summary().requests.requests), (1, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_free_after_its_time_and_then_its_object_goes() {
    let mut stage = Stage::new().await;
    let mut first = campaign("sale", "spring");
    first["spec"]["campaignRetentionSeconds"] = json!(1);
    stage.apply(&first);
    stage.complete("sale").await;
    stage.kubectl(&["delete", "bc", "sale", "--timeout=60s"]);
    stage.pages_gone("sale").await;
    // Refused or not at first, it goes by itself once the time is over.
    stage.apply(&first);
    stage.complete("sale").await;
    assert_eq!(stage.accepted_now("sale"), 10);
    stage.kubectl(&["delete", "bc", "sale", "--timeout=60s"]);
    let end = campaigns(&stage).await.remove(0).spec.kept_until.expect("an end").0;
    crate::common::wait::until("its time is over", async || {
        if broadcast_operator::clock::now() > end { Ok(()) } else { Err(end) }
    })
    .await;
    stage.operator.kill_and_restart().await;
    crate::common::wait::until("the key is gone", async || match campaigns(&stage).await.len() {
        0 => Ok(()),
        number => Err(number),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_ends_before_it_began_frees_its_key() {
    let stage = Stage::new().await;
    stage.apply(&campaign("first", "spring"));
    let first = stage.complete("first").await;
    stage.kubectl(&["delete", "bcp", "--all"]);
    stage.kubectl(&["delete", "bc", "first", "--timeout=60s"]);
    assert_eq!(campaigns(&stage).await.len(), 0, "a key that was freed by hand stays free");
    drop(first);
    // One that was interrupted between taking its key and its seal.
    stage.kubectl(&["delete", "bcc", CHANNEL]);
    stage.apply(&campaign("second", "spring"));
    let second = stage.wait_state("second", "ChannelNotFound").await;
    let taken = json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastCampaign",
        "metadata": {"name": broadcast_operator::domain::campaign::campaign_name("spring")},
        "spec": {
            "key": "spring", "broadcast": {"name": "second", "uid": second.metadata.uid},
            "startTime": "2026-01-01T00:00:00Z", "retentionSeconds": 60,
        },
    });
    stage.apply(&taken);
    stage.apply(&campaign("third", "spring"));
    stage.wait_state("third", "CampaignAlreadySent").await;
    let message = message(&stage, "third").await;
    let says =
        "campaign spring was taken by Broadcast second at 2026-01-01T00:00:00Z, and may have been sent since";
    assert!(message.starts_with(says), "nothing was sent: {message}");
    stage.kubectl(&["delete", "bc", "second", "--timeout=60s"]);
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({})));
    stage.complete("third").await;
    assert_eq!(stage.gateway.ledger().summary().requests.requests, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_was_let_go_without_its_finalizer_leaves_its_key_all_the_same() {
    let mut stage = Stage::new().await;
    stage.apply(&campaign("sale", "spring"));
    stage.complete("sale").await;
    stage.operator.kill();
    stage.patch("sale", json!({"metadata": {"finalizers": null}})).await;
    stage.kubectl(&["delete", "bc", "sale", "--timeout=60s"]);
    stage.pages_gone("sale").await;
    stage.apply(&campaign("sale", "spring"));
    stage.operator.restart().await;
    stage.wait_state("sale", "CampaignAlreadySent").await;
    another_goes(&stage, "other").await;
    assert_eq!(stage.requests_now("sale"), 5);
    assert!(campaigns(&stage).await[0].spec.kept_until.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_lost_its_status_leaves_its_key_all_the_same() {
    let stage = Stage::new().await;
    stage.apply(&campaign("sale", "spring"));
    let done = stage.complete("sale").await;
    let bare = Broadcast { status: None, ..done };
    stage.api::<Broadcast>().replace_status("sale", &PostParams::default(), &bare).await.expect("replaced");
    stage.wait_state("sale", "StatusLost").await;
    stage.kubectl(&["delete", "bc", "sale", "--timeout=60s"]);
    assert!(campaigns(&stage).await[0].spec.kept_until.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_broadcast_that_lost_its_status_is_not_freed_by_another_key() {
    let stage = Stage::new().await;
    stage.apply(&campaign("first", "spring"));
    stage.complete("first").await;
    lose_status(&stage, "first").await;
    stage.wait_state("first", "StatusLost").await;
    stage.apply(&campaign("second", "spring"));
    stage.wait_state("second", "CampaignAlreadySent").await;
    // Its start is forgotten, so nothing forbids it.
    stage.apply(&campaign("first", "summer"));
    stage.patch("second", json!({"spec": {"retry": {"maxAttempts": 7}}})).await;
    let looked_at = stage.wait("second", "looked at, or sent", |second| {
        let status = second.status.as_ref().expect("a status");
        Some(status.observed_generation) == second.metadata.generation && state(second) != "Planning"
    });
    assert_eq!(state(&looked_at.await), "CampaignAlreadySent");
    // Also once it has taken the other one, for it was sent under the first.
    run_shown_command(&stage, &stage.broadcast("first").await);
    stage.complete("first").await;
    stage.kubectl(&["delete", "bc", "second", "--timeout=60s"]);
    stage.apply(&campaign("second", "spring"));
    stage.wait_state("second", "CampaignAlreadySent").await;
    assert_eq!((stage.requests_now("first"), stage.requests_now("second")), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_fixed_once_sending_began_and_a_restart_has_none() {
    let stage = Stage::new().await;
    stage.apply(&campaign("sale", "spring"));
    stage.complete("sale").await;
    let other = stage.try_apply(&campaign("sale", "summer")).expect_err("refused");
    assert!(other.contains("campaignKey may not change"), "{other}");
    let none = stage.try_apply(&broadcast("sale", 5, json!({}))).expect_err("refused");
    assert!(none.contains("campaignKey may not change"), "{none}");
    let again = restart("again", "sale", json!({"campaignKey": "spring"}));
    let again = stage.try_apply(&again).expect_err("refused");
    assert!(again.contains("remove campaignKey"), "{again}");
    let alone = broadcast("alone", 5, json!({"campaignRetentionSeconds": 5}));
    let alone = stage.try_apply(&alone).expect_err("refused");
    assert!(alone.contains("needs campaignKey"), "{alone}");
    // A restart of it goes on with the same campaign.
    stage.apply(&restart("again", "sale", json!({})));
    stage.complete("again").await;
}
