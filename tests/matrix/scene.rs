//! One case at work: a namespace, a gateway, a tap, and operators that follow each other. Whoever dies is replaced, and
//! after each death the invariants are checked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broadcast_operator::api::{Broadcast, BroadcastChannel};
use broadcast_operator::clock;
use broadcast_operator::journal::JournalSettings;
use broadcast_operator::lease::{LeaseSettings, LeaseTimes};
use broadcast_operator::simulator::{ReceiptSettings, Rule, SendQuery, Settings, Simulator};
use futures::future::{Either, select, select_all};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::common::stage::{SIGNING_SECRET, TOKEN, merge};
use crate::gateway_line::GatewayLine;
use crate::invariants;
use crate::observer::{Observer, Seen, View};
use crate::poster::Told;
use crate::process::{End, LONG, Log, Process, Start};
use crate::tap::{Gate, Life, Tap};

/// Name of the channel of all cases.
pub const CHANNEL: &str = "sms";
/// Longest wait for anything: far above what it takes.
const PATIENCE: Duration = Duration::from_secs(45);

/// Why a case failed.
pub type Failure = String;

/// What all cases share.
pub struct Env {
    pub client: Client,
    pub config: Config,
    pub observer: Observer,
}

/// One case.
pub struct Scene {
    pub env: Arc<Env>,
    pub namespace: String,
    pub gateway: Simulator,
    /// The way of the operators to it.
    pub line: GatewayLine,
    pub tap: Tap,
    pub view: Arc<View>,
    pub log: Log,
    pub processes: Vec<Process>,
    /// Processes that died, by number.
    pub dead: Vec<usize>,
    /// Whether a process may end by itself, because a fault makes it.
    pub may_fail: bool,
    /// Chats of which nobody can know: a fault of the gateway hit their sends.
    pub doubtful: Vec<String>,
    /// Longest wait for anything.
    pub patience: Duration,
    /// How many operators work at the same time.
    pub replicas: usize,
    /// How they share their work.
    pub sharing: Sharing,
    /// How long their leases last.
    pub lease_times: LeaseTimes,
    /// How their receipts go through journals.
    pub journals: JournalSettings,
    /// Receipts of sale that were answered.
    pub answered: Vec<Told>,
    /// The life of the operator that was started last.
    pub last_life: LastLife,
}

/// The life of the operator that was started last, for a fault that is not in its own line.
pub type LastLife = Arc<Mutex<Option<Arc<Life>>>>;

/// How the operators of a case share their work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They are processes of one pod: who comes later takes over at once.
    SamePod,
    /// They are replicas, each in a pod of its own.
    Replicas,
    /// They do not know of each other: each of them believes that it leads and holds every channel.
    Strangers,
}

impl Scene {
    /// A namespace with a Secret, a gateway and a channel to it. No operator works yet.
    pub async fn new(env: Arc<Env>, tag: &str) -> Result<Self, Failure> {
        let namespace = format!("m-{tag}");
        let view = env.observer.view(&namespace);
        let settings = Settings { token: Some(TOKEN.into()), ..Settings::default() };
        let gateway = Simulator::start(settings).await.map_err(|error| error.to_string())?;
        view.hold_against(gateway.ledger());
        let address = gateway.url().trim_start_matches("http://").parse().expect("should be an address");
        let last_life = LastLife::default();
        let line = GatewayLine::start(address, last_life.clone()).await;
        let scene = Self {
            namespace: namespace.clone(),
            gateway,
            line,
            tap: Tap::new(),
            view,
            log: Log::default(),
            processes: Vec::new(),
            dead: Vec::new(),
            may_fail: false,
            doubtful: Vec::new(),
            patience: PATIENCE,
            replicas: 1,
            sharing: Sharing::SamePod,
            lease_times: LONG,
            journals: JournalSettings::default(),
            answered: Vec::new(),
            last_life,
            env,
        };
        let namespaces: Api<Namespace> = Api::all(scene.env.client.clone());
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}})).expect("a namespace");
        namespaces.create(&PostParams::default(), &object).await.map_err(|error| error.to_string())?;
        scene.make_secret().await?;
        scene.apply(&scene.channel(CHANNEL, json!({}))).await?;
        Ok(scene)
    }

    /// Creates the Secret of the gateway.
    pub async fn make_secret(&self) -> Result<(), Failure> {
        self.put::<Secret>(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway"},
            "stringData": {"token": TOKEN, "signing": SIGNING_SECRET},
        }))
        .await
    }

    /// A channel to the gateway, with more fields for `spec`.
    pub fn channel(&self, name: &str, spec: Value) -> Value {
        let mut channel = json!({
            "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastChannel", "metadata": {"name": name},
            "spec": {"provider": "HTTP", "http": {
                "url": format!("http://{}/messages/{name}", self.line.address),
                "tokenSecretRef": {"name": "gateway", "key": "token"},
                "signingSecretRef": {"name": "gateway", "key": "signing"},
                "timeoutSeconds": 10,
            }},
        });
        merge(&mut channel["spec"], spec);
        channel
    }

    /// Creates or changes a Broadcast or a channel, as `kubectl apply --server-side` does.
    pub async fn apply(&self, manifest: &Value) -> Result<(), Failure> {
        match manifest["kind"].as_str() {
            Some("Broadcast") => self.put::<Broadcast>(manifest.clone()).await,
            _ => self.put::<BroadcastChannel>(manifest.clone()).await,
        }
    }

    async fn put<K>(&self, manifest: Value) -> Result<(), Failure>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let params = PatchParams::apply("user").force();
        let applied = self.api::<K>().patch(&name, &params, &Patch::Apply(&manifest)).await;
        applied.map(drop).map_err(|error| format!("refused: {error}\n{manifest:#}"))
    }

    /// Changes an object with a merge patch. One that is gone is left alone.
    pub async fn patch<K>(&self, name: &str, patch: Value) -> Result<(), Failure>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        match self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(patched) => self.catch_up(&patched).await,
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(format!("failed to patch {name}: {error}")),
        }
    }

    /// Waits until a change is in view: what is waited for next must not be what was there before it.
    async fn catch_up<K: Resource<DynamicType = ()>>(&self, changed: &K) -> Result<(), Failure> {
        let (name, wanted) = (changed.name_any(), changed.resource_version().unwrap_or_default());
        let wanted: u64 = wanted.parse().unwrap_or_default();
        let mut changes = self.view.changes();
        let is_behind = || {
            let seen = self.view.seen().version(&K::kind(&()), &name);
            seen.is_some_and(|seen| seen < wanted)
        };
        while is_behind() {
            match tokio::time::timeout(self.patience, changes.changed()).await {
                Ok(_) => {}
                Err(_) => return Err(format!("the change of {name} does not come into view")),
            }
        }
        Ok(())
    }

    /// Deletes an object, if it is there.
    pub async fn delete<K>(&self, name: &str) -> Result<(), Failure>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        match self.api::<K>().delete(name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(format!("failed to delete {name}: {error}")),
        }
    }

    /// The objects of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.env.client.clone(), &self.namespace)
    }

    /// Lets things go wrong at the gateway.
    pub fn set_gateway_faults(&self, rules: Value) {
        let rules: Vec<Rule> = serde_json::from_value(rules).expect("should be rules");
        self.gateway.set_faults(rules).expect("should be valid rules");
    }

    /// Sends receipts to the operator that was started last, for everything that is accepted from here on.
    pub fn send_receipts(&self, settings: &ReceiptSettings) {
        let Some(process) = self.processes.last() else { return };
        let path = "v1/namespaces/{namespace}/channels/{channel}/receipts";
        let url = format!("http://{}/{path}", process.receipts);
        let settings = ReceiptSettings { url, secret: Some(SIGNING_SECRET.into()), ..settings.clone() };
        self.gateway.set_receipts(Some(settings)).expect("should be valid settings");
    }

    /// Everything that has happened of what was to go wrong.
    pub fn met(&self) -> usize {
        self.tap.met() + self.line.met()
    }

    /// Starts an operator.
    pub async fn start_operator(&mut self) {
        let number = self.processes.len();
        let receipts = self.processes.last().map(|process| process.receipts);
        let (group, pod) = match self.sharing {
            Sharing::SamePod => (0, 0),
            Sharing::Replicas => (0, number),
            Sharing::Strangers => (number, number),
        };
        let leases = LeaseSettings {
            namespace: self.namespace.clone(),
            name: format!("operator-{group}"),
            pod_name: format!("pod-{pod}"),
            pod_uid: Some(format!("pod-{pod}")),
            // Nothing here comes from a backup of everything.
            assume_restored_after: Duration::from_secs(86_400),
            times: self.lease_times,
        };
        let start = Start {
            config: self.env.config.clone(),
            namespace: self.namespace.clone(),
            tap: self.tap.clone(),
            number,
            leases,
            journals: self.journals,
            log: self.log.clone(),
            receipts: receipts.unwrap_or_else(|| "127.0.0.1:0".parse().expect("an address")),
        };
        let process = Process::start(start).await;
        *self.last_life.lock().unwrap_or_else(PoisonError::into_inner) = Some(process.life.clone());
        self.processes.push(process);
    }

    /// Kills the operators that work, and replaces them.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        for process in &self.processes {
            if process.is_alive() {
                process.kill().await;
            }
        }
        self.replace_the_dead().await
    }

    /// Notes who has died, checks the invariants after each death, and starts as many as are missing.
    pub async fn replace_the_dead(&mut self) -> Result<(), Failure> {
        for number in 0..self.processes.len() {
            if self.processes[number].is_alive() || self.dead.contains(&number) {
                continue;
            }
            let end = self.processes[number].ended().await;
            self.dead.push(number);
            if end != End::Killed && !self.may_fail {
                return Err(format!("process {number} ended by itself: {end:?}"));
            }
            invariants::check(self, &format!("after the end of process {number}")).await?;
        }
        while self.processes.iter().filter(|process| process.is_alive()).count() < self.replicas {
            self.start_operator().await;
        }
        Ok(())
    }

    /// Waits until what is stored is as wanted, and replaces whoever dies meanwhile.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Result<(), Failure> {
        let tap = self.tap.clone();
        self.until_with(what, move |seen, _| wanted(seen), &tap).await
    }

    /// Waits until what is stored, or what came by the tap, is as wanted.
    pub async fn until_with(
        &mut self,
        what: &str,
        wanted: impl Fn(&Seen, &Tap) -> bool,
        tap: &Tap,
    ) -> Result<(), Failure> {
        let deadline = clock::monotonic() + self.patience;
        let (mut changes, mut asked) = (self.view.changes(), tap.changes());
        loop {
            changes.borrow_and_update();
            asked.borrow_and_update();
            if wanted(&self.view.seen(), tap) {
                return Ok(());
            }
            self.replace_the_dead().await?;
            let left = deadline.saturating_duration_since(clock::monotonic());
            if left.is_zero() {
                return Err(format!(
                    "waited {} s for: {what}\n{}",
                    self.patience.as_secs(),
                    self.view.seen().text()
                ));
            }
            let alive = self.processes.iter().filter(|process| process.is_alive());
            let mut ends: Vec<_> = alive.map(|process| Box::pin(process.ended())).collect();
            ends.truncate(4);
            let news = Box::pin(async {
                tokio::select! {
                    _ = changes.changed() => {}
                    _ = asked.changed() => {}
                    () = clock::wait(left.min(Duration::from_secs(1))) => {}
                }
            });
            match ends.is_empty() {
                true => news.await,
                false => match select(news, select_all(ends)).await {
                    Either::Left(_) | Either::Right(_) => {}
                },
            }
        }
    }

    /// Waits until somebody comes to a gate, or what is stored shows that nobody will.
    pub async fn reach(&mut self, gate: &Gate, over: impl Fn(&Seen) -> bool) -> Result<(), Failure> {
        tokio::select! {
            () = gate.reached() => Ok(()),
            over = self.until("the gate is reached, or all is over", over) => over,
        }
    }

    /// Requests of a Broadcast that have come to the gateway.
    pub fn requests_of(&self, name: &str) -> usize {
        let broadcast = Some(format!("{}/{name}", self.namespace));
        self.gateway.ledger().sends(&SendQuery { broadcast, ..SendQuery::default() }).len()
    }
}
