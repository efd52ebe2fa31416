//! The gateway: `chat-simulator` as a process, and the books that it keeps.

use std::path::Path;
use std::process::Command;

use broadcast_operator::simulator::{Entry, Summary};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::common::processes::Process;
use crate::common::wait::until;

/// Token and signing secret, as in the channel's Secret.
const TOKEN: &str = "example-token";
const SIGNING_SECRET: &str = "whsec_YnJvYWRjYXN0LW9wZXJhdG9yLWV4YW1wbGUta2V5IQ==";

/// A running simulator. It ends when it is dropped.
pub struct Gateway {
    address: String,
    _process: Process,
}

impl Gateway {
    /// Starts one that goes wrong in these ways, and waits until it listens.
    pub async fn start(folder: &Path, receipts_url: &str, faults: &Value) -> Self {
        let log = folder.join("chat-simulator.log");
        let process = Process::start(
            Command::new(env!("CARGO_BIN_EXE_chat-simulator"))
                .args(["--listen", "127.0.0.1:0", "--latency-ms", "30", "--faults", &faults.to_string()])
                .args(["--receipts-url", receipts_url, "--receipts-delay-ms", "500"])
                .args(["--receipts-delivered-percent", "96", "--receipts-read-percent", "61"])
                .env("CHAT_SIMULATOR_TOKEN", TOKEN)
                .env("CHAT_SIMULATOR_RECEIPTS_SECRET", SIGNING_SECRET),
            &log,
        );
        let address = until("the gateway listens", async || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let line = log.lines().find_map(|line| line.strip_prefix("listening on http://"));
            line.map(str::to_owned).ok_or(log.clone())
        });
        Self { address: address.await, _process: process }
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Everything that happened, in numbers.
    pub async fn summary(&self) -> Summary {
        self.get("summary").await
    }

    /// Every request, in the order of arrival.
    pub async fn sends(&self) -> Vec<Entry> {
        self.get("sends").await
    }

    /// Waits until the numbers are as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Summary) -> bool) {
        until(what, async || {
            let summary = self.summary().await;
            if wanted(&summary) { Ok(()) } else { Err(summary) }
        })
        .await;
    }

    async fn get<T: DeserializeOwned>(&self, what: &str) -> T {
        let answer = reqwest::get(format!("http://{}/simulator/{what}", self.address)).await;
        let answer = answer.unwrap_or_else(|error| panic!("the gateway does not answer: {error}"));
        let bytes = answer.bytes().await.expect("should have a body");
        serde_json::from_slice(&bytes).expect("should be what the simulator writes")
    }
}
