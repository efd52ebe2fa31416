//! The end of a Broadcast: drained before it is deleted, and deleted when its time is over.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::in_flight::{give_up_claims, is_in_flight};
use super::taking::{give_back, is_needed_by_restart, restart_of};
use super::{Context, PlannerError, campaign};
use crate::api::{Broadcast, FINALIZER};
use crate::clock;
use crate::cluster::{as_seen, within};

/// How often a deleted Broadcast is looked at whose requests in flight are not recorded yet; its pages trigger too.
const DRAIN_POLL: Duration = Duration::from_secs(1);

/// Whether the Broadcast cannot vanish unnoticed.
pub(super) fn has_finalizer(broadcast: &Broadcast) -> bool {
    broadcast.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Makes sure that a deletion waits for the requests in flight.
pub(super) async fn add_finalizer(broadcast: &Broadcast, context: &Context) -> Result<(), PlannerError> {
    let mut finalizers = broadcast.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(broadcast, context, &finalizers).await
}

/// Lets a deleted Broadcast go once nothing of it is in flight. Its pages go with it.
pub(super) async fn finalize(broadcast: &Broadcast, context: &Context) -> Result<Action, PlannerError> {
    if !has_finalizer(broadcast) {
        return Ok(Action::await_change());
    }
    if is_needed_by_restart(broadcast, context) {
        return Ok(Action::requeue(DRAIN_POLL));
    }
    give_back(broadcast, context).await?;
    if is_in_flight(broadcast, context).await? {
        give_up_claims(broadcast, context).await?;
        return Ok(Action::requeue(DRAIN_POLL));
    }
    campaign::release(broadcast, context).await?;
    let finalizers: Vec<String> =
        broadcast.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    set_finalizers(broadcast, context, &finalizers).await?;
    Ok(Action::await_change())
}

/// Deletes a complete Broadcast whose time is over. Returns how long that is still.
pub(super) async fn expire(
    broadcast: &Broadcast,
    context: &Context,
) -> Result<Option<Duration>, PlannerError> {
    let completed = broadcast.status.as_ref().and_then(|status| status.completion_time.as_ref());
    let (Some(completed), Some(ttl)) = (completed, broadcast.spec.ttl_seconds_after_finished) else {
        return Ok(None);
    };
    // Also a restart that waits for a person: what it is to send to is only here.
    if restart_of(broadcast, context).is_some() {
        return Ok(Some(DRAIN_POLL));
    }
    let age = clock::now().duration_since(completed.0);
    let left = jiff::SignedDuration::from_secs(i64::from(ttl)) - age;
    if left.is_positive() {
        return Ok(Duration::try_from(left).ok());
    }
    let api: Api<Broadcast> =
        Api::namespaced(context.client.clone(), &broadcast.namespace().unwrap_or_default());
    let params = DeleteParams::background().preconditions(as_seen(broadcast));
    match within(api.delete(&broadcast.name_any(), &params)).await {
        Ok(_) => {
            tracing::info!(ttl, "deleted, ttlSecondsAfterFinished is over");
            Ok(None)
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A merge patch with the resourceVersion that was seen: it fails when the object has changed since.
async fn set_finalizers(
    broadcast: &Broadcast,
    context: &Context,
    finalizers: &[String],
) -> Result<(), PlannerError> {
    let api: Api<Broadcast> =
        Api::namespaced(context.client.clone(), &broadcast.namespace().unwrap_or_default());
    let metadata = json!({
        "finalizers": finalizers,
        "resourceVersion": broadcast.resource_version(),
        "uid": broadcast.uid(),
    });
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    match within(api.patch(&broadcast.name_any(), &PatchParams::default(), &patch)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
