//! Planning and reporting: from the spec of a Broadcast to sealed pages, and from pages to its status.
//!
//! In: Broadcasts, their sources and pages. Out: pages before the first send, the seal of the plan, statuses, events. It
//! sends nothing; the dispatcher sends what is sealed.

mod begun;
mod campaign;
mod cleanup;
mod hold;
mod in_flight;
mod opted_out;
mod plan;
mod readdress;
mod reconcile;
mod regain;
mod report;
mod restart;
mod sources;
mod taking;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::address_guard::AddressPolicy;
use crate::api::Broadcast;
use crate::clock;
use crate::cluster::{ApiError, chain};
use crate::journal::{Journal, JournalError};
use crate::lease::Leases;
use crate::ledger::{Ledger, LedgerError};
use crate::metrics::Metrics;
use crate::observed::{Observed, Triggers};
use report::Pace;

/// Broadcasts that are reconciled at the same time. Most reconciles read caches; planning waits for the API server.
const CONCURRENCY: usize = 8;
/// The controller itself sets no limit. What waits for it has no order: of Broadcasts that change faster than they are looked
/// at, it would take the same ones again and again, and never come to others. So each waits for its own turn.
const UNLIMITED: u16 = 0;
/// First and longest wait after a reconcile failed, per Broadcast.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// A Broadcast that did not fail again for so long is gone, or will not mind beginning with the first wait.
const FORGET_FAILURES: Duration = Duration::from_secs(600);

/// A reconcile that did not come to its end. It is repeated.
#[derive(Debug, thiserror::Error)]
pub enum PlannerError {
    /// A call to the API server failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A page could not be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Journals could not be taken into pages.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// This process leads no more: the next leader plans anew.
    #[error("the plan was left to another process, which leads now")]
    Deposed,
}

/// A Broadcast whose reconciles fail, one after the other.
struct Failing {
    times: u32,
    last: Instant,
}

/// What the planner works with.
pub struct Context {
    /// For Broadcasts, Secrets and `ConfigMaps`.
    pub client: Client,
    /// For pages.
    pub ledger: Arc<Ledger>,
    /// For receipts that are not in their pages yet.
    pub journal: Arc<Journal>,
    /// What this process sees.
    pub observed: Observed,
    /// Whether it is this process that plans.
    pub leases: Leases,
    /// Where users may send to.
    pub addresses: Arc<AddressPolicy>,
    /// What is counted.
    pub metrics: Metrics,
    recorder: Recorder,
    pace: Pace,
    failures: Mutex<HashMap<String, Failing>>,
    /// Turns to reconcile, given in the order in which they were asked for. Closed when the process ends.
    turns: Semaphore,
}

impl Context {
    /// A context without a past.
    #[must_use]
    pub fn new(
        client: Client,
        recorder: Recorder,
        journal: Arc<Journal>,
        observed: Observed,
        leases: Leases,
        addresses: Arc<AddressPolicy>,
        metrics: Metrics,
    ) -> Self {
        Self {
            recorder,
            client,
            ledger: journal.ledger().clone(),
            journal,
            observed,
            leases,
            addresses,
            metrics,
            pace: Pace::default(),
            failures: Mutex::default(),
            turns: Semaphore::new(CONCURRENCY),
        }
    }

    fn failed(&self, broadcast: &Broadcast) -> Duration {
        let now = clock::monotonic();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, failing| now < failing.last + FORGET_FAILURES);
        let failing =
            failures.entry(broadcast.uid().unwrap_or_default()).or_insert(Failing { times: 0, last: now });
        *failing = Failing { times: failing.times + 1, last: now };
        FIRST_BACKOFF.saturating_mul(1 << (failing.times - 1).min(7)).min(LONGEST_BACKOFF)
    }

    fn succeeded(&self, broadcast: &Broadcast) {
        let uid = broadcast.uid().unwrap_or_default();
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
    }
}

/// Plans and reports until `shutdown`, while this process is the leader.
pub async fn run(context: Arc<Context>, mut triggers: Triggers, shutdown: CancellationToken) {
    let changed = futures::stream::poll_fn(move |task| triggers.poll_recv(task));
    let changed = futures::stream::select(changed, all_for_a_new_leader(&context));
    let sweeping = context.clone();
    let ending = context.clone();
    let ended = async move {
        shutdown.cancelled().await;
        // Whoever waits goes away; whoever has a turn comes to its end.
        ending.turns.close();
    };
    let planning = Controller::for_stream(futures::stream::pending(), context.observed.broadcasts.clone())
        .reconcile_on(changed)
        .with_config(controller::Config::default().concurrency(UNLIMITED))
        .graceful_shutdown_on(ended)
        .run(reconcile::reconcile, on_error, context)
        .for_each(|_| std::future::ready(()));
    tokio::select! {
        () = planning => {}
        () = campaign::sweep(&sweeping) => {}
    }
}

/// Every Broadcast, each time that this process becomes the leader: what changed before was looked at by another one, or by
/// nobody.
fn all_for_a_new_leader(context: &Context) -> impl Stream<Item = ObjectRef<Broadcast>> + Send + use<> {
    let broadcasts = context.observed.broadcasts.clone();
    let mut leadership = context.leases.leadership();
    leadership.mark_changed();
    let elections = futures::stream::unfold(leadership, |mut leadership| async {
        loop {
            leadership.changed().await.ok()?;
            if *leadership.borrow_and_update() {
                return Some(((), leadership));
            }
        }
    });
    elections.flat_map(move |()| {
        let all = broadcasts.state().into_iter();
        futures::stream::iter(all.map(|broadcast| ObjectRef::from_obj(broadcast.as_ref())))
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that the controller wants")]
fn on_error(broadcast: Arc<Broadcast>, error: &PlannerError, context: Arc<Context>) -> Action {
    let wait = context.failed(&broadcast);
    let (namespace, name) = (broadcast.namespace().unwrap_or_default(), broadcast.name_any());
    tracing::warn!(namespace, name, error = %chain(error), retry_seconds = wait.as_secs_f32(), "reconcile failed");
    Action::requeue(wait)
}
