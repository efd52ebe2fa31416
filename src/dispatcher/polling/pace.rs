//! How fast questions follow each other: evenly, and more slowly after answers that say nothing. Time comes in.

use std::time::{Duration, Instant};

use crate::domain::rate::RateLimit;

/// Questions in a second at most, of one channel. A provider counts them with the messages, and has room for many more of those.
const PER_SECOND: u32 = 5;
/// After an answer that says nothing, doubled each time up to the longest.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Where a provider wants to be asked more slowly and does not say when, and longest wait that it can ask for.
const SLOWER: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// After the provider refused the sender: the account finds out by itself whether that is over.
const REFUSED_REST: Duration = Duration::from_secs(300);

/// The pace of one channel.
pub(super) struct Pace {
    limit: RateLimit,
    /// Nothing is asked before.
    rest_until: Instant,
    /// Answers in a row that said nothing.
    failures: u32,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { limit: RateLimit::new(PER_SECOND, None, now), rest_until: now, failures: 0 }
    }

    /// How long to wait before the next question; zero when it may be asked now.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.rest_until.saturating_duration_since(now).max(self.limit.wait(now))
    }

    /// Whether the last answer was a reason to wait, and that is not over.
    pub(super) fn rests(&self, now: Instant) -> bool {
        now < self.rest_until
    }

    /// A question is asked now.
    pub(super) fn take(&mut self, now: Instant) {
        self.limit.take(now);
    }

    /// The provider answered.
    pub(super) fn answered(&mut self) {
        self.failures = 0;
    }

    /// The provider wants to be asked more slowly, after so long if it says so.
    pub(super) fn slow_down(&mut self, wanted: Option<Duration>, now: Instant) {
        self.rest(wanted.unwrap_or(SLOWER).clamp(FIRST_REST, LONGEST_WAIT), now);
    }

    /// The provider did not answer, or nothing that can be read.
    pub(super) fn failed(&mut self, now: Instant) {
        let wait = FIRST_REST.saturating_mul(1 << self.failures.min(6)).min(LONGEST_REST);
        self.failures = self.failures.saturating_add(1);
        self.rest(wait, now);
    }

    /// The provider refused the sender.
    pub(super) fn refused(&mut self, now: Instant) {
        self.rest(REFUSED_REST, now);
    }

    fn rest(&mut self, wait: Duration, now: Instant) {
        self.rest_until = self.rest_until.max(now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn no_more_than_five_questions_are_asked_in_a_second() {
        let start = clock::monotonic();
        let (mut pace, mut now, mut asked) = (Pace::new(start), start, 0);
        while now < start + 10 * SECOND {
            if pace.wait(now).is_zero() {
                pace.take(now);
                asked += 1;
            }
            now += Duration::from_millis(1);
        }
        assert!((45..=50).contains(&asked), "{asked} questions");
    }

    #[test]
    fn a_provider_that_says_nothing_is_asked_less_and_less_until_it_answers() {
        let mut now = clock::monotonic();
        let mut pace = Pace::new(now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            pace.failed(now);
            waits.push(pace.wait(now).as_secs());
            now += pace.wait(now);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        pace.answered();
        pace.failed(now);
        assert_eq!(pace.wait(now), SECOND);
    }

    #[test]
    fn a_provider_that_wants_fewer_questions_says_when_but_for_an_hour_at_most() {
        let now = clock::monotonic();
        let wait = |wanted: Option<u64>| {
            let mut pace = Pace::new(now);
            pace.slow_down(wanted.map(Duration::from_secs), now);
            assert!(pace.rests(now) && !pace.rests(now + LONGEST_WAIT));
            pace.wait(now).as_secs()
        };
        assert_eq!([None, Some(0), Some(90), Some(u64::MAX)].map(wait), [30, 1, 90, 3600]);
    }

    #[test]
    fn of_several_waits_the_longest_counts() {
        let now = clock::monotonic();
        let mut pace = Pace::new(now);
        pace.refused(now);
        pace.failed(now);
        assert_eq!(pace.wait(now), REFUSED_REST);
        assert!(!pace.rests(now + REFUSED_REST));
    }
}
