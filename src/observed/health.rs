//! Whether the watches work. In: their errors and events. Out: since when one fails.
//!
//! A watch that brings nothing may just have nothing to bring; one whose every try ends in an error is blind.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A watch that has failed for so long is blind. Shorter trouble, as when the API server restarts, is usual.
const BLIND_AFTER: Duration = Duration::from_secs(10);
/// Without a further error for so long, a watch works: two tries are never that far apart.
const WELL_AFTER: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Failing {
    namespace: Option<String>,
    since: Instant,
    last: Instant,
    is_refused: bool,
    error: String,
}

impl Failing {
    fn sees(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|watched| watched == namespace)
    }

    fn is_blind(&self, now: Instant) -> bool {
        let for_long = self.last >= self.since + BLIND_AFTER;
        (self.is_refused || for_long) && now < self.last + WELL_AFTER
    }
}

/// One watch: a kind, in one namespace or in all of them.
#[derive(Clone, Debug)]
pub struct WatchName {
    /// Plural of the kind.
    pub kind: String,
    /// `None`: all namespaces.
    pub namespace: Option<String>,
}

impl fmt::Display for WatchName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(out, "{} in namespace {namespace}", self.kind),
            None => write!(out, "{} in all namespaces", self.kind),
        }
    }
}

/// The state of all watches.
#[derive(Debug, Default)]
pub struct WatchHealth(Mutex<HashMap<String, Failing>>);

impl WatchHealth {
    /// A try of a watch ended in an error. One that is refused is blind at once: it does not come back by itself.
    pub fn failed(&self, watch: &WatchName, error: String, is_refused: bool, now: Instant) {
        let mut all = self.lock();
        let known = all.get(&watch.to_string()).filter(|known| now < known.last + WELL_AFTER);
        let since = known.map_or(now, |known| known.since);
        let failing = Failing { namespace: watch.namespace.clone(), since, last: now, is_refused, error };
        all.insert(watch.to_string(), failing);
    }

    /// A watch brought something.
    pub fn works(&self, watch: &WatchName) {
        self.lock().remove(&watch.to_string());
    }

    /// What is wrong, if a watch that sees this namespace is blind.
    pub fn failing(&self, namespace: &str, now: Instant) -> Option<String> {
        self.find(namespace, |failing| failing.is_blind(now))
    }

    /// Whether a watch that sees this namespace has failed lately, however briefly, and has brought nothing since.
    pub fn has_trouble(&self, namespace: &str, now: Instant) -> bool {
        self.find(namespace, |failing| now < failing.last + WELL_AFTER).is_some()
    }

    /// The same, if it is blind and was not refused: what this process may not see, none of its account may.
    pub fn broken(&self, namespace: &str, now: Instant) -> Option<String> {
        self.find(namespace, |failing| failing.is_blind(now) && !failing.is_refused)
    }

    fn find(&self, namespace: &str, wanted: impl Fn(&Failing) -> bool) -> Option<String> {
        let all = self.lock();
        let (watch, failing) = all.iter().find(|(_, failing)| failing.sees(namespace) && wanted(failing))?;
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

    fn watch(namespace: Option<&str>) -> WatchName {
        WatchName { kind: "broadcasts".into(), namespace: namespace.map(str::to_owned) }
    }

    #[test]
    fn a_watch_is_blind_after_errors_for_a_while_until_it_brings_something_or_is_quiet() {
        let (health, all) = (WatchHealth::default(), watch(None));
        let start = clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        health.failed(&all, "gone".into(), false, at(0));
        assert_eq!(health.failing("shop", at(30)), None, "one error says nothing");
        assert!(health.has_trouble("shop", at(30)) && !health.has_trouble("shop", at(121)));
        health.failed(&all, "gone".into(), false, at(40));
        let reason = health.failing("shop", at(41));
        assert_eq!(reason.as_deref(), Some("the watch of broadcasts in all namespaces fails: gone"));
        assert_eq!(health.broken("shop", at(41)), reason);
        assert_eq!(health.failing("shop", at(161)), None, "it has had its next try since");
        health.failed(&all, "gone".into(), false, at(50));
        health.works(&all);
        assert!(health.failing("shop", at(51)).is_none() && !health.has_trouble("shop", at(51)));
    }

    #[test]
    fn errors_long_apart_are_not_one_failure() {
        let health = WatchHealth::default();
        let start = clock::monotonic();
        for minutes in [0, 3, 6] {
            let now = start + Duration::from_secs(minutes * 60);
            health.failed(&watch(None), "reset".into(), false, now);
            assert_eq!(health.failing("shop", now), None);
        }
    }

    #[test]
    fn a_refused_namespace_is_blind_at_once_and_the_others_are_not() {
        let (health, now) = (WatchHealth::default(), clock::monotonic());
        health.failed(&watch(Some("closed")), "forbidden".into(), true, now);
        assert!(health.failing("closed", now).is_some());
        assert_eq!(health.broken("closed", now), None, "another process would not see it either");
        assert_eq!(health.failing("shop", now), None);
    }
}
