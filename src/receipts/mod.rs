//! Receipts: what became of messages after the gateway took them.
//!
//! In: `POST /v1/namespaces/<namespace>/channels/<channel>/receipts`, signed. Out: outcomes in the ledger. The answer
//! goes out only after the receipts are stored, so that a crash makes the gateway send them again.

mod body;
mod early;
mod homes;
#[cfg(test)]
mod hostile_tests;
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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use futures::future::join_all;
use kube::runtime::events::Recorder;
use kube::{Client, Resource};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use crate::api::BroadcastChannelSpec;
use crate::clock;
use crate::connections::{self, Bounds};
use crate::domain::channel_verdict::RECEIPTS_REFUSED;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::outcome::{Outcome, Row};
use crate::domain::receipt::{Notices, Receipt};
use crate::domain::token::MessageToken;
use crate::events;
use crate::journal::{Journal, JournalError, PageOf};
use crate::ledger::{Ledger, LedgerError};
use crate::metrics::{Metrics, ReceiptResult};
use crate::observed::Observed;
use crate::providers::whatsapp;
use crate::webhooks::WebhookError;
use homes::Homes;
pub use looked_up::store_news;
use places::{At, Named, NamedBy, Places};
use refusal::Refusal;
use room::{BodyRoom, ChannelRoom, ChannelRooms};
use secrets::{SigningSecrets, Untrusted};
use source::{Content, Source};

/// Longest wait for the answer of a send whose receipt came before it.
const EARLY_WAIT: Duration = Duration::from_secs(2);

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
    let context = Context { books, secrets, bodies, channels, homes, recorder };
    let routes = Router::new()
        .route("/v1/namespaces/{namespace}/channels/{channel}/receipts", post(receive).get(shake_hands))
        .with_state(Arc::new(context));
    connections::serve(listener, routes, Bounds::RECEIPTS, ended).await;
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
    let Notices { receipts, preferences, malformed } = source.read(&content, clock::now())?;
    drop(content);
    drop(body);
    context.books.metrics.receipts(ReceiptResult::Malformed, malformed);
    let receipts = discreet(context, &key.namespace, &channel.spec, receipts).await;
    let taken = room.take(receipts.len() + preferences.len())?;
    let mut located = locate(context, key, &room, receipts).await;
    located.house(context, &key.namespace).await?;
    context.books.metrics.receipts(ReceiptResult::Applied, located.apart);
    let Located { found, notable, strangers, mut lost, unknown, unseen, .. } = located;
    stopping::stop(&context.books, &key.namespace, &notable).await?;
    // First what cannot fail for good: an opt-out that cannot be stored must not hold up the receipts for ever.
    store(context, found, taken).await?;
    opt_outs::follow(&context.books, key, &channel.spec, &preferences).await?;
    // Who opted out need not wait until it is known what message that was about.
    lost.extend(unknown.iter().filter(|receipt| receipt.is_opt_out).cloned());
    opt_outs::suppress(&context.books, key, &channel.spec, &notable, &lost).await?;
    // A watch that has just failed may not have brought what was sent meanwhile.
    if unseen || !unknown.is_empty() && context.books.observed.has_trouble(&key.namespace) {
        return Err(Refusal::TooEarly);
    }
    // With nothing in flight, these too are of messages that are not ours, or of deleted Broadcasts.
    let early = if Places::of(&context.books.observed, key).may_have_sends_in_flight(clock::now()) {
        let ids = unknown.iter().map(|receipt| receipt.id.as_str());
        room.refused.still_early(ids, clock::monotonic(), longest_send(&channel.spec))
    } else {
        0
    };
    context.books.metrics.receipts(ReceiptResult::UnknownId, strangers + unknown.len() - early);
    if early > 0 { Err(Refusal::TooEarly) } else { Ok(()) }
}

/// Receipts without secrets of the channel in what they say. Only failures say anything.
async fn discreet(
    context: &Context,
    namespace: &str,
    channel: &BroadcastChannelSpec,
    receipts: Vec<Receipt>,
) -> Vec<Receipt> {
    let says_nothing = |Row { code, detail, .. }: &Row| code.is_empty() && detail.is_empty();
    if receipts.iter().all(|receipt| says_nothing(&receipt.evidence)) {
        return receipts;
    }
    let words = context.secrets.words(namespace, channel).await;
    let told = |receipt: Receipt| receipt.without(words.iter().map(String::as_str));
    receipts.into_iter().map(told).collect()
}

/// Longest time from a request that is in flight now until the message id in its answer is known.
fn longest_send(channel: &BroadcastChannelSpec) -> Duration {
    Duration::from_secs(u64::try_from(channel.timeout_seconds()).unwrap_or_default()) + EARLY_WAIT
}

/// Evidence by page.
type Found = BTreeMap<PageOf, Vec<(usize, Row)>>;

/// Receipts by what their ids name.
#[derive(Default)]
struct Located {
    found: Found,
    /// Of these, those that may mean more than their chat: failures, and chats that want no more messages.
    notable: Vec<(At, Receipt)>,
    /// Receipts of participants of groups that say nothing of their rows.
    apart: usize,
    /// Receipts of messages that are not of this channel.
    strangers: usize,
    /// Of these, those of chats that want no more messages.
    lost: Vec<Receipt>,
    /// Receipts that may be of messages whose answers are on their way.
    unknown: Vec<Receipt>,
    /// Those of Broadcasts that are not in view.
    homeless: Vec<(BroadcastUid, Receipt)>,
    /// Whether some are of messages that are stored and not in view here.
    unseen: bool,
}

impl Located {
    /// Looks again for what was not found before.
    fn look(&mut self, places: &Places<'_>, room: Option<&ChannelRoom>) {
        for mut receipt in std::mem::take(&mut self.unknown) {
            let (id, named) = places.find_any(receipt.ids());
            let id = id.to_owned();
            match named {
                Named::Row(at) => {
                    if let Some(room) = room.filter(|_| at.named_by == NamedBy::Token) {
                        room.note_echo();
                    }
                    if places.are_one_message() {
                        // Whatever it is called: all tries of a chat are the same one.
                        receipt.evidence = receipt.evidence.with_message_id("");
                    } else if at.named_by == NamedBy::MessageId && receipt.evidence.message_id.is_empty() {
                        // It speaks of this very message, and of no other of its chat.
                        receipt.evidence = receipt.evidence.with_message_id(&id);
                    }
                    if receipt.is_of_whole_chat() {
                        let rows = self.found.entry(at.page_of()).or_default();
                        rows.push((at.row, receipt.evidence.clone()));
                    } else {
                        self.apart += 1;
                    }
                    if receipt.is_opt_out || receipt.evidence.outcome == Outcome::Failed {
                        self.notable.push((at, receipt));
                    }
                }
                Named::Nothing if places.is_of(&receipt.number) && !is_foreign(&id, places, room) => {
                    self.unknown.push(receipt);
                }
                Named::Unseen => self.unseen = true,
                Named::Homeless(uid) => self.homeless.push((uid, receipt)),
                Named::Nothing | Named::Stranger => self.is_stranger(receipt),
            }
        }
    }

    fn is_stranger(&mut self, receipt: Receipt) {
        self.strangers += 1;
        self.lost.extend(Some(receipt).filter(|receipt| receipt.is_opt_out));
    }

    /// Asks the API server about Broadcasts that are not in view. One that is there is in view soon; the others were deleted.
    async fn house(&mut self, context: &Context, namespace: &str) -> Result<(), Refusal> {
        let uids = self.homeless.iter().map(|(uid, _)| uid.clone()).collect();
        let there = context.homes.there(&context.books.client, namespace, uids).await;
        let there = there.map_err(|error| Refusal::NotStored(Box::new(error)))?;
        for (uid, receipt) in std::mem::take(&mut self.homeless) {
            match there.contains(&uid) {
                true => self.unseen = true,
                false => self.is_stranger(receipt),
            }
        }
        Ok(())
    }
}

/// Whether an id that names nothing is of a message that somebody else sent through the same account: ours come back with their tokens.
fn is_foreign(id: &str, places: &Places<'_>, room: Option<&ChannelRoom>) -> bool {
    id.parse::<MessageToken>().is_err() && places.have_tokens() && room.is_some_and(ChannelRoom::echoes)
}

/// Finds the rows of receipts. A receipt that is here before the answer to its send waits for that, for a while, when it
/// comes for the first time.
async fn locate(
    context: &Context,
    channel: &ObjectKey,
    room: &ChannelRoom,
    receipts: Vec<Receipt>,
) -> Located {
    let mut located = Located { unknown: receipts, ..Located::default() };
    let mut changes: watch::Receiver<u64> = context.books.observed.changes();
    let deadline = clock::monotonic() + EARLY_WAIT;
    loop {
        changes.mark_unchanged();
        let places = Places::of(&context.books.observed, channel);
        located.look(&places, Some(room));
        let left = deadline.saturating_duration_since(clock::monotonic());
        let ids = located.unknown.iter().map(|receipt| receipt.id.as_str());
        if left.is_zero() || !room.refused.is_any_new(ids) || !places.may_have_sends_in_flight(clock::now()) {
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
        let stored = merge(&context.books, found).await;
        // Their room is free only now: a gateway that hangs up and repeats must not fill the memory.
        drop(taken);
        stored
    });
    match stored.await {
        Ok(stored) => stored.map_err(|error| Refusal::NotStored(Box::new(error))),
        Err(died) => Err(Refusal::NotStored(Box::new(died))),
    }
}

/// Takes evidence into its pages or into journals, and counts it.
async fn merge(books: &Books, found: Found) -> Result<(), JournalError> {
    let Books { journal, metrics, .. } = books;
    let merges = found.into_iter().map(|(page, evidence)| async move {
        let receipts = evidence.len();
        match journal.store(&page, evidence).await {
            Ok(merged) => {
                metrics.receipts(ReceiptResult::UnknownId, merged.unmatched);
                metrics.receipts(ReceiptResult::Applied, receipts - merged.unmatched);
                Ok(())
            }
            // Deleted since, with its whole Broadcast.
            Err(JournalError::Page(LedgerError::Gone { .. } | LedgerError::Foreign { .. })) => {
                metrics.receipts(ReceiptResult::UnknownId, receipts);
                Ok(())
            }
            Err(error) => Err(error),
        }
    });
    join_all(merges).await.into_iter().collect()
}
