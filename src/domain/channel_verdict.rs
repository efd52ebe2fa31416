//! What a channel's status says.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::Conditions;
use super::day_count::DayCount;
use super::error_policy::still_stops;
use super::gateway_mark::GatewayMark;
use crate::api::{BroadcastChannel, ChannelStatus, ChannelStop, ConditionStatus, ErrorRule, ReportedTrouble};

/// Reason of Throttled when the channel's own limit of the day is used up.
pub const DAILY_LIMIT: &str = "DailyLimit";

/// Reason of Throttled when receipts say that the channel was too fast.
pub const RATE_LIMIT_REPORTED: &str = "RateLimitReported";

/// Reason of Ready while the provider has not said whether the credentials are good.
pub const NOT_VERIFIED: &str = "NotVerified";

/// Condition of a channel that takes no receipts, because a Secret for them cannot be used.
pub const RECEIPTS_REFUSED: &str = "ReceiptsRefused";

/// Reason of Ready while nothing is known of the account yet.
pub const OPENING: &str = "Opening";

/// How an account stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Its settings and credentials are being read.
    Opening,
    /// It takes messages.
    Ready,
    /// The provider was asked whether the credentials are good, and did not say, for this reason. Messages are sent all the same.
    NotVerified(String),
    /// The gateway asked to wait until this time.
    Throttled(Timestamp),
    /// Receipts say that it was too fast, and it waits until this time.
    TooFast(Timestamp),
    /// The limit of the day is used up until this time.
    DayIsFull(Timestamp),
    /// It is tried again by itself, for this reason and with this message.
    Waiting(&'static str, String),
    /// It needs a person, for this reason and with this message.
    Stalled(&'static str, String),
}

/// Everything that a status says of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// How it stands.
    pub health: Health,
    /// The end of the wait that the gateway asked for, while it runs: the next process has to keep it, whatever else is in the way.
    pub asked_until: Option<Timestamp>,
    /// Why the provider takes nothing, as the next process has to know it, whatever else is in the way.
    pub stop: Option<ChannelStop>,
    /// What receipts said of it and it has taken in: it has stopped for that, or has other credentials since.
    pub heeded: Option<ReportedTrouble>,
    /// When what receipts say of messages of before was settled, in whole seconds.
    pub settled: Option<Timestamp>,
    /// What all this belongs to.
    pub gateway: GatewayMark,
    /// Why receipts cannot be taken: a reason and a message.
    pub receipts: Option<(String, String)>,
}

/// The status to store.
#[must_use]
pub fn channel_status(
    channel: &BroadcastChannel,
    AccountState { health, asked_until, stop, heeded, settled, gateway, receipts }: &AccountState,
    active: usize,
    sent: &mut DayCount,
    now: Timestamp,
) -> ChannelStatus {
    let generation = channel.metadata.generation.unwrap_or_default();
    let previous = channel.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let conditions = Conditions::after(previous, generation, now);
    let paused = channel.spec.paused;
    let conditions = match health {
        _ if paused => conditions.with(
            "Ready",
            true,
            "Paused",
            "spec.paused is true: no Broadcast of this channel sends",
        ),
        Health::Ready => conditions.with("Ready", true, "Ready", "messages can be sent"),
        Health::Opening => in_progress(conditions, OPENING, "reading settings and credentials"),
        Health::NotVerified(detail) => {
            let message = format!(
                "the provider did not say whether the credentials are good ({detail}): it is asked again by itself, and messages are \
                 sent all the same"
            );
            conditions.with_status("Ready", ConditionStatus::Unknown, NOT_VERIFIED, &message)
        }
        Health::Throttled(until) => {
            let message = format!("the gateway asked to wait until {until}; no chat fails by it");
            throttled(conditions, "Throttled", "RateLimited", &message)
        }
        Health::TooFast(until) => {
            let message = format!(
                "receipts say that it was too fast: it waits until {until} and goes on slower; the chats of those receipts are Failed, \
                 the others stay Pending"
            );
            throttled(conditions, "Throttled", RATE_LIMIT_REPORTED, &message)
        }
        Health::DayIsFull(until) => {
            let message =
                format!("spec.limits.recipientsPerDay is used up until {until}; no chat fails by it");
            throttled(conditions, DAILY_LIMIT, DAILY_LIMIT, &message)
        }
        Health::Waiting(reason, message) => in_progress(conditions, reason, message),
        Health::Stalled(reason, message) => {
            conditions.with("Ready", false, reason, message).with("Stalled", true, reason, message)
        }
    };
    let conditions = conditions.with(
        "Suspended",
        paused,
        if paused { "Paused" } else { "NotPaused" },
        if paused { "spec.paused is true" } else { "spec.paused is false" },
    );
    let (refused, why) = receipts.as_ref().map_or(("", ""), |(reason, message)| (&**reason, &**message));
    let conditions = conditions.with_if(RECEIPTS_REFUSED, receipts.is_some(), refused, why).build();
    let before = channel.status.as_ref();
    // What was never read says nothing of the account: what is known of it counts on.
    let is_unknown = *health == Health::Opening && gateway.is_of_status(channel);
    let known = before.and_then(|status| status.stop.as_ref()).filter(|_| is_unknown);
    let stop = stop.as_ref().or(known);
    let throttled_until = match health {
        Health::Throttled(until) | Health::TooFast(until) => Some(*until),
        // The brake is what is in the way then, and the next process would take it for a wait that the gateway asked for.
        Health::DayIsFull(until) if !paused => Some(*until),
        _ => *asked_until,
    };
    let reported = before.and_then(|status| status.reported.as_ref());
    let reported = reported.and_then(|reported| reported.of_gateway(&GatewayMark::of(channel).digest));
    let rules = &channel.spec.error_policy;
    let reported = reported.filter(|it| is_still_reported(it, heeded.as_ref(), stop, rules, now));
    let told = before.and_then(|status| status.settled_time.clone());
    ChannelStatus {
        reported,
        settled_time: told.max(settled.map(Time)),
        observed_generation: generation,
        observed_gateway: (!gateway.digest.is_empty()).then(|| gateway.digest.clone()),
        try_again_token: gateway.try_again.clone(),
        stop: stop.cloned(),
        conditions,
        throttled_until: throttled_until.map(Time),
        messages_per_second: channel.spec.messages_per_second().and_then(|rate| i32::try_from(rate).ok()),
        sent_last24_hours: Some(i32::try_from(sent.total(now)).unwrap_or(i32::MAX)),
        sent_by_hour: sent.stored(now),
        active_broadcasts: i32::try_from(active).unwrap_or(i32::MAX),
    }
}

/// What receipts say stands there until the channel, which stopped for it, goes on, or somebody has changed its gateway: the next sender
/// must know as well that no answer will show it. That it was too fast stands there for a while: receipts of messages that went out
/// before it slowed down are measured by that.
fn is_still_reported(
    reported: &ReportedTrouble,
    heeded: Option<&ReportedTrouble>,
    stop: Option<&ChannelStop>,
    rules: &[ErrorRule],
    now: Timestamp,
) -> bool {
    let Some(trouble) = reported.reason.trouble() else { return !reported.is_stale(now) };
    let stands = heeded != Some(reported) || stop.is_some_and(|stop| stop.reason == reported.reason);
    stands && still_stops(rules, trouble, &reported.code)
}

fn in_progress<'a>(conditions: Conditions<'a>, reason: &str, message: &str) -> Conditions<'a> {
    conditions.with("Ready", false, reason, message).with("Reconciling", true, reason, message)
}

fn throttled<'a>(conditions: Conditions<'a>, state: &str, why: &str, message: &str) -> Conditions<'a> {
    in_progress(conditions, state, message).with("Throttled", true, why, message)
}

#[cfg(test)]
#[path = "channel_verdict_tests.rs"]
mod tests;
