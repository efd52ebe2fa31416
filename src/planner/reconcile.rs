//! One look at one Broadcast: observe, decide, act, report.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use tracing::{Instrument, Span};

use super::in_flight::look_before_suspended;
use super::plan::Planned;
use super::restart::Asked;
use super::{Context, PlannerError, cleanup, hold, plan, report, restart};
use crate::api::{Broadcast, BroadcastChannel};
use crate::clock;
use crate::cluster::chain;
use crate::domain::hold::{Books, accepted};
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::verdict::Stage;
use crate::journal::JournalError;
use crate::ledger::LedgerError;
use crate::unstored;

/// A Broadcast that needs a person is looked at again after so long: the cause may be a Secret or `ConfigMap`, which are
/// not watched, because the operator has no business knowing all of them.
const RECHECK: Duration = Duration::from_secs(10);

/// The cache is behind what is stored; its watch catches up within milliseconds.
const OUTDATED: Duration = Duration::from_millis(200);

/// The reconciler of the controller.
pub(super) async fn reconcile(
    broadcast: Arc<Broadcast>,
    context: Arc<Context>,
) -> Result<Action, PlannerError> {
    let Ok(_turn) = context.turns.acquire().await else { return Ok(Action::await_change()) };
    // It may have changed since it was asked for.
    let Some(broadcast) = context.observed.broadcast(&key_of(&broadcast)) else {
        return Ok(Action::await_change());
    };
    let span = span_of(&broadcast);
    let started = clock::monotonic();
    let result = look(&broadcast, &context).instrument(span).await;
    context.metrics.reconciled(result.is_ok(), started.elapsed());
    if result.is_ok() {
        context.succeeded(&broadcast);
    }
    match result {
        // Somebody else wrote first; the watch brings what they wrote.
        Err(PlannerError::Api(error)) if error.is_conflict() => Ok(Action::requeue(OUTDATED)),
        result => result,
    }
}

/// What each line of the log says of the Broadcast. A field must not be called `name`: that is the span's own name in JSON.
fn span_of(broadcast: &Broadcast) -> Span {
    let namespace = broadcast.namespace().unwrap_or_default();
    tracing::info_span!("broadcast", namespace, broadcast = broadcast.name_any())
}

/// One step. What only a person can help with is a state, and not only a line in the log.
async fn look(broadcast: &Broadcast, context: &Context) -> Result<Action, PlannerError> {
    let error = match step(broadcast, context).await {
        Err(error) => error,
        done => return done,
    };
    let Some(stage) = stage_of(&error) else { return Err(error) };
    let wait = report::report(broadcast, context, &stage, None).await?;
    Ok(Action::requeue(wait.unwrap_or(RECHECK)))
}

/// What a page that will not be stored, or a page or journal that cannot be read, means for the Broadcast that needs it. Anything
/// else may go by itself.
fn stage_of(error: &PlannerError) -> Option<Stage> {
    let error = match error {
        PlannerError::Ledger(error) | PlannerError::Journal(JournalError::Page(error)) => error,
        PlannerError::Journal(JournalError::Unreadable { journal }) => {
            let message = format!(
                "journal {} cannot be read, so who has the message is not known: restore it, or delete it, which loses what it says",
                journal.name
            );
            return Some(Stage::Stalled("JournalUnreadable".into(), message));
        }
        _ => return None,
    };
    match error {
        LedgerError::Api { page, source } if source.is_refused() => {
            let message = unstored::message(&page.name, &chain(source));
            Some(Stage::Stalled(unstored::REASON.into(), message))
        }
        LedgerError::Corrupt { page, .. } => {
            let message =
                format!("batch {} is needed and cannot be read: {}. Restore it", page.name, chain(error));
            Some(Stage::Stalled("BatchUnreadable".into(), message))
        }
        _ => None,
    }
}

async fn step(broadcast: &Broadcast, context: &Context) -> Result<Action, PlannerError> {
    if !context.leases.is_leader() {
        if let Some(wait) = hold::bear_witness(broadcast, context).await? {
            return Ok(Action::requeue(wait));
        }
        // Whoever becomes the leader looks at everything, and so does a leader after a renewal that was late.
        return Ok(Action::await_change());
    }
    if broadcast.metadata.deletion_timestamp.is_some() {
        return cleanup::finalize(broadcast, context).await;
    }
    if !cleanup::has_finalizer(broadcast) {
        cleanup::add_finalizer(broadcast, context).await?;
        return Ok(Action::await_change());
    }
    if let Some(held) = hold::of_cluster(broadcast, context).filter(|_| broadcast.status.is_some()) {
        let wait = report::report(broadcast, context, &Stage::Held(held), None).await?;
        return Ok(Action::requeue(wait.unwrap_or(RECHECK)));
    }
    if is_sealed(broadcast) {
        return watch_over(broadcast, context).await;
    }
    if broadcast.status.is_none() {
        // The first conditions, before anything else; what is written triggers the next look. After a try that failed it is
        // too early for another one, and nothing else would bring it.
        let wait = report::report(broadcast, context, &Stage::Planning, None).await?;
        return Ok(wait.map_or_else(Action::await_change, Action::requeue));
    }
    match plan::plan(broadcast, context).await? {
        Planned::Sealed => Ok(Action::await_change()),
        Planned::Outdated => Ok(Action::requeue(OUTDATED)),
        Planned::Not(stage) => {
            let refused = restart::refuse_before_it_began(broadcast, &stage);
            let wait = report::report(broadcast, context, &stage, refused.as_ref()).await?;
            Ok(Action::requeue(wait.unwrap_or(RECHECK)))
        }
    }
}

/// A sealed Broadcast: its status, its restart, its end.
async fn watch_over(broadcast: &Broadcast, context: &Context) -> Result<Action, PlannerError> {
    let refused = match restart::create_child(broadcast, context).await? {
        Asked::Nothing => None,
        Asked::Refused(reason) => Some(reason),
        Asked::Followed => return Ok(Action::await_change()),
    };
    look_before_suspended(broadcast, context).await?;
    hold::clear_strays(broadcast, context).await?;
    let stage = match hold::of_sealed(broadcast, context).await? {
        None => Stage::Sealed,
        Some(held) if accepted(broadcast).is_some_and(|accepted| accepted.token == held.token) => {
            hold::go_on(broadcast, context, &held).await?
        }
        Some(held) => Stage::Held(held),
    };
    let wait = report::report(broadcast, context, &stage, refused.as_ref()).await?;
    // Nothing else may happen that shows that a page does not come any more.
    let recheck = (context.observed.books(broadcast) != Books::Agree).then_some(RECHECK);
    let expiry = cleanup::expire(broadcast, context).await?;
    Ok([wait, expiry, recheck].into_iter().flatten().min().map_or_else(Action::await_change, Action::requeue))
}

/// Whether the audience is written down and may be sent to.
pub(super) fn is_sealed(broadcast: &Broadcast) -> bool {
    broadcast.status.as_ref().is_some_and(|status| status.audience_digest.is_some())
}

/// Namespace and name.
pub(super) fn key_of(broadcast: &Broadcast) -> ObjectKey {
    ObjectKey::new(broadcast.namespace().unwrap_or_default(), broadcast.name_any())
}

/// UID of a stored Broadcast.
pub(super) fn uid_of(broadcast: &Broadcast) -> BroadcastUid {
    BroadcastUid::new(broadcast.uid().unwrap_or_default())
}

/// The channel that a Broadcast sends through, or would.
pub(super) fn channel_of(broadcast: &Broadcast, context: &Context) -> Option<Arc<BroadcastChannel>> {
    let resolved = broadcast.status.as_ref().and_then(|status| status.resolved.as_ref());
    let reference = resolved.map(|resolved| &resolved.channel_ref).or(broadcast.spec.channel_ref.as_ref())?;
    context.observed.channel(&ObjectKey::new(broadcast.namespace().unwrap_or_default(), &reference.name))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    #[test]
    fn the_name_of_a_broadcast_stands_in_a_json_line_beside_the_name_of_the_span() {
        let mut broadcast = Broadcast::new("spring-sale", crate::api::BroadcastSpec::default());
        broadcast.metadata.namespace = Some("shop".into());
        let mut log = tempfile::tempfile().expect("a file");
        let writer = Arc::new(log.try_clone().expect("a file"));
        let subscriber = tracing_subscriber::fmt().json().with_writer(writer).finish();
        tracing::subscriber::with_default(subscriber, || {
            span_of(&broadcast).in_scope(|| tracing::info!("audience sealed"));
        });
        log.rewind().expect("a file");
        let mut line = String::new();
        log.read_to_string(&mut line).expect("a file");
        let line: serde_json::Value = serde_json::from_str(&line).expect("one line of JSON");
        let span = serde_json::json!({"name": "broadcast", "namespace": "shop", "broadcast": "spring-sale"});
        assert_eq!(line["span"], span);
    }
}
