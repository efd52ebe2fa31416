//! `Broadcast`: one bulk send. People write the spec; the operator writes the status.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};

use super::{BroadcastStatus, KeyRef, LocalRef, MessageContent};

/// What to send, to whom, and how fast.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "broadcast-operator.dev",
    version = "v1alpha1",
    kind = "Broadcast",
    plural = "broadcasts",
    shortname = "bc",
    category = "broadcasts",
    namespaced,
    status = "BroadcastStatus",
    doc = "One bulk send: a message, its recipients, and the outcome of every chat. Stop it with spec.paused; send again \
           to the chats that failed with a new Broadcast that has spec.restartFrom.",
    derive = "PartialEq",
    selectable = ".spec.paused",
    printcolumn(name = "State", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Sent", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Delivered%", type_ = "integer", json_path = ".status.deliveredPercent"),
    printcolumn(name = "Read%", type_ = "integer", json_path = ".status.readPercent"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counts.failed"),
    printcolumn(name = "Unknown", type_ = "integer", json_path = ".status.counts.unknown"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Channel", type_ = "string", json_path = ".status.resolved.channelRef.name", priority = 1),
    printcolumn(name = "Restarted-From", type_ = "string", json_path = ".spec.restartFrom.name", priority = 1),
    printcolumn(
        name = "Restart-Refused",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"RestartRefused\")].reason",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.size() <= 57")
        .message("the name of a Broadcast may have at most 57 characters: its batches are named after it"),
    validation = Rule::new("!has(self.spec.restartFrom) || self.spec.restartFrom.name != self.metadata.name")
        .message("a Broadcast cannot restart itself: give the new Broadcast another name"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.startTime) || (has(self.spec.message) == has(oldSelf.spec.message) \
         && (!has(self.spec.message) || self.spec.message == oldSelf.spec.message))"
    )
    .message(
        "message may not change once sending began: stop this Broadcast with spec.paused, then apply a new Broadcast \
         with spec.restartFrom and the corrected message"
    ),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.startTime) || (has(self.spec.recipients) == \
         has(oldSelf.spec.recipients) && (!has(self.spec.recipients) || self.spec.recipients == oldSelf.spec.recipients))"
    )
    .message("recipients may not change once sending began: apply a new Broadcast for the other recipients"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.startTime) || (has(self.spec.channelRef) == \
         has(oldSelf.spec.channelRef) && (!has(self.spec.channelRef) || self.spec.channelRef == oldSelf.spec.channelRef))"
    )
    .message(
        "channelRef may not change once sending began: stop this Broadcast, then apply a new one with spec.restartFrom \
         and the other channel"
    ),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.startTime) || (has(self.spec.restartFrom) == \
         has(oldSelf.spec.restartFrom) && (!has(self.spec.restartFrom) || self.spec.restartFrom == \
         oldSelf.spec.restartFrom))"
    )
    .message("restartFrom may not change once sending began: apply a new Broadcast"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.startTime) || (has(self.spec.campaignKey) == \
         has(oldSelf.spec.campaignKey) && (!has(self.spec.campaignKey) || self.spec.campaignKey == \
         oldSelf.spec.campaignKey))"
    )
    .message("campaignKey may not change once sending began: apply a new Broadcast")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.restartFrom) || has(self.recipients)")
    .message("recipients is missing: give chats, csv or from (or restartFrom, to send again to what failed elsewhere)"))]
#[x_kube(validation = Rule::new("!(has(self.restartFrom) && has(self.recipients))")
    .message("a restart takes its recipients from the source: remove recipients, or remove restartFrom"))]
#[x_kube(validation = Rule::new("has(self.restartFrom) || has(self.channelRef)")
    .message("channelRef is missing: name the BroadcastChannel to send through"))]
#[x_kube(validation = Rule::new("has(self.restartFrom) || has(self.message)")
    .message("message is missing: give message.text, message.template or message.media"))]
#[x_kube(validation = Rule::new("!(has(self.restartFrom) && has(self.campaignKey))")
    .message("a restart belongs to the campaign of its source: remove campaignKey"))]
#[x_kube(validation = Rule::new("has(self.campaignKey) || !has(self.campaignRetentionSeconds)")
    .message("campaignRetentionSeconds needs campaignKey"))]
pub struct BroadcastSpec {
    /// The `BroadcastChannel` to send through. A restart may leave it out: then it is the source's channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_ref: Option<LocalRef>,
    /// What to send. A restart may leave it out: then it is the source's message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageContent>,
    /// To whom. Must be absent with `restartFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Recipients>,
    /// True stops at once: no further request starts, those in flight are finished and recorded. False goes on where
    /// it stopped. Leave it out of manifests kept in Git, so that a stop by hand is not undone.
    #[serde(default)]
    pub paused: bool,
    /// Makes this Broadcast a restart: it goes to the chats of the source that failed or were never reached, and to
    /// nobody else. It waits until the source is complete, or stopped with nothing in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_from: Option<RestartFrom>,
    /// Speed of this Broadcast. The channel's own limits hold as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pacing: Option<Pacing>,
    /// When to try again what the gateway surely did not take.
    #[serde(default)]
    pub retry: Retry,
    /// What to do with chats whose message may or may not have been sent (a time-out, a connection reset, a crash).
    #[serde(default)]
    pub on_unknown: OnUnknown,
    /// Delete this Broadcast and its log so many seconds after it is complete. Absent: keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Name of the campaign: of all Broadcasts of this namespace with the same key only one is sent, also when it is
    /// deleted and applied again. The key is kept in a `BroadcastCampaign`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub campaign_key: Option<String>,
    /// Seconds that the key is kept once this Broadcast is deleted, by the clock of the API server. Absent: 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub campaign_retention_seconds: Option<i32>,
}

/// The audience: exactly one of `chats`, `csv` and `from`.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.chats), has(self.csv), has(self.from)].filter(x, x).size() == 1")
    .message("give exactly one of chats, csv and from"))]
pub struct Recipients {
    /// Chats, one by one. For more than 1,000 use `csv` or `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), extend("x-kubernetes-list-type" = "atomic"))]
    pub chats: Option<Vec<Chat>>,
    /// CSV text with a header, in which one column, `chat`, `id` or `phone`, holds the chat and every other column is a
    /// parameter; or one chat per line. At most about 250 KB with `kubectl apply`, 1 MiB with
    /// `kubectl apply --server-side`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_048_576))]
    pub csv: Option<String>,
    /// Sources to read CSV text from, joined in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub from: Option<Vec<Source>>,
}

/// One recipient.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// Phone number or chat id. Quote it: an unquoted number is no string in YAML.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// Parameters for the message, as strings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "params_schema")]
    pub params: BTreeMap<String, String>,
}

/// A place that holds an audience as CSV text: exactly one of its fields.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.configMapRef) != has(self.secretRef)")
    .message("give exactly one of configMapRef and secretRef"))]
pub struct Source {
    /// A key of a `ConfigMap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<KeyRef>,
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyRef>,
}

/// Which chats of which Broadcast to send to again.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestartFrom {
    /// Name of the source Broadcast, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// UID of the source. When given, a later Broadcast of the same name is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
    /// Which of its chats: `Failed`, those whose message surely was not delivered; `Unsent`, those that were never reached; `Unknown`, of whom
    /// it is not known, and who may get it twice. Never a chat that has the message. Default: Failed and Unsent.
    #[serde(default = "Include::default_set")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub include: Vec<Include>,
}

/// A group of chats that a restart can take over.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
pub enum Include {
    /// Chats whose message surely was not delivered.
    Failed,
    /// Chats that were never reached.
    Unsent,
    /// Chats for which it is not known whether they have the message: they may get it twice.
    Unknown,
}

impl Include {
    fn default_set() -> Vec<Self> {
        vec![Self::Failed, Self::Unsent]
    }
}

/// Speed of one Broadcast.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pacing {
    /// Messages per second at most. May change at any time.
    #[schemars(range(min = 1, max = 100_000))]
    pub messages_per_second: i32,
}

/// When to try again what the gateway surely did not take and called worth another try.
#[derive(KubeSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minBackoffSeconds <= self.maxBackoffSeconds")
    .message("minBackoffSeconds may not be above maxBackoffSeconds"))]
pub struct Retry {
    /// Tries per chat in all, the first one included. A chat is tried more often while its provider is in trouble, or while it gets too
    /// many messages.
    #[schemars(range(min = 1, max = 20))]
    #[serde(default = "Retry::default_max_attempts")]
    pub max_attempts: i32,
    /// Seconds before the second try; doubled for each further one.
    #[schemars(range(min = 0, max = 86_400))]
    #[serde(default = "Retry::default_min_backoff_seconds")]
    pub min_backoff_seconds: i32,
    /// Longest wait between two tries, in seconds.
    #[schemars(range(min = 0, max = 86_400))]
    #[serde(default = "Retry::default_max_backoff_seconds")]
    pub max_backoff_seconds: i32,
}

impl Retry {
    fn default_max_attempts() -> i32 {
        3
    }

    fn default_min_backoff_seconds() -> i32 {
        5
    }

    fn default_max_backoff_seconds() -> i32 {
        300
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: Self::default_max_attempts(),
            min_backoff_seconds: Self::default_min_backoff_seconds(),
            max_backoff_seconds: Self::default_max_backoff_seconds(),
        }
    }
}

/// What to do with chats whose message may or may not have been sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum OnUnknown {
    /// Leave them: nobody gets a message twice. A receipt may still settle them, and a restart may include them.
    #[default]
    Hold,
    /// Send again, up to `retry.maxAttempts` times: nobody is left out, some may get it twice.
    Resend,
}

/// Parameters of a recipient: at most 32, names of at most 64 and values of at most 1,024 characters.
fn params_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 1024}
    })
}
