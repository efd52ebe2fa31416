//! How long nobody sends when a replica goes: from the signal that ends it to the first request of the one after it.

use std::time::Duration;

use broadcast_operator::clock;
use broadcast_operator::simulator::SendQuery;
use jiff::Timestamp;
use serde_json::json;

use super::common::operator::Operator;
use super::common::stage::{CHANNEL, Stage};
use super::common::wait::{PATIENCE, until};
use super::median;

/// Ends of each kind. One that waits for a lease of 15 s takes that long.
const SHUTDOWNS: usize = 20;
const CONTAINER_CRASHES: usize = 20;
const POD_CRASHES: usize = 6;
const MESSAGES_PER_SECOND: u32 = 200;
/// More than all rounds send and lose.
const CHATS: usize = 30_000;
/// Messages before each end, and after it until it is sure who sends.
const RUN: u64 = 150;

/// How a replica ends that sends for the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// SIGTERM: it hands over.
    Shutdown,
    /// SIGKILL, and a new process in the same pod, as the kubelet starts one.
    ContainerCrash,
    /// SIGKILL, and nobody comes: the other one waits for the end of its lease.
    PodCrash,
}

/// For each kind of end, how long it took each time.
pub struct Takeovers(Vec<(End, Vec<Duration>)>);

/// Ends the replica that sends, of two with the leases that the chart has, again and again.
pub async fn measure() -> Takeovers {
    let stage = Stage::bare().await;
    let limits = json!({"limits": {"messagesPerSecond": MESSAGES_PER_SECOND}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    let other = stage.join("pod-1", &[]).await;
    let mut pair = Pair { stage, other };
    pair.stage.create(&pair.stage.broadcast_from_config_map("sale", CHATS, json!({})).await).await;
    let mut takeovers = Vec::new();
    for (end, times) in
        [(End::Shutdown, SHUTDOWNS), (End::ContainerCrash, CONTAINER_CRASHES), (End::PodCrash, POD_CRASHES)]
    {
        let mut pauses = Vec::new();
        for number in 1..=times {
            let pause = pair.end_sender(end).await;
            println!("{end:?} {number:2} of {times}: nothing was sent for {} ms", pause.as_millis());
            pauses.push(pause);
        }
        takeovers.push((end, pauses));
    }
    Takeovers(takeovers)
}

/// Two replicas with one channel.
struct Pair {
    stage: Stage,
    other: Operator,
}

impl Pair {
    async fn end_sender(&mut self, end: End) -> Duration {
        self.run().await;
        let sender = match self.sender().await {
            0 => &mut self.stage.operator,
            _ => &mut self.other,
        };
        let ended = clock::now();
        match end {
            End::Shutdown => sender.signal("TERM"),
            End::ContainerCrash => sender.kill_and_restart().await,
            End::PodCrash => sender.kill(),
        }
        if end == End::Shutdown {
            sender.ended().await;
        }
        self.run().await;
        if end != End::ContainerCrash {
            let pod = if self.sender().await == 0 { &mut self.other } else { &mut self.stage.operator };
            pod.restart().await;
        }
        self.pause_since(ended)
    }

    /// Waits until some more messages are sent.
    async fn run(&self) {
        let ledger = self.stage.gateway.ledger();
        let wanted = ledger.summary().requests.requests + RUN;
        let sent = ledger.wait_until(|summary| summary.requests.requests >= wanted);
        tokio::time::timeout(PATIENCE, sent).await.expect("should send again by now");
    }

    /// Which of the two sends: the only one that holds a channel.
    async fn sender(&self) -> usize {
        until("one of them sends", async || {
            for (number, replica) in [&self.stage.operator, &self.other].into_iter().enumerate() {
                let Ok((_, metrics)) = replica.get("/metrics").await else { continue };
                if metrics.lines().any(|line| line == "broadcast_channels_held 1") {
                    return Ok(number);
                }
            }
            Err("nobody does")
        })
        .await
    }

    /// From a moment to the first request after the longest pause since: those before it were on their way.
    fn pause_since(&self, moment: Timestamp) -> Duration {
        let sends = self.stage.gateway.ledger().sends(&SendQuery::default());
        let since = sends.partition_point(|send| send.arrived < moment).saturating_sub(1);
        let pauses = sends[since..].windows(2);
        let longest = pauses.max_by_key(|pair| pair[1].arrived_micros - pair[0].arrived_micros);
        let first = longest.expect("should have sent since")[1].arrived;
        Duration::try_from(first.duration_since(moment)).unwrap_or_default()
    }
}

impl Takeovers {
    pub fn figures(&self) -> Vec<(String, String)> {
        self.0.iter().flat_map(|(end, pauses)| figures_of(*end, pauses)).collect()
    }
}

fn figures_of(end: End, pauses: &[Duration]) -> [(String, String); 2] {
    let what = match end {
        End::Shutdown => "a proper shutdown",
        End::ContainerCrash => "a crash of the container",
        End::PodCrash => "a crash of the pod",
    };
    let figure = |which, pause: Duration| {
        let name = format!("take-over after {what}, {which} of {}", pauses.len());
        (name, format!("{:.2} s", pause.as_secs_f64()))
    };
    let longest = pauses.iter().max().copied().unwrap_or_default();
    [figure("median", median(pauses)), figure("max", longest)]
}
