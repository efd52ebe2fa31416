//! Receipts that come hours later, one for a chat here and one for a chat there: hardly two of them are of one page.

use std::time::Duration;

use broadcast_operator::api::BroadcastJournal;
use broadcast_operator::clock;
use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::simulator::Entry;
use kube::api::ListParams;
use rand::seq::SliceRandom;
use serde_json::json;
use tokio::sync::mpsc;

use super::api_server::Traffic;
use super::audience;
use super::common::providers::Provider::WhatsApp;
use super::common::stage::Stage;
use super::load::{Answers, Due, post_in_parallel, post_when_due, wait_until};
use super::notices::{address, request};
use super::steady::times;

/// 400 pages.
const CHATS: usize = 100_000;
const RATES: [u32; 3] = [250, 500, 1_000];
const SECONDS: u32 = 20;
/// Requests that are open where there is no rate, and how many are posted so.
const CONNECTIONS: usize = 64;
const UNBOUNDED: usize = 20_000;
/// As many as the operator takes at the same time, less those that others may have open.
const MOST_CONNECTIONS: usize = 1_000;

/// Sends one big Broadcast, then posts a part of its receipts at each rate. Out: rows of the table.
pub async fn measure() -> Vec<(String, String)> {
    let stage = Stage::of_providers().await;
    stage.apply(&stage.provider_channel(WhatsApp, json!({"limits": {"maxInFlight": 256}})));
    stage.create(&audience::manifest(&stage, WhatsApp, "sale", CHATS).await).await;
    let mut messages = audience::sent(&stage, WhatsApp, "sale", CHATS).await;
    messages.shuffle(&mut rand::rng());
    println!("{} messages are sent", messages.len());
    let mut figures = Vec::new();
    for rate in RATES {
        let some = messages.split_off(messages.len() - (rate * SECONDS) as usize);
        let before = Traffic::now(&stage).await;
        let (due, dues) = mpsc::channel(some.len());
        let (answers, ()) = tokio::join!(
            post_when_due(address(&stage), MOST_CONNECTIONS, dues),
            make_due(&stage, &some, rate, due)
        );
        figures.extend(figures_of(&stage, &format!("{rate}/s"), &answers, before).await);
    }
    let some = messages.split_off(messages.len() - UNBOUNDED);
    let before = Traffic::now(&stage).await;
    let answers = post_in_parallel(&address(&stage), CONNECTIONS, |number| {
        Some(request(&stage, WhatsApp, some.get(number)?, Outcome::Read))
    })
    .await;
    figures.extend(figures_of(&stage, &format!("{CONNECTIONS} at a time"), &answers, before).await);
    figures
}

/// At a steady rate, whether or not the earlier ones are answered.
async fn make_due(stage: &Stage, messages: &[Entry], rate: u32, due: mpsc::Sender<Due>) {
    let start = clock::monotonic();
    for (message, number) in messages.iter().zip(0..) {
        let at = start + Duration::from_secs(1) * number / rate;
        wait_until(at).await;
        let request = request(stage, WhatsApp, message, Outcome::Read);
        due.send(Due { request, at }).await.expect("should be taken");
    }
}

/// What it cost until all were answered, and then until all of them were in their pages.
async fn figures_of(stage: &Stage, how: &str, answers: &Answers, before: Traffic) -> Vec<(String, String)> {
    let traffic = Traffic::now(stage).await.since(before);
    while !stage
        .api::<BroadcastJournal>()
        .list_metadata(&ListParams::default())
        .await
        .expect("a list")
        .items
        .is_empty()
    {
        clock::wait(Duration::from_secs(1)).await;
    }
    let in_all = Traffic::now(stage).await.since(before);
    let per_thousand = format!("{:.0}", in_all.page_writes * 1000.0 / answers.number());
    let seconds = answers.took.as_secs_f64();
    let (writes, journals) = (traffic.page_writes / seconds, traffic.journals / seconds);
    let rates = format!("{:.0}, {writes:.0}, {journals:.0}", answers.per_second());
    let bytes = format!("{:.1} MB", traffic.bytes / seconds / 1e6);
    println!(
        "scattered, {how}: {} receipts; answered/s, page writes/s, journals/s: {rates}; {}; {per_thousand} page writes per 1,000 \
         in all; {bytes}/s; {} refused",
        answers.times.len(),
        times(answers),
        answers.refused
    );
    let what = format!("receipts over all pages of {CHATS} chats, {how}");
    vec![
        (format!("{what}: answered/s, page writes/s, journals/s"), rates),
        (format!("{what}: answered after, median and p99"), times(answers)),
        (format!("{what}: page writes per 1,000, until all are in their pages"), per_thousand),
        (format!("{what}: pages in requests and to watches, per second"), bytes),
    ]
}
