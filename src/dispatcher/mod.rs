//! Sending: one task per channel.
//!
//! In: sealed Broadcasts, their channels and pages, as observed. Out: requests to gateways, and outcomes in the ledger.
//! Every request is preceded by a stored claim on its row; see `docs/delivery-guarantees.md`.

mod account;
mod lane;
mod sender;
mod status;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube::{Client, ResourceExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::address_guard::AddressPolicy;
use crate::api::Broadcast;
use crate::domain::ids::ObjectKey;
use crate::domain::token::MessageToken;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::observed::Observed;
use sender::Sender;

/// Hears which message id a gateway gave to which row.
pub trait MessageIdSink: Send + Sync {
    /// The gateway took the message of `token` through `channel` and calls it `message_id`.
    fn accepted(&self, channel: &ObjectKey, message_id: &str, token: &MessageToken);
}

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
    /// Where message ids go.
    pub message_ids: Arc<dyn MessageIdSink>,
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
    let mut senders: HashMap<ObjectKey, JoinHandle<()>> = HashMap::new();
    loop {
        changes.mark_unchanged();
        end_finished(&mut senders).await?;
        for key in wanted(&context.observed) {
            senders.entry(key).or_insert_with_key(|key| {
                tokio::spawn(Sender::new(context.clone(), key.clone()).run(shutdown.clone()))
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = changes.changed() => if changed.is_err() { break },
        }
    }
    for (channel, sender) in senders {
        sender.await.map_err(|source| SenderDied { channel, source })?;
    }
    Ok(())
}

async fn end_finished(senders: &mut HashMap<ObjectKey, JoinHandle<()>>) -> Result<(), SenderDied> {
    let finished: Vec<ObjectKey> =
        senders.iter().filter(|(_, sender)| sender.is_finished()).map(|(key, _)| key.clone()).collect();
    for channel in finished {
        if let Some(sender) = senders.remove(&channel) {
            sender.await.map_err(|source| SenderDied { channel, source })?;
        }
    }
    Ok(())
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
