//! `BroadcastChannel`: one sending account. People write the spec; the operator writes the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, KeyRef};

/// How to reach a gateway, and how much it takes.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "broadcast-operator.dev",
    version = "v1alpha1",
    kind = "BroadcastChannel",
    plural = "broadcastchannels",
    shortname = "bcc",
    category = "broadcasts",
    namespaced,
    status = "ChannelStatus",
    doc = "One sending account: its gateway, credentials and limits. All Broadcasts of a channel share its limits and its \
           queue. spec.paused is the emergency brake for all of them.",
    derive = "PartialEq",
    selectable = ".spec.paused",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.activeBroadcasts"),
    printcolumn(name = "Rate", type_ = "integer", json_path = ".spec.limits.messagesPerSecond"),
    printcolumn(
        name = "Throttled-Until",
        type_ = "string",
        json_path = ".status.throttledUntil",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.provider != 'HTTP' || has(self.http)")
    .message("provider HTTP needs the field http with the gateway's url"))]
pub struct BroadcastChannelSpec {
    /// Kind of gateway. It says which of the fields below is used.
    pub provider: ProviderName,
    /// Settings of provider HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpChannel>,
    /// How much the account may send. Shared by all Broadcasts of this channel.
    #[serde(default)]
    pub limits: Limits,
    /// The emergency brake: true stops every Broadcast of this channel at once.
    #[serde(default)]
    pub paused: bool,
}

/// Kind of gateway.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum ProviderName {
    /// Any gateway that takes one JSON request per message.
    #[serde(rename = "HTTP")]
    Http,
}

/// A gateway that takes one JSON request per message.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HttpChannel {
    /// Where messages are posted to. Loopback, link-local and private addresses are refused unless the operator was
    /// started with `--allow-address` for them. It may not hold a user name or password: use `tokenSecretRef`.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s/?#@\\]+([/?#]\S*)?$"))]
    pub url: String,
    /// Bearer token for the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<KeyRef>,
    /// Secret that receipts are signed with (Standard Webhooks). During a rotation the key may hold several secrets,
    /// separated by white space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_ref: Option<KeyRef>,
    /// Take receipts without a signature. Anybody who can reach the receipts port can then forge outcomes.
    #[serde(default)]
    pub allow_unsigned: bool,
    /// The gateway drops a second request with the same Idempotency-Key. Then a request without an answer is repeated
    /// with the same key, up to `retry.maxAttempts` times, instead of being left as Unknown.
    #[serde(default)]
    pub idempotent: bool,
    /// Seconds to wait for an answer.
    #[serde(default = "HttpChannel::default_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: i32,
}

impl HttpChannel {
    fn default_timeout() -> i32 {
        30
    }

    /// The keys of Secrets that this channel needs.
    pub fn secrets(&self) -> impl Iterator<Item = &KeyRef> {
        self.token_secret_ref.iter().chain(&self.signing_secret_ref)
    }

    /// Whether this channel hears what became of its messages.
    #[must_use]
    pub fn has_receipts(&self) -> bool {
        self.signing_secret_ref.is_some() || self.allow_unsigned
    }
}

/// How much an account may send.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Messages per second at most. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub messages_per_second: Option<i32>,
    /// Messages that may be sent at once after a pause. Absent: a fiftieth of a second's messages, an even flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: Option<i32>,
    /// Requests that may wait for an answer at the same time.
    #[schemars(range(min = 1, max = 1024))]
    pub max_in_flight: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages_per_second: None, burst: None, max_in_flight: 64 }
    }
}

/// What the operator knows of a channel.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ChannelStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready=True: messages can be sent. Suspended=True: the brake is on. Throttled=True: the gateway asked to wait, and
    /// `throttledUntil` says how long. Stalled=True: it needs a person, and the message says for what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// No message is sent before this time, because the gateway asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_until: Option<Time>,
    /// Broadcasts of this channel that are being sent.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub active_broadcasts: i32,
}
