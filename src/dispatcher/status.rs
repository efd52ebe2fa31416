//! Writes a channel's status: when it changed, and at most once a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Resource};
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::Context;
use super::account::Version;
use crate::api::{BroadcastChannel, ChannelStatus, Condition};
use crate::cluster::within;
use crate::domain::channel_verdict::{AccountState, Health, OPENING, RECEIPTS_REFUSED, channel_status};
use crate::domain::day_count::DayCount;
use crate::domain::ids::ObjectKey;
use crate::events;

/// Between two writes of one channel's status: people look at it, nothing decides by it.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Between two writes for the number of messages alone: each wakes everybody who watches channels.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Tries of the last write, where others write the status too.
const LAST_TRIES: usize = 3;

/// What was to be shown, and on which version of the channel that was compared with what stands there: a later version may
/// be that of an earlier write, or of somebody who changed the status.
#[derive(PartialEq)]
struct Shown {
    channel: Version,
    seen: Option<String>,
    state: AccountState,
    active: usize,
}

/// Writes the status of one channel.
pub(super) struct StatusWriter {
    context: Arc<Context>,
    key: ObjectKey,
    writing: Option<JoinHandle<()>>,
    last: Option<Instant>,
    shown: Option<Shown>,
    is_behind: bool,
}

impl StatusWriter {
    pub(super) fn new(context: Arc<Context>, key: ObjectKey) -> Self {
        Self { context, key, writing: None, last: None, shown: None, is_behind: false }
    }

    /// Writes the status, if it says something else than what stands there, and the last write is long enough ago.
    pub(super) fn show(
        &mut self,
        channel: &BroadcastChannel,
        state: &AccountState,
        active: usize,
        sent: &mut DayCount,
        now: Instant,
        wall: Timestamp,
    ) {
        let wanted = Shown {
            channel: Version::of(channel),
            seen: channel.metadata.resource_version.clone(),
            state: state.clone(),
            active,
        };
        // Where a limit hangs on it, a crash should forget little of it.
        let is_limited = channel.spec.limits.recipients_per_day.is_some();
        let interval = if is_limited { WRITE_INTERVAL } else { COUNT_INTERVAL };
        let is_count_due = self.last.is_none_or(|last| now >= last + interval);
        let shown = channel.status.as_ref();
        sent.total(wall);
        let is_count_behind =
            is_count_due && shown.is_none_or(|status| status.sent_by_hour != sent.stored(wall));
        if self.shown.as_ref() == Some(&wanted) && !self.is_behind && !is_count_behind {
            return;
        }
        self.is_behind = true;
        let too_early = self.last.is_some_and(|last| now < last + WRITE_INTERVAL);
        if too_early || self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        let status = channel_status(channel, state, active, sent, wall);
        self.shown = Some(wanted);
        // It stays behind until the cache shows what was written: a conflict is mended by the next round.
        self.is_behind = shown.is_none_or(|shown| match is_count_due {
            true => *shown != status,
            false => without_count(shown) != without_count(&status),
        });
        if self.is_behind {
            self.last = Some(now);
            self.writing =
                Some(tokio::spawn(write(self.context.clone(), self.key.clone(), channel.clone(), status)));
        }
    }

    /// There is no channel to write to.
    pub(super) fn forget(&mut self) {
        self.shown = None;
        self.is_behind = false;
    }

    /// When there is something to write.
    pub(super) fn wakes_in(&self, now: Instant) -> Duration {
        match self.last {
            Some(last) if self.is_behind => {
                (last + WRITE_INTERVAL).saturating_duration_since(now).max(WRITE_INTERVAL / 10)
            }
            _ => Duration::MAX,
        }
    }

    /// Waits for the write under way, and writes what is known last, for whoever sends for the channel next: at most once a second
    /// is too seldom for that. `None`: it is another one's to write already.
    pub(super) async fn finish(self, last: Option<(AccountState, &mut DayCount)>, wall: Timestamp) {
        if let Some(writing) = self.writing {
            // A write that panicked has nothing to say any more.
            let _ = writing.await;
        }
        let Some((state, sent)) = last else { return };
        let api: Api<BroadcastChannel> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        for _ in 0..LAST_TRIES {
            let Ok(before) = within(api.get(&self.key.name)).await else { return };
            let Some(status) = last_status(&before, &state, sent, wall) else { return };
            let next = BroadcastChannel { status: Some(status), ..before.clone() };
            match within(api.replace_status(&self.key.name, &PostParams::default(), &next)).await {
                Err(error) if error.is_conflict() => {}
                Err(error) => {
                    tracing::warn!(channel = %self.key, %error, "failed to write the last status of a channel");
                    return;
                }
                Ok(written) => return tell(&self.context, &self.key, &before, &written).await,
            }
        }
    }
}

/// The status of a channel that somebody else sends for from now on; `None` when it stands there already. What was never read says
/// nothing of the account, and what was never written says nothing at all.
fn last_status(
    channel: &BroadcastChannel,
    state: &AccountState,
    sent: &mut DayCount,
    wall: Timestamp,
) -> Option<ChannelStatus> {
    let shown = channel.status.as_ref()?;
    let active = usize::try_from(shown.active_broadcasts).unwrap_or_default();
    let status = channel_status(channel, state, active, sent, wall);
    let counted = || ChannelStatus {
        sent_last24_hours: status.sent_last24_hours,
        sent_by_hour: status.sent_by_hour.clone(),
        ..shown.clone()
    };
    let status = if state.health == Health::Opening { counted() } else { status };
    (status != *shown).then_some(status)
}

fn without_count(status: &ChannelStatus) -> ChannelStatus {
    ChannelStatus { sent_last24_hours: None, sent_by_hour: Vec::new(), ..status.clone() }
}

async fn write(context: Arc<Context>, key: ObjectKey, channel: BroadcastChannel, status: ChannelStatus) {
    let api: Api<BroadcastChannel> = Api::namespaced(context.client.clone(), &key.namespace);
    let before = channel.clone();
    let next = BroadcastChannel { status: Some(status), ..channel };
    match within(api.replace_status(&key.name, &PostParams::default(), &next)).await {
        Ok(written) => tell(&context, &key, &before, &written).await,
        Err(error) if error.is_conflict() || error.is_not_found() => {}
        Err(error) => tracing::warn!(channel = %key, %error, "failed to write the status of a channel"),
    }
}

/// Tells in events what a write of the status has changed.
async fn tell(context: &Context, key: &ObjectKey, before: &BroadcastChannel, written: &BroadcastChannel) {
    let conditions = |channel: &BroadcastChannel| {
        channel.status.as_ref().map_or(&[][..], |status| &status.conditions).to_vec()
    };
    let span = tracing::info_span!("channel", namespace = key.namespace, channel = key.name);
    let (before, after) = (conditions(before), conditions(written));
    // Whoever takes a channel over opens it first: that is no news.
    let is_news = Condition::find(&after, "Ready").is_none_or(|ready| ready.reason != OPENING);
    let object = written.object_ref(&());
    async {
        if is_news {
            events::tell(&context.recorder, &object, &before, &after).await;
        }
        events::tell_trouble(&context.recorder, &object, RECEIPTS_REFUSED, &before, &after).await;
    }
    .instrument(span)
    .await;
}
