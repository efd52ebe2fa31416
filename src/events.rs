//! Events: what `kubectl describe` shows below an object, one for each new state of it.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::api::Condition;
use crate::cluster::CALL_TIMEOUT;
use crate::ledger::Ledger;

/// Longest note of an event, in bytes: the API server takes 1,024.
const MAX_NOTE: usize = 1000;
/// Who tells them.
const REPORTER: &str = "broadcast-operator";

/// Tells events in the name of this process.
#[must_use]
pub fn recorder(client: Client, ledger: &Ledger) -> Recorder {
    let instance = Some(ledger.incarnation().as_str().into());
    Recorder::new(client, Reporter { controller: REPORTER.into(), instance })
}

/// Tells that the reason of Ready is another one. An event that cannot be told is only logged: the condition says the same.
pub async fn tell(recorder: &Recorder, object: &ObjectReference, before: &[Condition], after: &[Condition]) {
    let Some(state) = Condition::find(after, "Ready") else { return };
    if Condition::find(before, "Ready").is_some_and(|before| before.reason == state.reason) {
        return;
    }
    let is_stalled = Condition::is_true(after, "Stalled");
    let type_ = if is_stalled { EventType::Warning } else { EventType::Normal };
    publish(recorder, object, type_, &state.reason, state.message.clone()).await;
}

/// Tells that a condition which is there only while something is wrong has come, or says something else.
pub async fn tell_trouble(
    recorder: &Recorder,
    object: &ObjectReference,
    type_: &str,
    before: &[Condition],
    after: &[Condition],
) {
    if let Some(trouble) = news(type_, before, after) {
        let note = format!("{}: {}", trouble.reason, trouble.message);
        publish(recorder, object, EventType::Warning, type_, note).await;
    }
}

fn news<'a>(type_: &str, before: &[Condition], after: &'a [Condition]) -> Option<&'a Condition> {
    let now = Condition::find_true(after, type_)?;
    let was = Condition::find_true(before, type_);
    was.is_none_or(|was| (&was.reason, &was.message) != (&now.reason, &now.message)).then_some(now)
}

/// Tells of something that a person should look at, and that no condition says.
pub async fn warn(recorder: &Recorder, object: &ObjectReference, reason: &str, note: String) {
    publish(recorder, object, EventType::Warning, reason, note).await;
}

async fn publish(
    recorder: &Recorder,
    object: &ObjectReference,
    type_: EventType,
    reason: &str,
    mut note: String,
) {
    while note.len() > MAX_NOTE {
        note.pop();
    }
    match type_ {
        EventType::Warning => tracing::warn!(reason, "{note}"),
        EventType::Normal => tracing::info!(reason, "{note}"),
    }
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Reconcile".into(),
        secondary: None,
    };
    match tokio::time::timeout(CALL_TIMEOUT, recorder.publish(&event, object)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "failed to publish an event"),
        Err(_) => tracing::warn!("publishing an event took too long"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::RESTART_REFUSED;
    use crate::domain::conditions::Conditions;

    fn conditions(refusal: Option<(&str, &str)>) -> Vec<Condition> {
        let (reason, message) = refusal.unwrap_or_default();
        Conditions::after(&[], 1, Timestamp::UNIX_EPOCH)
            .with("Ready", true, "Succeeded", "done")
            .with_if(RESTART_REFUSED, refusal.is_some(), reason, message)
            .build()
    }

    #[test]
    fn a_refused_restart_is_told_once() {
        let (taken, other) = (Some(("NameTaken", "sale-r1")), Some(("AlreadyRestarted", "by sale-r1")));
        for (before, after, is_told) in [
            (None, taken, true),
            (taken, taken, false),
            (taken, other, true),
            (taken, None, false),
            (None, None, false),
            (taken, Some(("NameTaken", "sale-r2")), true),
        ] {
            let (before, after) = (conditions(before), conditions(after));
            assert_eq!(news(RESTART_REFUSED, &before, &after).is_some(), is_told, "{before:?} {after:?}");
        }
    }
}
