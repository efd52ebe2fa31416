//! One process of the operator: what it starts, in which order, and how it ends.
//!
//! In: flags, a cluster. Out: nothing until a signal; then a clean end, or an error when a part of it died. A dead part ends
//! the whole process on purpose: what it had claimed is then found as orphaned by the next one, and the kubelet restarts us.

mod connect;
mod error;
mod kinds;
mod parts;
mod sight;

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
use crate::journal::{Journal, JournalSettings};
use crate::lease::{LeaseSettings, Leases};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::observed::Observed;
use crate::pulse::Pulse;
use crate::shutdown::DRAIN_DEADLINE;
use crate::{dispatcher, events, planner, receipts, shutdown, unstored};

pub use connect::configured;
pub use error::RunError;
use parts::{Part, stopped};
use sight::Sight;

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
    /// How receipts go through journals.
    pub journals: JournalSettings,
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
        journals: JournalSettings {
            poor_writes_per_second: args.receipt_page_writes_per_second,
            ..JournalSettings::default()
        },
        leases,
    };
    operate(setup, stop).await
}

/// Works until `stop`, and then until everything in flight is recorded.
///
/// # Errors
/// When a part of it died, when it sees nothing any more, or when what was in flight could not be recorded in time.
pub async fn operate(setup: Setup, stop: CancellationToken) -> Result<(), RunError> {
    let Setup { client, metrics, admin, receipts, namespaces, allow_addresses, journals, leases } = setup;
    // A process that sees nothing stops as by a signal.
    let stop = stop.child_token();
    let readiness = Readiness::default();
    readiness.close("crds", "looking for the CustomResourceDefinitions");
    readiness.close("caches", "the first list of all kinds");
    let (pulse, close) = (Pulse::default(), CancellationToken::new());
    tracing::info!(
        admin = %local(&admin), receipts = %local(&receipts), ?namespaces,
        version = env!("CARGO_PKG_VERSION"), "broadcast-operator starts"
    );
    let admin = admin::serve(admin, readiness.clone(), pulse.clone(), metrics.clone(), close.clone());
    let mut admin = Part::task("admin server", admin);
    tokio::select! {
        () = kinds::served(&client, &namespaces, &readiness) => {}
        () = stop.cancelled() => return Ok(()),
        ended = admin.ended() => return Err(ended),
    }

    let (observed, watches, triggers) = Observed::new(client.clone(), namespaces.clone());
    let ledger = Arc::new(Ledger::new(client.clone(), observed.pages.clone()));
    let journal = Journal::new(client.clone(), ledger.clone(), observed.clone(), metrics.clone(), journals);
    let journal = Arc::new(journal);
    let mut watches = Part::task("watches", watches.run(close.clone()));
    tokio::select! {
        () = observed.synced() => readiness.open("caches"),
        () = stop.cancelled() => return Ok(()),
        ended = watches.ended() => return Err(ended),
    }
    let patience = sight::patience(&leases.times);
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
        journal.clone(),
        observed.clone(),
        leases.clone(),
        addresses.clone(),
        metrics.clone(),
    );
    let sending = dispatcher::Context {
        client: client.clone(),
        ledger: ledger.clone(),
        journal: journal.clone(),
        observed: observed.clone(),
        leases: leases.clone(),
        addresses,
        pulse,
        metrics: metrics.clone(),
        recorder: recorder.clone(),
    };
    let sending = dispatcher::run(Arc::new(sending), stop.clone());
    let mut dispatcher = Part::new("dispatcher", async move { sending.await.map_err(RunError::Dispatcher) });
    let mut planner = Part::task("planner", planner::run(Arc::new(planning), triggers, close.clone()));
    let mut journals = Part::task("journals", journal.clone().run(leases.clone(), close.clone()));
    let sight = Sight::new(observed.clone(), leases, namespaces, readiness.clone(), patience);
    let mut sight = Part::new("look at the watches", sight.look(close.clone()));
    let telling = unstored::tell(ledger.clone(), recorder.clone(), metrics.clone(), close.clone());
    let mut telling = Part::task("teller of batches that are not stored", telling);
    let books = receipts::Books { client, ledger, journal, observed, metrics };
    let receipts = receipts::serve(receipts, books, recorder, close.clone());
    let mut receipts = Part::task("receipts server", receipts);

    let sending = [&mut dispatcher, &mut planner, &mut receipts, &mut journals, &mut keeping];
    let parts = sending.into_iter().chain([&mut watches, &mut sight, &mut telling, &mut admin]);
    let blind = match stopped(&stop, parts).await {
        Err(blind @ RunError::Blind { .. }) => Some(blind),
        stopped => stopped.map(|()| None)?,
    };
    if let Some(blind) = &blind {
        tracing::error!(error = %blind, "stopping, so that another replica takes over: requests in flight are finished and recorded");
        stop.cancel();
    }
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
    // Nothing of what is left can lose anything: receipts that are not answered come again, and journals are taken in by others.
    let rest = [keeping, receipts, journals, watches, admin].map(Part::finished);
    let _ = tokio::time::timeout(CLOSE_DEADLINE, join_all(rest)).await;
    blind.map_or(Ok(()), Err)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })
}

fn local(listener: &TcpListener) -> String {
    listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
}
