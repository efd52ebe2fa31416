//! Stored suppressions (client required): chats that opted out of a channel are written down, and read before a Broadcast is
//! planned.

use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};

use crate::api::{BroadcastSuppression, SuppressionReason};
use crate::clock;
use crate::cluster::{ApiError, CALL_TIMEOUT, as_seen, within};
use crate::domain::chat::{ChatProblem, ChatRules};
use crate::domain::ids::ObjectKey;
use crate::domain::suppression::{Suppressed, is_taken_back, name_of, renewed, suppression_of};

/// Suppressions that are asked for at once: a few hundred kilobytes.
const SUPPRESSIONS_PER_LIST: u32 = 500;
/// Suppressions that are told of at once, of those whose chat cannot be read: a file with a wrong column has thousands.
const MAX_UNREAD: usize = 10;
/// Waits between the tries of one write, about 3 s together. All tries together take no longer than one call may: whoever writes
/// holds back an answer of a gateway or a receipt meanwhile.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const TRIES: usize = 6;

/// Writes down that a channel must not send to a chat any more, since this time. One that is there already stays as it is, unless the
/// chat has said it anew since. `code` is the provider's, or empty.
///
/// # Errors
/// When the API server does not take it, or not within the tries.
pub async fn record(
    client: &Client,
    channel: &ObjectKey,
    chat: &str,
    reason: SuppressionReason,
    code: &str,
    since: Timestamp,
) -> Result<(), ApiError> {
    let suppression = suppression_of(channel, chat, reason, code, since);
    let api = api(client, channel);
    tried(|| create(&api, &suppression)).await
}

/// Forgets what was recorded of a chat, because it opted in again, unless it has opted out since. What a person wrote down stays: one
/// of reason Manual, and one under a name of their own; and what a rule of the channel says.
///
/// # Errors
/// When the API server does not delete it, or not within the tries.
pub async fn forget(
    client: &Client,
    channel: &ObjectKey,
    chat: &str,
    since: Timestamp,
) -> Result<(), ApiError> {
    let name = name_of(&channel.name, chat);
    let api = api(client, channel);
    tried(|| delete(&api, &name, since)).await
}

/// What is stored of a channel.
#[derive(Debug)]
pub struct Stored {
    /// The chats that it must not send to.
    pub suppressed: Suppressed,
    /// Some of the suppressions whose chat is none of this channel, and why.
    pub unread: Vec<(ObjectReference, ChatProblem)>,
}

/// All chats that a channel must not send to, as they are stored now, read as the channel reads those of an audience.
///
/// # Errors
/// When they cannot be listed to their end.
pub async fn of_channel(client: &Client, channel: &ObjectKey, rules: ChatRules) -> Result<Stored, ApiError> {
    let api = api(client, channel);
    let selector = format!("spec.channelRef.name={}", channel.name);
    let mut params = ListParams::default().limit(SUPPRESSIONS_PER_LIST).fields(&selector);
    let mut suppressed = Suppressed::of(rules);
    let mut unread = Vec::new();
    loop {
        let list = within(api.list(&params)).await?;
        let news = suppressed.add(&channel.name, &list.items).into_iter();
        let news = news.map(|(suppression, problem)| (suppression.object_ref(&()), problem));
        unread.extend(news.take(MAX_UNREAD - unread.len()));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(Stored { suppressed, unread }),
        }
    }
}

async fn create(api: &Api<BroadcastSuppression>, suppression: &BroadcastSuppression) -> Result<(), ApiError> {
    match within(api.create(&PostParams::default(), suppression)).await {
        Ok(_) => Ok(()),
        // Gone meanwhile: whoever deleted it knew nothing of this opt-out, so it is created at the next try.
        Err(error) if error.is_already_exists() => match renew(api, suppression).await? {
            Found::There => Ok(()),
            Found::Gone => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Whether a suppression that was there a moment ago still is.
enum Found {
    There,
    Gone,
}

/// Says it anew in one that is there already, if it is still as it was read.
async fn renew(api: &Api<BroadcastSuppression>, again: &BroadcastSuppression) -> Result<Found, ApiError> {
    let name = again.name_any();
    let renewed = async {
        let mut found = within(api.get(&name)).await?;
        let Some(spec) = renewed(&found.spec, &again.spec) else { return Ok(()) };
        found.spec = spec;
        within(api.replace(&name, &PostParams::default(), &found)).await.map(drop)
    };
    match renewed.await {
        Ok(()) => Ok(Found::There),
        Err(error) if error.is_not_found() => Ok(Found::Gone),
        Err(error) => Err(error),
    }
}

/// Deletes one that the chat takes back, if it is still as it was read.
async fn delete(api: &Api<BroadcastSuppression>, name: &str, since: Timestamp) -> Result<(), ApiError> {
    let deleted = async {
        let found = within(api.get(name)).await?;
        if !is_taken_back(&found.spec, since) {
            return Ok(());
        }
        let params = DeleteParams::default().preconditions(as_seen(&found));
        within(api.delete(&found.name_any(), &params)).await.map(drop)
    };
    match deleted.await {
        Err(error) if error.is_not_found() => Ok(()),
        finished => finished,
    }
}

/// Repeats a write that can be repeated until it is done, refused for good, or out of tries or time. One that found an object which was
/// gone when it was read can be.
async fn tried<F>(mut write: impl FnMut() -> F) -> Result<(), ApiError>
where
    F: Future<Output = Result<(), ApiError>>,
{
    let mut waits = ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .with_max_times(TRIES - 1)
        .build();
    let tries = async {
        loop {
            let error = match write().await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_temporary() || error.is_conflict() || error.is_already_exists() => {
                    error
                }
                Err(error) => return Err(error),
            };
            match waits.next() {
                Some(wait) => clock::wait(wait).await,
                None => return Err(error),
            }
        }
    };
    tokio::time::timeout(CALL_TIMEOUT, tries).await.unwrap_or(Err(ApiError::TimedOut))
}

fn api(client: &Client, channel: &ObjectKey) -> Api<BroadcastSuppression> {
    Api::namespaced(client.clone(), &channel.namespace)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Method, Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    const TIME: &str = "2026-11-23T10:00:00Z";

    /// An API server on which a suppression is there at so many creations, and is gone when it is looked at, or when it is written.
    /// Out: it, and the creations.
    fn cluster(held: usize, is_gone_when_written: bool) -> (Client, Arc<AtomicUsize>) {
        let creations = Arc::new(AtomicUsize::new(0));
        let counted = creations.clone();
        let stored = json!({
            "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastSuppression", "metadata": {"name": "sms-1"},
            "spec": {"channelRef": {"name": "sms"}, "chat": "15550100", "reason": "OptedOut", "time": "2026-11-23T09:00:00Z"},
        });
        let refused = |code: u16, reason: &str| {
            let details = json!({"name": "sms-1"});
            let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "details": details});
            (code, status)
        };
        let service = tower::service_fn(move |request: Request<Body>| {
            let (code, body): (u16, Value) = match *request.method() {
                Method::POST if counted.fetch_add(1, Ordering::Relaxed) < held => {
                    refused(409, "AlreadyExists")
                }
                Method::GET if !is_gone_when_written => refused(404, "NotFound"),
                Method::PUT => refused(404, "NotFound"),
                _ => (200, stored.clone()),
            };
            let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            std::future::ready(Ok::<_, Infallible>(response.expect("a response")))
        });
        (Client::new(service, "shop"), creations)
    }

    async fn record_in(client: &Client) -> Result<(), ApiError> {
        let channel = ObjectKey::new("shop", "sms");
        let since = TIME.parse().expect("time");
        record(client, &channel, "15550100", SuppressionReason::OptedOut, "", since).await
    }

    #[tokio::test]
    async fn an_opt_out_whose_forerunner_is_deleted_at_the_same_moment_is_written_anew() {
        for is_gone_when_written in [false, true] {
            let (client, creations) = cluster(2, is_gone_when_written);
            record_in(&client).await.expect("should be recorded");
            assert_eq!(creations.load(Ordering::Relaxed), 3, "gone when written: {is_gone_when_written}");
        }
    }

    #[tokio::test]
    async fn an_opt_out_that_cannot_be_written_is_never_said_to_be() {
        let (client, creations) = cluster(usize::MAX, false);
        assert!(record_in(&client).await.is_err());
        assert_eq!(creations.load(Ordering::Relaxed), TRIES);
    }
}
