//! What stops by itself (client required): a Broadcast by its status, a channel by what receipts say of its account.
//!
//! In: why. Out: a status, written on the version that was looked at. A stop of a Broadcast belongs to the generation of its spec, and one
//! of a channel to its gateway; they count for no other.

use std::fmt::Debug;
use std::ops::ControlFlow;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{
    Broadcast, BroadcastChannel, BroadcastStatus, ChannelStatus, Condition, ReportedTrouble, StopEvidence,
    StopStatus, TroubleReason,
};
use crate::clock;
use crate::cluster::{ApiError, within};
use crate::domain::gateway_mark::GatewayMark;
use crate::domain::ids::{BroadcastUid, ObjectKey};

/// Tries of one write that meets others: each status is written once a second while messages are sent.
const TRIES: usize = 5;

/// Writes the stop into the status of a Broadcast, unless its spec was changed since, it is gone, or it has gone on after such a
/// stop since the message was `sent`. Returns whether it stands there.
///
/// # Errors
/// When the API server does not take it, or somebody else was faster each time; it may take it later.
pub async fn stop_broadcast(
    client: &Client,
    key: &ObjectKey,
    uid: &BroadcastUid,
    stop: &StopStatus,
    sent: Option<Timestamp>,
) -> Result<bool, ApiError> {
    let stored = write_status(client, key, |broadcast: &mut Broadcast| {
        let is_same = broadcast.metadata.uid.as_deref() == Some(uid.as_str())
            && broadcast.metadata.generation == Some(stop.observed_generation);
        match &mut broadcast.status {
            Some(status) if is_same && has_stopped(status.stop.as_ref(), stop) => {
                return ControlFlow::Break(true);
            }
            Some(status) if is_same && !has_gone_on(status, sent) => status.stop = Some(stop.clone()),
            _ => return ControlFlow::Break(false),
        }
        ControlFlow::Continue(())
    });
    stored.await.map(|stored| stored.unwrap_or(false))
}

/// Whether a Broadcast has gone on after a stop since a message was sent: whoever changed its spec knew what was wrong with that one.
fn has_gone_on(status: &BroadcastStatus, sent: Option<Timestamp>) -> bool {
    let Some(sent) = sent else { return false };
    // A stop of an earlier spec is about to be taken out: nothing can have been sent since.
    status.stop.is_some() || is_before(sent, status.settled_time.as_ref())
}

/// Whether something was sent before trouble was settled, in whole seconds, as a status holds times.
fn is_before(sent: Timestamp, settled: Option<&Time>) -> bool {
    settled.is_some_and(|settled| sent.as_second() <= settled.0.as_second())
}

fn has_stopped(stored: Option<&StopStatus>, stop: &StopStatus) -> bool {
    stored.is_some_and(|stored| stored.observed_generation == stop.observed_generation)
}

/// Whether a channel is still to be stopped or slowed down for what a receipt says of its account. Not when that was long ago, when it
/// has done so already, or when somebody has settled such trouble since the message was `sent`.
#[must_use]
pub fn is_news(
    channel: &BroadcastChannel,
    trouble: &ReportedTrouble,
    sent: Timestamp,
    now: Timestamp,
) -> bool {
    if trouble.is_stale(now) {
        return false;
    }
    let gateway = GatewayMark::of(channel);
    if trouble.observed_gateway != gateway.digest {
        return false;
    }
    let Some(status) = &channel.status else { return true };
    if !gateway.is_of_status(channel) {
        // Until its sender has seen another gateway, what comes is of messages that went through the one before.
        return status.observed_gateway.is_none();
    }
    let standing = status.reported.as_ref().and_then(|reported| reported.of_gateway(&gateway.digest));
    let is_reported = standing.is_some_and(|standing| !trouble.replaces(&standing));
    !is_reported && !has_stopped_for(status, trouble) && !is_before(sent, status.settled_time.as_ref())
}

/// Whether a channel has stopped for such trouble already, or for something of which receipts told: nobody ends that and leaves this. What
/// else it has stopped for may be over sooner. One that takes nothing at all need not slow down.
fn has_stopped_for(status: &ChannelStatus, trouble: &ReportedTrouble) -> bool {
    match &status.stop {
        Some(stop) => {
            let is_by_receipt = stop.shown_by == Some(StopEvidence::Receipt);
            trouble.reason == TroubleReason::RateLimited
                || stop.reason == trouble.reason
                || is_by_receipt && !trouble.reason.outlasts(stop.reason)
        }
        // A version that had no stops in its statuses showed them as conditions alone.
        None => status.observed_gateway.is_none() && Condition::is_true(&status.conditions, "Stalled"),
    }
}

/// Writes into the status of a channel what a receipt of a message that was `sent` then says of its account. Whoever sends for it
/// stops then, or slows down.
///
/// # Errors
/// When the API server does not take it, or somebody else was faster each time.
pub async fn report_trouble(
    client: &Client,
    key: &ObjectKey,
    trouble: &ReportedTrouble,
    sent: Timestamp,
) -> Result<(), ApiError> {
    let stored = write_status(client, key, |channel: &mut BroadcastChannel| {
        if !is_news(channel, trouble, sent, clock::now()) {
            return ControlFlow::Break(true);
        }
        channel.status.get_or_insert_default().reported = Some(trouble.clone());
        ControlFlow::Continue(())
    });
    stored.await.map(|_| ())
}

/// Writes a status as `change` makes it of the one that stands there, which is looked at again each time that somebody else was faster.
/// Out: true when it was written, what `change` has broken off with, or none when there is no such object.
async fn write_status<K>(
    client: &Client,
    key: &ObjectKey,
    change: impl Fn(&mut K) -> ControlFlow<bool>,
) -> Result<Option<bool>, ApiError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
    let mut tries = 1;
    loop {
        let mut object = match within(api.get(&key.name)).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        if let ControlFlow::Break(out) = change(&mut object) {
            return Ok(Some(out));
        }
        match within(api.replace_status(&key.name, &PostParams::default(), &object)).await {
            Ok(_) => return Ok(Some(true)),
            Err(error) if error.is_conflict() && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
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
    use crate::api::{ChannelStop, StopReason};

    /// An API server that holds this Broadcast, and answers so many writes of its status with a conflict. Out: it, and the writes.
    fn cluster(broadcast: Value, conflicts: usize) -> (Client, Arc<AtomicUsize>) {
        let writes = Arc::new(AtomicUsize::new(0));
        let counted = writes.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let is_write = *request.method() == Method::PUT;
            let is_conflict = is_write && counted.fetch_add(1, Ordering::Relaxed) < conflicts;
            let (code, body) = match is_conflict {
                true => {
                    (409, json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict"}))
                }
                false => (200, broadcast.clone()),
            };
            let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            std::future::ready(Ok::<_, Infallible>(response.expect("a response")))
        });
        (Client::new(service, "default"), writes)
    }

    fn stop() -> StopStatus {
        StopStatus {
            reason: StopReason::ErrorPolicy,
            code: "7".into(),
            message: String::new(),
            observed_generation: 1,
        }
    }

    #[tokio::test]
    async fn a_stop_is_written_again_when_somebody_else_was_faster() {
        for (conflicts, expected, tries) in [(0, Some(true), 1), (4, Some(true), 5), (5, None, 5)] {
            let broadcast = json!({
                "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "Broadcast",
                "metadata": {"name": "sale", "uid": "u", "generation": 1},
                "spec": {"channelRef": {"name": "sms"}, "message": {"text": "Hi"}, "audience": []},
                "status": {},
            });
            let (client, writes) = cluster(broadcast, conflicts);
            let (key, uid) = (ObjectKey::new("shop", "sale"), BroadcastUid::new("u".into()));
            let stored = stop_broadcast(&client, &key, &uid, &stop(), Some(at(100))).await;
            assert_eq!(stored.ok(), expected, "{conflicts} conflicts");
            assert_eq!(writes.load(Ordering::Relaxed), tries, "{conflicts} conflicts");
        }
    }

    /// A channel that went on at that second after it was stalled, and is stalled or not.
    fn channel(settled: Option<i64>, stalled: &str) -> BroadcastChannel {
        let stalled = json!({"type": "Stalled", "status": stalled, "observedGeneration": 2, "lastTransitionTime": at(1).to_string(),
                             "reason": "Any", "message": ""});
        let channel = json!({
            "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastChannel",
            "metadata": {"name": "sms", "generation": 2},
            "spec": {"provider": "HTTP"},
            "status": {"observedGeneration": 2, "conditions": [stalled], "settledTime": settled.map(|second| at(second).to_string())},
        });
        let mut channel: BroadcastChannel = serde_json::from_value(channel).expect("a channel");
        channel.status.get_or_insert_default().observed_gateway = Some(GatewayMark::of(&channel).digest);
        channel
    }

    /// A channel that has stopped for this.
    fn stopped_for(reason: TroubleReason) -> BroadcastChannel {
        let mut channel = channel(None, "True");
        let stop = ChannelStop { reason, code: "1".into(), shown_by: None, message: String::new() };
        channel.status.get_or_insert_default().stop = Some(stop);
        channel
    }

    /// The same channel with a status of a version that had no marks of gateways.
    fn without_gateway(mut channel: BroadcastChannel) -> BroadcastChannel {
        channel.status.get_or_insert_default().observed_gateway = None;
        channel
    }

    /// What a receipt says of the gateway of those channels.
    fn trouble(second: i64) -> ReportedTrouble {
        trouble_of(&GatewayMark::of(&channel(None, "False")).digest, second)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("small")
    }

    fn trouble_of(gateway: &str, second: i64) -> ReportedTrouble {
        ReportedTrouble {
            reason: TroubleReason::AccountRestricted,
            code: "131031".into(),
            message: String::new(),
            observed_gateway: gateway.into(),
            time: Time(at(second)),
            sent: None,
        }
    }

    #[test]
    fn trouble_is_news_unless_the_channel_has_stopped_for_it_or_was_mended_since_the_message_was_sent() {
        for (channel, trouble, sent, expected) in vec![
            (channel(None, "False"), trouble(150), 100, true),
            (channel(Some(100), "False"), trouble(150), 101, true),
            (channel(Some(100), "False"), trouble(150), 100, false),
            (channel(Some(100), "False"), trouble(150), 99, false),
            (channel(None, "False"), trouble_of("another", 150), 200, false),
            (without_gateway(channel(Some(100), "True")), trouble(150), 200, false),
            (stopped_for(TroubleReason::AccountRestricted), trouble(150), 200, false),
            (stopped_for(TroubleReason::AuthenticationFailed), trouble(150), 200, true),
            (channel(None, "True"), trouble(150), 200, true),
        ] {
            assert_eq!(
                is_news(&channel, &trouble, at(sent), at(600)),
                expected,
                "{channel:?} {trouble:?} {sent}"
            );
        }
        let mut reported = channel(None, "False");
        reported.status.get_or_insert_default().reported = Some(trouble(150));
        assert!(!is_news(&reported, &trouble(150), at(200), at(300)), "it is on its way");
        reported.status.get_or_insert_default().reported = Some(trouble_of("", 150));
        assert!(!is_news(&reported, &trouble(150), at(200), at(300)), "as a version without marks says");
        let limit = ReportedTrouble { reason: TroubleReason::RateLimited, ..trouble(150) };
        let stopped = stopped_for(TroubleReason::AccountRestricted);
        assert!(!is_news(&stopped, &limit, at(200), at(300)), "it takes nothing at all");
    }

    #[test]
    fn what_receipts_have_stopped_a_channel_for_keeps_out_all_that_ends_no_later() {
        use TroubleReason::{AccountRestricted, PaymentRequired, StoppedByErrorPolicy};
        for (stopped, told, expected) in [
            (AccountRestricted, AccountRestricted, false),
            (PaymentRequired, AccountRestricted, false),
            (AccountRestricted, StoppedByErrorPolicy, false),
            (StoppedByErrorPolicy, StoppedByErrorPolicy, false),
            // The rule may be taken away: that settles nothing with the provider.
            (StoppedByErrorPolicy, AccountRestricted, true),
        ] {
            let mut channel = stopped_for(stopped);
            let status = channel.status.get_or_insert_default();
            status.stop.as_mut().expect("a stop").shown_by = Some(StopEvidence::Receipt);
            let told = ReportedTrouble { reason: told, ..trouble(150) };
            assert_eq!(is_news(&channel, &told, at(200), at(300)), expected, "{stopped:?} {told:?}");
            let standing = ReportedTrouble { reason: stopped, ..trouble(100) };
            channel.status.get_or_insert_default().reported = Some(standing);
            assert_eq!(is_news(&channel, &told, at(200), at(300)), expected, "{stopped:?} {told:?}");
        }
    }

    #[test]
    fn a_receipt_says_nothing_of_another_gateway_before_its_sender_has_seen_that() {
        let mut channel = channel(None, "False");
        channel.spec.ca_secret_ref = Some(crate::api::KeyRef { name: "ca".into(), key: "ca".into() });
        let gateway = GatewayMark::of(&channel).digest;
        let told = trouble_of(&gateway, 150);
        assert!(!is_news(&channel, &told, at(200), at(300)));
        channel.status.get_or_insert_default().observed_gateway = Some(gateway);
        assert!(is_news(&channel, &told, at(200), at(300)));
        channel.status = None;
        assert!(is_news(&channel, &told, at(200), at(300)));
    }

    #[test]
    fn a_receipt_stops_a_broadcast_unless_it_has_gone_on_since_the_message_was_sent() {
        let settled =
            |second: i64| BroadcastStatus { settled_time: Some(Time(at(second))), ..Default::default() };
        let stopped = BroadcastStatus { stop: Some(stop()), ..Default::default() };
        for (status, sent, expected) in [
            (BroadcastStatus::default(), Some(100), false),
            (settled(100), Some(100), true),
            (settled(100), Some(101), false),
            (settled(100), None, false),
            (stopped.clone(), Some(200), true),
            (stopped, None, false),
        ] {
            assert_eq!(has_gone_on(&status, sent.map(at)), expected, "{status:?} {sent:?}");
        }
    }

    #[test]
    fn a_limit_is_reported_again_when_it_shows_long_after_the_last_one_and_never_keeps_a_stop_out() {
        let limit = |second| ReportedTrouble { reason: TroubleReason::RateLimited, ..trouble(second) };
        let mut channel = channel(None, "False");
        assert!(is_news(&channel, &limit(100), at(100), at(400)));
        assert!(!is_news(&channel, &limit(100), at(100), at(401)), "it is too long ago");
        let mut is_news_after = |standing: ReportedTrouble, told: ReportedTrouble| {
            channel.status.get_or_insert_default().reported = Some(standing);
            is_news(&channel, &told, at(200), at(200))
        };
        assert!(!is_news_after(limit(100), limit(130)), "that was sent before it slowed down");
        assert!(is_news_after(limit(100), limit(131)));
        assert!(is_news_after(limit(100), trouble(100)));
        assert!(!is_news_after(trouble(100), limit(200)));
    }

    #[test]
    fn trouble_of_more_than_an_hour_ago_is_no_news() {
        for (age, expected) in [(0, true), (3600, true), (3601, false), (-60, true)] {
            for channel in [channel(None, "False"), channel(Some(1), "False")] {
                let told = trouble(100);
                assert_eq!(is_news(&channel, &told, at(100), at(100 + age)), expected, "{age} s ago");
            }
        }
    }
}
