//! The resources of group `broadcast-operator.dev`: types only, a file per kind.
//!
//! Every doc comment on a field is what `kubectl explain` prints. The manifests in `crds/` are made from these
//! types by [`crds::yaml`].

mod batch;
mod broadcast;
mod broadcast_status;
mod campaign;
mod channel;
mod channel_facts;
mod channel_settings;
mod conditions;
pub mod crds;
mod journal;
mod message;
mod references;
mod rules;
mod suppression;

pub use batch::{BatchCounts, BatchStatus, BroadcastBatch, BroadcastBatchSpec, BroadcastIdentity, Claim};
pub use broadcast::{
    Broadcast, BroadcastSpec, Chat, Include, OnUnknown, Pacing, Recipients, RestartFrom, Retry, Source,
};
pub use broadcast_status::{
    BatchProgress, BroadcastStatus, ChatOutcome, Counts, HoldReason, HoldStatus, Lineage, OutcomeError,
    OutcomeName, ParticipantCounts, Resolved, StopReason, StopStatus,
};
pub use campaign::{BroadcastCampaign, BroadcastCampaignSpec};
pub use channel::{
    BroadcastChannel, BroadcastChannelSpec, ChannelStatus, ChannelStop, ErrorAction, ErrorRule, HourCount,
    Limits, ProviderName, ReportedTrouble, StopEvidence, TroubleReason,
};
pub use channel_settings::{
    HttpChannel, HttpFormat, HttpHeader, PeriskopeChannel, TelegramChannel, TwilioChannel, WhatsAppChannel,
};
pub use conditions::{Condition, ConditionStatus};
pub use journal::{BroadcastJournal, BroadcastJournalSpec};
pub use message::{Media, MediaKind, MessageContent, MessageTemplateRef, TextFormat};
pub use references::{KeyRef, LocalRef, ObjectRef};
pub use suppression::{BroadcastSuppression, BroadcastSuppressionSpec, SuppressionReason};

/// API group of all kinds.
pub const GROUP: &str = "broadcast-operator.dev";

/// Label on a page, a journal (and on a restart's child) that names its Broadcast.
pub const BROADCAST_LABEL: &str = "broadcast-operator.dev/broadcast";

/// Label on a journal: the UID of its Broadcast.
pub const BROADCAST_UID_LABEL: &str = "broadcast-operator.dev/broadcast-uid";

/// Label on a Broadcast made by a restart: the name of its source.
pub const RESTARTED_FROM_LABEL: &str = "broadcast-operator.dev/restarted-from";

/// Annotation that asks for a restart: any new token makes the operator create the child Broadcast, once.
pub const RESTART_ANNOTATION: &str = "broadcast-operator.dev/restart";

/// Annotation of a restart that was asked for by annotation: the token that asked for it.
pub const RESTARTED_FOR_ANNOTATION: &str = "broadcast-operator.dev/restarted-for";

/// Condition of a Broadcast whose annotation asks for a restart that cannot be made.
pub const RESTART_REFUSED: &str = "RestartRefused";

/// Longest value of that annotation that counts, in characters.
pub const MAX_RESTART_TOKEN: usize = 256;

/// Annotation by which a person accepts what a Broadcast is held for: its value is the token that the condition's message
/// shows, and another one is not obeyed.
pub const ACCEPT_ANNOTATION: &str = "broadcast-operator.dev/accept-restored";

/// Annotation of a channel by which a person ends a wait or a stop of it: any new value has it try again, once.
pub const TRY_AGAIN_ANNOTATION: &str = "broadcast-operator.dev/try-again";

/// Longest value of that annotation that counts, in characters.
pub const MAX_TRY_AGAIN_TOKEN: usize = 256;

/// Seconds that the key of a campaign is kept after its Broadcast, unless that says otherwise: 30 days, longer than anybody
/// tries a pipeline again.
pub const DEFAULT_CAMPAIGN_RETENTION: i32 = 2_592_000;

/// Finalizer that keeps a Broadcast until the requests in flight are recorded.
pub const FINALIZER: &str = "broadcast-operator.dev/drain";

/// Longest name of a Broadcast: its pages add `-00000` and are found by a label, whose values have 63 characters.
pub const MAX_BROADCAST_NAME: usize = 57;
