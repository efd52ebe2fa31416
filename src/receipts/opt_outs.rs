//! What chats want, as their provider tells it: who wants no more messages is written down before the request is answered.

use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;

use super::refusal::Refusal;
use crate::api::BroadcastChannelSpec;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::outcome::Row;
use crate::domain::receipt::Preference;
use crate::domain::suppression::reason_of;
use crate::ledger::{Ledger, LedgerError};
use crate::suppressions;

/// Opt-outs that are stored at the same time: a body may have thousands, and its sender waits seconds for the answer.
const WRITES_AT_ONCE: usize = 16;

/// Stores what chats said that they want.
pub async fn follow(
    client: &Client,
    channel: &ObjectKey,
    spec: &BroadcastChannelSpec,
    preferences: &[Preference],
) -> Result<(), Refusal> {
    for Preference { chat, is_wanted, code } in preferences {
        let stored = match is_wanted {
            true => suppressions::forget(client, channel, chat).await,
            false => suppressions::record(client, channel, chat, reason_of(spec.provider), code).await,
        };
        stored.map_err(|error| Refusal::NotStored(Box::new(error)))?;
    }
    Ok(())
}

/// Stores that the chats of these rows want no more messages.
pub async fn suppress(
    client: &Client,
    ledger: &Ledger,
    channel: &ObjectKey,
    spec: &BroadcastChannelSpec,
    (page, broadcast): (&ObjectKey, &BroadcastUid),
    rows: &[(usize, Row)],
) -> Result<(), Refusal> {
    let content = match ledger.read_of(page, broadcast).await {
        Ok(content) => content,
        // Deleted since, and its chats with it.
        Err(LedgerError::Gone { .. } | LedgerError::Foreign { .. }) => return Ok(()),
        Err(error) => return Err(Refusal::NotStored(Box::new(error))),
    };
    let reason = reason_of(spec.provider);
    let chats = rows.iter().filter_map(|(row, evidence)| {
        content.recipients().get(*row).map(|recipient| (recipient.chat.as_str(), evidence.code.as_str()))
    });
    let writes = chats.map(|(chat, code)| suppressions::record(client, channel, chat, reason, code));
    let stored =
        stream::iter(writes.collect::<Vec<_>>()).buffer_unordered(WRITES_AT_ONCE).try_collect::<()>();
    stored.await.map_err(|error| Refusal::NotStored(Box::new(error)))
}
