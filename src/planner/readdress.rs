//! What a restart makes of the chats of its source, when it sends them through another channel.
//!
//! In: channels, chats of the source. Out: chats of the child, as many.

use super::Context;
use super::plan::{chat_rules, present, stalled};
use crate::api::{Broadcast, Resolved};
use crate::domain::chat::ChatRules;
use crate::domain::page::Recipient;
use crate::domain::restart::readdressed;
use crate::domain::verdict::Stage;

/// How the chats of the source are to be read, and how those of the child.
pub(super) struct Rules {
    from: ChatRules,
    to: ChatRules,
}

impl Rules {
    /// The rules of the channel of the source, and of that of the child.
    pub(super) fn of(
        child: &Broadcast,
        source: &Broadcast,
        resolved: &Resolved,
        context: &Context,
    ) -> Result<Self, Stage> {
        let to = chat_rules(child, context, &resolved.channel_ref)?;
        let inherited = source.status.as_ref().and_then(|status| status.resolved.as_ref());
        let from = match inherited.map(|inherited| &inherited.channel_ref) {
            Some(other) if *other != resolved.channel_ref => {
                // Without it nobody knows what its numbers are, and they may be somebody else's in another channel.
                let channel = present(source, context, other).map_err(|_| {
                    let message = format!(
                        "BroadcastChannel {} of the source does not exist any more, so what kind of chats the source has is \
                         not known: create it again, paused or not, until this restart has begun",
                        other.name
                    );
                    stalled("SourceChannelNotFound", &message)
                })?;
                ChatRules::of(&channel.spec)
            }
            _ => to.clone(),
        };
        Ok(Self { from, to })
    }

    /// Chats of the source as those of the child, on a thread that holds up nothing else: a million phone numbers take seconds.
    pub(super) async fn readdressed(&self, recipients: Vec<Recipient>) -> Result<Vec<Recipient>, Stage> {
        let (from, to) = (self.from.clone(), self.to.clone());
        let reading = tokio::task::spawn_blocking(move || readdressed(recipients, &from, &to));
        reading.await.map_err(|died| stalled("InvalidChat", &format!("the chats could not be read: {died}")))
    }
}

/// A restart that could send to none of its chats would only close the source.
pub(super) fn nobody_left(recipients: &[Recipient]) -> Option<Stage> {
    let first =
        recipients.first().filter(|_| recipients.iter().all(|recipient| !recipient.skip.is_empty()))?;
    let message = format!(
        "none of the {} chats that the source has left can be sent to through the channel; the first one is {}: give \
         spec.channelRef a channel that knows such chats",
        recipients.len(),
        first.skip
    );
    Some(stalled("EmptyAudience", &message))
}
