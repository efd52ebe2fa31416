//! What stops by what receipts say: the channel, where a code is about the account; the Broadcast, where it is about what is sent, or
//! a rule says so. A channel that was too fast slows down.

use std::collections::HashSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::places::At;
use super::refusal::Refusal;
use super::{Books, meaning};
use crate::api::{ReportedTrouble, StopReason, StopStatus, TroubleReason};
use crate::clock;
use crate::cluster::{ApiError, chain};
use crate::domain::discretion::without_chat;
use crate::domain::gateway_mark::GatewayMark;
use crate::domain::ids::ObjectKey;
use crate::domain::outcome::Outcome;
use crate::domain::receipt::Receipt;
use crate::domain::text::cut_to_line;
use crate::ledger::LedgerError;
use crate::stops;

/// Writes down what stops, before the evidence is stored: a receipt that comes again when its row says it already stops nothing
/// that somebody has let go on since.
///
/// # Errors
/// When it cannot be stored now. What can never be stored is in the log, and does not hold up the receipts.
pub async fn stop(books: &Books, namespace: &str, placed: &[(At, Receipt)]) -> Result<(), Refusal> {
    let (mut channels, mut broadcasts) = (HashSet::new(), HashSet::new());
    for (at, receipt) in placed {
        let key = ObjectKey::new(namespace, &at.channel);
        let Some(channel) = books.observed.channel(&key) else { continue };
        let meaning = meaning::of(&channel.spec, receipt);
        // Most failures are about their chat.
        let gateway = meaning.trouble.map(|_| GatewayMark::of(&channel).digest).unwrap_or_default();
        // Of an account that is too fast come many: those that are no news cost no look at their pages.
        let trouble = meaning.trouble.filter(|reason| {
            let now = clock::now();
            let reported = reported(*reason, receipt, &gateway, now);
            !channels.contains(&(key.clone(), *reason)) && stops::is_news(&channel, &reported, now, now)
        });
        let stops = meaning.stops_broadcast.filter(|_| !broadcasts.contains(&at.broadcast));
        if trouble.is_none() && stops.is_none() {
            continue;
        }
        let Some(News { receipt, sent }) = &news(books, at, receipt).await? else { continue };
        if let Some(reason) = trouble {
            let reported = reported(reason, receipt, &gateway, *sent);
            if stops::is_news(&channel, &reported, *sent, clock::now()) {
                tracing::warn!(channel = %key, code = reported.code, reason = reason.as_str(), "is stopped or slowed down by a receipt");
                settled(stops::report_trouble(&books.client, &key, &reported, *sent).await, &key)?;
                channels.insert((key, reason));
            }
        }
        if let Some(reason) = stops
            && stop_broadcast(books, namespace, at, (reason, receipt), *sent).await?
        {
            broadcasts.insert(at.broadcast.clone());
        }
    }
    Ok(())
}

/// A receipt that its row has not heard of yet.
struct News {
    /// Without the chat in what the provider says: that goes into statuses.
    receipt: Receipt,
    /// When its message was sent, as far as its row tells; now, where the answer is not recorded yet.
    sent: Timestamp,
}

async fn news(books: &Books, at: &At, receipt: &Receipt) -> Result<Option<News>, Refusal> {
    match books.ledger.read_of(&at.page, &at.broadcast).await {
        Ok(mut content) => {
            let Some(recipient) = content.recipients().get(at.row) else { return Ok(None) };
            let detail = without_chat(&receipt.evidence.detail, &recipient.chat);
            let receipt =
                Receipt { evidence: receipt.evidence.clone().with_detail(&detail), ..receipt.clone() };
            let row = &content.rows()[at.row];
            let sent = row.time.filter(|_| row.outcome != Outcome::Pending).unwrap_or_else(clock::now);
            Ok(content.merge_receipt(at.row, &receipt.evidence).then_some(News { receipt, sent }))
        }
        Err(LedgerError::Gone { .. } | LedgerError::Foreign { .. }) => Ok(None),
        Err(error) => Err(Refusal::NotStored(Box::new(error))),
    }
}

fn reported(reason: TroubleReason, receipt: &Receipt, gateway: &str, sent: Timestamp) -> ReportedTrouble {
    ReportedTrouble {
        reason,
        code: cut_to_line(&receipt.evidence.code, 64),
        message: cut_to_line(&receipt.evidence.detail, 160),
        observed_gateway: gateway.into(),
        time: Time(receipt.evidence.time.unwrap_or_default()),
        sent: Some(Time(sent)),
    }
}

/// Returns whether it is stopped now.
async fn stop_broadcast(
    books: &Books,
    namespace: &str,
    at: &At,
    (reason, receipt): (StopReason, &Receipt),
    sent: Timestamp,
) -> Result<bool, Refusal> {
    let key = ObjectKey::new(namespace, &at.name);
    let Some(broadcast) = books.observed.broadcast(&key) else { return Ok(false) };
    let stopped = broadcast.status.as_ref().and_then(|status| status.stop.as_ref());
    if stopped.is_some_and(|stop| Some(stop.observed_generation) == broadcast.metadata.generation) {
        return Ok(true);
    }
    let stop = StopStatus {
        reason,
        code: cut_to_line(&receipt.evidence.code, 64),
        message: cut_to_line(&receipt.evidence.detail, 160),
        observed_generation: broadcast.metadata.generation.unwrap_or_default(),
    };
    let stored = stops::stop_broadcast(&books.client, &key, &at.broadcast, &stop, Some(sent)).await;
    if let Ok(true) = stored {
        tracing::warn!(broadcast = %key, code = stop.code, "is stopped by a receipt");
    }
    settled(stored, &key).map(|is_stopped| is_stopped == Some(true))
}

/// What could be stored; `None` when it never can be.
fn settled<T>(stored: Result<T, ApiError>, key: &ObjectKey) -> Result<Option<T>, Refusal> {
    match stored {
        Err(error) if error.is_temporary() || error.is_conflict() => Err(Refusal::NotStored(Box::new(error))),
        Err(error) => {
            tracing::warn!(%key, error = %chain(&error), "failed to store that a receipt stops it");
            Ok(None)
        }
        Ok(stored) => Ok(Some(stored)),
    }
}
