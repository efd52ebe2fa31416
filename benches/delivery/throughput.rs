//! How fast, and at what cost: a big audience, a gateway nearby, no limit of speed.

use std::time::Duration;

use broadcast_operator::api::Broadcast;
use broadcast_operator::clock;
use broadcast_operator::simulator::SendQuery;
use futures::TryStreamExt;
use kube::ResourceExt;
use kube::api::{WatchEvent, WatchParams};
use serde::Serialize;
use serde_json::json;

use super::common::stage::{CHANNEL, Stage, is_complete};
use super::common::wait::PATIENCE;
use super::median;

/// One after the other; the figures are medians.
const ROUNDS: usize = 3;
const CHATS: u32 = 10_000;
const LATENCY_MS: u64 = 5;
const MAX_IN_FLIGHT: u32 = 256;

/// What was measured.
pub struct Throughput {
    rounds: Vec<Round>,
    memory: Option<u64>,
    largest: Largest,
}

/// One Broadcast.
struct Round {
    /// From the first request to the last one.
    sending: Duration,
    /// From the creation of the Broadcast to its condition Complete.
    in_all: Duration,
    /// Requests of the operator to the API server meanwhile.
    api_requests: u64,
    status_writes: u32,
}

/// Sizes as JSON, in bytes.
struct Largest {
    page: usize,
    broadcast: usize,
}

/// Sends some Broadcasts, one after the other.
pub async fn measure() -> Throughput {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"maxInFlight": MAX_IN_FLIGHT}})));
    stage.set_faults(json!([{"do": {"latencyMs": LATENCY_MS}}]));
    let mut rounds = Vec::new();
    let mut largest = Largest { page: 0, broadcast: 0 };
    for number in 1..=ROUNDS {
        let name = format!("sale-{number}");
        let round = measure_round(&stage, &name).await;
        println!(
            "round {number} of {ROUNDS}: {CHATS} messages in {:.2} s, complete after {:.2} s",
            round.sending.as_secs_f64(),
            round.in_all.as_secs_f64()
        );
        rounds.push(round);
        let pages = stage.pages(&name).await;
        largest.page = pages.iter().map(bytes).fold(largest.page, usize::max);
        largest.broadcast = largest.broadcast.max(bytes(&stage.broadcast(&name).await));
    }
    Throughput { rounds, memory: peak_memory(stage.operator.id()), largest }
}

async fn measure_round(stage: &Stage, name: &str) -> Round {
    let manifest = stage.broadcast_from_config_map(name, CHATS as usize, json!({})).await;
    stage.gateway.ledger().delete();
    let before = stage.operator.metric("rest_client_requests_total", "").await;
    let started = clock::monotonic();
    let created = stage.create(&manifest).await;
    let status_writes = tokio::time::timeout(PATIENCE, count_status_writes(stage, created)).await;
    let in_all = started.elapsed();
    let after = stage.operator.metric("rest_client_requests_total", "").await;
    let sends = stage.gateway.ledger().sends(&SendQuery::default());
    let arrivals = sends.first().zip(sends.last()).expect("should have had requests");
    Round {
        sending: Duration::from_micros(arrivals.1.arrived_micros - arrivals.0.arrived_micros),
        in_all,
        api_requests: after - before,
        status_writes: status_writes.expect("should be complete by now"),
    }
}

/// Watches a Broadcast until it is complete. Out: how often its status changed.
async fn count_status_writes(stage: &Stage, created: Broadcast) -> u32 {
    let params = WatchParams::default().fields(&format!("metadata.name={}", created.name_any()));
    let version = created.resource_version().expect("should have a version");
    let broadcasts = stage.api::<Broadcast>();
    let events = broadcasts.watch(&params, &version).await.expect("should be watched");
    let mut events = std::pin::pin!(events);
    let (mut status, mut writes) = (created.status, 0);
    while let Some(event) = events.try_next().await.expect("should be watched to its end") {
        let WatchEvent::Modified(broadcast) = event else { continue };
        writes += u32::from(broadcast.status != status);
        if is_complete(&broadcast) {
            return writes;
        }
        status = broadcast.status;
    }
    panic!("the watch ended before the Broadcast was complete")
}

/// Most memory that a process ever had, in KiB, where the system says so.
fn peak_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn bytes(object: &impl Serialize) -> usize {
    serde_json::to_vec(object).expect("should be JSON").len()
}

impl Throughput {
    pub fn figures(&self) -> Vec<(String, String)> {
        let of_rounds =
            |figure: fn(&Round) -> f64| median(&self.rounds.iter().map(figure).collect::<Vec<_>>());
        let rate = of_rounds(|round| f64::from(CHATS) / round.sending.as_secs_f64());
        let in_all = of_rounds(|round| round.in_all.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "these are thousands at most")]
        let api_requests = of_rounds(|round| round.api_requests as f64 * 1000.0 / f64::from(CHATS));
        let writes = of_rounds(|round| f64::from(round.status_writes) / round.in_all.as_secs_f64());
        let memory = self.memory.map_or("not known here".into(), |kib| format!("{} MiB", kib / 1024));
        let kilobytes = |bytes: usize| bytes.div_ceil(1000);
        let (page, broadcast) = (kilobytes(self.largest.page), kilobytes(self.largest.broadcast));
        let figures = [
            (
                format!("messages/s, first to last of {CHATS} chats at {LATENCY_MS} ms latency"),
                format!("{rate:.0}"),
            ),
            ("the same chats, from creation to Complete".into(), format!("{in_all:.1} s")),
            ("API requests per 1,000 messages".into(), format!("{api_requests:.0}")),
            ("status writes/s, those of the plan included".into(), format!("{writes:.1}")),
            (format!("operator RSS, highest in {ROUNDS} of them"), memory),
            ("largest object".into(), format!("page {page} KB, Broadcast {broadcast} KB")),
        ];
        figures.into()
    }
}
