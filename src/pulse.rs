//! Whether the loops that send go round. In: that one begins, and a beat each time that it goes round. Out: which of them has
//! stopped, or never did.
//!
//! A loop that waits for the API server or a gateway goes round all the same; one that stopped is a bug, and only a new
//! process helps. That is all that the liveness probe looks for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::ids::ObjectKey;

/// A loop goes round every 5 s at least. On a machine that gives the process no time at all it may be late by much.
const STOPPED_AFTER: Duration = Duration::from_secs(60);

/// A loop that has to go round.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loop {
    /// The one that starts and ends the senders.
    Dispatcher,
    /// The sender of a channel.
    Sender(ObjectKey),
}

impl fmt::Display for Loop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dispatcher => write!(out, "the dispatcher"),
            Self::Sender(channel) => write!(out, "the sender of channel {channel}"),
        }
    }
}

/// When each loop last went round. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<BTreeMap<Loop, Instant>>>);

impl Pulse {
    /// A loop is about to begin. From now on it has to go round: one that never gets to it is as stuck as any.
    pub fn begin(&self, of: &Loop, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(of.clone(), now);
    }

    /// A loop went round. One that has not begun, or has ended, is nobody's business.
    pub fn beat(&self, of: &Loop, now: Instant) {
        if let Some(last) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(of) {
            *last = now;
        }
    }

    /// A loop has come to its end, as it should.
    pub fn end(&self, of: &Loop) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(of);
    }

    /// A loop that has stopped going round, in words.
    #[must_use]
    pub fn stopped(&self, now: Instant) -> Option<String> {
        let beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |last: &Instant| now.saturating_duration_since(*last);
        let (stopped, last) = beats.iter().find(|(_, last)| since(last) >= STOPPED_AFTER)?;
        Some(format!("{stopped} has not moved for {} s", since(last).as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_loop_that_stops_going_round_is_noticed_and_one_that_ended_is_not() {
        let (pulse, start) = (Pulse::default(), clock::monotonic());
        let sender = Loop::Sender(ObjectKey::new("shop", "sms"));
        pulse.begin(&Loop::Dispatcher, start);
        // It never goes round.
        pulse.begin(&sender, start);
        assert_eq!(pulse.stopped(start + STOPPED_AFTER.mul_f64(0.9)), None);
        let later = start + STOPPED_AFTER;
        pulse.beat(&Loop::Dispatcher, later);
        let words = "the sender of channel shop/sms has not moved for 60 s";
        assert_eq!(pulse.stopped(later).as_deref(), Some(words));
        pulse.end(&sender);
        pulse.beat(&sender, start);
        assert_eq!(pulse.stopped(later), None);
    }
}
