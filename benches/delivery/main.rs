//! The figures of `docs/operations.md`, measured on this machine and printed as the table there. `make bench` runs it.
//!
//! Control plane, operator and gateway share the machine, so the figures are those of the whole. Nothing is asserted.

#[path = "../../tests/common/mod.rs"]
mod common;

mod stops;
mod takeovers;
mod throughput;

use std::thread::available_parallelism;

#[tokio::main]
async fn main() {
    let stops = stops::measure(stops::Replicas::One).await;
    let stops_of_two = stops::measure(stops::Replicas::Two).await;
    let takeovers = takeovers::measure().await;
    let throughput = throughput::measure().await;
    println!("\nMeasured on {} cores:\n", available_parallelism().map_or(0, usize::from));
    println!("| figure | value |\n|---|---|");
    let figures = [stops.figures(), stops_of_two.figures(), takeovers.figures(), throughput.figures()];
    for (figure, value) in figures.into_iter().flatten() {
        println!("| {figure} | {value} |");
    }
}

/// The value in the middle, or the upper of the two.
fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|one, other| one.partial_cmp(other).expect("should be comparable"));
    sorted[sorted.len() / 2]
}
