//! How an account stands, in the words of its channel's status.

use std::time::Instant;

use jiff::Timestamp;

use super::caution::Why;
use super::refused::{Refused, UNEXPECTED_ANSWER, message_of};
use super::settings::{Probed, Trouble};
use super::{Account, Door};
use crate::api::{ChannelStatus, ChannelStop, Condition};
use crate::domain::answer::SenderTrouble;
use crate::domain::channel_verdict::{AccountState, DAILY_LIMIT, Health, RATE_LIMIT_REPORTED};

/// Reason of a channel that waits because nobody knows what became of its last messages.
const GATEWAY_UNCERTAIN: &str = "GatewayUncertain";
/// Reason of a channel that waits because its gateway says that it is in trouble.
const GATEWAY_UNAVAILABLE: &str = "GatewayUnavailable";

/// The wait that the gateway asked for, as the status of its channel says. It may be over by now.
pub(super) fn wait_of(status: &ChannelStatus) -> Option<(Timestamp, Why)> {
    let throttled = Condition::find(&status.conditions, "Throttled");
    let why = match throttled.map(|throttled| &*throttled.reason) {
        Some(DAILY_LIMIT) => return None,
        Some(RATE_LIMIT_REPORTED) => Why::TooFast,
        _ => Why::Throttled,
    };
    status.throttled_until.as_ref().map(|until| (until.0, why))
}

/// Whether the status of a channel says that its gateway left open what became of messages, is in trouble, or refused the account, and
/// took none since.
pub(super) fn was_in_trouble(conditions: &[Condition]) -> bool {
    let is_doubt = |reason: &str| [GATEWAY_UNCERTAIN, GATEWAY_UNAVAILABLE].contains(&reason);
    let was_in_doubt = Condition::find(conditions, "Ready").is_some_and(|ready| is_doubt(&ready.reason));
    was_in_doubt || Condition::is_true(conditions, "Stalled")
}

/// Whether a status that does not count for the gateway of its channel is of another one: who has settled that knew of what was sent. One of
/// a version that had no marks is, where the channel needed a person.
pub(super) fn is_of_another_gateway(status: &ChannelStatus) -> bool {
    status.observed_gateway.is_some() || Condition::is_true(&status.conditions, "Stalled")
}

impl Account {
    /// What the status says of the account: how it stands, and the wait that the gateway asked for, whatever else is said.
    pub(in crate::dispatcher) fn state(
        &mut self,
        is_busy: bool,
        now: Instant,
        wall: Timestamp,
    ) -> AccountState {
        AccountState {
            health: self.health(is_busy, now, wall),
            asked_until: self.caution.asked_until(now),
            stop: self.stop(),
            heeded: self.heeded.clone(),
            settled: self.settled,
            gateway: self.gateway.clone(),
            receipts: self.receipts.trouble(),
        }
    }

    /// Why the provider takes nothing.
    fn stop(&self) -> Option<ChannelStop> {
        if let Some(halted) = &self.halted {
            return Some(halted.as_stop());
        }
        self.refused().map(Refused::as_stop)
    }

    /// How the account stands. With something to send, a gateway that was in trouble the last time is not
    /// called well before it is.
    pub(in crate::dispatcher) fn health(&mut self, is_busy: bool, now: Instant, wall: Timestamp) -> Health {
        // What a person has to settle comes first: the status is where the next process finds it.
        if let Some(halted) = &self.halted {
            return halted.as_health();
        }
        if let Some(refused) = self.refused() {
            return match &self.door {
                Door::Closed { trouble: Some(Trouble { reason, message, .. }), .. } => {
                    Health::Stalled(reason, message.clone())
                }
                _ => refused.as_health(),
            };
        }
        if let Some(until) = self.day_is_full(wall).filter(|_| self.caution.rest(now).is_none()) {
            return Health::DayIsFull(until);
        }
        let doubt = self.caution.doubt().filter(|_| is_busy);
        if let Some(rest) = self.caution.rest(now).or(doubt) {
            return match &rest.why {
                Why::Throttled => Health::Throttled(rest.until),
                Why::TooFast => Health::TooFast(rest.until),
                Why::Unreachable(detail) => Health::Waiting(
                    "GatewayUnreachable",
                    format!(
                        "no connection to the gateway ({detail}): it is tried again by itself, and no chat fails by it"
                    ),
                ),
                Why::Uncertain(detail) => Health::Waiting(
                    GATEWAY_UNCERTAIN,
                    format!(
                        "it is not known what became of the last messages ({detail}): their chats are Unknown; the gateway is tried \
                         again by itself, with one message at a time until it answers one"
                    ),
                ),
                Why::Unavailable(detail) => Health::Waiting(
                    GATEWAY_UNAVAILABLE,
                    format!(
                        "the provider says that it is in trouble ({detail}): it is tried again by itself, with one message at a time \
                         until it takes one, and no chat fails by it"
                    ),
                ),
                Why::Unexpected(detail) => {
                    Health::Waiting(UNEXPECTED_ANSWER, message_of(SenderTrouble::UnexpectedAnswer, detail))
                }
                Why::Redirected(detail) => {
                    Health::Stalled("UnexpectedRedirect", message_of(SenderTrouble::Redirected, detail))
                }
            };
        }
        match &self.door {
            // What the provider refused is over as well, as far as is known.
            Door::Opening | Door::Closed { trouble: None, .. } => Health::Opening,
            Door::Open { opened, .. } => match &opened.probed {
                Probed::NotTold { detail, .. } => Health::NotVerified(detail.clone()),
                _ => Health::Ready,
            },
            Door::Closed { trouble: Some(Trouble { reason, message, .. }), .. } => {
                Health::Stalled(reason, message.clone())
            }
        }
    }
}
