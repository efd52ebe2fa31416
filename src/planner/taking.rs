//! Whose the chats of a source are: one restart takes them, and gives them back only if it is deleted before it began.

use std::sync::Arc;

use kube::ResourceExt;

use super::begun::{has_begun, is_seen_to_have_begun};
use super::plan::stalled;
use super::reconcile::is_sealed;
use super::restart::source_of;
use super::{Context, PlannerError, report};
use crate::api::{Broadcast, BroadcastBatch, Condition, ObjectRef};
use crate::domain::ids::ObjectKey;
use crate::domain::restart::{Decision, decide_closed, is_restart_of};
use crate::domain::verdict::Stage;

/// Marks the source as restarted by this child, unless it is already. Fails when the source has changed since it was read.
pub(super) async fn take(
    child: &Broadcast,
    source: Broadcast,
    context: &Context,
) -> Result<Broadcast, PlannerError> {
    let mut status = source.status.clone().unwrap_or_default();
    if status.restarted_by.is_some() {
        return Ok(source);
    }
    status.restarted_by = Some(reference_to(child));
    status.given_back_by = None;
    Ok(report::write(&source, context, status).await?)
}

/// Gives the source of a restart back that ends before it began: another restart may take it then. What was closed of it stays
/// closed, as Cancelled chats, which the next restart gets.
pub(super) async fn give_back(child: &Broadcast, context: &Context) -> Result<(), PlannerError> {
    let Some(request) = &child.spec.restart_from else { return Ok(()) };
    if has_begun(child, context).await? {
        return Ok(());
    }
    let Some(source) = source_of(child, request, context).await? else { return Ok(()) };
    let mut status = source.status.clone().unwrap_or_default();
    if status.restarted_by.as_ref().is_some_and(|by| Some(&by.uid) == child.metadata.uid.as_ref()) {
        status.given_back_by = status.restarted_by.take();
        report::write(&source, context, status).await?;
    }
    Ok(())
}

/// Why a restart may not take a source of which batches are closed although its status names no restart, if so.
pub(super) fn refuse_closed(
    child: &Broadcast,
    source: &Broadcast,
    batches: &[BroadcastBatch],
    context: &Context,
) -> Option<Stage> {
    let is_taken = source.status.as_ref().is_some_and(|status| status.restarted_by.is_some());
    let is_closed = |batch: &BroadcastBatch| batch.status.as_ref().is_some_and(|status| status.sealed);
    if is_taken || !batches.iter().any(is_closed) {
        return None;
    }
    match decide_closed(child, source, found_again(source, context).as_ref()) {
        Decision::Refused(reason, message) => Some(stalled(reason, &message)),
        Decision::Wait(_) | Decision::Go => None,
    }
}

/// The restart that has begun with the chats of a source, for one whose status has forgotten it. That it has begun is certain. One that
/// is not in view, or was deleted, is not found.
pub(super) fn found_again(source: &Broadcast, context: &Context) -> Option<ObjectRef> {
    let restarts = context.observed.broadcasts.state().into_iter().filter(|child| {
        child.metadata.namespace == source.metadata.namespace
            && is_restart_of(child, source)
            && is_seen_to_have_begun(child, context)
    });
    restarts.min_by_key(|child| child.metadata.creation_timestamp.clone()).map(|child| reference_to(&child))
}

fn reference_to(child: &Broadcast) -> ObjectRef {
    ObjectRef { name: child.name_any(), uid: child.uid().unwrap_or_default() }
}

/// Whether a restart that may go on by itself has taken this Broadcast and still needs its pages.
pub(super) fn is_needed_by_restart(source: &Broadcast, context: &Context) -> bool {
    restart_of(source, context).is_some_and(|child| {
        let conditions = child.status.as_ref().map_or(&[][..], |status| &status.conditions);
        !Condition::is_true(conditions, "Stalled")
    })
}

/// The restart that has taken this Broadcast and is not sealed yet. One that has lost its status is among them: whoever accepts
/// that needs the pages of its source again.
pub(super) fn restart_of(source: &Broadcast, context: &Context) -> Option<Arc<Broadcast>> {
    let by = source.status.as_ref().and_then(|status| status.restarted_by.as_ref())?;
    let key = ObjectKey::new(source.namespace().unwrap_or_default(), &by.name);
    context.observed.broadcast(&key).filter(|child| {
        let is_same = child.metadata.uid.as_ref() == Some(&by.uid);
        is_same && child.metadata.deletion_timestamp.is_none() && !is_sealed(child)
    })
}
