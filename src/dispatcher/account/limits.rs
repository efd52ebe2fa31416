//! How much an account may send: by its own limits, and by what its provider put up with.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Account;
use super::caution::Why;
use crate::api::BroadcastChannel;
use crate::domain::day_count::DayCount;
use crate::domain::rate::RateLimit;

/// An account whose provider says that a limit is near is slowed down again after so long: figures of the last hour fall slowly, and each
/// answer has them.
const EASE_AGAIN: Duration = Duration::from_secs(30);

impl Account {
    /// The provider says that a limit is near: half of the speed, without a wait.
    pub(super) fn ease(&mut self, now: Instant) {
        if self.eased.is_none_or(|eased| now >= eased + EASE_AGAIN) {
            self.eased = Some(now);
            self.adaptive.slow_down(self.configured_rate(), now, now);
        }
    }

    /// It was too much: a wait, and then half of the speed. Requests that were in flight together are slowed down together.
    pub(super) fn throttle(&mut self, asked: Option<Duration>, why: Why, now: Instant, wall: Timestamp) {
        let is_news = self.caution.rest(now).is_none();
        self.caution.fail(asked.unwrap_or_default(), why, now, wall);
        if is_news {
            let rest = self.caution.rest(now).map_or(Duration::ZERO, |rest| rest.left(now));
            self.adaptive.slow_down(self.configured_rate(), now, now + rest);
        }
    }

    /// Counts one message against the limits.
    pub(in crate::dispatcher) fn take(&mut self, now: Instant, wall: Timestamp) {
        self.adaptive.take(now);
        self.day.take(wall);
        self.use_door();
        if let Some(rate) = &mut self.rate {
            rate.take(now);
        }
    }

    /// Messages of about one second of work, or `unlimited` where there is no limit.
    pub(in crate::dispatcher) fn second_of_work(&self, unlimited: usize) -> usize {
        if self.caution.is_probing() {
            return 1;
        }
        let second = self.rate.as_ref().map_or(unlimited, RateLimit::per_second);
        // What the day has no room for is not claimed.
        second.min(self.room_of_day).max(1)
    }

    /// Messages that were sent, for the status.
    pub(in crate::dispatcher) fn day(&mut self) -> &mut DayCount {
        &mut self.day
    }

    pub(super) fn configured_rate(&self) -> Option<u32> {
        self.channel.as_ref()?.spec.messages_per_second()
    }

    /// Until when the limit of the day is used up.
    pub(super) fn day_is_full(&mut self, wall: Timestamp) -> Option<Timestamp> {
        let limit = self.channel.as_ref()?.spec.limits.recipients_per_day;
        let Some(limit) = limit.and_then(|limit| u32::try_from(limit).ok()) else {
            self.room_of_day = usize::MAX;
            return None;
        };
        self.room_of_day = limit.saturating_sub(self.day.total(wall)) as usize;
        self.day.full_until(limit, wall)
    }

    pub(super) fn max_in_flight(&self) -> usize {
        let limit = self.channel.as_ref().map_or(1, |channel| channel.spec.limits.max_in_flight);
        if self.caution.is_probing() { 1 } else { usize::try_from(limit).unwrap_or(1).max(1) }
    }

    pub(super) fn limit_rate(&mut self, channel: &BroadcastChannel, now: Instant) {
        let burst = channel.spec.limits.burst.and_then(|burst| u32::try_from(burst).ok());
        let slowed = self.adaptive.rate(now);
        // A burst after the wait would be the next complaint.
        let burst = if slowed.is_some() { None } else { burst };
        let per_second = self.configured_rate().into_iter().chain(slowed).min();
        match (per_second, &mut self.rate) {
            (None, rate) => *rate = None,
            (Some(per_second), Some(rate)) => rate.set(per_second, burst, now),
            (Some(per_second), rate @ None) => *rate = Some(RateLimit::new(per_second, burst, now)),
        }
    }
}
