//! What a request told, from when it is known to be genuine until all of it is stored. In: notices. Out: whether they are stored.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::OwnedSemaphorePermit;

use super::located::{EARLY_WAIT, Found, Located, locate};
use super::places::Places;
use super::refusal::Refusal;
use super::room::ChannelRoom;
use super::{Books, Context, opt_outs, stopping};
use crate::api::{BroadcastChannel, BroadcastChannelSpec};
use crate::clock;
use crate::cluster::chain;
use crate::domain::ids::ObjectKey;
use crate::domain::outcome::Row;
use crate::domain::receipt::{Notices, Receipt};
use crate::journal::JournalError;
use crate::ledger::LedgerError;
use crate::metrics::ReceiptResult;

/// Between two looks for receipts that wait in the background. There may be thousands, and they are in no hurry.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What one request told, and of whom.
pub struct Told {
    /// Name of the channel.
    pub key: ObjectKey,
    /// The channel.
    pub channel: Arc<BroadcastChannel>,
    /// Its room.
    pub room: Arc<ChannelRoom>,
    /// What was told.
    pub notices: Notices,
    /// Whether the provider brings again what is not taken.
    pub comes_again: bool,
    /// The room that it takes, until nothing of it is held any more: a gateway that hangs up and repeats must not fill the memory.
    pub taken: OwnedSemaphorePermit,
}

impl Told {
    /// Stores all of it. In a task of its own: a gateway that hangs up takes nothing with it, and some do not call again.
    pub async fn stored(self, context: &Arc<Context>) -> Result<(), Refusal> {
        let own = context.clone();
        let task = context.tasks.spawn(async move { self.store(&own).await });
        task.await.unwrap_or_else(|died| Err(Refusal::NotStored(Box::new(died))))
    }

    async fn store(mut self, context: &Arc<Context>) -> Result<(), Refusal> {
        let Notices { receipts, preferences, .. } = std::mem::take(&mut self.notices);
        let (books, key, spec) = (&context.books, &self.key, &self.channel.spec);
        let receipts = discreet(context, &key.namespace, spec, receipts).await;
        let mut located = locate(context, key, &self.room, receipts).await;
        located.house(context, &key.namespace).await?;
        books.metrics.receipts(ReceiptResult::Applied, located.apart);
        let Located { found, notable, strangers, mut lost, unknown, unseen, .. } = located;
        stopping::stop(books, &key.namespace, &notable).await?;
        // First what cannot fail for good: an opt-out that cannot be stored must not hold up the receipts for ever.
        merge(books, found).await.map_err(|error| Refusal::NotStored(Box::new(error)))?;
        opt_outs::follow(books, key, spec, &preferences).await?;
        // Who opted out need not wait until it is known what message that was about.
        lost.extend(unknown.iter().filter(|receipt| receipt.is_opt_out).cloned());
        opt_outs::suppress(books, key, spec, &notable, &lost).await?;
        books.metrics.receipts(ReceiptResult::UnknownId, strangers);
        let early = self.early(context, unknown, unseen);
        if early.is_empty() {
            return Ok(());
        }
        if !self.comes_again {
            context.tasks.spawn(self.wait_for(context.clone(), early));
        }
        Err(Refusal::TooEarly)
    }

    /// Of receipts that name nothing, or nothing that is in view, those that may do so soon. The others are counted.
    fn early(&self, context: &Context, unknown: Vec<Receipt>, unseen: Vec<Receipt>) -> Vec<Receipt> {
        let Books { observed, metrics, .. } = &context.books;
        let (number, refused, now) = (unknown.len(), &self.room.refused, clock::monotonic());
        // A watch that has just failed may not have brought what was sent meanwhile.
        if !unseen.is_empty() || number > 0 && observed.has_trouble(&self.key.namespace) {
            return unknown.into_iter().chain(unseen).collect();
        }
        // With nothing in flight, these too are of messages that are not ours, or of deleted Broadcasts.
        let may_come = Places::of(observed, &self.key).may_have_sends_in_flight(clock::now());
        let patience = longest_send(&self.channel.spec);
        let is_early = |receipt: &Receipt| may_come && refused.is_early(&receipt.id, now, patience);
        let early: Vec<Receipt> = unknown.into_iter().filter(is_early).collect();
        metrics.receipts(ReceiptResult::UnknownId, number - early.len());
        early
    }

    /// Waits for the messages of receipts that do not come again, for as long as the answers to their sends may take.
    async fn wait_for(self, context: Arc<Context>, early: Vec<Receipt>) {
        let (books, room) = (&context.books, Some(self.room.as_ref()));
        let deadline = clock::monotonic() + longest_send(&self.channel.spec);
        let mut located = Located::of(early);
        loop {
            located.unknown.append(&mut located.unseen);
            located.look(&Places::of(&books.observed, &self.key), room);
            let left = deadline.saturating_duration_since(clock::monotonic());
            let is_all = located.unknown.is_empty() && located.unseen.is_empty();
            if is_all || left.is_zero() || context.ended.is_cancelled() {
                break;
            }
            tokio::select! {
                () = context.ended.cancelled() => {}
                () = clock::wait(left.min(LOOK_AGAIN)) => {}
            }
        }
        let nobodys = located.take_nobodys();
        books.metrics.receipts(ReceiptResult::UnknownId, located.strangers + nobodys.len());
        // Who opted out did so whatever message it was about.
        let mut lost = std::mem::take(&mut located.lost);
        lost.extend(nobodys.into_iter().filter(|receipt| receipt.is_opt_out));
        books.metrics.receipts(ReceiptResult::Applied, located.apart);
        if let Err(error) = keep(books, (&self.key, &self.channel.spec), located, &lost).await {
            let reason = chain(&error);
            tracing::warn!(channel = %self.key, reason, "failed to store receipts that came before their messages were known");
        }
        drop(self.taken);
    }
}

/// Stores what was found, and what else follows from it; and the opt-outs among those whose messages are lost.
///
/// # Errors
/// When it could not be stored.
pub async fn keep(
    books: &Books,
    (channel, spec): (&ObjectKey, &BroadcastChannelSpec),
    located: Located,
    lost: &[Receipt],
) -> Result<(), Refusal> {
    stopping::stop(books, &channel.namespace, &located.notable).await?;
    merge(books, located.found).await.map_err(|error| Refusal::NotStored(Box::new(error)))?;
    opt_outs::suppress(books, channel, spec, &located.notable, lost).await
}

/// Receipts without secrets of the channel in what they say. Only failures say anything.
async fn discreet(
    context: &Context,
    namespace: &str,
    channel: &BroadcastChannelSpec,
    receipts: Vec<Receipt>,
) -> Vec<Receipt> {
    let says_nothing = |Row { code, detail, .. }: &Row| code.is_empty() && detail.is_empty();
    if receipts.iter().all(|receipt| says_nothing(&receipt.evidence)) {
        return receipts;
    }
    let words = context.secrets.words(namespace, channel).await;
    let told = |receipt: Receipt| receipt.without(words.iter().map(String::as_str));
    receipts.into_iter().map(told).collect()
}

/// Longest time from a request that is in flight now until the message id in its answer is known.
fn longest_send(channel: &BroadcastChannelSpec) -> Duration {
    Duration::from_secs(u64::try_from(channel.timeout_seconds()).unwrap_or_default()) + EARLY_WAIT
}

/// Takes evidence into its pages or into journals, and counts it.
pub async fn merge(books: &Books, found: Found) -> Result<(), JournalError> {
    let Books { journal, metrics, .. } = books;
    let merges = found.into_iter().map(|(page, evidence)| async move {
        let receipts = evidence.len();
        match journal.store(&page, evidence).await {
            Ok(merged) => {
                metrics.receipts(ReceiptResult::UnknownId, merged.unmatched);
                metrics.receipts(ReceiptResult::Applied, receipts - merged.unmatched);
                Ok(())
            }
            // Deleted since, with its whole Broadcast.
            Err(JournalError::Page(LedgerError::Gone { .. } | LedgerError::Foreign { .. })) => {
                metrics.receipts(ReceiptResult::UnknownId, receipts);
                Ok(())
            }
            Err(error) => Err(error),
        }
    });
    join_all(merges).await.into_iter().collect()
}
