//! A lane on a ledger whose API server is one page in memory.

use std::convert::Infallible;
use std::sync::Mutex;

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::json;

use super::*;
use crate::api::{BatchStatus, BroadcastBatch, Retry};
use crate::clock;
use crate::domain::outcome::Outcome;
use crate::domain::page::{Page, Recipient};
use crate::ledger::{AfterRecord, Ledger};

const UID: &str = "6f1a4c58-0d5e-4b59-9a53-0e2b9c1d7f10";

fn page_key() -> ObjectKey {
    ObjectKey::new("shop", "sale-0")
}

/// A client whose API server gives out one page and stores each new version of it.
fn client_of(page: BroadcastBatch) -> Client {
    let stored = Arc::new(Mutex::new((page, 1_u64)));
    let server = tower::service_fn(move |request: Request<Body>| {
        let stored = stored.clone();
        async move {
            let method = request.method().clone();
            let body = request.into_body().collect_bytes().await.expect("should read the request");
            let mut stored = stored.lock().expect("should not be poisoned");
            if method == Method::PUT {
                stored.0 = serde_json::from_slice(&body).expect("should be a page");
                stored.1 += 1;
            }
            stored.0.metadata.resource_version = Some(stored.1.to_string());
            let body = serde_json::to_vec(&stored.0).expect("should be written");
            Ok::<_, Infallible>(Response::new(Body::from(body)))
        }
    });
    Client::new(server, "shop")
}

/// A page with one row per outcome, each after one try.
fn page_of(outcomes: &[Outcome]) -> BroadcastBatch {
    let recipients: Vec<Recipient> = (0..outcomes.len())
        .map(|row| Recipient {
            chat: format!("1555010{row}"),
            skip: String::new(),
            params: std::collections::BTreeMap::new(),
        })
        .collect();
    let mut page = Page::planned(recipients);
    for (row, outcome) in outcomes.iter().enumerate().filter(|(_, outcome)| **outcome != Outcome::Pending) {
        page.merge(row, &Row::known(*outcome, 1, clock::now() - jiff::SignedDuration::from_hours(1)));
    }
    let spec = json!({
        "broadcast": {"name": "sale", "uid": UID}, "index": 0, "recipients": page.recipients_csv(),
    });
    let batch = json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastBatch",
        "metadata": {"name": "sale-0", "namespace": "shop"}, "spec": spec,
    });
    let batch = serde_json::from_value(batch).expect("should be a page");
    let status: BatchStatus = page.status();
    BroadcastBatch { status: Some(status), ..batch }
}

fn broadcast(on_unknown: OnUnknown) -> Broadcast {
    let broadcast = json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "Broadcast",
        "metadata": {"name": "sale", "namespace": "shop", "uid": UID},
        "spec": {"message": {"text": "Hi"}, "onUnknown": on_unknown},
        "status": {"resolved": {"channelRef": {"name": "sms"}, "message": {"text": "Hi"}}},
    });
    serde_json::from_value(broadcast).expect("should be a Broadcast")
}

fn lane(on_unknown: OnUnknown) -> Lane {
    let broadcast = broadcast(on_unknown);
    let mut lane = Lane::new(&broadcast, ObjectKey::new("shop", "sale")).expect("should be sealed");
    lane.observe(&broadcast, None, clock::monotonic());
    lane
}

fn taken(lane: &mut Lane) -> Vec<usize> {
    std::iter::from_fn(|| lane.take(clock::monotonic())).map(|(_, claimed)| claimed.row).collect()
}

#[tokio::test]
async fn unknown_rows_of_a_claim_are_not_sent_again_once_on_unknown_is_hold() {
    let rows = [Outcome::Unknown, Outcome::Pending, Outcome::Sent, Outcome::Unknown];
    let ledger = Ledger::new(client_of(page_of(&rows)), Arc::default());
    let mut lane = lane(OnUnknown::Resend);
    let now = clock::monotonic();
    let window =
        PlannedWindow { page: page_key(), index: 0, broadcast: lane.uid.clone(), rows: 0..4, resend: true };
    let claim = ledger.claim(window).await.expect("should be claimed");
    lane.open(claim, |_| true);
    assert_eq!(lane.unsent(), 3);

    lane.observe(&broadcast(OnUnknown::Hold), None, now);
    assert_eq!(taken(&mut lane), [1]);

    lane.answered(0, 1, Some(Row::known(Outcome::Sent, 1, clock::now())), now);
    let due = lane.due(now).pop().expect("should be the end of the window");
    assert!(due.is_last);
    ledger.record(&due.claim, &due.results, AfterRecord::Release).await.expect("should be recorded");
    let released = ledger.read(&page_key()).await.expect("should be read");
    let outcomes: Vec<Outcome> = released.rows().iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::Sent, Outcome::Sent, Outcome::Unknown]);
    assert!(released.claim().is_none());
}

#[tokio::test]
async fn a_page_that_rests_is_looked_at_again_when_the_policy_changes() {
    let ledger = Ledger::new(client_of(page_of(&[Outcome::Pending])), Arc::default());
    let page = ledger.read(&page_key()).await.expect("should be read");
    let place = crate::domain::summary::Place { key: page_key(), index: 0, resource_version: 1 };
    let page = PageSummary::of(place, &page);
    let mut lane = lane(OnUnknown::Hold);
    let now = clock::monotonic();
    let far = now + Duration::from_secs(3600);

    lane.begin_claim(&page, 1);
    lane.not_due(0, far);
    assert!(lane.wakes_in(now).is_some(), "it rests by its policy");
    lane.observe(&broadcast(OnUnknown::Hold), None, now);
    assert!(lane.wakes_in(now).is_some(), "nothing has changed");
    lane.observe(&broadcast(OnUnknown::Resend), None, now);
    assert_eq!(lane.wakes_in(now), None);

    lane.begin_claim(&page, 1);
    let mut sooner = broadcast(OnUnknown::Resend);
    sooner.spec.retry = Retry { min_backoff_seconds: 0, ..Retry::default() };
    lane.observe(&sooner, None, now);
    lane.not_due(0, far);
    assert_eq!(lane.wakes_in(now), None, "that was found out by the earlier policy");
}

#[test]
fn a_complete_broadcast_sends_nothing_whatever_its_channel_allows_since() {
    let uid = BroadcastUid::new(UID.to_owned());
    let mut broadcast = broadcast(OnUnknown::Resend);
    assert!(is_sending(&broadcast, &uid));
    let status = broadcast.status.as_mut().expect("status");
    status.completion_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(clock::now()));
    assert!(!is_sending(&broadcast, &uid));
}
