//! A whole cluster is put back to an older snapshot of etcd, with etcd's own tools, under a running operator.

use std::sync::Arc;

use broadcast_operator::domain::ids::{BroadcastUid, ObjectKey};
use broadcast_operator::ledger::{Ledger, LedgerError, PlannedWindow};
use broadcast_operator::observed::PageIndex;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{ObjectMeta, PostParams};
use serde_json::json;

use crate::common::books;
use crate::common::control_plane::Restore;
use crate::common::stage::{CHANNEL, Stage, broadcast};
use crate::common::wait::until;

/// The revision of a write that is made for it.
async fn revision(stage: &Stage) -> u64 {
    let tick = ConfigMap {
        metadata: ObjectMeta { generate_name: Some("tick-".into()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    };
    let made = stage.api::<ConfigMap>().create(&PostParams::default(), &tick).await.expect("created");
    made.metadata.resource_version.and_then(|version| version.parse().ok()).expect("a number")
}

/// Puts the cluster back while a Broadcast is being sent, and lets the operator go on. What it has seen of a page is more than
/// the page knows now, so it does not claim it again.
async fn put_back_while_sending(how: Restore) {
    let stage = Stage::alone().await;
    let limits = json!({"limits": {"messagesPerSecond": 20, "maxInFlight": 8}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    // One page, and windows of one second of work: it is put back from its second half to its first.
    stage.apply(&broadcast("sale", 240, json!({})));
    stage.accepted("sale", 40).await;
    let snapshot = stage.plane.snapshot("sale");
    stage.accepted("sale", 120).await;
    let before = revision(&stage).await;
    stage.plane.put_back(&snapshot, how).await;
    // Watches that were never told to begin anew hear nothing until the revisions are again where they were.
    until("revisions have come that far again", async || match revision(&stage).await {
        // The operator wrote on until everything was stopped.
        now if now > before + 200 => Ok(()),
        now => Err((now, before)),
    })
    .await;
    // Others go their whole way meanwhile, so the operator does see the cluster, and has had its chance.
    for name in ["other", "another"] {
        stage.apply(&broadcast(name, 20, json!({})));
        stage.complete(name).await;
    }
    for name in ["sale", "other", "another"] {
        for (chat, times) in books::accepted(&stage, name) {
            assert_eq!(times, 1, "{name}: chat {chat}");
        }
    }
    assert!(stage.accepted_now("sale") < 240, "what is left of the page is not claimed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_operator_sends_nothing_twice_when_its_cluster_is_put_back() {
    put_back_while_sending(Restore::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_operator_sends_nothing_twice_when_its_cluster_is_put_back_with_new_revisions() {
    put_back_while_sending(Restore::Bumped).await;
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
