//! Stops a Broadcast whose messages all fail in the same way, where that is not known to be about the chats: what is wrong then is
//! the message or the channel, and the other chats should not pay for it. At the beginning that is any failure, and later one that
//! is in no table. So that it can, no more messages may be without an answer than may still fail.
//!
//! What is taken at first and fails later, as receipts tell, is looked at for the first messages of a page alone.

use super::outcome::{Outcome, Row};
use crate::api::StopReason;

/// Messages that fail alike before the Broadcast stops. As many bad chats in a row, right at the beginning, are not an accident.
const FIRST_MESSAGES: u32 = 20;
/// Messages in a row that fail with the same code before the Broadcast stops, where nobody knows what the code is about. It is more
/// than at the beginning, because messages have arrived: an audience may well have some dozens of such chats beside each other.
const UNLISTED_RUN: u32 = 50;

/// Messages of a page among which receipts are looked for that say so too. Half of them have to fail: a gateway may have no receipts but
/// those of failures, and one bad chat in ten is no trouble with the message.
const FIRST_TAKEN: usize = 2 * FIRST_MESSAGES as usize;

/// Of the first messages of a page that were taken, the first one that failed since, if as many as are too many did, as receipts
/// tell, all of them alike, while none has arrived.
#[must_use]
pub fn failed_since(rows: &[Row]) -> Option<&Row> {
    let is_taken = |row: &&Row| match row.outcome {
        Outcome::Sent | Outcome::Delivered | Outcome::Read => true,
        // One that was refused has no message id.
        Outcome::Failed => !row.message_id.is_empty(),
        _ => false,
    };
    let has_arrived = |row: &Row| matches!(row.outcome, Outcome::Delivered | Outcome::Read);
    let (mut first, mut failures) = (None::<&Row>, 0);
    for row in rows.iter().filter(is_taken).take(FIRST_TAKEN) {
        if has_arrived(row) {
            return None;
        }
        if row.outcome == Outcome::Failed {
            if first.get_or_insert(row).code != row.code {
                return None;
            }
            failures += 1;
        }
    }
    first.filter(|_| failures >= FIRST_MESSAGES)
}

/// Looks at the answers of one Broadcast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    code: String,
    /// Failures with this code in a row, until a message has arrived.
    failures: u32,
    /// Failures with this code in a row, where it is in no table.
    unlisted: u32,
    is_proven: bool,
}

impl Breaker {
    /// The message has arrived somewhere: from now on each failure is that of its own chat, if it is known to be.
    pub fn prove(&mut self) {
        self.is_proven = true;
    }

    /// Counts from the beginning, because somebody looked at what was wrong.
    pub fn reset(&mut self) {
        (self.failures, self.unlisted) = (0, 0);
    }

    /// Messages that may be without an answer at the same time: with one more, more could fail than are looked at. `None`: any
    /// number, because one has arrived, and the last failure was a known one.
    #[must_use]
    pub fn room(&self) -> Option<usize> {
        let left = match (self.is_proven, self.unlisted) {
            (false, _) => FIRST_MESSAGES.saturating_sub(self.failures),
            (true, 0) => return None,
            (true, unlisted) => UNLISTED_RUN.saturating_sub(unlisted),
        };
        // One at least, so that it can never stand still.
        Some(left.max(1) as usize)
    }

    /// Takes in what became of one chat, and whether its code is in no table. Returns why the Broadcast stops when that is one too
    /// many: it says so once.
    pub fn note(&mut self, row: &Row, is_unlisted: bool) -> Option<StopReason> {
        match row.outcome {
            Outcome::Sent | Outcome::Delivered | Outcome::Read => {
                self.prove();
                self.unlisted = 0;
                None
            }
            Outcome::Failed => self.note_failure(&row.code, is_unlisted),
            _ => None,
        }
    }

    fn note_failure(&mut self, code: &str, is_unlisted: bool) -> Option<StopReason> {
        if self.code != code {
            self.reset();
            code.clone_into(&mut self.code);
        }
        self.failures = self.failures.saturating_add(1);
        self.unlisted = if is_unlisted { self.unlisted.saturating_add(1) } else { 0 };
        if !self.is_proven && self.failures == FIRST_MESSAGES {
            return Some(StopReason::FirstMessagesFailed);
        }
        (self.unlisted == UNLISTED_RUN).then_some(StopReason::UnknownErrors)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn failed(code: &str) -> Row {
        Row::known(Outcome::Failed, 1, Timestamp::UNIX_EPOCH).with_error(code, "no")
    }

    fn sent() -> Row {
        Row::known(Outcome::Sent, 1, Timestamp::UNIX_EPOCH)
    }

    /// What a receipt makes of a message that was taken.
    fn failed_later(code: &str) -> Row {
        Row { message_id: "SM1".into(), ..failed(code) }
    }

    #[test]
    fn first_messages_that_were_taken_and_failed_alike_since_are_too_many() {
        let arrived = Row::known(Outcome::Delivered, 1, Timestamp::UNIX_EPOCH);
        let alike = |number| vec![failed_later("30007"); number];
        for (rows, expected) in [
            (alike(20), true),
            (alike(19), false),
            ([alike(10), vec![Row::pending(); 30], alike(10)].concat(), true),
            ([vec![sent(); 20], alike(20)].concat(), true),
            ([vec![sent(); 21], alike(20)].concat(), false),
            ([alike(20), vec![arrived.clone()]].concat(), false),
            ([alike(40), vec![arrived]].concat(), true),
            ([alike(20), vec![failed_later("30003")]].concat(), false),
            (vec![failed("30007"); 40], false),
        ] {
            let found = failed_since(&rows).map(|row| row.code.as_str());
            assert_eq!(found, expected.then_some("30007"), "{rows:?}");
        }
    }

    fn trips(rows: impl IntoIterator<Item = Row>) -> Vec<usize> {
        let mut breaker = Breaker::default();
        rows.into_iter()
            .enumerate()
            .filter_map(|(number, row)| breaker.note(&row, false).is_some().then_some(number))
            .collect()
    }

    #[test]
    fn it_trips_once_when_the_first_messages_fail_alike() {
        assert_eq!(trips(std::iter::repeat_n(failed("131009"), 50)), [19]);
        assert_eq!(trips(std::iter::repeat_n(failed("131009"), 19)), Vec::<usize>::new());
    }

    #[test]
    fn one_message_that_arrives_proves_that_the_others_can() {
        assert_eq!(
            trips(std::iter::once(sent()).chain(std::iter::repeat_n(failed("131026"), 50))),
            Vec::<usize>::new()
        );
        let late = std::iter::repeat_n(failed("131026"), 19).chain([sent()]);
        assert_eq!(trips(late.chain(std::iter::repeat_n(failed("131026"), 50))), Vec::<usize>::new());
    }

    #[test]
    fn messages_that_fail_in_different_ways_are_bad_chats() {
        assert_eq!(trips((0..50).map(|number| failed(["a", "b"][number % 2]))), Vec::<usize>::new());
    }

    #[test]
    fn after_a_look_it_counts_anew() {
        let mut breaker = Breaker::default();
        let note =
            |breaker: &mut Breaker| (0..20).filter(|_| breaker.note(&failed("a"), false).is_some()).count();
        assert_eq!(note(&mut breaker), 1);
        breaker.reset();
        assert_eq!(note(&mut breaker), 1);
    }

    #[test]
    fn until_a_message_arrives_no_more_are_in_flight_than_may_fail() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.room(), Some(20));
        (0..15).for_each(|_| assert_eq!(breaker.note(&failed("a"), false), None));
        assert_eq!(breaker.room(), Some(5));
        assert_eq!(breaker.note(&failed("b"), false), None);
        assert_eq!(breaker.room(), Some(19), "what fails in another way is another beginning");
        assert_eq!(breaker.note(&sent(), false), None);
        assert_eq!(breaker.room(), None);
    }

    #[test]
    fn after_a_look_it_begins_gently_again() {
        let mut breaker = Breaker::default();
        assert_eq!((0..20).filter(|_| breaker.note(&failed("a"), false).is_some()).count(), 1);
        assert_eq!(breaker.room(), Some(1));
        breaker.reset();
        assert_eq!(breaker.room(), Some(20));
    }

    /// A Broadcast of which a message has arrived.
    fn proven() -> Breaker {
        let mut breaker = Breaker::default();
        breaker.prove();
        breaker
    }

    #[test]
    fn a_run_of_one_code_that_nobody_knows_stops_in_the_middle_and_known_ones_never_do() {
        for (is_unlisted, stops) in [(true, vec![(49, StopReason::UnknownErrors)]), (false, Vec::new())] {
            let mut breaker = proven();
            let noted = (0..120)
                .filter_map(|number| Some((number, breaker.note(&failed("999999"), is_unlisted)?)))
                .collect::<Vec<_>>();
            assert_eq!(noted, stops);
        }
    }

    #[test]
    fn a_message_that_arrives_another_code_a_known_one_and_a_look_begin_a_run_anew() {
        for between in [(sent(), false), (failed("b"), true), (failed("a"), false)] {
            let mut breaker = proven();
            for _ in 0..3 {
                assert!((0..49).all(|_| breaker.note(&failed("a"), true).is_none()));
                assert_eq!(breaker.note(&between.0, between.1), None, "{between:?}");
                if between.0.code == "b" {
                    assert_eq!(breaker.room(), Some(49));
                }
            }
        }
        let mut breaker = proven();
        assert!((0..49).all(|_| breaker.note(&failed("a"), true).is_none()));
        breaker.reset();
        assert!((0..49).all(|_| breaker.note(&failed("a"), true).is_none()));
    }

    #[test]
    fn what_says_nothing_of_a_chat_does_not_end_a_run() {
        let mut breaker = proven();
        let waits = Row::known(Outcome::Pending, 1, Timestamp::UNIX_EPOCH).with_error("131016", "down");
        for _ in 0..49 {
            assert_eq!(breaker.note(&failed("a"), true), None);
            assert_eq!(breaker.note(&waits, false), None);
        }
        assert_eq!(breaker.note(&failed("a"), true), Some(StopReason::UnknownErrors));
    }

    #[test]
    fn during_a_run_no_more_are_in_flight_than_may_fail() {
        let mut breaker = proven();
        assert_eq!(breaker.room(), None);
        (0..48).for_each(|_| assert_eq!(breaker.note(&failed("a"), true), None));
        assert_eq!(breaker.room(), Some(2));
        assert_eq!(breaker.note(&sent(), false), None);
        assert_eq!(breaker.room(), None);
    }
}
