//! Kill loops: the real binary, one and two replicas, and the control plane below them, killed and frozen at random moments
//! while Broadcasts are sent. In: how many kills, and a seed. Out: what was sent and recorded, and whether any promise was
//! broken.
//!
//! `make kills` runs it. The seed is printed first; with the same seed every round has the same scenario, the same victims
//! and the same moments, counted in requests. One round alone: `cargo test --test kills -- --seed SEED --round ROUND`.

#[path = "../common/mod.rs"]
mod common;

mod books;
mod losses;
mod report;
mod round;
mod script;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::Parser;
use futures::FutureExt;
use rand::RngExt;

use broadcast_operator::clock;
use report::Report;
use round::Played;
use script::Script;

/// After so many rounds that failed, more of them say nothing new.
const MOST_FAILURES: usize = 3;

/// Kills the operator and its control plane at random moments, and checks that nobody is messaged twice or lost.
#[derive(Parser)]
struct Options {
    /// Go on until so many kills were survived.
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// Makes all choices. None: a random one.
    #[arg(long)]
    seed: Option<u32>,
    /// Play this round alone.
    #[arg(long)]
    round: Option<u32>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}");
    let started = clock::monotonic();
    let mut report = Report::default();
    let rounds = options.round.map_or(1..=u32::MAX, |round| round..=round);
    for number in rounds {
        let script = Script::draw(seed, number);
        println!("round {number}: {script}");
        // A wait that comes to no end is a panic, and the operators have shown their logs by then.
        let played = AssertUnwindSafe(round::play(&script)).catch_unwind().await;
        let played = played.unwrap_or_else(|_| Played::broken("it did not come to its end".into()));
        println!("round {number}: {played}");
        if !played.findings.is_empty() {
            println!(
                "round {number} FAILED; once more: cargo test --test kills -- --seed {seed} --round {number}"
            );
        }
        report.add(script.scenario, &played);
        if report.kills() >= options.kills || report.failed() >= MOST_FAILURES {
            break;
        }
    }
    println!("\nseed {seed}, {:.0} s\n\n{report}", started.elapsed().as_secs_f64());
    if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
