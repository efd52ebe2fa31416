//! Stops a Broadcast whose first messages all fail in the same way: what is wrong then is the message or the channel, and the other
//! chats should not pay for it.

use super::outcome::{Outcome, Row};

/// Messages that fail alike before the Broadcast stops. As many bad chats in a row, right at the beginning, are not an accident.
const FIRST_MESSAGES: u32 = 20;

/// Looks at the first answers of one Broadcast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    code: String,
    failures: u32,
    is_proven: bool,
}

impl Breaker {
    /// The message has arrived somewhere: from now on each failure is that of its own chat.
    pub fn prove(&mut self) {
        self.is_proven = true;
    }

    /// Counts from the beginning, because somebody looked at what was wrong.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Takes in what became of one chat. Returns whether that is one too many: it says so once.
    pub fn note(&mut self, row: &Row) -> bool {
        match row.outcome {
            Outcome::Sent | Outcome::Delivered | Outcome::Read => self.prove(),
            Outcome::Failed if !self.is_proven => {
                if self.code != row.code {
                    self.failures = 0;
                    row.code.clone_into(&mut self.code);
                }
                self.failures += 1;
                return self.failures == FIRST_MESSAGES;
            }
            _ => {}
        }
        false
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

    fn trips(rows: impl IntoIterator<Item = Row>) -> Vec<usize> {
        let mut breaker = Breaker::default();
        rows.into_iter()
            .enumerate()
            .filter_map(|(number, row)| breaker.note(&row).then_some(number))
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
        let note = |breaker: &mut Breaker| (0..20).filter(|_| breaker.note(&failed("a"))).count();
        assert_eq!(note(&mut breaker), 1);
        breaker.reset();
        assert_eq!(note(&mut breaker), 1);
    }
}
