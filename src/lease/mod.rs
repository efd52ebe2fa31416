//! Which replica does what: one of them plans and reports, and the channels are shared evenly among all.
//!
//! In: the channels that are wanted. Out: whether this process leads, and for which channels it may send at this moment.
//!
//! Each replica has a lease of its own, which it renews: that it is there, without the mark of one that was given up, shows that
//! the replica lives. The leader's lease and those of the channels name a replica, and hold as long as that one's own lease
//! does, so a replica renews one object however many channels it has. What a replica held is taken over only after its own
//! lease was marked, in the version in which it was seen last, when its holder had written nothing into it for the lease
//! duration: a renewal that comes at the last moment wins. So a renewal that succeeds proves that nothing was taken away, and one that finds the mark proves the opposite.
//! Who cannot renew for that long because something else writes into its lease all the time, deletes it and joins anew.
//! One that finds no lease at all, before the lease duration is over, is in a cluster that was put back to a backup.
//!
//! Time is each process's own monotonic time; no time that another replica wrote decides who holds what. A holder stops when
//! its last renewal is older than the renew deadline, which is shorter than the lease duration. Kubernetes gives no fencing, so
//! none of this decides whether a message may be sent twice: claims on pages do.

mod heart;
mod keeper;
mod names;
mod note;
mod objects;
mod shared;
mod view;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::sync::watch as signal;
use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;
use crate::clock;
use crate::cluster::CALL_TIMEOUT;
use crate::domain::ids::{ObjectKey, ReplicaId};
use crate::domain::restored::Restored;
use crate::metrics::Metrics;
use heart::Heart;
pub use heart::WentBack;
use keeper::Keeper;
use shared::Shared;

/// Names and times of the leases.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Namespace of all leases: the operator needs rights on leases in this one only.
    pub namespace: String,
    /// Name of the leader's lease, with which all other names begin. Replicas that share their work have it in common.
    pub name: String,
    /// Name of this process for people: that of its pod.
    pub pod_name: String,
    /// UID of its pod. An earlier process of the same pod is surely dead, so what it held is taken over at once.
    pub pod_uid: Option<String>,
    /// A replica that said no farewell and was silent for so long before this process began is taken for a sign that the
    /// cluster was restored from a backup.
    pub assume_restored_after: Duration,
    /// How they are kept.
    pub times: LeaseTimes,
}

#[cfg(test)]
impl LeaseSettings {
    /// Settings of one replica alone, of no pod that is known.
    pub fn fake(times: LeaseTimes) -> Self {
        Self {
            namespace: "broadcast-system".into(),
            name: "operator".into(),
            pod_name: "pod".into(),
            pod_uid: None,
            assume_restored_after: Duration::from_secs(3600),
            times,
        }
    }
}

/// How leases are kept, as in client-go, whose defaults these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// A replica whose lease did not change for so long is given up. Whole seconds, one at least.
    pub duration: Duration,
    /// A replica whose last renewal is older than this starts nothing more. Shorter than `duration`: the difference is
    /// what the clocks of two machines may run apart, and what the start of a request may take.
    pub renew_deadline: Duration,
    /// Between two renewals.
    pub retry_period: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Lease times that cannot work together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidTimes {
    /// Leases count in seconds.
    #[error("--lease-duration must be a whole number of seconds, at least 1 s")]
    NotWholeSeconds,
    /// Others would take over while the holder still sends.
    #[error(
        "--lease-renew-deadline, {deadline:?}, must be shorter than --lease-duration, {duration:?}: give both"
    )]
    DeadlineTooLong {
        /// The renew deadline.
        deadline: Duration,
        /// The lease duration.
        duration: Duration,
    },
    /// One renewal that fails would be the end.
    #[error(
        "--lease-retry-period, {period:?}, must be at most half of --lease-renew-deadline, {deadline:?}, and not 0: give both"
    )]
    RetryTooLong {
        /// The retry period.
        period: Duration,
        /// The renew deadline.
        deadline: Duration,
    },
}

impl LeaseTimes {
    /// Longest time from the start of a renewal to that of the next one, when both succeed.
    fn longest_pause(&self) -> Duration {
        self.longest_call() + self.retry_period
    }

    /// Longest wait for the answer to a renewal: there is time for another one before the renew deadline.
    fn longest_call(&self) -> Duration {
        CALL_TIMEOUT.min(self.renew_deadline / 2)
    }

    /// Checks that a holder stops before it is given up, and has more than one try until then.
    ///
    /// # Errors
    /// When that is not so.
    pub fn check(&self) -> Result<(), InvalidTimes> {
        let Self { duration, renew_deadline, retry_period } = *self;
        if duration.as_secs() == 0 || duration.subsec_nanos() != 0 {
            return Err(InvalidTimes::NotWholeSeconds);
        }
        if renew_deadline >= duration {
            return Err(InvalidTimes::DeadlineTooLong { deadline: renew_deadline, duration });
        }
        if retry_period.is_zero() || retry_period > renew_deadline / 2 {
            return Err(InvalidTimes::RetryTooLong { period: retry_period, deadline: renew_deadline });
        }
        Ok(())
    }
}

/// The right to send for one channel, until it is withdrawn. That it was given is no proof that it still holds: see
/// [`Leases::holds`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The channel.
    pub channel: ObjectKey,
    replica: ReplicaId,
}

impl Tenure {
    /// A tenure of a test.
    #[cfg(test)]
    pub(crate) fn new(channel: ObjectKey, replica: ReplicaId) -> Self {
        Self { channel, replica }
    }
}

/// Tenures by their channel.
pub type Tenures = BTreeMap<ObjectKey, Tenure>;

/// Tenures of this process, as the stored leases say.
#[derive(Debug, Default)]
struct Held {
    /// What it is to keep.
    kept: Tenures,
    /// What another replica is to have.
    withdrawn: Tenures,
}

/// What this process may do. Cheap to clone.
#[derive(Clone)]
pub struct Leases(Arc<Shared>);

impl Leases {
    /// Leases of a process that has joined nobody yet, and what keeps them.
    #[must_use]
    pub fn new(
        client: Client,
        settings: LeaseSettings,
        readiness: Readiness,
        metrics: Metrics,
    ) -> (Self, Keeping) {
        let shared = Arc::new(Shared::new(&settings, metrics));
        (Self(shared.clone()), Keeping { client, settings, shared, readiness })
    }

    /// Whether this process plans and reports, at this moment.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0.is_leader()
    }

    /// A signal that changes when this process becomes the leader, or stops being it, and when a leader may act again after
    /// a renewal that was late.
    #[must_use]
    pub fn leadership(&self) -> signal::Receiver<bool> {
        self.0.leadership()
    }

    /// Says for which channels somebody has to send.
    pub fn want(&self, channels: BTreeSet<ObjectKey>) {
        self.0.want(channels);
    }

    /// The channels that this process is to send for. One that is no longer in it is to be given up: see
    /// [`gave_up`](Self::gave_up).
    #[must_use]
    pub fn tenures(&self) -> signal::Receiver<Tenures> {
        self.0.tenures()
    }

    /// Tenures that were withdrawn and are still in the leases. One under which nothing is done has to be given up: see
    /// [`gave_up`](Self::gave_up). It may have been withdrawn before anybody looked, and nobody else takes it before. The signal of
    /// [`tenures`](Self::tenures) tells of these too.
    #[must_use]
    pub fn withdrawn(&self) -> Tenures {
        self.0.withdrawn()
    }

    /// Whether a tenure holds at this moment, by this process's own clock.
    #[must_use]
    pub fn holds(&self, tenure: &Tenure) -> bool {
        self.0.holds(tenure)
    }

    /// Whether the lease of the channel names this replica still, also when the tenure was withdrawn: until it is given up, nobody
    /// else has it.
    #[must_use]
    pub fn is_named_by(&self, tenure: &Tenure) -> bool {
        self.0.is_named_by(tenure)
    }

    /// Everything that was sent under a tenure is recorded, or was waited for in vain, and nothing more is sent under it: another
    /// replica may have it.
    pub fn gave_up(&self, tenure: &Tenure) {
        self.0.gave_up(tenure);
    }

    /// That the cluster was put back to a backup, if it ever was.
    #[must_use]
    pub fn restored(&self) -> Option<Restored> {
        self.0.restored()
    }

    /// Why this process does not see the leases of the others, where another one may: the watch was not refused.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.0.sight.broken(&self.0.namespace, clock::monotonic())
    }

    /// Whether its renewals succeed at this moment: the API server is there, and takes what this process writes.
    #[must_use]
    pub fn renews(&self) -> bool {
        self.0.renews_since(clock::monotonic()).is_some()
    }

    /// This process is ending: the others take over its channels as it gives them up.
    pub fn leave(&self) {
        self.0.leave();
    }

    /// Whether this process is ending.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.0.is_leaving()
    }
}

/// Keeps the leases of a process.
pub struct Keeping {
    client: Client,
    settings: LeaseSettings,
    shared: Arc<Shared>,
    readiness: Readiness,
}

impl Keeping {
    /// Joins the other replicas and keeps what it has of the leases until `ended`. Then it leaves for good, so that the
    /// others take over at once what it still had.
    ///
    /// # Errors
    /// When the cluster went back in time.
    pub async fn run(self, ended: CancellationToken) -> Result<(), WentBack> {
        let Self { client, settings, shared, readiness } = self;
        let api: Api<Lease> = Api::namespaced(client.clone(), &settings.namespace);
        let heart = Heart::new(api.clone(), settings.clone(), shared.clone(), readiness.clone());
        let keeper = Keeper::new(&client, api.clone(), settings.clone(), shared.clone(), readiness.clone());
        let kept = tokio::select! {
            beaten = heart.beat(ended) => beaten,
            // It ends only with the watch of the leases, which ends only by a panic: the process ends then.
            () = keeper.keep() => Ok(()),
        };
        if kept.is_err() {
            shared.lost();
            readiness.close("leases", "the cluster was restored from a backup, and this process is ending");
            let note = Box::pin(note::write_at_any_cost(&api, &settings, &readiness)).await;
            tracing::error!(note = %note, "the cluster was restored from a backup: Broadcasts that were not complete are held");
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(duration: u64, deadline: u64, retry: u64) -> LeaseTimes {
        LeaseTimes {
            duration: Duration::from_millis(duration),
            renew_deadline: Duration::from_millis(deadline),
            retry_period: Duration::from_millis(retry),
        }
    }

    #[test]
    fn a_holder_stops_before_it_is_given_up_and_has_more_than_one_try() {
        assert_eq!(LeaseTimes::default().check(), Ok(()));
        assert_eq!(times(1000, 600, 200).check(), Ok(()));
        assert_eq!(times(1500, 600, 200).check(), Err(InvalidTimes::NotWholeSeconds));
        assert_eq!(times(0, 0, 0).check(), Err(InvalidTimes::NotWholeSeconds));
        let millis = Duration::from_millis;
        let (deadline, duration) = (millis(2000), millis(2000));
        let too_long = InvalidTimes::DeadlineTooLong { deadline, duration };
        assert_eq!(times(2000, 2000, 200).check(), Err(too_long));
        for period in [501, 0] {
            let too_long = InvalidTimes::RetryTooLong { period: millis(period), deadline: millis(1000) };
            assert_eq!(times(2000, 1000, period).check(), Err(too_long));
        }
    }
}
