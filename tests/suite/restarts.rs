//! A restart goes to the chats that failed or were never reached, and to nobody else.

use std::collections::HashSet;

use broadcast_operator::api::Broadcast;
use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::simulator::SendQuery;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::common::books;
use crate::common::stage::{CHANNEL, Stage, broadcast, chat_id, condition, counts, restart};
use crate::restores::delete_and_keep_pages;

/// A restart that is interrupted right after it has taken its source.
pub async fn taken_by_first(stage: &Stage) {
    stage.apply(&restart("first", "sale", json!({"paused": true})));
    let uid = stage.wait_state("first", "Stopped").await.uid().expect("uid");
    let taken = json!({"status": {"restartedBy": {"name": "first", "uid": uid}}}).to_string();
    stage.kubectl(&["patch", "bc", "sale", "--subresource=status", "--type=merge", "-p", &taken]);
}

/// Stops a Broadcast of 300 half-way; three of its chats fail.
pub async fn stopped_half_way(stage: &Stage) -> Broadcast {
    let limits = json!({"limits": {"messagesPerSecond": 300}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    let failing: Vec<String> = (0..3).map(chat_id).collect();
    let refusal =
        json!({"refuse": {"status": 400, "code": "no_such_number", "message": "not on the network"}});
    stage.set_faults(json!([{"when": {"chats": failing}, "do": refusal}]));
    stage.apply(&broadcast("sale", 300, json!({})));
    stage.accepted("sale", 60).await;
    stage.pause("sale", true).await;
    stage.wait_state("sale", "Stopped").await
}

/// Nobody of a chain of restarts got more than one message.
pub fn check_chain(stage: &Stage, names: &[&str]) {
    let mut reached = HashSet::new();
    for name in names {
        for (chat, times) in books::accepted(stage, name) {
            assert!(
                times == 1 && reached.insert(chat.clone()),
                "{chat} got more than one message, the last of {name}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_a_corrected_text_goes_to_the_failed_and_the_unreached_only() {
    let stage = Stage::bare().await;
    let source = stopped_half_way(&stage).await;
    let reached = counts(&source).sent;
    stage.set_faults(json!([]));
    stage.apply(&restart("corrected", "sale", json!({"message": {"text": "Sorry {{ name }}: at ten."}})));
    let child = stage.complete("corrected").await;
    let rest = 300 - usize::try_from(reached).expect("positive");
    books::check_complete(&stage, &child, rest).await;
    assert_eq!(usize::try_from(counts(&child).sent), Ok(rest));
    check_chain(&stage, &["sale", "corrected"]);
    let texts = stage.gateway.ledger().sends(&SendQuery {
        broadcast: Some(format!("{}/corrected", stage.namespace)),
        ..SendQuery::default()
    });
    assert!(texts.iter().all(|send| send.text.starts_with("Sorry Guest ")));

    let source = stage.wait_state("sale", "Restarted").await;
    let status = source.status.clone().expect("status");
    assert_eq!(status.restarted_by.map(|by| by.name).as_deref(), Some("corrected"));
    assert_eq!(books::sum(&source), 300);
    assert_eq!(counts(&source).cancelled + counts(&source).sent + counts(&source).failed, 300);
    assert_eq!(counts(&source).pending, 0);
    let lineage = child.status.clone().and_then(|status| status.lineage).expect("lineage");
    assert_eq!((lineage.root.as_str(), lineage.depth, lineage.total, lineage.reached), ("sale", 1, 300, 300));
    assert_eq!(
        child.status.and_then(|status| status.restarted_from).map(|from| from.name).as_deref(),
        Some("sale")
    );

    // The source is closed for ever.
    stage.pause("sale", false).await;
    stage.apply(&broadcast("other", 20, json!({})));
    stage.complete("other").await;
    check_chain(&stage, &["sale", "corrected"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_annotation_makes_one_child_however_often_it_is_set() {
    let stage = Stage::bare().await;
    stopped_half_way(&stage).await;
    stage.set_faults(json!([]));
    for token in ["1", "2", "3"] {
        stage
            .patch("sale", json!({"metadata": {"annotations": {"broadcast-operator.dev/restart": token}}}))
            .await;
    }
    let child = stage.complete("sale-r1").await;
    check_chain(&stage, &["sale", "sale-r1"]);
    assert_eq!(child.owner_references().len(), 0, "deleting the old log does not end the new send");
    assert_eq!(child.labels().get("broadcast-operator.dev/restarted-from").map(String::as_str), Some("sale"));
    stage.wait_state("sale", "Restarted").await;
    let all = stage.api::<Broadcast>().list(&kube::api::ListParams::default()).await.expect("list");
    assert_eq!(all.items.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_annotation_waits_with_a_reason_until_there_is_something_to_send_again() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({})));
    stage.set_faults(
        json!([{"when": {"everyNth": 10}, "do": {"refuse": {"status": 400, "code": "no_such_number"}}}]),
    );
    stage.apply(&broadcast("sale", 30, json!({"paused": true})));
    stage.wait_state("sale", "Stopped").await;
    stage.patch("sale", json!({"metadata": {"annotations": {"broadcast-operator.dev/restart": "1"}}})).await;
    let refused = |broadcast: &Broadcast| {
        let conditions = broadcast.status.as_ref().map_or(&[][..], |status| &status.conditions);
        conditions.iter().find(|condition| condition.type_ == "RestartRefused").map(|one| one.reason.clone())
    };
    stage.wait("sale", "says why", |sale| refused(sale).as_deref() == Some("NotBegun")).await;
    stage.pause("sale", false).await;
    let child = stage.complete("sale-r1").await;
    assert_eq!(
        (child.status.and_then(|status| status.total), refused(&stage.broadcast("sale").await)),
        (Some(3), None)
    );
    check_chain(&stage, &["sale", "sale-r1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_restarts_reaches_everybody_once() {
    let stage = Stage::bare().await;
    stopped_half_way(&stage).await;
    stage.apply(&restart("second", "sale", json!({})));
    // The three still fail: they go on to the third.
    let second = stage.complete("second").await;
    assert_eq!(counts(&second).failed, 3);
    stage.set_faults(json!([]));
    stage.apply(&restart("third", "second", json!({})));
    let third = stage.complete("third").await;
    books::check_complete(&stage, &third, 3).await;
    check_chain(&stage, &["sale", "second", "third"]);
    let lineage = third.status.and_then(|status| status.lineage).expect("lineage");
    assert_eq!((lineage.root.as_str(), lineage.depth, lineage.total, lineage.reached), ("sale", 2, 300, 300));
    let everybody: HashSet<String> = ["sale", "second", "third"]
        .iter()
        .flat_map(|name| books::accepted(&stage, name).into_keys())
        .collect();
    assert_eq!(everybody.len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_waits_while_its_source_sends() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 100}})));
    stage.apply(&broadcast("sale", 400, json!({})));
    stage.accepted("sale", 10).await;
    stage.apply(&restart("again", "sale", json!({})));
    let waiting = stage.wait_state("again", "WaitingForSource").await;
    let message = condition(&waiting, "Ready").expect("Ready").message;
    assert!(message.contains("kubectl patch bc sale"), "{message}");
    assert_eq!(stage.pages("again").await.len(), 0);
    stage.pause("sale", true).await;
    let child = stage.complete("again").await;
    assert!(counts(&child).sent > 0);
    check_chain(&stage, &["sale", "again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_nothing_to_send_again_is_complete_at_once_and_says_so() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 5, json!({})));
    stage.complete("sale").await;
    stage.apply(&restart("again", "sale", json!({})));
    let child = stage.complete("again").await;
    assert_eq!(child.status.as_ref().and_then(|status| status.total), Some(0));
    let message = condition(&child, "Complete").expect("Complete").message;
    assert!(message.contains("nothing to send"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_would_get_nobody_leaves_its_source_to_one_that_does() {
    let stage = Stage::new().await;
    stage.set_faults(json!([{"do": {"statusAfterAccept": 504}}]));
    stage.apply(&broadcast("sale", 3, json!({})));
    assert_eq!(counts(&stage.complete("sale").await).unknown, 3);
    stage.patch("sale", json!({"metadata": {"annotations": {"broadcast-operator.dev/restart": "1"}}})).await;
    let empty = stage.wait_state("sale-r1", "NobodyIncluded").await;
    let message = condition(&empty, "Ready").expect("Ready").message;
    assert!(message.contains("3 Unknown"), "{message}");
    let source = stage.broadcast("sale").await.status.expect("status");
    assert_eq!(source.restarted_by, None);
    // Asking again changes nothing about it, and says so.
    stage.patch("sale", json!({"metadata": {"annotations": {"broadcast-operator.dev/restart": "2"}}})).await;
    let is_refused = |sale: &Broadcast| {
        condition(sale, "RestartRefused").is_some_and(|refused| {
            refused.reason == "RestartUnderWay" && refused.message.contains("describe bc sale-r1")
        })
    };
    stage.wait("sale", "says that its restart is there", is_refused).await;
    assert!(!stage.pages("sale").await.iter().any(|page| page.status.as_ref().is_some_and(|s| s.sealed)));

    // Whoever finds that they were not reached says so, as the message shows.
    stage.set_faults(json!([]));
    let (_, command) = message.split_once("kubectl ").expect("a command");
    let command = command.replace('\'', "");
    stage.kubectl(&command.split_whitespace().collect::<Vec<_>>());
    let child = stage.complete("sale-r1").await;
    books::check_complete(&stage, &child, 3).await;
    assert_eq!(counts(&child).sent, 3);
    stage.wait_state("sale", "Restarted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_cannot_be_says_why_and_sends_nothing() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 5, json!({})));
    let uid = stage.complete("sale").await.uid().expect("uid");
    stage.apply(&restart("missing", "nowhere", json!({})));
    stage.wait_state("missing", "SourceNotFound").await;
    let other = json!({"restartFrom": {"uid": "00000000-0000-0000-0000-000000000000"}});
    stage.apply(&restart("other-uid", "sale", other));
    stage.wait_state("other-uid", "SourceHasAnotherUid").await;
    stage.apply(&restart("first", "sale", json!({"restartFrom": {"uid": uid}})));
    stage.complete("first").await;
    stage.apply(&restart("second", "sale", json!({})));
    let refused = stage.wait_state("second", "AlreadyRestarted").await;
    let message = condition(&refused, "Stalled").expect("Stalled").message;
    assert!(message.contains("first"), "{message}");
    let itself = stage.try_apply(&restart("itself", "itself", json!({}))).expect_err("refused");
    assert!(itself.contains("cannot restart itself"), "{itself}");
    let both = restart("both", "sale", json!({"recipients": {"csv": "15550100001"}}));
    let both = stage.try_apply(&both).expect_err("refused");
    assert!(both.contains("takes its recipients from the source"), "{both}");
    assert_eq!(stage.gateway.ledger().summary().requests.requests, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_source_afterwards_does_not_touch_the_child() {
    let stage = Stage::bare().await;
    stopped_half_way(&stage).await;
    stage.apply(&restart("again", "sale", json!({})));
    stage.accepted("again", 10).await;
    stage.api::<Broadcast>().delete("sale", &DeleteParams::background()).await.expect("delete");
    stage.gone("sale").await;
    let child = stage.complete("again").await;
    books::check(&stage, "again").await;
    let rows = books::rows(&stage, "again").await;
    assert!(rows.iter().all(|(_, row)| matches!(row.outcome, Outcome::Sent | Outcome::Failed)));
    assert_eq!(books::sum(&child), i32::try_from(rows.len()).expect("few"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_is_deleted_before_it_began_gives_its_source_back() {
    let stage = Stage::bare().await;
    stopped_half_way(&stage).await;
    stage.set_faults(json!([]));
    // A restart that was interrupted between taking its source and sealing its audience.
    taken_by_first(&stage).await;
    stage.apply(&restart("second", "sale", json!({})));
    stage.wait_state("second", "AlreadyRestarted").await;
    stage.kubectl(&["delete", "bc", "first", "--timeout=60s"]);
    let second = stage.complete("second").await;
    books::check(&stage, "second").await;
    check_chain(&stage, &["sale", "second"]);
    assert!(counts(&second).sent > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_whose_name_is_taken_is_refused_and_changes_nothing_else() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale-r1", 1, json!({})));
    stage.apply(&broadcast("sale", 5, json!({})));
    stage.complete("sale").await;
    stage.patch("sale", json!({"metadata": {"annotations": {"broadcast-operator.dev/restart": "1"}}})).await;
    let refused = stage.wait("sale", "refused", |sale| condition(sale, "RestartRefused").is_some()).await;
    assert!(crate::common::stage::is_complete(&refused), "it is complete all the same");
    assert_eq!(books::sum(&refused), 5);
    let told = stage.warnings("RestartRefused").await;
    let [(name, note)] = &told[..] else { panic!("{told:?}") };
    assert!(name == "sale" && note.starts_with("NameTaken: "), "{name}: {note}");
    let wide = stage.kubectl(&["get", "bc", "sale", "-o", "wide"]);
    assert!(wide.contains("RESTART-REFUSED") && wide.contains("NameTaken"), "{wide}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_by_annotation_that_somebody_deletes_does_not_come_back() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 100}})));
    stage.apply(&broadcast("sale", 300, json!({})));
    stage.accepted("sale", 5).await;
    let annotate = async |token: &str| {
        let annotation = json!({"metadata": {"annotations": {"broadcast-operator.dev/restart": token}}});
        stage.patch("sale", annotation).await;
    };
    annotate("1").await;
    stage
        .wait("sale", "followed", |sale| sale.status.as_ref().is_some_and(|s| s.restart_token.is_some()))
        .await;
    stage.kubectl(&["delete", "bc", "sale-r1", "--timeout=60s"]);
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 300).await;
    let names = stage.kubectl(&["get", "bc", "-o", "name"]);
    assert_eq!(names.trim(), "broadcast.broadcast-operator.dev/sale");
    annotate("2").await;
    stage.complete("sale-r1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_is_held_leaves_its_source_alone() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 100}})));
    stage.apply(&broadcast("again", 2, json!({})));
    stage.complete("again").await;
    delete_and_keep_pages(&stage, "again").await;
    stage.apply(&broadcast("sale", 300, json!({})));
    stage.accepted("sale", 5).await;
    stage.pause("sale", true).await;
    stage.wait_state("sale", "Stopped").await;
    stage.apply(&restart("again", "sale", json!({})));
    stage.wait_state("again", "PagesOfAnotherBroadcast").await;
    let source = stage.broadcast("sale").await;
    assert!(source.status.is_some_and(|status| status.restarted_by.is_none()));
    stage.pause("sale", false).await;
    stage.complete("sale").await;
}
