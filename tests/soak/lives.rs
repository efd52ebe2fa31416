//! Lives of Broadcasts, one after the other, in every way in which they can be lived.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broadcast_operator::api::{Broadcast, BroadcastChannel};
use broadcast_operator::clock;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::common::stage::{Stage, broadcast, chat_id, is_complete, merge, restart};
use crate::common::wait::PATIENCE;

/// Between two looks at a Broadcast. Many are looked at, and the API server has other things to do.
const POLL: Duration = Duration::from_millis(200);
/// Smallest audience, and how much larger the others are: some have more than one page.
const FEWEST: usize = 40;
const MORE: [usize; 5] = [0, 60, 20, 240, 110];

/// All lives, and how many there were.
pub struct Lives<'a> {
    stage: &'a Stage,
    lasting: usize,
    begun: AtomicUsize,
    broadcasts: AtomicUsize,
    channels: AtomicUsize,
}

/// Name of a channel that stays.
pub fn lasting(number: usize) -> String {
    format!("lasting-{number}")
}

impl<'a> Lives<'a> {
    pub fn new(stage: &'a Stage, lasting: usize) -> Self {
        let zero = AtomicUsize::default;
        Self { stage, lasting, begun: zero(), broadcasts: zero(), channels: zero() }
    }

    /// One life after the other.
    pub async fn live_until(&self, end: Instant) {
        while clock::monotonic() < end {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            match number % 5 {
                0 => self.expire(number).await,
                1 => self.stop_and_go_on(number).await,
                2 => self.restart(number).await,
                3 => self.with_its_channel(number).await,
                _ => self.delete_while_sending(number).await,
            }
        }
    }

    pub fn broadcasts(&self) -> usize {
        self.broadcasts.load(Ordering::Relaxed)
    }

    /// Sent, and deleted by its own time to live.
    async fn expire(&self, number: usize) {
        let name = self.create(number, json!({"ttlSecondsAfterFinished": 1})).await;
        self.wait(&name, |broadcast| broadcast.is_none()).await;
    }

    async fn stop_and_go_on(&self, number: usize) {
        let name = self.create(number, json!({})).await;
        self.first_is_sent(&name).await;
        self.stage.pause(&name, true).await;
        clock::wait(POLL).await;
        self.stage.pause(&name, false).await;
        self.complete(&name).await;
        self.delete(&name).await;
    }

    /// Stopped half-way, and sent to the others by a restart.
    async fn restart(&self, number: usize) {
        let name = self.create(number, json!({})).await;
        self.first_is_sent(&name).await;
        self.stage.pause(&name, true).await;
        let again = format!("{name}-again");
        self.stage.create(&restart(&again, &name, json!({}))).await;
        self.broadcasts.fetch_add(1, Ordering::Relaxed);
        self.complete(&again).await;
        self.delete(&name).await;
        self.delete(&again).await;
    }

    async fn with_its_channel(&self, number: usize) {
        let channel = format!("passing-{number}");
        let manifest = self.stage.channel(&channel, json!({}), json!({}));
        let made: BroadcastChannel = serde_json::from_value(manifest).expect("should be a channel");
        let channels = self.stage.api::<BroadcastChannel>();
        channels.create(&PostParams::default(), &made).await.expect("should make a channel");
        self.channels.fetch_add(1, Ordering::Relaxed);
        let name = self.create(number, json!({"channelRef": {"name": channel}})).await;
        self.complete(&name).await;
        self.delete(&name).await;
        channels.delete(&channel, &DeleteParams::default()).await.expect("should delete the channel");
    }

    async fn delete_while_sending(&self, number: usize) {
        let name = self.create(number, json!({})).await;
        self.first_is_sent(&name).await;
        self.delete(&name).await;
    }

    async fn create(&self, number: usize, spec: Value) -> String {
        let name = format!("sale-{number}");
        let channel = json!({"channelRef": {"name": lasting(number % self.lasting)}});
        let mut manifest = broadcast(&name, FEWEST + MORE[number % MORE.len()], channel);
        merge(&mut manifest["spec"], spec);
        self.stage.create(&manifest).await;
        self.broadcasts.fetch_add(1, Ordering::Relaxed);
        name
    }

    async fn first_is_sent(&self, name: &str) {
        let (ledger, key) = (self.stage.gateway.ledger(), format!("{}/{name}", self.stage.namespace));
        let sent = ledger.wait_until(|_| ledger.accepted(&key, &chat_id(0)) > 0);
        let waited = tokio::time::timeout(PATIENCE, sent).await;
        assert!(waited.is_ok(), "{name} does not begin");
    }

    async fn complete(&self, name: &str) {
        self.wait(name, |broadcast| broadcast.is_some_and(is_complete)).await;
    }

    async fn delete(&self, name: &str) {
        let broadcasts = self.stage.api::<Broadcast>();
        broadcasts.delete(name, &DeleteParams::default()).await.expect("should delete a Broadcast");
        self.wait(name, |broadcast| broadcast.is_none()).await;
    }

    async fn wait(&self, name: &str, wanted: impl Fn(Option<&Broadcast>) -> bool) {
        let started = clock::monotonic();
        loop {
            let found =
                self.stage.api::<Broadcast>().get_opt(name).await.expect("should look at a Broadcast");
            if wanted(found.as_ref()) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{name} stays as it is: {found:#?}");
            clock::wait(POLL).await;
        }
    }

    /// Nothing is left of all of them.
    pub async fn all_gone(&self) {
        let left = self.stage.api::<Broadcast>().list(&ListParams::default()).await.expect("should list");
        for broadcast in left.items {
            self.wait(&broadcast.name_any(), |broadcast| broadcast.is_none()).await;
        }
    }
}

impl fmt::Display for Lives<'_> {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = self.stage.gateway.ledger().summary();
        write!(
            text,
            "{} Broadcasts, {} messages, {} receipts, {} channels that came and went",
            self.broadcasts(),
            summary.requests.accepted,
            summary.receipts.delivered,
            self.channels.load(Ordering::Relaxed),
        )
    }
}
