//! A set of conditions that replaces an earlier one: a transition time moves only when the status does.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{Condition, ConditionStatus};

/// Longest message of a condition, in characters.
const MAX_MESSAGE: usize = 1024;

/// Builds the next conditions of one object.
#[derive(Debug)]
pub struct Conditions<'a> {
    previous: &'a [Condition],
    generation: i64,
    now: Timestamp,
    next: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Starts from the conditions that stand there now.
    #[must_use]
    pub fn after(previous: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self { previous, generation, now, next: Vec::new() }
    }

    /// Adds one condition.
    #[must_use]
    pub fn with(self, type_: &str, holds: bool, reason: &str, message: &str) -> Self {
        let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
        self.with_status(type_, status, reason, message)
    }

    /// Adds one condition, of which it may not be known whether it holds.
    #[must_use]
    pub fn with_status(mut self, type_: &str, status: ConditionStatus, reason: &str, message: &str) -> Self {
        let unchanged = Condition::find(self.previous, type_).filter(|known| known.status == status);
        self.next.push(Condition {
            type_: type_.to_owned(),
            status,
            observed_generation: self.generation,
            last_transition_time: unchanged
                .map_or(Time(self.now), |known| known.last_transition_time.clone()),
            reason: reason.to_owned(),
            message: message.chars().take(MAX_MESSAGE).collect(),
        });
        self
    }

    /// Adds a condition that is present only while it holds.
    #[must_use]
    pub fn with_if(self, type_: &str, holds: bool, reason: &str, message: &str) -> Self {
        if holds { self.with(type_, true, reason, message) } else { self }
    }

    /// The conditions, as they are to be stored.
    #[must_use]
    pub fn build(self) -> Vec<Condition> {
        self.next
    }
}
