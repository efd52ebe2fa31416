//! What a request told, from when it is known to be genuine until all of it is stored. In: notices. Out: whether they are stored.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::OwnedSemaphorePermit;

use super::located::{EARLY_WAIT, Found, Located, locate};
use super::places::{At, Places};
use super::refusal::Refusal;
use super::room::ChannelRoom;
use super::{Books, Context, opt_outs, stopping};
use crate::api::{BroadcastChannel, BroadcastChannelSpec};
use crate::clock;
use crate::cluster::chain;
use crate::domain::ids::ObjectKey;
use crate::domain::outcome::Row;
use crate::domain::receipt::{Notices, Preference, Receipt};
use crate::journal::JournalError;
use crate::ledger::LedgerError;
use crate::metrics::ReceiptResult;

/// Between two tries to store what does not come again: at first, and at last. There may be thousands, and they are in no hurry.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How long that is tried while the API server does not take it, or does not bring what it is about into view.
const KEPT: Duration = Duration::from_secs(15 * 60);

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
        let receipts = discreet(context, &self.key.namespace, &self.channel.spec, receipts).await;
        let mut rest =
            Rest { receipts: if self.comes_again { Vec::new() } else { receipts.clone() }, preferences };
        let located = locate(context, &self.key, &self.room, receipts).await;
        let tried = self.attempt(context, located, &rest.preferences, Duration::ZERO).await;
        let refusal = match tried {
            Ok(early) if early.is_empty() => return Ok(()),
            Ok(early) => {
                rest = Rest { receipts: early, preferences: Vec::new() };
                Refusal::TooEarly
            }
            Err(refusal) => refusal,
        };
        if !self.comes_again {
            context.tasks.spawn(self.keep_trying(context.clone(), rest));
        }
        Err(refusal)
    }

    /// Stores what was found, and what else follows from all of it; what was told for the first time was told so long ago. Out: receipts
    /// that are to be looked for again.
    ///
    /// # Errors
    /// When it could not be stored. To store it again changes nothing.
    async fn attempt(
        &self,
        context: &Context,
        mut located: Located,
        preferences: &[Preference],
        waited: Duration,
    ) -> Result<Vec<Receipt>, Refusal> {
        let (books, key, spec) = (&context.books, &self.key, &self.channel.spec);
        located.house(context, &key.namespace).await?;
        let Located { found, notable, strangers, mut lost, unknown, unseen, .. } = located;
        // Who opted out need not wait until it is known what message that was about.
        let unfound = unknown.iter().chain(&unseen);
        lost.extend(unfound.filter(|receipt| receipt.is_opt_out).cloned());
        keep(books, (key, spec), (found, &notable), (preferences, &lost)).await?;
        books.metrics.receipts(ReceiptResult::UnknownId, strangers);
        Ok(self.early(context, unknown, unseen, waited))
    }

    /// Of receipts that name nothing, or nothing that is in view, those that may do so soon. The others are counted.
    fn early(
        &self,
        context: &Context,
        unknown: Vec<Receipt>,
        unseen: Vec<Receipt>,
        waited: Duration,
    ) -> Vec<Receipt> {
        let Books { observed, metrics, .. } = &context.books;
        let (number, refused, now) = (unknown.len(), &self.room.refused, clock::monotonic());
        // A watch that has just failed may not have brought what was sent meanwhile.
        if !unseen.is_empty() || number > 0 && observed.has_trouble(&self.key.namespace) {
            return unknown.into_iter().chain(unseen).collect();
        }
        if unknown.is_empty() {
            return unknown;
        }
        // With nothing in flight, these too are of messages that are not ours, or of deleted Broadcasts.
        let may_come = Places::of(observed, &self.key).may_have_sends_in_flight(clock::now());
        let patience = longest_send(&self.channel.spec);
        // What comes again is known by its id; what does not is known here for as long as it waits.
        let is_early = |receipt: &Receipt| match self.comes_again {
            true => may_come && refused.is_early(&receipt.id, now, patience),
            false => may_come && waited < patience,
        };
        let early: Vec<Receipt> = unknown.into_iter().filter(is_early).collect();
        metrics.receipts(ReceiptResult::UnknownId, number - early.len());
        early
    }

    /// Stores what does not come again as soon as that can be done: receipts whose messages are not known yet, for as long as the answers
    /// to their sends may take; what the API server does not take, for longer.
    async fn keep_trying(self, context: Arc<Context>, rest: Rest) {
        self.try_until_stored(&context, rest).await;
        drop(self.taken);
    }

    async fn try_until_stored(&self, context: &Context, mut rest: Rest) {
        let (began, mut pause) = (clock::monotonic(), FIRST_PAUSE);
        loop {
            tokio::select! {
                () = context.ended.cancelled() => {}
                () = clock::wait(pause) => {}
            }
            let waited = clock::monotonic().saturating_duration_since(began);
            let is_last = waited >= KEPT || context.ended.is_cancelled();
            let mut located = Located::of(rest.receipts.clone());
            located.look(&Places::of(&context.books.observed, &self.key), Some(&self.room));
            match self.attempt(context, located, &rest.preferences, waited).await {
                Ok(early) if early.is_empty() => return,
                Ok(early) => rest = Rest { receipts: early, preferences: Vec::new() },
                Err(refusal) if is_last => {
                    let (receipts, reason) = (rest.receipts.len(), chain(&refusal));
                    tracing::warn!(channel = %self.key, receipts, reason, "gave up receipts that could not be stored");
                    return;
                }
                Err(_) => {}
            }
            if is_last {
                context.books.metrics.receipts(ReceiptResult::UnknownId, rest.receipts.len());
                return;
            }
            pause = LONGEST_PAUSE.min(2 * pause);
        }
    }
}

/// What of a request is not stored yet.
struct Rest {
    receipts: Vec<Receipt>,
    preferences: Vec<Preference>,
}

/// Stores what was found, with what else follows from the notable ones of it; what people want; and the opt-outs among those whose messages
/// are lost.
///
/// # Errors
/// When it could not be stored.
pub async fn keep(
    books: &Books,
    (channel, spec): (&ObjectKey, &BroadcastChannelSpec),
    (found, notable): (Found, &[(At, Receipt)]),
    (preferences, lost): (&[Preference], &[Receipt]),
) -> Result<(), Refusal> {
    stopping::stop(books, &channel.namespace, notable).await?;
    // First what cannot fail for good: an opt-out that cannot be stored must not hold up the receipts for ever.
    merge(books, found).await.map_err(|error| Refusal::NotStored(Box::new(error)))?;
    opt_outs::follow(books, channel, spec, preferences).await?;
    opt_outs::suppress(books, channel, spec, notable, lost).await
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
async fn merge(books: &Books, found: Found) -> Result<(), JournalError> {
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
