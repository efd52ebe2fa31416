//! Whether anything of a Broadcast may still be sent, as the stored pages say.
//!
//! The sender may be another process, which has not seen a stop yet. It stores a claim and then reads the Broadcast; whoever has
//! seen the stop reads the pages here. Each writes before it reads, so one of the two sees the other: either the claim is found
//! here, or the stop is found there and nothing is sent.

use kube::ResourceExt;

use super::reconcile::{is_sealed, key_of, uid_of};
use super::{Context, PlannerError};
use crate::api::{Broadcast, Condition};

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

/// Looks at the stored pages of a Broadcast that is stopped and does not say so yet: what is reported next is no older.
pub(super) async fn look_before_suspended(
    broadcast: &Broadcast,
    context: &Context,
) -> Result<(), PlannerError> {
    let status = broadcast.status.as_ref();
    let suspended = status.and_then(|status| Condition::find(&status.conditions, "Suspended"));
    let is_said = suspended.is_some_and(|suspended| {
        Condition::is_true(std::slice::from_ref(suspended), "Suspended")
            && Some(suspended.observed_generation) == broadcast.metadata.generation
    });
    if broadcast.spec.paused && !is_said {
        is_in_flight(broadcast, context).await?;
    }
    Ok(())
}

/// Whether a page in view is claimed.
fn is_claimed(broadcast: &Broadcast, context: &Context) -> bool {
    let namespace = broadcast.namespace().unwrap_or_default();
    context.observed.pages.of(&namespace, &uid_of(broadcast)).iter().any(|page| page.claim.is_some())
}
