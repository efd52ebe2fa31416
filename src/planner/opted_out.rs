//! Who has opted out of a channel, before a Broadcast of it is planned (client required).

use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;
use kube::runtime::events::Recorder;

use super::{Context, PlannerError};
use crate::api::{Broadcast, LocalRef};
use crate::domain::chat::{ChatProblem, ChatRules};
use crate::domain::ids::ObjectKey;
use crate::domain::suppression::Suppressed;
use crate::events;
use crate::suppressions::{self, Stored};

/// Reason of the event on a suppression whose chat cannot be read.
const NOT_READ: &str = "ChatNotRead";

/// The chats that a channel must not send to. A suppression whose chat is none of the channel is told of: whoever wrote it thinks
/// that somebody is not sent to.
pub(super) async fn of_channel(
    broadcast: &Broadcast,
    context: &Context,
    channel: &LocalRef,
) -> Result<Suppressed, PlannerError> {
    let key = ObjectKey::new(broadcast.namespace().unwrap_or_default(), &channel.name);
    let rules = context.observed.channel(&key).map(|channel| ChatRules::of(&channel.spec));
    let Stored { suppressed, unread } =
        suppressions::of_channel(&context.client, &key, rules.unwrap_or_default()).await?;
    if !unread.is_empty() {
        // Nothing waits for it.
        tokio::spawn(tell(context.recorder.clone(), key.name, unread));
    }
    Ok(suppressed)
}

async fn tell(recorder: Recorder, channel: String, unread: Vec<(ObjectReference, ChatProblem)>) {
    for (suppression, problem) in unread {
        let note = format!(
            "spec.chat is no chat of channel {channel} ({problem}), so whom it means is not known, and is sent to: delete this suppression, and \
             create one with the chat as the log of a Broadcast has it"
        );
        events::warn(&recorder, &suppression, NOT_READ, note).await;
    }
}
