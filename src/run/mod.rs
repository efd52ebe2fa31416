//! One process of the operator: what it starts, in which order, and how it ends.
//!
//! In: flags, a cluster. Out: nothing until a signal; then a clean end, or an error when a part of it died. A dead part ends
//! the whole process on purpose: what it had claimed is then found as orphaned by the next one, and the kubelet restarts us.

mod connect;
mod error;
mod kinds;
mod parts;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ipnet::IpNet;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::address_guard::AddressPolicy;
use crate::admin::{self, Readiness};
use crate::cli::RunArgs;
use crate::lease::{LeaseSettings, Leases};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::observed::Observed;
use crate::pulse::Pulse;
use crate::shutdown::DRAIN_DEADLINE;
use crate::{clock, dispatcher, events, planner, receipts, shutdown};

pub use connect::configured;
pub use error::RunError;
use parts::{Part, stopped};

/// Between two looks at the state of the watches.
const SIGHT_POLL: Duration = Duration::from_secs(2);
/// Longest time for the parts that only have to let go, after everything in flight is recorded.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// What a process works with. Everything that it takes from its surroundings is in here.
pub struct Setup {
    /// The cluster, through a client as [`configured`] describes it.
    pub client: Client,
    /// What is counted.
    pub metrics: Metrics,
    /// Where /livez, /readyz and /metrics are served.
    pub admin: TcpListener,
    /// Where receipts are taken.
    pub receipts: TcpListener,
    /// Namespaces to work in; none means all.
    pub namespaces: Vec<String>,
    /// Ranges that channels may point to besides public addresses.
    pub allow_addresses: Vec<IpNet>,
    /// How replicas share their work.
    pub leases: LeaseSettings,
}

/// Runs until a signal.
///
/// # Errors
/// When it cannot start, or a part of it died.
pub async fn run(args: &RunArgs) -> Result<(), RunError> {
    // The first one to install it wins; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stop = shutdown::on_signal().map_err(RunError::Signals)?;
    let config = Config::infer().await.map_err(RunError::Config)?;
    let metrics = Metrics::new();
    let leases = args.leases.settings(&config.default_namespace).map_err(RunError::LeaseTimes)?;
    let client = connect::counted(configured(config), &metrics)?;
    let setup = Setup {
        client,
        metrics,
        admin: listen(args.admin_address).await?,
        receipts: listen(args.receipts_address).await?,
        namespaces: args.namespaces.clone(),
        allow_addresses: args.allow_addresses.clone(),
        leases,
    };
    operate(setup, stop).await
}

/// Works until `stop`, and then until everything in flight is recorded.
///
/// # Errors
/// When a part of it died, or what was in flight could not be recorded in time.
pub async fn operate(setup: Setup, stop: CancellationToken) -> Result<(), RunError> {
    let Setup { client, metrics, admin, receipts, namespaces, allow_addresses, leases } = setup;
    let readiness = Readiness::default();
    readiness.close("crds", "looking for the CustomResourceDefinitions");
    readiness.close("caches", "the first list of all kinds");
    let (pulse, close) = (Pulse::default(), CancellationToken::new());
    tracing::info!(
        admin = %local(&admin), receipts = %local(&receipts), ?namespaces,
        version = env!("CARGO_PKG_VERSION"), "broadcast-operator starts"
    );
    let admin = admin::serve(admin, readiness.clone(), pulse.clone(), metrics.clone(), close.clone());
    let mut admin = Part::server("admin server", admin);
    tokio::select! {
        () = kinds::served(&client, &namespaces, &readiness) => {}
        () = stop.cancelled() => return Ok(()),
        ended = admin.ended() => return Err(ended),
    }

    let (observed, watches, triggers) = Observed::new(client.clone(), namespaces.clone());
    let ledger = Arc::new(Ledger::new(client.clone(), observed.pages.clone()));
    let mut watches = Part::task("watches", watches.run(close.clone()));
    tokio::select! {
        () = observed.synced() => readiness.open("caches"),
        () = stop.cancelled() => return Ok(()),
        ended = watches.ended() => return Err(ended),
    }
    let (leases, keeping) = Leases::new(client.clone(), leases, readiness.clone(), metrics.clone());
    let farewell = CancellationToken::new();
    let keeping = keeping.run(farewell.clone());
    let mut keeping =
        Part::new("keeper of the leases", async move { keeping.await.map_err(RunError::WentBack) });
    let addresses = Arc::new(AddressPolicy::new(allow_addresses));
    let recorder = events::recorder(client.clone(), &ledger);
    let planning = planner::Context::new(
        client.clone(),
        recorder.clone(),
        ledger.clone(),
        observed.clone(),
        leases.clone(),
        addresses.clone(),
        metrics.clone(),
    );
    let sending = dispatcher::Context {
        client: client.clone(),
        ledger: ledger.clone(),
        observed: observed.clone(),
        leases,
        addresses,
        pulse,
        metrics: metrics.clone(),
        recorder: recorder.clone(),
    };
    let sending = dispatcher::run(Arc::new(sending), stop.clone());
    let mut dispatcher = Part::new("dispatcher", async move { sending.await.map_err(RunError::Dispatcher) });
    let mut planner = Part::task("planner", planner::run(Arc::new(planning), triggers, close.clone()));
    let sight = show_sight(observed.clone(), namespaces, readiness.clone(), close.clone());
    let mut sight = Part::task("look at the watches", sight);
    let receipts = receipts::serve(receipts, client, ledger, observed, metrics, close.clone());
    let mut receipts = Part::server("receipts server", receipts);

    let parts =
        [&mut dispatcher, &mut planner, &mut receipts, &mut keeping, &mut watches, &mut sight, &mut admin];
    stopped(&stop, parts).await?;
    readiness.close("running", "the process is ending");
    match tokio::time::timeout(DRAIN_DEADLINE, dispatcher.finished()).await {
        Ok(finished) => finished?,
        Err(_) => return Err(RunError::NotDrained),
    }
    tracing::info!("stopped: everything that was in flight is recorded");
    close.cancel();
    // The others take over when the leases are gone, so these go only when nothing is planned any more.
    let _ = tokio::time::timeout(CLOSE_DEADLINE, planner.finished()).await;
    farewell.cancel();
    // Nothing of what is left can lose anything: receipts that are not answered come again.
    let rest = [keeping, receipts, watches, sight, admin].map(Part::finished);
    let _ = tokio::time::timeout(CLOSE_DEADLINE, join_all(rest)).await;
    Ok(())
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
