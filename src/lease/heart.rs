//! Keeps this process among the living: joins, renews, and leaves.
//!
//! It runs beside everything else, so that no other call to the API server, however slow, keeps a renewal waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

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
use crate::cluster::{ApiError, CALL_TIMEOUT, within_time};
use crate::domain::ids::ReplicaId;

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

/// How a renewal ended.
enum Beat {
    /// It is stored.
    Renewed(Lease),
    /// The lease has another version than was known; it is still this process's.
    Behind(Lease),
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
            let lease = tokio::select! {
                lease = self.join(&id) => lease,
                () = ended.cancelled() => break,
            };
            tracing::info!(replica = id.as_str(), "joined the other replicas");
            let uid = lease.uid();
            tokio::select! {
                stayed = self.stay(&id, lease) => stayed?,
                () = ended.cancelled() => {
                    self.say_farewell(&id, uid).await;
                    break;
                }
            }
            self.shared.lost();
            self.readiness.close("leases", "joining the other replicas again, after they gave this one up");
            if self.has_gone_back().await {
                return Err(WentBack);
            }
            tracing::warn!(
                replica = id.as_str(),
                "was given up by the other replicas, giving up all channels"
            );
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

    /// Stores a lease of its own, however long that takes.
    async fn join(&self, id: &ReplicaId) -> Lease {
        let name = replica_lease(&self.settings.name, id);
        loop {
            let started = clock::monotonic();
            let mut wanted = objects::of_replica(&self.settings, &name, id, clock::now());
            if self.shared.is_leaving() {
                objects::mark_leaving(&mut wanted);
            }
            let stored = match self.bounded(self.api.create(&PostParams::default(), &wanted)).await {
                // An earlier try whose answer was lost has made it.
                Err(error) if error.is_already_exists() || error.is_ambiguous() => {
                    self.bounded(self.api.get(&name)).await.map_err(|_| error)
                }
                stored => stored,
            };
            match stored {
                Ok(lease) if objects::holder(&lease).as_ref() == Some(id) => {
                    self.renewed(id, started);
                    return lease;
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

    /// Renews until the lease is gone.
    async fn stay(&self, id: &ReplicaId, mut lease: Lease) -> Result<(), WentBack> {
        let mut renewed = clock::monotonic();
        loop {
            tokio::select! {
                () = clock::wait(self.settings.times.retry_period) => {}
                () = self.shared.for_heart.notified() => {}
            }
            lease = loop {
                let started = clock::monotonic();
                match self.renew(id, &lease).await {
                    Beat::Renewed(stored) => {
                        self.renewed(id, started);
                        renewed = started;
                        break stored;
                    }
                    Beat::Behind(found) => lease = found,
                    // The others give up nobody before the lease duration is over.
                    Beat::Lost if renewed.elapsed() < self.settings.times.duration => return Err(WentBack),
                    Beat::Lost => return Ok(()),
                    Beat::WentBack => return Err(WentBack),
                    Beat::Unclear(error) => {
                        self.missed(&error);
                        break lease;
                    }
                }
            };
        }
    }

    /// The lease is stored by a call that began at `started`: it counts from then on.
    fn renewed(&self, id: &ReplicaId, started: Instant) {
        self.shared.renewed(id, started + self.settings.times.renew_deadline, clock::monotonic());
        self.readiness.open("leases");
    }

    /// A renewal failed. One is no harm.
    fn missed(&self, error: &ApiError) {
        tracing::warn!(%error, "failed to renew the lease of this replica, trying again");
        if self.shared.is_lapsed(clock::monotonic()) {
            let reason = format!(
                "nothing is sent: the lease of this replica could not be renewed for too long: {error}"
            );
            self.readiness.close("leases", reason);
        }
    }

    async fn renew(&self, id: &ReplicaId, lease: &Lease) -> Beat {
        let name = lease.name_any();
        let next = objects::renewed(lease, self.shared.is_leaving(), clock::now());
        match self.bounded(self.api.replace(&name, &PostParams::default(), &next)).await {
            Ok(stored) => Beat::Renewed(stored),
            Err(error) if error.is_not_found() => Beat::Lost,
            Err(error) if error.is_conflict() => match self.bounded(self.api.get(&name)).await {
                Ok(found) if found.uid() == lease.uid() && objects::holder(&found).as_ref() == Some(id) => {
                    let is_older = objects::renewals(&found) < objects::renewals(lease);
                    if is_older { Beat::WentBack } else { Beat::Behind(found) }
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
        let preconditions = Preconditions { uid, resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let name = replica_lease(&self.settings.name, id);
        match tokio::time::timeout(FAREWELL, self.api.delete(&name, &params)).await {
            Ok(Ok(_)) => tracing::info!("left the other replicas"),
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

    /// A call that leaves time for another one before the renew deadline.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
        within_time(CALL_TIMEOUT.min(self.settings.times.renew_deadline / 2), call).await
    }
}
