//! `chat-simulator`: see [`broadcast_operator::simulator`].

use std::error::Error;
use std::process::ExitCode;

use broadcast_operator::simulator::Args;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = Args::parse().run().await else { return ExitCode::SUCCESS };
    eprint!("chat-simulator: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::FAILURE
}
