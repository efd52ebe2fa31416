//! Receipts that come while messages are sent and soon after, as most do: three for each message, each in a request of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use broadcast_operator::clock;
use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::simulator::Entry;
use serde_json::json;
use tokio::sync::mpsc;

use super::api_server::Traffic;
use super::audience;
use super::common::providers::Provider::{self, Native, WhatsApp};
use super::common::stage::Stage;
use super::load::{Answers, Due, number, post_in_parallel, post_when_due, wait_until};
use super::notices::{STAGES, address, request};

const CHATS: usize = 10_000;
/// Requests that a provider has open at the same time.
const CONNECTIONS: usize = 64;
/// What Meta lets the fastest numbers send.
const MESSAGES_PER_SECOND: u32 = 1_000;
/// When a message is taken, when it arrives, and when it is read, after its request.
const AFTER: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];
/// Between two looks at what was sent.
const LOOK: Duration = Duration::from_millis(50);
/// As many as the operator takes at the same time, less those that others may have open.
const MOST_CONNECTIONS: usize = 1_000;

/// Measures two providers. Out: rows of the table.
pub async fn measure() -> Vec<(String, String)> {
    let mut figures = Vec::new();
    for (provider, name) in [(WhatsApp, "WhatsApp"), (Native, "HTTP")] {
        let stage = Stage::of_providers().await;
        figures.extend(measure_after(&stage, provider, name).await);
        figures.extend(measure_while_sending(&stage, provider, name).await);
    }
    figures
}

/// All receipts of a Broadcast that was sent as fast as it goes, as fast as they are taken.
async fn measure_after(stage: &Stage, provider: Provider, name: &str) -> Vec<(String, String)> {
    stage.apply(&stage.provider_channel(provider, json!({"limits": {"maxInFlight": 256}})));
    let manifest = audience::manifest(stage, provider, "after", CHATS).await;
    stage.create(&manifest).await;
    let messages = audience::sent(stage, provider, "after", CHATS).await;
    let sent = per_second(&messages);
    let before = Traffic::now(stage).await;
    // Those of one message follow each other.
    let answers = post_in_parallel(&address(stage), CONNECTIONS, |number| {
        let message = messages.get(number / STAGES.len())?;
        Some(request(stage, provider, message, STAGES[number % STAGES.len()]))
    })
    .await;
    let traffic = Traffic::now(stage).await.since(before);
    println!("{name}, after {CHATS} messages at {sent:.0}/s: {}", said(&answers, traffic));
    let what = format!("{name}, all receipts of {CHATS} chats in single requests, {CONNECTIONS} at a time");
    vec![
        (
            format!("{what}: receipts/s, messages/s of the Broadcast"),
            format!("{:.0}, {sent:.0}", answers.per_second()),
        ),
        (format!("{what}: answered after, median and p99"), times(&answers)),
        (format!("{what}: page writes per 1,000 receipts"), writes_per_thousand(&answers, traffic)),
    ]
}

/// Receipts at their time, while others are sent as fast as Meta lets anybody.
async fn measure_while_sending(stage: &Stage, provider: Provider, name: &str) -> Vec<(String, String)> {
    let limits = json!({"maxInFlight": 256, "messagesPerSecond": MESSAGES_PER_SECOND});
    stage.apply(&stage.provider_channel(provider, json!({"limits": limits})));
    stage.gateway.ledger().delete();
    let manifest = audience::manifest(stage, provider, "during", CHATS).await;
    let before = Traffic::now(stage).await;
    let (due, dues) = mpsc::channel(CHATS);
    stage.create(&manifest).await;
    let (answers, (messages, full)) =
        tokio::join!(post_when_due(address(stage), MOST_CONNECTIONS, dues), follow(stage, provider, due),);
    let traffic = Traffic::now(stage).await.since(before);
    let sent = per_second(&messages);
    println!("{name}, while {CHATS} messages are sent at {sent:.0}/s: {}", said(&answers, traffic));
    let what = format!("{name}, single receipts while {CHATS} chats are sent to at {MESSAGES_PER_SECOND}/s");
    let rates = format!("{:.0}, {:.0}", answers.per_second_in(&full), 3.0 * sent);
    vec![
        (
            format!("{what}: answered/s, from the first read message to the last sent one; 3 × messages/s"),
            rates,
        ),
        (format!("{what}: answered after, median and p99"), times(&answers)),
        (
            format!("{what}: page writes per 1,000 receipts, those of sending included"),
            writes_per_thousand(&answers, traffic),
        ),
    ]
}

/// Makes each receipt due at its time. Out: the messages, and while receipts of all kinds came: from the first read message to the last
/// one that was taken.
async fn follow(stage: &Stage, provider: Provider, due: mpsc::Sender<Due>) -> (Vec<Entry>, Range<Instant>) {
    let (mut known, mut left) = (0, CHATS * STAGES.len());
    let mut waiting: BTreeMap<(Instant, u64), (Entry, Outcome)> = BTreeMap::new();
    let (mut first_read, mut last_taken) = (None, clock::monotonic());
    while left > 0 {
        let messages = stage.accepted_of(provider);
        let now = clock::monotonic();
        for message in &messages[known..] {
            for (outcome, after) in STAGES.into_iter().zip(AFTER) {
                waiting.insert((now + after, message.sequence), (message.clone(), outcome));
            }
        }
        known = messages.len();
        let next_look = now + LOOK;
        while let Some(entry) = waiting.first_entry().filter(|entry| entry.key().0 <= next_look) {
            let ((at, _), (message, outcome)) = entry.remove_entry();
            wait_until(at).await;
            let at = at.max(clock::monotonic());
            match outcome {
                Outcome::Read => _ = first_read.get_or_insert(at),
                Outcome::Sent => last_taken = at,
                _ => {}
            }
            due.send(Due { request: request(stage, provider, &message, outcome), at })
                .await
                .expect("should be taken");
            left -= 1;
        }
        wait_until(next_look).await;
    }
    (stage.accepted_of(provider), first_read.expect("should have had receipts")..last_taken)
}

/// From the first request to the last one.
fn per_second(messages: &[Entry]) -> f64 {
    let arrivals = messages.iter().map(|message| message.arrived_micros);
    let (first, last) = (arrivals.clone().min(), arrivals.max());
    let micros = last.zip(first).map_or(0, |(last, first)| last - first);
    number(messages.len()) / Duration::from_micros(micros).as_secs_f64()
}

fn said(answers: &Answers, traffic: Traffic) -> String {
    format!(
        "{} receipts in {:.2} s, {:.0}/s, answered after {}, {} refused, {:.0} page writes",
        answers.times.len(),
        answers.took.as_secs_f64(),
        answers.per_second(),
        times(answers),
        answers.refused,
        traffic.page_writes
    )
}

/// The median and what one of a hundred exceeds.
pub fn times(answers: &Answers) -> String {
    format!("{} ms, {} ms", answers.percentile(50).as_millis(), answers.percentile(99).as_millis())
}

fn writes_per_thousand(answers: &Answers, traffic: Traffic) -> String {
    format!("{:.0}", traffic.page_writes * 1000.0 / answers.number())
}
