//! Tests of the whole product: the real binary, a real API server, a simulated gateway.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod campaigns;
mod chart;
mod claims;
mod crashes;
mod drift;
mod examples;
mod export;
mod gateway_answers;
mod kubectl;
mod operator_process;
mod providers;
mod put_back;
mod receipts;
mod replicas;
mod restarts;
mod restores;
mod secrecy;
mod sending;
mod sizes;
mod stopping;
mod suppressions;
mod user_actions;
mod watchdogs;
