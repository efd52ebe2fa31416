//! The figures of receipts in `docs/operations.md`, measured on this machine and printed as the table there. `make bench` runs it.
//!
//! Control plane, operator, gateway and whoever posts the receipts share the machine, so the figures are those of the whole. Each
//! request has one receipt, as Meta sends most. Nothing is asserted.

#[path = "../../tests/common/mod.rs"]
mod common;

mod api_server;
mod audience;
mod load;
mod notices;
mod scattered;
mod steady;

use std::thread::available_parallelism;

use clap::Parser;

/// Which figures.
#[derive(Parser)]
struct Options {
    /// Those of receipts that come while messages are sent, and soon after.
    #[arg(long)]
    steady: bool,
    /// Those of receipts that come hours later, each for another page.
    #[arg(long)]
    scattered: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let all = !options.steady && !options.scattered;
    let mut figures = Vec::new();
    if options.steady || all {
        figures.extend(steady::measure().await);
    }
    if options.scattered || all {
        figures.extend(scattered::measure().await);
    }
    println!("\nMeasured on {} cores:\n", available_parallelism().map_or(0, usize::from));
    println!("| figure | value |\n|---|---|");
    for (figure, value) in figures {
        println!("| {figure} | {value} |");
    }
}
