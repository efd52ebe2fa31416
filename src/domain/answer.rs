//! What a gateway said to one message, and what that means for the chat and for the channel.
//!
//! The first question is always: can the message have been taken? Only where the answer is surely no may it be sent
//! again, and only an error that is about this one recipient fails the chat.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::outcome::{Outcome, Row};
use crate::api::Retry;

/// What a gateway said to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It took the message.
    Accepted {
        /// Its id of the message, or empty.
        message_id: String,
    },
    /// It surely did not take the message, and that is about this recipient.
    Refused {
        /// Whether another try may succeed.
        retryable: bool,
        /// Its error code.
        code: String,
        /// What it said.
        detail: String,
    },
    /// It surely did not take the message: too many at once.
    RateLimited {
        /// How long it asked to wait.
        wait: Option<Duration>,
    },
    /// It surely did not take the message, and will take none from this sender.
    SenderRefused {
        /// What the sender's trouble is.
        trouble: SenderTrouble,
        /// What it said.
        detail: String,
    },
    /// The request surely never left: no connection could be made.
    Unreachable {
        /// Why.
        detail: String,
    },
    /// It may or may not have taken the message.
    Unknown {
        /// What happened, as one word or the HTTP status.
        code: String,
        /// What happened.
        detail: String,
    },
}

/// Why a gateway takes nothing from this sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderTrouble {
    /// It refused the credentials.
    AuthenticationFailed,
    /// It answers with a redirect: the url of the channel is not the gateway's.
    Redirected,
}

/// What an answer means for the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEffect {
    /// The gateway works.
    Working,
    /// Nothing: the answer says nothing about the channel.
    None,
    /// Send nothing for so long.
    Throttle(Option<Duration>),
    /// Send nothing until the cause is gone.
    Halt(SenderTrouble, String),
    /// Send nothing for a while, and then one message to see.
    Unreachable(String),
}

/// How one Broadcast on one channel treats answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendPolicy {
    /// When to try again.
    pub retry: Retry,
    /// Whether Unknown rows are sent again: the user chose it, or the gateway drops repeats.
    pub resend: bool,
    /// Whether the gateway drops a second request with the same key, so that its last answer holds for the first too.
    pub idempotent: bool,
}

impl SendPolicy {
    /// Tries per chat in all.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        u32::try_from(self.retry.max_attempts).unwrap_or(1).max(1)
    }

    /// When a row may be sent: `None` if never, by this policy.
    #[must_use]
    pub fn due(&self, row: &Row) -> Option<Timestamp> {
        let open = match row.outcome {
            Outcome::Pending => true,
            Outcome::Unknown => self.resend && row.attempts < self.max_attempts(),
            _ => false,
        };
        if !open {
            return None;
        }
        match row.time {
            Some(last) if row.attempts > 0 => {
                Some(last.saturating_add(self.backoff(row.attempts)).unwrap_or(last))
            }
            _ => Some(Timestamp::MIN),
        }
    }

    /// Wait after try number `attempts`: doubled each time, within the limits.
    fn backoff(&self, attempts: u32) -> SignedDuration {
        let first = i64::from(self.retry.min_backoff_seconds);
        let doublings = attempts.saturating_sub(1).min(20);
        let seconds = first.saturating_mul(1 << doublings).min(i64::from(self.retry.max_backoff_seconds));
        SignedDuration::from_secs(seconds)
    }

    /// What an answer means: the row to record, if any, and the effect on the channel.
    #[must_use]
    pub fn settle(&self, before: &Row, answer: Answer, now: Timestamp) -> (Option<Row>, ChannelEffect) {
        let attempts = before.attempts.saturating_add(1);
        match answer {
            Answer::Accepted { message_id } => {
                let row = Row::known(Outcome::Sent, attempts, now).with_message_id(&message_id);
                (Some(row), ChannelEffect::Working)
            }
            Answer::Refused { retryable, code, detail } => {
                let outcome = self.after_refusal(before, retryable, attempts);
                (Some(Row::known(outcome, attempts, now).with_error(&code, &detail)), ChannelEffect::Working)
            }
            Answer::Unknown { code, detail } => {
                let row = Row::known(Outcome::Unknown, attempts, now).with_error(&code, &detail);
                (Some(row), ChannelEffect::None)
            }
            Answer::RateLimited { wait } => (None, ChannelEffect::Throttle(wait)),
            Answer::SenderRefused { trouble, detail } => (None, ChannelEffect::Halt(trouble, detail)),
            Answer::Unreachable { detail } => (None, ChannelEffect::Unreachable(detail)),
        }
    }

    /// A refused try says nothing about an earlier try that got no answer: unless the gateway drops repeats, that one
    /// may have been delivered, so the row stays Unknown.
    fn after_refusal(&self, before: &Row, retryable: bool, attempts: u32) -> Outcome {
        let earlier_may_have_arrived = before.outcome == Outcome::Unknown && !self.idempotent;
        let again = retryable && attempts < self.max_attempts();
        match (earlier_may_have_arrived, again, before.outcome) {
            (true, _, _) | (false, true, Outcome::Unknown) => Outcome::Unknown,
            (false, true, _) => Outcome::Pending,
            (false, false, _) => Outcome::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("small")
    }

    fn policy(resend: bool, idempotent: bool) -> SendPolicy {
        SendPolicy { retry: Retry::default(), resend, idempotent }
    }

    fn refused(retryable: bool) -> Answer {
        Answer::Refused { retryable, code: "131026".into(), detail: "no".into() }
    }

    fn outcome_of(policy: &SendPolicy, before: &Row, answer: Answer) -> Option<Outcome> {
        policy.settle(before, answer, at(9)).0.map(|row| row.outcome)
    }

    #[test]
    fn only_errors_about_the_recipient_fail_a_chat() {
        let fresh = Row::pending();
        let plain = policy(false, false);
        assert_eq!(outcome_of(&plain, &fresh, refused(false)), Some(Outcome::Failed));
        for answer in [
            Answer::RateLimited { wait: None },
            Answer::SenderRefused { trouble: SenderTrouble::AuthenticationFailed, detail: String::new() },
            Answer::Unreachable { detail: String::new() },
        ] {
            assert_eq!(outcome_of(&plain, &fresh, answer), None);
        }
    }

    #[test]
    fn a_retryable_refusal_fails_the_chat_only_after_the_last_try() {
        let plain = policy(false, false);
        let second = Row::known(Outcome::Pending, 1, at(1));
        let last = Row::known(Outcome::Pending, 2, at(1));
        assert_eq!(outcome_of(&plain, &second, refused(true)), Some(Outcome::Pending));
        assert_eq!(outcome_of(&plain, &last, refused(true)), Some(Outcome::Failed));
    }

    #[test]
    fn a_refused_resend_does_not_prove_that_the_first_try_failed() {
        let before = Row::known(Outcome::Unknown, 1, at(1));
        assert_eq!(outcome_of(&policy(true, false), &before, refused(false)), Some(Outcome::Unknown));
        assert_eq!(outcome_of(&policy(true, true), &before, refused(false)), Some(Outcome::Failed));
    }

    #[test]
    fn no_definite_answer_is_unknown() {
        let lost = Answer::Unknown { code: "Timeout".into(), detail: String::new() };
        assert_eq!(outcome_of(&policy(false, false), &Row::pending(), lost), Some(Outcome::Unknown));
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let plain = policy(true, false);
        let due = |attempts| plain.due(&Row::known(Outcome::Pending, attempts, at(100)));
        assert_eq!(due(1), Some(at(105)));
        assert_eq!(due(2), Some(at(110)));
        assert_eq!(due(9), Some(at(400)));
        assert_eq!(plain.due(&Row::pending()), Some(Timestamp::MIN));
    }

    #[test]
    fn unknown_rows_are_sent_again_only_when_asked_and_not_for_ever() {
        let unknown = |attempts| Row::known(Outcome::Unknown, attempts, at(100));
        assert_eq!(policy(false, false).due(&unknown(1)), None);
        assert_eq!(policy(true, false).due(&unknown(1)), Some(at(105)));
        assert_eq!(policy(true, false).due(&unknown(3)), None);
    }
}
