//! How soon a stop stops: from the answer to the PATCH to the last request that reaches the gateway.

use broadcast_operator::clock;
use jiff::Timestamp;
use serde_json::json;

use super::common::operator::Operator;
use super::common::stage::{CHANNEL, Stage};
use super::common::wait::until;
use super::median;

const STOPS: usize = 20;
const OTHER_CHANNEL: &str = "other";
const MESSAGES_PER_SECOND: u32 = 500;
/// More than all rounds send.
const CHATS: usize = 20_000;
/// Messages between two stops: at full speed again, and each time at another place of a window.
const SHORTEST_RUN: u64 = 250;
const LONGER_EACH_TIME: u64 = 17;

/// How many replicas there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    One,
    /// The one that sends is not the one that leads, plans and reports.
    Two,
}

/// For each stop, how long after each of these moments the last request reached the gateway, in milliseconds. Below zero, it
/// was there before: the operator may hear of a stop earlier than the one who asked for it.
pub struct Stops {
    replicas: Replicas,
    from_answer: Vec<i64>,
    from_request: Vec<i64>,
}

/// Stops one Broadcast again and again.
pub async fn measure(replicas: Replicas) -> Stops {
    let stage = Stage::bare().await;
    let limits = json!({"limits": {"messagesPerSecond": MESSAGES_PER_SECOND}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits.clone()));
    let _other = match replicas {
        Replicas::One => None,
        Replicas::Two => {
            hold(&[&stage.operator]).await;
            let other = stage.join("pod-1", &[]).await;
            // The one that was there first leads, and keeps its channel. The new one gets the next.
            stage.apply(&stage.channel(OTHER_CHANNEL, json!({}), limits));
            hold(&[&stage.operator, &other]).await;
            Some(other)
        }
    };
    let channel = if replicas == Replicas::One { CHANNEL } else { OTHER_CHANNEL };
    let spec = json!({"channelRef": {"name": channel}});
    stage.create(&stage.broadcast_from_config_map("sale", CHATS, spec).await).await;
    let mut stops = Stops { replicas, from_answer: Vec::new(), from_request: Vec::new() };
    for stop in 1..=STOPS {
        let sent = stage.gateway.ledger().summary().requests.accepted;
        let run = SHORTEST_RUN + LONGER_EACH_TIME * stop as u64;
        until("it sends", async || {
            let accepted = stage.gateway.ledger().summary().requests.accepted;
            if accepted >= sent + run { Ok(()) } else { Err(accepted) }
        })
        .await;
        let asked = clock::now();
        stage.pause("sale", true).await;
        let answered = clock::now();
        stage.wait_state("sale", "Stopped").await;
        let last = stage.gateway.ledger().summary().requests.last_arrival.expect("should have had requests");
        let since = |moment: Timestamp| last.as_millisecond() - moment.as_millisecond();
        println!(
            "stop {stop:2} of {STOPS}, {replicas:?}: last request {:2} ms after the PATCH was sent, {:2} ms after its answer",
            since(asked),
            since(answered)
        );
        stops.from_request.push(since(asked));
        stops.from_answer.push(since(answered));
        stage.pause("sale", false).await;
    }
    stops
}

/// Waits until each of these replicas holds a channel, and the first leads.
async fn hold(replicas: &[&Operator]) {
    until("each has a channel", async || {
        let mut held = vec![replicas[0].metric("leader_election_master_status", "").await];
        for replica in replicas {
            held.push(replica.metric("broadcast_channels_held", "").await);
        }
        if held.iter().all(|held| *held == 1) { Ok(()) } else { Err(held) }
    })
    .await;
}

impl Stops {
    pub fn figures(&self) -> Vec<(String, String)> {
        let rows = [("answer to the PATCH", &self.from_answer), ("sending of the PATCH", &self.from_request)];
        let replicas = match self.replicas {
            Replicas::One => "",
            Replicas::Two => " and two replicas",
        };
        rows.into_iter().flat_map(|(from, latencies)| figures_of(from, replicas, latencies)).collect()
    }
}

fn figures_of(from: &str, replicas: &str, latencies: &[i64]) -> [(String, String); 2] {
    let figure = |what, latency: i64| {
        let name = format!(
            "stop latency from the {from}, {what} of {STOPS} stops at {MESSAGES_PER_SECOND} messages/s{replicas}"
        );
        let value = match latency {
            0.. => format!("{latency} ms"),
            _ => format!("none: {} ms before it", -latency),
        };
        (name, value)
    };
    let longest = latencies.iter().max().copied().expect("should have stops");
    [figure("median", median(latencies)), figure("max", longest)]
}
