//! What a request told does not depend on whether its sender waits for the answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::Request;
use http::Response;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::journal::JournalSettings;

/// An API server that takes a suppression only when it is let, and fails as often as it is told to.
#[derive(Clone)]
struct Cluster {
    failures: Arc<AtomicUsize>,
    asked: Arc<Semaphore>,
    gate: Arc<Semaphore>,
    stored: Arc<AtomicUsize>,
}

impl Cluster {
    fn new() -> Self {
        let closed = || Arc::new(Semaphore::new(0));
        Self { failures: Arc::default(), asked: closed(), gate: closed(), stored: Arc::default() }
    }

    fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let cluster = cluster.clone();
            async move {
                let answer = cluster.answer(request.uri().path()).await;
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                let code = answer["code"].as_u64().map_or(200, |code| u16::try_from(code).expect("a status"));
                Ok::<_, Infallible>(Response::builder().status(code).body(body).expect("a response"))
            }
        });
        Client::new(service, "shop")
    }

    async fn answer(&self, path: &str) -> Value {
        if path.ends_with("/secrets/twilio") {
            return json!({"metadata": {"name": "twilio"}, "data": {"token": "MTIzNDU="}});
        }
        assert!(path.ends_with("/broadcastsuppressions"), "{path}");
        self.asked.add_permits(1);
        self.gate.acquire().await.expect("open").forget();
        let less = |left: usize| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403});
        }
        self.stored.fetch_add(1, Ordering::Relaxed);
        json!({
            "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastSuppression", "metadata": {"name": "sms-1"},
            "spec": {"channelRef": {"name": "sms"}, "chat": "15550100"},
        })
    }
}

fn context(client: &Client) -> Arc<Context> {
    let channel = json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastChannel",
        "metadata": {"name": "sms", "namespace": "shop"},
        "spec": {"provider": "Twilio", "twilio": {
            "accountSid": "AC0123456789abcdef0123456789abcdef", "from": "+15550199",
            "authTokenSecretRef": {"name": "twilio", "key": "token"}, "publicUrl": "https://receipts.example.com",
        }},
    });
    let channel = serde_json::from_value(channel).expect("a channel");
    let observed = Observed::showing(client.clone(), Vec::new(), vec![channel], &[]);
    let (metrics, settings) = (Metrics::new(), JournalSettings::default());
    let ledger = Arc::new(Ledger::new(client.clone(), observed.pages.clone()));
    let recorder = events::recorder(client.clone(), &ledger);
    let journal =
        Arc::new(Journal::new(client.clone(), ledger.clone(), observed.clone(), metrics.clone(), settings));
    let books = Books { client: client.clone(), ledger, journal, observed, metrics };
    let secrets = SigningSecrets::new(client.clone());
    let (bodies, channels, homes) = (BodyRoom::default(), ChannelRooms::default(), Homes::default());
    let (tasks, ended) = (TaskTracker::new(), CancellationToken::new());
    Arc::new(Context { books, secrets, bodies, channels, homes, recorder, tasks, ended })
}

/// Signed by Twilio's rule, with the token 12345.
fn opt_out() -> Request {
    Request::post("/v1/namespaces/shop/channels/sms/receipts")
        .header("x-twilio-signature", "XShPJxh/M8YSoq8vhYK5tm1k2J0=")
        .body(Body::from("From=%2B15550100&OptOutType=STOP"))
        .expect("a request")
}

#[tokio::test]
async fn what_cannot_be_stored_now_is_stored_later_where_it_does_not_come_again() {
    let cluster = Cluster::new();
    let context = context(&cluster.client());
    cluster.failures.store(2, Ordering::Relaxed);
    cluster.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    let taken = take(&context, &ObjectKey::new("shop", "sms"), opt_out()).await;
    assert!(matches!(taken, Err(Refusal::NotStored(_))), "{taken:?}");
    assert_eq!(cluster.stored.load(Ordering::Relaxed), 0);
    context.tasks.close();
    context.tasks.wait().await;
    assert_eq!(cluster.stored.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_opt_out_is_stored_although_its_sender_has_hung_up() {
    let cluster = Cluster::new();
    let context = context(&cluster.client());
    let key = ObjectKey::new("shop", "sms");
    let mut taking = Box::pin(take(&context, &key, opt_out()));
    tokio::select! {
        taken = &mut taking => panic!("it cannot be stored yet: {taken:?}"),
        asked = cluster.asked.acquire() => asked.expect("open").forget(),
    }
    // As the server does when the connection ends.
    drop(taking);
    cluster.gate.add_permits(1);
    context.tasks.close();
    context.tasks.wait().await;
    assert_eq!(cluster.stored.load(Ordering::Relaxed), 1);
}
