//! `BroadcastSuppression`: a chat that a channel never sends to. Written by people, and by the operator when a chat opts out.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LocalRef;

/// A chat that opted out of a channel.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "broadcast-operator.dev",
    version = "v1alpha1",
    kind = "BroadcastSuppression",
    plural = "broadcastsuppressions",
    shortname = "bcs",
    category = "broadcasts",
    namespaced,
    doc = "A chat that a channel never sends to: a Broadcast that begins later has it as Skipped. The operator writes one when a chat \
           opts out, and people may write one under any name. Delete it to allow the chat again.",
    derive = "PartialEq",
    selectable = ".spec.channelRef.name",
    printcolumn(name = "Channel", type_ = "string", json_path = ".spec.channelRef.name"),
    printcolumn(name = "Chat", type_ = "string", json_path = ".spec.chat"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(name = "Code", type_ = "string", json_path = ".spec.code"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.channelRef == oldSelf.channelRef && self.chat == oldSelf.chat")
    .message("the channel and the chat of a suppression never change: delete it, and create another one"))]
pub struct BroadcastSuppressionSpec {
    /// The channel that does not send to it. It need not exist, or not any more.
    pub channel_ref: LocalRef,
    /// Phone number with its country code, or chat id, as the log of a Broadcast has it. What a person wrote in another way is read as those of an audience of
    /// the channel; an event `ChatNotRead` says that it is no chat of the channel.
    #[schemars(length(min = 1, max = 128))]
    pub chat: String,
    /// Why it is not sent to.
    #[serde(default)]
    pub reason: SuppressionReason,
    /// The provider's code for it, where it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub code: Option<String>,
    /// Since when: as the provider says, or when it was noticed. A wish of the chat that is older changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// Why a chat is not sent to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum SuppressionReason {
    /// It said that it wants no more messages.
    OptedOut,
    /// It blocked the sender, or is a group that does not have it any more.
    Blocked,
    /// A rule of the channel's `errorPolicy` says so. The chat does not take that back, and neither does the operator: delete it.
    ErrorPolicy,
    /// Somebody wrote it down by hand. The operator never takes that back by itself.
    #[default]
    Manual,
}

impl SuppressionReason {
    /// Whether it is a wish of the chat, which the chat takes back by another one.
    #[must_use]
    pub fn is_wish(self) -> bool {
        matches!(self, Self::OptedOut | Self::Blocked)
    }

    /// The reason as manifests have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OptedOut => "OptedOut",
            Self::Blocked => "Blocked",
            Self::ErrorPolicy => "ErrorPolicy",
            Self::Manual => "Manual",
        }
    }
}
