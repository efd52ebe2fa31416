//! The fault matrix: every recipe at every point of a run, against a real control plane, with the invariants checked after
//! every step.
//!
//! In: a filter on the names of cases, or nothing. Out: what each recipe ran, what failed, and a last line that counts.

#[path = "../common/mod.rs"]
mod common;

mod args;
mod cases;
mod chaos;
mod ending;
mod gateway_line;
mod holders;
mod invariants;
#[cfg(feature = "mutants")]
mod mutants;
mod observer;
mod play;
mod poster;
mod process;
mod recipes;
mod scene;
mod tap;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Names the file with the certificates that TLS clients trust.
const TRUSTED: &str = "SSL_CERT_FILE";

fn main() -> ExitCode {
    if std::env::var_os(TRUSTED).is_none() {
        return again_with_few_certificates();
    }
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

/// Starts this program anew in its own place, trusting a certificate of nobody. Gateways are plain HTTP here, but each client
/// of one reads everything that this machine trusts, and there are thousands of them: a fifth of all work.
fn again_with_few_certificates() -> ExitCode {
    let roots = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/matrix/roots.pem");
    let program = std::env::current_exe().expect("should know its own path");
    let error = Command::new(program).args(std::env::args_os().skip(1)).env(TRUSTED, roots).exec();
    eprintln!("matrix: failed to start anew: {error}");
    ExitCode::FAILURE
}
