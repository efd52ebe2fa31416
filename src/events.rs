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
