//! Writes statuses: when something changed, at most once a second per Broadcast, and big ones less often. Tells events.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::api::PostParams;
use kube::{Api, Resource, ResourceExt};

use super::reconcile::{channel_of, uid_of};
use super::{Context, PlannerError};
use crate::api::{Broadcast, BroadcastStatus, RESTART_REFUSED};
use crate::clock;
use crate::cluster::{ApiError, within};
use crate::domain::hold;
use crate::domain::verdict::{Observation, Refusal, Stage, status_of};
use crate::events;

/// Between two writes of one status.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of one object that may be written per second: each write costs the whole object, in etcd and for every watcher.
const BYTES_PER_SECOND: usize = 100_000;

/// From when on the status of which Broadcast may be written again, by UID. Those that may at once are not in it.
#[derive(Default)]
pub(super) struct Pace(Mutex<HashMap<String, Instant>>);

impl Pace {
    /// How long to wait before the next write, if at all.
    fn wait(&self, uid: &str, now: Instant) -> Option<Duration> {
        let next = self.lock().get(uid).copied();
        next.map(|next| next.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    fn wrote(&self, uid: String, bytes: usize, now: Instant) {
        let millis = (bytes * 1000 / BYTES_PER_SECOND) as u64;
        let interval = WRITE_INTERVAL.max(Duration::from_millis(millis));
        let mut waits = self.lock();
        waits.retain(|_, next| now < *next);
        waits.insert(uid, now + interval);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the status if it changed. Returns how long to wait when it is too early for that.
pub(super) async fn report(
    broadcast: &Broadcast,
    context: &Context,
    stage: &Stage,
    restart_refused: Option<&Refusal>,
) -> Result<Option<Duration>, PlannerError> {
    let pages = context.observed.pages.of(&broadcast.namespace().unwrap_or_default(), &uid_of(broadcast));
    let channel = channel_of(broadcast, context);
    let channel = channel.as_deref();
    let now = clock::now();
    let observation = Observation { broadcast, channel, pages: &pages, stage, restart_refused, now };
    let status = status_of(&observation);
    if broadcast.status.as_ref() == Some(&status) {
        return Ok(None);
    }
    let wait = context.pace.wait(&broadcast.uid().unwrap_or_default(), clock::monotonic());
    // A hold must stand in the status before its reason can go away, and what accepting one has done before anything is found
    // of it.
    let is_urgent = matches!(stage, Stage::Held(_)) || hold::accepted(broadcast).is_some();
    if wait.is_some() && !is_urgent {
        return Ok(wait);
    }
    write(broadcast, context, status).await?;
    Ok(None)
}

/// Writes a status now, on the version that it was made from, and tells what changed.
pub(super) async fn write(
    broadcast: &Broadcast,
    context: &Context,
    status: BroadcastStatus,
) -> Result<Broadcast, ApiError> {
    let api: Api<Broadcast> =
        Api::namespaced(context.client.clone(), &broadcast.namespace().unwrap_or_default());
    let next = Broadcast { status: Some(status), ..broadcast.clone() };
    let bytes = serde_json::to_vec(&next).map_or(0, |json| json.len());
    context.pace.wrote(broadcast.uid().unwrap_or_default(), bytes, clock::monotonic());
    let written = within(api.replace_status(&broadcast.name_any(), &PostParams::default(), &next)).await?;
    tell(broadcast, &written, context).await;
    Ok(written)
}

/// An event for a new state.
async fn tell(before: &Broadcast, after: &Broadcast, context: &Context) {
    let conditions = |broadcast: &Broadcast| {
        broadcast.status.as_ref().map_or(&[][..], |status| &status.conditions).to_vec()
    };
    let (object, before, after) = (after.object_ref(&()), conditions(before), conditions(after));
    events::tell_trouble(&context.recorder, &object, RESTART_REFUSED, &before, &after).await;
    events::tell(&context.recorder, &object, &before, &after).await;
}
