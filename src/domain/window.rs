//! Which rows of a page to claim next.

use std::ops::Range;

use jiff::Timestamp;

use super::answer::SendPolicy;
use super::outcome::{Outcome, Row};

/// What a page has to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Rows that can be sent now.
    Window(Range<usize>),
    /// Nothing now, but something at this time.
    NotBefore(Timestamp),
    /// Nothing any more.
    Nothing,
}

/// Chooses up to `budget` rows that are due. A Pending row that is not due yet ends the window: a claim locks every
/// Pending row in its range, and a crash would call it Unknown although it was surely not sent.
#[must_use]
pub fn next_window(rows: &[Row], policy: &SendPolicy, now: Timestamp, budget: usize) -> Choice {
    let mut earliest: Option<Timestamp> = None;
    let mut window: Option<Range<usize>> = None;
    let mut taken = 0;
    for (index, row) in rows.iter().enumerate() {
        let Some(due) = policy.due_by(row, now) else { continue };
        if due <= now {
            if taken == budget {
                break;
            }
            taken += 1;
            window = Some(window.map_or(index, |range| range.start)..index + 1);
        } else {
            earliest = Some(earliest.map_or(due, |time| time.min(due)));
            if window.is_some() && row.outcome == Outcome::Pending {
                break;
            }
        }
    }
    match (window, earliest) {
        (Some(range), _) => Choice::Window(range),
        (None, Some(time)) => Choice::NotBefore(time),
        (None, None) => Choice::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Retry;

    const PLAIN: fn() -> SendPolicy =
        || SendPolicy { retry: Retry::default(), resend: false, idempotent: false };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("small")
    }

    fn sent() -> Row {
        Row::known(Outcome::Sent, 1, at(1))
    }

    fn failed_once_at(second: i64) -> Row {
        Row::known(Outcome::Pending, 1, at(second))
    }

    #[test]
    fn a_window_holds_as_many_due_rows_as_the_budget_allows() {
        let rows = vec![sent(), Row::pending(), sent(), Row::pending(), Row::pending()];
        assert_eq!(next_window(&rows, &PLAIN(), at(10), 2), Choice::Window(1..4));
        assert_eq!(next_window(&rows, &PLAIN(), at(10), 9), Choice::Window(1..5));
    }

    #[test]
    fn a_row_that_waits_for_its_retry_ends_the_window() {
        let rows = vec![Row::pending(), failed_once_at(9), Row::pending()];
        assert_eq!(next_window(&rows, &PLAIN(), at(10), 9), Choice::Window(0..1));
        assert_eq!(next_window(&rows, &PLAIN(), at(14), 9), Choice::Window(0..3));
    }

    #[test]
    fn a_page_that_only_waits_says_until_when() {
        let rows = vec![sent(), failed_once_at(9), failed_once_at(7)];
        assert_eq!(next_window(&rows, &PLAIN(), at(10), 9), Choice::NotBefore(at(12)));
    }

    #[test]
    fn a_try_that_a_wrong_clock_noted_for_tomorrow_holds_nothing_up() {
        let day = 86_400;
        let rows = vec![failed_once_at(day), Row::pending()];
        assert_eq!(next_window(&rows, &PLAIN(), at(10), 9), Choice::Window(0..2));
        assert_eq!(next_window(&rows, &PLAIN(), at(day), 1), Choice::Window(1..2), "a clock that is right");
    }

    #[test]
    fn a_page_without_open_rows_has_nothing() {
        assert_eq!(next_window(&[sent(), Row::skipped("Duplicate")], &PLAIN(), at(10), 9), Choice::Nothing);
    }
}
