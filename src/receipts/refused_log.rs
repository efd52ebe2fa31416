//! How often the log tells of requests that were refused: anybody can send those, and the metrics count them all. Time comes in.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two lines about one channel.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// What is told of the refused requests of one channel.
#[derive(Default)]
pub struct RefusedLog(Mutex<State>);

#[derive(Default)]
struct State {
    told: Option<Instant>,
    /// Refused since then.
    untold: u64,
}

impl RefusedLog {
    /// Takes in one more. Returns how many there were since the last line, this one among them, if it is time for a line.
    pub fn to_tell(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.untold += 1;
        if state.told.is_some_and(|told| now < told + BETWEEN_LINES) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.untold))
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
}
