//! Tests of the whole product: the real binary, a real API server, a simulated gateway.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod campaigns;
mod channel_health;
mod chart;
mod claims;
mod crashes;
mod deleted_pages;
mod drift;
mod examples;
mod export;
mod gateway_answers;
mod handovers;
mod journals;
mod journals_left;
mod kubectl;
mod lost_statuses;
mod notices;
mod operator_process;
mod providers;
mod put_back;
mod receipt_edges;
mod receipts;
mod replicas;
mod restarts;
mod restores;
mod schema;
mod secrecy;
mod sending;
mod sizes;
mod stopping;
mod suppressions;
mod trouble;
mod unstored;
mod user_actions;
mod watchdogs;
