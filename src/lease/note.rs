//! The note that the cluster was put back to a backup. It stands on the lease of the leader, where every replica reads it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use rand::distr::{Alphanumeric, SampleString};

use super::names::RESTORED_ANNOTATION;
use super::{LeaseSettings, objects};
use crate::clock;
use crate::cluster::{ApiError, within};
use crate::domain::restored::Restored;

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

/// Writes the note, on whatever stands there now, unless another replica just did.
pub(super) async fn write(api: &Api<Lease>, settings: &LeaseSettings) -> Result<Restored, ApiError> {
    let now = clock::now();
    let found = match within(api.get(&settings.name)).await {
        Ok(found) => Some(found),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    if let Some(known) = found.as_ref().and_then(of).filter(|known| is_recent(known, now)) {
        return Ok(known);
    }
    let id = Alphanumeric.sample_string(&mut rand::rng(), ID_LENGTH).to_lowercase();
    let note = Restored { id, noticed: now };
    let mut lease = found.clone().unwrap_or_else(|| objects::of_nobody(settings));
    put(&mut lease, &note);
    let written = match found {
        Some(_) => within(api.replace(&settings.name, &PostParams::default(), &lease)).await,
        None => within(api.create(&PostParams::default(), &lease)).await,
    };
    written.map(|_| note)
}

/// Writes the note, however long that takes: nothing may go on without it.
pub(super) async fn write_at_any_cost(api: &Api<Lease>, settings: &LeaseSettings) -> Restored {
    loop {
        match write(api, settings).await {
            Ok(note) => return note,
            Err(error) => {
                tracing::error!(%error, "failed to note down that the cluster was restored, trying again");
            }
        }
        clock::wait(settings.times.retry_period).await;
    }
}

fn is_recent(note: &Restored, now: Timestamp) -> bool {
    now.duration_since(note.noticed).abs() < SAME_RESTORE
}
