//! One process of the operator: what it starts, in which order, and how it ends.
//!
//! In: flags, a cluster. Out: nothing until a signal; then a clean end, or an error when a part of it died. A dead part ends
//! the whole process on purpose: what it had claimed is then found as orphaned by the next one, and the kubelet restarts us.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, join_all, select_all};
use http::{Request, Response};
use kube::api::ListParams;
use kube::client::{Body, ClientBuilder};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer, Service};

use crate::address_guard::AddressPolicy;
use crate::admin::{self, Readiness};
use crate::api::{Broadcast, BroadcastBatch, BroadcastCampaign, BroadcastChannel};
use crate::cli::RunArgs;
use crate::cluster::{ApiError, within};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::observed::{Observed, WATCH_SECONDS};
use crate::shutdown::DRAIN_DEADLINE;
use crate::{clock, dispatcher, planner, receipts, shutdown};

/// Between two looks for the CRDs.
const CRD_POLL: Duration = Duration::from_secs(2);
/// Between two looks at the state of the watches.
const SIGHT_POLL: Duration = Duration::from_secs(2);
/// Longest time for the parts that only have to let go, after everything in flight is recorded.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No threads.
    #[error("failed to start the runtime")]
    Runtime(#[source] std::io::Error),
    /// Signals cannot be listened to.
    #[error("failed to listen to signals")]
    Signals(#[source] std::io::Error),
    /// No cluster to connect to.
    #[error("failed to find a cluster: set KUBECONFIG, or run in a pod with a service account")]
    Config(#[source] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("failed to set up the client of the cluster")]
    Client(#[source] kube::Error),
    /// A port is taken.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A server failed.
    #[error("the {part} ended")]
    Server {
        /// Which one.
        part: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Sending stopped.
    #[error("the dispatcher ended")]
    Dispatcher(#[source] dispatcher::SenderDied),
    /// A part panicked.
    #[error("the {part} died")]
    Died {
        /// Which one.
        part: &'static str,
        /// How.
        #[source]
        source: JoinError,
    },
    /// A part ended without being told to.
    #[error("the {part} ended by itself")]
    Ended {
        /// Which one.
        part: &'static str,
    },
    /// The requests in flight did not come to an end.
    #[error(
        "requests in flight were not recorded within {} s: they will be Unknown", DRAIN_DEADLINE.as_secs()
    )]
    NotDrained,
}

/// Runs until a signal.
///
/// # Errors
/// When it cannot start, or a part of it died.
pub async fn run(args: &RunArgs) -> Result<(), RunError> {
    // The first one to install it wins; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stop = shutdown::on_signal().map_err(RunError::Signals)?;
    let metrics = Metrics::new();
    let readiness = Readiness::default();
    readiness.close("crds", "looking for the CustomResourceDefinitions");
    readiness.close("caches", "the first list of all kinds");
    let client = connect(&metrics).await?;

    let close = CancellationToken::new();
    let admin = listen(args.admin_address).await?;
    let receipts = listen(args.receipts_address).await?;
    tracing::info!(
        admin = %local(&admin), receipts = %local(&receipts), namespaces = ?args.namespaces,
        version = env!("CARGO_PKG_VERSION"), "broadcast-operator starts"
    );
    let admin = admin::serve(admin, readiness.clone(), metrics.clone(), close.clone());
    let mut admin = Part::server("admin server", admin);
    tokio::select! {
        () = wait_for_crds(&client, &args.namespaces, &readiness) => {}
        () = stop.cancelled() => return Ok(()),
        ended = admin.ended() => return Err(ended),
    }

    let (observed, watches, triggers) = Observed::new(client.clone(), args.namespaces.clone());
    let ledger = Arc::new(Ledger::new(client.clone(), observed.pages.clone()));
    let mut watches = Part::task("watches", watches.run(close.clone()));
    tokio::select! {
        () = observed.synced() => readiness.open("caches"),
        () = stop.cancelled() => return Ok(()),
        ended = watches.ended() => return Err(ended),
    }
    let planning = planner::Context::new(client.clone(), ledger.clone(), observed.clone(), metrics.clone());
    let sending = dispatcher::Context {
        client: client.clone(),
        ledger: ledger.clone(),
        observed: observed.clone(),
        addresses: Arc::new(AddressPolicy::new(args.allow_addresses.clone())),
        metrics: metrics.clone(),
    };
    let sending = dispatcher::run(Arc::new(sending), stop.clone());
    let mut dispatcher = Part::new("dispatcher", async move { sending.await.map_err(RunError::Dispatcher) });
    let mut planner = Part::task("planner", planner::run(Arc::new(planning), triggers, close.clone()));
    let mut sight = Part::task(
        "look at the watches",
        show_sight(observed.clone(), args.namespaces.clone(), readiness.clone(), close.clone()),
    );
    let receipts = receipts::serve(receipts, client, ledger, observed, metrics, close.clone());
    let mut receipts = Part::server("receipts server", receipts);

    let parts = [&mut dispatcher, &mut planner, &mut receipts, &mut watches, &mut sight, &mut admin];
    stopped(&stop, parts).await?;
    readiness.close("running", "the process is ending");
    match tokio::time::timeout(DRAIN_DEADLINE, dispatcher.finished()).await {
        Ok(finished) => finished?,
        Err(_) => return Err(RunError::NotDrained),
    }
    tracing::info!("stopped: everything that was in flight is recorded");
    close.cancel();
    // Nothing of what is left can lose anything: receipts that are not answered come again.
    let rest = [planner, receipts, watches, sight, admin].map(Part::finished);
    let _ = tokio::time::timeout(CLOSE_DEADLINE, join_all(rest)).await;
    Ok(())
}

/// A supervised part of the process.
struct Part {
    name: &'static str,
    task: JoinHandle<Result<(), RunError>>,
}

impl Part {
    fn new(name: &'static str, work: impl Future<Output = Result<(), RunError>> + Send + 'static) -> Self {
        Self { name, task: tokio::spawn(work) }
    }

    fn task(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::new(name, async move {
            work.await;
            Ok(())
        })
    }

    fn server(name: &'static str, work: impl Future<Output = std::io::Result<()>> + Send + 'static) -> Self {
        Self::new(name, async move { work.await.map_err(|source| RunError::Server { part: name, source }) })
    }

    /// Waits until it ends, which it should not.
    async fn ended(&mut self) -> RunError {
        match (&mut self.task).await {
            Ok(Ok(())) => RunError::Ended { part: self.name },
            Ok(Err(error)) => error,
            Err(source) => RunError::Died { part: self.name, source },
        }
    }

    /// Waits until it ends, as it should.
    async fn finished(self) -> Result<(), RunError> {
        self.task.await.unwrap_or_else(|source| Err(RunError::Died { part: self.name, source }))
    }
}

/// Waits for the signal. A part that ends before it is an error.
async fn stopped<const N: usize>(stop: &CancellationToken, parts: [&mut Part; N]) -> Result<(), RunError> {
    let ends = select_all(parts.map(|part| Box::pin(part.ended())));
    tokio::select! {
        // The dispatcher ends because of the signal, at once when it is idle: that is no error.
        biased;
        () = stop.cancelled() => Ok(()),
        (ended, ..) = ends => Err(ended),
    }
}

/// Closes the gate of the watches while nothing can be seen anywhere: one namespace that is refused holds up no other.
async fn show_sight(
    observed: Observed,
    namespaces: Vec<String>,
    readiness: Readiness,
    ended: CancellationToken,
) {
    while !ended.is_cancelled() {
        let looks: Vec<Option<String>> = match &namespaces[..] {
            [] => vec![observed.blind("")],
            some => some.iter().map(|namespace| observed.blind(namespace)).collect(),
        };
        match looks.into_iter().collect::<Option<Vec<String>>>() {
            None => readiness.open("watches"),
            Some(reasons) => readiness.close("watches", reasons.join("; ")),
        }
        tokio::select! {
            () = ended.cancelled() => {}
            () = clock::wait(SIGHT_POLL) => {}
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })
}

fn local(listener: &TcpListener) -> String {
    listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
}

/// A client that repeats nothing by itself: a write whose answer was lost may have been stored.
async fn connect(metrics: &Metrics) -> Result<Client, RunError> {
    let mut config = Config::infer().await.map_err(RunError::Config)?;
    config.default_retry = false;
    // A quiet watch is ended by the API server and begun anew; a connection that stays silent longer than that is dead.
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 15));
    let builder = ClientBuilder::try_from(config).map_err(RunError::Client)?;
    Ok(builder.with_layer(&CountRequests(metrics.clone())).build())
}

/// Waits until all four kinds are served, and may be read in one namespace at least.
async fn wait_for_crds(client: &Client, namespaces: &[String], readiness: &Readiness) {
    let places: Vec<Option<&str>> = match namespaces {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    loop {
        let mut reasons = Vec::new();
        for place in &places {
            let seen = [
                served::<Broadcast>(client, *place).await,
                served::<BroadcastChannel>(client, *place).await,
                served::<BroadcastBatch>(client, *place).await,
                served::<BroadcastCampaign>(client, *place).await,
            ];
            reasons.extend(seen.into_iter().find_map(Result::err));
        }
        for reason in &reasons {
            tracing::warn!("{reason}");
        }
        if reasons.len() < places.len() {
            return readiness.open("crds");
        }
        readiness.close("crds", reasons.join("; "));
        clock::wait(CRD_POLL).await;
    }
}

async fn served<K>(client: &Client, namespace: Option<&str>) -> Result<(), String>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (kind, plural) = (K::kind(&()), K::plural(&()));
    match within(api.list_metadata(&ListParams::default().limit(1))).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Err(format!(
            "kind {kind} is not installed: run `broadcast-operator crds | kubectl apply --server-side -f -`, or install the chart"
        )),
        Err(error) if error.is_forbidden() => {
            let place = namespace.unwrap_or("all namespaces");
            Err(format!(
                "the operator may not list {plural} in {place}: give its account the Roles of the chart"
            ))
        }
        Err(error @ (ApiError::Call(_) | ApiError::TimedOut)) => {
            Err(format!("failed to list {plural}: {error}"))
        }
    }
}

/// Counts every request to the API server by its answer.
#[derive(Clone)]
struct CountRequests(Metrics);

impl<S> Layer<S> for CountRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: self.0.clone() }
    }
}

#[derive(Clone)]
struct Counted<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (metrics, method) = (self.metrics.clone(), request.method().clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            metrics.requested(&method, answer.as_ref().ok().map(|answer| answer.status().as_u16()));
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part that has ended already.
    async fn ended_part() -> Part {
        let part = Part::task("dispatcher", async {});
        while !part.task.is_finished() {
            tokio::task::yield_now().await;
        }
        part
    }

    #[tokio::test]
    async fn a_part_that_ends_with_the_signal_is_no_error_and_one_that_ends_before_it_is() {
        let stop = CancellationToken::new();
        let before = stopped(&stop, [&mut ended_part().await]).await;
        assert!(matches!(before, Err(RunError::Ended { part: "dispatcher" })), "{before:?}");
        stop.cancel();
        // Often, because a choice at random would be right half of the time.
        for _ in 0..64 {
            let after = stopped(&stop, [&mut ended_part().await]).await;
            assert!(after.is_ok(), "{after:?}");
        }
    }
}
