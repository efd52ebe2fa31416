//! What a gateway said to one message, and what that means for the chat and for the channel.
//!
//! The first question is always: can the message have been taken? Only where the answer is surely no may it be sent
//! again, and only an error that is about this one recipient fails the chat.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::outcome::{Outcome, Row};
pub use super::refusal::{Refusal, RefusalKind, SenderTrouble};
use crate::api::{ErrorAction, Retry, StopReason};

/// Code of a chat that gets too many messages, of `WhatsApp`.
const CHAT_LIMIT: &str = "131056";
/// Seconds between two messages to such a chat, and doubled each time: its limit is one in six seconds.
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
        /// It says that more at this speed would soon be too much.
        is_near_limit: bool,
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
        /// How long it asked to wait.
        wait: Option<Duration>,
    },
}

impl Answer {
    /// It took the message, and sends it.
    #[must_use]
    pub fn accepted(message_id: impl Into<String>) -> Self {
        Self::Accepted { message_id: message_id.into(), held: String::new(), is_near_limit: false }
    }

    /// It surely did not take the message.
    #[must_use]
    pub fn refused(kind: RefusalKind, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Refused(Refusal { kind, code: code.into(), detail: detail.into(), wait: None, besides: None })
    }

    /// It may or may not have taken the message.
    #[must_use]
    pub fn unknown(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Unknown { code: code.into(), detail: detail.into(), wait: None }
    }

    /// The same, and the gateway asked to wait so long.
    #[must_use]
    pub fn with_wait(mut self, asked: Option<Duration>) -> Self {
        if let Self::Refused(Refusal { wait, .. }) | Self::Unknown { wait, .. } = &mut self {
            *wait = asked;
        }
        self
    }

    /// The same with code and detail written anew.
    #[must_use]
    pub fn reworded(
        mut self,
        rewrite_code: impl FnOnce(&str) -> String,
        rewrite_detail: impl FnOnce(&str) -> String,
    ) -> Self {
        match &mut self {
            Self::Accepted { .. } => {}
            Self::Unreachable { detail } => *detail = rewrite_detail(detail),
            Self::Refused(Refusal { code, detail, .. }) | Self::Unknown { code, detail, .. } => {
                *code = rewrite_code(code);
                *detail = rewrite_detail(detail);
            }
        }
        self
    }

    /// The same, of a message whose media are this recipient's own, or those of everybody: what is wrong with them is trouble of
    /// the one, or of the whole Broadcast.
    #[must_use]
    pub fn about_media(mut self, is_own: bool) -> Self {
        if let Self::Refused(Refusal { kind, .. }) = &mut self {
            *kind = match *kind {
                RefusalKind::Media if is_own => RefusalKind::Permanent,
                RefusalKind::Media => RefusalKind::Content,
                RefusalKind::MediaNotFetched if is_own => RefusalKind::Retryable,
                other => other,
            };
        }
        self
    }
}

/// What an answer means for the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEffect {
    /// The gateway works.
    Working,
    /// The gateway works, and would soon not put up with this speed any more.
    NearLimit,
    /// Send nothing for so long.
    Throttle(Option<Duration>),
    /// Send nothing until the cause is gone.
    Halt {
        /// The cause.
        trouble: SenderTrouble,
        /// The gateway's error code.
        code: String,
        /// What it said, with the code.
        detail: String,
    },
    /// Send nothing for a while, and then one message to see.
    Unreachable(String),
    /// It is not known what became of the message. If that happens again and again, send nothing for a while, and then one message to
    /// see.
    Uncertain {
        /// What happened.
        detail: String,
        /// Send nothing for so long in any case.
        wait: Option<Duration>,
    },
    /// The gateway says that it is in trouble, and took nothing. If that happens again and again, send nothing for a while, and then
    /// one message to see.
    Unavailable {
        /// What it said.
        detail: String,
        /// Send nothing for so long in any case.
        wait: Option<Duration>,
    },
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
    /// The chat fails by a code that is in no table.
    pub is_unlisted: bool,
}

impl Settled {
    /// The answer says this of the chat, and that the channel works.
    fn row(row: Row) -> Self {
        Self { row: Some(row), ..Self::effect(ChannelEffect::Working) }
    }

    /// The answer says that the channel works, and this of what is sent.
    fn stop(reason: StopReason, code: String, detail: String) -> Self {
        let stop = Some(BroadcastStop { reason, code, detail });
        Self { stop, ..Self::effect(ChannelEffect::Working) }
    }

    /// The answer says something of the channel alone.
    fn effect(effect: ChannelEffect) -> Self {
        Self { row: None, effect, stop: None, is_opt_out: false, is_unlisted: false }
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
            Some(last) if row.attempts > 0 => Some(last.saturating_add(self.backoff(row)).unwrap_or(last)),
            _ => Some(Timestamp::MIN),
        }
    }

    /// The same by a clock that says `now`. A last try that is farther in the future than any wait was noted by a clock that was
    /// wrong: it holds nothing up.
    #[must_use]
    pub fn due_by(&self, row: &Row, now: Timestamp) -> Option<Timestamp> {
        let due = self.due(row)?;
        let longest = i64::from(self.retry.max_backoff_seconds).max(LONGEST_CHAT_WAIT_SECONDS);
        let longest = SignedDuration::from_secs(longest);
        let is_of_a_wrong_clock = row.time.is_some_and(|last| last.duration_since(now) > longest);
        Some(if is_of_a_wrong_clock { now } else { due })
    }

    /// Wait after the last try of a row: doubled each time, within the limits. What is tried more often than `spec.retry` says, and a
    /// chat that gets too many messages, is never tried faster than the limit of such a chat allows.
    fn backoff(&self, row: &Row) -> SignedDuration {
        let doubled = |first: i64, exponent: u32| first.saturating_mul(1 << exponent.min(20));
        let first = i64::from(self.retry.min_backoff_seconds);
        let longest = i64::from(self.retry.max_backoff_seconds);
        let before = row.attempts.saturating_sub(1);
        let seconds = doubled(first, before).min(longest);
        let extra = match row.code.as_str() {
            CHAT_LIMIT => Some(before),
            _ => row.attempts.checked_sub(self.max_attempts()),
        };
        let longest = longest.max(LONGEST_CHAT_WAIT_SECONDS);
        let floor = extra.map_or(0, |extra| doubled(CHAT_LIMIT_SECONDS, extra).min(longest));
        SignedDuration::from_secs(seconds.max(floor))
    }

    /// What an answer means, for the chat, its Broadcast and its channel.
    #[must_use]
    pub fn settle(&self, before: &Row, answer: Answer, now: Timestamp) -> Settled {
        let attempts = before.attempts.saturating_add(1);
        match answer {
            Answer::Accepted { message_id, held, is_near_limit } => {
                let row = Row::known(Outcome::Sent, attempts, now).with_message_id(&message_id);
                let detail =
                    if held.is_empty() { "" } else { "the provider took the message and holds it back" };
                let effect = if is_near_limit { ChannelEffect::NearLimit } else { ChannelEffect::Working };
                Settled { effect, ..Settled::row(row.with_error(&held, detail)) }
            }
            Answer::Refused(refusal) => self.settle_refusal(before, refusal, attempts, now),
            Answer::Unknown { code, detail, wait } => {
                let row = Row::known(Outcome::Unknown, attempts, now).with_error(&code, &detail);
                let detail = with_code(&code, detail);
                Settled { row: Some(row), ..Settled::effect(ChannelEffect::Uncertain { detail, wait }) }
            }
            Answer::Unreachable { detail } => Settled::effect(ChannelEffect::Unreachable(detail)),
        }
    }

    fn settle_refusal(&self, before: &Row, refusal: Refusal, attempts: u32, now: Timestamp) -> Settled {
        let Refusal { kind, code, detail, wait, besides } = refusal;
        let is_last = attempts >= self.max_attempts();
        let again = match kind {
            RefusalKind::Permanent
            | RefusalKind::Unlisted
            | RefusalKind::Later
            | RefusalKind::OptedOut
            | RefusalKind::Suppressed => false,
            RefusalKind::Retryable => !is_last,
            RefusalKind::MediaNotFetched if !is_last => true,
            // It may be this message alone that something on the way does not let through, or that the provider is in trouble with:
            // the others go first, and it fails by nothing.
            RefusalKind::ChatLimited
            | RefusalKind::Unavailable
            | RefusalKind::Sender(SenderTrouble::UnexpectedAnswer) => true,
            RefusalKind::RateLimited => return Settled::effect(ChannelEffect::Throttle(wait)),
            RefusalKind::Stopped => return Settled::stop(StopReason::ErrorPolicy, code, detail),
            RefusalKind::NotSupported => {
                return Settled::stop(StopReason::MessageNotSupported, code, detail);
            }
            RefusalKind::Content | RefusalKind::Media | RefusalKind::MediaNotFetched => {
                return Settled::stop(StopReason::TemplateUnavailable, code, detail);
            }
            RefusalKind::Sender(trouble) => {
                let detail = with_code(&code, detail);
                return Settled::effect(ChannelEffect::Halt { trouble, code, detail });
            }
        };
        let row = Row::known(self.after_refusal(before, again), attempts, now).with_error(&code, &detail);
        let said = with_code(&code, detail.clone());
        let halt = |trouble| ChannelEffect::Halt { trouble, code: code.clone(), detail: said.clone() };
        let effect = match (kind, besides) {
            (RefusalKind::Unavailable, _) => ChannelEffect::Unavailable { detail: said.clone(), wait },
            (RefusalKind::Sender(trouble), _) => halt(trouble),
            (_, Some(ErrorAction::StopChannel)) => halt(SenderTrouble::ByErrorPolicy),
            _ => ChannelEffect::Working,
        };
        let stops = besides == Some(ErrorAction::StopBroadcast);
        Settled {
            row: Some(row),
            effect,
            stop: stops.then_some(BroadcastStop { reason: StopReason::ErrorPolicy, code, detail }),
            is_opt_out: kind == RefusalKind::OptedOut,
            is_unlisted: kind == RefusalKind::Unlisted,
        }
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

/// What a gateway said, with its code where it does not say that itself.
#[must_use]
pub fn with_code(code: &str, detail: String) -> String {
    if detail.contains(code) { detail } else { format!("{code}: {detail}") }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
