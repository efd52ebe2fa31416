//! Keeps this process among the living: joins, renews, and leaves.
//!
//! It runs beside everything else, so that no other call to the API server, however slow, keeps a renewal waiting.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use rand::distr::{Alphanumeric, SampleString};
use tokio_util::sync::CancellationToken;

use super::names::{REPLICA_LETTERS, replica_lease};
use super::objects::Reign;
use super::shared::Shared;
use super::{LeaseSettings, objects};
use crate::admin::Readiness;
use crate::clock;
use crate::cluster::{ApiError, within_time};
use crate::domain::ids::ReplicaId;
use crate::metrics::RenewalResult;

/// Tries of one renewal, each on what was found after the one before: a lease is behind once when the answer to an earlier
/// renewal was lost, and twice when somebody else happens to write into it. Whoever does that all the time is waited for.
const TRIES: usize = 3;
/// Longest wait for the farewell: the others notice soon enough without it.
const FAREWELL: Duration = Duration::from_secs(2);

pub(super) struct Heart {
    api: Api<Lease>,
    settings: LeaseSettings,
    shared: Arc<Shared>,
    readiness: Readiness,
}

/// The API server shows an older state of the cluster than it has shown before: it was put back to a backup. What this
/// process knows is of a future that has not happened, and what it sent since then is in no book.
#[derive(Debug, thiserror::Error)]
#[error("the cluster went back in time: it was restored from a backup that is older than this process")]
pub struct WentBack;

/// How a stay among the replicas ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The others gave this process up, and left a mark that says so. It was made on what was renewed last, so all that this
    /// process knows of did happen.
    GivenUp,
    /// The lease is gone, long enough after the last renewal that its mark may be gone too.
    Gone,
    /// Something else writes into the lease so often that no renewal was stored for the lease duration.
    Contested,
}

/// When a renewal began, by both clocks.
#[derive(Clone, Copy)]
struct Began {
    monotonic: Instant,
    wall: Timestamp,
}

impl Began {
    fn now() -> Self {
        Self { monotonic: clock::monotonic(), wall: clock::now() }
    }

    /// Whether less than this has surely passed since then. A machine that slept, or stood still, does not count that by its
    /// monotonic clock.
    fn is_within(&self, duration: Duration, now: &Self) -> bool {
        let by_wall = now.wall.duration_since(self.wall);
        now.monotonic.saturating_duration_since(self.monotonic) < duration
            && Duration::try_from(by_wall).is_ok_and(|by_wall| by_wall < duration)
    }
}

/// How a renewal ended.
enum Beat {
    /// It is stored.
    Renewed(Lease),
    /// The lease has another version than was known; it is still this process's.
    Behind(Lease),
    /// Another replica has marked the lease as given up: everything that was held may be another's.
    GivenUp,
    /// The lease is gone: everything that was held may be another's.
    Lost,
    /// The lease says what it said before renewals that were acknowledged: the cluster is an older one.
    WentBack,
    /// Nobody knows. It is tried again, and in the end the renew deadline decides.
    Unclear(ApiError),
}

impl Heart {
    pub(super) fn new(
        api: Api<Lease>,
        settings: LeaseSettings,
        shared: Arc<Shared>,
        readiness: Readiness,
    ) -> Self {
        readiness.close("leases", "joining the other replicas");
        Self { api, settings, shared, readiness }
    }

    /// Joins again and again, as often as this process is given up by the others, until `ended`. Then it says farewell.
    ///
    /// # Errors
    /// When the cluster went back in time.
    pub(super) async fn beat(self, ended: CancellationToken) -> Result<(), WentBack> {
        while !ended.is_cancelled() {
            let id = self.new_id();
            let (lease, began) = tokio::select! {
                joined = self.join(&id) => joined,
                () = ended.cancelled() => break,
            };
            tracing::info!(replica = id.as_str(), "joined the other replicas");
            let uid = lease.uid();
            let end = tokio::select! {
                end = self.stay(&id, lease, began) => end?,
                () = ended.cancelled() => {
                    self.say_farewell(&id, uid).await;
                    break;
                }
            };
            self.shared.lost();
            self.readiness.close("leases", "joining the other replicas again, after this one was given up");
            match end {
                // One that cannot be deleted is deleted by the leader, a day later. What something else writes into is deleted
                // in whatever version: the others take it for a farewell.
                End::GivenUp | End::Contested => drop(self.bounded(self.delete(&id, uid)).await),
                End::Gone if self.has_gone_back().await => return Err(WentBack),
                End::Gone => {}
            }
            let replica = id.as_str();
            match end {
                End::GivenUp | End::Gone => {
                    tracing::warn!(replica, "was given up by the other replicas, giving up all channels");
                }
                End::Contested => tracing::warn!(
                    replica,
                    lease = replica_lease(&self.settings.name, &id),
                    "something else writes into the lease of this replica all the time, giving up all channels and joining anew"
                ),
            }
        }
        Ok(())
    }

    /// Whether the lease of this process is gone because the cluster is an older one, of a time in which the leader's lease had
    /// not come as far, or was not there.
    async fn has_gone_back(&self) -> bool {
        let Some(known) = self.shared.reign() else { return false };
        loop {
            match self.bounded(self.api.get(&self.settings.name)).await {
                Ok(lease) => return Reign::of(&lease).is_before(&known),
                Err(error) if error.is_not_found() => return true,
                Err(error) => tracing::warn!(%error, "failed to read the lease of the leader, trying again"),
            }
            clock::wait(self.settings.times.retry_period).await;
        }
    }

    /// An id that nobody had before. It is the name of the lease's holder: people see the pod in it.
    fn new_id(&self) -> ReplicaId {
        let random = Alphanumeric.sample_string(&mut rand::rng(), REPLICA_LETTERS).to_lowercase();
        ReplicaId::new(format!("{}_{random}", self.settings.pod_name))
    }

    /// Stores a lease of its own, however long that takes. Out: the lease, and the start of the call that may have stored it.
    async fn join(&self, id: &ReplicaId) -> (Lease, Began) {
        let name = replica_lease(&self.settings.name, id);
        let first = Began::now();
        loop {
            let mut began = Began::now();
            let mut wanted = objects::of_replica(&self.settings, &name, id, clock::now());
            if self.shared.is_leaving() {
                objects::mark_leaving(&mut wanted);
            }
            let stored = match self.bounded(self.api.create(&PostParams::default(), &wanted)).await {
                // An earlier try whose answer was lost has made it.
                Err(error) if error.is_already_exists() || error.is_ambiguous() => {
                    began = first;
                    self.bounded(self.api.get(&name)).await.map_err(|_| error)
                }
                stored => stored,
            };
            match stored {
                Ok(lease) if objects::holder(&lease).as_ref() == Some(id) => {
                    if let Some(created) = lease.creation_timestamp() {
                        self.shared.was_told(created.0, began.monotonic);
                    }
                    self.renewed(id, began);
                    return (lease, began);
                }
                Ok(_) => tracing::warn!(lease = name, "the lease is another's"),
                Err(error) => {
                    let reason = match error.is_forbidden() {
                        true => format!(
                            "the operator may not make leases in namespace {}: give its account the Role of the chart",
                            self.settings.namespace
                        ),
                        false => format!("failed to store a lease: {error}"),
                    };
                    tracing::warn!("{reason}");
                    self.readiness.close("leases", reason);
                }
            }
            clock::wait(self.settings.times.retry_period).await;
        }
    }

    /// Renews the lease, which was stored by a call that began at `renewed`, until it is given up or gone.
    async fn stay(&self, id: &ReplicaId, mut lease: Lease, mut renewed: Began) -> Result<End, WentBack> {
        let duration = self.settings.times.duration;
        loop {
            tokio::select! {
                () = clock::wait(self.settings.times.retry_period) => {}
                () = self.shared.for_heart.notified() => {}
            }
            let mut tries = 0;
            lease = loop {
                let began = Began::now();
                tries += 1;
                match self.renew(id, &lease).await {
                    Beat::Renewed(stored) => {
                        self.renewed(id, began);
                        renewed = began;
                        break stored;
                    }
                    Beat::Behind(found) if tries < TRIES => lease = found,
                    Beat::Behind(found) if renewed.is_within(duration, &Began::now()) => {
                        self.missed(RenewalResult::Conflict, &"something else writes into it all the time");
                        break found;
                    }
                    Beat::Behind(_) => {
                        self.shared.metrics.renewed(RenewalResult::Conflict);
                        return Ok(End::Contested);
                    }
                    Beat::GivenUp => return Ok(End::GivenUp),
                    // The others leave a mark, and take that away a day later at the earliest.
                    Beat::Lost if renewed.is_within(duration, &Began::now()) => return Err(WentBack),
                    Beat::Lost => return Ok(End::Gone),
                    Beat::WentBack => return Err(WentBack),
                    Beat::Unclear(error) => {
                        self.missed(RenewalResult::Failed, &error);
                        break lease;
                    }
                }
            };
        }
    }

    fn renewed(&self, id: &ReplicaId, began: Began) {
        self.shared.renewed(id, began.monotonic);
        self.shared.metrics.renewed(RenewalResult::Stored);
        self.readiness.open("leases");
    }

    /// A renewal failed. One is no harm.
    fn missed(&self, result: RenewalResult, error: &dyn fmt::Display) {
        self.shared.metrics.renewed(result);
        tracing::warn!(%error, "failed to renew the lease of this replica, trying again");
        if self.shared.is_lapsed() {
            let reason = format!(
                "nothing is sent: the lease of this replica could not be renewed for too long: {error}"
            );
            self.readiness.close("leases", reason);
        }
    }

    async fn renew(&self, id: &ReplicaId, lease: &Lease) -> Beat {
        if objects::is_given_up(lease) {
            // It was stored by a call whose answer was lost, and given up before it was found.
            return Beat::GivenUp;
        }
        let name = lease.name_any();
        let next = objects::renewed(lease, self.shared.is_leaving(), clock::now());
        match self.bounded(self.api.replace(&name, &PostParams::default(), &next)).await {
            Ok(stored) => Beat::Renewed(stored),
            Err(error) if error.is_not_found() => Beat::Lost,
            Err(error) if error.is_conflict() => match self.bounded(self.api.get(&name)).await {
                Ok(found) if found.uid() == lease.uid() && objects::holder(&found).as_ref() == Some(id) => {
                    let is_older = objects::renewals(&found) < objects::renewals(lease);
                    match objects::is_given_up(&found) {
                        _ if is_older => Beat::WentBack,
                        true => Beat::GivenUp,
                        false => Beat::Behind(found),
                    }
                }
                Ok(_) => Beat::Lost,
                Err(error) if error.is_not_found() => Beat::Lost,
                Err(error) => Beat::Unclear(error),
            },
            Err(error) => Beat::Unclear(error),
        }
    }

    /// Deletes the lease, so that nobody has to wait for its end.
    async fn say_farewell(&self, id: &ReplicaId, uid: Option<String>) {
        match tokio::time::timeout(FAREWELL, self.delete(id, uid)).await {
            Ok(Ok(())) => tracing::info!("left the other replicas"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "failed to leave the other replicas: they wait for the end of the lease");
            }
            Err(_) => {
                tracing::warn!(
                    "leaving the other replicas took too long: they wait for the end of the lease"
                );
            }
        }
        self.shared.lost();
    }

    async fn delete(&self, id: &ReplicaId, uid: Option<String>) -> Result<(), kube::Error> {
        let preconditions = Preconditions { uid, resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let name = replica_lease(&self.settings.name, id);
        self.api.delete(&name, &params).await.map(drop)
    }

    /// A call that leaves time for another one before the renew deadline.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
        within_time(self.settings.times.longest_call(), call).await
    }
}

#[cfg(test)]
#[path = "heart_tests.rs"]
mod tests;
