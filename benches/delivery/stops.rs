//! How soon a stop stops: from the answer to the PATCH to the last request that reaches the gateway.

use broadcast_operator::clock;
use jiff::Timestamp;
use serde_json::json;

use super::common::stage::{CHANNEL, Stage};
use super::common::wait::until;
use super::median;

const STOPS: usize = 20;
const MESSAGES_PER_SECOND: u32 = 500;
/// More than all rounds send.
const CHATS: usize = 20_000;
/// Messages between two stops: at full speed again, and each time at another place of a window.
const SHORTEST_RUN: u64 = 250;
const LONGER_EACH_TIME: u64 = 17;

/// For each stop, how long after each of these moments the last request reached the gateway, in milliseconds. Below zero, it
/// was there before: the operator may hear of a stop earlier than the one who asked for it.
pub struct Stops {
    from_answer: Vec<i64>,
    from_request: Vec<i64>,
}

/// Stops one Broadcast again and again.
pub async fn measure() -> Stops {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(
        CHANNEL,
        json!({}),
        json!({"limits": {"messagesPerSecond": MESSAGES_PER_SECOND}}),
    ));
    stage.create(&stage.broadcast_from_config_map("sale", CHATS, json!({})).await).await;
    let mut stops = Stops { from_answer: Vec::new(), from_request: Vec::new() };
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
            "stop {stop:2} of {STOPS}: last request {:2} ms after the PATCH was sent, {:2} ms after its answer",
            since(asked),
            since(answered)
        );
        stops.from_request.push(since(asked));
        stops.from_answer.push(since(answered));
        stage.pause("sale", false).await;
    }
    stops
}

impl Stops {
    pub fn figures(&self) -> Vec<(String, String)> {
        let rows = [("answer to the PATCH", &self.from_answer), ("sending of the PATCH", &self.from_request)];
        rows.into_iter().flat_map(|(from, latencies)| figures_of(from, latencies)).collect()
    }
}

fn figures_of(from: &str, latencies: &[i64]) -> [(String, String); 2] {
    let figure = |what, latency: i64| {
        let name = format!(
            "stop latency from the {from}, {what} of {STOPS} stops at {MESSAGES_PER_SECOND} messages/s"
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
