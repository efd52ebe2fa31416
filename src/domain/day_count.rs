//! How many messages an account has sent in the last 24 hours, by the hour, and when it may go on after a daily limit. Time comes in.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::HourCount;

const HOUR_SECONDS: i64 = 3600;
/// A message counts for the rest of its hour and 24 more: a little longer than providers count it.
const HOURS: i64 = 24;

/// Messages by the hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DayCount {
    /// By number of the hour since 1970.
    hours: BTreeMap<i64, u32>,
    total: u32,
    /// The hour in which hours to come were seen first, while there are some: either the clock was ahead then and has been put right, or it
    /// is behind now. In the first case their messages count as of this hour, and in the second they are where they belong later.
    ahead_since: Option<i64>,
}

impl DayCount {
    /// What a status has stored.
    #[must_use]
    pub fn read(stored: &[HourCount], now: Timestamp) -> Self {
        let mut count = Self::default();
        for HourCount { hour, sent } in stored {
            let known = count.hours.entry(hour_of(hour.0)).or_default();
            *known = known.saturating_add(u32::try_from(*sent).unwrap_or_default());
        }
        // An account sends far less than this in a day; somebody may have written more into the status.
        let longest = u32::MAX / 64;
        count.hours.values_mut().for_each(|sent| *sent = (*sent).min(longest));
        count.total = count.hours.values().sum();
        count.forget_old(now);
        count
    }

    /// Counts a message.
    pub fn take(&mut self, now: Timestamp) {
        self.forget_old(now);
        *self.hours.entry(hour_of(now)).or_default() += 1;
        self.total += 1;
    }

    /// Takes the last message that was counted back: its request never left.
    pub fn untake(&mut self, now: Timestamp) {
        self.forget_old(now);
        if let Some(mut last) = self.hours.last_entry().filter(|last| *last.get() > 0) {
            *last.get_mut() -= 1;
            self.total -= 1;
        }
    }

    /// Messages of the last 24 hours.
    pub fn total(&mut self, now: Timestamp) -> u32 {
        self.forget_old(now);
        self.total
    }

    /// When the account may go on under a limit of so many messages a day. `None`: now.
    pub fn full_until(&mut self, limit: u32, now: Timestamp) -> Option<Timestamp> {
        self.forget_old(now);
        if self.total < limit {
            return None;
        }
        let mut left = self.total;
        let by_hour = self.as_of(hour_of(now));
        let freed = by_hour.iter().find(|(_, sent)| {
            left -= **sent;
            left < limit
        });
        let hour = freed.map_or_else(|| hour_of(now), |(hour, _)| *hour);
        Timestamp::from_second((hour + HOURS + 1) * HOUR_SECONDS).ok()
    }

    /// What a status is to store. Hours to come stand in it as they are until the next hour: a clock that is behind for a moment must
    /// not make them old for whoever reads them.
    #[must_use]
    pub fn stored(&self, now: Timestamp) -> Vec<HourCount> {
        let is_new = self.ahead_since.is_none_or(|since| since >= hour_of(now));
        let by_hour = if is_new { self.hours.clone() } else { self.as_of(hour_of(now)) };
        let hours = by_hour.into_iter().filter_map(|(hour, sent)| {
            let hour = Time(Timestamp::from_second(hour * HOUR_SECONDS).ok()?);
            Some(HourCount { hour, sent: i32::try_from(sent).unwrap_or(i32::MAX) })
        });
        hours.collect()
    }

    /// Messages by the hour that they count as of, where it is this hour: so no day is full for longer than its messages count.
    fn as_of(&self, now: i64) -> BTreeMap<i64, u32> {
        let mut by_hour = self.hours.clone();
        let ahead = by_hour.split_off(&(now + 1));
        if let Some(since) = self.ahead_since {
            *by_hour.entry(since).or_default() += ahead.values().sum::<u32>();
        }
        by_hour
    }

    fn forget_old(&mut self, now: Timestamp) {
        let now = hour_of(now);
        let oldest = now - HOURS;
        let is_ahead = self.hours.last_key_value().is_some_and(|(hour, _)| *hour > now);
        let known = self.ahead_since.filter(|since| *since <= now);
        self.ahead_since = is_ahead.then(|| known.unwrap_or(now));
        if self.ahead_since.is_some_and(|since| since < oldest) {
            self.total -= self.hours.split_off(&(now + 1)).values().sum::<u32>();
            self.ahead_since = None;
        }
        while let Some(entry) = self.hours.first_entry().filter(|entry| *entry.key() < oldest) {
            self.total -= entry.remove();
        }
    }
}

fn hour_of(time: Timestamp) -> i64 {
    time.as_second().div_euclid(HOUR_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 * HOUR_SECONDS + hour * HOUR_SECONDS + 60).expect("time")
    }

    fn sent(hours: impl IntoIterator<Item = i64>) -> DayCount {
        let mut count = DayCount::default();
        hours.into_iter().for_each(|hour| count.take(at(hour)));
        count
    }

    #[test]
    fn messages_count_for_a_day() {
        let mut count = sent([0, 0, 1, 5]);
        assert_eq!(count.total(at(5)), 4);
        assert_eq!(count.total(at(24)), 4);
        assert_eq!(count.total(at(25)), 2);
        assert_eq!(count.total(at(60)), 0);
    }

    #[test]
    fn a_full_day_says_when_there_is_room_again() {
        let mut count = sent([0, 0, 1, 5]);
        assert_eq!(count.full_until(5, at(5)), None);
        let until = count.full_until(4, at(5)).expect("full");
        assert_eq!(count.clone().full_until(4, until), None, "there is room then");
        let hour_before = Timestamp::from_second(until.as_second() - 1).expect("time");
        assert!(count.clone().full_until(4, hour_before).is_some(), "and not before");
        let later = count.full_until(2, at(5)).expect("full");
        assert!(later > until, "a smaller limit waits for more");
    }

    #[test]
    fn what_never_left_does_not_count() {
        let mut count = sent([0, 5]);
        count.untake(at(5));
        assert_eq!((count.total(at(5)), count.full_until(2, at(5))), (1, None));
        count.untake(at(5));
        count.untake(at(5));
        assert_eq!(count.total(at(5)), 1, "the others were of another hour");
        assert_eq!(sent([]).total(at(5)), 0);
    }

    #[test]
    fn what_is_stored_is_what_was_counted() {
        let mut count = sent([0, 0, 1, 5]);
        assert_eq!(DayCount::read(&count.stored(at(5)), at(5)), count);
        assert_eq!(DayCount::read(&count.stored(at(5)), at(25)).total(at(25)), count.total(at(25)));
    }

    #[test]
    fn a_clock_that_was_ahead_for_a_while_keeps_no_day_full_for_longer_than_its_messages_count() {
        let mut count = sent([0, 0, 30 * 24, 30 * 24]);
        assert_eq!(count.total(at(1)), 2, "those of the jump count as of now");
        let until = count.full_until(2, at(1)).expect("full");
        assert!(until <= at(1 + 25), "{until}");
        let stored = sent([1, 1, 30 * 24]).stored(at(30 * 24));
        assert_eq!(DayCount::read(&stored, at(1)).total(at(1)), 1, "and so it is for the next process");
        assert_eq!(DayCount::read(&stored, at(1)).total(at(26)), 0);
        count.take(at(1));
        count.untake(at(1));
        assert_eq!((count.total(at(1)), count.total(at(26))), (2, 0));
    }

    #[test]
    fn a_clock_that_is_behind_for_a_while_frees_nothing_when_it_is_put_right() {
        let mut count = sent([100, 100, 101]);
        let stored = count.stored(at(101));
        for hour in [98, 50, 40] {
            assert_eq!((count.total(at(hour)), count.full_until(3, at(hour)).is_some()), (3, true));
            assert_eq!(count.stored(at(hour)), stored);
        }
        assert_eq!((count.total(at(101)), count.stored(at(101))), (3, stored.clone()));
        assert_eq!(DayCount::read(&stored, at(50)).stored(at(50)), stored, "nor for who has it for a moment");
        // After an hour it is the clock that was ahead: the next process need not wait anew.
        let mut of_before = DayCount::read(&stored, at(50));
        assert_eq!(of_before.total(at(60)), 3);
        let mut next = DayCount::read(&of_before.stored(at(60)), at(61));
        assert_eq!((next.total(at(74)), next.total(at(75))), (3, 0));
    }
}
