//! Whether anything of a Broadcast may still be sent, as the stored pages say.
//!
//! The sender may be another process, which has not seen a stop yet. It stores a claim and then reads the Broadcast and its
//! channel; whoever has seen the stop reads the pages here. Each writes before it reads, so one of the two sees the other: either the claim is found
//! here, or the stop is found there and nothing is sent.

use jiff::SignedDuration;
use kube::ResourceExt;

use super::reconcile::{channel_of, is_sealed, key_of, uid_of};
use super::{Context, PlannerError};
use crate::api::{Broadcast, Condition};
use crate::clock;
use crate::domain::verdict::CHANNEL_PAUSED;

/// Seconds of the longest request, where the channel is not known.
const LONGEST_REQUEST: i64 = 60;
/// The status may have been taken away under a live sender, which starts nothing more of a Broadcast that is deleted, and records
/// what it has in flight.
const RECORDED_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// Whether a Broadcast that is to stop has a claim on one of its pages, read from the API server.
pub(super) async fn is_in_flight(broadcast: &Broadcast, context: &Context) -> Result<bool, PlannerError> {
    if is_claimed(broadcast, context) {
        return Ok(true);
    }
    if is_sealed(broadcast) {
        for page in context.ledger.stored_pages(&key_of(broadcast)).await? {
            context.observed.pages.note(&page);
        }
    }
    Ok(is_claimed(broadcast, context))
}

/// Looks at the stored pages of a Broadcast that is stopped, or whose channel is, and does not say so yet: what is reported
/// next is no older.
pub(super) async fn look_before_suspended(
    broadcast: &Broadcast,
    context: &Context,
) -> Result<(), PlannerError> {
    let conditions = broadcast.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let suspended = Condition::find(conditions, "Suspended");
    let is_stop_said = suspended.is_some_and(|suspended| {
        Condition::is_true(conditions, "Suspended")
            && Some(suspended.observed_generation) == broadcast.metadata.generation
    });
    let is_brake_said =
        Condition::find(conditions, "Ready").is_some_and(|ready| ready.reason == CHANNEL_PAUSED);
    let is_brake_on = channel_of(broadcast, context).is_some_and(|channel| channel.spec.paused);
    if (broadcast.spec.paused && !is_stop_said) || (is_brake_on && !is_brake_said) {
        is_in_flight(broadcast, context).await?;
    }
    Ok(())
}

/// Gives up the claims of a Broadcast without a plan, which nobody sends for: a backup was restored without its status, but
/// with a claim that was open then. Its rows become Unknown.
pub(super) async fn give_up_claims(broadcast: &Broadcast, context: &Context) -> Result<(), PlannerError> {
    if is_sealed(broadcast) {
        return Ok(());
    }
    let Some(deleted) = &broadcast.metadata.deletion_timestamp else { return Ok(()) };
    let channel = channel_of(broadcast, context);
    let time_out = channel.map_or(LONGEST_REQUEST, |channel| i64::from(channel.spec.timeout_seconds()));
    let long_ago = clock::now() - SignedDuration::from_secs(time_out) - RECORDED_WITHIN;
    let uid = uid_of(broadcast);
    for page in context.observed.pages.of(&broadcast.namespace().unwrap_or_default(), &uid) {
        if page.claim.as_ref().is_some_and(|claim| claim.time.0.max(deleted.0) < long_ago) {
            let rows = context.ledger.recover(&page.key, &uid).await?;
            tracing::warn!(page = %page.key, rows, "gave up a claim of a Broadcast without a plan");
            context.metrics.orphaned(rows);
        }
    }
    Ok(())
}

/// Whether a page in view is claimed.
fn is_claimed(broadcast: &Broadcast, context: &Context) -> bool {
    let namespace = broadcast.namespace().unwrap_or_default();
    context.observed.pages.of(&namespace, &uid_of(broadcast)).iter().any(|page| page.claim.is_some())
}
