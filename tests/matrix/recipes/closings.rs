//! E2: something of a Broadcast comes just before a restart closes its page: evidence, which stays, or an answer to a request that
//! is waited for.

use std::sync::Arc;

use broadcast_operator::api::{Broadcast, BroadcastChannel, OutcomeName as Outcome};
use serde_json::json;

use super::takeovers::two;
use super::{CHATS, script, spec};
use crate::cases::Case;
use crate::common::stage::{broadcast, is_complete, restart};
use crate::gateway_line::Moment;
use crate::observer::Seen;
use crate::play::{Reference, SALE, finish, is_over, refuse_one, state_of};
use crate::poster;
use crate::scene::{Failure, Scene};
use crate::tap::{Fault, Gate, Planned, Tap};

const CHILD: &str = "again";
const READ: &str = "GET-broadcastbatches-sale-00000";
const SEAL: &str = "PUT-broadcastbatches-status-sale-00000";
/// The one that leads. The other one takes receipts.
const LEADER: usize = 0;

pub fn closed(reference: &Arc<Reference>, _: bool) -> Vec<Case> {
    let receipt = script(|scene| Box::pin(async move { a_receipt_comes_first(scene).await }));
    let request = script(|scene| Box::pin(async move { a_request_is_in_flight(scene).await }));
    vec![
        Case { name: reference.case("E2", "receipt-before-the-seal"), meets: 1, run: receipt },
        Case { name: reference.case("E2", "request-at-the-seal"), meets: 1, run: request },
    ]
}

/// The page has been read, and a receipt is stored in it by another replica before it is closed. Only the version tells.
async fn a_receipt_comes_first(scene: &mut Scene) -> Result<(), Failure> {
    refuse_one(scene, 1);
    two(scene).await?;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    let seal = Gate::new();
    let at = scene.tap.next_of(LEADER, SEAL);
    scene.tap.plan(vec![Planned::at(&at, Fault::HoldBefore(seal.clone())).of(LEADER)]);
    scene.apply(&restart(CHILD, SALE, json!({}))).await?;
    scene.reach(&seal, |_| false).await?;
    poster::post(scene, &[(0, Outcome::Delivered)]).await?;
    seal.open();
    scene.until("both are complete", |seen| is_over(seen, &[SALE, CHILD])).await?;
    finish(scene, None).await
}

/// A Broadcast that is deleted while a request of it is in flight is a source from then on, and its page has a claim. Only that
/// keeps the restart from the chat.
async fn a_request_is_in_flight(scene: &mut Scene) -> Result<(), Failure> {
    refuse_one(scene, 0);
    let answer = Gate::new();
    scene.line.plan(1, Moment::Late(answer.clone()));
    // Each chat has a claim of its own.
    let slow = spec(json!({"limits": {"messagesPerSecond": 1, "burst": 1}}));
    scene.patch::<BroadcastChannel>(crate::scene::CHANNEL, slow).await?;
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    let (tap, arrived) = (scene.tap.clone(), scene.line.counter());
    scene.until_with("the second request is in flight", move |_, _| arrived() == 2, &tap).await?;
    scene.apply(&restart(CHILD, SALE, json!({}))).await?;
    let waits = |seen: &Seen| state_of(seen, CHILD) == "WaitingForSource";
    scene.until("the restart waits", waits).await?;
    let read = scene.tap.next_of(LEADER, READ);
    scene.delete::<Broadcast>(SALE).await?;
    let is_read = move |_: &Seen, tap: &Tap| {
        tap.log().iter().any(|logged| logged.point == read && logged.status.is_some())
    };
    scene.until_with("its page is read to be closed", is_read, &tap).await?;
    answer.open();
    let is_done = |seen: &Seen| {
        seen.broadcasts.get(CHILD).is_some_and(is_complete) && !seen.broadcasts.contains_key(SALE)
    };
    scene.until("the restart is complete, and sale is gone", is_done).await?;
    finish(scene, None).await?;
    match (scene.requests_of(SALE), scene.requests_of(CHILD)) {
        (2, 2) => Ok(()),
        (sale, child) => Err(format!("{sale} requests of sale and {child} of the restart, and not 2 and 2")),
    }
}
