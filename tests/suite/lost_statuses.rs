//! A restart or its source that lost its status: its pages, and the other one, say what was sent, so nobody gets one message more.

use broadcast_operator::api::{Broadcast, BroadcastBatch};
use broadcast_operator::clock;
use broadcast_operator::domain::outcome::{Outcome, Row};
use broadcast_operator::domain::page::Page;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::json;

use crate::common::books;
use crate::common::stage::{Stage, condition, counts, is_complete, restart, state};
use crate::restarts::{check_chain, stopped_half_way, taken_by_first};
use crate::restores::{lose_status, message, run_shown_command, stopped_after};

/// The source of a restart that is complete.
async fn restarted(stage: &Stage) -> Broadcast {
    let source = stopped_half_way(stage).await;
    stage.set_faults(json!([]));
    stage.apply(&restart("again", "sale", json!({})));
    stage.complete("again").await;
    stage.wait_state("sale", "Restarted").await;
    source
}

/// A restart more, which is refused. Out: what it says.
async fn refused(stage: &Stage, name: &str) -> String {
    stage.apply(&restart(name, "sale", json!({})));
    let decided = |third: &Broadcast| is_complete(third) || state(third) == "AlreadyRestarted";
    let third = stage.wait(name, "refused or sent", decided).await;
    check_chain(stage, &["sale", "again", name]);
    assert_eq!((state(&third).as_str(), stage.requests_now(name)), ("AlreadyRestarted", 0));
    message(&third)
}

/// Changes the stored pages of a Broadcast.
async fn change_pages(stage: &Stage, name: &str, change: impl Fn(usize, &mut Page)) {
    for batch in stage.pages(name).await {
        let mut page = Page::parse(&batch).expect("a page");
        change(usize::try_from(batch.spec.index).expect("positive"), &mut page);
        let next = BroadcastBatch { status: Some(page.status()), ..batch };
        let api = stage.api::<BroadcastBatch>();
        api.replace_status(&next.name_any(), &PostParams::default(), &next).await.expect("replaced");
    }
}

/// A receipt, late enough to come after a restart: a chat of the source that failed has its message after all.
async fn a_failed_chat_was_reached(stage: &Stage) {
    change_pages(stage, "sale", |index, page| {
        if index == 0 {
            assert_eq!(page.rows()[0].outcome, Outcome::Failed);
            page.merge(0, &Row::known(Outcome::Delivered, 1, clock::now()));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_lost_its_status_keeps_its_source_when_it_is_deleted() {
    for its_pages_go_first in [false, true] {
        let stage = Stage::bare().await;
        restarted(&stage).await;
        lose_status(&stage, "again").await;
        stage.wait_state("again", "StatusLost").await;
        if its_pages_go_first {
            stage.kubectl(&["delete", "bcb", "-l", "broadcast-operator.dev/broadcast=again"]);
        }
        stage.kubectl(&["delete", "bc", "again", "--timeout=60s"]);
        let annotation = json!({"metadata": {"annotations": {"broadcast-operator.dev/restart": "1"}}});
        stage.patch("sale", annotation).await;
        let answered = stage.wait("sale", "the annotation is answered", |sale| {
            let is_followed = sale.status.as_ref().is_some_and(|status| status.restart_token.is_some());
            is_followed || condition(sale, "RestartRefused").is_some()
        });
        let refusal = condition(&answered.await, "RestartRefused").expect("it is refused");
        assert_eq!(refusal.reason, "AlreadyRestarted");
        refused(&stage, "third").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lost_its_status_finds_its_restart_again() {
    let stage = Stage::bare().await;
    restarted(&stage).await;
    lose_status(&stage, "sale").await;
    let held = stage.wait_state("sale", "StatusLost").await;
    run_shown_command(&stage, &held);
    stage.pause("sale", false).await;
    let source = stage.complete("sale").await;
    let by = source.status.as_ref().and_then(|status| status.restarted_by.as_ref());
    assert_eq!((state(&source).as_str(), by.map(|by| by.name.as_str())), ("Restarted", Some("again")));
    assert!(refused(&stage, "third").await.contains("again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_restart_is_forgotten_is_not_restarted_again() {
    let stage = Stage::bare().await;
    restarted(&stage).await;
    stage.kubectl(&["delete", "bc", "again", "--timeout=60s"]);
    lose_status(&stage, "sale").await;
    let held = stage.wait_state("sale", "StatusLost").await;
    run_shown_command(&stage, &held);
    stage.pause("sale", false).await;
    let source = stage.complete("sale").await;
    let says = condition(&source, "Complete").expect("Complete").message;
    assert!(says.contains("left over by a restart that is not known any more"), "{says}");
    let refusal = refused(&stage, "third").await;
    assert!(refusal.contains("a Broadcast with recipients of its own"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_status_is_older_than_its_restart_is_not_restarted_again() {
    let stage = Stage::bare().await;
    let before = restarted(&stage).await;
    let now = stage.broadcast("sale").await;
    let older = Broadcast { status: before.status, ..now };
    stage.api::<Broadcast>().replace_status("sale", &PostParams::default(), &older).await.expect("replaced");
    assert!(refused(&stage, "third").await.contains("again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restart_closed_before_it_was_deleted_goes_to_the_next_one() {
    let stage = Stage::bare().await;
    stopped_half_way(&stage).await;
    stage.set_faults(json!([]));
    // A restart that was interrupted between closing its source and sealing its audience.
    taken_by_first(&stage).await;
    change_pages(&stage, "sale", |_, page| page.seal(clock::now()).expect("no claim")).await;
    stage.kubectl(&["delete", "bc", "first", "--timeout=60s"]);
    stage.apply(&restart("second", "sale", json!({})));
    let second = stage.complete("second").await;
    check_chain(&stage, &["sale", "second"]);
    let cancelled = counts(&stage.wait_state("sale", "Restarted").await).cancelled;
    assert_eq!(counts(&second).sent, cancelled + 3, "with those that failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_lost_its_status_goes_on_although_its_source_has_changed() {
    let stage = Stage::bare().await;
    stopped_half_way(&stage).await;
    stage.set_faults(json!([]));
    stage.apply(&restart("again", "sale", json!({})));
    stage.accepted("again", 60).await;
    stage.pause("again", true).await;
    let audience = stage.wait_state("again", "Stopped").await.status.and_then(|status| status.total);
    lose_status(&stage, "again").await;
    let held = stage.wait_state("again", "StatusLost").await;
    a_failed_chat_was_reached(&stage).await;
    run_shown_command(&stage, &held);
    stage.pause("again", false).await;
    let done = stage.complete("again").await;
    let audience = usize::try_from(audience.expect("a total")).expect("positive");
    books::check_complete(&stage, &done, audience).await;
    assert_eq!(usize::try_from(counts(&done).sent), Ok(audience));
    check_chain(&stage, &["sale", "again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_of_a_lost_page_of_a_restart_are_unknown_unless_the_source_has_reached_them_since() {
    let stage = Stage::bare().await;
    let refusal =
        json!({"refuse": {"status": 400, "code": "no_such_number", "message": "not on the network"}});
    stage.set_faults(json!([{"when": {"chats": [crate::common::stage::chat_id(0)]}, "do": refusal}]));
    stopped_after(&stage, 60).await;
    stage.set_faults(json!([]));
    stage.apply(&restart("again", "sale", json!({})));
    stage.accepted("again", 300).await;
    stage.pause("again", true).await;
    let before = stage.wait_state("again", "Stopped").await;
    lose_status(&stage, "again").await;
    stage.kubectl(&["delete", "bcb", "again-00000"]);
    let held = stage.wait_state("again", "StatusLost").await;
    a_failed_chat_was_reached(&stage).await;
    run_shown_command(&stage, &held);
    stage.pause("again", false).await;
    let done = stage.complete("again").await;
    let total = before.status.and_then(|status| status.total).expect("a total");
    let audience = usize::try_from(total - 1).expect("positive");
    books::check_complete(&stage, &done, audience).await;
    assert_eq!((counts(&done).sent, counts(&done).unknown), (total - 250, 249));
    check_chain(&stage, &["sale", "again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_broadcast_whose_lost_status_is_accepted_is_stopped_and_as_far_as_it_was() {
    let stage = Stage::bare().await;
    let before = stopped_after(&stage, 100).await;
    lose_status(&stage, "sale").await;
    let held = stage.wait_state("sale", "StatusLost").await;
    run_shown_command(&stage, &held);
    let stopped = stage.wait_state("sale", "Stopped").await;
    let says = condition(&stopped, "Suspended").expect("Suspended").message;
    assert!(says.contains("nothing is in flight") && !says.contains("edited"), "{says}");
    stage.wait("sale", "as far as it was", |sale| counts(sale) == counts(&before)).await;
    // It has begun, so a restart may take it, and its audience is fixed.
    let other = stage.try_apply(&crate::common::stage::broadcast("sale", 601, json!({}))).expect_err("fixed");
    assert!(other.contains("recipients may not change"), "{other}");
    stage.apply(&restart("again", "sale", json!({})));
    stage.complete("again").await;
    check_chain(&stage, &["sale", "again"]);
}
