//! Everything that one test needs: a namespace, a gateway, an operator, and short ways to say what is wanted.

use std::fmt::Debug;
use std::time::Duration;

use broadcast_operator::api::{Broadcast, BroadcastBatch, BroadcastChannel, Condition, Counts, OutcomeName};
use broadcast_operator::simulator::{ReceiptSettings, Rule, SendQuery, Settings, Simulator};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::chart;
use super::control_plane::{self, ControlPlane};
use super::operator::Operator;
use super::wait::{PATIENCE, until, until_within};

/// Signs the receipts of all tests.
pub const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Bearer token of all tests.
pub const TOKEN: &str = "gateway-token";
/// Name of the channel of all tests, unless they make more.
pub const CHANNEL: &str = "sms";

/// A namespace with an operator and a gateway.
pub struct Stage {
    pub plane: &'static ControlPlane,
    pub namespace: String,
    pub client: Client,
    pub operator: Operator,
    pub gateway: Simulator,
}

impl Stage {
    /// A stage with a channel.
    pub async fn new() -> Self {
        let stage = Self::bare().await;
        stage.apply(&stage.channel(CHANNEL, json!({}), json!({})));
        stage
    }

    /// A stage with the gateway's Secret and no channel.
    pub async fn bare() -> Self {
        Self::with_flags(&[]).await
    }

    /// A bare stage whose operator has these flags besides.
    pub async fn with_flags(flags: &[&str]) -> Self {
        let plane = control_plane::shared().await;
        let account = chart::account(plane).await;
        Self::on(plane, account, flags).await
    }

    /// The same on a control plane of its own, which may be stopped and put back. It ends with the test binary.
    pub async fn alone(flags: &[&str]) -> Self {
        let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start().await));
        plane.install_crds();
        chart::install(plane);
        Self::on(plane, chart::RELEASE, flags).await
    }

    async fn on(plane: &'static ControlPlane, account: &str, flags: &[&str]) -> Self {
        let client = plane.client().await;
        let namespace = format!("t-{}", &uuid());
        plane.kubectl(&["create", "namespace", &namespace], "");
        let operator = Operator::launch_replica(plane, account, &namespace, "pod-0", flags);
        operator.ready().await;
        let settings = Settings { token: Some(TOKEN.into()), ..Settings::default() };
        let gateway = Simulator::start(settings).await.expect("should start a gateway");
        let stage = Self { plane, namespace, client, operator, gateway };
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway"},
            "stringData": {"token": TOKEN, "signing": SIGNING_SECRET},
        });
        stage.apply(&secret);
        stage
    }

    /// One more operator for the namespace.
    pub async fn join(&self, pod: &str, flags: &[&str]) -> Operator {
        let operator = Operator::launch_replica(self.plane, chart::RELEASE, &self.namespace, pod, flags);
        operator.ready().await;
        operator
    }

    /// A channel to the gateway, with more fields for `http` and for `spec`.
    pub fn channel(&self, name: &str, http: Value, spec: Value) -> Value {
        let mut channel = json!({
            "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastChannel", "metadata": {"name": name},
            "spec": {"provider": "HTTP", "http": {
                "url": format!("{}/messages/{name}", self.gateway.url()),
                "tokenSecretRef": {"name": "gateway", "key": "token"},
                "signingSecretRef": {"name": "gateway", "key": "signing"},
            }},
        });
        merge(&mut channel["spec"]["http"], http);
        merge(&mut channel["spec"], spec);
        channel
    }

    /// Sends receipts back for everything that is accepted from here on.
    pub fn send_receipts(&self, settings: &ReceiptSettings) {
        self.send_receipts_to(&self.operator, settings);
    }

    /// Sends receipts to this operator.
    pub fn send_receipts_to(&self, operator: &Operator, settings: &ReceiptSettings) {
        let url = operator.receipts_url();
        let settings = ReceiptSettings { url, secret: Some(SIGNING_SECRET.into()), ..settings.clone() };
        self.gateway.set_receipts(Some(settings)).expect("should be valid settings");
    }

    /// Lets things go wrong at the gateway: rules as its control API takes them.
    pub fn set_faults(&self, rules: Value) {
        let rules: Vec<Rule> = serde_json::from_value(rules).expect("should be rules");
        self.gateway.set_faults(rules).expect("should be valid rules");
    }

    /// Applies a manifest as kubectl does; panics when it is refused.
    pub fn apply(&self, manifest: &Value) {
        self.try_apply(manifest).unwrap_or_else(|error| panic!("refused: {error}\n{manifest:#}"));
    }

    /// Applies a manifest as kubectl does. `Err` is what a person would read.
    pub fn try_apply(&self, manifest: &Value) -> Result<String, String> {
        self.plane.try_kubectl(&["apply", "-n", &self.namespace, "-f", "-"], &manifest.to_string())
    }

    /// Has a channel try again, as its condition says.
    pub fn try_again(&self, channel: &str, value: &str) {
        let annotation = format!("broadcast-operator.dev/try-again={value}");
        self.kubectl(&["annotate", "--overwrite", "bcc", channel, &annotation]);
    }

    /// Runs kubectl in the namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-n", &self.namespace]).collect();
        self.plane.kubectl(&arguments, "")
    }

    /// Makes an audience of this size in a `ConfigMap`, as the docs advise, and a Broadcast to it, with more fields for
    /// `spec`.
    pub async fn broadcast_from_config_map(&self, name: &str, chats: usize, spec: Value) -> Value {
        let csv: String = (0..chats).map(|chat| format!("{},Guest {chat}\n", chat_id(chat))).collect();
        let audience = ConfigMap {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            data: Some([("chats.csv".to_owned(), format!("chat,name\n{csv}"))].into()),
            ..ConfigMap::default()
        };
        self.api().create(&PostParams::default(), &audience).await.expect("should make a ConfigMap");
        let source = json!([{"configMapRef": {"name": name, "key": "chats.csv"}}]);
        let mut broadcast = broadcast(name, 0, json!({"recipients": {"csv": null, "from": source}}));
        merge(&mut broadcast["spec"], spec);
        broadcast
    }

    /// Creates a Broadcast, and returns it as it was stored.
    pub async fn create(&self, manifest: &Value) -> Broadcast {
        let broadcast: Broadcast = serde_json::from_value(manifest.clone()).expect("should be a Broadcast");
        self.api().create(&PostParams::default(), &broadcast).await.expect("should make a Broadcast")
    }

    /// Changes a Broadcast with a merge patch.
    pub async fn patch(&self, name: &str, patch: Value) {
        let patched =
            self.api::<Broadcast>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.unwrap_or_else(|error| panic!("failed to patch {name}: {error}"));
    }

    /// Stops a Broadcast, or lets it go on.
    pub async fn pause(&self, name: &str, paused: bool) {
        self.patch(name, json!({"spec": {"paused": paused}})).await;
    }

    /// The objects of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A Broadcast as it is now.
    pub async fn broadcast(&self, name: &str) -> Broadcast {
        self.get(name).await
    }

    /// A channel as it is now.
    pub async fn channel_now(&self, name: &str) -> BroadcastChannel {
        self.get(name).await
    }

    async fn get<K>(&self, name: &str) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        self.api::<K>().get(name).await.unwrap_or_else(|error| panic!("failed to get {name}: {error}"))
    }

    /// The pages of a Broadcast.
    pub async fn pages(&self, broadcast: &str) -> Vec<BroadcastBatch> {
        let params = ListParams::default().labels(&format!("broadcast-operator.dev/broadcast={broadcast}"));
        self.api().list(&params).await.expect("should list pages").items
    }

    /// Waits until a Broadcast is as wanted.
    pub async fn wait(&self, name: &str, what: &str, wanted: impl Fn(&Broadcast) -> bool) -> Broadcast {
        self.wait_within(PATIENCE, name, what, wanted).await
    }

    /// The same with another patience.
    pub async fn wait_within(
        &self,
        patience: Duration,
        name: &str,
        what: &str,
        wanted: impl Fn(&Broadcast) -> bool,
    ) -> Broadcast {
        until_within(patience, &format!("{name}: {what}"), async || {
            let broadcast = self.api::<Broadcast>().get(name).await.map_err(|error| error.to_string())?;
            match wanted(&broadcast) {
                true => Ok(broadcast),
                false => Err(format!("{:#?}", broadcast.status)),
            }
        })
        .await
    }

    /// Waits until Ready has this reason.
    pub async fn wait_state(&self, name: &str, reason: &str) -> Broadcast {
        self.wait(name, reason, |broadcast| state(broadcast) == reason).await
    }

    /// Waits until a Broadcast is complete.
    pub async fn complete(&self, name: &str) -> Broadcast {
        self.wait(name, "complete", is_complete).await
    }

    /// Waits until there are warnings of this reason. Out: the name of the object of each, and what it says.
    pub async fn warnings(&self, reason: &str) -> Vec<(String, String)> {
        until(&format!("events of reason {reason}"), async || {
            let events = self.api::<Event>().list(&ListParams::default()).await;
            let events = events.map_err(|error| error.to_string())?.items.into_iter();
            let is_meant = |event: &Event| {
                event.reason.as_deref() == Some(reason) && event.type_.as_deref() == Some("Warning")
            };
            let told: Vec<_> = events
                .filter(is_meant)
                .map(|event| {
                    let of = event.regarding.and_then(|object| object.name).unwrap_or_default();
                    (of, event.note.unwrap_or_default())
                })
                .collect();
            if told.is_empty() { Err("there is none".to_owned()) } else { Ok(told) }
        })
        .await
    }

    /// Waits until a Broadcast is gone.
    pub async fn gone(&self, name: &str) {
        until(&format!("{name} is gone"), async || match self.api::<Broadcast>().get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// Waits until the pages of a Broadcast are gone.
    pub async fn pages_gone(&self, broadcast: &str) {
        until(&format!("the pages of {broadcast} are gone"), async || {
            match self.pages(broadcast).await.len() {
                0 => Ok(()),
                number => Err(number),
            }
        })
        .await;
    }

    /// Waits until the gateway has accepted so many messages of a Broadcast.
    pub async fn accepted(&self, name: &str, number: usize) {
        until(&format!("{number} messages of {name} are accepted"), async || {
            let accepted = self.accepted_now(name);
            if accepted >= number { Ok(()) } else { Err(accepted) }
        })
        .await;
    }

    /// How many messages of a Broadcast the gateway has accepted.
    pub fn accepted_now(&self, name: &str) -> usize {
        let broadcast = Some(format!("{}/{name}", self.namespace));
        self.gateway
            .ledger()
            .sends(&SendQuery { broadcast, accepted: Some(true), ..SendQuery::default() })
            .len()
    }

    /// Requests of a Broadcast that have arrived at the gateway.
    pub fn requests_now(&self, name: &str) -> usize {
        let broadcast = Some(format!("{}/{name}", self.namespace));
        self.gateway.ledger().sends(&SendQuery { broadcast, ..SendQuery::default() }).len()
    }
}

/// A Broadcast to chats `first..first + number`, with more fields for `spec`.
pub fn broadcast(name: &str, number: usize, spec: Value) -> Value {
    let mut csv = String::from("chat,name\n");
    for chat in 0..number {
        csv += &format!("{},Guest {chat}\n", chat_id(chat));
    }
    let mut broadcast = json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "Broadcast", "metadata": {"name": name},
        "spec": {
            "channelRef": {"name": CHANNEL},
            "message": {"text": "Hi {{ name }}, the sale starts tomorrow at nine."},
            "recipients": {"csv": csv},
        },
    });
    merge(&mut broadcast["spec"], spec);
    broadcast
}

/// The chat number `chat` of all test audiences.
pub fn chat_id(chat: usize) -> String {
    format!("1555{:07}", 1_000_000 + chat)
}

/// A Broadcast that restarts another one.
pub fn restart(name: &str, source: &str, spec: Value) -> Value {
    let mut broadcast = json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "Broadcast", "metadata": {"name": name},
        "spec": {"restartFrom": {"name": source}},
    });
    merge(&mut broadcast["spec"], spec);
    broadcast
}

/// Reason of Ready.
pub fn state(broadcast: &Broadcast) -> String {
    condition(broadcast, "Ready").map(|ready| ready.reason).unwrap_or_default()
}

/// A condition of a Broadcast.
pub fn condition(broadcast: &Broadcast, name: &str) -> Option<Condition> {
    let status = broadcast.status.as_ref()?;
    Condition::find(&status.conditions, name).cloned()
}

/// Whether a Broadcast is complete.
pub fn is_complete(broadcast: &Broadcast) -> bool {
    broadcast.status.as_ref().is_some_and(|status| Condition::is_true(&status.conditions, "Complete"))
}

/// The counts of a Broadcast.
pub fn counts(broadcast: &Broadcast) -> Counts {
    broadcast.status.as_ref().and_then(|status| status.counts).unwrap_or_default()
}

/// How many rows of each outcome these counts stand for: what is being sent is a Pending row.
pub fn by_outcome(counts: &Counts) -> [(i32, OutcomeName); 8] {
    // Named one by one, so that a new count cannot be forgotten.
    let Counts { pending, sending, sent, delivered, read, failed, unknown, skipped, cancelled } = *counts;
    [
        (pending + sending, OutcomeName::Pending),
        (sent, OutcomeName::Sent),
        (delivered, OutcomeName::Delivered),
        (read, OutcomeName::Read),
        (failed, OutcomeName::Failed),
        (unknown, OutcomeName::Unknown),
        (skipped, OutcomeName::Skipped),
        (cancelled, OutcomeName::Cancelled),
    ]
}

/// Lays one JSON object over another; null takes a field away.
pub fn merge(base: &mut Value, over: Value) {
    let (Value::Object(base), Value::Object(over)) = (base, over) else { return };
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (_, Value::Null) => drop(base.remove(&key)),
            (Some(old @ Value::Object(_)), value @ Value::Object(_)) => merge(old, value),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

fn uuid() -> String {
    use rand::distr::{Alphanumeric, SampleString};
    Alphanumeric.sample_string(&mut rand::rng(), 8).to_lowercase()
}
