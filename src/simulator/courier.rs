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
use super::text::Text;
use super::wire::{Format, Item, Notice};
use crate::clock;

/// Longest wait for the answer to one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests to receivers at one time: more than a receiver works at, and few enough sockets.
const MOST_REQUESTS: usize = 64;
/// Wait after the first refused try. It doubles each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait between two tries: a receiver that is back gets its receipts soon.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// Tries in all, unless the provider is known to give up earlier. With the backoff they take about two minutes, longer than any restart of a receiver.
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
    message: AcceptedMessage,
    receipts: VecDeque<Receipt>,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Posted {
    /// It was answered 2xx.
    Taken,
    /// It may have been heard, and was not answered so.
    Refused,
    /// There was no connection.
    NotConnected,
}

/// What goes into one request: to the same address, in the same format, of the same sender. Receipts of different plans have
/// different secrets and go separately, even to one url.
type BatchKey = (String, Format, Text, usize);

impl Trail {
    fn key(&self) -> BatchKey {
        let Self { plan, url, message, .. } = self;
        (url.clone(), message.format, message.account.clone(), Arc::as_ptr(plan) as usize)
    }
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

    /// Which receipts follow now.
    pub(super) fn plan(&self) -> Option<Arc<ReceiptPlan>> {
        self.desk().plan.clone()
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
        let url = plan.url(message).filter(|_| !receipts.is_empty())?;
        desk.counts.pending += receipts.len() as u64;
        let trail = Trail { url, message: message.clone(), receipts, plan };
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
        let mut open: BTreeMap<BatchKey, Vec<Trail>> = BTreeMap::new();
        let mut full = Vec::new();
        for (_, trail) in desk.queue.drain(..ready) {
            let size = trail.message.format.batch_size(trail.plan.settings.batch_size);
            let batch = open.entry(trail.key()).or_default();
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
        let Some(first) = batch.first() else { return };
        let most_tries = first.message.format.tries(&first.url, MOST_TRIES);
        let id = format!("msg_sim_{}", self.requests.fetch_add(1, Ordering::Relaxed) + 1);
        let mut held = self.held.subscribe();
        for tries in 0..most_tries {
            if *held.borrow_and_update() {
                drop(first_try.take());
            }
            let work = async {
                // The sender lives as long as this task.
                let _ = held.wait_for(|is_held| !is_held).await;
                self.post(&batch, &id).await
            };
            let Some(posted) = self.stop.run_until_cancelled(work).await else { return };
            drop(first_try.take());
            let is_over = match posted {
                Posted::Taken => return self.settle(batch, true),
                Posted::Refused => !first.message.format.repeats_refused(),
                Posted::NotConnected => false,
            };
            if is_over {
                break;
            }
            if self.stop.run_until_cancelled(clock::wait(backoff(tries))).await.is_none() {
                return;
            }
        }
        self.settle(batch, false);
    }

    /// One request. It is signed anew each time: a receiver does not believe old signatures.
    async fn post(&self, batch: &[Trail], id: &str) -> Posted {
        let _permit = self.room.acquire().await;
        let Trail { plan, url, message, .. } = &batch[0];
        let items: Vec<Item<'_>> =
            batch.iter().filter_map(|trail| Some((&trail.message, trail.receipts.front()?))).collect();
        let notice = message.format.notice(&items, plan, url, (id, clock::now()));
        let Notice { content_type, headers, body } = notice;
        let mut request = self.client.post(url).header("content-type", content_type).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.desk().counts.requests += 1;
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Posted::Taken,
            Ok(answer) => {
                tracing::debug!(%url, status = answer.status().as_u16(), "receipts were refused");
                Posted::Refused
            }
            Err(error) => {
                tracing::debug!(%url, %error, "failed to send receipts");
                if error.is_connect() { Posted::NotConnected } else { Posted::Refused }
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

fn backoff(tries: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(1 << tries.min(10)).min(LONGEST_BACKOFF)
}
