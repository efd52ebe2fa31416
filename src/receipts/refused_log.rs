//! How often it is told of requests that were refused: anybody can send those, and the metrics count them all. Time comes in.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two lines about one channel.
const BETWEEN_LINES: Duration = Duration::from_secs(60);
/// Shortest time between two events about one channel. Where a request was genuine within so long, its secret is right, and who sends
/// others is a stranger.
const BETWEEN_EVENTS: Duration = Duration::from_secs(600);

/// What is told of the refused requests of one channel.
#[derive(Default)]
pub struct RefusedLog(Mutex<State>);

#[derive(Default)]
struct State {
    told: Option<Instant>,
    /// Refused since then.
    untold: u64,
    /// When an event was told, and when a request was genuine.
    event: Option<Instant>,
    genuine: Option<Instant>,
}

impl RefusedLog {
    /// Takes in one more. Returns how many there were since the last line, this one among them, if it is time for a line.
    pub fn to_tell(&self, now: Instant) -> Option<u64> {
        let mut state = self.state();
        state.untold += 1;
        if state.told.is_some_and(|told| now < told + BETWEEN_LINES) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.untold))
    }

    /// A request was signed as it must be.
    pub fn is_genuine(&self, now: Instant) {
        self.state().genuine = Some(now);
    }

    /// One was not. Returns whether it is time to tell that the secret may be wrong.
    pub fn is_event(&self, now: Instant) -> bool {
        let mut state = self.state();
        let is_long_ago = |time: Option<Instant>| time.is_none_or(|time| now >= time + BETWEEN_EVENTS);
        let is_event = is_long_ago(state.event) && is_long_ago(state.genuine);
        if is_event {
            state.event = Some(now);
        }
        is_event
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_is_told_and_then_one_a_minute_with_their_number() {
        let log = RefusedLog::default();
        let start = crate::clock::monotonic();
        let at = |second| log.to_tell(start + Duration::from_secs(second));
        assert_eq!([at(0), at(0), at(59), at(60), at(61)], [Some(1), None, None, Some(3), None]);
        assert_eq!([at(200), at(260)], [Some(2), Some(1)]);
    }

    #[test]
    fn an_event_is_told_every_ten_minutes_and_not_while_others_are_genuine() {
        let log = RefusedLog::default();
        let start = crate::clock::monotonic();
        let at = |second| start + Duration::from_secs(second);
        assert!([0, 1, 599].map(|second| log.is_event(at(second))) == [true, false, false]);
        assert!(log.is_event(at(600)));
        log.is_genuine(at(900));
        assert!(!log.is_event(at(1499)) && log.is_event(at(1500)));
    }
}
