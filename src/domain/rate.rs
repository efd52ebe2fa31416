//! An exact rate limit: in any span of T seconds at most `burst + rate × T` messages start.
//!
//! The generic cell rate algorithm: one number, the time at which the account would be even, instead of a count of
//! tokens that is refilled. Time comes in.

use std::time::{Duration, Instant};

/// Share of a second that may start at once when the user gave no burst: timers wake a millisecond late, and without
/// some slack every late wake-up would be lost speed.
const DEFAULT_BURST_PER_SECOND: u32 = 50;

/// The limit of one channel or one Broadcast.
#[derive(Clone, Debug)]
pub struct RateLimit {
    per_second: u32,
    interval: Duration,
    tolerance: Duration,
    even_at: Instant,
}

impl RateLimit {
    /// A limit of `per_second` messages, which starts as it is right after a message that used up the whole burst. Whoever
    /// sent by the same limit until now may have left it so: what that one used is not spent again, neither when another
    /// process takes over nor when one is started again and again.
    #[must_use]
    pub fn new(per_second: u32, burst: Option<u32>, now: Instant) -> Self {
        let mut limit =
            Self { per_second: 1, interval: Duration::ZERO, tolerance: Duration::ZERO, even_at: now };
        limit.set(per_second, burst, now);
        limit.even_at = now + limit.tolerance + limit.interval;
        limit
    }

    /// Changes the limit from now on. What was owed to the old one is forgiven down to the most that the new one can be
    /// owed, the state right after a message: otherwise a greater rate would begin with the long wait of the smaller one.
    pub fn set(&mut self, per_second: u32, burst: Option<u32>, now: Instant) {
        let per_second = per_second.max(1);
        self.per_second = per_second;
        let burst = burst.unwrap_or(per_second / DEFAULT_BURST_PER_SECOND).max(1);
        // Rounded up, so that the rate is never above the limit.
        self.interval = Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(per_second)));
        self.tolerance = self.interval * (burst - 1);
        self.even_at = self.even_at.min(now + self.tolerance + self.interval);
    }

    /// Messages per second.
    #[must_use]
    pub fn per_second(&self) -> usize {
        self.per_second as usize
    }

    /// How long to wait before the next message may start; zero when it may start now.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        self.even_at.saturating_duration_since(now).saturating_sub(self.tolerance)
    }

    /// Takes one message from the account. Only after [`wait`](Self::wait) said zero.
    pub fn take(&mut self, now: Instant) {
        self.even_at = self.even_at.max(now) + self.interval;
    }

    /// Gives back one that was taken and not used.
    pub fn give_back(&mut self) {
        self.even_at = self.even_at.checked_sub(self.interval).unwrap_or(self.even_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
    fn origin() -> Instant {
        Instant::now()
    }

    proptest! {
        #[test]
        fn no_span_holds_more_than_burst_plus_rate(
            rate in 1_u32..2000,
            burst in 1_u32..50,
            waits in prop::collection::vec(0_u64..20_000, 1..200),
        ) {
            let start = origin();
            let mut limit = RateLimit::new(rate, Some(burst), start);
            let (mut now, mut taken) = (start, Vec::new());
            for wait in waits {
                now += Duration::from_micros(wait);
                if limit.wait(now).is_zero() {
                    limit.take(now);
                    taken.push(now);
                }
            }
            for (i, from) in taken.iter().enumerate() {
                for (j, to) in taken.iter().enumerate().skip(i) {
                    let allowed = f64::from(burst) + f64::from(rate) * (*to - *from).as_secs_f64();
                    prop_assert!(f64::from(u32::try_from(j - i + 1).expect("small")) <= allowed + 1e-6);
                }
            }
        }

        #[test]
        fn senders_who_take_over_from_each_other_keep_one_limit_together(
            rate in 1_u32..2000,
            burst in 1_u32..50,
            waits in prop::collection::vec((0_u64..20_000, prop::bool::weighted(0.1)), 1..200),
        ) {
            let mut now = origin();
            let mut limit = RateLimit::new(rate, Some(burst), now);
            // What a single sender would have been left with: the truth that every successor must keep to.
            let mut truth = limit.clone();
            for (wait, is_taken_over) in waits {
                now += Duration::from_micros(wait);
                if is_taken_over {
                    limit = RateLimit::new(rate, Some(burst), now);
                }
                if limit.wait(now).is_zero() {
                    prop_assert_eq!(truth.wait(now), Duration::ZERO);
                    limit.take(now);
                    truth.take(now);
                }
            }
        }

        #[test]
        fn a_changed_limit_waits_no_longer_than_its_own_interval(
            (rate, burst) in (1_u32..2000, 1_u32..50),
            (new_rate, new_burst) in (1_u32..2000, 1_u32..50),
            messages in 0_u32..100,
        ) {
            let now = origin();
            let mut limit = RateLimit::new(rate, Some(burst), now);
            for _ in 0..messages {
                limit.take(now + limit.wait(now));
            }
            limit.set(new_rate, Some(new_burst), now);
            prop_assert!(limit.wait(now) <= limit.interval);
        }

        #[test]
        fn setting_the_same_limit_again_changes_nothing(
            rate in 1_u32..2000,
            burst in 1_u32..50,
            waits in prop::collection::vec(0_u64..20_000, 1..200),
        ) {
            let mut now = origin();
            let mut limit = RateLimit::new(rate, Some(burst), now);
            for wait in waits {
                now += Duration::from_micros(wait);
                if limit.wait(now).is_zero() {
                    limit.take(now);
                }
                let before = limit.clone();
                limit.set(rate, Some(burst), now);
                prop_assert_eq!(limit.wait(now), before.wait(now));
            }
        }
    }

    #[test]
    fn a_steady_sender_gets_the_whole_rate() {
        let start = origin();
        let mut limit = RateLimit::new(500, None, start);
        let mut sent = 0;
        for millisecond in 0..1000 {
            let now = start + Duration::from_millis(millisecond);
            while limit.wait(now).is_zero() {
                limit.take(now);
                sent += 1;
            }
        }
        assert!((480..=500).contains(&sent), "{sent}");
    }

    #[test]
    fn a_new_limit_starts_without_its_burst() {
        let start = origin();
        let mut limit = RateLimit::new(10, Some(10), start);
        limit.take(start);
        assert!(!limit.wait(start).is_zero());
    }
}
