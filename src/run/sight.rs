//! What comes by the watches. In: their state. Out: the gate of readiness, and the end of a process that sees nothing.
//!
//! A process whose watches fail sends nothing, and as long as it renews its lease nobody takes over what it holds. Where the
//! API server takes its writes all the while, the trouble is on its own way there, as in a proxy that breaks streams, and
//! another replica may see: so it stops, as by a signal, and gives everything back. Where the writes fail too, or the rights
//! are missing, another one sees no more, and the end of the process would only lose the answers in its memory.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::admin::Readiness;
use crate::clock;
use crate::lease::{LeaseTimes, Leases};
use crate::observed::Observed;

/// Between two looks at the state of the watches.
const POLL: Duration = Duration::from_secs(2);
/// Lease durations that a process may be blind: by default a minute. One that is dead is replaced after one of them, but an API
/// server that restarts, or a cache of it that is filled anew, gives its watches back within these.
const PATIENCE: u32 = 4;

/// How long a process that is blind keeps what it holds.
pub(super) fn patience(times: &LeaseTimes) -> Duration {
    times.duration * PATIENCE
}

/// Who looks at the watches.
pub(super) struct Sight {
    observed: Observed,
    leases: Leases,
    namespaces: Vec<String>,
    readiness: Readiness,
    blindness: Blindness,
}

impl Sight {
    pub(super) fn new(
        observed: Observed,
        leases: Leases,
        namespaces: Vec<String>,
        readiness: Readiness,
        patience: Duration,
    ) -> Self {
        // No namespace means all of them, which one watch sees.
        let namespaces = if namespaces.is_empty() { vec![String::new()] } else { namespaces };
        Self { observed, leases, namespaces, readiness, blindness: Blindness { patience, since: None } }
    }

    /// Looks until `ended`.
    ///
    /// # Errors
    /// When this process has seen nothing for so long that another one should have what it holds.
    pub(super) async fn look(mut self, ended: CancellationToken) -> Result<(), RunError> {
        while !ended.is_cancelled() {
            self.show();
            let broken = self.leases.broken().or_else(|| self.everywhere(Observed::broken));
            let broken = broken.filter(|_| self.leases.renews());
            if let Some(reason) = self.blindness.has_lasted(broken, clock::monotonic()) {
                return Err(RunError::Blind { reason });
            }
            tokio::select! {
                () = ended.cancelled() => {}
                () = clock::wait(POLL) => {}
            }
        }
        Ok(())
    }

    /// Closes the gate of the watches while nothing can be seen anywhere: one namespace that is refused holds up no other.
    fn show(&self) {
        match self.everywhere(Observed::blind) {
            None => self.readiness.open("watches"),
            Some(reason) => self.readiness.close("watches", reason),
        }
    }

    /// What is wrong, if something is in every namespace.
    fn everywhere(&self, look: impl Fn(&Observed, &str) -> Option<String>) -> Option<String> {
        let looks = self.namespaces.iter().map(|namespace| look(&self.observed, namespace));
        looks.collect::<Option<Vec<String>>>().map(|reasons| reasons.join("; "))
    }
}

/// For how long a process has been blind while its writes succeeded.
struct Blindness {
    patience: Duration,
    since: Option<Instant>,
}

impl Blindness {
    /// Takes in a look: why nothing is seen, if that is so. Returns it when it has lasted too long.
    fn has_lasted(&mut self, broken: Option<String>, now: Instant) -> Option<String> {
        let Some(reason) = broken else {
            self.since = None;
            return None;
        };
        let since = *self.since.get_or_insert(now);
        (now >= since + self.patience).then_some(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_when_it_was_blind_all_the_time_and_not_when_it_saw_something_meanwhile() {
        let start = clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        let broken = || Some("the watch fails".to_owned());
        let mut blindness = Blindness { patience: patience(&LeaseTimes::default()), since: None };
        for (second, seen, ends) in [
            (0, broken(), false),
            (58, broken(), false),
            // It sees, or its renewals fail too.
            (59, None, false),
            (60, broken(), false),
            (119, broken(), false),
            (120, broken(), true),
        ] {
            assert_eq!(blindness.has_lasted(seen, at(second)).is_some(), ends, "after {second} s");
        }
    }
}
