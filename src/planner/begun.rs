//! Whether anything of a Broadcast may have been sent, by all that is left of it: a status can be lost, and whoever takes that for
//! a Broadcast that never began sends its messages again.

use super::reconcile::{is_sealed, key_of, uid_of};
use super::{Context, PlannerError};
use crate::api::{Broadcast, BroadcastBatch, HoldReason};
use crate::domain::outcome::Outcome;
use crate::domain::page::Page;

/// Whether anything of a Broadcast may have been sent. Its pages are read fresh where its status does not say so.
pub(super) async fn has_begun(broadcast: &Broadcast, context: &Context) -> Result<bool, PlannerError> {
    Ok(is_seen_to_have_begun(broadcast, context) || own_pages(broadcast, context).await?.iter().any(was_used))
}

/// The same by what is in view. That it has begun is certain then; that it has not may be news that did not come yet.
pub(super) fn is_seen_to_have_begun(broadcast: &Broadcast, context: &Context) -> bool {
    let hold = broadcast.status.as_ref().and_then(|status| status.hold.as_ref());
    // Its pages showed it once, and may be gone since.
    let is_status_lost = hold.is_some_and(|hold| hold.reason == HoldReason::StatusLost);
    let namespace = broadcast.metadata.namespace.as_deref().unwrap_or_default();
    is_sealed(broadcast) || is_status_lost || context.observed.pages.were_used(namespace, &uid_of(broadcast))
}

/// Whether anything was ever sent from a page.
pub(super) fn was_used(batch: &BroadcastBatch) -> bool {
    let Some(status) = batch.status.as_ref().filter(|status| !status.outcomes.is_empty()) else {
        return false;
    };
    let untouched = |page: Page| {
        page.rows()
            .iter()
            .all(|row| matches!(row.outcome, Outcome::Pending | Outcome::Skipped) && row.attempts == 0)
    };
    status.claim.is_some() || status.sealed || !Page::parse(batch).is_ok_and(untouched)
}

/// The stored pages of a Broadcast, and not those of an earlier one of its name.
pub(super) async fn own_pages(
    broadcast: &Broadcast,
    context: &Context,
) -> Result<Vec<BroadcastBatch>, PlannerError> {
    let mut stored = context.ledger.stored_pages(&key_of(broadcast)).await?;
    let uid = uid_of(broadcast);
    stored.retain(|page| page.spec.broadcast.uid == uid.as_str());
    Ok(stored)
}
