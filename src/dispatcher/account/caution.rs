//! How carefully an account is used after something went wrong: a wait, then one message to see, then full speed. Time
//! comes in.

use std::time::{Duration, Instant};

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};

use crate::domain::answer::{Answer, Refusal, RefusalKind};

/// Messages in a row of which nobody knows what became of them before a channel takes that for trouble of its gateway, and not of
/// the messages. Each of them is a chat that stays Unknown.
pub(super) const UNCERTAIN_RUN: u32 = 20;
/// Messages in a row that a gateway in trouble did not take before the channel waits. They cost a request each and no chat, so a few are
/// enough; one alone may be about its own message.
pub(super) const UNAVAILABLE_RUN: u32 = 5;
/// Messages in a row that a gateway must have taken before a single one that it says it is in trouble with counts as trouble of that
/// chat. With half of all messages refused, so many are taken in a row once in a million times.
const TAKEN_BEFORE: u32 = 20;

/// First and longest wait after a gateway could not be reached, or asked to wait without saying how long.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// Longest wait that a gateway can ask for: hours have been seen, of Telegram. What asks for more than a day is more often a mistake
/// of a unit than a wish, and one message a day, to see, harms nobody.
const LONGEST_REST: Duration = Duration::from_secs(86_400);

/// What an account waits for, and how it goes on.
#[derive(Default)]
pub(super) struct Caution {
    rest: Option<Rest>,
    /// The longest wait that the gateway asked for, in both kinds of time: the one that goes on now may be for something else.
    asked: Option<(Instant, Timestamp)>,
    /// What was in the way of the last message, until one shows that it is not any more.
    doubt: Option<Rest>,
    failures: u32,
    /// Answers in a row that show no gateway that works: they left open what became of their messages, or say that it is in trouble.
    in_doubt: u32,
    /// Messages that were taken since the gateway said the last time that it is in trouble.
    taken: u32,
    is_probing: bool,
}

/// A wait that ends by itself.
pub(super) struct Rest {
    ends: Instant,
    /// The same in wall-clock time and whole seconds, as a status holds it.
    pub(super) until: Timestamp,
    pub(super) why: Why,
}

/// Why an account waits.
pub(super) enum Why {
    Throttled,
    /// Receipts say that it was too fast.
    TooFast,
    Unreachable(String),
    /// Answers left open what became of their messages, one after the other.
    Uncertain(String),
    /// The gateway says that it is in trouble, again and again.
    Unavailable(String),
    /// Something else than the gateway answered.
    Unexpected(String),
    Redirected(String),
}

impl Rest {
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.ends.saturating_duration_since(now)
    }
}

impl Caution {
    /// The wait that goes on now.
    pub(super) fn rest(&self, now: Instant) -> Option<&Rest> {
        self.rest.as_ref().filter(|rest| now < rest.ends)
    }

    /// The end of the longest wait that the gateway asked for, while it runs. Another one may be longer.
    pub(super) fn asked_until(&self, now: Instant) -> Option<Timestamp> {
        self.asked.filter(|(ends, _)| now < *ends).map(|(_, until)| until)
    }

    /// What was in the way the last time, while nothing has shown that it is over.
    pub(super) fn doubt(&self) -> Option<&Rest> {
        self.doubt.as_ref().filter(|_| self.is_probing)
    }

    /// One message at a time, to see whether the gateway takes messages again.
    pub(super) fn is_probing(&self) -> bool {
        self.is_probing
    }

    /// The next message is there to see whether it is taken.
    pub(super) fn probe(&mut self) {
        self.is_probing = true;
    }

    /// The gateway takes messages.
    pub(super) fn relax(&mut self) {
        self.failures = 0;
        self.in_doubt = 0;
        self.is_probing = false;
        self.doubt = None;
    }

    /// Waits as long as the gateway `asked` for, and longer after each failure. All answers that come during one wait
    /// are one failure: sixty-four requests in flight fail together.
    pub(super) fn fail(&mut self, asked: Duration, why: Why, now: Instant, wall: Timestamp) {
        let backoff = if self.rest(now).is_some() { Duration::ZERO } else { self.next_backoff() };
        self.rest_for(asked.max(backoff), why, now, wall);
    }

    /// The answer in the light of those before. A gateway that says it is in trouble with one message, and took all others, is in no
    /// trouble: that chat is tried by `spec.retry`.
    pub(super) fn weigh(&mut self, answer: Answer) -> Answer {
        match answer {
            Answer::Accepted { .. } => self.taken = self.taken.saturating_add(1),
            Answer::Refused(refusal) if refusal.kind == RefusalKind::Unavailable => {
                let took_others = std::mem::take(&mut self.taken) >= TAKEN_BEFORE;
                let kind = if took_others { RefusalKind::Retryable } else { refusal.kind };
                return Answer::Refused(Refusal { kind, ..refusal });
            }
            _ => {}
        }
        answer
    }

    /// An answer shows no gateway that works, for this reason: nobody knows what became of a message, or the gateway is in trouble.
    /// After a run of these, and after one that was there to see, it waits; and as long as the gateway `asked` for in any case.
    pub(super) fn doubt_gateway(&mut self, why: Why, asked: Option<Duration>, now: Instant, wall: Timestamp) {
        self.in_doubt = self.in_doubt.saturating_add(1);
        let run = if let Why::Unavailable(_) = why { UNAVAILABLE_RUN } else { UNCERTAIN_RUN };
        match asked {
            Some(asked) => self.fail(asked, Why::Throttled, now, wall),
            None if self.in_doubt >= run || self.is_probing => self.fail(Duration::ZERO, why, now, wall),
            None => {}
        }
    }

    /// Takes up a wait that another process began.
    pub(super) fn take_up(&mut self, until: Timestamp, why: Why, now: Instant, wall: Timestamp) {
        if let Ok(wait) = Duration::try_from(until.duration_since(wall)) {
            self.rest_for(wait, why, now, wall);
        }
    }

    /// Ends a wait that is over, so that the next message is there to see.
    pub(super) fn end_rest(&mut self, now: Instant) {
        if self.rest.as_ref().is_some_and(|rest| rest.ends <= now) {
            let is_doubt = |why: &Why| !matches!(why, Why::Throttled | Why::TooFast);
            self.doubt = self.rest.take().filter(|rest| is_doubt(&rest.why));
            self.is_probing = true;
        }
    }

    /// Ends any wait.
    pub(super) fn forgive(&mut self) {
        self.is_probing |= self.rest.take().is_some();
        self.asked = None;
        self.in_doubt = 0;
        self.doubt = None;
    }

    fn next_backoff(&mut self) -> Duration {
        let wait = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(6)).min(LONGEST_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Several requests in flight may each bring a wait: the longest one counts.
    fn rest_for(&mut self, wait: Duration, why: Why, now: Instant, wall: Timestamp) {
        let wait = wait.min(LONGEST_REST);
        let (ends, until) = (now + wait, until(wall, wait));
        if matches!(why, Why::Throttled | Why::TooFast) && self.asked.is_none_or(|(before, _)| before < ends)
        {
            self.asked = Some((ends, until));
        }
        if self.rest(now).is_none_or(|rest| rest.left(now) < wait) {
            self.rest = Some(Rest { ends, until, why });
        }
    }
}

/// The end of a wait in whole seconds, rounded up: the API server gives back no more.
fn until(wall: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    let end = wall.saturating_add(wait).unwrap_or(Timestamp::MAX);
    end.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)).unwrap_or(end)
}

#[cfg(test)]
#[path = "caution_tests.rs"]
mod tests;
