//! What ids name, among the Broadcasts of several channels and namespaces.

use http::Response;
use jiff::SignedDuration;
use kube::Client;
use serde_json::json;

use super::*;
use crate::api::{BroadcastBatch, BroadcastBatchSpec, BroadcastIdentity};
use crate::clock;
use crate::domain::outcome::{Outcome, Row};
use crate::domain::page::{Page, Recipient};

/// A UID as the API server makes them.
fn uid(number: usize) -> String {
    format!("0b3f9a3e-1c5e-4c8e-9d0a-{number:012}")
}

/// The Broadcast of this number, younger than those before it, with the id that the gateway gave its one message.
struct Sent {
    number: usize,
    namespace: &'static str,
    channel: &'static str,
    message_id: String,
    completed: Option<Timestamp>,
}

impl Sent {
    fn broadcast(&self) -> Broadcast {
        let Self { number, namespace, channel, completed, .. } = self;
        let created = Timestamp::from_second(1_700_000_000 + i64::try_from(*number).expect("small"));
        let broadcast = json!({
            "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "Broadcast",
            "metadata": {
                "name": format!("sale-{number}"), "namespace": namespace, "uid": uid(*number),
                "creationTimestamp": created.expect("a time"),
            },
            "spec": {"message": {"text": "Hi"}, "recipients": {"csv": "1"}},
            "status": {
                "audienceDigest": "d", "completionTime": completed, "batches": {"total": 2, "done": 1},
                "resolved": {"channelRef": {"name": channel}, "message": {"text": "Hi"}},
            },
        });
        serde_json::from_value(broadcast).expect("a Broadcast")
    }

    fn batch(&self) -> BroadcastBatch {
        let recipient = Recipient { chat: "15550100".into(), skip: String::new(), params: [].into() };
        let mut page = Page::planned(vec![recipient]);
        page.merge(0, &Row::known(Outcome::Sent, 1, clock::now()).with_message_id(&self.message_id));
        let broadcast = BroadcastIdentity { name: format!("sale-{}", self.number), uid: uid(self.number) };
        let spec = BroadcastBatchSpec { broadcast, index: 0, recipients: page.recipients_csv() };
        let mut batch = BroadcastBatch::new(&format!("sale-{}-00000", self.number), spec);
        batch.metadata.namespace = Some(self.namespace.into());
        batch.metadata.uid = Some(format!("page-{}", self.number));
        batch.metadata.resource_version = Some("1".into());
        batch.status = Some(page.status());
        batch
    }
}

/// A Broadcast of the channel `sms`, complete for long.
fn sent(number: usize, message_id: &str) -> Sent {
    let completed = Some(clock::now() - SignedDuration::from_hours(1));
    Sent { number, namespace: "shop", channel: "sms", message_id: message_id.into(), completed }
}

fn observed(all: &[Sent]) -> Observed {
    let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(kube::client::Body::empty())))
    });
    let batches: Vec<_> = all.iter().map(Sent::batch).collect();
    let broadcasts = all.iter().map(Sent::broadcast).collect();
    Observed::showing(Client::new(nobody, "shop"), broadcasts, Vec::new(), &batches)
}

fn sms() -> ObjectKey {
    ObjectKey::new("shop", "sms")
}

#[tokio::test]
async fn an_id_names_the_youngest_message_of_its_channel_alone() {
    let observed = observed(&[
        sent(0, "1"),
        sent(2, "1"),
        sent(1, "1"),
        Sent { channel: "other", ..sent(3, "1") },
        Sent { namespace: "other", ..sent(4, "1") },
        Sent { channel: "other", ..sent(5, "2") },
    ]);
    let channel = sms();
    let places = Places::of(&observed, &channel);
    let Named::Row(at) = places.find("1") else { panic!("it is known") };
    assert_eq!((at.name.as_str(), at.row, at.named_by), ("sale-2", 0, NamedBy::MessageId));
    assert_eq!((at.channel.as_str(), at.broadcast.as_str()), ("sms", uid(2).as_str()));
    assert_eq!((places.find("2"), places.find("3")), (Named::Nothing, Named::Nothing));
}

#[tokio::test]
async fn a_token_names_its_row_in_the_channel_of_its_broadcast() {
    let observed = observed(&[
        sent(0, ""),
        Sent { channel: "other", ..sent(1, "") },
        Sent { namespace: "other", ..sent(2, "") },
    ]);
    let channel = sms();
    let places = Places::of(&observed, &channel);
    let find = |number, page: usize, row: usize| places.find(&format!("{}.{page}.{row}", uid(number)));
    let Named::Row(at) = find(0, 0, 0) else { panic!("it is known") };
    assert_eq!((at.name.as_str(), at.named_by), ("sale-0", NamedBy::Token));
    assert_eq!(find(0, 0, 1), Named::Stranger, "no such row");
    assert_eq!(find(0, 1, 0), Named::Unseen, "a page that should be there");
    assert_eq!(find(0, 2, 0), Named::Nothing, "a page that was never planned");
    assert_eq!(find(1, 0, 0), Named::Stranger, "of another channel");
    for number in [2, 3] {
        assert_eq!(find(number, 0, 0), Named::Homeless(BroadcastUid::new(uid(number))));
    }
}

#[tokio::test]
async fn sends_may_be_in_flight_until_a_minute_after_the_last_broadcast_of_the_channel() {
    let now = clock::now();
    for (channel, completed, expected) in [
        ("sms", None, true),
        ("sms", Some(now - SignedDuration::from_secs(59)), true),
        ("sms", Some(now - SignedDuration::from_secs(61)), false),
        ("other", None, false),
    ] {
        let observed = observed(&[sent(0, ""), Sent { channel, completed, ..sent(1, "") }, sent(2, "")]);
        let may_have = Places::of(&observed, &sms()).may_have_sends_in_flight(now);
        assert_eq!(may_have, expected, "{channel} {completed:?}");
    }
}
