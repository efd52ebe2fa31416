//! A simulator as its clients see it.

mod faults;
mod formats;
mod receipts;
mod requests;

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::{Rule, Settings, Simulator, Summary};

/// Longest wait of a test for what must come: far above what it takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A simulator and a client of it.
struct Bench {
    simulator: Simulator,
    client: Client,
}

impl Bench {
    async fn start(settings: Settings) -> Self {
        let simulator = Simulator::start(settings).await.expect("should start");
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .expect("client");
        Self { simulator, client }
    }

    async fn with_faults(rules: Value) -> Self {
        let faults: Vec<Rule> = serde_json::from_value(rules).expect("rules");
        Self::start(Settings { faults, ..Settings::default() }).await
    }

    async fn send(&self, chat: &str) -> reqwest::Result<Response> {
        self.post("/messages/sales", &message(chat)).await
    }

    async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Response> {
        let url = format!("{}{path}", self.simulator.url());
        let key = body["id"].as_str().unwrap_or_default();
        self.client.post(url).header("Idempotency-Key", key).bearer_auth("secret").json(body).send().await
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.simulator.url());
        self.client.get(url).send().await.expect("answer").json().await.expect("json")
    }

    async fn put(&self, path: &str, body: String) -> u16 {
        let url = format!("{}{path}", self.simulator.url());
        self.client.put(url).body(body).send().await.expect("answer").status().as_u16()
    }

    async fn wait_until(&self, wanted: impl Fn(&Summary) -> bool) -> Summary {
        let ledger = self.simulator.ledger();
        let waited = tokio::time::timeout(PATIENCE, ledger.wait_until(wanted)).await;
        waited.unwrap_or_else(|_| panic!("the ledger never was as wanted: {:?}", ledger.summary()))
    }

    /// Sends one message whose connection must break off.
    async fn send_into_reset(&self, chat: &str) {
        let error = self.send(chat).await.expect_err("should see no answer");
        assert!(!error.is_connect() && !error.is_timeout() && error.status().is_none(), "{error:?}");
    }
}

fn message(chat: &str) -> Value {
    let broadcast = json!({"namespace": "shop", "name": "sale"});
    json!({"id": format!("token-{chat}"), "to": chat, "text": "Hi", "broadcast": broadcast})
}

async fn body(response: Response) -> (u16, Value) {
    (response.status().as_u16(), response.json().await.expect("json"))
}
