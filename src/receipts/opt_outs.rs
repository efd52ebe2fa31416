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
            let who = chat.and_then(|chat| who_of(spec.provider, chat, &receipt.participant, reason));
            all.extend(who.map(|who| Suppressing::new(own, who, reason, receipt)));
        }
    }
    for receipt in lost.iter().filter(|receipt| receipt.is_opt_out && !receipt.chat.is_empty()) {
        let reason = reason_of(spec.provider);
        let who = who_of(spec.provider, receipt.chat.clone(), &receipt.participant, reason);
        for own in channels_of(&books.observed, channel, &receipt.number) {
            all.extend(who.clone().map(|who| Suppressing::new(own, who, reason, receipt)));
        }
    }
    let writes = all.iter().map(|Suppressing { channel, chat, reason, code, since }| {
        suppressions::record(&books.client, channel, chat, *reason, code, *since)
    });
    let stored =
        stream::iter(writes.collect::<Vec<_>>()).buffer_unordered(WRITES_AT_ONCE).try_collect::<()>();
    stored.await.map_err(|error| Refusal::NotStored(Box::new(error)))
}

/// Who is not to be sent to any more: the chat, or the participant of a group that the receipt names. That one wants no more messages
/// keeps none from the others, so nobody is, where the Cloud API names no participant, or one without a number.
fn who_of(
    provider: ProviderName,
    chat: String,
    participant: &str,
    reason: SuppressionReason,
) -> Option<String> {
    if !participant.is_empty() {
        let is_number = participant.bytes().all(|byte| byte.is_ascii_digit());
        return is_number.then(|| participant.to_owned());
    }
    let is_group = provider == ProviderName::WhatsApp && whatsapp::is_group(&chat);
    (!is_group || !reason.is_wish()).then_some(chat)
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
        const GROUP: &str = "Y2FwaV9ncm91cA==";
        let (wish, rule) = (SuppressionReason::OptedOut, SuppressionReason::ErrorPolicy);
        for (provider, chat, participant, reason, who) in [
            (ProviderName::WhatsApp, GROUP, "34600111222", wish, Some("34600111222")),
            (ProviderName::WhatsApp, GROUP, "34600111222", rule, Some("34600111222")),
            (ProviderName::WhatsApp, GROUP, "", wish, None),
            (ProviderName::WhatsApp, GROUP, "ES.13491208655302741918", wish, None),
            // A rule about the whole group is no wish of anybody.
            (ProviderName::WhatsApp, GROUP, "", rule, Some(GROUP)),
            // The audience has the number, whatever the receipt calls it.
            (ProviderName::WhatsApp, "5491155551234", "", wish, Some("5491155551234")),
            (ProviderName::Http, "ana", "", wish, Some("ana")),
        ] {
            let found = who_of(provider, chat.to_owned(), participant, reason);
            assert_eq!(found.as_deref(), who, "{chat} {participant} {reason:?}");
        }
    }
}
