//! The admin server: is the process alive, can it work, and what has it counted.
//!
//! In: gates that the parts of the process open, and the pulse of its loops. Out: `/livez`, `/readyz` (what is missing stands in its body) and
//! `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::connections::{self, Bounds};
use crate::metrics::Metrics;
use crate::pulse::Pulse;

/// Content type of the `OpenMetrics` text.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What must be there before the process counts as ready: named gates, each open or waiting for something.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

impl Readiness {
    /// Closes a gate, and says what it waits for.
    pub fn close(&self, gate: &'static str, waits_for: impl Into<String>) {
        self.set(gate, Some(waits_for.into()));
    }

    /// Opens a gate.
    pub fn open(&self, gate: &'static str) {
        self.set(gate, None);
    }

    /// Whether all gates are open, and a line for each of them.
    #[must_use]
    pub fn report(&self) -> (bool, String) {
        let gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = gates.iter().map(|(gate, waits_for)| match waits_for {
            None => format!("[+] {gate}\n"),
            Some(waits_for) => format!("[-] {gate}: {waits_for}\n"),
        });
        (gates.values().all(Option::is_none), lines.collect())
    }

    fn set(&self, gate: &'static str, waits_for: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(gate, waits_for);
    }
}

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    pulse: Pulse,
    metrics: Metrics,
}

/// Serves until `ended`.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    pulse: Pulse,
    metrics: Metrics,
    ended: CancellationToken,
) {
    let routes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Admin { readiness, pulse, metrics });
    connections::serve(listener, routes, Bounds::ADMIN, ended).await;
}

/// Dead is only what cannot come to life again by itself: whoever waits for an API server or a gateway is alive.
async fn livez(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.pulse.stopped(clock::monotonic()) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(stopped) => {
            tracing::error!("{stopped}");
            (StatusCode::INTERNAL_SERVER_ERROR, stopped + "\n")
        }
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let (is_ready, report) = admin.readiness.report();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, report)
}

async fn metrics_text(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.metrics.encode() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, METRICS_TYPE)], text),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    use super::*;
    use crate::domain::ids::ObjectKey;
    use crate::pulse::Loop;

    #[tokio::test]
    async fn a_loop_that_is_stuck_makes_the_process_dead_and_one_that_goes_round_does_not() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (pulse, ended) = (Pulse::default(), CancellationToken::new());
        let serving = serve(listener, Readiness::default(), pulse.clone(), Metrics::new(), ended.clone());
        let serving = tokio::spawn(serving);
        let livez = async || {
            let answer = reqwest::get(format!("http://{address}/livez")).await.expect("an answer");
            (answer.status().as_u16(), answer.text().await.expect("a text"))
        };
        assert_eq!(livez().await, (200, "ok\n".to_owned()), "nothing has begun");
        let sender = Loop::Sender(ObjectKey::new("shop", "sms"));
        let long_ago = clock::monotonic().checked_sub(Duration::from_secs(60)).expect("a minute of uptime");
        for stuck in [&Loop::Dispatcher, &sender] {
            for of in [&Loop::Dispatcher, &sender] {
                pulse.begin(of, long_ago);
                pulse.beat(of, if of == stuck { long_ago } else { clock::monotonic() });
            }
            let (status, text) = livez().await;
            assert_eq!(
                (status, text.starts_with(&format!("{stuck} has not moved for 6"))),
                (500, true),
                "{text}"
            );
            pulse.beat(stuck, clock::monotonic());
            assert_eq!(livez().await.0, 200, "it goes round again");
        }
        ended.cancel();
        serving.await.expect("no panic");
    }

    #[tokio::test]
    async fn connections_that_leak_keep_no_probe_out() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let ended = CancellationToken::new();
        let serving = tokio::spawn(serve(
            listener,
            Readiness::default(),
            Pulse::default(),
            Metrics::new(),
            ended.clone(),
        ));
        let mut leaked = Vec::new();
        for _ in 0..Bounds::ADMIN.connections {
            leaked.push(TcpStream::connect(address).await.expect("a connection"));
        }
        let answer = reqwest::get(format!("http://{address}/livez")).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        let mut byte = [0];
        let read = tokio::time::timeout(Bounds::ADMIN.head / 2, leaked[0].read(&mut byte)).await;
        assert_eq!(read.expect("the oldest makes room").expect("closed in order"), 0);
        ended.cancel();
        serving.await.expect("no panic");
    }

    #[test]
    fn a_process_is_ready_when_all_its_gates_are_open() {
        let readiness = Readiness::default();
        readiness.close("caches", "the first list of all kinds");
        readiness.open("crds");
        assert_eq!(readiness.report(), (false, "[-] caches: the first list of all kinds\n[+] crds\n".into()));
        readiness.open("caches");
        assert!(readiness.report().0);
    }
}
