//! What a gateway said to one message, and what that means for the chat and for the channel.
//!
//! The first question is always: can the message have been taken? Only where the answer is surely no may it be sent
//! again, and only an error that is about this one recipient fails the chat.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::outcome::{Outcome, Row};
use crate::api::{Retry, StopReason};

/// Seconds between two messages to a chat that gets too many, and doubled each time: the limit of `WhatsApp` is one in six seconds.
const CHAT_LIMIT_SECONDS: i64 = 6;
/// Longest wait for such a chat, unless `spec.retry` has a longer one.
const LONGEST_CHAT_WAIT_SECONDS: i64 = 60;

/// What a gateway said to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It took the message.
    Accepted {
        /// Its id of the message, or empty.
        message_id: String,
        /// What keeps the message from going out at once, as the gateway's word for it; or empty.
        held: String,
    },
    /// It surely did not take the message.
    Refused(Refusal),
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

impl Answer {
    /// It took the message, and sends it.
    #[must_use]
    pub fn accepted(message_id: impl Into<String>) -> Self {
        Self::Accepted { message_id: message_id.into(), held: String::new() }
    }

    /// It surely did not take the message.
    #[must_use]
    pub fn refused(kind: RefusalKind, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Refused(Refusal { kind, code: code.into(), detail: detail.into(), wait: None })
    }

    /// It may or may not have taken the message.
    #[must_use]
    pub fn unknown(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Unknown { code: code.into(), detail: detail.into() }
    }

    /// The same with its detail written anew.
    #[must_use]
    pub fn with_detail(mut self, rewrite: impl FnOnce(&str) -> String) -> Self {
        match &mut self {
            Self::Accepted { .. } => {}
            Self::Refused(Refusal { detail, .. })
            | Self::Unreachable { detail }
            | Self::Unknown { detail, .. } => *detail = rewrite(detail),
        }
        self
    }
}

/// Why a gateway did not take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is to be done about it.
    pub kind: RefusalKind,
    /// The gateway's error code.
    pub code: String,
    /// What it said.
    pub detail: String,
    /// How long it asked to wait.
    pub wait: Option<Duration>,
}

/// What a refusal is about, and what is to be done. Every error code of a provider has one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// About this recipient: another try fails as well. The chat fails.
    Permanent,
    /// About this recipient: another try may succeed, by `spec.retry`.
    Retryable,
    /// About this recipient: another try may succeed in a day or so. The chat fails, and a restart may take it.
    Later,
    /// This recipient does not want messages of this sender. The chat fails, and is not sent to again.
    OptedOut,
    /// Too many messages to this recipient at once: this chat waits, the others go on.
    ChatLimited,
    /// Too many messages at once: the channel waits. No chat fails.
    RateLimited,
    /// A rule of the channel stops the Broadcast. No chat fails.
    Stopped,
    /// About what is sent: nobody can get it. The Broadcast stops. No chat fails.
    Content,
    /// About the sender: nothing can be sent. The channel stops. No chat fails.
    Sender(SenderTrouble),
}

/// Why a gateway takes nothing from this sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SenderTrouble {
    /// It refused the credentials, or they may not send.
    AuthenticationFailed,
    /// It restricted, blocked or closed the account or the sending number.
    AccountRestricted,
    /// The account has no money, or no way to pay.
    PaymentRequired,
    /// It answers with a redirect: the url of the channel is not the gateway's.
    Redirected,
    /// An error policy of the channel says so.
    ByErrorPolicy,
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

/// Why a Broadcast stops, although its channel works: what it sends cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BroadcastStop {
    /// Why.
    pub reason: StopReason,
    /// The gateway's error code.
    pub code: String,
    /// What it said.
    pub detail: String,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The row to record, if the answer says anything of the chat.
    pub row: Option<Row>,
    /// What it means for the channel.
    pub effect: ChannelEffect,
    /// The Broadcast stops, for this reason.
    pub stop: Option<BroadcastStop>,
    /// The chat is not to be sent to again by this channel.
    pub is_opt_out: bool,
}

impl Settled {
    /// The answer says this of the chat, and that the channel works.
    fn row(row: Row) -> Self {
        Self { row: Some(row), ..Self::effect(ChannelEffect::Working) }
    }

    /// The answer says something of the channel alone.
    fn effect(effect: ChannelEffect) -> Self {
        Self { row: None, effect, stop: None, is_opt_out: false }
    }
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

    /// Wait after try number `attempts`: doubled each time, within the limits. Only a chat that gets too many messages is tried more
    /// often than `spec.retry` says, and never faster than that limit allows.
    fn backoff(&self, attempts: u32) -> SignedDuration {
        let doubled = |first: i64, exponent: u32| first.saturating_mul(1 << exponent.min(20));
        let first = i64::from(self.retry.min_backoff_seconds);
        let longest = i64::from(self.retry.max_backoff_seconds);
        let seconds = doubled(first, attempts.saturating_sub(1)).min(longest);
        let extra = attempts.checked_sub(self.max_attempts());
        let longest = longest.max(LONGEST_CHAT_WAIT_SECONDS);
        let floor = extra.map_or(0, |extra| doubled(CHAT_LIMIT_SECONDS, extra).min(longest));
        SignedDuration::from_secs(seconds.max(floor))
    }

    /// What an answer means, for the chat, its Broadcast and its channel.
    #[must_use]
    pub fn settle(&self, before: &Row, answer: Answer, now: Timestamp) -> Settled {
        let attempts = before.attempts.saturating_add(1);
        match answer {
            Answer::Accepted { message_id, held } => {
                let row = Row::known(Outcome::Sent, attempts, now).with_message_id(&message_id);
                let detail =
                    if held.is_empty() { "" } else { "the provider took the message and holds it back" };
                Settled::row(row.with_error(&held, detail))
            }
            Answer::Refused(refusal) => self.settle_refusal(before, refusal, attempts, now),
            Answer::Unknown { code, detail } => {
                let row = Row::known(Outcome::Unknown, attempts, now).with_error(&code, &detail);
                Settled { row: Some(row), ..Settled::effect(ChannelEffect::None) }
            }
            Answer::Unreachable { detail } => Settled::effect(ChannelEffect::Unreachable(detail)),
        }
    }

    fn settle_refusal(&self, before: &Row, refusal: Refusal, attempts: u32, now: Timestamp) -> Settled {
        let Refusal { kind, code, detail, wait } = refusal;
        let again = match kind {
            RefusalKind::Permanent | RefusalKind::Later | RefusalKind::OptedOut => false,
            RefusalKind::Retryable => attempts < self.max_attempts(),
            RefusalKind::ChatLimited => true,
            RefusalKind::RateLimited => return Settled::effect(ChannelEffect::Throttle(wait)),
            RefusalKind::Content | RefusalKind::Stopped => {
                let reason = match kind {
                    RefusalKind::Stopped => StopReason::ErrorPolicy,
                    _ => StopReason::TemplateUnavailable,
                };
                let stop = Some(BroadcastStop { reason, code, detail });
                return Settled { stop, ..Settled::effect(ChannelEffect::Working) };
            }
            RefusalKind::Sender(trouble) => {
                let detail = if detail.contains(&code) { detail } else { format!("{code}: {detail}") };
                return Settled::effect(ChannelEffect::Halt(trouble, detail));
            }
        };
        let outcome = self.after_refusal(before, again);
        let row = Row::known(outcome, attempts, now).with_error(&code, &detail);
        Settled { is_opt_out: kind == RefusalKind::OptedOut, ..Settled::row(row) }
    }

    /// A refused try says nothing about an earlier try that got no answer: unless the gateway drops repeats, that one
    /// may have been delivered, so the row stays Unknown.
    fn after_refusal(&self, before: &Row, again: bool) -> Outcome {
        let earlier_may_have_arrived = before.outcome == Outcome::Unknown && !self.idempotent;
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
        let kind = if retryable { RefusalKind::Retryable } else { RefusalKind::Permanent };
        Answer::refused(kind, "131026", "no")
    }

    fn outcome_of(policy: &SendPolicy, before: &Row, answer: Answer) -> Option<Outcome> {
        policy.settle(before, answer, at(9)).row.map(|row| row.outcome)
    }

    #[test]
    fn only_errors_about_the_recipient_fail_a_chat() {
        let fresh = Row::pending();
        let plain = policy(false, false);
        assert_eq!(outcome_of(&plain, &fresh, refused(false)), Some(Outcome::Failed));
        for answer in [
            Answer::refused(RefusalKind::RateLimited, "130429", ""),
            Answer::refused(RefusalKind::Content, "132015", ""),
            Answer::refused(RefusalKind::Sender(SenderTrouble::AuthenticationFailed), "190", ""),
            Answer::refused(RefusalKind::Sender(SenderTrouble::AccountRestricted), "131048", ""),
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
    fn a_chat_that_gets_too_many_messages_waits_longer_each_time_and_never_fails() {
        let policy = SendPolicy {
            retry: Retry { max_attempts: 2, min_backoff_seconds: 0, max_backoff_seconds: 0 },
            ..policy(false, false)
        };
        let mut row = Row::pending();
        let mut waits = Vec::new();
        for _ in 0..5 {
            let limited = Answer::refused(RefusalKind::ChatLimited, "131056", "pair rate");
            row = policy.settle(&row, limited, at(100)).row.expect("a row");
            assert_eq!(row.outcome, Outcome::Pending);
            waits.push(policy.due(&row).expect("due").as_second() - 100);
        }
        assert_eq!(waits, [0, 6, 12, 24, 48]);
    }

    #[test]
    fn an_opt_out_fails_the_chat_and_is_told() {
        let settled = policy(false, false).settle(
            &Row::pending(),
            Answer::refused(RefusalKind::OptedOut, "131050", "stopped"),
            at(9),
        );
        assert!(settled.is_opt_out);
        assert_eq!(settled.row.map(|row| row.outcome), Some(Outcome::Failed));
    }

    #[test]
    fn what_is_held_back_is_sent_with_the_providers_word_for_it() {
        let held = Answer::Accepted { message_id: "wamid.1".into(), held: "paused".into() };
        let row = policy(false, false).settle(&Row::pending(), held, at(9)).row.expect("a row");
        assert_eq!((row.outcome, row.code.as_str()), (Outcome::Sent, "paused"));
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
