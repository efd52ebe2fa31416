//! The speed of an account after its provider said that it was too fast: half of what it was, and from there slowly up again. Time
//! comes in.

use std::time::{Duration, Instant};

/// From half of its speed an account is back at the whole after so long: throughput limits of providers are counted in seconds, and
/// an account that is upgraded meanwhile gets there all the same.
const RECOVERY: Duration = Duration::from_secs(60);
/// Span in which messages are counted, to know how fast an account was that has no limit.
const SPAN: Duration = Duration::from_secs(1);

/// The speed of one account.
#[derive(Debug, Default)]
pub struct AdaptiveRate {
    slowed: Option<Slowed>,
    meter: Option<Meter>,
}

/// Messages of this span and of the one before.
#[derive(Debug)]
struct Meter {
    since: Instant,
    count: u32,
    before: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slowed {
    since: Instant,
    /// Messages per second at that time.
    from: u32,
    /// What it was before it was slowed for the first time.
    whole: u32,
}

impl AdaptiveRate {
    /// Counts a message.
    pub fn take(&mut self, now: Instant) {
        let meter = self.meter.get_or_insert(Meter { since: now, count: 0, before: 0 });
        let elapsed = now.saturating_duration_since(meter.since);
        if elapsed >= SPAN {
            let before = if elapsed < 2 * SPAN { meter.count } else { 0 };
            *meter = Meter { since: now, count: 0, before };
        }
        meter.count += 1;
    }

    /// The provider said that it was too fast, with this limit or none. The account goes on at `resumes`, and climbs from then.
    pub fn slow_down(&mut self, limit: Option<u32>, now: Instant, resumes: Instant) {
        let measured = || self.meter.as_ref().map_or(1, |meter| meter.count.max(meter.before)).max(1);
        // While it is slowed that is its speed: few messages were sent since, and their number says nothing.
        let is_at = self.slowed.map_or_else(measured, |_| u32::MAX);
        let is_at = self.rate(now).map_or(is_at, |rate| rate.min(is_at));
        let speed = limit.unwrap_or(u32::MAX).min(is_at);
        let whole = self.slowed.map_or(limit.unwrap_or(speed).max(speed), |slowed| slowed.whole);
        self.slowed = Some(Slowed { since: resumes, from: (speed / 2).max(1), whole });
        self.meter = None;
    }

    /// Messages per second at most. `None`: it is as fast as it may be.
    pub fn rate(&mut self, now: Instant) -> Option<u32> {
        let Slowed { since, from, whole } = self.slowed?;
        // Whole seconds, so that the limit is not set anew with each look.
        let elapsed = now.saturating_duration_since(since).as_secs();
        let climbed = u64::from(whole).saturating_mul(elapsed) / (2 * RECOVERY.as_secs());
        let rate = u64::from(from).saturating_add(climbed);
        if rate >= u64::from(whole) && elapsed >= RECOVERY.as_secs() {
            self.slowed = None;
            return None;
        }
        Some(u32::try_from(rate).unwrap_or(u32::MAX).min(whole.max(1)))
    }

    /// Forgets that it was slowed.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn busy(per_second: u32, start: Instant) -> AdaptiveRate {
        let mut rate = AdaptiveRate::default();
        for _ in 0..per_second {
            rate.take(start);
        }
        rate
    }

    #[test]
    fn it_is_halved_and_climbs_back_within_a_minute() {
        let start = origin();
        let mut rate = busy(80, start);
        assert_eq!(rate.rate(start), None);
        rate.slow_down(Some(80), start, start);
        assert_eq!(rate.rate(start), Some(40));
        assert_eq!(rate.rate(start + seconds(30)), Some(60));
        assert_eq!(rate.rate(start + seconds(59)), Some(79));
        assert_eq!(rate.rate(start + seconds(60)), None);
    }

    #[test]
    fn a_long_wait_is_no_recovery() {
        let start = origin();
        let mut rate = busy(80, start);
        rate.slow_down(Some(80), start, start + seconds(600));
        assert_eq!(rate.rate(start + seconds(600)), Some(40));
        assert_eq!(rate.rate(start + seconds(630)), Some(60));
    }

    #[test]
    fn each_further_throttle_halves_it_again_and_it_still_goes_on() {
        let start = origin();
        let mut rate = busy(80, start);
        let halved: Vec<_> = (0..9)
            .map(|_| {
                rate.slow_down(Some(80), start, start);
                // The message that is there to see.
                rate.take(start);
                rate.rate(start)
            })
            .collect();
        assert_eq!(halved, [40, 20, 10, 5, 2, 1, 1, 1, 1].map(Some));
        assert_eq!(rate.rate(start + seconds(60)), Some(41), "the climb is as slow as ever");
        assert_eq!(rate.rate(start + seconds(120)), None);
    }

    #[test]
    fn without_a_limit_it_goes_by_what_was_sent() {
        let start = origin();
        let mut rate = busy(500, start);
        rate.slow_down(None, start + Duration::from_millis(900), start + Duration::from_millis(900));
        assert_eq!(rate.rate(start + seconds(1)), Some(250));
    }

    #[test]
    fn what_is_sent_slower_than_the_limit_is_halved_from_there() {
        let start = origin();
        let mut rate = busy(10, start);
        rate.slow_down(Some(80), start, start);
        assert_eq!(rate.rate(start), Some(5));
    }
}
