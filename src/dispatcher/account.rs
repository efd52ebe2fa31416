//! The sending account of a channel: its gateway, its credentials, its limits, and what keeps it from sending.

mod caution;
mod refused;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::{BroadcastChannel, Condition, ErrorRule, ProviderName};
use crate::domain::adaptive::AdaptiveRate;
use crate::domain::answer::{ChannelEffect, SenderTrouble};
use crate::domain::channel_verdict::{DAILY_LIMIT, Health};
use crate::domain::day_count::DayCount;
use crate::domain::rate::RateLimit;
use crate::providers::SecretValues;
use crate::providers::gateway::Gateway;
use caution::{Caution, Why};
use refused::{Refused, reason_of};
pub(super) use settings::{Opened, Trouble, Version, read};
use settings::{Probed, is_same_gateway};

/// How often a Secret is looked at while its content keeps the channel from sending.
const SECRET_POLL: Duration = Duration::from_secs(2);
/// How often a provider is asked whether refused credentials are good now.
const PROBE_AGAIN: Duration = Duration::from_secs(10);
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
    /// What the channel says about error codes.
    pub(super) rules: Arc<[ErrorRule]>,
    pub(super) provider: ProviderName,
}

/// The account of one channel.
pub(super) struct Account {
    channel: Option<Arc<BroadcastChannel>>,
    door: Door,
    door_number: DoorNumber,
    is_reading: bool,
    rate: Option<RateLimit>,
    adaptive: AdaptiveRate,
    day: DayCount,
    room_of_day: usize,
    rules: Arc<[ErrorRule]>,
    /// What an earlier process was told about the account: it counts for the first credentials that are read.
    halted: Option<(SenderTrouble, String)>,
    /// When the provider was asked last whether the credentials are good.
    probed: Option<Instant>,
    /// What the provider refuses to send with, and when to try it again all the same.
    refused: Option<Refused>,
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
            adaptive: AdaptiveRate::default(),
            day: DayCount::default(),
            room_of_day: usize::MAX,
            rules: Arc::default(),
            halted: None,
            probed: None,
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
            None => {
                self.rules = channel.spec.error_policy.clone().into();
                self.take_up(&channel, now, wall);
            }
            Some(before) if before.metadata.generation != channel.metadata.generation => {
                self.rules = channel.spec.error_policy.clone().into();
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
            Ok(opened) => {
                if opened.probed != Probed::Unknown {
                    self.probed = Some(now);
                }
                if let Some(halted) = self.halted.take() {
                    self.refused = Some(Refused::of_status(opened.secrets.clone(), halted, now));
                }
                let is_halted =
                    self.refused.as_ref().is_some_and(|refused| refused.outlasts_a_probe(&opened));
                if let Probed::Refused(trouble, detail) = &opened.probed
                    && !is_halted
                {
                    let refused = Refused::new(opened.secrets.clone(), *trouble, detail, now);
                    self.refused = Some(refused.by_probe());
                }
                match &self.refused {
                    Some(refused) if refused.still(&opened, now) => Door::Closed {
                        reason: reason_of(refused.trouble),
                        message: refused.message.clone(),
                        again: now + SECRET_POLL,
                    },
                    _ => {
                        if self.refused.take().is_some() {
                            self.caution.probe();
                        }
                        Door::Open { version, opened }
                    }
                }
            }
            Err(Trouble { reason, message }) => Door::Closed { reason, message, again: now + SECRET_POLL },
        };
    }

    /// What the provider need not be asked about again yet: it has just said no to it.
    pub(super) fn known_to_be_bad(&self, now: Instant) -> Option<SecretValues> {
        let is_fresh = self.probed.is_some_and(|probed| now < probed + PROBE_AGAIN);
        self.refused.as_ref().filter(|_| is_fresh).map(|refused| refused.secrets.clone())
    }

    /// The channel is gone, or is another one of the same name: nothing that was known of it counts any more.
    fn forget(&mut self) {
        let Self { door_number, is_reading, .. } = *self;
        *self = Self { door_number, is_reading, ..Self::new() };
        self.door_number.0 += 1;
    }

    /// What the provider said outlives the process, unless the spec was changed since: a wait that it asked for, and that it takes
    /// nothing before a person has settled something. What was sent counts in any case.
    fn take_up(&mut self, channel: &BroadcastChannel, now: Instant, wall: Timestamp) {
        let Some(status) = &channel.status else { return };
        self.day = DayCount::read(&status.sent_by_hour, wall);
        if Some(status.observed_generation) != channel.metadata.generation {
            return;
        }
        let throttled = Condition::find(&status.conditions, "Throttled");
        let is_own_limit = throttled.is_some_and(|throttled| throttled.reason == DAILY_LIMIT);
        if let Some(until) = status.throttled_until.as_ref().filter(|_| !is_own_limit) {
            self.caution.take_up(until.0, now, wall);
        }
        self.halted = refused::lasting(channel);
    }

    /// A person has changed the spec: whatever was wrong with the old one is tried anew. Through a door to another
    /// gateway nothing goes any more.
    fn forgive(&mut self, before: &BroadcastChannel, after: &BroadcastChannel, now: Instant) {
        if self.refused.take().is_some() {
            self.caution.probe();
        }
        self.halted = None;
        self.caution.forgive();
        self.adaptive.forget();
        if !is_same_gateway(before, after) {
            self.door = Door::Opening;
            self.door_number.0 += 1;
        }
        if let Door::Closed { again, .. } = &mut self.door {
            *again = now;
        }
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
                // Requests that were in flight together are slowed down together.
                let is_news = self.caution.rest(now).is_none();
                self.caution.fail(wait.unwrap_or_default(), Why::Throttled, now, wall);
                if is_news {
                    let rest = self.caution.rest(now).map_or(Duration::ZERO, |rest| rest.left(now));
                    self.adaptive.slow_down(self.configured_rate(), now, now + rest);
                }
            }
            ChannelEffect::Unreachable(detail) => {
                self.caution.fail(Duration::ZERO, Why::Unreachable(detail), now, wall);
            }
            ChannelEffect::Halt(SenderTrouble::Redirected, detail) => {
                self.caution.fail(REDIRECTED_RETRY, Why::Redirected(detail), now, wall);
            }
            ChannelEffect::Halt(trouble, detail) => {
                if let Door::Open { opened, .. } = &self.door {
                    let refused = Refused::new(opened.secrets.clone(), trouble, &detail, now);
                    // Read the Secret at once: it may have been changed already.
                    let (reason, message) = (reason_of(trouble), refused.message.clone());
                    self.door = Door::Closed { reason, message, again: now };
                    self.refused = Some(refused);
                }
            }
        }
    }

    /// Whether a message may start now, and if not, how long until that may change by itself.
    pub(super) fn may_send(
        &mut self,
        in_flight: usize,
        now: Instant,
        wall: Timestamp,
    ) -> Result<Way, Option<Duration>> {
        let Some(channel) = &self.channel else { return Err(None) };
        let provider = channel.spec.provider;
        if channel.spec.paused {
            return Err(None);
        }
        if let Some(rest) = self.caution.rest(now) {
            return Err(Some(rest.left(now)));
        }
        self.caution.end_rest(now);
        if let Some(until) = self.day_is_full(wall) {
            return Err(Duration::try_from(until.duration_since(wall)).ok());
        }
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
            _ => Ok(Way { gateway, door: self.door_number, rules: self.rules.clone(), provider }),
        }
    }

    /// Counts one message against the limits.
    pub(super) fn take(&mut self, now: Instant, wall: Timestamp) {
        self.adaptive.take(now);
        self.day.take(wall);
        if let Some(rate) = &mut self.rate {
            rate.take(now);
        }
    }

    /// Whether new claims make sense now.
    pub(super) fn is_open(&mut self, now: Instant, wall: Timestamp) -> bool {
        if self.day_is_full(wall).is_some() {
            return false;
        }
        let paused = self.channel.as_ref().is_none_or(|channel| channel.spec.paused);
        !paused && self.caution.rest(now).is_none() && matches!(self.door, Door::Open { .. })
    }

    /// Messages of about one second of work, or `unlimited` where there is no limit.
    pub(super) fn second_of_work(&self, unlimited: usize) -> usize {
        if self.caution.is_probing() {
            return 1;
        }
        let second = self.rate.as_ref().map_or(unlimited, RateLimit::per_second);
        // What the day has no room for is not claimed.
        second.min(self.room_of_day).max(1)
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
    pub(super) fn health(&mut self, is_busy: bool, now: Instant, wall: Timestamp) -> Health {
        // What a person has to settle comes first: the status is where the next process finds it.
        if let Some((trouble, message)) = &self.halted {
            return Health::Stalled(reason_of(*trouble), message.clone());
        }
        if let (Door::Closed { reason, message, .. }, Some(_)) = (&self.door, &self.refused) {
            return Health::Stalled(reason, message.clone());
        }
        if let Some(until) = self.day_is_full(wall).filter(|_| self.caution.rest(now).is_none()) {
            return Health::DayIsFull(until);
        }
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
                    format!("{detail}: put the address that it redirects to into the channel's url"),
                ),
            };
        }
        match &self.door {
            Door::Opening => Health::Opening,
            Door::Open { .. } => Health::Ready,
            Door::Closed { reason, message, .. } => Health::Stalled(reason, message.clone()),
        }
    }

    /// Messages that were sent, for the status.
    pub(super) fn day(&mut self) -> &mut DayCount {
        &mut self.day
    }

    fn configured_rate(&self) -> Option<u32> {
        let limit = self.channel.as_ref()?.spec.limits.messages_per_second?;
        u32::try_from(limit).ok()
    }

    /// Until when the limit of the day is used up.
    fn day_is_full(&mut self, wall: Timestamp) -> Option<Timestamp> {
        let limit = self.channel.as_ref()?.spec.limits.recipients_per_day;
        let Some(limit) = limit.and_then(|limit| u32::try_from(limit).ok()) else {
            self.room_of_day = usize::MAX;
            return None;
        };
        self.room_of_day = limit.saturating_sub(self.day.total(wall)) as usize;
        self.day.full_until(limit, wall)
    }

    fn max_in_flight(&self) -> usize {
        let limit = self.channel.as_ref().map_or(1, |channel| channel.spec.limits.max_in_flight);
        if self.caution.is_probing() { 1 } else { usize::try_from(limit).unwrap_or(1).max(1) }
    }

    fn limit_rate(&mut self, channel: &BroadcastChannel, now: Instant) {
        let burst = channel.spec.limits.burst.and_then(|burst| u32::try_from(burst).ok());
        let slowed = self.adaptive.rate(now);
        // A burst after the wait would be the next complaint.
        let burst = if slowed.is_some() { None } else { burst };
        let per_second = self.configured_rate().into_iter().chain(slowed).min();
        match (per_second, &mut self.rate) {
            (None, rate) => *rate = None,
            (Some(per_second), Some(rate)) => rate.set(per_second, burst, now),
            (Some(per_second), rate @ None) => *rate = Some(RateLimit::new(per_second, burst, now)),
        }
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
