//! Gateways: one file per provider. Building a request and reading an answer are pure; sending is in [`gateway`].

pub mod gateway;
pub mod http;
