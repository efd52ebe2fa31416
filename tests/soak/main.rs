//! A day of coming and going in some minutes: Broadcasts and channels are created, sent, stopped, restarted and deleted by
//! the thousand beside two replicas. In: how long. Out: the memory of each replica over time, and whether it is steady.
//!
//! `make soak` runs it. It fails when less than a day's worth of Broadcasts came and went, when memory still grows after the
//! first half, when a message was sent twice, and when anything does not come to its end.

#[path = "../common/mod.rs"]
mod common;

mod lives;
mod memory;

use std::process::ExitCode;
use std::time::Duration;

use broadcast_operator::clock;
use broadcast_operator::simulator::ReceiptSettings;
use clap::Parser;
use futures::future::join_all;
use serde_json::json;

use common::stage::Stage;
use lives::Lives;
use memory::Memory;

/// Channels that stay. Each replica has half of them.
const CHANNELS: usize = 4;
/// One a minute is an hour's worth of coming and going.
const BROADCASTS_PER_HOUR: usize = 60;
/// Fewer hours than these say nothing of a process that runs for days.
const LEAST_HOURS: usize = 24;

/// Lets Broadcasts come and go, and looks at the memory of the operator.
#[derive(Parser)]
struct Options {
    /// How long.
    #[arg(long, default_value_t = 8.0)]
    minutes: f64,
    /// How many Broadcasts live at the same time.
    #[arg(long, default_value_t = 32)]
    lives: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let stage = Stage::bare().await;
    let other = stage.join("pod-1", &[]).await;
    stage.set_faults(json!([{"do": {"latencyMs": 5}}]));
    for number in 0..CHANNELS {
        stage.apply(&stage.channel(
            &lives::lasting(number),
            json!({}),
            json!({"limits": {"maxInFlight": 16}}),
        ));
    }
    let end = clock::monotonic() + length;
    let (lives, mut memory) = (Lives::new(&stage, CHANNELS), Memory::of([stage.operator.id(), other.id()]));
    let lived = join_all((0..options.lives).map(|_| lives.live_until(end)));
    let watched = async {
        for tenth in 1..=memory::PARTS {
            // Receipts may come to any replica.
            let replica = if tenth % 2 == 0 { &stage.operator } else { &other };
            let receipts = ReceiptSettings { use_message_id: tenth % 4 < 2, ..ReceiptSettings::default() };
            stage.send_receipts_to(replica, &receipts);
            memory.watch(length / memory::PARTS).await;
            println!("{tenth:2} of {}: {}, {lives}", memory::PARTS, memory.latest());
        }
    };
    tokio::join!(lived, watched);
    lives.all_gone().await;
    let doubles = stage.gateway.ledger().summary().requests.twice.chats;
    let hours = lives.broadcasts() / BROADCASTS_PER_HOUR;
    println!("\n{lives}; doubles: {doubles}\n\n{memory}");
    println!(
        "compressed: {hours} hours of one Broadcast a minute in {:.1} minutes; {LEAST_HOURS} are the least",
        options.minutes
    );
    let is_enough = hours >= LEAST_HOURS && memory.is_steady() && doubles == 0;
    println!("soak: {}", if is_enough { "passed" } else { "FAILED" });
    if is_enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
