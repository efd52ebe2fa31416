//! How a Broadcast ended whose chats all have their outcome.

use std::collections::BTreeSet;

use super::{State, stop_name, taken};
use crate::api::{BroadcastStatus, Condition, Counts, OutcomeName, StopReason, StopStatus};

/// Reason of a Broadcast of which all chats failed.
const ALL_FAILED: &str = "AllFailed";

/// What to do where nobody has the message.
const CURE: &str = "To send it again, corrected, apply a Broadcast with spec.restartFrom";

/// Every chat has its outcome. Where all failed, none of them in doubt, or the first ones alike, it was nothing that a single chat
/// can help.
pub(super) fn of(status: &BroadcastStatus, counts: &Counts) -> State {
    let summary = summary(status, counts);
    let stop = status.stop.as_ref().filter(|stop| stop.reason == StopReason::FirstMessagesFailed);
    let nobody_has_it = taken(counts) == 0 && counts.failed > 0;
    match stop {
        Some(StopStatus { reason, code, message, .. }) if nobody_has_it => State::Failed(
            stop_name(*reason),
            format!("{summary}; all failed in the same way ({code}: {message}). {CURE}"),
        ),
        None if nobody_has_it && counts.unknown == 0 => {
            let codes: BTreeSet<&str> = failed_codes(status).collect();
            let alike = match codes.iter().next() {
                Some(code) if codes.len() == 1 && !status.outcomes_truncated => {
                    format!(", all with code {code}")
                }
                _ => String::new(),
            };
            State::Failed(ALL_FAILED, format!("{summary}{alike}. {CURE}"))
        }
        _ => State::Complete("Succeeded", summary),
    }
}

fn failed_codes(status: &BroadcastStatus) -> impl Iterator<Item = &str> {
    let failed = status.outcomes.iter().filter(|chat| chat.outcome == OutcomeName::Failed);
    failed.map(|chat| chat.error.as_ref().map_or("", |error| error.code.as_str()))
}

/// How it ended as its status has it, while its log is not whole.
pub(super) fn as_before(status: &BroadcastStatus, message: String) -> State {
    let failed = [ALL_FAILED, stop_name(StopReason::FirstMessagesFailed)];
    let ready = Condition::find(&status.conditions, "Ready");
    match failed.into_iter().find(|failed| ready.is_some_and(|ready| ready.reason == *failed)) {
        Some(reason) => State::Failed(reason, message),
        None => State::Complete("Succeeded", message),
    }
}

fn summary(status: &BroadcastStatus, counts: &Counts) -> String {
    let total = status.total.unwrap_or_default();
    if total == 0 {
        return "nothing to send: the source has no chat that failed or was not reached".into();
    }
    let left_over = match status.given_back_by {
        Some(_) => "left over by a restart that was deleted: restart them again",
        None => "left over by a restart that is not known any more, which may have sent to them",
    };
    let mut text = format!("{} of {total} chats have the message", taken(counts));
    for (number, what) in [
        (counts.failed, "failed"),
        (counts.unknown, "may or may not have it (a restart can include Unknown)"),
        (counts.skipped, "skipped as invalid, repeated or suppressed"),
        (counts.cancelled, left_over),
    ] {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    text
}
