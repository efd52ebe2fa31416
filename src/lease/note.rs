//! The note that the cluster was put back to a backup. It stands on the lease of the leader, where every replica reads it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use rand::distr::{Alphanumeric, SampleString};

use super::names::RESTORED_ANNOTATION;
use super::{LeaseSettings, objects};
use crate::admin::Readiness;
use crate::clock;
use crate::cluster::{ApiError, within};
use crate::domain::restored::Restored;

/// The gate of readiness that is closed while the note cannot be written.
pub(super) const GATE: &str = "restore-note";
/// Letters and digits that tell one note from another.
const ID_LENGTH: usize = 8;
/// All replicas notice the same restore within seconds; one note is enough for it.
const SAME_RESTORE: SignedDuration = SignedDuration::from_mins(1);

/// The note on a lease.
pub(super) fn of(lease: &Lease) -> Option<Restored> {
    lease.annotations().get(RESTORED_ANNOTATION).and_then(|text| text.parse().ok())
}

/// Puts a note on a lease that is to be stored.
pub(super) fn put(lease: &mut Lease, note: &Restored) {
    lease.annotations_mut().insert(RESTORED_ANNOTATION.to_owned(), note.to_string());
}

/// What the API server takes for the time: it says so of an object that it makes, also when that is not to be stored. The note
/// decides about Broadcasts that are dated by the same clock, and one that is years away would hold all that is ever made.
async fn server_time(api: &Api<Lease>, settings: &LeaseSettings) -> Result<Timestamp, ApiError> {
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let mut never_stored = objects::of_nobody(settings);
    never_stored.metadata.name = Some(format!("{}-{}", settings.name, random()));
    let made = within(api.create(&params, &never_stored)).await?;
    Ok(made.creation_timestamp().map_or_else(clock::now, |time| time.0))
}

fn random() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), ID_LENGTH).to_lowercase()
}

/// Writes the note, on whatever stands there now, unless another replica just did.
pub(super) async fn write(api: &Api<Lease>, settings: &LeaseSettings) -> Result<Restored, ApiError> {
    let now = server_time(api, settings).await?;
    let found = match within(api.get(&settings.name)).await {
        Ok(found) => Some(found),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    if let Some(known) = found.as_ref().and_then(of).filter(|known| is_recent(known, now)) {
        return Ok(known);
    }
    let note = Restored { id: random(), noticed: now };
    let mut lease = found.clone().unwrap_or_else(|| objects::of_nobody(settings));
    put(&mut lease, &note);
    let written = match found {
        Some(_) => within(api.replace(&settings.name, &PostParams::default(), &lease)).await,
        None => within(api.create(&PostParams::default(), &lease)).await,
    };
    written.map(|_| note)
}

/// Writes the note, however long that takes: nothing may go on without it.
pub(super) async fn write_at_any_cost(
    api: &Api<Lease>,
    settings: &LeaseSettings,
    readiness: &Readiness,
) -> Restored {
    loop {
        match write(api, settings).await {
            Ok(note) => return note,
            Err(error) => {
                tracing::error!(%error, "failed to note down that the cluster was restored, trying again");
                readiness.close(GATE, not_noted(settings, &error));
            }
        }
        clock::wait(settings.times.retry_period).await;
    }
}

/// What the gate says while the note cannot be written.
pub(super) fn not_noted(settings: &LeaseSettings, error: &ApiError) -> String {
    let LeaseSettings { namespace, name, .. } = settings;
    format!(
        "nothing is sent: the cluster may have been restored from a backup, and that cannot be noted down on Lease {namespace}/{name}: {error}"
    )
}

fn is_recent(note: &Restored, now: Timestamp) -> bool {
    now.duration_since(note.noticed).abs() < SAME_RESTORE
}
