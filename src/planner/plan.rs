//! From a spec to sealed pages. Nothing is sent before the seal; a plan that is interrupted is begun again, and pages that
//! it left are taken over or thrown away.

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt};

use super::restart::{self, Taken};
use super::sources::{self, Read};
use super::{Context, PlannerError, campaign, hold, report};
use crate::api::{
    BatchProgress, Broadcast, BroadcastStatus, Counts, HttpChannel, KeyRef, Lineage, LocalRef,
    MessageContent, ObjectRef, Resolved,
};
use crate::clock;
use crate::cluster::within;
use crate::domain::audience::{digest, pages};
use crate::domain::hold::Hold;
use crate::domain::ids::ObjectKey;
use crate::domain::message::MessageTemplate;
use crate::domain::page::{Page, Recipient};
use crate::domain::verdict::Stage;

/// Pages that are written at the same time: enough to hide the way to the API server and back, few enough to leave it
/// time for others.
const WRITES_AT_ONCE: usize = 8;

/// How a plan ended.
pub(super) enum Planned {
    /// The audience is sealed.
    Sealed,
    /// It is not, and the status should say this.
    Not(Stage),
    /// The Broadcast is not as it was seen.
    Outdated,
}

/// What a plan is made for.
pub(super) struct Plan {
    pub(super) resolved: Resolved,
    pub(super) recipients: Vec<Recipient>,
    pub(super) restarted_from: Option<ObjectRef>,
    pub(super) lineage: Lineage,
}

/// Plans a Broadcast that is not sealed.
pub(super) async fn plan(broadcast: &Broadcast, context: &Context) -> Result<Planned, PlannerError> {
    // Also when its cause is gone since: else the garbage collector would decide.
    if let Some(held) = Hold::shown(broadcast).filter(|held| !held.is_accepted(broadcast)) {
        return Ok(Planned::Not(Stage::Held(held)));
    }
    if let Some(taken) = campaign::check(broadcast, context).await? {
        return Ok(Planned::Not(taken));
    }
    let prepared = match &broadcast.spec.restart_from {
        Some(request) => restart::prepare(broadcast, request, context).await?,
        None => prepare(broadcast, context).await?,
    };
    let plan = match prepared {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            // A person should know before they let it start.
            let held = hold::look_for_leftovers(broadcast, context).await?;
            return Ok(Planned::Not(held.map_or(Stage::Checked, Stage::Held)));
        }
        Err(stage) => return Ok(Planned::Not(stage)),
    };
    // A plan that was sealed a moment ago must not be taken for leftovers.
    let api: Api<Broadcast> =
        Api::namespaced(context.client.clone(), &broadcast.namespace().unwrap_or_default());
    let stored = within(api.get(&broadcast.name_any())).await?;
    if stored.resource_version() != broadcast.resource_version() {
        return Ok(Planned::Outdated);
    }
    let written = match hold::clear_leftovers(broadcast, context, pages(plan.recipients.clone())).await? {
        Ok(written) => written,
        Err(stage) => return Ok(Planned::Not(stage)),
    };
    // The last thing before the pages: who has the key begins, or goes and gives it back.
    if let Err(taken) = campaign::reserve(broadcast, context).await? {
        return Ok(Planned::Not(taken));
    }
    seal(broadcast, context, plan, written).await
}

/// The plan of a Broadcast with recipients of its own; `None` when it is stopped before it began.
async fn prepare(
    broadcast: &Broadcast,
    context: &Context,
) -> Result<Result<Option<Plan>, Stage>, PlannerError> {
    let (Some(channel_ref), Some(message), Some(recipients)) =
        (&broadcast.spec.channel_ref, &broadcast.spec.message, &broadcast.spec.recipients)
    else {
        return Ok(Err(stalled("InvalidSpec", "channelRef, message and recipients are needed")));
    };
    if let Err(problem) = check_channel(broadcast, context, channel_ref).await? {
        return Ok(Err(Stage::Stalled(problem.0, problem.1)));
    }
    let namespace = broadcast.namespace().unwrap_or_default();
    let recipients = match sources::audience(&context.client, &namespace, recipients).await? {
        Ok(recipients) => recipients,
        Err((reason, message)) => return Ok(Err(Stage::Stalled(reason, message))),
    };
    let recipients = match check_message(message, recipients).await {
        Ok(recipients) => recipients,
        Err(stage) => return Ok(Err(stage)),
    };
    if broadcast.spec.paused {
        return Ok(Ok(None));
    }
    let total = i32::try_from(recipients.len()).unwrap_or(i32::MAX);
    Ok(Ok(Some(Plan {
        resolved: Resolved { channel_ref: channel_ref.clone(), message: message.clone() },
        recipients,
        restarted_from: None,
        lineage: Lineage { root: broadcast.name_any(), depth: 0, total, reached: 0 },
    })))
}

/// Checks that the channel exists, and the Secrets that it names.
pub(super) async fn check_channel(
    broadcast: &Broadcast,
    context: &Context,
    reference: &LocalRef,
) -> Result<Read<()>, PlannerError> {
    let key = ObjectKey::new(broadcast.namespace().unwrap_or_default(), &reference.name);
    let Some(channel) = context.observed.channel(&key) else {
        let message = format!(
            "BroadcastChannel {} does not exist in this namespace: create it, or correct spec.channelRef.name",
            key.name
        );
        return Ok(Err(("ChannelNotFound".into(), message)));
    };
    // Copies: a borrow of the channel may not be held while waiting for an answer.
    let secrets: Vec<KeyRef> = channel.spec.http.iter().flat_map(HttpChannel::secrets).cloned().collect();
    for KeyRef { name, key: wanted } in &secrets {
        let api: Api<k8s_openapi::api::core::v1::Secret> =
            Api::namespaced(context.client.clone(), &key.namespace);
        match within(api.get(name)).await {
            Ok(secret) if secret.data.as_ref().is_some_and(|data| data.contains_key(wanted)) => {}
            Ok(_) => {
                let message = format!("Secret {name} of channel {} has no key {wanted}: add it", key.name);
                return Ok(Err(("SecretKeyNotFound".into(), message)));
            }
            Err(error) if error.is_not_found() => {
                let message = format!(
                    "Secret {name} of channel {} does not exist: create it with key {wanted}",
                    key.name
                );
                return Ok(Err(("SecretNotFound".into(), message)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Ok(()))
}

/// Checks that every recipient gets a text. Makes all of them, on a thread that holds up nothing else.
pub(super) async fn check_message(
    message: &MessageContent,
    recipients: Vec<Recipient>,
) -> Result<Vec<Recipient>, Stage> {
    let text = message.text.clone();
    let checking = tokio::task::spawn_blocking(move || {
        let checked = MessageTemplate::parse(&text).and_then(|template| template.check(&recipients.iter()));
        checked.map(|()| recipients)
    });
    match checking.await {
        Ok(checked) => checked.map_err(|error| stalled(error.category(), &error.to_string())),
        Err(died) => Err(stalled("InvalidTemplate", &format!("the text could not be checked: {died}"))),
    }
}

pub(super) fn stalled(reason: &str, message: &str) -> Stage {
    Stage::Stalled(reason.to_owned(), message.to_owned())
}

/// Writes the pages, and then the seal, on the version of the Broadcast that was planned from: a spec that was changed
/// meanwhile is planned anew.
async fn seal(
    broadcast: &Broadcast,
    context: &Context,
    plan: Plan,
    pages: Vec<Page>,
) -> Result<Planned, PlannerError> {
    let digest = digest(&pages);
    let (number, total) = (pages.len(), plan.recipients.len());
    let skipped = plan.recipients.iter().filter(|recipient| !recipient.skip.is_empty()).count();
    let writes = pages.into_iter().enumerate().map(|(index, page)| async move {
        // A plan takes a while, in which another process may have become the leader.
        match context.leases.is_leader() {
            true => Ok(context.ledger.create_page(broadcast, index, page).await?),
            false => Err(PlannerError::Deposed),
        }
    });
    let written: Result<(), PlannerError> =
        futures::stream::iter(writes).buffer_unordered(WRITES_AT_ONCE).try_collect().await;
    written?;
    let status =
        sealed_status(broadcast, plan, Sealing { digest, number, total, skipped, now: clock::now() });
    report::write(broadcast, context, status).await?;
    tracing::info!(chats = total, skipped, batches = number, "audience sealed");
    Ok(Planned::Sealed)
}

struct Sealing {
    digest: String,
    number: usize,
    total: usize,
    skipped: usize,
    now: Timestamp,
}

fn sealed_status(broadcast: &Broadcast, plan: Plan, sealing: Sealing) -> BroadcastStatus {
    let Sealing { digest, number, total, skipped, now } = sealing;
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let counts = Counts { pending: count(total - skipped), skipped: count(skipped), ..Counts::default() };
    BroadcastStatus {
        observed_generation: broadcast.metadata.generation.unwrap_or_default(),
        total: Some(count(total)),
        progress: Some(format!("0/{total}")),
        counts: Some(counts),
        batches: Some(BatchProgress { total: count(number), done: 0 }),
        start_time: Some(Time(now)),
        audience_digest: Some(digest),
        resolved: Some(plan.resolved),
        restarted_from: plan.restarted_from,
        lineage: Some(plan.lineage),
        hold: None,
        accepted_token: hold::accepted_token(broadcast),
        accepted_restore: hold::accepted_restore(broadcast),
        ..broadcast.status.clone().unwrap_or_default()
    }
}

/// The plan of a restart that has taken its source.
pub(super) fn of_restart(taken: Taken) -> Plan {
    let Taken { resolved, recipients, source, lineage } = taken;
    Plan { resolved, recipients, restarted_from: Some(source), lineage }
}
