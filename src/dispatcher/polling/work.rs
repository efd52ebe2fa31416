//! The work of asking: choose a page, read it, ask about its messages one after the other, store what was told.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::watch;

use super::super::Context;
use super::super::account::{DoorNumber, LookupRefused};
use super::pace::Pace;
use super::{Leave, Tell};
use crate::api::{Broadcast, BroadcastChannel};
use crate::clock;
use crate::cluster::chain;
use crate::domain::answer::{Answer, Refusal, RefusalKind, SenderTrouble};
use crate::domain::ids::BroadcastUid;
use crate::domain::outcome::{Outcome, Row};
use crate::domain::polling::{Looks, PageNumber, Schedule, TOO_OLD};
use crate::domain::receipt::{Lookup, Receipt};
use crate::domain::summary::PageSummary;
use crate::lease::Tenure;
use crate::receipts;

/// News that are stored together: ten seconds of questions, so that a person who watches sees progress and a page is not written for
/// each of them.
const NEWS_AT_ONCE: usize = 50;
/// Between two looks for something to ask about, where nothing else says when.
const IDLE: Duration = Duration::from_secs(5);
/// After a look that was broken off.
const BROKEN_OFF: Duration = Duration::from_secs(1);

pub(super) struct Work {
    context: Arc<Context>,
    tenure: Tenure,
    tell: Tell,
    leave: watch::Receiver<Option<Leave>>,
    pace: Pace,
    looks: Looks,
}

/// A page to ask about.
struct Chosen {
    number: PageNumber,
    page: Arc<PageSummary>,
}

/// How one question went.
enum Asked {
    /// It was answered, or is given up for this time.
    Done(Box<Lookup>),
    /// It is to be asked again, later.
    Again,
    /// Nothing may be asked any more; the rest of the page waits.
    BreakOff,
}

impl Work {
    pub(super) fn new(
        context: Arc<Context>,
        tenure: Tenure,
        tell: Tell,
        leave: watch::Receiver<Option<Leave>>,
    ) -> Self {
        let pace = Pace::new(clock::monotonic());
        Self { context, tenure, tell, leave, pace, looks: Looks::default() }
    }

    /// Asks for ever.
    pub(super) async fn run(mut self) {
        loop {
            let wait = match self.schedule() {
                None => IDLE,
                Some((channel, schedule)) => match self.choose(&schedule, clock::now()) {
                    None => Duration::try_from(schedule.rest()).unwrap_or(IDLE),
                    Some(chosen) if self.ask_about(&channel, &schedule, &chosen).await => Duration::ZERO,
                    Some(_) => BROKEN_OFF,
                },
            };
            if !wait.is_zero() {
                clock::wait(wait).await;
            }
        }
    }

    /// The channel and when it wants to ask. `None`: not now.
    fn schedule(&self) -> Option<(Arc<BroadcastChannel>, Schedule)> {
        let channel = self.context.observed.channel(&self.tenure.channel)?;
        let after = channel.spec.poll_after().filter(|_| !channel.spec.paused)?;
        Some((channel, Schedule::new(after))).filter(|_| self.context.leases.holds(&self.tenure))
    }

    /// The page whose turn it is: one that was never asked about before all others, of those the oldest.
    fn choose(&mut self, schedule: &Schedule, now: Timestamp) -> Option<Chosen> {
        let namespace = &self.tenure.channel.namespace;
        let provider = self.context.observed.channel(&self.tenure.channel).map(|it| it.spec.provider);
        let is_own = |broadcast: &Broadcast| {
            let status = broadcast.status.as_ref();
            let resolved = status.and_then(|status| status.resolved.as_ref());
            // What was sent last is not younger than the end.
            let ended = status.and_then(|status| status.completion_time.as_ref()).map(|time| time.0);
            broadcast.namespace().as_deref() == Some(namespace)
                && broadcast.metadata.deletion_timestamp.is_none()
                && resolved.is_some_and(|resolved| {
                    resolved.channel_ref.name == self.tenure.channel.name
                        && (resolved.provider.is_none() || resolved.provider == provider)
                })
                && ended.is_none_or(|ended| now.duration_since(ended) < TOO_OLD)
        };
        let uids = self.context.observed.broadcasts.state_filter(is_own);
        let uids = uids.iter().filter_map(|broadcast| broadcast.uid()).map(BroadcastUid::new);
        let pages = &self.context.observed.pages;
        let all = uids.flat_map(|uid| {
            let pages = pages.of(namespace, &uid).into_iter();
            pages.map(move |page| Chosen { number: (uid.clone(), page.index), page })
        });
        let open = |chosen: &Chosen| chosen.page.waiting.is_some_and(|waiting| !waiting.is_over(now));
        let open: Vec<Chosen> = all.filter(open).collect();
        let numbers: HashSet<&PageNumber> = open.iter().map(|chosen| &chosen.number).collect();
        self.looks.retain(|number| numbers.contains(number));
        let due = open.into_iter().filter_map(|chosen| {
            let (waiting, looked) = (chosen.page.waiting?, self.looks.last(&chosen.number));
            let is_due = schedule.next_look(&waiting, looked).is_some_and(|next| next <= now);
            is_due.then_some((looked.is_some(), waiting.oldest, chosen))
        });
        due.min_by_key(|(was_looked_at, oldest, _)| (*was_looked_at, *oldest)).map(|(.., chosen)| chosen)
    }

    /// Asks about everything of a page that is due. Returns whether that is done.
    async fn ask_about(
        &mut self,
        channel: &Arc<BroadcastChannel>,
        schedule: &Schedule,
        chosen: &Chosen,
    ) -> bool {
        let Chosen { number, page } = chosen;
        let content = match self.context.ledger.read_of(&page.key, &number.0).await {
            Ok(content) => content,
            Err(error) => {
                tracing::debug!(page = %page.key, error = %chain(&error), "cannot be asked about");
                // It has another turn with its next step, and holds up no other page until then.
                self.looks.note(number, clock::now());
                return false;
            }
        };
        let looked = clock::now();
        let mut todo: VecDeque<_> = self.looks.due(number, schedule, content.rows(), looked).into();
        let mut news = Vec::new();
        while let Some((row, message_id)) = todo.front() {
            // What was told is not kept waiting.
            let is_time = news.len() >= NEWS_AT_ONCE || (!news.is_empty() && self.has_to_wait());
            if is_time && !self.store(channel, chosen, std::mem::take(&mut news)).await {
                return false;
            }
            match self.ask(message_id, &content.recipients()[*row].chat).await {
                Asked::Again => continue,
                Asked::BreakOff => break,
                Asked::Done(lookup) => match *lookup {
                    Lookup::News(receipt) if is_news(&content.rows()[*row], &receipt) => news.push(receipt),
                    Lookup::Gone => self.looks.note_gone(number, *row),
                    _ => {}
                },
            }
            todo.pop_front();
        }
        if !news.is_empty() && !self.store(channel, chosen, news).await {
            return false;
        }
        if todo.is_empty() {
            self.looks.note(number, looked);
        }
        todo.is_empty()
    }

    fn has_to_wait(&self) -> bool {
        self.leave.borrow().is_none() || self.pace.rests(clock::monotonic())
    }

    /// Asks about one message, when it may.
    async fn ask(&mut self, message_id: &str, chat: &str) -> Asked {
        let Some(Leave { gateway, door }) = self.turn().await else { return Asked::BreakOff };
        let Some(lookup) = gateway.look_up(message_id, chat).await else { return Asked::BreakOff };
        self.context.metrics.looked_up(&lookup);
        let Lookup::NotTold(answer) = &lookup else {
            self.pace.answered();
            return Asked::Done(Box::new(lookup));
        };
        match answer {
            Answer::Refused(Refusal { kind: RefusalKind::RateLimited, wait, .. }) => {
                self.pace.slow_down(*wait, clock::monotonic());
                Asked::Again
            }
            Answer::Refused(Refusal { kind: RefusalKind::Sender(trouble), code, detail, .. })
                if is_of_account(*trouble) =>
            {
                self.refuse(door, *trouble, code, detail);
                Asked::BreakOff
            }
            // Another message is asked about next: this one may be what the provider stumbles over.
            _ => {
                self.pace.failed(clock::monotonic());
                Asked::Done(Box::new(lookup))
            }
        }
    }

    fn refuse(&mut self, door: DoorNumber, trouble: SenderTrouble, code: &str, detail: &str) {
        let detail = if detail.contains(code) { detail.to_owned() } else { format!("{code}: {detail}") };
        (self.tell)(LookupRefused { door, trouble, detail });
        self.pace.refused(clock::monotonic());
    }

    /// Waits until a question may be asked. `None`: the channel wants none any more, or is stopped.
    async fn turn(&mut self) -> Option<Leave> {
        loop {
            self.schedule()?;
            let now = clock::monotonic();
            let wait = self.pace.wait(now);
            if !wait.is_zero() {
                // In steps: a stop is seen meanwhile, and the page is read anew after it.
                clock::wait(wait.min(IDLE)).await;
                continue;
            }
            let leave = self.leave.borrow_and_update().clone();
            match leave {
                Some(leave) => {
                    self.pace.take(now);
                    return Some(leave);
                }
                None => {
                    let _ = tokio::time::timeout(IDLE, self.leave.changed()).await;
                }
            }
        }
    }

    /// Stores what was told. In a task of its own, so that the end of this one takes nothing with it.
    /// Out: whether it stands there. If not, its messages are asked about again.
    async fn store(&self, channel: &Arc<BroadcastChannel>, chosen: &Chosen, news: Vec<Receipt>) -> bool {
        let Context { client, ledger, journal, observed, metrics, .. } = self.context.as_ref();
        let books = receipts::Books {
            client: client.clone(),
            ledger: ledger.clone(),
            journal: journal.clone(),
            observed: observed.clone(),
            metrics: metrics.clone(),
        };
        let (key, channel, page) = (self.tenure.channel.clone(), channel.clone(), chosen.page.key.clone());
        let stored = tokio::spawn(async move {
            let stored = receipts::store_news(&books, (&key, &channel.spec), news).await;
            if let Err(error) = &stored {
                tracing::warn!(%page, error = %chain(error), "failed to store what became of messages");
            }
            stored.is_ok()
        });
        // A panic in it is in the log.
        stored.await.unwrap_or(false)
    }
}

/// Whether a receipt says more than what its row has. That a sent message was sent is none, and would cost a write.
fn is_news(row: &Row, receipt: &Receipt) -> bool {
    let Row { outcome, code, .. } = &receipt.evidence;
    (*outcome, code.is_empty()) != (Outcome::Sent, true) || row.outcome != Outcome::Sent
}

/// Whether a trouble is the provider's own word about the account. Something on the way may be about questions alone.
fn is_of_account(trouble: SenderTrouble) -> bool {
    use SenderTrouble::{AccountRestricted, AuthenticationFailed, PaymentRequired};
    matches!(trouble, AccountRestricted | AuthenticationFailed | PaymentRequired)
}
