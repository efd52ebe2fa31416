//! Status of a `Broadcast`: computed from its pages, written by the operator alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, LocalRef, MessageContent, ObjectRef, ProviderName};

/// What became of a Broadcast.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BroadcastStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready, Complete and Suspended; Reconciling, Stalled and `RestartRefused` while True. Complete=True: every chat has its
    /// outcome, and nothing more is sent. Suspended=True: stopped, with nothing in flight. Stalled=True: it needs a person,
    /// and the message says for what. `RestartRefused`=True: the restart that the annotation asks for cannot be made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// Chats in the audience, bad and duplicate rows included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub total: Option<i32>,
    /// Messages that the gateway took, of the total, as `320/1200`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// How many chats have which outcome. Each chat is in exactly one count; together they are `total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// Delivered messages (read ones included), in percent of those that the gateway took, rounded down. A message that the gateway took,
    /// gave an id and then reported as failed is one of those. Absent where the channel gets no receipts, and before the first message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub delivered_percent: Option<i32>,
    /// Read messages, in percent of those that the gateway took, rounded down. Absent as `deliveredPercent` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub read_percent: Option<i32>,
    /// Outcome per chat: all chats while there are at most 200, else the failed and unknown ones first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), extend("x-kubernetes-list-type" = "atomic"))]
    pub outcomes: Vec<ChatOutcome>,
    /// True when `outcomes` leaves chats out; the batches have them all.
    #[serde(default)]
    pub outcomes_truncated: bool,
    /// Pages of the log, and how many of them have no chat left to send to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<BatchProgress>,
    /// When the audience was sealed and sending could begin. From then on message, recipients, channelRef and
    /// restartFrom are fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the last chat got its outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Digest of the planned audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub audience_digest: Option<String>,
    /// Channel and message that are sent: the spec's own, or for a restart those taken from the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// The Broadcast whose chats this one took over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_from: Option<ObjectRef>,
    /// Value of the annotation `broadcast-operator.dev/restart` that was followed last: the same value makes no second restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub restart_token: Option<String>,
    /// The process that threw away batches of an earlier plan last, as a random id. Writing it ends every plan of another process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub planned_by: Option<String>,
    /// What this Broadcast is held for until a person decides: nothing is sent. Absent: it is not held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
    /// Token of the hold that was accepted last, by the annotation `broadcast-operator.dev/accept-restored`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub accepted_token: Option<String>,
    /// Token of the last restore of the whole cluster that was accepted for this Broadcast, by the same annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub accepted_restore: Option<String>,
    /// Why it stopped by itself before its end: nothing more is sent until its spec is changed. Absent: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopStatus>,
    /// When it went on last after it had stopped by itself. Receipts of messages that were sent before stop nothing again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_time: Option<Time>,
    /// The Broadcast that took over this one's chats. This one sends nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_by: Option<ObjectRef>,
    /// The restart that closed batches of this one and was deleted before it began: another one may take its chats. Absent, with
    /// closed batches and without `restartedBy`: who has its chats was forgotten, and no restart may take them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_back_by: Option<ObjectRef>,
    /// This Broadcast in its chain of restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

/// Why a Broadcast stopped by itself.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StopStatus {
    /// Why.
    pub reason: StopReason,
    /// The provider's error code, or the operator's own where the provider was not asked.
    #[schemars(length(max = 64))]
    pub code: String,
    /// What the provider said, or what is wrong, cut to 160 bytes.
    #[serde(default)]
    #[schemars(length(max = 160))]
    pub message: String,
    /// Generation of the spec that it stopped with: a changed spec goes on.
    pub observed_generation: i64,
}

/// Why a Broadcast stopped by itself.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum StopReason {
    /// The provider cannot send this message to anybody: its template is missing, paused or does not fit.
    TemplateUnavailable,
    /// The channel has no such message, so the provider was not asked: the channel was changed since the Broadcast began.
    MessageNotSupported,
    /// A rule of the channel's `spec.errorPolicy` says so.
    ErrorPolicy,
    /// The first messages all failed in the same way.
    FirstMessagesFailed,
    /// The last messages all failed with the same code, which the operator does not know.
    UnknownErrors,
}

/// What a Broadcast is held for.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HoldStatus {
    /// Why.
    pub reason: HoldReason,
    /// Value of the annotation `broadcast-operator.dev/accept-restored` that accepts it.
    #[schemars(length(max = 64))]
    pub token: String,
    /// How many chats at least are affected, where that may grow while a backup is being restored. When it grows, the token
    /// changes: nobody accepts more than was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chats: Option<i32>,
}

/// Why a Broadcast is held: it, its log or the cluster was restored or recreated.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum HoldReason {
    /// Batches of an earlier Broadcast of this name were there when this one was planned.
    PagesOfAnotherBroadcast,
    /// Its batches have outcomes, and its own status is gone.
    StatusLost,
    /// Batches of it are gone, or cannot be read.
    BatchesMissing,
    /// Its batches know less than they did before.
    BatchesWentBack,
    /// The whole cluster was put back to a backup.
    ClusterRestored,
}

/// How many chats have which outcome.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Not sent yet.
    #[schemars(range(min = 0))]
    pub pending: i32,
    /// Being sent right now.
    #[schemars(range(min = 0))]
    pub sending: i32,
    /// Taken by the gateway, no receipt yet.
    #[schemars(range(min = 0))]
    pub sent: i32,
    /// Delivered to the recipient's device.
    #[schemars(range(min = 0))]
    pub delivered: i32,
    /// Read by the recipient.
    #[schemars(range(min = 0))]
    pub read: i32,
    /// Surely not delivered.
    #[schemars(range(min = 0))]
    pub failed: i32,
    /// Perhaps sent, perhaps not: a time-out, a reset connection or a crash left no answer.
    #[schemars(range(min = 0))]
    pub unknown: i32,
    /// Never tried on purpose: a chat that is invalid, repeated or suppressed.
    #[schemars(range(min = 0))]
    pub skipped: i32,
    /// Never sent, and no longer to be sent by this Broadcast: a restart took the chat over.
    #[schemars(range(min = 0))]
    pub cancelled: i32,
}

/// Outcome of one chat.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ChatOutcome {
    /// Phone number or chat id.
    #[schemars(length(max = 128))]
    pub chat: String,
    /// What became of its message.
    pub outcome: OutcomeName,
    /// When that became known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Tries so far.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempts: i32,
    /// The gateway's id of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub message_id: Option<String>,
    /// Why it failed, is unknown or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<OutcomeError>,
    /// Of a group: how many of its participants have the message, where the provider tells them apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participants: Option<ParticipantCounts>,
}

/// Participants of a group that have its message: those that the provider has told of, at most 16.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantCounts {
    /// How many have it. Those who have read it are among them.
    #[schemars(range(min = 0))]
    pub delivered: i32,
    /// How many have read it.
    #[schemars(range(min = 0))]
    pub read: i32,
}

/// Outcome of a chat, weakest evidence first.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutcomeName {
    /// Not sent yet.
    Pending,
    /// Never tried on purpose.
    Skipped,
    /// Never sent, and taken over by a restart.
    Cancelled,
    /// Perhaps sent, perhaps not.
    Unknown,
    /// Taken by the gateway.
    Sent,
    /// Surely not delivered.
    Failed,
    /// Delivered.
    Delivered,
    /// Read.
    Read,
}

/// Why a chat has no message.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeError {
    /// The gateway's error code, or a word of the operator's own.
    #[schemars(length(max = 64))]
    pub code: String,
    /// What the gateway said, cut to 160 bytes.
    #[serde(default)]
    #[schemars(length(max = 160))]
    pub message: String,
}

/// Pages of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BatchProgress {
    /// Pages in all.
    #[schemars(range(min = 0))]
    pub total: i32,
    /// Pages with no chat left to send to.
    #[schemars(range(min = 0))]
    pub done: i32,
}

/// What is sent through which channel.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// The channel.
    pub channel_ref: LocalRef,
    /// Its provider when the audience was sealed: its chats are those of this provider, and go to no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderName>,
    /// The message.
    pub message: MessageContent,
}

/// A chain of restarts, seen from one of its members.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// Name of the first Broadcast of the chain.
    #[schemars(length(max = 253))]
    pub root: String,
    /// Restarts between the first one and this one.
    #[schemars(range(min = 0))]
    pub depth: i32,
    /// Chats of the first one.
    #[schemars(range(min = 0))]
    pub total: i32,
    /// Chats that the chain has reached up to and including this Broadcast.
    #[schemars(range(min = 0))]
    pub reached: i32,
}
