//! Pages that somebody deletes under a running operator and puts back from a backup: it has seen that they were further.

use broadcast_operator::api::{Broadcast, BroadcastBatch};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::common::books;
use crate::common::stage::{CHANNEL, Stage, broadcast, condition};

const FIRST: &str = "sale-00000";

/// A Broadcast of several pages that is being sent, and its first page as a backup has it.
async fn with_backup(stage: &Stage, chats: usize, per_second: u32) -> BroadcastBatch {
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": per_second}})));
    stage.apply(&broadcast("sale", chats, json!({})));
    stage.accepted("sale", 10).await;
    stage.api::<BroadcastBatch>().get(FIRST).await.expect("the page")
}

async fn delete(stage: &Stage) {
    stage.api::<BroadcastBatch>().delete(FIRST, &DeleteParams::default()).await.expect("deleted");
}

/// Restores a page as tools do: another object, and then its status.
async fn restore(stage: &Stage, page: &BroadcastBatch) {
    let (api, params) = (stage.api::<BroadcastBatch>(), PostParams::default());
    let mut again = page.clone();
    (again.metadata.uid, again.metadata.resource_version) = (None, None);
    let made = api.create(&params, &again).await.expect("created");
    let again = BroadcastBatch { status: page.status.clone(), ..made };
    api.replace_status(FIRST, &params, &again).await.expect("replaced");
}

fn check_nobody_got_it_twice(stage: &Stage) {
    let twice = books::accepted(stage, "sale").into_iter().filter(|(_, times)| *times > 1).count();
    assert_eq!(twice, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_comes_back_older_while_others_are_sent_is_held() {
    let stage = Stage::bare().await;
    let first = with_backup(&stage, 2000, 400).await;
    // All of the first page, and more of the others than it had.
    stage.accepted("sale", 600).await;
    delete(&stage).await;
    restore(&stage, &first).await;
    let held = stage.wait_state("sale", "BatchesWentBack").await;
    let message = condition(&held, "Stalled").expect("Stalled").message;
    assert!(message.contains("accept-restored="), "{message}");
    check_nobody_got_it_twice(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_comes_back_as_it_was_is_sent_on() {
    let stage = Stage::bare().await;
    with_backup(&stage, 600, 100).await;
    stage.pause("sale", true).await;
    stage.wait_state("sale", "Stopped").await;
    let page = stage.api::<BroadcastBatch>().get(FIRST).await.expect("the page");
    delete(&stage).await;
    restore(&stage, &page).await;
    stage.pause("sale", false).await;
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_lost_its_status_and_its_pages_is_not_planned_anew() {
    let stage = Stage::bare().await;
    with_backup(&stage, 200, 20).await;
    stage.pause("sale", true).await;
    let stopped = stage.wait_state("sale", "Stopped").await;
    delete(&stage).await;
    let bare = Broadcast { status: None, ..stage.broadcast("sale").await };
    let api = stage.api::<Broadcast>();
    api.replace_status("sale", &PostParams::default(), &bare).await.expect("replaced");
    assert!(stopped.status.is_some_and(|status| status.batches.is_some()), "it was sealed");
    stage.pause("sale", false).await;
    let held = stage.wait_state("sale", "StatusLost").await;
    let message = condition(&held, "Stalled").expect("Stalled").message;
    assert!(message.contains("was sent from") && message.contains("accept-restored="), "{message}");
    check_nobody_got_it_twice(&stage);
}
