//! `BroadcastCampaign`: a campaign key that was used. Written by the operator alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::BroadcastIdentity;

/// A campaign key, and the Broadcast that it was used by.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "broadcast-operator.dev",
    version = "v1alpha1",
    kind = "BroadcastCampaign",
    plural = "broadcastcampaigns",
    shortname = "bcp",
    category = "broadcasts",
    namespaced,
    doc = "A campaign key that was used: no other Broadcast of this namespace may start with it. It outlives its Broadcast for \
           a time. The operator writes it; delete it to let the campaign be sent again.",
    derive = "PartialEq",
    printcolumn(name = "Key", type_ = "string", json_path = ".spec.key"),
    printcolumn(name = "Broadcast", type_ = "string", json_path = ".spec.broadcast.name"),
    printcolumn(name = "Started", type_ = "string", json_path = ".spec.startTime"),
    printcolumn(name = "Kept-Until", type_ = "string", json_path = ".spec.keptUntil"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.key == oldSelf.key && self.broadcast == oldSelf.broadcast")
    .message("the key of a campaign and its Broadcast never change"))]
pub struct BroadcastCampaignSpec {
    /// The key, as `spec.campaignKey` of the Broadcast has it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// The Broadcast that used it.
    pub broadcast: BroadcastIdentity,
    /// When that Broadcast began.
    pub start_time: Time,
    /// Seconds that the key is kept once that Broadcast is gone.
    #[schemars(range(min = 0))]
    pub retention_seconds: i32,
    /// The key is free from then on, by the clock of the API server. Absent: as long as its Broadcast is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<Time>,
}
