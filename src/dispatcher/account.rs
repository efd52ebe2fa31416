//! The sending account of a channel: its gateway, its credentials, its limits, and what keeps it from sending.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::Context;
use crate::api::{BroadcastChannel, KeyRef};
use crate::cluster::within;
use crate::domain::answer::{ChannelEffect, SenderTrouble};
use crate::domain::channel_verdict::Health;
use crate::domain::ids::ObjectKey;
use crate::domain::rate::RateLimit;
use crate::providers::gateway::Gateway;

/// How often a Secret is looked at while its content keeps the channel from sending.
const SECRET_POLL: Duration = Duration::from_secs(2);
/// A gateway that refused the same credentials is asked again after so long: an account can be unlocked over there.
const REFUSED_RETRY: Duration = Duration::from_secs(300);
/// A gateway that redirected is asked again after so long.
const REDIRECTED_RETRY: Duration = Duration::from_secs(60);
/// First and longest wait after a gateway could not be reached, or asked to wait without saying how long.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Settings and credentials, read.
pub(super) struct Opened {
    pub(super) generation: i64,
    pub(super) gateway: Gateway,
    token: Option<String>,
}

/// Why settings or credentials cannot be used.
pub(super) struct Trouble {
    reason: &'static str,
    message: String,
}

impl Trouble {
    /// The reading itself came to no end.
    pub(super) fn interrupted() -> Self {
        Self {
            reason: "Interrupted",
            message: "reading the channel's settings was interrupted, trying again".into(),
        }
    }
}

enum Door {
    /// Not read yet, or being read.
    Opening,
    Open(Opened),
    /// Cannot be used; looked at again at this time.
    Closed {
        reason: &'static str,
        message: String,
        again: Instant,
    },
}

/// The account of one channel.
pub(super) struct Account {
    channel: Option<std::sync::Arc<BroadcastChannel>>,
    door: Door,
    is_reading: bool,
    rate: Option<RateLimit>,
    /// Credentials that the gateway refused, and when to try them again all the same.
    refused: Option<(Option<String>, Instant)>,
    rest: Option<Rest>,
    failures: u32,
    /// One message at a time, to see whether the gateway takes messages again.
    is_probing: bool,
}

/// A wait that ends by itself.
struct Rest {
    ends: Instant,
    until: Timestamp,
    why: Why,
}

enum Why {
    Throttled,
    Unreachable(String),
    Redirected(String),
}

impl Account {
    /// The account of a channel that has not been looked at.
    pub(super) fn new() -> Self {
        Self {
            channel: None,
            door: Door::Opening,
            is_reading: false,
            rate: None,
            refused: None,
            rest: None,
            failures: 0,
            is_probing: false,
        }
    }

    /// Takes in the channel as it is now. Returns it when its settings have to be read.
    pub(super) fn observe(
        &mut self,
        channel: Option<std::sync::Arc<BroadcastChannel>>,
        now: Instant,
        wall: Timestamp,
    ) -> Option<std::sync::Arc<BroadcastChannel>> {
        let before = self.channel.take();
        self.channel = channel;
        let channel = self.channel.clone()?;
        let first = before.is_none();
        if before.is_some_and(|before| before.metadata.generation != channel.metadata.generation) {
            self.forgive(now);
        }
        self.limit_rate(&channel, now);
        if first
            && let Some(until) = channel.status.as_ref().and_then(|status| status.throttled_until.as_ref())
        {
            // A wait that the gateway asked for outlives the process.
            self.rest_until(until.0, Why::Throttled, now, wall);
        }
        let generation = channel.metadata.generation.unwrap_or_default();
        let wants_reading = match &self.door {
            Door::Opening => true,
            Door::Open(opened) => opened.generation != generation,
            Door::Closed { again, .. } => now >= *again,
        };
        if !wants_reading || self.is_reading {
            return None;
        }
        self.is_reading = true;
        Some(channel)
    }

    /// Takes in settings and credentials.
    pub(super) fn open(&mut self, read: Result<Opened, Trouble>, now: Instant) {
        self.is_reading = false;
        self.door = match read {
            Ok(opened) if self.still_refuses(&opened, now) => Door::Closed {
                reason: "AuthenticationFailed",
                message: auth_message(),
                again: now + SECRET_POLL,
            },
            Ok(opened) => {
                if self.refused.take().is_some() {
                    self.is_probing = true;
                }
                Door::Open(opened)
            }
            Err(Trouble { reason, message }) => Door::Closed { reason, message, again: now + SECRET_POLL },
        };
    }

    /// The spec was changed: whatever was wrong with the old one is tried anew. A wait that the gateway asked for stays.
    fn forgive(&mut self, now: Instant) {
        self.refused = None;
        if self.rest.as_ref().is_some_and(|rest| !matches!(rest.why, Why::Throttled)) {
            self.rest = None;
        }
        if let Door::Closed { again, .. } = &mut self.door {
            *again = now;
        }
    }

    fn still_refuses(&self, opened: &Opened, now: Instant) -> bool {
        self.refused.as_ref().is_some_and(|(token, again)| *token == opened.token && now < *again)
    }

    /// Takes in what an answer means for the account.
    pub(super) fn feel(&mut self, effect: ChannelEffect, now: Instant, wall: Timestamp) {
        match effect {
            ChannelEffect::None => {}
            ChannelEffect::Working => {
                self.failures = 0;
                self.is_probing = false;
            }
            ChannelEffect::Throttle(wait) => {
                let wait = wait.unwrap_or_else(|| self.backoff());
                self.rest_for(wait, Why::Throttled, now, wall);
            }
            ChannelEffect::Unreachable(detail) => {
                let wait = self.backoff();
                self.rest_for(wait, Why::Unreachable(detail), now, wall);
            }
            ChannelEffect::Halt(SenderTrouble::Redirected, detail) => {
                self.rest_for(REDIRECTED_RETRY, Why::Redirected(detail), now, wall);
            }
            ChannelEffect::Halt(SenderTrouble::AuthenticationFailed, _) => {
                if let Door::Open(opened) = &self.door {
                    self.refused = Some((opened.token.clone(), now + REFUSED_RETRY));
                    // Read the Secret at once: it may have been changed already.
                    self.door =
                        Door::Closed { reason: "AuthenticationFailed", message: auth_message(), again: now };
                }
            }
        }
    }

    /// Whether a message may start now, and if not, how long until that may change by itself.
    pub(super) fn may_send(&mut self, in_flight: usize, now: Instant) -> Result<Gateway, Option<Duration>> {
        let Some(channel) = &self.channel else { return Err(None) };
        if channel.spec.paused {
            return Err(None);
        }
        if let Some(rest) = &self.rest {
            if now < rest.ends {
                return Err(Some(rest.ends - now));
            }
            self.rest = None;
            self.is_probing = true;
        }
        let gateway = match &self.door {
            Door::Opening => return Err(None),
            Door::Closed { again, .. } => return Err(Some(again.saturating_duration_since(now))),
            Door::Open(opened) => opened.gateway.clone(),
        };
        if in_flight >= self.max_in_flight() {
            return Err(None);
        }
        match self.rate.as_ref().map(|rate| rate.wait(now)) {
            Some(wait) if !wait.is_zero() => Err(Some(wait)),
            _ => Ok(gateway),
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
        let resting = self.rest.as_ref().is_some_and(|rest| now < rest.ends);
        !paused && !resting && matches!(self.door, Door::Open(_))
    }

    /// Messages of about one second of work, or `unlimited` where there is no limit.
    pub(super) fn second_of_work(&self, unlimited: usize) -> usize {
        if self.is_probing {
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
        let rest = self.rest.as_ref().map(|rest| rest.ends.saturating_duration_since(now));
        door.into_iter().chain(rest).filter(|wait| !wait.is_zero()).min()
    }

    /// How the account stands, for its status.
    pub(super) fn health(&self, now: Instant) -> Health {
        if let Some(rest) = self.rest.as_ref().filter(|rest| now < rest.ends) {
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
            Door::Open(_) => Health::Ready,
            Door::Closed { reason, message, .. } => Health::Stalled(reason, message.clone()),
        }
    }

    fn max_in_flight(&self) -> usize {
        let limit = self.channel.as_ref().map_or(1, |channel| channel.spec.limits.max_in_flight);
        if self.is_probing { 1 } else { usize::try_from(limit).unwrap_or(1).max(1) }
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

    fn backoff(&mut self) -> Duration {
        let wait = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(6)).min(LONGEST_BACKOFF);
        self.failures += 1;
        wait
    }

    fn rest_until(&mut self, until: Timestamp, why: Why, now: Instant, wall: Timestamp) {
        if let Ok(wait) = Duration::try_from(until.duration_since(wall)) {
            self.rest_for(wait, why, now, wall);
        }
    }

    /// Several requests in flight may each bring a wait: the longest one counts.
    fn rest_for(&mut self, wait: Duration, why: Why, now: Instant, wall: Timestamp) {
        let ends = now + wait;
        if self.rest.as_ref().is_none_or(|rest| rest.ends < ends) {
            let until = wall.saturating_add(SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX));
            self.rest = Some(Rest { ends, until: until.unwrap_or(Timestamp::MAX), why });
        }
    }
}

fn auth_message() -> String {
    "the gateway refused the credentials: put a valid token into the Secret of spec.http.tokenSecretRef; sending goes on by \
     itself then, and no chat fails by it"
        .into()
}

/// Reads settings and credentials of a channel.
pub(super) async fn read(
    context: &Context,
    key: &ObjectKey,
    channel: &BroadcastChannel,
) -> Result<Opened, Trouble> {
    let http = channel.spec.http.as_ref().ok_or_else(|| Trouble {
        reason: "InvalidSpec",
        message: "provider HTTP needs spec.http with the url of the gateway".into(),
    })?;
    let token = match &http.token_secret_ref {
        Some(reference) => Some(secret_value(context, &key.namespace, reference).await?),
        None => None,
    };
    let gateway = Gateway::new(http, token.as_deref(), &context.addresses)
        .map_err(|error| Trouble { reason: error.category(), message: error.to_string() })?;
    Ok(Opened { generation: channel.metadata.generation.unwrap_or_default(), gateway, token })
}

async fn secret_value(context: &Context, namespace: &str, reference: &KeyRef) -> Result<String, Trouble> {
    let KeyRef { name, key } = reference;
    let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let secret = within(api.get(name)).await.map_err(|error| match error.is_not_found() {
        true => Trouble {
            reason: "SecretNotFound",
            message: format!("Secret {name} does not exist: create it with key {key}"),
        },
        false => {
            Trouble { reason: "SecretUnreadable", message: format!("failed to read Secret {name}: {error}") }
        }
    })?;
    let value = secret.data.as_ref().and_then(|data| data.get(key)).ok_or_else(|| Trouble {
        reason: "SecretKeyNotFound",
        message: format!("Secret {name} has no key {key}: add it"),
    })?;
    let text = std::str::from_utf8(&value.0).map_err(|_| Trouble {
        reason: "InvalidToken",
        message: format!("key {key} of Secret {name} is not text"),
    })?;
    Ok(text.trim().to_owned())
}
