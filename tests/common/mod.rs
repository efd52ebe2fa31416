//! A real control plane, a real operator and a simulated gateway, for tests, the demo and benches.
//!
//! Everything listens on loopback, on ports that were free at the start, and ends with the process that started it.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each user of this module uses a part of it")]

pub mod books;
pub mod chart;
pub mod control_plane;
pub mod notices;
pub mod operator;
pub mod policy;
pub mod processes;
pub mod providers;
pub mod stage;
pub mod tls;
pub mod wait;

use std::path::PathBuf;

/// Root of the checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the checkout, as text.
pub fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("failed to read {path}: {error}"))
}
