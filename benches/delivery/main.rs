//! The figures of `docs/operations.md`, measured on this machine and printed as the table there. `make bench` runs it.
//!
//! Control plane, operator and gateway share the machine, so the figures are those of the whole. Nothing is asserted.

#[path = "../../tests/common/mod.rs"]
mod common;

mod stops;
mod throughput;

use std::thread::available_parallelism;

#[tokio::main]
async fn main() {
    let stops = stops::measure().await;
    let throughput = throughput::measure().await;
    println!("\nMeasured on {} cores:\n", available_parallelism().map_or(0, usize::from));
    println!("| figure | value |\n|---|---|");
    for (figure, value) in stops.figures().into_iter().chain(throughput.figures()) {
        println!("| {figure} | {value} |");
    }
}

/// The value in the middle, or the upper of the two.
fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|one, other| one.partial_cmp(other).expect("should be comparable"));
    sorted[sorted.len() / 2]
}
