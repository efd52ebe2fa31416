//! Whether receipts come for few pages or for many: for their pages, or for a journal. Pure; time comes in.
//!
//! In: receipts that may go either way. Out: which way they go. A write of a page is a good one when it carries many of them. Poor
//! ones are made as long as there are few of them in a second: then the page says at once what the receipt said.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::ids::ObjectKey;
use super::rate::RateLimit;

/// Receipts that are worth a write of their page: a journal of as many costs about as much.
pub const ENOUGH: usize = 8;
/// Receipts of a page in such a time go into one write of it.
const TOGETHER: Duration = Duration::from_millis(100);
/// Poor writes that are under way at the same time: enough for some hundred in a second. An API server that takes fewer would have
/// more and more pages wait for it, and with each of them all that comes for it.
const AT_ONCE: usize = 8;
/// Pages that are remembered, before those of which nothing has come lately are forgotten.
const REMEMBERED: usize = 4096;

/// Which way receipts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Into their page, with others.
    Page,
    /// Into their page, by one of the poor writes that are made. See [`Spread::poor_write_ended`].
    PoorWrite,
    /// Into a journal.
    Journal,
}

/// How receipts come.
#[derive(Debug)]
pub struct Spread {
    poor_writes: Option<RateLimit>,
    under_way: usize,
    pages: HashMap<ObjectKey, Recent>,
}

/// Receipts of one page in this span of time and in the one before.
#[derive(Clone, Copy, Debug)]
struct Recent {
    since: Instant,
    number: usize,
    before: usize,
}

impl Recent {
    fn add(&mut self, receipts: usize, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= TOGETHER {
            let before = if age < 2 * TOGETHER { self.number } else { 0 };
            *self = Self { since: now, number: 0, before };
        }
        self.number += receipts;
    }

    fn is_dense(self) -> bool {
        self.number.max(self.before) >= ENOUGH
    }

    fn is_over(self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= 2 * TOGETHER
    }
}

impl Spread {
    /// With so many poor writes in a second; none with 0.
    #[must_use]
    pub fn new(poor_writes_per_second: u32, now: Instant) -> Self {
        let limit = || RateLimit::new(poor_writes_per_second, Some(poor_writes_per_second), now);
        Self { poor_writes: (poor_writes_per_second > 0).then(limit), under_way: 0, pages: HashMap::new() }
    }

    /// Which way receipts of a page go. `is_awaited`: others wait for a write of it.
    pub fn way_of(&mut self, page: &ObjectKey, receipts: usize, is_awaited: bool, now: Instant) -> Way {
        if self.pages.len() >= REMEMBERED && !self.pages.contains_key(page) {
            self.pages.retain(|_, recent| !recent.is_over(now));
        }
        let new = Recent { since: now, number: 0, before: 0 };
        let recent = self.pages.entry(page.clone()).or_insert(new);
        recent.add(receipts, now);
        if is_awaited || recent.is_dense() {
            return Way::Page;
        }
        match &mut self.poor_writes {
            Some(limit) if self.under_way < AT_ONCE && limit.wait(now).is_zero() => {
                limit.take(now);
                self.under_way += 1;
                Way::PoorWrite
            }
            _ => Way::Journal,
        }
    }

    /// A poor write came to its end. One that carried many receipts was none, and does not count.
    pub fn poor_write_ended(&mut self, receipts: usize) {
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(limit) = self.poor_writes.as_mut().filter(|_| receipts >= ENOUGH) {
            limit.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::page_name;

    const MS: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn page(index: u32) -> ObjectKey {
        ObjectKey::new("shop", page_name("sale", index as usize))
    }

    fn number_of(ways: &[Way], wanted: Way) -> usize {
        ways.iter().filter(|way| **way == wanted).count()
    }

    #[test]
    fn of_a_thousand_scattered_receipts_a_second_as_many_as_allowed_cost_a_write() {
        let start = origin();
        for allowed in [0, 50] {
            let mut spread = Spread::new(allowed, start);
            let ways: Vec<Way> = (0..10_000_u32)
                .map(|number| {
                    let way = spread.way_of(&page(number * 7 % 400), 1, false, start + MS * number);
                    if way == Way::PoorWrite {
                        spread.poor_write_ended(1);
                    }
                    way
                })
                .collect();
            let (most, poor) = (11 * allowed as usize, number_of(&ways, Way::PoorWrite));
            assert!(poor <= most && poor >= most * 8 / 10, "{poor} poor writes of {most}");
            assert_eq!(number_of(&ways, Way::Page), 0);
        }
    }

    #[test]
    fn few_receipts_are_in_their_page_at_once() {
        let start = origin();
        let mut spread = Spread::new(50, start);
        for number in 1..200 {
            let way = spread.way_of(&page(number), 1, false, start + 25 * MS * number);
            assert_eq!(way, Way::PoorWrite);
            spread.poor_write_ended(1);
        }
        // Several at the same moment, in a second with no others.
        for second in 10..20 {
            let now = start + Duration::from_secs(second);
            let ways: Vec<Way> = (0..8).map(|number| spread.way_of(&page(number), 1, false, now)).collect();
            assert_eq!(number_of(&ways, Way::PoorWrite), 8);
            (0..8).for_each(|_| spread.poor_write_ended(1));
        }
    }

    #[test]
    fn what_comes_together_for_one_page_goes_there_although_nothing_is_allowed() {
        let start = origin();
        let mut spread = Spread::new(0, start);
        assert_eq!(spread.way_of(&page(0), ENOUGH, false, start), Way::Page, "in one request");
        assert_eq!(spread.way_of(&page(1), 1, true, start), Way::Page, "others wait");
        let ways: Vec<Way> =
            (0..200).map(|number| spread.way_of(&page(2), 1, false, start + 5 * MS * number)).collect();
        assert_eq!(number_of(&ways, Way::Journal), ENOUGH - 1, "before it was known that more come");
        let later = start + Duration::from_secs(60);
        assert_eq!(spread.way_of(&page(2), 1, false, later), Way::Journal, "it is over");
    }

    #[test]
    fn a_write_that_others_came_along_with_is_not_counted() {
        let start = origin();
        let mut spread = Spread::new(1, start);
        for number in 1..100 {
            let now = start + Duration::from_secs(1) + 20 * MS * number;
            assert_eq!(spread.way_of(&page(number), 1, false, now), Way::PoorWrite);
            spread.poor_write_ended(ENOUGH);
        }
    }

    #[test]
    fn while_the_api_server_is_slow_few_pages_wait_for_it() {
        let start = origin();
        let mut spread = Spread::new(1000, start);
        let now = start + Duration::from_secs(1);
        let ways: Vec<Way> = (0..100).map(|number| spread.way_of(&page(number), 1, false, now)).collect();
        assert_eq!(number_of(&ways, Way::PoorWrite), AT_ONCE);
        assert_eq!(number_of(&ways, Way::Journal), 100 - AT_ONCE);
        spread.poor_write_ended(1);
        assert_eq!(spread.way_of(&page(100), 1, false, now), Way::PoorWrite);
        assert_eq!(spread.way_of(&page(101), 1, false, now), Way::Journal);
    }

    #[test]
    fn pages_of_which_nothing_comes_any_more_are_forgotten() {
        let start = origin();
        let mut spread = Spread::new(0, start);
        for number in 0..50_000 {
            spread.way_of(&page(number), 1, false, start + MS * number);
        }
        assert!(spread.pages.len() <= REMEMBERED);
    }
}
