//! What was restored or recreated is held: nothing is sent until a person accepts what was found, with the very command that
//! the condition shows.

use std::collections::HashSet;

use broadcast_operator::api::{Broadcast, BroadcastBatch, HoldReason};
use broadcast_operator::domain::outcome::Outcome;
use kube::api::PostParams;
use serde_json::json;

use crate::common::books;
use crate::common::stage::{CHANNEL, Stage, broadcast, condition, counts, is_complete, restart, state};

/// What a person reads of a Broadcast that needs them.
pub fn message(held: &Broadcast) -> String {
    condition(held, "Stalled").expect("Stalled").message
}

/// Runs the command that a hold shows, as it stands.
pub fn run_shown_command(stage: &Stage, held: &Broadcast) {
    let message = message(held);
    let (_, command) = message.split_once("kubectl ").unwrap_or_else(|| panic!("no command in {message}"));
    stage.plane.kubectl(&command.split_whitespace().collect::<Vec<_>>(), "");
}

/// A person or a script that guesses, and a pipeline that applies something new. Then another Broadcast goes its whole way: a
/// held one has had its chance.
async fn check_still_held(stage: &Stage, name: &str, round: &str) {
    let before = stage.requests_now(name);
    let reason = state(&stage.broadcast(name).await);
    stage.kubectl(&[
        "annotate",
        "--overwrite",
        &format!("bc/{name}"),
        "broadcast-operator.dev/accept-restored=00000000",
    ]);
    stage.patch(name, json!({"spec": {"retry": {"maxAttempts": 7}}})).await;
    let seen = stage.wait(name, "the other token is seen", |held| {
        condition(held, "Stalled").is_some_and(|stalled| {
            stalled.message.contains("is not obeyed") && stalled.message.contains("accept-restored=")
        })
    });
    assert_eq!(state(&seen.await), reason);
    stage.pause(name, true).await;
    stage.pause(name, false).await;
    stage.apply(&broadcast(round, 5, json!({})));
    stage.complete(round).await;
    assert_eq!(state(&stage.broadcast(name).await), reason);
    assert_eq!(stage.requests_now(name), before, "nothing is sent while it is held");
}

/// A Broadcast of 600 that was stopped when about this many of its messages were sent.
pub async fn stopped_after(stage: &Stage, messages: usize) -> Broadcast {
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 400}})));
    stage.apply(&broadcast("sale", 600, json!({})));
    stage.accepted("sale", messages).await;
    stage.pause("sale", true).await;
    stage.wait_state("sale", "Stopped").await
}

/// Deletes a Broadcast whose pages stay, as after a restore from a backup. `--cascade=orphan` does the same, once the garbage
/// collector has heard of the kind.
pub async fn delete_and_keep_pages(stage: &Stage, name: &str) {
    for page in stage.pages(name).await {
        let orphan = json!({"metadata": {"ownerReferences": null}}).to_string();
        let page = page.metadata.name.expect("a name");
        stage.kubectl(&["patch", "bcb", &page, "--type=merge", "-p", &orphan]);
    }
    stage.kubectl(&["delete", "bc", name, "--timeout=60s"]);
}

/// Takes the status of a Broadcast away, as a restore without statuses does.
pub async fn lose_status(stage: &Stage, name: &str) {
    let stored = stage.broadcast(name).await;
    let bare = Broadcast { status: None, ..stored };
    stage.api::<Broadcast>().replace_status(name, &PostParams::default(), &bare).await.expect("replaced");
}

/// Puts the statuses of pages back to what they were, as a restore of an older backup does.
async fn put_back(stage: &Stage, pages: &[BroadcastBatch]) {
    for page in pages {
        let name = page.metadata.name.as_deref().expect("a name");
        let now = stage.api::<BroadcastBatch>().get(name).await.expect("the page");
        let older = BroadcastBatch { status: page.status.clone(), ..now };
        let params = PostParams::default();
        stage.api::<BroadcastBatch>().replace_status(name, &params, &older).await.expect("replaced");
    }
}

/// Chats of a Broadcast that got its message more than once.
fn twice(stage: &Stage, name: &str) -> HashSet<String> {
    let accepted = books::accepted(stage, name).into_iter();
    accepted.filter(|(_, times)| *times > 1).map(|(chat, _)| chat).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_broadcast_whose_old_pages_are_there_is_held_and_then_goes_to_everybody() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 5, json!({})));
    stage.complete("sale").await;
    delete_and_keep_pages(&stage, "sale").await;
    stage.apply(&broadcast("sale", 5, json!({})));
    let held = stage.wait_state("sale", "PagesOfAnotherBroadcast").await;
    let shown = held.status.as_ref().and_then(|status| status.hold.clone()).expect("a hold");
    assert_eq!(shown.reason, HoldReason::PagesOfAnotherBroadcast);
    assert!(message(&held).ends_with(&format!("accept-restored={}", shown.token)), "{}", message(&held));
    check_still_held(&stage, "sale", "other").await;
    run_shown_command(&stage, &stage.broadcast("sale").await);
    let done = stage.complete("sale").await;
    assert_eq!(stage.accepted_now("sale"), 10, "now a person has decided");
    let pages = stage.pages("sale").await;
    assert!(pages.iter().all(|page| Some(&page.spec.broadcast.uid) == done.metadata.uid.as_ref()));
    let status = done.status.expect("status");
    assert_eq!((status.hold, status.accepted_token), (None, Some(shown.token)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_stays_when_its_reason_goes_away_at_once() {
    let mut stage = Stage::new().await;
    stage.apply(&broadcast("sale", 5, json!({})));
    stage.complete("sale").await;
    delete_and_keep_pages(&stage, "sale").await;
    stage.apply(&broadcast("sale", 5, json!({})));
    let first = stage.wait("sale", "a first status", |sale| sale.status.is_some()).await;
    assert!(state(&first) == "Planning" || state(&first) == "PagesOfAnotherBroadcast");
    let held = stage.wait_state("sale", "PagesOfAnotherBroadcast").await;
    let written = condition(&held, "Stalled").expect("Stalled").last_transition_time.0;
    let created = held.metadata.creation_timestamp.clone().expect("a time").0;
    assert!(written.duration_since(created).as_secs() <= 1, "it does not wait for its turn to be written");
    stage.kubectl(&["delete", "bcb", "--all"]);
    stage.operator.kill_and_restart().await;
    check_still_held(&stage, "sale", "other").await;
    run_shown_command(&stage, &held);
    stage.complete("sale").await;
    assert_eq!(stage.accepted_now("sale"), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_lost_its_status_goes_on_from_its_pages() {
    let stage = Stage::bare().await;
    stopped_after(&stage, 100).await;
    lose_status(&stage, "sale").await;
    stage.pause("sale", false).await;
    let held = stage.wait_state("sale", "StatusLost").await;
    check_still_held(&stage, "sale", "other").await;
    run_shown_command(&stage, &held);
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 600).await;
    assert_eq!(counts(&done).sent, 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_lost_its_status_while_it_was_sent_can_be_deleted() {
    let mut stage = Stage::bare().await;
    stopped_after(&stage, 100).await;
    stage.operator.kill();
    lose_status(&stage, "sale").await;
    // A backup that was made while a window was being sent.
    let mut page = stage.api::<BroadcastBatch>().get("sale-00002").await.expect("the page");
    let claim = json!({"incarnation": "of-another-time", "attempt": 1, "from": 0, "to": 5, "time": "2026-01-01T00:00:00Z"});
    page.status.as_mut().expect("a status").claim = Some(serde_json::from_value(claim).expect("a claim"));
    let pages = stage.api::<BroadcastBatch>();
    pages.replace_status("sale-00002", &PostParams::default(), &page).await.expect("replaced");
    stage.operator.restart().await;
    stage.wait_state("sale", "StatusLost").await;
    // As long as a request of a sender that lost sight of it may take.
    stage.apply(&stage.channel(CHANNEL, json!({"timeoutSeconds": 1}), json!({})));
    stage.kubectl(&["delete", "bc", "sale", "--timeout=60s"]);
    stage.gone("sale").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_lost_its_status_and_a_page_does_not_send_to_the_chats_of_that() {
    let mut stage = Stage::bare().await;
    stopped_after(&stage, 100).await;
    stage.operator.kill();
    lose_status(&stage, "sale").await;
    stage.kubectl(&["delete", "bcb", "sale-00002"]);
    // Half a page: its recipients, without what became of them.
    let page = stage.api::<BroadcastBatch>().get("sale-00001").await.expect("the page");
    let bare = BroadcastBatch { status: None, ..page };
    let pages = stage.api::<BroadcastBatch>();
    pages.replace_status("sale-00001", &PostParams::default(), &bare).await.expect("replaced");
    stage.operator.restart().await;
    stage.pause("sale", false).await;
    let held = stage.wait_state("sale", "StatusLost").await;
    run_shown_command(&stage, &held);
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 600).await;
    assert_eq!((counts(&done).sent, counts(&done).unknown), (250, 350));
    // Whoever knows that they were not reached says so, and nobody else is.
    stage.apply(&restart("rest", "sale", json!({"restartFrom": {"include": ["Unknown"]}})));
    assert_eq!(counts(&stage.complete("rest").await).sent, 350);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_lost_its_status_is_not_guessed_from_another_audience() {
    let stage = Stage::bare().await;
    stopped_after(&stage, 100).await;
    lose_status(&stage, "sale").await;
    let held = stage.wait_state("sale", "StatusLost").await;
    stage.apply(&broadcast("sale", 601, json!({})));
    run_shown_command(&stage, &held);
    stage.pause("sale", false).await;
    let changed = stage.wait_state("sale", "AudienceChanged").await;
    let sent = stage.requests_now("sale");
    assert!(message(&changed).contains("sale-00002"), "{}", message(&changed));
    stage.apply(&broadcast("sale", 600, json!({})));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 600).await;
    assert!(sent < 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_pages_are_given_up_and_the_others_are_sent() {
    let stage = Stage::bare().await;
    stopped_after(&stage, 300).await;
    stage.kubectl(&["delete", "bcb", "sale-00001"]);
    // It was sealed long enough ago that the page cannot be on its way.
    let long_ago = json!({"status": {"startTime": "2026-01-01T00:00:00Z"}}).to_string();
    stage.kubectl(&["patch", "bc", "sale", "--subresource=status", "--type=merge", "-p", &long_ago]);
    let held = stage.wait_state("sale", "BatchesMissing").await;
    assert!(message(&held).contains("2 of 3 batches"), "{}", message(&held));
    stage.pause("sale", false).await;
    check_still_held(&stage, "sale", "other").await;
    run_shown_command(&stage, &held);
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 600).await;
    assert_eq!((counts(&done).sent, counts(&done).unknown), (350, 250));
    let rows = books::rows(&stage, "sale").await;
    assert!(
        rows.iter().filter(|(_, row)| row.outcome == Outcome::Unknown).all(|(_, row)| row.code == "LogLost")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_restored_end_the_hold_by_themselves() {
    let stage = Stage::bare().await;
    stopped_after(&stage, 100).await;
    let lost = stage.api::<BroadcastBatch>().get("sale-00002").await.expect("the page");
    stage.kubectl(&["delete", "bcb", "sale-00002"]);
    let long_ago = json!({"status": {"startTime": "2026-01-01T00:00:00Z"}}).to_string();
    stage.kubectl(&["patch", "bc", "sale", "--subresource=status", "--type=merge", "-p", &long_ago]);
    stage.wait_state("sale", "BatchesMissing").await;
    let mut again = lost.clone();
    again.metadata.resource_version = None;
    again.metadata.uid = None;
    stage.api::<BroadcastBatch>().create(&PostParams::default(), &again).await.expect("created");
    put_back(&stage, &[lost]).await;
    stage.pause("sale", false).await;
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 600).await;
}

/// A Broadcast whose pages were put back to an earlier stop, with the operator running or not.
async fn went_back(stage: &mut Stage, is_running: bool) -> (Broadcast, i32) {
    let first = stopped_after(stage, 100).await;
    let pages = stage.pages("sale").await;
    stage.pause("sale", false).await;
    stage.accepted("sale", 300).await;
    stage.pause("sale", true).await;
    let second = stage.wait("sale", "stopped again", |sale| {
        let status = sale.status.as_ref().expect("a status");
        state(sale) == "Stopped" && Some(status.observed_generation) == sale.metadata.generation
    });
    let second = second.await;
    let forgotten = counts(&second).sent - counts(&first).sent;
    if is_running {
        put_back(stage, &pages).await;
    } else {
        stage.operator.kill();
        put_back(stage, &pages).await;
        stage.operator.restart().await;
    }
    stage.pause("sale", false).await;
    (stage.wait_state("sale", "BatchesWentBack").await, forgotten)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_went_back_before_the_operator_started_are_held() {
    let mut stage = Stage::bare().await;
    let (held, forgotten) = went_back(&mut stage, false).await;
    assert!(message(&held).contains(&format!("{forgotten} chats")), "{}", message(&held));
    assert_eq!(counts(&held).sent + counts(&held).pending, 600, "the counts stay: they are what shows it");
    check_still_held(&stage, "sale", "other").await;
    // A restart would send to those that the log has forgotten.
    stage.pause("sale", true).await;
    stage.apply(&restart("rest", "sale", json!({})));
    stage.wait_state("rest", "SourceHeld").await;
    stage.kubectl(&["delete", "bc", "rest"]);
    stage.pause("sale", false).await;
    run_shown_command(&stage, &stage.broadcast("sale").await);
    let done = stage.complete("sale").await;
    assert_eq!(counts(&done).sent, 600);
    let twice = twice(&stage, "sale").len();
    assert_eq!(i32::try_from(twice), Ok(forgotten), "as the message said, and nobody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_went_back_under_a_running_operator_are_held() {
    let mut stage = Stage::bare().await;
    let (_, forgotten) = went_back(&mut stage, true).await;
    // The pages went back one after the other.
    let says_all =
        |held: &Broadcast| message(held).contains(&format!("what became of {forgotten} chats at least"));
    let held = stage.wait("sale", "all of it is noticed", says_all).await;
    check_still_held(&stage, "sale", "other").await;
    run_shown_command(&stage, &held);
    let done = stage.complete("sale").await;
    assert_eq!(counts(&done).sent, 600);
    assert_eq!(i32::try_from(twice(&stage, "sale").len()), Ok(forgotten));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_accepts_more_pages_that_went_back_than_were_shown() {
    let stage = Stage::bare().await;
    let first = stopped_after(&stage, 100).await;
    let pages = stage.pages("sale").await;
    stage.pause("sale", false).await;
    stage.accepted("sale", 400).await;
    stage.pause("sale", true).await;
    stage.wait("sale", "it stops again", |sale| counts(sale).sent >= 400 && state(sale) == "Stopped").await;
    put_back(&stage, &pages[..1]).await;
    let one = stage.wait_state("sale", "BatchesWentBack").await;
    put_back(&stage, &pages[1..2]).await;
    let more = stage.wait("sale", "the second page is noticed", |held| message(held) != message(&one)).await;
    let chats = |held: &Broadcast| {
        held.status.as_ref().and_then(|status| status.hold.as_ref()).and_then(|hold| hold.chats)
    };
    assert!(chats(&one).is_some_and(|one| one > 0) && chats(&one) < chats(&more), "{}", message(&more));
    stage.pause("sale", false).await;
    run_shown_command(&stage, &one);
    let refused = stage.wait("sale", "the first token is refused", |held| {
        condition(held, "Stalled").is_some_and(|stalled| stalled.message.contains("is not obeyed"))
    });
    assert_eq!(state(&refused.await), "BatchesWentBack");
    run_shown_command(&stage, &more);
    let done = stage.complete("sale").await;
    assert_eq!(counts(&done).sent, 600);
    assert!(
        twice(&stage, "sale").len() <= usize::try_from(counts(&done).sent - counts(&first).sent).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_page_that_goes_back_while_others_are_sent_is_noticed() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 400}})));
    stage.apply(&broadcast("sale", 2000, json!({})));
    stage.accepted("sale", 10).await;
    let first = stage.pages("sale").await.into_iter().take(1).collect::<Vec<_>>();
    // All of the first page, and more of the others than it had.
    stage.accepted("sale", 600).await;
    put_back(&stage, &first).await;
    stage.wait_state("sale", "BatchesWentBack").await;
    let sent = stage.requests_now("sale");
    check_still_held(&stage, "sale", "other").await;
    assert!(sent < 2000);
    assert_eq!(twice(&stage, "sale"), HashSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_complete_stays_so_when_its_pages_go_back() {
    let mut stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 400}})));
    stage.apply(&broadcast("sale", 300, json!({})));
    stage.accepted("sale", 50).await;
    let pages = stage.pages("sale").await;
    stage.complete("sale").await;
    put_back(&stage, &pages).await;
    stage.operator.kill_and_restart().await;
    let seen = stage.wait("sale", "it is seen", |sale| {
        condition(sale, "Complete").is_some_and(|complete| complete.message.contains("older than its counts"))
    });
    assert!(is_complete(&seen.await));
    stage.apply(&restart("rest", "sale", json!({})));
    stage.wait_state("rest", "SourceHeld").await;
    assert_eq!(stage.requests_now("sale"), 300);
    assert_eq!(stage.requests_now("rest"), 0);
}
