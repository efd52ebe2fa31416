//! Whether the watches work. In: their errors and events. Out: since when one fails.
//!
//! A watch that brings nothing may just have nothing to bring; one whose every try ends in an error is blind.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A watch that has failed for so long is blind. Shorter trouble, as when the API server restarts, is usual.
const BLIND_AFTER: Duration = Duration::from_secs(10);
/// Without a further error for so long, a watch works: the longest wait between two tries is half of that.
const WELL_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    error: String,
}

/// The state of all watches.
#[derive(Debug, Default)]
pub struct WatchHealth(Mutex<HashMap<String, Failing>>);

impl WatchHealth {
    /// A try of a watch ended in an error.
    pub fn failed(&self, watch: &str, error: String, now: Instant) {
        let mut all = self.lock();
        let since =
            all.get(watch).filter(|known| now < known.last + WELL_AFTER).map_or(now, |known| known.since);
        all.insert(watch.to_owned(), Failing { since, last: now, error });
    }

    /// A watch brought something.
    pub fn works(&self, watch: &str) {
        self.lock().remove(watch);
    }

    /// What is wrong, if a watch is blind.
    pub fn failing(&self, now: Instant) -> Option<String> {
        let all = self.lock();
        let blind = |failing: &Failing| {
            failing.last >= failing.since + BLIND_AFTER && now < failing.last + WELL_AFTER
        };
        let (watch, failing) = all.iter().find(|(_, failing)| blind(failing))?;
        Some(format!("the watch of {watch} fails: {}", failing.error))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Failing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_watch_is_blind_after_errors_for_a_while_until_it_brings_something_or_is_quiet() {
        let health = WatchHealth::default();
        let start = clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        health.failed("broadcasts", "gone".into(), at(0));
        assert_eq!(health.failing(at(30)), None, "one error says nothing");
        health.failed("broadcasts", "gone".into(), at(40));
        assert_eq!(health.failing(at(41)).as_deref(), Some("the watch of broadcasts fails: gone"));
        assert_eq!(health.failing(at(101)), None, "it has had its next try since");
        health.failed("broadcasts", "gone".into(), at(50));
        health.works("broadcasts");
        assert_eq!(health.failing(at(51)), None);
    }

    #[test]
    fn errors_long_apart_are_not_one_failure() {
        let health = WatchHealth::default();
        let start = clock::monotonic();
        for minutes in [0, 2, 4] {
            let now = start + Duration::from_secs(minutes * 60);
            health.failed("channels", "reset".into(), now);
            assert_eq!(health.failing(now), None);
        }
    }
}
