//! How carefully an account is used after something went wrong: a wait, then one message to see, then full speed. Time
//! comes in.

use std::time::{Duration, Instant};

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};

/// First and longest wait after a gateway could not be reached, or asked to wait without saying how long.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// Longest wait that a gateway can ask for: hours have been seen, of Telegram. What asks for more than a day is more often a mistake
/// of a unit than a wish, and one message a day, to see, harms nobody.
const LONGEST_REST: Duration = Duration::from_secs(86_400);

/// What an account waits for, and how it goes on.
#[derive(Default)]
pub(super) struct Caution {
    rest: Option<Rest>,
    /// A connection that could not be made, until a message shows that it can.
    doubt: Option<Rest>,
    failures: u32,
    is_probing: bool,
}

/// A wait that ends by itself.
pub(super) struct Rest {
    ends: Instant,
    /// The same in wall-clock time and whole seconds, as a status holds it.
    pub(super) until: Timestamp,
    pub(super) why: Why,
}

/// Why an account waits.
pub(super) enum Why {
    Throttled,
    Unreachable(String),
    Redirected(String),
}

impl Rest {
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.ends.saturating_duration_since(now)
    }
}

impl Caution {
    /// The wait that goes on now.
    pub(super) fn rest(&self, now: Instant) -> Option<&Rest> {
        self.rest.as_ref().filter(|rest| now < rest.ends)
    }

    /// The connection that could not be made the last time, while nothing has shown that it can be now.
    pub(super) fn doubt(&self) -> Option<&Rest> {
        self.doubt.as_ref().filter(|_| self.is_probing)
    }

    /// One message at a time, to see whether the gateway takes messages again.
    pub(super) fn is_probing(&self) -> bool {
        self.is_probing
    }

    /// The next message is there to see whether it is taken.
    pub(super) fn probe(&mut self) {
        self.is_probing = true;
    }

    /// The gateway takes messages.
    pub(super) fn relax(&mut self) {
        self.failures = 0;
        self.is_probing = false;
        self.doubt = None;
    }

    /// Waits as long as the gateway `asked` for, and longer after each failure. All answers that come during one wait
    /// are one failure: sixty-four requests in flight fail together.
    pub(super) fn fail(&mut self, asked: Duration, why: Why, now: Instant, wall: Timestamp) {
        let backoff = if self.rest(now).is_some() { Duration::ZERO } else { self.next_backoff() };
        self.rest_for(asked.max(backoff), why, now, wall);
    }

    /// Takes up a wait that another process began.
    pub(super) fn take_up(&mut self, until: Timestamp, now: Instant, wall: Timestamp) {
        if let Ok(wait) = Duration::try_from(until.duration_since(wall)) {
            self.rest_for(wait, Why::Throttled, now, wall);
        }
    }

    /// Ends a wait that is over, so that the next message is there to see.
    pub(super) fn end_rest(&mut self, now: Instant) {
        if self.rest.as_ref().is_some_and(|rest| rest.ends <= now) {
            self.doubt = self.rest.take().filter(|rest| matches!(rest.why, Why::Unreachable(_)));
            self.is_probing = true;
        }
    }

    /// Ends any wait.
    pub(super) fn forgive(&mut self) {
        self.is_probing |= self.rest.take().is_some();
        self.doubt = None;
    }

    fn next_backoff(&mut self) -> Duration {
        let wait = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(6)).min(LONGEST_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Several requests in flight may each bring a wait: the longest one counts.
    fn rest_for(&mut self, wait: Duration, why: Why, now: Instant, wall: Timestamp) {
        let wait = wait.min(LONGEST_REST);
        if self.rest(now).is_none_or(|rest| rest.left(now) < wait) {
            self.rest = Some(Rest { ends: now + wait, until: until(wall, wait), why });
        }
    }
}

/// The end of a wait in whole seconds, rounded up: the API server gives back no more.
fn until(wall: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    let end = wall.saturating_add(wait).unwrap_or(Timestamp::MAX);
    end.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
    fn origin() -> (Instant, Timestamp) {
        (Instant::now(), "2026-11-23T10:00:00.250Z".parse().expect("time"))
    }

    fn left(caution: &Caution, now: Instant) -> Duration {
        caution.rest(now).map_or(Duration::ZERO, |rest| rest.left(now))
    }

    #[test]
    fn an_absurd_wait_is_a_day_and_then_one_message_to_see() {
        let (now, wall) = origin();
        let mut caution = Caution::default();
        caution.fail(Duration::from_secs(u64::MAX), Why::Throttled, now, wall);
        assert_eq!(left(&caution, now), LONGEST_REST);
        let later = now + LONGEST_REST;
        caution.end_rest(later);
        assert!(caution.rest(later).is_none() && caution.is_probing());
    }

    #[test]
    fn a_wait_taken_up_from_a_status_is_bounded_too() {
        let (now, wall) = origin();
        let mut caution = Caution::default();
        caution.take_up(Timestamp::MAX, now, wall);
        assert_eq!(left(&caution, now), LONGEST_REST);
    }

    #[test]
    fn a_gateway_that_asks_for_no_wait_gets_one_that_grows() {
        let (mut now, wall) = origin();
        let mut caution = Caution::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            caution.fail(Duration::ZERO, Why::Throttled, now, wall);
            waits.push(left(&caution, now).as_secs());
            now += left(&caution, now);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn requests_that_fail_together_are_one_failure() {
        let (now, wall) = origin();
        let mut caution = Caution::default();
        for _ in 0..64 {
            caution.fail(Duration::ZERO, Why::Unreachable("refused".into()), now, wall);
        }
        assert_eq!(left(&caution, now), FIRST_BACKOFF);
        let later = now + FIRST_BACKOFF;
        caution.fail(Duration::ZERO, Why::Unreachable("refused".into()), later, wall);
        assert_eq!(left(&caution, later), 2 * FIRST_BACKOFF);
    }

    #[test]
    fn of_several_waits_the_longest_counts() {
        let (now, wall) = origin();
        let mut caution = Caution::default();
        for seconds in [3, 30, 7] {
            caution.fail(Duration::from_secs(seconds), Why::Throttled, now, wall);
        }
        assert_eq!(left(&caution, now), Duration::from_secs(30));
    }

    #[test]
    fn the_end_of_a_wait_is_told_in_whole_seconds_and_never_too_early() {
        let (now, wall) = origin();
        let mut caution = Caution::default();
        caution.fail(Duration::from_secs(2), Why::Throttled, now, wall);
        let until = caution.rest(now).map(|rest| rest.until);
        assert_eq!(until, "2026-11-23T10:00:03Z".parse().ok());
    }

    #[test]
    fn a_gateway_that_was_not_reached_is_in_doubt_until_it_takes_a_message() {
        let (mut caution, start) = (Caution::default(), crate::clock::monotonic());
        caution.fail(Duration::ZERO, Why::Unreachable("refused".into()), start, crate::clock::now());
        let later = start + Duration::from_secs(5);
        caution.end_rest(later);
        assert!(caution.rest(later).is_none() && caution.doubt().is_some());
        caution.relax();
        assert!(caution.doubt().is_none());
    }
}
