//! Sending: one task per channel that this replica holds.
//!
//! In: tenures, sealed Broadcasts, their channels and pages, as observed. Out: requests to gateways, and outcomes in the ledger.
//! Every request is preceded by a stored claim on its row; see `docs/delivery-guarantees.md`.

mod account;
mod lane;
mod polling;
mod sender;
mod status;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::events::Recorder;
use kube::{Client, ResourceExt};
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::address_guard::AddressPolicy;
use crate::api::Broadcast;
use crate::clock;
use crate::domain::ids::ObjectKey;
use crate::journal::Journal;
use crate::lease::{Leases, Tenure, Tenures};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::observed::Observed;
use crate::pulse::{Loop, Pulse};
use sender::Sender;

/// What all channels share.
pub struct Context {
    /// For channels' statuses and Secrets.
    pub client: Client,
    /// For claims and results.
    pub ledger: Arc<Ledger>,
    /// For what providers say of messages when they are asked.
    pub journal: Arc<Journal>,
    /// What this process sees.
    pub observed: Observed,
    /// For which channels it may send.
    pub leases: Leases,
    /// Which addresses users may reach.
    pub addresses: Arc<AddressPolicy>,
    /// Who notices a loop that stops.
    pub pulse: Pulse,
    /// What is counted.
    pub metrics: Metrics,
    /// For events.
    pub recorder: Recorder,
}

/// Longest time in which a loop goes round once, in case a signal was missed, and as a sign of life.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A channel's task ended by a panic: what it had claimed is unaccounted for in memory, and the process must end so that
/// its claims become orphans.
#[derive(Debug, thiserror::Error)]
#[error("the sender of channel {channel} died")]
pub struct SenderDied {
    channel: ObjectKey,
    #[source]
    source: tokio::task::JoinError,
}

/// Sends for the channels that this replica holds, until `shutdown` and then until everything in flight is recorded. The
/// caches must be synced.
///
/// # Errors
/// When a channel's task died.
pub fn run(
    context: Arc<Context>,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<(), SenderDied>> + Send {
    // Before anybody waits for it: whoever never does is noticed too.
    context.pulse.begin(&Loop::Dispatcher, clock::monotonic());
    dispatch(context, shutdown)
}

async fn dispatch(context: Arc<Context>, shutdown: CancellationToken) -> Result<(), SenderDied> {
    let mut changes = context.observed.changes();
    let mut tenures = context.leases.tenures();
    let mut senders = Senders::default();
    while !shutdown.is_cancelled() {
        context.pulse.beat(&Loop::Dispatcher, clock::monotonic());
        changes.mark_unchanged();
        let wanted = wanted(&context.observed);
        senders.forget_gone(&context.metrics, &wanted);
        context.leases.want(wanted);
        // A copy: whoever changes them must not wait for what follows.
        let held = tenures.borrow_and_update().clone();
        senders.follow(&context, &held);
        senders.give_back_unused(&context.leases);
        tokio::select! {
            () = shutdown.cancelled() => {}
            changed = changes.changed() => if changed.is_err() { break },
            changed = tenures.changed() => if changed.is_err() { break },
            () = clock::wait(LONGEST_WAIT) => {}
            ended = senders.next_ended(), if !senders.tasks.is_empty() => context.leases.gave_up(&ended?),
        }
    }
    context.pulse.end(&Loop::Dispatcher);
    context.leases.leave();
    senders.follow(&context, &Tenures::new());
    while !senders.tasks.is_empty() {
        context.leases.gave_up(&senders.next_ended().await?);
    }
    Ok(())
}

/// The tasks of the channels that this replica holds, or held and has not given up yet.
#[derive(Default)]
struct Senders {
    tasks: JoinSet<()>,
    running: HashMap<task::Id, Running>,
    /// Channels that this replica has sent for at any time, and of which it has metrics.
    known: BTreeSet<ObjectKey>,
}

struct Running {
    tenure: Tenure,
    end: CancellationToken,
}

impl Senders {
    /// Starts a task for each new tenure, and ends those whose tenure was withdrawn. A channel never has two tasks: while one
    /// is ending, no other begins.
    fn follow(&mut self, context: &Arc<Context>, tenures: &Tenures) {
        for running in self.running.values() {
            let is_withdrawn = tenures.get(&running.tenure.channel) != Some(&running.tenure);
            if is_withdrawn && !running.end.is_cancelled() {
                tracing::info!(channel = %running.tenure.channel, "stops sending for the channel, which is to be another replica's");
                running.end.cancel();
            }
        }
        for tenure in tenures.values() {
            if !self.has_task(&tenure.channel) {
                let end = CancellationToken::new();
                tracing::info!(channel = %tenure.channel, "sends for the channel");
                context.pulse.begin(&Loop::Sender(tenure.channel.clone()), clock::monotonic());
                let sender = Sender::new(context.clone(), tenure.clone()).run(end.clone());
                self.known.insert(tenure.channel.clone());
                self.running.insert(self.tasks.spawn(sender).id(), Running { tenure: tenure.clone(), end });
            }
        }
    }

    /// Whether a channel has a task, one that is ending too.
    fn has_task(&self, channel: &ObjectKey) -> bool {
        self.running.values().any(|running| running.tenure.channel == *channel)
    }

    /// Gives back what was taken and withdrawn again before any task began: nobody else would, and nobody else may send for it.
    fn give_back_unused(&self, leases: &Leases) {
        for tenure in leases.withdrawn().values() {
            if !self.has_task(&tenure.channel) {
                tracing::info!(channel = %tenure.channel, "has not begun to send for the channel, giving it back");
                leases.gave_up(tenure);
            }
        }
    }

    /// Drops the metrics of channels that are gone and have no task any more.
    fn forget_gone(&mut self, metrics: &Metrics, wanted: &BTreeSet<ObjectKey>) {
        let Self { running, known, .. } = self;
        known.retain(|channel| {
            let is_there = wanted.contains(channel)
                || running.values().any(|running| running.tenure.channel == *channel);
            if !is_there {
                metrics.forget(channel);
            }
            is_there
        });
    }

    /// Waits until a task has ended; there must be one. Everything of its tenure is recorded then.
    async fn next_ended(&mut self) -> Result<Tenure, SenderDied> {
        let (id, died) = match self.tasks.join_next_with_id().await.expect("should have a task") {
            Ok((id, ())) => (id, None),
            Err(source) => (source.id(), Some(source)),
        };
        let Running { tenure, .. } = self.running.remove(&id).expect("should know the tenure of every task");
        match died {
            None => {
                tracing::info!(channel = %tenure.channel, "nothing more of the channel is in flight, giving it back");
                Ok(tenure)
            }
            Some(source) => Err(SenderDied { channel: tenure.channel, source }),
        }
    }
}

/// Channels that exist, and channels that unfinished Broadcasts name: a claim must be recovered also when its channel is
/// gone.
fn wanted(observed: &Observed) -> BTreeSet<ObjectKey> {
    let channels = observed.channels.state();
    let existing = channels
        .iter()
        .map(|channel| ObjectKey::new(channel.namespace().unwrap_or_default(), channel.name_any()));
    let broadcasts = observed.broadcasts.state();
    existing.chain(broadcasts.iter().filter_map(|broadcast| unfinished_channel(broadcast))).collect()
}

/// The channel that a sealed and unfinished Broadcast sends through.
fn unfinished_channel(broadcast: &Broadcast) -> Option<ObjectKey> {
    let status = broadcast.status.as_ref()?;
    let resolved = status.resolved.as_ref()?;
    let unfinished = status.audience_digest.is_some() && status.completion_time.is_none();
    unfinished.then(|| ObjectKey::new(broadcast.namespace().unwrap_or_default(), &resolved.channel_ref.name))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;
    use crate::admin::Readiness;
    use crate::domain::ids::ReplicaId;
    use crate::events;
    use crate::journal::JournalSettings;
    use crate::lease::{LeaseSettings, LeaseTimes};

    /// Longer than any loop may take to go round.
    const LONG: Duration = Duration::from_secs(61);

    /// A dispatcher in a cluster that answers nothing of use.
    fn context() -> Arc<Context> {
        let service = tower::service_fn(|_: Request<Body>| async {
            let response = Response::builder().status(500).body(Body::empty());
            Ok::<_, Infallible>(response.expect("a response"))
        });
        let client = Client::new(service, "broadcast-system");
        let (observed, ..) = Observed::new(client.clone(), Vec::new());
        let ledger = Arc::new(Ledger::new(client.clone(), observed.pages.clone()));
        let settings = LeaseSettings::fake(LeaseTimes::default());
        let metrics = Metrics::new();
        let (leases, _) = Leases::new(client.clone(), settings, Readiness::default(), metrics.clone());
        let recorder = events::recorder(client.clone(), &ledger);
        let (addresses, pulse) = (Arc::new(AddressPolicy::new(Vec::new())), Pulse::default());
        let journal = Journal::new(
            client.clone(),
            ledger.clone(),
            observed.clone(),
            metrics.clone(),
            JournalSettings::default(),
        );
        let journal = Arc::new(journal);
        Arc::new(Context { client, ledger, journal, observed, leases, addresses, pulse, metrics, recorder })
    }

    #[tokio::test]
    async fn a_loop_that_never_goes_round_is_noticed() {
        let context = context();
        let stopped = || context.pulse.stopped(clock::monotonic() + LONG).unwrap_or_default();
        let dispatcher = run(context.clone(), CancellationToken::new());
        assert!(stopped().starts_with("the dispatcher has not moved"), "{}", stopped());
        drop(dispatcher);
        context.pulse.end(&Loop::Dispatcher);

        let channel = ObjectKey::new("shop", "sms");
        let tenure = Tenure::new(channel.clone(), ReplicaId::new("pod_0123456789".into()));
        let mut senders = Senders::default();
        // Its task gets no turn, because this one does not wait.
        senders.follow(&context, &Tenures::from([(channel, tenure)]));
        assert!(stopped().starts_with("the sender of channel shop/sms has not moved"), "{}", stopped());
        senders.follow(&context, &Tenures::new());
        senders.next_ended().await.expect("it ends as it should");
        assert_eq!(stopped(), "");
    }
}
