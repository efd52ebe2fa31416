//! The map of the crate. Dependencies point one way:
//! `bin` → `planner`, `dispatcher`, `receipts` → `ledger`, `providers` → `domain` → `api`.
//!
//! - [`clock`]: the one place where time is read.
//! - [`webhooks`]: Standard Webhooks signatures, for requests that go out and receipts that come in.
//! - [`simulator`]: `chat-simulator`, a gateway with a ledger and faults, the oracle of the tests.

pub mod address_guard;
pub mod admin;
pub mod api;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod connections;
pub mod dispatcher;
pub mod domain;
pub mod events;
pub mod export;
pub mod journal;
pub mod lease;
pub mod ledger;
pub mod metrics;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod observed;
pub mod planner;
pub mod providers;
pub mod pulse;
pub mod receipts;
pub mod run;
pub mod shutdown;
pub mod simulator;
pub mod stops;
pub mod suppressions;
pub mod telemetry;
pub mod unstored;
pub mod webhooks;
