//! Conditions in the form that kstatus, `kubectl wait`, Flux and Argo CD read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One aspect of an object's state.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Aspect, in `CamelCase`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 64))]
    pub type_: String,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// Generation of the spec that this condition speaks of.
    pub observed_generation: i64,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// Why, as one `CamelCase` word, for programs.
    #[schemars(length(min = 1, max = 128))]
    pub reason: String,
    /// Why, and what to do, for people.
    #[schemars(length(max = 2048))]
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known whether it holds.
    Unknown,
}

impl Condition {
    /// The condition of this type, if the list has it.
    #[must_use]
    pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
        conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether the list has this condition as True.
    #[must_use]
    pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
        Self::find_true(conditions, type_).is_some()
    }

    /// The condition of this type, if the list has it as True.
    #[must_use]
    pub fn find_true<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
        Self::find(conditions, type_).filter(|condition| condition.status == ConditionStatus::True)
    }
}
