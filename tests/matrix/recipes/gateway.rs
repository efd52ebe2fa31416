//! F1: the gateway goes wrong with one message, and its receipts come as they like.

use std::sync::Arc;

use broadcast_operator::api::OutcomeName as Outcome;
use broadcast_operator::simulator::ReceiptSettings;
use serde_json::{Value, json};

use super::{CHATS, script};
use crate::cases::Case;
use crate::common::stage::{broadcast, chat_id};
use crate::gateway_line::Moment;
use crate::invariants::Books;
use crate::play::{Reference, SALE, finish, is_over, is_read};
use crate::scene::{Failure, Scene};

/// What goes wrong with a message, and what is to be recorded of it.
fn faults() -> Vec<(&'static str, Value, Outcome)> {
    vec![
        ("5xx-after-accept", json!({"statusAfterAccept": 503}), Outcome::Unknown),
        ("5xx-before-accept", json!({"statusBeforeAccept": 503}), Outcome::Unknown),
        ("reset-after-accept", json!({"resetAfterAccept": {}}), Outcome::Unknown),
        ("reset-before-accept", json!({"resetBeforeAccept": {}}), Outcome::Unknown),
        ("time-out-after-accept", json!({"hangAfterAccept": {}}), Outcome::Unknown),
        ("time-out-before-accept", json!({"hang": {}}), Outcome::Unknown),
        ("refused", json!({"refuse": {"status": 400, "code": "no"}}), Outcome::Failed),
        ("refused-503", json!({"refuse": {"status": 503, "code": "no"}}), Outcome::Failed),
        (
            "refused-once",
            json!({"refuse": {"status": 503, "code": "later", "retryable": true}}),
            Outcome::Sent,
        ),
        ("too-many-once", json!({"tooManyRequests": {"retryAfterSeconds": 1}}), Outcome::Sent),
    ]
}

pub fn goes_wrong(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for chat in 0..CHATS {
        for (number, (tag, fault, outcome)) in faults().into_iter().enumerate() {
            if !is_whole && number % CHATS != chat {
                continue;
            }
            let name = reference.case("F1", &format!("send#{chat}/{tag}"));
            let run = script(move |scene| {
                let fault = fault.clone();
                Box::pin(async move { one_goes_wrong(scene, chat, fault, outcome).await })
            });
            cases.push(Case { name, meets: 0, run });
        }
        let name = reference.case("F1", &format!("send#{chat}/slow-body"));
        let run = script(move |scene| Box::pin(async move { slow_body(scene, chat).await }));
        cases.push(Case { name, meets: 1, run });
    }
    let read = || ReceiptSettings { read_percent: 100, ..ReceiptSettings::default() };
    for (tag, settings) in [
        ("plain", read()),
        ("before-the-answer", ReceiptSettings { before_answer: true, ..read() }),
        ("thrice", ReceiptSettings { times: 3, ..read() }),
        ("reversed", ReceiptSettings { reverse: true, ..read() }),
        ("by-message-id", ReceiptSettings { use_message_id: true, ..read() }),
        ("before-by-message-id", ReceiptSettings { before_answer: true, use_message_id: true, ..read() }),
        ("reversed-thrice", ReceiptSettings { reverse: true, times: 3, batch_size: 1, ..read() }),
    ] {
        let name = reference.case("F1", &format!("receipts/{tag}"));
        let run = script(move |scene| {
            let settings = settings.clone();
            Box::pin(async move { receipts(scene, settings).await })
        });
        cases.push(Case { name, meets: 0, run });
    }
    cases
}

async fn one_goes_wrong(
    scene: &mut Scene,
    chat: usize,
    fault: Value,
    outcome: Outcome,
) -> Result<(), Failure> {
    let hit = chat_id(chat);
    let mut when = json!({"chats": [hit]});
    if outcome == Outcome::Sent {
        when["first"] = 1.into();
    }
    scene.set_gateway_faults(json!([{"when": when, "do": fault}]));
    if outcome == Outcome::Unknown {
        scene.doubtful.push(hit);
    }
    scene.start_operator().await;
    let retry = json!({"retry": {"minBackoffSeconds": 1}});
    scene.apply(&broadcast(SALE, CHATS, retry)).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    recorded(scene, |number| if number == chat { outcome } else { Outcome::Sent }).await?;
    finish(scene, None).await
}

async fn slow_body(scene: &mut Scene, request: usize) -> Result<(), Failure> {
    scene.line.plan(request, Moment::SlowBody);
    // The status says that it was taken; the id is in the part that never comes.
    scene.doubtful.extend((0..CHATS).map(chat_id));
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    recorded(scene, |_| Outcome::Sent).await?;
    finish(scene, None).await
}

async fn receipts(scene: &mut Scene, settings: ReceiptSettings) -> Result<(), Failure> {
    scene.start_operator().await;
    scene.send_receipts(&settings);
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    scene.until("all messages are read", |seen| is_read(seen, 3)).await?;
    recorded(scene, |_| Outcome::Read).await?;
    let summary = scene.gateway.ledger().wait_until(|summary| summary.receipts.pending == 0).await;
    if summary.receipts.failed > 0 {
        return Err(format!("receipts were never taken: {:?}", summary.receipts));
    }
    finish(scene, None).await
}

/// Checks what is recorded of each chat.
pub(super) async fn recorded(scene: &Scene, wanted: impl Fn(usize) -> Outcome) -> Result<(), Failure> {
    let books = Books::read(scene).await?;
    let sale = books.broadcasts.iter().find(|broadcast| broadcast.metadata.name.as_deref() == Some(SALE));
    let uid = sale.and_then(|sale| sale.metadata.uid.clone()).unwrap_or_default();
    for (number, chat) in books.chats(&uid).iter().enumerate() {
        if chat.row.outcome != wanted(number) {
            return Err(format!("chat {number} is {:?}, not {:?}", chat.row, wanted(number)));
        }
    }
    Ok(())
}
