//! `BroadcastJournal`: receipts that are stored, and not in their pages yet. Written by the operator alone.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::BroadcastIdentity;

/// Receipts of one Broadcast that came one here and one there.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[kube(
    group = "broadcast-operator.dev",
    version = "v1alpha1",
    kind = "BroadcastJournal",
    plural = "broadcastjournals",
    shortname = "bcj",
    category = "broadcasts",
    namespaced,
    doc = "Receipts of a Broadcast that are stored, and not in its batches yet: they came one here and one there, each for another \
           batch. The operator writes it once, takes it into the batches within half a minute, and deletes it. Do not change or \
           delete it: whoever deletes it loses these receipts.",
    derive = "PartialEq",
    printcolumn(name = "Broadcast", type_ = "string", json_path = ".spec.broadcast.name"),
    printcolumn(name = "Receipts", type_ = "integer", json_path = ".spec.number"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a journal never changes"))]
pub struct BroadcastJournalSpec {
    /// The Broadcast whose receipts these are.
    pub broadcast: BroadcastIdentity,
    /// How many they are.
    #[schemars(range(min = 0))]
    pub number: i32,
    /// The receipts as CSV with a header: `page,row,outcome,time`. Page and row are counted from 0; the outcome is Delivered or Read. A line
    /// of a group may have digests of its participants behind that.
    #[schemars(length(max = 65_536))]
    pub receipts: String,
}
