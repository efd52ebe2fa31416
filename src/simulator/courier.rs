//! Brings receipts to their receiver: accepted messages go in, signed requests go out, until each receipt is taken.
//!
//! The receipts of one message are sent one after the other, the next only when the one before was answered: so their
//! order at the receiver is the one that was asked for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::desk::AcceptedMessage;
use super::receipts::{Receipt, ReceiptPlan};
use crate::clock;
use crate::webhooks::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign};

/// Longest wait for the answer to one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests to receivers at one time: more than a receiver works at, and few enough sockets.
const MOST_REQUESTS: usize = 64;
/// Wait after the first refused try. It doubles each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait between two tries: a receiver that is back gets its receipts soon.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// Tries in all. With the backoff they take about two minutes, longer than any restart of a receiver.
const MOST_TRIES: u32 = 30;
/// How often the queue is looked at while nobody wants receipts.
const IDLE_FLUSH: Duration = Duration::from_millis(50);

/// What became of the receipts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptCounts {
    /// Receipts that wait, are held back, or are on their way.
    pub pending: u64,
    /// Receipts that were answered 2xx.
    pub delivered: u64,
    /// Receipts that were given up.
    pub failed: u64,
    /// Requests sent with receipts, also those that were refused.
    pub requests: u64,
}

/// The receipts of one message that are still to be sent.
#[derive(Debug)]
struct Trail {
    plan: Arc<ReceiptPlan>,
    url: String,
    receipts: VecDeque<Receipt>,
}

#[derive(Debug, Default)]
struct Desk {
    plan: Option<Arc<ReceiptPlan>>,
    queue: VecDeque<(Instant, Trail)>,
    counts: ReceiptCounts,
}

/// Sends receipts in the background.
#[derive(Debug)]
pub(super) struct Courier {
    desk: Mutex<Desk>,
    client: Client,
    held: watch::Sender<bool>,
    changed: watch::Sender<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
    room: Semaphore,
    requests: AtomicU64,
}

impl Courier {
    pub(super) fn new(
        plan: Option<ReceiptPlan>,
        changed: watch::Sender<()>,
        stop: CancellationToken,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            desk: Mutex::new(Desk { plan: plan.map(Arc::new), ..Desk::default() }),
            client: Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build()?,
            held: watch::Sender::new(false),
            changed,
            stop,
            tasks: TaskTracker::new(),
            room: Semaphore::new(MOST_REQUESTS),
            requests: AtomicU64::new(0),
        })
    }

    /// From now on other receipts follow accepted messages. Those that wait stay as they are.
    pub(super) fn set_plan(&self, plan: Option<ReceiptPlan>) {
        self.desk().plan = plan.map(Arc::new);
    }

    /// Holds all receipts back, or lets them go.
    pub(super) fn hold(&self, is_held: bool) {
        self.held.send_replace(is_held);
    }

    pub(super) fn counts(&self) -> ReceiptCounts {
        self.desk().counts
    }

    /// Takes on the receipts of a message. Where the first one goes out before the message is answered, what comes back
    /// ends with the answer to it.
    pub(super) fn take_on(self: &Arc<Self>, message: &AcceptedMessage) -> Option<oneshot::Receiver<()>> {
        let mut desk = self.desk();
        let plan = desk.plan.clone()?;
        let receipts = plan.receipts(message);
        if receipts.is_empty() {
            return None;
        }
        desk.counts.pending += receipts.len() as u64;
        let trail = Trail { url: plan.url(message), receipts, plan };
        if trail.plan.settings.before_answer && !*self.held.borrow() {
            drop(desk);
            let (answered, answer) = oneshot::channel();
            self.tasks.spawn(self.clone().deliver(vec![trail], Some(answered)));
            return Some(answer);
        }
        let delay = Duration::from_millis(trail.plan.settings.delay_ms);
        desk.queue.push_back((clock::monotonic() + delay, trail));
        None
    }

    /// Works until it is stopped. What waits then is never sent.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let flush = self.desk().plan.as_ref().map(|plan| Duration::from_millis(plan.settings.flush_ms));
            let wait = clock::wait(flush.unwrap_or(IDLE_FLUSH));
            if self.stop.run_until_cancelled(wait).await.is_none() {
                break;
            }
            if !*self.held.borrow() {
                for batch in self.due(clock::monotonic()) {
                    self.tasks.spawn(self.clone().deliver(batch, None));
                }
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Batches that are due, each for one receiver.
    fn due(&self, now: Instant) -> Vec<Vec<Trail>> {
        let mut desk = self.desk();
        let ready = desk.queue.iter().take_while(|(due, _)| *due <= now).count();
        let mut open: BTreeMap<(String, usize), Vec<Trail>> = BTreeMap::new();
        let mut full = Vec::new();
        for (_, trail) in desk.queue.drain(..ready) {
            let size = trail.plan.settings.batch_size;
            // Trails of different plans have different secrets and go separately, even to one url.
            let batch = open.entry((trail.url.clone(), Arc::as_ptr(&trail.plan) as usize)).or_default();
            batch.push(trail);
            if batch.len() >= size {
                full.push(std::mem::take(batch));
            }
        }
        full.extend(open.into_values().filter(|batch| !batch.is_empty()));
        full
    }

    /// Sends the next receipt of each trail in one request, until it is taken or given up.
    async fn deliver(self: Arc<Self>, batch: Vec<Trail>, mut first_try: Option<oneshot::Sender<()>>) {
        let Some(body) = body_of(&batch) else { return };
        let id = format!("msg_sim_{}", self.requests.fetch_add(1, Ordering::Relaxed) + 1);
        let mut held = self.held.subscribe();
        for tries in 0..MOST_TRIES {
            if *held.borrow_and_update() {
                drop(first_try.take());
            }
            let work = async {
                // The sender lives as long as this task.
                let _ = held.wait_for(|is_held| !is_held).await;
                self.post(&batch[0], &id, &body).await
            };
            let Some(is_taken) = self.stop.run_until_cancelled(work).await else { return };
            drop(first_try.take());
            if is_taken {
                return self.settle(batch, true);
            }
            if self.stop.run_until_cancelled(clock::wait(backoff(tries))).await.is_none() {
                return;
            }
        }
        self.settle(batch, false);
    }

    /// One request. It is signed anew each time: a receiver does not believe old signatures.
    async fn post(&self, trail: &Trail, id: &str, body: &str) -> bool {
        let _permit = self.room.acquire().await;
        let now = clock::now();
        let mut request = self
            .client
            .post(&trail.url)
            .header("content-type", "application/json")
            .header(ID_HEADER, id)
            .header(TIMESTAMP_HEADER, now.as_second());
        if !trail.plan.secrets.is_empty() {
            let signatures = sign(&trail.plan.secrets, id, now, body.as_bytes());
            request = request.header(SIGNATURE_HEADER, signatures);
        }
        self.desk().counts.requests += 1;
        match request.body(body.to_owned()).send().await {
            Ok(answer) if answer.status().is_success() => true,
            Ok(answer) => {
                tracing::debug!(url = trail.url, status = answer.status().as_u16(), "receipts were refused");
                false
            }
            Err(error) => {
                tracing::debug!(url = trail.url, %error, "failed to send receipts");
                false
            }
        }
    }

    /// The first receipt of each trail is done with; the next ones are queued.
    fn settle(&self, batch: Vec<Trail>, is_delivered: bool) {
        let now = clock::monotonic();
        let mut desk = self.desk();
        for mut trail in batch {
            trail.receipts.pop_front();
            desk.counts.pending -= 1;
            desk.counts.delivered += u64::from(is_delivered);
            desk.counts.failed += u64::from(!is_delivered);
            if !trail.receipts.is_empty() {
                // To the front: a queue of messages that wait for their delay must not hold up what is due.
                desk.queue.push_front((now, trail));
            }
        }
        drop(desk);
        self.changed.send_replace(());
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("should not be poisoned: no holder of this lock panics")
    }
}

fn body_of(batch: &[Trail]) -> Option<String> {
    let receipts: Vec<&Receipt> = batch.iter().filter_map(|trail| trail.receipts.front()).collect();
    serde_json::to_string(&receipts).ok()
}

fn backoff(tries: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(1 << tries.min(10)).min(LONGEST_BACKOFF)
}
