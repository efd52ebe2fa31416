//! The sending account of a channel: its gateway, its credentials, its limits, and what keeps it from sending.

mod caution;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::BroadcastChannel;
use crate::domain::answer::{ChannelEffect, SenderTrouble};
use crate::domain::channel_verdict::Health;
use crate::domain::rate::RateLimit;
use crate::providers::gateway::Gateway;
use caution::{Caution, Why};
pub(super) use settings::{Opened, Trouble, Version, read};

/// How often a Secret is looked at while its content keeps the channel from sending.
const SECRET_POLL: Duration = Duration::from_secs(2);
/// A gateway that refused the same credentials is asked again after so long: an account can be unlocked over there.
const REFUSED_RETRY: Duration = Duration::from_secs(300);
/// A gateway that redirected is asked again after so long.
const REDIRECTED_RETRY: Duration = Duration::from_secs(60);

enum Door {
    /// Not read yet, or being read.
    Opening,
    Open {
        version: Version,
        opened: Opened,
    },
    /// Cannot be used; looked at again at this time.
    Closed {
        reason: &'static str,
        message: String,
        again: Instant,
    },
}

/// Counts the doors of an account. What an answer says about the account, it says about the door that its request went
/// through, and not about one that was opened since with another url or token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DoorNumber(u64);

/// The way to the gateway, for one request.
pub(super) struct Way {
    pub(super) gateway: Gateway,
    pub(super) door: DoorNumber,
}

/// The account of one channel.
pub(super) struct Account {
    channel: Option<Arc<BroadcastChannel>>,
    door: Door,
    door_number: DoorNumber,
    is_reading: bool,
    rate: Option<RateLimit>,
    /// Credentials that the gateway refused, and when to try them again all the same.
    refused: Option<(Option<String>, Instant)>,
    caution: Caution,
}

impl Account {
    /// The account of a channel that has not been looked at.
    pub(super) fn new() -> Self {
        Self {
            channel: None,
            door: Door::Opening,
            door_number: DoorNumber::default(),
            is_reading: false,
            rate: None,
            refused: None,
            caution: Caution::default(),
        }
    }

    /// Takes in the channel as it is now. Returns it when its settings have to be read.
    pub(super) fn observe(
        &mut self,
        channel: Option<Arc<BroadcastChannel>>,
        now: Instant,
        wall: Timestamp,
    ) -> Option<Arc<BroadcastChannel>> {
        let is_same = |before: &BroadcastChannel| channel.as_ref().is_some_and(|it| it.uid() == before.uid());
        if self.channel.as_deref().is_some_and(|before| !is_same(before)) {
            self.forget();
        }
        let channel = channel?;
        match self.channel.replace(channel.clone()) {
            None => self.take_up_wait(&channel, now, wall),
            Some(before) if before.metadata.generation != channel.metadata.generation => {
                self.forgive(&before, &channel, now);
            }
            Some(_) => {}
        }
        self.limit_rate(&channel, now);
        self.caution.end_rest(now);
        let wants_reading = match &self.door {
            Door::Opening => true,
            Door::Open { version, .. } => *version != Version::of(&channel),
            Door::Closed { again, .. } => now >= *again,
        };
        if !wants_reading || self.is_reading {
            return None;
        }
        self.is_reading = true;
        Some(channel)
    }

    /// Takes in settings and credentials, as they were read of one version of the channel.
    pub(super) fn open(&mut self, version: Version, read: Result<Opened, Trouble>, now: Instant) {
        self.is_reading = false;
        if self.channel.as_deref().is_none_or(|channel| Version::of(channel) != version) {
            // The channel has changed meanwhile: what was read is read again.
            return;
        }
        self.door_number.0 += 1;
        self.door = match read {
            Ok(opened) if self.still_refuses(&opened, now) => Door::Closed {
                reason: "AuthenticationFailed",
                message: auth_message(),
                again: now + SECRET_POLL,
            },
            Ok(opened) => {
                if self.refused.take().is_some() {
                    self.caution.probe();
                }
                Door::Open { version, opened }
            }
            Err(Trouble { reason, message }) => Door::Closed { reason, message, again: now + SECRET_POLL },
        };
    }

    /// The channel is gone, or is another one of the same name: nothing that was known of it counts any more.
    fn forget(&mut self) {
        let Self { door_number, is_reading, .. } = *self;
        *self = Self { door_number, is_reading, ..Self::new() };
        self.door_number.0 += 1;
    }

    /// A wait that the gateway asked for outlives the process, unless the spec was changed since.
    fn take_up_wait(&mut self, channel: &BroadcastChannel, now: Instant, wall: Timestamp) {
        let Some(status) = &channel.status else { return };
        let is_current = Some(status.observed_generation) == channel.metadata.generation;
        if let Some(until) = status.throttled_until.as_ref().filter(|_| is_current) {
            self.caution.take_up(until.0, now, wall);
        }
    }

    /// A person has changed the spec: whatever was wrong with the old one is tried anew. Through a door to another
    /// gateway nothing goes any more.
    fn forgive(&mut self, before: &BroadcastChannel, after: &BroadcastChannel, now: Instant) {
        if self.refused.take().is_some() {
            self.caution.probe();
        }
        self.caution.forgive();
        if before.spec.http != after.spec.http {
            self.door = Door::Opening;
            self.door_number.0 += 1;
        }
        if let Door::Closed { again, .. } = &mut self.door {
            *again = now;
        }
    }

    fn still_refuses(&self, opened: &Opened, now: Instant) -> bool {
        self.refused.as_ref().is_some_and(|(token, again)| *token == opened.token && now < *again)
    }

    /// Takes in what the answer to a request means for the account.
    pub(super) fn feel(&mut self, door: DoorNumber, effect: ChannelEffect, now: Instant, wall: Timestamp) {
        if door != self.door_number {
            return;
        }
        match effect {
            ChannelEffect::None => {}
            ChannelEffect::Working => self.caution.relax(),
            ChannelEffect::Throttle(wait) => {
                self.caution.fail(wait.unwrap_or_default(), Why::Throttled, now, wall);
            }
            ChannelEffect::Unreachable(detail) => {
                self.caution.fail(Duration::ZERO, Why::Unreachable(detail), now, wall);
            }
            ChannelEffect::Halt(SenderTrouble::Redirected, detail) => {
                self.caution.fail(REDIRECTED_RETRY, Why::Redirected(detail), now, wall);
            }
            ChannelEffect::Halt(SenderTrouble::AuthenticationFailed, _) => {
                if let Door::Open { opened, .. } = &self.door {
                    self.refused = Some((opened.token.clone(), now + REFUSED_RETRY));
                    // Read the Secret at once: it may have been changed already.
                    self.door =
                        Door::Closed { reason: "AuthenticationFailed", message: auth_message(), again: now };
                }
            }
        }
    }

    /// Whether a message may start now, and if not, how long until that may change by itself.
    pub(super) fn may_send(&mut self, in_flight: usize, now: Instant) -> Result<Way, Option<Duration>> {
        let Some(channel) = &self.channel else { return Err(None) };
        if channel.spec.paused {
            return Err(None);
        }
        if let Some(rest) = self.caution.rest(now) {
            return Err(Some(rest.left(now)));
        }
        self.caution.end_rest(now);
        let gateway = match &self.door {
            Door::Opening => return Err(None),
            Door::Closed { again, .. } => return Err(Some(again.saturating_duration_since(now))),
            Door::Open { opened, .. } => opened.gateway.clone(),
        };
        if in_flight >= self.max_in_flight() {
            return Err(None);
        }
        match self.rate.as_ref().map(|rate| rate.wait(now)) {
            Some(wait) if !wait.is_zero() => Err(Some(wait)),
            _ => Ok(Way { gateway, door: self.door_number }),
        }
    }

    /// Counts one message against the limit.
    pub(super) fn take(&mut self, now: Instant) {
        if let Some(rate) = &mut self.rate {
            rate.take(now);
        }
    }

    /// Whether new claims make sense now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        let paused = self.channel.as_ref().is_none_or(|channel| channel.spec.paused);
        !paused && self.caution.rest(now).is_none() && matches!(self.door, Door::Open { .. })
    }

    /// Messages of about one second of work, or `unlimited` where there is no limit.
    pub(super) fn second_of_work(&self, unlimited: usize) -> usize {
        if self.caution.is_probing() {
            return 1;
        }
        let limit = self.channel.as_ref().and_then(|channel| channel.spec.limits.messages_per_second);
        limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(unlimited).max(1)
    }

    /// When to look at a closed door again.
    pub(super) fn wakes_in(&self, now: Instant) -> Option<Duration> {
        let door = match &self.door {
            Door::Closed { again, .. } if !self.is_reading => Some(again.saturating_duration_since(now)),
            _ => None,
        };
        let rest = self.caution.rest(now).map(|rest| rest.left(now));
        door.into_iter().chain(rest).filter(|wait| !wait.is_zero()).min()
    }

    /// How the account stands, for its status. With something to send, a gateway that was not reached the last time is not
    /// called well before it is.
    pub(super) fn health(&self, is_busy: bool, now: Instant) -> Health {
        let doubt = self.caution.doubt().filter(|_| is_busy);
        if let Some(rest) = self.caution.rest(now).or(doubt) {
            return match &rest.why {
                Why::Throttled => Health::Throttled(rest.until),
                Why::Unreachable(detail) => Health::Waiting(
                    "GatewayUnreachable",
                    format!(
                        "no connection to the gateway ({detail}): it is tried again by itself, and no chat fails by it"
                    ),
                ),
                Why::Redirected(detail) => Health::Stalled(
                    "UnexpectedRedirect",
                    format!("{detail}: put the address that it redirects to into spec.http.url"),
                ),
            };
        }
        match &self.door {
            Door::Opening => Health::Opening,
            Door::Open { .. } => Health::Ready,
            Door::Closed { reason, message, .. } => Health::Stalled(reason, message.clone()),
        }
    }

    fn max_in_flight(&self) -> usize {
        let limit = self.channel.as_ref().map_or(1, |channel| channel.spec.limits.max_in_flight);
        if self.caution.is_probing() { 1 } else { usize::try_from(limit).unwrap_or(1).max(1) }
    }

    fn limit_rate(&mut self, channel: &BroadcastChannel, now: Instant) {
        let limits = channel.spec.limits;
        let burst = limits.burst.and_then(|burst| u32::try_from(burst).ok());
        match (limits.messages_per_second.and_then(|rate| u32::try_from(rate).ok()), &mut self.rate) {
            (None, rate) => *rate = None,
            (Some(per_second), Some(rate)) => rate.set(per_second, burst, now),
            (Some(per_second), rate @ None) => *rate = Some(RateLimit::new(per_second, burst, now)),
        }
    }
}

fn auth_message() -> String {
    "the gateway refused the credentials: put a valid token into the Secret of spec.http.tokenSecretRef; sending goes on by \
     itself then, and no chat fails by it"
        .into()
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
