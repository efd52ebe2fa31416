//! The fault matrix: every recipe at every point of a run, against a real control plane, with the invariants checked after
//! every step.
//!
//! In: a filter on the names of cases, or nothing. Out: what each recipe ran, what failed, and a last line that counts.

#[path = "../common/mod.rs"]
mod common;

mod args;
mod cases;
mod ending;
mod gateway_line;
mod invariants;
mod observer;
mod play;
mod process;
mod recipes;
mod scene;
mod tap;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match args::Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("matrix: {error}");
            return ExitCode::FAILURE;
        }
    };
    tap::name::check();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // An operator that panics is part of a case, which tells.
        if std::thread::current().name() != Some(process::THREAD) {
            usual(panic);
        }
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let summary = runtime.expect("should make a runtime").block_on(cases::run(&arguments));
    println!("matrix: {} passed, {} failed", summary.passed, summary.failed);
    if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
