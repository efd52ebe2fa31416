//! Labels: closed sets all of them.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ChannelLabels {
    pub(super) namespace: String,
    pub(super) channel: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct MessageLabels {
    pub(super) namespace: String,
    pub(super) channel: String,
    pub(super) outcome: MessageOutcome,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(super) enum MessageOutcome {
    Sent,
    Failed,
    Unknown,
    Retry,
    Postponed,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RefusalLabels {
    pub(super) provider: &'static str,
    pub(super) class: RefusalClass,
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(super) enum RefusalClass {
    Recipient,
    OptOut,
    RateLimit,
    Content,
    Sender,
    Unavailable,
    Unreachable,
    NoAnswer,
}

impl MessageOutcome {
    pub(super) const ALL: [Self; 5] = [Self::Sent, Self::Failed, Self::Unknown, Self::Retry, Self::Postponed];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ClaimLabels {
    pub(super) result: ClaimResult,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReceiptLabels {
    pub(super) result: ReceiptResult,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(super) enum ClaimResult {
    Stored,
    Refused,
}

/// Why a request with receipts has to come again.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum DeferReason {
    /// There was no room for it.
    Busy,
    /// The API server did not take it.
    NotStored,
    /// The answer to the message is still on its way.
    TooEarly,
    /// The signing secret cannot be used.
    Secret,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct DeferLabels {
    pub(super) provider: &'static str,
    pub(super) reason: DeferReason,
}

/// What became of a receipt.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum ReceiptResult {
    /// It was stored, or was known already.
    Applied,
    /// No message of this channel has this id.
    UnknownId,
    /// It could not be read.
    Malformed,
    /// Its request was not signed as it must be.
    Refused,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct LookupLabels {
    pub(super) result: LookupResult,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(super) enum LookupResult {
    News,
    NoNews,
    Gone,
    NotTold,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReconcileLabels {
    pub(super) controller: &'static str,
    pub(super) result: ReconcileResult,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(super) enum ReconcileResult {
    Success,
    Error,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) code: String,
    pub(super) method: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ElectionLabels {
    pub(super) name: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RenewalLabels {
    pub(super) result: RenewalResult,
}

/// How a renewal of the lease of this replica ended.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum RenewalResult {
    /// It is stored.
    Stored,
    /// Something else had written into the lease each time.
    Conflict,
    /// The API server did not take it.
    Failed,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) reason: &'static str,
}
