//! Claim first: whatever the gateway got was claimed in a stored page before.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use broadcast_operator::api::BroadcastBatch;
use broadcast_operator::domain::token::MessageToken;
use broadcast_operator::simulator::SendQuery;
use futures::{StreamExt, TryStreamExt};
use kube::api::{WatchEvent, WatchParams};
use serde_json::json;

use crate::common::books;
use crate::common::stage::{CHANNEL, Stage, broadcast};

/// Windows that were claimed on each page, by the page's number, with the incarnation that did.
type Claims = Arc<Mutex<HashMap<usize, Vec<(Range<usize>, String)>>>>;

#[tokio::test(flavor = "multi_thread")]
async fn every_request_was_preceded_by_a_stored_claim_on_its_row() {
    let mut stage = Stage::bare().await;
    let limits = json!({"limits": {"messagesPerSecond": 600, "maxInFlight": 16}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    let claims = Claims::default();
    let events = stage.api::<BroadcastBatch>().watch(&WatchParams::default(), "0").await.expect("a watch");
    let seen = claims.clone();
    let watching = tokio::spawn(async move {
        let mut events = events.boxed();
        while let Ok(Some(event)) = events.try_next().await {
            let (WatchEvent::Added(batch) | WatchEvent::Modified(batch)) = event else { continue };
            let page = usize::try_from(batch.spec.index).expect("an index");
            let status = batch.status.unwrap_or_default();
            if let Some(claim) = status.claim {
                let bound = |row: i32| usize::try_from(row).expect("a row");
                let window = (bound(claim.from)..bound(claim.to), claim.incarnation);
                seen.lock().expect("no panic").entry(page).or_default().push(window);
            }
        }
    });
    stage.apply(&broadcast("sale", 900, json!({})));
    stage.accepted("sale", 200).await;
    stage.pause("sale", true).await;
    stage.wait_state("sale", "Stopped").await;
    stage.operator.kill_and_restart().await;
    stage.pause("sale", false).await;
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 900).await;

    let sends = stage.gateway.ledger().sends(&SendQuery::default());
    assert_eq!(sends.len(), 900);
    // All claims were stored before the last write of each page, and the watch brings writes in their order.
    crate::common::wait::until("a claim for every request", async || {
        let claims = claims.lock().expect("no panic");
        let unclaimed = sends.iter().filter(|send| {
            let token: MessageToken = send.token.parse().expect("a token");
            let windows = claims.get(&token.page).map_or(&[][..], Vec::as_slice);
            !windows.iter().any(|(window, _)| window.contains(&token.row))
        });
        match unclaimed.count() {
            0 => Ok(()),
            number => Err(number),
        }
    })
    .await;
    watching.abort();
    let claims = claims.lock().expect("no panic");
    let processes: std::collections::HashSet<&str> =
        claims.values().flatten().map(|(_, incarnation)| incarnation.as_str()).collect();
    assert_eq!(processes.len(), 2, "each process claims under a name of its own");
}
