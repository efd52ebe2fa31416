//! `BroadcastBatch`: one page of the ledger. Written by the operator alone.
//!
//! Rows are CSV text, because the API server pays per element of a list and not per byte of a string.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The recipients of one page. Written before the first message of the Broadcast is sent, never changed after.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[kube(
    group = "broadcast-operator.dev",
    version = "v1alpha1",
    kind = "BroadcastBatch",
    plural = "broadcastbatches",
    shortname = "bcb",
    category = "broadcasts",
    namespaced,
    status = "BatchStatus",
    doc = "One page of a Broadcast's log: recipients and their outcomes as CSV. The operator writes it; do not change it: \
           whoever changes it decides who is messaged.",
    derive = "PartialEq",
    printcolumn(name = "Broadcast", type_ = "string", json_path = ".spec.broadcast.name"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.counts.pending"),
    printcolumn(name = "Sent", type_ = "integer", json_path = ".status.counts.sent"),
    printcolumn(name = "Delivered", type_ = "integer", json_path = ".status.counts.delivered"),
    printcolumn(name = "Read", type_ = "integer", json_path = ".status.counts.read"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counts.failed"),
    printcolumn(name = "Unknown", type_ = "integer", json_path = ".status.counts.unknown"),
    printcolumn(name = "Sealed", type_ = "boolean", json_path = ".status.sealed", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("the recipients of a batch never change"))]
pub struct BroadcastBatchSpec {
    /// The Broadcast that this page belongs to.
    pub broadcast: BroadcastIdentity,
    /// Number of the page, from 0.
    #[schemars(range(min = 0))]
    pub index: i32,
    /// Recipients as CSV with a header: `chat`, then the parameters; `skip` holds the reason of a row that is not sent.
    #[schemars(length(max = 262_144))]
    pub recipients: String,
}

/// The Broadcast of a page.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct BroadcastIdentity {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its UID.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// Outcomes of one page.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BatchStatus {
    /// The window of rows that is being sent. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// True: no row of this page may ever be sent again, because a restart took them over.
    #[serde(default)]
    pub sealed: bool,
    /// Outcomes of this page, counted.
    #[serde(default)]
    pub counts: BatchCounts,
    /// One row per recipient, in the order of `spec.recipients`:
    /// `chat,outcome,time,attempts,messageId,code,detail`. What is behind a tab in `messageId` and `detail` is for the operator alone.
    #[serde(default)]
    #[schemars(length(max = 524_288))]
    pub outcomes: String,
}

/// A window of rows that one process is sending. The rows are locked by it; none of them is evidence of anything.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The process, as a random id that is never used again.
    #[schemars(length(max = 64))]
    pub incarnation: String,
    /// Number of this claim in that process.
    #[schemars(range(min = 0))]
    pub attempt: i64,
    /// First row of the window, from 0.
    #[schemars(range(min = 0))]
    pub from: i32,
    /// Row after the last one.
    #[schemars(range(min = 0))]
    pub to: i32,
    /// True: rows of the window that are Unknown are sent again, because the Broadcast says `onUnknown: Resend`.
    #[serde(default)]
    pub resend: bool,
    /// When it was made.
    pub time: Time,
}

/// Outcomes of one page, counted. Rows under a claim are counted as pending here.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchCounts {
    /// Not sent yet.
    #[schemars(range(min = 0))]
    pub pending: i32,
    /// Taken by the gateway.
    #[schemars(range(min = 0))]
    pub sent: i32,
    /// Delivered.
    #[schemars(range(min = 0))]
    pub delivered: i32,
    /// Read.
    #[schemars(range(min = 0))]
    pub read: i32,
    /// Surely not delivered.
    #[schemars(range(min = 0))]
    pub failed: i32,
    /// Perhaps sent, perhaps not.
    #[schemars(range(min = 0))]
    pub unknown: i32,
    /// Never tried on purpose.
    #[schemars(range(min = 0))]
    pub skipped: i32,
    /// Taken over by a restart.
    #[schemars(range(min = 0))]
    pub cancelled: i32,
}
