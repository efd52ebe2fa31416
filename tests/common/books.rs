//! The invariants: what the ledger says, held against what the gateway knows.

use std::collections::HashMap;

use broadcast_operator::api::{Broadcast, OutcomeName as Outcome};
use broadcast_operator::domain::outcome::Row;
use broadcast_operator::domain::page::{Page, PageError, Recipient};
use broadcast_operator::simulator::{Entry, SendQuery};
use kube::ResourceExt;

use super::stage::{Stage, by_outcome, counts};

/// One chat of a Broadcast, from its page.
pub type Chat = (Recipient, Row);

/// All rows of a Broadcast, in the order of its audience.
pub async fn rows(stage: &Stage, broadcast: &str) -> Vec<Chat> {
    let mut pages = stage.pages(broadcast).await;
    pages.sort_by_key(|page| page.spec.index);
    let pages = pages.iter().filter_map(|page| match Page::parse(page) {
        Ok(page) => Some(page),
        // It is being planned: its first outcomes come with a write of their own.
        Err(PageError::NoOutcomes) => None,
        Err(error) => panic!("page {} cannot be read: {error}", page.name_any()),
    });
    pages
        .flat_map(|page| {
            let (recipients, rows) = (page.recipients().to_vec(), page.rows().to_vec());
            recipients.into_iter().zip(rows)
        })
        .collect()
}

/// Checks everything that must hold at every moment of a Broadcast whose messages are never to be sent twice.
///
/// - Never twice: the gateway accepted no token twice, and no chat of the Broadcast twice.
/// - Truth: a recorded Sent (or better) was accepted; a recorded Failed, without a receipt for it, was not.
pub async fn check(stage: &Stage, name: &str) {
    // In this order: what is recorded was accepted before.
    let rows = rows(stage, name).await;
    compare(name, &rows, &accepted(stage, name));
}

/// The same, where somebody else says how often each chat got its message.
pub async fn check_against(stage: &Stage, name: &str, accepted: &HashMap<String, usize>) {
    compare(name, &rows(stage, name).await, accepted);
}

fn compare(name: &str, rows: &[Chat], accepted: &HashMap<String, usize>) {
    for (chat, times) in accepted {
        assert!(*times <= 1, "{name}: chat {chat} got the message {times} times");
    }
    for (recipient, row) in rows {
        let times = accepted.get(&recipient.chat).copied().unwrap_or_default();
        match row.outcome {
            Outcome::Sent | Outcome::Delivered | Outcome::Read => {
                assert_eq!(times, 1, "{name}: {} is recorded as {:?}", recipient.chat, row.outcome);
            }
            Outcome::Failed if row.message_id.is_empty() => {
                assert_eq!(times, 0, "{name}: {} is recorded as failed", recipient.chat);
            }
            _ => {}
        }
    }
}

/// Checks a Broadcast that has come to its end: besides [`check`], nobody is lost.
pub async fn check_complete(stage: &Stage, broadcast: &Broadcast, audience: usize) {
    check_complete_against(stage, broadcast, audience, &accepted(stage, &broadcast.name_any())).await;
}

/// The same, where somebody else says how often each chat got its message.
pub async fn check_complete_against(
    stage: &Stage,
    broadcast: &Broadcast,
    audience: usize,
    accepted: &HashMap<String, usize>,
) {
    let name = broadcast.name_any();
    check_against(stage, &name, accepted).await;
    let rows = rows(stage, &name).await;
    let counts = counts(broadcast);
    let status = broadcast.status.as_ref().expect("should have a status");
    assert_eq!(rows.len(), audience, "{name}: every recipient has a row");
    assert_eq!(status.total, i32::try_from(audience).ok(), "{name}: total is the audience");
    let of = |outcome| i32::try_from(rows.iter().filter(|(_, row)| row.outcome == outcome).count());
    for (number, outcome) in by_outcome(&counts) {
        assert_eq!(Ok(number), of(outcome), "{name}: count of {outcome:?}");
    }
    assert_eq!(Some(sum(broadcast)), status.total, "{name}: counts add up");
    assert_eq!(counts.pending + counts.sending, 0, "{name}: nobody is left");
}

/// Sum of all counts.
pub fn sum(broadcast: &Broadcast) -> i32 {
    let counts = counts(broadcast);
    counts.pending
        + counts.sending
        + counts.sent
        + counts.delivered
        + counts.read
        + counts.failed
        + counts.unknown
        + counts.skipped
        + counts.cancelled
}

/// How often each chat of a Broadcast got its message, by the gateway.
pub fn accepted(stage: &Stage, name: &str) -> HashMap<String, usize> {
    let broadcast = Some(format!("{}/{name}", stage.namespace));
    let sends =
        stage.gateway.ledger().sends(&SendQuery { broadcast, accepted: Some(true), ..SendQuery::default() });
    times_by_chat(&sends)
}

/// How often each chat is among entries of the gateway's ledger.
pub fn times_by_chat(sends: &[Entry]) -> HashMap<String, usize> {
    let mut accepted = HashMap::new();
    for send in sends {
        *accepted.entry(send.chat.to_string()).or_default() += 1;
    }
    accepted
}
