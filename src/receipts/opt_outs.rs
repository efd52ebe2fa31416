//! What chats want, as their provider tells it: who wants no more messages is written down before the request is answered.

use kube::Client;

use super::refusal::Refusal;
use crate::api::BroadcastChannelSpec;
use crate::domain::ids::ObjectKey;
use crate::domain::outcome::Row;
use crate::domain::receipt::Preference;
use crate::domain::suppression::reason_of;
use crate::ledger::{Ledger, LedgerError};
use crate::suppressions;

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
    page: &ObjectKey,
    rows: &[(usize, Row)],
) -> Result<(), Refusal> {
    if rows.is_empty() {
        return Ok(());
    }
    let content = match ledger.read(page).await {
        Ok(content) => content,
        // Deleted since, and its chats with it.
        Err(LedgerError::Gone { .. } | LedgerError::Foreign { .. }) => return Ok(()),
        Err(error) => return Err(Refusal::NotStored(Box::new(error))),
    };
    for (row, evidence) in rows {
        let Some(recipient) = content.recipients().get(*row) else { continue };
        let reason = reason_of(spec.provider);
        let stored = suppressions::record(client, channel, &recipient.chat, reason, &evidence.code).await;
        stored.map_err(|error| Refusal::NotStored(Box::new(error)))?;
    }
    Ok(())
}
