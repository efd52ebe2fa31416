//! The sending account of a channel: its gateway, its credentials, its limits, and what keeps it from sending.

mod caution;
mod health;
mod limits;
mod lookups;
mod reading;
mod receipt_secrets;
mod refused;
mod reported;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::{BroadcastChannel, ErrorRule, ProviderName, ReportedTrouble};
use crate::domain::adaptive::AdaptiveRate;
use crate::domain::answer::{Answer, ChannelEffect, SenderTrouble};
use crate::domain::day_count::DayCount;
use crate::domain::error_policy::still_stops;
use crate::domain::gateway_mark::GatewayMark;
use crate::domain::rate::RateLimit;
use crate::providers::SecretDigest;
use crate::providers::gateway::Gateway;
use caution::{Caution, Why};
pub(super) use lookups::LookupRefused;
use reading::Look;
use receipt_secrets::ReceiptSecrets;
pub(super) use receipt_secrets::{Looked, look_at_receipt_secrets};
use refused::{Halted, Refusals, Refused};
use settings::is_same_gateway;
pub(super) use settings::{Opened, Trouble, Version, read};

/// A gateway that redirected is asked again after so long.
const REDIRECTED_RETRY: Duration = Duration::from_secs(60);

enum Door {
    /// Not read yet, or being read.
    Opening,
    Open {
        version: Version,
        opened: Opened,
        look: Look,
    },
    /// Cannot be used; looked at again at this time. No trouble: the provider refuses the credentials.
    Closed {
        trouble: Option<Trouble>,
        again: Instant,
    },
}

/// Counts the gateways and the credentials that an account has had. What an answer says, it says of those that its request went with, and
/// not of others that were put in since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DoorNumber {
    gateway: u64,
    credentials: u64,
}

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
    /// What waits and stops belong to.
    gateway: GatewayMark,
    door: Door,
    door_number: DoorNumber,
    /// The credentials that were read last. Answers to what is in flight speak of them, and so do receipts; what cannot be read now may
    /// still be these.
    credentials: Option<SecretDigest>,
    is_reading: bool,
    rate: Option<RateLimit>,
    adaptive: AdaptiveRate,
    /// When it was slowed down last because a limit was near.
    eased: Option<Instant>,
    day: DayCount,
    room_of_day: usize,
    rules: Arc<[ErrorRule]>,
    /// What an earlier process was told about the account: it counts for the first credentials that are read.
    halted: Option<Halted>,
    /// What receipts said of the account, once it has stopped for it, or has other credentials than it was said of.
    heeded: Option<ReportedTrouble>,
    /// When it was last settled, in whole seconds, what receipts say of messages of before: by other credentials or another gateway, by a
    /// person, or by the provider, asked.
    settled: Option<Timestamp>,
    /// The process before had credentials that the provider refused. Nobody knows whether those that open the door are others.
    may_have_others: bool,
    /// What the provider refuses to send with, and when to try it again all the same.
    refusals: Refusals,
    caution: Caution,
    /// Whether receipts can be checked.
    receipts: ReceiptSecrets,
}

impl Account {
    /// The account of a channel that has not been looked at.
    pub(super) fn new() -> Self {
        Self {
            channel: None,
            gateway: GatewayMark::default(),
            door: Door::Opening,
            door_number: DoorNumber::default(),
            credentials: None,
            is_reading: false,
            rate: None,
            adaptive: AdaptiveRate::default(),
            eased: None,
            day: DayCount::default(),
            room_of_day: usize::MAX,
            rules: Arc::default(),
            halted: None,
            heeded: None,
            settled: None,
            may_have_others: false,
            refusals: Refusals::default(),
            caution: Caution::default(),
            receipts: ReceiptSecrets::default(),
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
            // Each message looks here, and few of them see another version.
            Some(before) if !Arc::ptr_eq(&before, &channel) => self.follow(&before, &channel, now, wall),
            Some(_) => {}
        }
        self.heed(&channel, now, wall);
        self.limit_rate(&channel, now);
        self.caution.end_rest(now);
        self.wants_reading(&channel, now).then_some(channel)
    }

    /// The channel is gone, or is another one of the same name: nothing that was known of it counts any more.
    fn forget(&mut self) {
        let Self { door_number, is_reading, .. } = *self;
        *self = Self { door_number, is_reading, ..Self::new() };
        self.door_number.gateway += 1;
    }

    /// What the provider said outlives the process, unless the gateway was changed since: a wait that it asked for, and that it takes
    /// nothing before a person has settled something. What was sent counts in any case.
    fn take_up(&mut self, channel: &BroadcastChannel, now: Instant, wall: Timestamp) {
        self.gateway = GatewayMark::of(channel);
        let Some(status) = &channel.status else { return };
        self.day = DayCount::read(&status.sent_by_hour, wall);
        self.receipts.take_up(&status.conditions);
        let wait = health::wait_of(status);
        if status.stop.is_some() || wait.is_some() || health::was_in_trouble(&status.conditions) {
            // Also where it is over, or was with another gateway: else this process would spend a whole run of messages on what the one
            // before knew, or have all its requests refused.
            self.caution.probe();
        }
        if !self.gateway.is_of_status(channel) {
            if health::is_of_another_gateway(status) {
                self.settle_now(wall);
            }
            return;
        }
        if let Some((until, why)) = wait {
            self.caution.take_up(until, why, now, wall);
        }
        self.halted = refused::lasting(channel, &self.gateway.digest);
        self.may_have_others = self.halted.is_none() && refused::had_bad_credentials(channel);
        self.heeded = reported::taken_in(channel, &self.gateway.digest, wall);
    }

    /// The channel was changed, or its status was written.
    fn follow(&mut self, before: &BroadcastChannel, after: &BroadcastChannel, now: Instant, wall: Timestamp) {
        let is_another_spec = before.metadata.generation != after.metadata.generation;
        if is_another_spec {
            self.rules = after.spec.error_policy.clone().into();
            self.reconsider();
            self.receipts.forget_look();
        }
        let gateway = GatewayMark::of(after);
        let is_forgiven = gateway.digest != self.gateway.digest;
        if is_forgiven {
            self.forgive(wall);
        }
        self.gateway = gateway;
        let has_other_settings = is_another_spec && !is_same_gateway(before, after);
        match &mut self.door {
            Door::Open { .. } if has_other_settings => self.door = Door::Opening,
            Door::Closed { .. } if is_forgiven => self.door = Door::Opening,
            // What has closed it may be mended. Until that is seen, it is what the next process has to know.
            Door::Closed { again, .. } if is_another_spec => *again = now,
            _ => {}
        }
    }

    /// A person has changed the gateway, or wants to try again: whatever was wrong is tried anew, and what is in flight says nothing of
    /// it any more.
    fn forgive(&mut self, wall: Timestamp) {
        self.settle_now(wall);
        if self.refusals.clear() {
            self.caution.probe();
        }
        self.halted = None;
        self.may_have_others = false;
        self.heeded = None;
        self.caution.forgive();
        self.adaptive.forget();
        self.eased = None;
        self.door_number.gateway += 1;
    }

    /// Other rules of a person may say that what stopped the account is none.
    fn reconsider(&mut self) {
        let rules = &self.rules;
        let is_over = |halted: &mut Halted| !halted.still_stops(rules);
        if self.halted.take_if(is_over).is_some() | self.refusals.reconsider(&self.rules) {
            self.caution.probe();
        }
    }

    /// The answer to a request in the light of those before.
    pub(super) fn weigh(&mut self, door: DoorNumber, answer: Answer) -> Answer {
        if door == self.door_number { self.caution.weigh(answer) } else { answer }
    }

    /// Takes in what the answer to a request means for the account.
    pub(super) fn feel(&mut self, door: DoorNumber, effect: ChannelEffect, now: Instant, wall: Timestamp) {
        if matches!(effect, ChannelEffect::Unreachable(_)) {
            self.day.untake(wall);
        }
        // A wait that it asks for is that of the gateway, whatever became of the credentials.
        let counts = match effect {
            ChannelEffect::Throttle(_)
            | ChannelEffect::Uncertain { wait: Some(_), .. }
            | ChannelEffect::Unavailable { wait: Some(_), .. } => door.gateway == self.door_number.gateway,
            _ => door == self.door_number,
        };
        if !counts {
            return;
        }
        match effect {
            ChannelEffect::Working => self.works(),
            ChannelEffect::NearLimit => {
                self.works();
                self.ease(now);
            }
            ChannelEffect::Throttle(wait) => self.throttle(wait, Why::Throttled, now, wall),
            ChannelEffect::Unreachable(detail) => {
                if self.caution.rest(now).is_none() {
                    // It may be the certificates of its authority that were changed.
                    self.doubt_secrets();
                }
                self.caution.fail(Duration::ZERO, Why::Unreachable(detail), now, wall);
            }
            ChannelEffect::Uncertain { detail, wait } => {
                self.caution.doubt_gateway(Why::Uncertain(detail), wait, now, wall);
            }
            ChannelEffect::Unavailable { detail, wait } => {
                self.caution.doubt_gateway(Why::Unavailable(detail), wait, now, wall);
            }
            ChannelEffect::Halt { trouble: SenderTrouble::UnexpectedAnswer, detail, .. } => {
                self.caution.fail(Duration::ZERO, Why::Unexpected(detail), now, wall);
            }
            ChannelEffect::Halt { trouble: SenderTrouble::Redirected, detail, .. } => {
                self.caution.fail(REDIRECTED_RETRY, Why::Redirected(detail), now, wall);
            }
            // It was judged by rules that were changed since.
            ChannelEffect::Halt { trouble, code, .. } if !still_stops(&self.rules, trouble, &code) => {}
            ChannelEffect::Halt { trouble, code, detail } => {
                if let Some(credentials) = self.credentials {
                    self.close(Refused::new(credentials, trouble, (&code, &detail), now), now);
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
        if let Some(left) = self.settling(wall) {
            return Err(Some(left));
        }
        match self.rate.as_ref().map(|rate| rate.wait(now)) {
            Some(wait) if !wait.is_zero() => Err(Some(wait)),
            _ => Ok(Way { gateway, door: self.door_number, rules: self.rules.clone(), provider }),
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

    /// When to look at a closed door again.
    pub(super) fn wakes_in(&self, now: Instant) -> Option<Duration> {
        let door = match &self.door {
            Door::Closed { again, .. } if !self.is_reading => Some(again.saturating_duration_since(now)),
            _ => None,
        };
        let rest = self.caution.rest(now).map(|rest| rest.left(now));
        door.into_iter().chain(rest).filter(|wait| !wait.is_zero()).min()
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
