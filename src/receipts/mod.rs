//! Receipts: what became of messages after the gateway took them.
//!
//! In: `POST /v1/namespaces/<namespace>/channels/<channel>/receipts`, signed. Out: outcomes in the ledger. The answer
//! goes out only after the receipts are stored, so that a crash makes the gateway send them again.

mod body;
mod places;
mod secrets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::future::join_all;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::outcome::Row;
use crate::ledger::{Ledger, LedgerError};
use crate::metrics::{Metrics, ReceiptResult};
use crate::observed::Observed;
use body::Receipt;
use places::Places;
use secrets::{SigningSecrets, Untrusted};

/// Largest body that is read: about 8,000 receipts.
const MAX_BODY: usize = 1024 * 1024;
/// Longest time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that are worked on at the same time; with the largest body each, that is 128 MiB.
const MAX_REQUESTS: usize = 128;
/// Longest wait for the answer of a send whose receipt came before it.
const EARLY_WAIT: Duration = Duration::from_secs(2);
/// Seconds after which a gateway may try again what could not be stored.
const RETRY_AFTER: &str = "5";

struct Context {
    ledger: Arc<Ledger>,
    observed: Observed,
    metrics: Metrics,
    secrets: SigningSecrets,
    room: Semaphore,
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
    let secrets = SigningSecrets::new(client);
    let context = Context { ledger, observed, metrics, secrets, room: Semaphore::new(MAX_REQUESTS) };
    let routes = Router::new()
        .route("/v1/namespaces/{namespace}/channels/{channel}/receipts", post(receive))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(context));
    let stopped = async move { ended.cancelled().await };
    axum::serve(listener, routes).with_graceful_shutdown(stopped).await
}

/// Why receipts were not stored.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("too many receipts at once, send them again later")]
    Busy,
    #[error("the body took longer than {} s, or broke off", BODY_TIMEOUT.as_secs())]
    Incomplete,
    #[error("the body is larger than {MAX_BODY} bytes: send fewer receipts at once")]
    TooLarge,
    #[error("there is no BroadcastChannel of provider HTTP with this name in this namespace")]
    NoChannel,
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error(transparent)]
    Malformed(#[from] body::BodyError),
    #[error("failed to store the receipts, send them again")]
    NotStored(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("some messages are not known yet, send these receipts again")]
    TooEarly,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Incomplete => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoChannel => StatusCode::NOT_FOUND,
            Self::Untrusted(Untrusted::NotConfigured) => StatusCode::FORBIDDEN,
            Self::Untrusted(Untrusted::Signature(_)) => StatusCode::UNAUTHORIZED,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Busy
            | Self::Untrusted(Untrusted::Secret(_) | Untrusted::Unreadable(_))
            | Self::NotStored(_)
            | Self::TooEarly => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = axum::Json(serde_json::json!({ "error": { "message": self.to_string() } }));
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                (status, [(header::RETRY_AFTER, RETRY_AFTER)], body).into_response()
            }
            _ => (status, body).into_response(),
        }
    }
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

async fn take(context: &Arc<Context>, key: &ObjectKey, request: Request) -> Result<(), Refusal> {
    let _room = context.room.try_acquire().map_err(|_| Refusal::Busy)?;
    let channel = context.observed.channel(key).ok_or(Refusal::NoChannel)?;
    let http = channel.spec.http.as_ref().ok_or(Refusal::NoChannel)?;
    let (head, body) = request.into_parts();
    let body = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY));
    let body = body.await.map_err(|_| Refusal::Incomplete)?.map_err(|error| too_large(&error))?;
    context.secrets.check(&key.namespace, http, &head.headers, &body).await?;
    let body = body::parse(&body, clock::now())?;
    context.metrics.receipts(ReceiptResult::Malformed, body.malformed);
    let (found, unknown) = locate(context, key, body.receipts).await;
    store(context, found).await?;
    if unknown == 0 {
        return Ok(());
    }
    if Places::of(&context.observed, key).has_sends_in_flight() {
        return Err(Refusal::TooEarly);
    }
    // Nothing is on its way, so these are of messages that are not ours, or of deleted Broadcasts.
    context.metrics.receipts(ReceiptResult::UnknownId, unknown);
    Ok(())
}

fn too_large(error: &axum::Error) -> Refusal {
    let source = std::error::Error::source(error);
    let is_limit = source.is_some_and(|source| source.to_string().contains("length limit"));
    if is_limit { Refusal::TooLarge } else { Refusal::Incomplete }
}

/// Evidence by page.
type Found = BTreeMap<(ObjectKey, BroadcastUid), Vec<(usize, Row)>>;

/// Finds the rows of receipts. A receipt that is here before the answer to its send waits for that, for a while.
async fn locate(context: &Context, channel: &ObjectKey, mut receipts: Vec<Receipt>) -> (Found, usize) {
    let mut found = Found::new();
    let mut changes: watch::Receiver<u64> = context.observed.changes();
    let deadline = clock::monotonic() + EARLY_WAIT;
    loop {
        changes.mark_unchanged();
        let places = Places::of(&context.observed, channel);
        receipts.retain(|receipt| match places.find(&receipt.id) {
            Some(at) => {
                let rows = found.entry((at.page, at.broadcast)).or_default();
                rows.push((at.row, receipt.evidence.clone()));
                false
            }
            None => true,
        });
        let left = deadline.saturating_duration_since(clock::monotonic());
        if receipts.is_empty() || left.is_zero() || !places.has_sends_in_flight() {
            return (found, receipts.len());
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
async fn store(context: &Arc<Context>, found: Found) -> Result<(), Refusal> {
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
        join_all(merges).await.into_iter().collect::<Result<(), LedgerError>>()
    });
    match stored.await {
        Ok(stored) => stored.map_err(|error| Refusal::NotStored(Box::new(error))),
        Err(died) => Err(Refusal::NotStored(Box::new(died))),
    }
}
