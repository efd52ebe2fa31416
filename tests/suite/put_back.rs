//! A whole cluster is put back to an older snapshot of etcd, with etcd's own tools, under a running operator.

use std::path::PathBuf;
use std::sync::Arc;

use broadcast_operator::api::Broadcast;
use broadcast_operator::domain::ids::{BroadcastUid, ObjectKey};
use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::ledger::{Ledger, LedgerError, PlannedWindow};
use broadcast_operator::observed::PageIndex;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::common::books;
use crate::common::chart::NAMESPACE;
use crate::common::control_plane::Restore;
use crate::common::policy::Policy;
use crate::common::stage::{CHANNEL, Stage, broadcast, condition, state};
use crate::common::wait::until;

/// A Broadcast in the middle of its page, a snapshot of that, and the same Broadcast further on.
async fn sent_beyond_a_snapshot(flags: &[&str]) -> (Stage, PathBuf) {
    let stage = Stage::alone(flags).await;
    let snapshot = beyond_a_snapshot(&stage).await;
    (stage, snapshot)
}

async fn beyond_a_snapshot(stage: &Stage) -> PathBuf {
    let limits = json!({"limits": {"messagesPerSecond": 20, "maxInFlight": 8}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    // One page, and windows of one second of work: it is put back from its second half to its first.
    stage.apply(&broadcast("sale", 240, json!({})));
    stage.accepted("sale", 40).await;
    let snapshot = stage.plane.snapshot("sale");
    stage.accepted("sale", 120).await;
    snapshot
}

/// Nothing goes on by itself: what was being sent is held, and so is what a pipeline applies again. Each goes on by the command
/// that its condition shows.
async fn check_holds(stage: &Stage) {
    let is_held = |broadcast: &Broadcast| state(broadcast) == "ClusterRestored";
    let sale = stage.wait("sale", "held", is_held).await;
    stage.apply(&broadcast("other", 20, json!({})));
    let other = stage.wait("other", "held", is_held).await;
    for (chat, times) in books::accepted(stage, "sale") {
        assert_eq!(times, 1, "chat {chat}");
    }
    let sent = stage.accepted_now("sale");
    assert!(sent < 240, "what is left is not sent");
    let wrong = json!({"metadata": {"annotations": {"broadcast-operator.dev/accept-restored": "00000000"}}});
    stage.patch("sale", wrong).await;
    let refused = |broadcast: &Broadcast| {
        condition(broadcast, "Stalled").is_some_and(|stalled| stalled.message.contains("has another token"))
    };
    stage.wait("sale", "the wrong token is not obeyed", refused).await;

    // The one that nobody was sent to is accepted, and goes its whole way. The other one is left alone meanwhile.
    accept(stage, &other);
    let done = stage.complete("other").await;
    books::check_complete(stage, &done, 20).await;
    assert_eq!(stage.accepted_now("sale"), sent);

    // What the backup knows of the other one is not sent again; what was sent after it is, as its message says.
    let known = books::rows(stage, "sale").await;
    let known: Vec<&str> = known
        .iter()
        .filter(|(_, row)| row.outcome == Outcome::Sent)
        .map(|(recipient, _)| recipient.chat.as_str())
        .collect();
    accept(stage, &sale);
    stage.complete("sale").await;
    let accepted = books::accepted(stage, "sale");
    assert!(known.len() >= 20 && known.iter().all(|chat| accepted[*chat] == 1), "{} known", known.len());
}

/// Runs the command that the condition of a held Broadcast shows.
fn accept(stage: &Stage, broadcast: &Broadcast) {
    let message = condition(broadcast, "Stalled").expect("stalled").message;
    let (_, command) = message.split_once("kubectl ").expect("a command");
    stage.plane.kubectl(&command.split_whitespace().collect::<Vec<_>>(), "");
}

async fn put_back_while_sending(how: Restore) {
    let (mut stage, snapshot) = sent_beyond_a_snapshot(&[]).await;
    stage.plane.put_back(&snapshot, how).await;
    // What it knows is of a time that has not happened: it notes down what it noticed, and ends.
    assert_eq!(stage.operator.ended().await, 1);
    assert!(stage.operator.log().contains("the cluster went back in time"), "it says why");
    stage.operator.restart().await;
    check_holds(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_operator_notices_that_its_cluster_is_put_back_and_holds_everything() {
    put_back_while_sending(Restore::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_operator_notices_that_its_cluster_is_put_back_with_new_revisions() {
    put_back_while_sending(Restore::Bumped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_cannot_be_noted_down_stops_everything_until_it_can() {
    let mut stage = Stage::alone(&[]).await;
    let no_notes = "!('broadcast-operator.dev/restored' in object.metadata.?annotations.orValue({}))";
    let leases = ("coordination.k8s.io", "leases");
    let policy = Policy::apply(stage.plane, NAMESPACE, leases, no_notes);
    let mut noted = Lease::default();
    noted.metadata.name = Some("noted".into());
    noted.annotations_mut().insert("broadcast-operator.dev/restored".into(), "note".into());
    policy.refuses(&Api::namespaced(stage.client.clone(), NAMESPACE), &noted).await;
    let snapshot = beyond_a_snapshot(&stage).await;
    stage.plane.put_back(&snapshot, Restore::Plain).await;
    until("it says that the note is refused", async || match stage.operator.get("/readyz").await {
        Ok((503, text)) if text.contains("[-] restore-note: nothing is sent") => Ok(()),
        other => Err(other),
    })
    .await;
    // What was in flight has arrived by the time that a second try is refused.
    let refused = || stage.operator.log().matches("failed to note down").count();
    let tries = async |number: usize| {
        until("it is tried again", async || if refused() >= number { Ok(()) } else { Err(refused()) }).await;
    };
    tries(2).await;
    let sent = stage.requests_now("sale");
    tries(4).await;
    assert_eq!(stage.requests_now("sale"), sent, "nothing is sent without the note");
    assert_eq!(stage.operator.get("/livez").await.map(|(status, _)| status), Ok(200), "it is alive");
    assert_eq!(stage.operator.exit_code(), None, "who came after it would not know");
    policy.lift();
    assert_eq!(stage.operator.ended().await, 1);
    stage.operator.restart().await;
    check_holds(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_starts_on_a_cluster_that_was_put_back_holds_everything() {
    let (mut stage, snapshot) = sent_beyond_a_snapshot(&["--assume-restored-after", "2s"]).await;
    stage.operator.kill();
    stage.plane.put_back(&snapshot, Restore::Plain).await;
    stage.operator.restart().await;
    check_holds(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_not_claimed_in_an_older_version_than_was_seen_of_it() {
    let mut stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"paused": true})));
    stage.apply(&broadcast("sale", 5, json!({})));
    stage.wait_state("sale", "ChannelPaused").await;
    stage.operator.kill();
    let page = stage.pages("sale").await.remove(0);
    let version: u64 = page.resource_version().and_then(|version| version.parse().ok()).expect("a number");
    let window = PlannedWindow {
        page: ObjectKey::new(&stage.namespace, page.name_any()),
        index: 0,
        broadcast: BroadcastUid::new(page.spec.broadcast.uid.clone()),
        rows: 0..5,
        resend: false,
    };
    for (seen, is_refused) in [(version + 1, true), (version, false)] {
        let index = Arc::new(PageIndex::default());
        let mut noted = page.clone();
        noted.metadata.resource_version = Some(seen.to_string());
        index.note(&noted);
        let claimed = Ledger::new(stage.client.clone(), index).claim(window.clone()).await;
        assert_eq!(matches!(claimed, Err(LedgerError::WentBack { .. })), is_refused, "{claimed:?}");
        assert_eq!(claimed.is_ok(), !is_refused);
    }
}
