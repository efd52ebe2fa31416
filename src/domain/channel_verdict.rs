//! What a channel's status says.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::Conditions;
use super::day_count::DayCount;
use crate::api::{BroadcastChannel, ChannelStatus, Condition, TroubleReason};

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

/// Everything that a status says of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// How it stands.
    pub health: Health,
    /// The end of the wait that the gateway asked for, while it runs: the next process has to keep it, whatever else is in the way.
    pub asked_until: Option<Timestamp>,
}

/// The status to store.
#[must_use]
pub fn channel_status(
    channel: &BroadcastChannel,
    AccountState { health, asked_until }: &AccountState,
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
        Health::Throttled(until) | Health::DayIsFull(until) => Some(*until),
        _ => *asked_until,
    };
    // What receipts say stands there until the channel, which stopped for it, goes on, or somebody has changed its spec: the next sender
    // must know as well that no answer will show it. That it was too fast stands there for a while: receipts of messages that went
    // out before it slowed down are measured by that.
    let stalled_for = |conditions: &[Condition], reason: &str| {
        Condition::is_true(conditions, "Stalled")
            && Condition::find(conditions, "Stalled").is_some_and(|stalled| stalled.reason == reason)
    };
    let conditions = conditions.build();
    let before = channel.status.as_ref();
    let reported = channel.status.as_ref().and_then(|status| status.reported.clone());
    let reported = reported.filter(|reported| {
        let is_taken_in = match reported.reason {
            TroubleReason::RateLimited => reported.is_stale(now),
            reason => {
                before.is_some_and(|status| stalled_for(&status.conditions, reason.as_str()))
                    && !stalled_for(&conditions, reason.as_str())
            }
        };
        reported.observed_generation == generation && !is_taken_in
    });
    let was_stalled = before.is_some_and(|status| Condition::is_true(&status.conditions, "Stalled"));
    let is_settled = was_stalled && !matches!(health, Health::Stalled(..));
    let settled_time =
        if is_settled { Some(Time(now)) } else { before.and_then(|status| status.settled_time.clone()) };
    ChannelStatus {
        reported,
        settled_time,
        observed_generation: generation,
        conditions,
        throttled_until: throttled_until.map(Time),
        messages_per_second: channel.spec.messages_per_second().and_then(|rate| i32::try_from(rate).ok()),
        sent_last24_hours: Some(i32::try_from(sent.total(now)).unwrap_or(i32::MAX)),
        sent_by_hour: sent.stored(),
        active_broadcasts: i32::try_from(active).unwrap_or(i32::MAX),
    }
}

fn in_progress<'a>(conditions: Conditions<'a>, reason: &str, message: &str) -> Conditions<'a> {
    conditions.with("Ready", false, reason, message).with("Reconciling", true, reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BroadcastChannelSpec, ProviderName, ReportedTrouble};

    fn state(health: &Health) -> AccountState {
        AccountState { health: health.clone(), asked_until: None }
    }

    #[test]
    fn what_receipts_report_stands_there_until_the_channel_goes_on_after_it() {
        let mut channel = BroadcastChannel::new("sms", BroadcastChannelSpec::of(ProviderName::Http));
        channel.metadata.generation = Some(1);
        channel.status.get_or_insert_default().reported = Some(ReportedTrouble {
            reason: TroubleReason::AccountRestricted,
            code: "131031".into(),
            message: String::new(),
            observed_generation: 1,
            time: Time(Timestamp::UNIX_EPOCH),
        });
        let mut is_there_with = |generation, health: &Health| {
            channel.metadata.generation = Some(generation);
            let status =
                channel_status(&channel, &state(health), 0, &mut DayCount::default(), Timestamp::UNIX_EPOCH);
            let is_there = status.reported.is_some();
            channel.status =
                Some(ChannelStatus { reported: channel.status.take().and_then(|s| s.reported), ..status });
            is_there
        };
        assert!(is_there_with(1, &Health::Ready));
        assert!(is_there_with(1, &Health::Stalled("AuthenticationFailed", String::new())));
        assert!(is_there_with(1, &Health::Ready), "it stopped for something else");
        assert!(is_there_with(1, &Health::Stalled("AccountRestricted", String::new())));
        assert!(is_there_with(1, &Health::Stalled("AccountRestricted", String::new())));
        assert!(!is_there_with(1, &Health::Ready));
        assert!(!is_there_with(2, &Health::Ready));
    }

    #[test]
    fn that_it_was_too_fast_stands_there_for_some_minutes() {
        let mut channel = BroadcastChannel::new("sms", BroadcastChannelSpec::of(ProviderName::WhatsApp));
        channel.metadata.generation = Some(1);
        channel.status.get_or_insert_default().reported = Some(ReportedTrouble {
            reason: TroubleReason::RateLimited,
            code: "130429".into(),
            message: String::new(),
            observed_generation: 1,
            time: Time(Timestamp::UNIX_EPOCH),
        });
        for (second, expected) in [(0, true), (300, true), (301, false)] {
            let now = Timestamp::from_second(second).expect("small");
            for health in [Health::Ready, Health::Throttled(now)] {
                let status = channel_status(&channel, &state(&health), 0, &mut DayCount::default(), now);
                assert_eq!(status.reported.is_some(), expected, "{second} s, {health:?}");
            }
        }
    }

    #[test]
    fn the_status_has_the_limit_that_counts() {
        let status = |provider, limit| {
            let mut channel = BroadcastChannel::new("sms", BroadcastChannelSpec::of(provider));
            channel.spec.limits.messages_per_second = limit;
            let (mut sent, now) = (DayCount::default(), Timestamp::UNIX_EPOCH);
            channel_status(&channel, &state(&Health::Ready), 0, &mut sent, now).messages_per_second
        };
        assert_eq!(status(ProviderName::WhatsApp, None), Some(80));
        assert_eq!(status(ProviderName::WhatsApp, Some(20)), Some(20));
        assert_eq!(status(ProviderName::Http, None), None);
    }
}
