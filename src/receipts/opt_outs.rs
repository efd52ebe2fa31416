//! What chats want, as their provider tells it: who wants no more messages is written down before the request is answered.

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::places::{At, channels_of};
use super::refusal::Refusal;
use super::{Books, meaning};
use crate::api::{BroadcastChannelSpec, ProviderName, SuppressionReason};
use crate::domain::ids::ObjectKey;
use crate::domain::receipt::{Preference, Receipt};
use crate::domain::suppression::reason_of;
use crate::ledger::LedgerError;
use crate::providers::whatsapp;
use crate::suppressions;

/// Opt-outs that are stored at the same time: a body may have thousands, and its sender waits seconds for the answer.
const WRITES_AT_ONCE: usize = 16;

/// A chat that a channel is not to send to any more.
struct Suppressing {
    channel: ObjectKey,
    chat: String,
    reason: SuppressionReason,
    code: String,
    since: Timestamp,
}

/// Stores what chats said that they want, for the channels of the number that they said it to.
pub async fn follow(
    books: &Books,
    channel: &ObjectKey,
    spec: &BroadcastChannelSpec,
    preferences: &[Preference],
) -> Result<(), Refusal> {
    for Preference { chat, is_wanted, code, time, number } in preferences {
        for own in channels_of(&books.observed, channel, number) {
            let (client, reason) = (&books.client, reason_of(spec.provider));
            let stored = match is_wanted {
                true => suppressions::forget(client, &own, chat, *time).await,
                false => suppressions::record(client, &own, chat, reason, code, *time).await,
            };
            stored.map_err(|error| Refusal::NotStored(Box::new(error)))?;
        }
    }
    Ok(())
}

/// Stores that the recipients of these messages are not to be sent to any more: those who said so, and those of whom a rule says
/// so. Whose log is gone is known by the receipt alone, if it names the recipient.
pub async fn suppress(
    books: &Books,
    channel: &ObjectKey,
    spec: &BroadcastChannelSpec,
    placed: &[(At, Receipt)],
    lost: &[Receipt],
) -> Result<(), Refusal> {
    let mut all = Vec::new();
    for (at, receipt) in placed {
        let own = ObjectKey::new(&channel.namespace, &at.channel);
        let stored = books.observed.channel(&own);
        let spec = stored.as_ref().map_or(spec, |channel| &channel.spec);
        if let Some(reason) = meaning::of(spec, receipt).suppress {
            let chat = chat_of(books, at, receipt).await?;
            let chat = chat.map(|chat| person_in(spec.provider, chat, &receipt.chat));
            all.extend(chat.map(|chat| Suppressing::new(own, chat, reason, receipt)));
        }
    }
    for receipt in lost.iter().filter(|receipt| receipt.is_opt_out && !receipt.chat.is_empty()) {
        for own in channels_of(&books.observed, channel, &receipt.number) {
            all.push(Suppressing::new(own, receipt.chat.clone(), reason_of(spec.provider), receipt));
        }
    }
    let writes = all.iter().map(|Suppressing { channel, chat, reason, code, since }| {
        suppressions::record(&books.client, channel, chat, *reason, code, *since)
    });
    let stored =
        stream::iter(writes.collect::<Vec<_>>()).buffer_unordered(WRITES_AT_ONCE).try_collect::<()>();
    stored.await.map_err(|error| Refusal::NotStored(Box::new(error)))
}

/// Who speaks: the chat, or the person that the receipt `named` in a group of the Cloud API. That one wants no more messages keeps none
/// from the others.
fn person_in(provider: ProviderName, chat: String, named: &str) -> String {
    let is_group = provider == ProviderName::WhatsApp && whatsapp::is_group(&chat);
    if is_group && !named.is_empty() { named.to_owned() } else { chat }
}

/// The recipient of a message, as the audience names it.
async fn chat_of(books: &Books, at: &At, receipt: &Receipt) -> Result<Option<String>, Refusal> {
    let named = Some(&receipt.chat).filter(|chat| !chat.is_empty()).cloned();
    match books.ledger.read_of(&at.page, &at.broadcast).await {
        Ok(content) => Ok(content.recipients().get(at.row).map(|recipient| recipient.chat.clone()).or(named)),
        // Deleted since.
        Err(LedgerError::Gone { .. } | LedgerError::Foreign { .. }) => Ok(named),
        Err(error) => Err(Refusal::NotStored(Box::new(error))),
    }
}

impl Suppressing {
    fn new(channel: ObjectKey, chat: String, reason: SuppressionReason, receipt: &Receipt) -> Self {
        let since = receipt.evidence.time.unwrap_or_default();
        Self { channel, chat, reason, code: receipt.evidence.code.clone(), since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_leaves_a_group_speaks_for_nobody_else() {
        let person = |provider, chat: &str, named| person_in(provider, chat.to_owned(), named);
        assert_eq!(person(ProviderName::WhatsApp, "Y2FwaV9ncm91cA==", "34600111222"), "34600111222");
        assert_eq!(person(ProviderName::WhatsApp, "Y2FwaV9ncm91cA==", ""), "Y2FwaV9ncm91cA==");
        // The number may be another one than the message was sent to: the audience has that.
        assert_eq!(person(ProviderName::WhatsApp, "5491155551234", "541155551234"), "5491155551234");
        assert_eq!(person(ProviderName::Http, "ana", "ana@example.com"), "ana");
    }
}
