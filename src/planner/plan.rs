//! From a spec to sealed pages. Nothing is sent before the seal; a plan that is interrupted is begun again, and pages that
//! it left are taken over or thrown away.

use std::sync::Arc;

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt};

use super::restart::{self, Taken};
use super::sources::{self, Read};
use super::taking::found_again;
use super::{Context, PlannerError, campaign, hold, opted_out, report};
use crate::api::{
    BatchProgress, Broadcast, BroadcastChannel, BroadcastStatus, Counts, KeyRef, Lineage, LocalRef,
    MessageContent, ObjectRef, Resolved,
};
use crate::clock;
use crate::cluster::within;
use crate::domain::audience::{digest, pages};
use crate::domain::capabilities::Capabilities;
use crate::domain::chat::{ChatRules, invalid_region};
use crate::domain::hold::{Hold, goes_on_without_status};
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
    /// Until they are in pages: an audience may be as large as all the rest of the process.
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
        Some(request) => Box::pin(restart::prepare(broadcast, request, context)).await?,
        None => Box::pin(prepare(broadcast, context)).await?,
    };
    let mut plan = match prepared {
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
    // As late as can be, and for restarts as well. Everybody may be among them: then it is complete, and nobody is sent to. There is
    // nothing in it that a person could put right.
    let suppressed = opted_out::of_channel(broadcast, context, &plan.resolved.channel_ref).await?;
    let wanted = suppressed.mark_pages(pages(std::mem::take(&mut plan.recipients)));
    let written = match hold::clear_leftovers(broadcast, context, wanted).await? {
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
    let rules = match chat_rules(broadcast, context, channel_ref) {
        Ok(rules) => rules,
        Err(stage) => return Ok(Err(stage)),
    };
    let namespace = broadcast.namespace().unwrap_or_default();
    let recipients = match sources::audience(&context.client, &namespace, recipients, rules).await? {
        Ok(recipients) => recipients,
        Err((reason, message)) => return Ok(Err(Stage::Stalled(reason, message))),
    };
    let recipients = match check_message(broadcast, context, channel_ref, message, recipients).await {
        Ok(recipients) => recipients,
        Err(stage) => return Ok(Err(stage)),
    };
    if is_stopped_before_it_began(broadcast) {
        return Ok(Ok(None));
    }
    let total = i32::try_from(recipients.len()).unwrap_or(i32::MAX);
    Ok(Ok(Some(Plan {
        resolved: Resolved { channel_ref: channel_ref.clone(), provider: None, message: message.clone() },
        recipients,
        restarted_from: None,
        lineage: Lineage { root: broadcast.name_any(), depth: 0, total, reached: 0 },
    })))
}

/// Whether nothing may be written down yet. One that was sent and has lost its status is taken up all the same once that is accepted:
/// then it shows how far it is, keeps its audience, and can be restarted.
pub(super) fn is_stopped_before_it_began(broadcast: &Broadcast) -> bool {
    broadcast.spec.paused && !goes_on_without_status(broadcast)
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
    let spec = &channel.spec;
    let secrets: Vec<KeyRef> = spec.sending_secrets().chain(spec.receipt_secrets()).cloned().collect();
    for KeyRef { name, key: wanted } in &secrets {
        let api: Api<k8s_openapi::api::core::v1::Secret> =
            Api::namespaced(context.client.clone(), &key.namespace);
        match within(api.get(name)).await {
            Ok(secret) if secret.data.as_ref().is_some_and(|data| is_filled(data, wanted)) => {}
            Ok(secret) if secret.data.as_ref().is_some_and(|data| data.contains_key(wanted)) => {
                // With an empty one, anybody could sign receipts.
                let message =
                    format!("key {wanted} of Secret {name} of channel {} is empty: fill it", key.name);
                return Ok(Err(("SecretKeyEmpty".into(), message)));
            }
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

/// A channel that was there when it was checked.
pub(super) fn present(
    broadcast: &Broadcast,
    context: &Context,
    channel: &LocalRef,
) -> Result<Arc<BroadcastChannel>, Stage> {
    let key = ObjectKey::new(broadcast.namespace().unwrap_or_default(), &channel.name);
    let gone = || Stage::Waiting("ChannelNotFound", format!("BroadcastChannel {} is gone", key.name));
    context.observed.channel(&key).ok_or_else(gone)
}

/// How the chats of a channel are read.
pub(super) fn chat_rules(
    broadcast: &Broadcast,
    context: &Context,
    channel: &LocalRef,
) -> Result<ChatRules, Stage> {
    let rules = ChatRules::of(&present(broadcast, context, channel)?.spec);
    match rules.unknown_region() {
        // The chats would all be skipped for a mistake of the channel.
        Some(region) => {
            let message = format!("channel {}: {}", channel.name, invalid_region(region));
            Err(stalled("InvalidRegion", &message))
        }
        None => Ok(rules),
    }
}

fn is_filled(data: &BTreeMap<String, ByteString>, key: &str) -> bool {
    data.get(key).is_some_and(|value| value.0.iter().any(|byte| !byte.is_ascii_whitespace()))
}

/// Checks that every recipient gets a text. Makes all of them, on a thread that holds up nothing else.
pub(super) async fn check_message(
    broadcast: &Broadcast,
    context: &Context,
    channel: &LocalRef,
    message: &MessageContent,
    recipients: Vec<Recipient>,
) -> Result<Vec<Recipient>, Stage> {
    let name = &channel.name;
    let capabilities = Capabilities::of(&present(broadcast, context, channel)?.spec);
    if let Err(unsupported) = capabilities.check(message) {
        return Err(stalled("MessageNotSupported", &format!("channel {name}: {unsupported}")));
    }
    if let Some(media) = &message.media {
        let url = media.url.split(['{', '?', '#']).next().unwrap_or_default().parse();
        let url: reqwest::Url = url.map_err(|error| {
            stalled("InvalidUrl", &format!("message.media.url is not a valid URL: {error}"))
        })?;
        // The provider fetches it, and would not reach such an address; a gateway of our own might.
        if let Err(refused) = context.addresses.check_url(&url) {
            return Err(stalled("AddressNotAllowed", &format!("message.media.url: {refused}")));
        }
    }
    let (message, max_text) = (message.clone(), capabilities.max_text_of(message));
    let checking = tokio::task::spawn_blocking(move || {
        let template = MessageTemplate::parse(&message, max_text);
        template.and_then(|template| template.check(&recipients.iter())).map(|()| recipients)
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
    mut plan: Plan,
    pages: Vec<Page>,
) -> Result<Planned, PlannerError> {
    let channel = ObjectKey::new(broadcast.namespace().unwrap_or_default(), &plan.resolved.channel_ref.name);
    plan.resolved.provider = context.observed.channel(&channel).map(|channel| channel.spec.provider);
    let digest = digest(&pages);
    let (number, total) = (pages.len(), pages.iter().map(|page| page.recipients().len()).sum());
    let skipped =
        pages.iter().flat_map(Page::recipients).filter(|recipient| !recipient.skip.is_empty()).count();
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
    let mut status =
        sealed_status(broadcast, plan, Sealing { digest, number, total, skipped, now: clock::now() });
    if status.restarted_by.is_none() && goes_on_without_status(broadcast) {
        status.restarted_by = found_again(broadcast, context);
    }
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
