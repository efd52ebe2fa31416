//! Journals that a process leaves: another replica takes them in, and none of them keeps anybody from the others.

use std::sync::atomic::Ordering;

use broadcast_operator::api::BroadcastJournal;
use broadcast_operator::domain::outcome::Outcome;
use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::common::books;
use crate::common::operator::Operator;
use crate::common::stage::{Stage, condition, counts, restart};
use crate::common::wait::until;
use crate::journals::{
    ALWAYS, ROWS, count_page_writes, journals, leave_journal, no_journal_left, one_for_each_page,
    one_for_each_page_to, sent, sent_with, stored,
};

const PAGES: usize = 3;
/// Leases that run out soon, so that a test does not wait long for it.
const SHORT: [&str; 6] =
    ["--lease-duration", "3s", "--lease-renew-deadline", "2s", "--lease-retry-period", "500ms"];

/// A Broadcast was sent by a replica that leads, and another one has come.
async fn two_replicas() -> (Stage, Operator) {
    let flags = [ALWAYS, &SHORT].concat();
    let stage = sent_with(PAGES, &flags).await;
    let other = stage.join("pod-1", &flags).await;
    assert!(leads(&stage.operator).await && !leads(&other).await);
    (stage, other)
}

async fn leads(replica: &Operator) -> bool {
    replica.metric("leader_election_master_status", "").await == 1
}

/// Both replicas have receipts in journals, and no page has any.
async fn both_have_journals(stage: &Stage, other: &Operator) {
    one_for_each_page(stage, PAGES, 7, "delivered").await;
    one_for_each_page(stage, PAGES, 8, "read").await;
    one_for_each_page_to(stage, other, PAGES, 7, "read").await;
    one_for_each_page_to(stage, other, PAGES, 9, "delivered").await;
}

/// Waits until the pages have them all.
async fn all_are_counted(stage: &Stage) {
    let wanted = i32::try_from(PAGES).expect("few");
    let is_counted = |broadcast: &_| {
        let counts = counts(broadcast);
        counts.read == 2 * wanted && counts.delivered == wanted
    };
    let done = stage.wait("sale", "all receipts are counted", is_counted).await;
    no_journal_left(stage).await;
    books::check_complete(stage, &done, PAGES * ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_a_replica_that_was_killed_are_taken_in_by_the_one_that_leads_then() {
    let (mut stage, other) = two_replicas().await;
    both_have_journals(&stage, &other).await;
    stage.operator.kill();
    assert_eq!(journals(&stage).await.len(), 4, "nobody has taken any in yet");
    all_are_counted(&stage).await;
    assert!(leads(&other).await);
    assert!(other.log().contains("takes in journals that another process left"));
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_a_replica_that_was_frozen_are_taken_in_by_both_which_changes_nothing() {
    let (stage, other) = two_replicas().await;
    let writes = count_page_writes(&stage).await;
    both_have_journals(&stage, &other).await;
    stage.operator.signal("STOP");
    assert_eq!(journals(&stage).await.len(), 4, "nobody has taken any in yet");
    all_are_counted(&stage).await;
    let rows = books::rows(&stage, "sale").await;
    let written = writes.load(Ordering::Relaxed);
    stage.operator.signal("CONT");
    // It has them in its memory, and takes them in as if nothing had happened.
    until("it has taken its own in", async || {
        let folded = stage.operator.metric("broadcast_journal_receipts_folded_total", "").await;
        let waiting = stage.operator.metric("broadcast_journals_waiting", "").await;
        if (folded, waiting) == (2 * PAGES as u64, 0) { Ok(()) } else { Err((folded, waiting)) }
    })
    .await;
    until("one of them leads", async || match [leads(&stage.operator).await, leads(&other).await] {
        [false, true] => Ok(()),
        both => Err(both),
    })
    .await;
    assert_eq!(books::rows(&stage, "sale").await, rows);
    assert_eq!(writes.load(Ordering::Relaxed), written, "the pages had everything");
    // And what comes to it from now on is taken in as well.
    one_for_each_page(&stage, PAGES, 10, "read").await;
    let wanted = 3 * i32::try_from(PAGES).expect("few");
    stage.wait("sale", "the new ones are counted", |broadcast| counts(broadcast).read == wanted).await;
    no_journal_left(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_waits_for_a_journal_that_cannot_be_read_and_the_others_are_taken_in() {
    let mut stage = sent(1).await;
    stored(&stage, (0, 8), "failed").await;
    stored(&stage, (0, 9), "failed").await;
    stage.operator.kill();
    let uid = stage.broadcast("sale").await.uid().expect("uid");
    // What a later version may write: the chat may have the message.
    leave_journal(&stage, "a-later-version", &uid, "0,9,Played,2026-11-23T10:00:00Z\n").await;
    leave_journal(&stage, "sound", &uid, "0,3,Read,2026-11-23T10:00:00Z\n").await;
    stage.operator.restart().await;
    stage.wait("sale", "the sound one is taken in", |broadcast| counts(broadcast).read == 1).await;
    stage.apply(&restart("again", "sale", json!({})));
    stage.wait_state("again", "JournalUnreadable").await;
    let told = condition(&stage.broadcast("again").await, "Stalled").expect("needs a person").message;
    assert!(told.contains("a-later-version"), "{told}");
    assert_eq!(stage.requests_now("again"), 0);
    stage
        .api::<BroadcastJournal>()
        .delete("a-later-version", &DeleteParams::default())
        .await
        .expect("delete");
    let done = stage.complete("again").await;
    assert_eq!(done.status.and_then(|status| status.total), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_says_which_page_of_its_source_cannot_take_in_a_journal() {
    let mut stage = sent(2).await;
    stored(&stage, (0, 9), "failed").await;
    stage.operator.kill();
    let uid = stage.broadcast("sale").await.uid().expect("uid");
    leave_journal(&stage, "of-a-bad-page", &uid, "1,3,Read,2026-11-23T10:00:00Z\n").await;
    let was = stage.pages("sale").await.remove(1).status.expect("a status").outcomes;
    spoil(&stage, "nonsense");
    stage.operator.restart().await;
    stage.apply(&restart("again", "sale", json!({})));
    stage.wait_state("again", "BatchUnreadable").await;
    assert_eq!(journals(&stage).await.len(), 1);
    spoil(&stage, &was);
    let done = stage.complete("again").await;
    assert_eq!(done.status.and_then(|status| status.total), Some(1));
    stage.wait("sale", "the journal is taken in", |broadcast| counts(broadcast).read == 1).await;
    no_journal_left(&stage).await;
}

/// Writes into the second page.
fn spoil(stage: &Stage, outcomes: &str) {
    let patch = json!({"status": {"outcomes": outcomes}}).to_string();
    stage.kubectl(&["patch", "bcb", "sale-00001", "--subresource=status", "--type=merge", "-p", &patch]);
}

#[tokio::test(flavor = "multi_thread")]
async fn journals_that_cannot_be_taken_in_keep_nobody_from_the_others() {
    let mut stage = sent(1).await;
    let uid = stage.broadcast("sale").await.uid().expect("uid");
    stage.operator.kill();
    // More than one look reads at once, each of a page that may come back.
    let stuck = (0..1000).map(async |number| {
        let (name, page) = (format!("a-{number:04}"), 1 + number % 4);
        leave_journal(&stage, &name, &uid, &format!("{page},0,Read,2026-11-23T11:00:00Z\n")).await;
    });
    stream::iter(stuck).buffer_unordered(32).collect::<Vec<()>>().await;
    leave_journal(&stage, "behind-them", &uid, "0,3,Read,2026-11-23T11:00:00Z\n").await;
    stage.operator.restart().await;
    stage.wait("sale", "the last one is taken in", |broadcast| counts(broadcast).read == 1).await;
    until("it is gone", async || {
        let left = journals(&stage).await;
        let is_there = left.iter().any(|journal| journal.name_any() == "behind-them");
        if left.len() == 1000 && !is_there { Ok(()) } else { Err(left.len()) }
    })
    .await;
    assert_eq!(books::rows(&stage, "sale").await[3].1.outcome, Outcome::Read);
}
