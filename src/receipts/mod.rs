//! Receipts: what became of messages after the gateway took them.
//!
//! In: `POST /v1/namespaces/<namespace>/channels/<channel>/receipts`, signed. Out: outcomes in the ledger. The answer
//! goes out only after the receipts are stored, so that a crash makes the gateway send them again.

mod body;
mod early;
mod homes;
#[cfg(test)]
mod hostile_tests;
mod located;
mod looked_up;
mod meaning;
mod opt_outs;
mod places;
mod refusal;
mod refused_log;
mod room;
mod secrets;
mod source;
#[cfg(test)]
mod source_tests;
mod stopping;
mod told;
#[cfg(test)]
mod told_tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use kube::runtime::events::Recorder;
use kube::{Client, Resource};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::connections::{self, Bounds};
use crate::domain::channel_verdict::RECEIPTS_REFUSED;
use crate::domain::ids::ObjectKey;
use crate::events;
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::metrics::{Metrics, ReceiptResult};
use crate::observed::Observed;
use crate::providers::whatsapp;
use crate::webhooks::WebhookError;
use homes::Homes;
pub use looked_up::store_news;
use refusal::Refusal;
use room::{BodyRoom, ChannelRoom, ChannelRooms};
use secrets::{SigningSecrets, Untrusted};
use source::{Content, Source};
use told::Told;

/// What receipts are stored in, and what else follows from them.
#[derive(Clone)]
pub struct Books {
    /// For channels, Broadcasts and suppressions.
    pub client: Client,
    /// For reading pages.
    pub ledger: Arc<Ledger>,
    /// For evidence.
    pub journal: Arc<Journal>,
    /// What this process sees.
    pub observed: Observed,
    /// What is counted.
    pub metrics: Metrics,
}

struct Context {
    books: Books,
    secrets: SigningSecrets,
    bodies: BodyRoom,
    channels: ChannelRooms,
    homes: Homes,
    /// For events.
    recorder: Recorder,
    /// What is stored, and what waits for its messages.
    tasks: TaskTracker,
    /// Nothing waits any more.
    ended: CancellationToken,
}

impl Context {
    /// Tells, beside the answer and not too often, that the secret of a channel may be wrong, or cannot be used.
    fn doubt_secret(&self, channel: &ObjectKey, room: &ChannelRoom, reason: &Untrusted) {
        let note = match reason {
            Untrusted::Signature(WebhookError::NoMatch) => {
                "receipts are answered 401: no signature matches. The signing secret is not that of the gateway, unless somebody else sent \
                 them"
            }
            Untrusted::Unusable => {
                "receipts are answered 503, to come again: a Secret that they are checked with cannot be used"
            }
            _ => return,
        };
        let Some(object) = self.books.observed.channel(channel) else { return };
        if room.refusals.is_event(clock::monotonic()) {
            let (recorder, object) = (self.recorder.clone(), object.object_ref(&()));
            tokio::spawn(
                async move { events::warn(&recorder, &object, RECEIPTS_REFUSED, note.into()).await },
            );
        }
    }

    fn room_of(&self, channel: &ObjectKey) -> Arc<ChannelRoom> {
        self.channels.of(channel, |channel| self.books.observed.channel(channel).is_some())
    }
}

/// Serves until `ended`.
pub async fn serve(listener: TcpListener, books: Books, recorder: Recorder, ended: CancellationToken) {
    let secrets = SigningSecrets::new(books.client.clone());
    let (bodies, channels, homes) = (BodyRoom::default(), ChannelRooms::default(), Homes::default());
    let (tasks, end) = (TaskTracker::new(), ended.clone());
    let context =
        Context { books, secrets, bodies, channels, homes, recorder, tasks: tasks.clone(), ended: end };
    let routes = Router::new()
        .route("/v1/namespaces/{namespace}/channels/{channel}/receipts", post(receive).get(shake_hands))
        .with_state(Arc::new(context));
    connections::serve(listener, routes, Bounds::RECEIPTS, ended).await;
    tasks.close();
    tasks.wait().await;
}

async fn receive(
    State(context): State<Arc<Context>>,
    Path((namespace, channel)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let channel = ObjectKey::new(namespace, channel);
    let received = take(&context, &channel, request).await;
    if let Some(reason) = received.as_ref().err().and_then(Refusal::deferred)
        && let Some(channel) = context.books.observed.channel(&channel)
    {
        context.books.metrics.deferred(channel.spec.provider, reason);
    }
    match &received {
        Err(Refusal::Untrusted(reason)) => {
            context.books.metrics.receipts(ReceiptResult::Refused, 1);
            let room = context.room_of(&channel);
            if let Some(requests) = room.refusals.to_tell(clock::monotonic()) {
                tracing::warn!(channel = %channel, %reason, requests, "refused receipts");
            }
            context.doubt_secret(&channel, &room, reason);
        }
        Err(Refusal::Malformed(_)) => context.books.metrics.receipts(ReceiptResult::Malformed, 1),
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
    let channel = context.books.observed.channel(&key).ok_or(Refusal::NoChannel)?;
    let wanted =
        channel.spec.whats_app.as_ref().and_then(|whats_app| whats_app.verify_token_secret_ref.as_ref());
    let tokens = context.secrets.values(&key.namespace, wanted.ok_or(Refusal::WrongToken)?).await?;
    let challenge = tokens.iter().find_map(|token| whatsapp::webhook::challenge(&query, token));
    challenge.ok_or(Refusal::WrongToken)
}

async fn take(context: &Arc<Context>, key: &ObjectKey, request: Request) -> Result<(), Refusal> {
    let channel = context.books.observed.channel(key).ok_or(Refusal::NoChannel)?;
    let (head, body) = request.into_parts();
    let source = Source::of(&channel.spec, &head)?;
    if source.is_shown_by_head() {
        context.secrets.check(&key.namespace, &source, &Content::Bytes(&[])).await?;
    }
    let body = context.bodies.read(body, source.largest_body()).await?;
    let content = source.content(&body.bytes).map_err(Refusal::Excessive)?;
    if !source.is_shown_by_head() {
        context.secrets.check(&key.namespace, &source, &content).await?;
    }
    let room = context.room_of(key);
    if source.secret.is_some() {
        room.refusals.is_genuine(clock::monotonic());
    }
    let notices = source.read(&content, clock::now())?;
    let comes_again = source.comes_again();
    drop(content);
    drop(body);
    context.books.metrics.receipts(ReceiptResult::Malformed, notices.malformed);
    let taken = room.take(notices.receipts.len() + notices.preferences.len())?;
    let (key, channel) = (key.clone(), channel.clone());
    Told { key, channel, room, notices, comes_again, taken }.stored(context).await
}
