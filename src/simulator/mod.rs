//! `chat-simulator`: a gateway that takes messages and delivers none, the oracle of the tests.
//!
//! It speaks as the `HTTP` channel, the `WhatsApp` Cloud API, Telegram, Twilio and Periskope do, keeps a ledger of every request that
//! arrived and what was done with it, goes wrong as it is told to, and sends receipts. A message is accepted at one point in time,
//! under one lock, before anything is answered: what the ledger says is true, whatever the client came to know of it.

mod args;
mod control;
mod courier;
mod desk;
mod entry;
mod faults;
mod gateway;
mod line;
mod messages;
mod receipts;
mod records;
mod settings;
#[cfg(test)]
mod tests;
mod text;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use args::{Args, RunError};
pub use courier::ReceiptCounts;
pub use entry::{Done, Entry, RequestCounts, SendQuery, Twice};
pub use faults::{Action, Fault, InvalidRule, Redirect, Refusal, Rule, TooManyRequests, When};
pub use gateway::{Ledger, Summary};
pub use receipts::Status as ReceiptStatus;
pub use settings::{InvalidSettings, ProviderReceipts, ReceiptSettings, Settings};
pub use text::Text;
pub use wire::Format;

use crate::clock;
use courier::Courier;
use desk::{Desk, Tokens};
use faults::Faults;
use gateway::Gateway;
use line::{Line, Lines};
use receipts::ReceiptPlan;

/// Longest wait for connections to end. All waits inside end at once, so only a client that never finishes its own request
/// takes it up.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A simulator that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The client for receipts cannot be made.
    #[error("failed to set up the HTTP client for receipts")]
    Client(#[source] reqwest::Error),
    /// A fault makes no sense.
    #[error("invalid fault")]
    Rule(#[from] InvalidRule),
    /// The receipts make no sense.
    #[error("invalid settings of receipts")]
    Receipts(#[from] InvalidSettings),
}

/// A running simulator. It ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    gateway: Arc<Gateway>,
    server: JoinHandle<()>,
    _stop: DropGuard,
}

impl Simulator {
    /// Starts one. It listens when this returns.
    ///
    /// # Errors
    /// When the settings make no sense, or the address is taken.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        // Whoever runs in this process may have installed one already, and any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Settings { listen, latency, token, tokens: single, idempotent, faults, receipts } = settings;
        let mut tokens = Tokens::of_all(token);
        for (format, token) in single {
            tokens.set(format, Some(token));
        }
        let faults = Faults::new(faults)?;
        let plan = receipts.map(ReceiptPlan::new).transpose()?;
        let failed = |source| StartError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        let changed = watch::Sender::new(());
        let courier = Courier::new(plan, changed.clone(), stop.clone()).map_err(StartError::Client)?;
        let desk = Desk { tokens, latency, faults, is_idempotent: idempotent, ..Desk::default() };
        let gateway = Arc::new(Gateway {
            desk: Mutex::new(desk),
            courier: Arc::new(courier),
            changed,
            stop: stop.clone(),
            started: clock::monotonic(),
        });
        let server = tokio::spawn(serve(gateway.clone(), listener));
        Ok(Self { address, gateway, server, _stop: stop.drop_guard() })
    }

    /// Its base url, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What arrived and what was done with it.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger(self.gateway.clone())
    }

    /// From now on other things go wrong. All counts of rules begin anew.
    ///
    /// # Errors
    /// When a rule makes no sense; then nothing has changed.
    pub fn set_faults(&self, rules: Vec<Rule>) -> Result<(), InvalidRule> {
        self.gateway.set_faults(rules)
    }

    /// From now on only this token is taken, in all formats, or any.
    pub fn set_token(&self, token: Option<String>) {
        self.gateway.set_token(None, token);
    }

    /// The same for one format alone.
    pub fn set_token_of(&self, format: Format, token: Option<String>) {
        self.gateway.set_token(Some(format), token);
    }

    /// From now on other receipts follow accepted messages, or none.
    ///
    /// # Errors
    /// When the settings make no sense; then nothing has changed.
    pub fn set_receipts(&self, settings: Option<ReceiptSettings>) -> Result<(), InvalidSettings> {
        self.gateway.set_receipts(settings)
    }

    /// Holds all receipts back, those that are tried again too.
    pub fn hold_receipts(&self) {
        self.gateway.courier.hold(true);
    }

    /// Lets receipts go again.
    pub fn release_receipts(&self) {
        self.gateway.courier.hold(false);
    }

    /// Stops: takes no more connections, answers what waits, and cuts off what hangs. Receipts not sent yet never are.
    pub async fn stop(self) {
        self.gateway.stop.cancel();
        if tokio::time::timeout(STOP_TIMEOUT, self.server).await.is_err() {
            tracing::warn!("a client did not finish its request: its connection is left to it");
        }
    }
}

async fn serve(gateway: Arc<Gateway>, listener: TcpListener) {
    let courier = tokio::spawn(gateway.courier.clone().run());
    let stop = gateway.stop.clone().cancelled_owned();
    let app = messages::routes().merge(control::routes()).with_state(gateway);
    let app = app.into_make_service_with_connect_info::<Line>();
    if let Err(error) = axum::serve(Lines(listener), app).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the server ended");
    }
    if let Err(error) = courier.await {
        tracing::error!(%error, "the sender of receipts ended");
    }
}
