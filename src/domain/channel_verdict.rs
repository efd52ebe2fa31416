//! What a channel's status says.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::Conditions;
use super::day_count::DayCount;
use crate::api::{BroadcastChannel, ChannelStatus};

/// Reason of Throttled when the channel's own limit of the day is used up.
pub const DAILY_LIMIT: &str = "DailyLimit";

/// Reason of Ready while nothing is known of the account yet.
pub const OPENING: &str = "Opening";

/// How an account stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Its settings and credentials are being read.
    Opening,
    /// It takes messages.
    Ready,
    /// The gateway asked to wait until this time.
    Throttled(Timestamp),
    /// The limit of the day is used up until this time.
    DayIsFull(Timestamp),
    /// It is tried again by itself, for this reason and with this message.
    Waiting(&'static str, String),
    /// It needs a person, for this reason and with this message.
    Stalled(&'static str, String),
}

/// The status to store.
#[must_use]
pub fn channel_status(
    channel: &BroadcastChannel,
    health: &Health,
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
        Health::Throttled(_) => {
            let message =
                "the gateway asked to wait; status.throttledUntil says how long; no chat fails by it";
            in_progress(conditions, "Throttled", message).with("Throttled", true, "RateLimited", message)
        }
        Health::DayIsFull(_) => {
            let message = "spec.limits.recipientsPerDay is used up; status.throttledUntil says until when; no chat fails by it";
            in_progress(conditions, DAILY_LIMIT, message).with("Throttled", true, DAILY_LIMIT, message)
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
    let throttled_until = match health {
        Health::Throttled(until) | Health::DayIsFull(until) => Some(Time(*until)),
        _ => None,
    };
    ChannelStatus {
        observed_generation: generation,
        conditions: conditions.build(),
        throttled_until,
        sent_last24_hours: Some(i32::try_from(sent.total(now)).unwrap_or(i32::MAX)),
        sent_by_hour: sent.stored(),
        active_broadcasts: i32::try_from(active).unwrap_or(i32::MAX),
    }
}

fn in_progress<'a>(conditions: Conditions<'a>, reason: &str, message: &str) -> Conditions<'a> {
    conditions.with("Ready", false, reason, message).with("Reconciling", true, reason, message)
}
