//! What receipts say of an account, as its channel's status holds it. Time comes in.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Account;
use super::caution::Why;
use super::health::wait_of;
use super::refused::Refused;
use crate::api::{BroadcastChannel, ReportedTrouble, TroubleReason};
use crate::domain::answer::with_code;
use crate::domain::error_policy::still_stops;

/// How long an account waits that was too fast, as only receipts say: the provider took the messages and dropped them later, so it may
/// still have others. It gives no time of its own.
const TOO_FAST_WAIT: Duration = Duration::from_secs(10);
/// What the times of messages and statuses are told apart by.
const SECOND: Duration = Duration::from_secs(1);

impl Account {
    /// Stops or slows down for what receipts say of the account, as for an answer, once: any replica may have taken them. They speak of the
    /// credentials that were read last; until some are known it says nothing that counts for long. Of messages that were sent before others
    /// were put in it says nothing either.
    pub(super) fn heed(&mut self, channel: &BroadcastChannel, now: Instant, wall: Timestamp) {
        let Some(credentials) = self.credentials else { return };
        let reported = reported(channel, &self.gateway.digest);
        let Some(reported) = reported.filter(|reported| self.heeded.as_ref() != Some(reported)) else {
            return;
        };
        self.heeded = Some(reported.clone());
        let ReportedTrouble { reason, code, message, .. } = &reported;
        let Some(trouble) = reason.trouble() else {
            if !reported.is_stale(wall) {
                self.throttle(Some(TOO_FAST_WAIT), Why::TooFast, now, wall);
            }
            return;
        };
        // Whoever wrote it did not know yet what this one knows, or the one before it.
        let told = channel.status.as_ref().and_then(|status| status.settled_time.as_ref());
        if reported.is_settled(self.settled.max(told.map(|told| told.0))) {
            return;
        }
        if !self.refusals.are_reported_too(credentials, *reason) {
            let said = with_code(code, message.clone());
            self.close(Refused::by_receipt(credentials, trouble, (code, &said), now), now);
        }
    }

    /// Other credentials were put in: what receipts say of messages of before is settled with that. A limit is that of the gateway.
    pub(super) fn settle(&mut self, wall: Timestamp) {
        self.settle_now(wall);
        let reported = self.channel.as_deref().and_then(|channel| reported(channel, &self.gateway.digest));
        if let Some(reported) = reported.filter(|reported| reported.reason != TroubleReason::RateLimited) {
            self.heeded = Some(reported);
        }
    }

    /// What receipts say of messages that were sent until now says nothing of what is sent from now on.
    pub(super) fn settle_now(&mut self, wall: Timestamp) {
        self.settled = Timestamp::from_second(wall.as_second()).ok();
    }

    /// The rest of the second in which it was settled: times of messages are whole seconds, so one that is sent in it would be one of
    /// before, and its own receipt would stop nothing.
    pub(super) fn settling(&self, wall: Timestamp) -> Option<Duration> {
        let settled = self.settled.filter(|settled| settled.as_second() == wall.as_second())?;
        Duration::try_from(wall.duration_since(settled)).ok().map(|gone| SECOND.saturating_sub(gone))
    }
}

/// What the sender before this one has taken in. It has stopped for it: the stop is in the status, and says what ends it. Or it has slowed
/// down: its wait is in the status too, and this one has no speed yet to be halved.
pub(super) fn taken_in(
    channel: &BroadcastChannel,
    gateway: &str,
    wall: Timestamp,
) -> Option<ReportedTrouble> {
    let status = channel.status.as_ref()?;
    let reported = reported(channel, gateway)?;
    let is_taken_in = match reported.reason {
        // A process may have died before it slowed down.
        TroubleReason::RateLimited => wait_of(status).is_some() || reported.has_shown(wall),
        reason => status.stop.as_ref().is_some_and(|stop| stop.reason == reason),
    };
    is_taken_in.then_some(reported)
}

/// What receipts say of the account, if that was of the gateway as it is now, and the rules still have the channel stop for it.
pub(super) fn reported(channel: &BroadcastChannel, gateway: &str) -> Option<ReportedTrouble> {
    let reported = channel.status.as_ref()?.reported.as_ref()?.of_gateway(gateway)?;
    let stops = |trouble| still_stops(&channel.spec.error_policy, trouble, &reported.code);
    reported.reason.trouble().is_none_or(stops).then_some(reported)
}
