//! When evidence that waits for its page is written: late enough that much of it goes together, and no later.
//!
//! In: arrivals of evidence. Out: until when its page waits for more. Pure; time comes in.
//!
//! Whoever sends receipts has a number of requests open, and sends the next ones when those are answered. While more come, to
//! wait for them saves writes; when all of them wait for us, to wait longer saves nothing and holds the sender up.

use std::time::{Duration, Instant};

/// Longest wait for more. It bounds the writes for receipts to ten per second and page, but for full ones and lulls, and stays
/// well below the 250 ms in which providers want their answer.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// Requests that are worth a write at once: ten times as many would make it a little cheaper for each.
const ENOUGH: usize = 32;
/// So many times the usual gap without an arrival is a lull. Of arrivals at random, one gap of 55 is that long.
const GAPS_OF_A_LULL: u32 = 4;
/// Shortest and longest lull: answers go out and requests come back in less than the one, and beyond the other there is nothing
/// to gain.
const LULL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// Weight of the latest gap in the usual one: a sender with eight requests open or more is known for its haste.
const WEIGHT: u32 = 8;

/// When evidence came, whatever its page.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    latest: Option<Instant>,
    usual_gap: Duration,
}

impl Arrivals {
    /// Takes in that some has come.
    pub(super) fn note(&mut self, now: Instant) {
        if let Some(latest) = self.latest {
            // A pause of minutes is no more than a lull.
            let gap = now.saturating_duration_since(latest).min(LULL.1);
            self.usual_gap = (self.usual_gap * (WEIGHT - 1) + gap) / WEIGHT;
        } else {
            self.usual_gap = LULL.1;
        }
        self.latest = Some(now);
    }

    /// Until when a page waits for more, of which `waiting` requests are there and the first came at `since`. It may be later when
    /// more has come by then.
    pub(super) fn wait_until(&self, since: Instant, waiting: usize) -> Instant {
        if waiting >= ENOUGH {
            return since;
        }
        let lull = (self.usual_gap * GAPS_OF_A_LULL).clamp(LULL.0, LULL.1);
        (since + LONGEST_WAIT).min(self.latest.unwrap_or(since) + lull)
    }
}

/// How long evidence waits at most for another one to write it: nobody relies on that.
pub(super) fn longest_wait() -> Duration {
    LONGEST_WAIT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MS: Duration = Duration::from_millis(1);

    /// Arrivals at a steady rate. Out: the last one.
    fn arrive(arrivals: &mut Arrivals, start: Instant, number: u32, gap: Duration) -> Instant {
        (0..number).for_each(|each| arrivals.note(start + gap * each));
        start + gap * number.saturating_sub(1)
    }

    #[test]
    fn what_comes_steadily_is_gathered_for_a_tenth_of_a_second() {
        for gap in [MS / 4, MS, 4 * MS, 10 * MS] {
            let mut arrivals = Arrivals::default();
            let last = arrive(&mut arrivals, clock::monotonic(), 200, gap);
            let until = arrivals.wait_until(last, 1);
            assert!(until >= last + 2 * gap && until <= last + LULL.1, "{gap:?}: {:?}", until - last);
            let first = last.checked_sub(LONGEST_WAIT).expect("should run for longer") + gap;
            assert_eq!(
                arrivals.wait_until(first, 1),
                first + LONGEST_WAIT,
                "{gap:?}: however many more come"
            );
        }
    }

    #[test]
    fn when_all_requests_of_a_sender_wait_for_us_nothing_more_is_waited_for() {
        let mut arrivals = Arrivals::default();
        let mut now = clock::monotonic();
        for _ in 0..10 {
            let first = now;
            let last = arrive(&mut arrivals, first, 64, MS / 10);
            let until = arrivals.wait_until(first, 20);
            assert!(until <= last + 3 * MS, "{:?}", until - last);
            // They are answered, and come back.
            now = until + 8 * MS;
        }
    }

    #[test]
    fn a_page_that_many_wait_for_is_written_at_once() {
        let mut arrivals = Arrivals::default();
        let now = arrive(&mut arrivals, clock::monotonic(), 200, MS);
        assert!(arrivals.wait_until(now, ENOUGH - 1) > now);
        assert_eq!(arrivals.wait_until(now, ENOUGH), now);
    }

    #[test]
    fn what_comes_alone_waits_for_no_longer_than_a_lull() {
        let mut arrivals = Arrivals::default();
        let now = clock::monotonic();
        arrivals.note(now);
        assert_eq!(arrivals.wait_until(now, 1), now + LULL.1);
        let later = now + Duration::from_secs(3600);
        arrivals.note(later);
        assert_eq!(arrivals.wait_until(later, 1), later + LULL.1);
    }
}
