//! Sending: one task per channel.
//!
//! In: sealed Broadcasts, their channels and pages, as observed. Out: requests to gateways, and outcomes in the ledger.
//! Every request is preceded by a stored claim on its row; see `docs/delivery-guarantees.md`.

mod account;
mod lane;
mod sender;
mod status;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kube::{Client, ResourceExt};
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::address_guard::AddressPolicy;
use crate::api::Broadcast;
use crate::domain::ids::ObjectKey;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::observed::Observed;
use sender::Sender;

/// What all channels share.
pub struct Context {
    /// For channels' statuses and Secrets.
    pub client: Client,
    /// For claims and results.
    pub ledger: Arc<Ledger>,
    /// What this process sees.
    pub observed: Observed,
    /// Which addresses users may reach.
    pub addresses: Arc<AddressPolicy>,
    /// What is counted.
    pub metrics: Metrics,
}

/// A channel's task ended by a panic: what it had claimed is unaccounted for in memory, and the process must end so that
/// its claims become orphans.
#[derive(Debug, thiserror::Error)]
#[error("the sender of channel {channel} died")]
pub struct SenderDied {
    channel: ObjectKey,
    #[source]
    source: tokio::task::JoinError,
}

/// Sends until `shutdown`, and then until everything in flight is recorded. The caches must be synced.
///
/// # Errors
/// When a channel's task died.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) -> Result<(), SenderDied> {
    let mut changes = context.observed.changes();
    let mut senders = Senders::default();
    loop {
        changes.mark_unchanged();
        for key in wanted(&context.observed) {
            senders.start(&context, key, &shutdown);
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = changes.changed() => if changed.is_err() { break },
            ended = senders.next_ended(), if !senders.tasks.is_empty() => ended?,
        }
    }
    while !senders.tasks.is_empty() {
        senders.next_ended().await?;
    }
    Ok(())
}

/// The tasks of all channels.
#[derive(Default)]
struct Senders {
    tasks: JoinSet<()>,
    channels: HashMap<task::Id, ObjectKey>,
    running: HashSet<ObjectKey>,
}

impl Senders {
    fn start(&mut self, context: &Arc<Context>, key: ObjectKey, shutdown: &CancellationToken) {
        if self.running.insert(key.clone()) {
            let sender = Sender::new(context.clone(), key.clone()).run(shutdown.clone());
            self.channels.insert(self.tasks.spawn(sender).id(), key);
        }
    }

    /// Waits until a task ends; one that is no longer wanted ends by itself.
    async fn next_ended(&mut self) -> Result<(), SenderDied> {
        let (id, died) = match self.tasks.join_next_with_id().await {
            None => return Ok(()),
            Some(Ok((id, ()))) => (id, None),
            Some(Err(source)) => (source.id(), Some(source)),
        };
        let channel = self.channels.remove(&id).expect("should know the channel of every task");
        self.running.remove(&channel);
        died.map_or(Ok(()), |source| Err(SenderDied { channel, source }))
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
