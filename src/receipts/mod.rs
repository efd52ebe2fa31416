//! Receipts: what became of messages after the gateway took them.
//!
//! In: `POST /v1/namespaces/<namespace>/channels/<channel>/receipts`, signed. Out: outcomes in the ledger. The answer
//! goes out only after the receipts are stored, so that a crash makes the gateway send them again.

mod body;
mod early;
mod opt_outs;
mod places;
mod refusal;
mod room;
mod secrets;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use futures::future::join_all;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use crate::api::BroadcastChannelSpec;
use crate::clock;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::outcome::Row;
use crate::domain::receipt::{Notices, Receipt};
use crate::ledger::{Ledger, LedgerError};
use crate::metrics::{Metrics, ReceiptResult};
use crate::observed::Observed;
use crate::providers::whatsapp;
use early::RefusedIds;
use places::{Named, Places};
use refusal::Refusal;
use room::{BodyRoom, ChannelRooms};
use secrets::SigningSecrets;
use source::Source;

/// Longest wait for the answer of a send whose receipt came before it.
const EARLY_WAIT: Duration = Duration::from_secs(2);

struct Context {
    client: Client,
    ledger: Arc<Ledger>,
    observed: Observed,
    metrics: Metrics,
    secrets: SigningSecrets,
    bodies: BodyRoom,
    channels: ChannelRooms,
}

/// Serves until `ended`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    ledger: Arc<Ledger>,
    observed: Observed,
    metrics: Metrics,
    ended: CancellationToken,
) -> std::io::Result<()> {
    let secrets = SigningSecrets::new(client.clone());
    let (bodies, channels) = (BodyRoom::default(), ChannelRooms::default());
    let context = Context { client, ledger, observed, metrics, secrets, bodies, channels };
    let routes = Router::new()
        .route("/v1/namespaces/{namespace}/channels/{channel}/receipts", post(receive).get(shake_hands))
        .with_state(Arc::new(context));
    let stopped = async move { ended.cancelled().await };
    axum::serve(listener, routes).with_graceful_shutdown(stopped).await
}

async fn receive(
    State(context): State<Arc<Context>>,
    Path((namespace, channel)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let channel = ObjectKey::new(namespace, channel);
    let received = take(&context, &channel, request).await;
    match &received {
        Err(Refusal::Untrusted(reason)) => {
            context.metrics.receipts(ReceiptResult::Refused, 1);
            tracing::warn!(channel = %channel, %reason, "refused receipts");
        }
        Err(Refusal::Malformed(_)) => context.metrics.receipts(ReceiptResult::Malformed, 1),
        Err(Refusal::NotStored(reason)) => {
            tracing::warn!(channel = %channel, %reason, "failed to store receipts");
        }
        _ => {}
    }
    received.map(|()| StatusCode::NO_CONTENT)
}

/// The handshake by which Meta makes sure that a webhook is its owner's: it gets its challenge back if it knows the token of the
/// channel.
async fn shake_hands(
    State(context): State<Arc<Context>>,
    Path((namespace, channel)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<String, Refusal> {
    let key = ObjectKey::new(namespace, channel);
    let channel = context.observed.channel(&key).ok_or(Refusal::NoChannel)?;
    let wanted =
        channel.spec.whats_app.as_ref().and_then(|whats_app| whats_app.verify_token_secret_ref.as_ref());
    let tokens = context.secrets.values(&key.namespace, wanted.ok_or(Refusal::WrongToken)?).await?;
    let challenge = tokens.iter().find_map(|token| whatsapp::webhook::challenge(&query, token));
    challenge.ok_or(Refusal::WrongToken)
}

async fn take(context: &Arc<Context>, key: &ObjectKey, request: Request) -> Result<(), Refusal> {
    let channel = context.observed.channel(key).ok_or(Refusal::NoChannel)?;
    let (head, body) = request.into_parts();
    let source = Source::of(&channel.spec, &head)?;
    let body = context.bodies.read(body).await?;
    context.secrets.check(&key.namespace, &source, &body.bytes).await?;
    let Notices { receipts, preferences, malformed } = source.read(&body.bytes, clock::now())?;
    drop(body);
    context.metrics.receipts(ReceiptResult::Malformed, malformed);
    let room = context.channels.of(key, |channel| context.observed.channel(channel).is_some());
    let taken = room.take(receipts.len() + preferences.len())?;
    let Located { found, opt_outs, strangers, unknown } = locate(context, key, &room.refused, receipts).await;
    // First what cannot fail for good: an opt-out that cannot be stored must not hold up the receipts for ever.
    store(context, found, taken).await?;
    opt_outs::follow(&context.client, key, &channel.spec, &preferences).await?;
    for ((name, page, broadcast), rows) in &opt_outs {
        let own = ObjectKey::new(&key.namespace, name);
        let of = (page, broadcast);
        opt_outs::suppress(&context.client, &context.ledger, &own, &channel.spec, of, rows).await?;
    }
    if !unknown.is_empty() && context.observed.blind(&key.namespace).is_some() {
        return Err(Refusal::TooEarly);
    }
    // With nothing in flight, these too are of messages that are not ours, or of deleted Broadcasts.
    let early = if Places::of(&context.observed, key).may_have_sends_in_flight(clock::now()) {
        let ids = unknown.iter().map(|receipt| receipt.id.as_str());
        room.refused.still_early(ids, clock::monotonic(), longest_send(&channel.spec))
    } else {
        0
    };
    context.metrics.receipts(ReceiptResult::UnknownId, strangers + unknown.len() - early);
    if early > 0 { Err(Refusal::TooEarly) } else { Ok(()) }
}

/// Longest time from a request that is in flight now until the message id in its answer is known.
fn longest_send(channel: &BroadcastChannelSpec) -> Duration {
    Duration::from_secs(u64::try_from(channel.timeout_seconds()).unwrap_or_default()) + EARLY_WAIT
}

/// Evidence by page.
type Found = BTreeMap<(ObjectKey, BroadcastUid), Vec<(usize, Row)>>;

/// Receipts by what their ids name.
#[derive(Default)]
struct Located {
    found: Found,
    /// Of these, those of chats that want no more messages, by the channel of the message and its page.
    opt_outs: BTreeMap<(String, ObjectKey, BroadcastUid), Vec<(usize, Row)>>,
    /// Receipts of messages that are not of this channel.
    strangers: usize,
    /// Receipts that may be of messages whose answers are on their way.
    unknown: Vec<Receipt>,
}

impl Located {
    /// Looks again for what was not found before.
    fn look(&mut self, places: &Places<'_>) {
        for receipt in std::mem::take(&mut self.unknown) {
            match places.find(&receipt.id) {
                Named::Row(at) => {
                    if receipt.is_opt_out {
                        let place = (at.channel.clone(), at.page.clone(), at.broadcast.clone());
                        let rows = self.opt_outs.entry(place).or_default();
                        rows.push((at.row, receipt.evidence.clone()));
                    }
                    let rows = self.found.entry((at.page, at.broadcast)).or_default();
                    rows.push((at.row, receipt.evidence));
                }
                Named::Stranger => self.strangers += 1,
                Named::Nothing => self.unknown.push(receipt),
            }
        }
    }
}

/// Finds the rows of receipts. A receipt that is here before the answer to its send waits for that, for a while, when it
/// comes for the first time.
async fn locate(
    context: &Context,
    channel: &ObjectKey,
    refused: &RefusedIds,
    receipts: Vec<Receipt>,
) -> Located {
    let mut located = Located { unknown: receipts, ..Located::default() };
    let mut changes: watch::Receiver<u64> = context.observed.changes();
    let deadline = clock::monotonic() + EARLY_WAIT;
    loop {
        changes.mark_unchanged();
        let places = Places::of(&context.observed, channel);
        located.look(&places);
        let left = deadline.saturating_duration_since(clock::monotonic());
        let ids = located.unknown.iter().map(|receipt| receipt.id.as_str());
        if left.is_zero() || !refused.is_any_new(ids) || !places.may_have_sends_in_flight(clock::now()) {
            return located;
        }
        drop(places);
        // The answers of sends are known a little before the caches change, so a change is not the only thing to wait for.
        tokio::select! {
            _ = changes.changed() => {}
            () = clock::wait(left.min(EARLY_WAIT / 20)) => {}
        }
    }
}

/// Stores evidence. In a task of its own: a gateway that hangs up takes nothing with it.
async fn store(context: &Arc<Context>, found: Found, taken: OwnedSemaphorePermit) -> Result<(), Refusal> {
    let context = context.clone();
    let stored = tokio::spawn(async move {
        let merges = found.into_iter().map(|((page, broadcast), evidence)| {
            let context = &context;
            async move {
                let receipts = evidence.len();
                match context.ledger.merge(&page, &broadcast, evidence).await {
                    Ok(merged) => {
                        context.metrics.receipts(ReceiptResult::UnknownId, merged.unmatched);
                        context.metrics.receipts(ReceiptResult::Applied, receipts - merged.unmatched);
                        Ok(())
                    }
                    // Deleted since, with its whole Broadcast.
                    Err(LedgerError::Gone { .. } | LedgerError::Foreign { .. }) => {
                        context.metrics.receipts(ReceiptResult::UnknownId, receipts);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
        });
        let stored = join_all(merges).await.into_iter().collect::<Result<(), LedgerError>>();
        // Their room is free only now: a gateway that hangs up and repeats must not fill the memory.
        drop(taken);
        stored
    });
    match stored.await {
        Ok(stored) => stored.map_err(|error| Refusal::NotStored(Box::new(error))),
        Err(died) => Err(Refusal::NotStored(Box::new(died))),
    }
}
