//! What a Broadcast's status says: counts from its pages, and conditions from everything that is known. Pure.
//!
//! The conditions follow kstatus: Reconciling while something goes on by itself, Stalled when it needs a person, and
//! never Ready=False while stopped on purpose.

mod ending;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::Conditions;
use super::hold::{self, Books, Hold, books};
use super::summary::{MAX_NOTABLE, PageSummary, Seen};
use crate::api::{
    BatchProgress, Broadcast, BroadcastChannel, BroadcastChannelSpec, BroadcastStatus, ChatOutcome,
    Condition, Counts, HoldReason, OnUnknown, OutcomeName, RESTART_REFUSED, StopReason, StopStatus,
};

/// Outcomes that a status shows of an audience that is too big to show whole: the status stays below 10 KB.
const MAX_SHOWN: usize = 50;

/// Why a Broadcast waits whose channel is stopped.
pub const CHANNEL_PAUSED: &str = "ChannelPaused";

/// Everything that a status is made from.
#[derive(Debug)]
pub struct Observation<'a> {
    /// The Broadcast, with its status as it stands.
    pub broadcast: &'a Broadcast,
    /// The channel that it sends through, if there is one.
    pub channel: Option<&'a BroadcastChannel>,
    /// Its pages.
    pub pages: &'a [std::sync::Arc<PageSummary>],
    /// How far it is.
    pub stage: &'a Stage,
    /// Why the restart that its annotation asks for cannot be made.
    pub restart_refused: Option<&'a Refusal>,
    /// Now.
    pub now: Timestamp,
}

/// Why a restart by annotation cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub reason: &'static str,
    /// For people: what to do.
    pub message: String,
}

/// How far a Broadcast is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It cannot go on without a person: a reason for programs, and what to do.
    Stalled(String, String),
    /// It was restored or recreated, and a person decides.
    Held(Hold),
    /// It goes on by itself later.
    Waiting(&'static str, String),
    /// It is stopped before it was planned; everything that can be checked is right.
    Checked,
    /// Its audience is being written down.
    Planning,
    /// Its audience is sealed, and it may send.
    Sealed,
}

/// The state that the conditions speak of.
enum State {
    Progress(String, String),
    Stopped(String),
    Stalled(String, String),
    Complete(&'static str, String),
    /// Complete, and nobody has the message: that is no success.
    Failed(&'static str, String),
}

/// The status to store.
#[must_use]
pub fn status_of(observation: &Observation<'_>) -> BroadcastStatus {
    let broadcast = observation.broadcast;
    let mut status = broadcast.status.clone().unwrap_or_default();
    status.observed_generation = broadcast.metadata.generation.unwrap_or_default();
    let is_of_cluster = |hold: &Hold| hold.reason == HoldReason::ClusterRestored;
    if let Some(accepted) = hold::accepted(broadcast).filter(is_of_cluster) {
        status.accepted_restore = Some(accepted.token);
        status.hold = None;
    }
    // Whoever changes the spec lets it go on.
    if status.stop.take_if(|stop| stop.observed_generation != status.observed_generation).is_some() {
        status.settled_time = Some(Time(observation.now));
    }
    match observation.stage {
        Stage::Sealed => {
            let accepted = hold::accepted(broadcast).filter(|hold| !is_of_cluster(hold));
            let counted = count(&mut status, observation, accepted.is_some());
            // Once it is accepted, the counts are those of the pages as they are.
            if accepted.is_none() || counted {
                status.accepted_token = accepted.map(|hold| hold.token).or(status.accepted_token);
                status.hold = None;
            }
        }
        Stage::Held(held) => status.hold = Some(held.status()),
        // A hold stays until it is accepted or the audience is sealed, whatever else is in the way meanwhile.
        Stage::Stalled(..) | Stage::Waiting(..) | Stage::Checked | Stage::Planning => {}
    }
    let state = state_of(&status, observation);
    if let State::Complete(..) | State::Failed(..) = state {
        status.completion_time.get_or_insert(Time(observation.now));
    } else {
        status.completion_time = None;
    }
    status.conditions = conditions_of(observation, &state);
    status
}

/// Counts, percentages, shown outcomes and batches, from the pages. While the pages are not all in view, or are behind what
/// was counted before and nobody has `accepted` that, the last counts stay: they are what shows it. Returns whether it counted.
fn count(status: &mut BroadcastStatus, observation: &Observation<'_>, accepted: bool) -> bool {
    let pages = observation.pages;
    match books(status, &Seen::of(pages)) {
        Books::Agree => {}
        Books::Behind(_) if accepted => {}
        Books::Behind(_) | Books::Missing => return false,
    }
    let before = status.counts.unwrap_or_default();
    let counts = pages.iter().fold(Counts::default(), |sum, page| add(sum, page));
    let total = status.total.unwrap_or_default();
    let taken = taken(&counts);
    status.counts = Some(counts);
    status.progress = Some(format!("{taken}/{total}"));
    let channel = observation.channel.map(|channel| &channel.spec);
    // Those that failed later were taken too: the part that arrives must not grow with them.
    let accepted = taken + pages.iter().map(|page| page.failed_later).sum::<i32>();
    let percent = |part: i32, is_heard: bool| (is_heard && accepted > 0).then(|| percent_of(part, accepted));
    let (delivered, read) = (counts.delivered + counts.read, counts.read);
    let hears_of_delivery = channel.is_some_and(BroadcastChannelSpec::hears_of_delivery);
    let hears_of_reading = channel.is_some_and(BroadcastChannelSpec::hears_of_reading);
    status.delivered_percent = percent(delivered, hears_of_delivery || delivered > 0);
    status.read_percent = percent(read, hears_of_reading || read > 0);
    status.outcomes = shown(pages, total);
    status.outcomes_truncated = usize::try_from(total).is_ok_and(|total| status.outcomes.len() < total);
    let done = pages.iter().filter(|page| page.counts.pending == 0 && page.claim.is_none()).count();
    let number = |pages: usize| i32::try_from(pages).unwrap_or(i32::MAX);
    status.batches = Some(BatchProgress { total: number(pages.len()), done: number(done) });
    if let Some(lineage) = &mut status.lineage {
        lineage.reached += taken - self::taken(&before);
    }
    true
}

fn add(sum: Counts, page: &PageSummary) -> Counts {
    // Named one by one, so that a new count cannot be forgotten.
    let crate::api::BatchCounts { pending, sent, delivered, read, failed, unknown, skipped, cancelled } =
        page.counts;
    // Rows of a claim that sends Unknown ones again are counted as unknown, not as sending.
    let sending = page.sending.min(pending);
    Counts {
        pending: sum.pending + pending - sending,
        sending: sum.sending + sending,
        sent: sum.sent + sent,
        delivered: sum.delivered + delivered,
        read: sum.read + read,
        failed: sum.failed + failed,
        unknown: sum.unknown + unknown,
        skipped: sum.skipped + skipped,
        cancelled: sum.cancelled + cancelled,
    }
}

/// Chats whose message the gateway took.
fn taken(counts: &Counts) -> i32 {
    counts.sent + counts.delivered + counts.read
}

fn percent_of(part: i32, whole: i32) -> i32 {
    i32::try_from(i64::from(part) * 100 / i64::from(whole)).unwrap_or(100)
}

fn shown(pages: &[std::sync::Arc<PageSummary>], total: i32) -> Vec<ChatOutcome> {
    let all = pages.iter().flat_map(|page| page.notable.iter());
    if usize::try_from(total).is_ok_and(|total| total <= MAX_NOTABLE) {
        return all.take(MAX_NOTABLE).cloned().collect();
    }
    let of = |wanted: OutcomeName| all.clone().filter(move |row| row.outcome == wanted);
    of(OutcomeName::Failed).chain(of(OutcomeName::Unknown)).take(MAX_SHOWN).cloned().collect()
}

fn state_of(status: &BroadcastStatus, observation: &Observation<'_>) -> State {
    match observation.stage {
        Stage::Stalled(reason, message) => State::Stalled(reason.clone(), message.clone()),
        Stage::Held(held) => {
            State::Stalled(hold::name_of(held.reason).into(), held.message_on(observation.broadcast))
        }
        Stage::Waiting(reason, message) => State::Progress((*reason).to_owned(), message.clone()),
        Stage::Checked => State::Stopped(
            "stopped before it began: it may still be edited; spec.paused: false starts it".into(),
        ),
        Stage::Planning => State::Progress("Planning".into(), "reading and writing down the audience".into()),
        Stage::Sealed => sealed_state(status, observation),
    }
}

fn sealed_state(status: &BroadcastStatus, observation: &Observation<'_>) -> State {
    let broadcast = observation.broadcast;
    let counts = status.counts.unwrap_or_default();
    match books(status, &Seen::of(observation.pages)) {
        Books::Agree => {}
        Books::Missing => return not_all_seen(status, observation, "are left"),
        Books::Behind(_) => return not_all_seen(status, observation, "are there, older than its counts"),
    }
    let in_flight = counts.sending > 0 || observation.pages.iter().any(|page| page.claim.is_some());
    // What was complete stays so: nothing that is switched on later sends its Unknown chats again.
    let resendable = if status.completion_time.is_some() { 0 } else { resendable(observation) };
    let open = counts.pending > 0 || in_flight || resendable > 0;
    if let Some(by) = &status.restarted_by {
        let message = format!(
            "restarted by {0}, which sends to the chats that it took over: kubectl describe bc {0}",
            by.name
        );
        return if open {
            State::Progress("Restarting".into(), message)
        } else {
            State::Complete("Restarted", message)
        };
    }
    if !open {
        return ending::of(status, &counts);
    }
    if broadcast.spec.paused {
        return if in_flight {
            State::Progress(
                "Stopping".into(),
                "no further message starts; those in flight are being recorded".into(),
            )
        } else {
            State::Stopped("stopped, nothing is in flight; spec.paused: false goes on, a Broadcast with spec.restartFrom sends to the rest".into())
        };
    }
    if let Some(stop) = &status.stop {
        let message = match in_flight {
            true => "no further message starts; those in flight are being recorded".to_owned(),
            false => stop_message(stop),
        };
        return match in_flight {
            true => State::Progress("Stopping".into(), message),
            false => State::Stalled(stop_name(stop.reason).into(), message),
        };
    }
    channel_state(observation)
}

fn stop_name(reason: StopReason) -> &'static str {
    match reason {
        StopReason::TemplateUnavailable => "TemplateUnavailable",
        StopReason::MessageNotSupported => "MessageNotSupported",
        StopReason::ErrorPolicy => "StoppedByErrorPolicy",
        StopReason::FirstMessagesFailed => "FirstMessagesFailed",
        StopReason::UnknownErrors => "UnknownErrors",
    }
}

fn stop_message(stop: &StopStatus) -> String {
    let StopStatus { reason, code, message, .. } = stop;
    let what = match reason {
        StopReason::TemplateUnavailable => "the provider cannot send this message to anybody",
        StopReason::MessageNotSupported => "the channel has no such message, so the provider was not asked",
        StopReason::ErrorPolicy => "a rule of the channel's spec.errorPolicy stopped it",
        StopReason::FirstMessagesFailed => "the first messages all failed in the same way",
        StopReason::UnknownErrors => "the last messages all failed with the same code, which is not known",
    };
    format!(
        "{what} ({code}: {message}); no further chat fails by it. To go on when the cause is gone, set spec.paused to true and back to \
         false; to send another message to the rest, set spec.paused to true and apply a Broadcast with spec.restartFrom"
    )
}

/// The pages in view are not all, or not what was counted. They may be on their way; if they are not, a hold is found. That
/// a Broadcast was complete does not change with its log.
fn not_all_seen(status: &BroadcastStatus, observation: &Observation<'_>, how: &str) -> State {
    if status.completion_time.is_some() {
        let message = format!("complete; {} of the batches of its log {how}", observation.pages.len());
        return match status.restarted_by {
            Some(_) => State::Complete("Restarted", message),
            None => ending::as_before(status, message),
        };
    }
    State::Progress("Planning".into(), "waiting until all batches of the log are in view".into())
}

/// Unknown chats that are going to be sent to again.
fn resendable(observation: &Observation<'_>) -> i32 {
    let spec = &observation.broadcast.spec;
    let idempotent = observation.channel.is_some_and(|channel| channel.spec.is_idempotent());
    if spec.on_unknown != OnUnknown::Resend && !idempotent {
        return 0;
    }
    let max_attempts = u32::try_from(spec.retry.max_attempts).unwrap_or(1);
    observation.pages.iter().filter(|page| !page.sealed).map(|page| page.unknown_below(max_attempts)).sum()
}

/// A Broadcast that could send is in the state of its channel.
fn channel_state(observation: &Observation<'_>) -> State {
    let Some(channel) = observation.channel else {
        return State::Stalled(
            "ChannelNotFound".into(),
            "the BroadcastChannel was deleted: create it again to go on".into(),
        );
    };
    let resolved = observation.broadcast.status.as_ref().and_then(|status| status.resolved.as_ref());
    let provider = resolved.and_then(|resolved| resolved.provider);
    if let Some(provider) = provider.filter(|provider| *provider != channel.spec.provider) {
        return State::Stalled(
            "ProviderChanged".into(),
            format!(
                "the BroadcastChannel was made again with another provider, and the chats are those of {}: make it again as it was, or \
                 stop this Broadcast",
                provider.as_str()
            ),
        );
    }
    if channel.spec.paused {
        return State::Progress(
            CHANNEL_PAUSED.into(),
            "the channel's spec.paused is true: set it to false to go on".into(),
        );
    }
    let conditions = channel.status.as_ref().map_or(&[][..], |status| &status.conditions);
    for type_ in ["Stalled", "Throttled"] {
        if let Some(trouble) = Condition::find_true(conditions, type_) {
            let message = format!(
                "channel {}: {}",
                channel.metadata.name.as_deref().unwrap_or_default(),
                trouble.message
            );
            return match type_ {
                "Stalled" => State::Stalled(trouble.reason.clone(), message),
                _ => State::Progress("Throttled".into(), message),
            };
        }
    }
    let waiting = Condition::find(conditions, "Reconciling").filter(|waiting| waiting.reason != "Opening");
    match waiting {
        Some(waiting) => State::Progress(waiting.reason.clone(), waiting.message.clone()),
        None => State::Progress("Sending".into(), "messages are being sent".into()),
    }
}

fn conditions_of(observation: &Observation<'_>, state: &State) -> Vec<Condition> {
    let Observation { broadcast, restart_refused, now, .. } = *observation;
    let generation = broadcast.metadata.generation.unwrap_or_default();
    let previous = broadcast.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let (ready, complete, suspended) = match state {
        State::Progress(..) | State::Stalled(..) => (false, false, false),
        State::Stopped(_) => (true, false, true),
        State::Complete(..) => (true, true, false),
        State::Failed(..) => (false, true, false),
    };
    let (reason, message) = match state {
        State::Progress(reason, message) | State::Stalled(reason, message) => {
            (reason.as_str(), message.as_str())
        }
        State::Stopped(message) => ("Stopped", message.as_str()),
        State::Complete(reason, message) | State::Failed(reason, message) => (*reason, message.as_str()),
    };
    Conditions::after(previous, generation, now)
        .with("Ready", ready, reason, message)
        .with("Complete", complete, reason, message)
        .with("Suspended", suspended, reason, message)
        .with_if("Reconciling", matches!(state, State::Progress(..)), reason, message)
        .with_if("Stalled", matches!(state, State::Stalled(..) | State::Failed(..)), reason, message)
        .with_if(
            RESTART_REFUSED,
            restart_refused.is_some(),
            restart_refused.map_or("", |refusal| refusal.reason),
            restart_refused.map_or("", |refusal| &refusal.message),
        )
        .build()
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
