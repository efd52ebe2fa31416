//! Restarts: the source is taken, its pages are closed, and only then the child is planned from them.
//!
//! The order is the proof: a sender with a stale view of the source fails at its claim on a closed page, so no chat that
//! the child gets can still be sent by the source.

use std::collections::BTreeMap;

use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};

use super::begun::own_pages;
use super::hold::{look_for_leftovers, seen};
use super::plan::{self, Plan, check_channel, check_message, is_stopped_before_it_began, stalled};
use super::readdress::{Rules, nobody_left};
use super::reconcile::uid_of;
use super::taking::{refuse_closed, take};
use super::{Context, PlannerError, report};
use crate::api::{
    Broadcast, BroadcastBatch, BroadcastSpec, BroadcastStatus, Include, Lineage, MAX_RESTART_TOKEN,
    ObjectRef, RESTART_ANNOTATION, RESTARTED_FOR_ANNOTATION, RESTARTED_FROM_LABEL, Resolved, RestartFrom,
};
use crate::cluster::within;
use crate::domain::hold::{Books, books};
use crate::domain::ids::ObjectKey;
use crate::domain::page::{Page, Recipient};
use crate::domain::restart::{Decision, Left, accepted, carried_over, child_name, decide, held, lineage};
use crate::domain::verdict::{Refusal, Stage};
use crate::ledger::LedgerError;

/// What a restart has taken from its source.
pub(super) struct Taken {
    pub(super) resolved: Resolved,
    pub(super) recipients: Vec<Recipient>,
    pub(super) source: ObjectRef,
    pub(super) lineage: Lineage,
}

/// The plan of a restart; `None` when it is stopped before it began.
pub(super) async fn prepare(
    child: &Broadcast,
    request: &RestartFrom,
    context: &Context,
) -> Result<Result<Option<Plan>, Stage>, PlannerError> {
    // Read fresh: a decision by the cache could be about a source that has gone on since.
    let source = source_of(child, request, context).await?;
    match decide(child, request, source.as_ref()) {
        Decision::Refused(reason, message) => return Ok(Err(stalled(reason, &message))),
        Decision::Wait(message) => return Ok(Err(Stage::Waiting("WaitingForSource", message))),
        Decision::Go => {}
    }
    let Some(source) = source else { return Ok(Err(stalled("SourceNotFound", "the source does not exist"))) };
    let resolved = match resolve(child, &source) {
        Ok(resolved) => resolved,
        Err(stage) => return Ok(Err(stage)),
    };
    if let Err((reason, message)) = check_channel(child, context, &resolved.channel_ref).await? {
        return Ok(Err(Stage::Stalled(reason, message)));
    }
    let rules = match Rules::of(child, &source, &resolved, context) {
        Ok(rules) => rules,
        Err(stage) => return Ok(Err(stage)),
    };
    // Everything that can be refused is refused before the source is touched, and before its pages are read if it says enough itself.
    if let Some(refused) = refuse_by_counts(child, request, &source) {
        return Ok(Err(refused));
    }
    let batches = match batches_of(&source, context).await? {
        Ok(batches) => batches,
        Err(stage) => return Ok(Err(stage)),
    };
    if let Some(refused) = refuse_closed(child, &source, &batches, context) {
        return Ok(Err(refused));
    }
    let expected = match expected(child, request, &batches) {
        Ok(recipients) => recipients,
        Err(stage) => return Ok(Err(stage)),
    };
    if let Err(stage) = check_texts(&source, expected, &resolved, &rules, context).await {
        return Ok(Err(stage));
    }
    if is_stopped_before_it_began(child) {
        return Ok(Ok(None));
    }
    if let Some(held) = look_for_leftovers(child, context).await? {
        return Ok(Err(Stage::Held(held)));
    }
    let source = take(child, source, context).await?;
    let pages = match close_pages(&source, context).await? {
        Ok(pages) => pages,
        Err(stage) => return Ok(Err(stage)),
    };
    // A receipt may have come before the last page was closed.
    if let Some(refused) = nobody_included(child, request, pages.iter().fold(Left::default(), Left::with)) {
        return Ok(Err(refused));
    }
    let recipients = match rules.readdressed(carried_over(pages.iter(), &request.include)).await {
        Ok(recipients) => recipients,
        Err(stage) => return Ok(Err(stage)),
    };
    let taken = Taken {
        resolved,
        recipients,
        source: ObjectRef { name: source.name_any(), uid: source.uid().unwrap_or_default() },
        lineage: lineage(&source, accepted(pages.iter())),
    };
    Ok(Ok(Some(plan::of_restart(taken))))
}

/// The source of a restart as it is stored.
pub(super) async fn source_of(
    child: &Broadcast,
    request: &RestartFrom,
    context: &Context,
) -> Result<Option<Broadcast>, PlannerError> {
    let api: Api<Broadcast> = Api::namespaced(context.client.clone(), &child.namespace().unwrap_or_default());
    match within(api.get(&request.name)).await {
        Ok(source) => Ok(Some(source)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Channel and message: the child's own, or the source's.
fn resolve(child: &Broadcast, source: &Broadcast) -> Result<Resolved, Stage> {
    let inherited = source.status.as_ref().and_then(|status| status.resolved.as_ref());
    let channel_ref = child.spec.channel_ref.clone().or_else(|| inherited.map(|i| i.channel_ref.clone()));
    let message = child.spec.message.clone().or_else(|| inherited.map(|i| i.message.clone()));
    match (channel_ref, message) {
        (Some(channel_ref), Some(message)) => Ok(Resolved { channel_ref, provider: None, message }),
        _ => {
            Err(stalled("InvalidSpec", "the source has no channel and message: give channelRef and message"))
        }
    }
}

/// Why a restart would get nobody, by the counts of a source that is complete. They may be a second behind, and it is looked at again.
fn refuse_by_counts(child: &Broadcast, request: &RestartFrom, source: &Broadcast) -> Option<Stage> {
    let status = source.status.as_ref().filter(|status| status.completion_time.is_some())?;
    nobody_included(child, request, Left::of(&status.counts?))
}

fn nobody_included(child: &Broadcast, request: &RestartFrom, left: Left) -> Option<Stage> {
    let message = left.nobody_included(&child.name_any(), request)?;
    Some(stalled("NobodyIncluded", &message))
}

/// The chats that a restart will get once the pages of its source are closed, if it gets anybody. A page that cannot be read is refused
/// when it is closed.
fn expected(
    child: &Broadcast,
    request: &RestartFrom,
    batches: &[BroadcastBatch],
) -> Result<Vec<Recipient>, Stage> {
    let (mut recipients, mut left, mut is_claimed) = (Vec::new(), Left::default(), false);
    for batch in batches {
        if let Ok(mut page) = Page::parse(batch) {
            // A page with a claim on it contributes what it has.
            is_claimed |= page.seal(crate::clock::now()).is_err();
            left = left.with(&page);
            recipients.extend(carried_over([page].iter(), &request.include));
        }
    }
    match nobody_included(child, request, left) {
        Some(_) if is_claimed => Err(in_flight()),
        Some(refused) => Err(refused),
        None => Ok(recipients),
    }
}

/// What a claim holds up, until its requests are recorded.
fn in_flight() -> Stage {
    let message = "waiting until the requests of the source that are in flight are recorded";
    Stage::Waiting("WaitingForSource", message.into())
}

/// Checks the message against the chats that the child may get, before anything is closed.
async fn check_texts(
    source: &Broadcast,
    recipients: Vec<Recipient>,
    resolved: &Resolved,
    rules: &Rules,
    context: &Context,
) -> Result<(), Stage> {
    let recipients = rules.readdressed(recipients).await?;
    if let Some(stage) = nobody_left(&recipients) {
        return Err(stage);
    }
    let Resolved { channel_ref, provider: _, message } = resolved;
    check_message(source, context, channel_ref, message, recipients).await.map(drop)
}

/// The pages of a source, in their order, all of them, with everything in them that was stored of receipts until now.
async fn batches_of(
    source: &Broadcast,
    context: &Context,
) -> Result<Result<Vec<BroadcastBatch>, Stage>, PlannerError> {
    // A chat may be Failed in its page and delivered to in a journal: it is not sent to again.
    context.journal.fold_all_of(source).await?;
    let mut batches = own_pages(source, context).await?;
    batches.sort_by_key(|batch| batch.spec.index);
    let status = source.status.clone().unwrap_or_default();
    let wanted = status.batches.map_or(0, |batches| batches.total);
    if usize::try_from(wanted) != Ok(batches.len()) {
        let message = format!(
            "the source should have {wanted} batches and has {}: some were deleted, or cannot be read",
            batches.len()
        );
        return Ok(Err(stalled("SourcePagesMissing", &message)));
    }
    // What it has sent to since would be sent to again.
    if status.hold.is_some() || matches!(books(&status, &seen(&batches)), Books::Behind(_)) {
        return Ok(Err(source_is_held(&source.name_any())));
    }
    Ok(Ok(batches))
}

fn source_is_held(source: &str) -> Stage {
    stalled("SourceHeld", &held(source))
}

/// The chats that a sealed restart took from its source, if they can still be told.
pub(super) async fn recipients_again(
    child: &Broadcast,
    request: &RestartFrom,
    context: &Context,
) -> Result<Result<Vec<Recipient>, Stage>, PlannerError> {
    let Some(source) = source_of(child, request, context).await? else {
        return Ok(Err(stalled("SourceNotFound", "the source was deleted, and its log with it")));
    };
    let batches = match batches_of(&source, context).await? {
        Ok(batches) => batches,
        Err(stage) => return Ok(Err(stage)),
    };
    let resolved = match resolve(child, &source) {
        Ok(resolved) => resolved,
        Err(stage) => return Ok(Err(stage)),
    };
    let pages: Vec<Page> = batches.iter().filter_map(|batch| Page::parse(batch).ok()).collect();
    let recipients = carried_over(pages.iter(), &request.include);
    match Rules::of(child, &source, &resolved, context) {
        Ok(rules) => Ok(rules.readdressed(recipients).await),
        Err(stage) => Ok(Err(stage)),
    }
}

/// Closes every page of the source. A page with requests in flight is waited for.
async fn close_pages(
    source: &Broadcast,
    context: &Context,
) -> Result<Result<Vec<Page>, Stage>, PlannerError> {
    let uid = uid_of(source);
    let batches = match batches_of(source, context).await? {
        Ok(batches) => batches,
        Err(stage) => return Ok(Err(stage)),
    };
    let mut pages = Vec::with_capacity(batches.len());
    for batch in &batches {
        let key = ObjectKey::new(batch.namespace().unwrap_or_default(), batch.name_any());
        #[cfg(feature = "mutants")]
        if crate::mutants::is_on(crate::mutants::Mutant::ChildBeforeSeal) {
            pages.extend(Page::parse(batch).ok().map(|mut page| {
                page.release_claim();
                let _ = page.seal(crate::clock::now());
                page
            }));
            continue;
        }
        match context.ledger.seal(&key, &uid).await {
            Ok(page) => pages.push(Page::clone(&page)),
            Err(LedgerError::Claimed { .. }) => return Ok(Err(in_flight())),
            Err(LedgerError::WentBack { .. }) => return Ok(Err(source_is_held(&source.name_any()))),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Ok(pages))
}

/// What became of the annotation that asks for a restart.
pub(super) enum Asked {
    /// Nothing new.
    Nothing,
    /// It cannot be followed, and why.
    Refused(Refusal),
    /// It was followed, and its status says so.
    Followed,
}

/// Creates the child that the annotation on a source asks for: once for each value, so that a child that somebody deletes
/// does not come back.
pub(super) async fn create_child(source: &Broadcast, context: &Context) -> Result<Asked, PlannerError> {
    let token = source.annotations().get(RESTART_ANNOTATION).filter(|token| !token.is_empty());
    let status = source.status.clone().unwrap_or_default();
    let Some(token) = token.map(|token| token.chars().take(MAX_RESTART_TOKEN).collect::<String>()) else {
        return Ok(Asked::Nothing);
    };
    if status.restart_token.as_ref() == Some(&token) {
        return Ok(Asked::Nothing);
    }
    if let Some(by) = &status.restarted_by {
        let message =
            format!("it was restarted by {} already: annotate that one, or remove the annotation", by.name);
        return Ok(Asked::Refused(Refusal { reason: "AlreadyRestarted", message }));
    }
    let own = ObjectRef { name: source.name_any(), uid: source.uid().unwrap_or_default() };
    let name = child_name(&own, &lineage(source, 0));
    let api: Api<Broadcast> =
        Api::namespaced(context.client.clone(), &source.namespace().unwrap_or_default());
    match within(api.create(&PostParams::default(), &child(source, &own, name.clone(), &token))).await {
        Ok(_) => tracing::info!(child = name, "restart asked for by annotation"),
        Err(error) if error.is_already_exists() => {
            let known = within(api.get(&name)).await?;
            if let Some(refusal) = occupied(&known, &own).or_else(|| under_way(&known, &token)) {
                return Ok(Asked::Refused(refusal));
            }
        }
        Err(error) => return Err(error.into()),
    }
    report::write(source, context, BroadcastStatus { restart_token: Some(token), ..status }).await?;
    Ok(Asked::Followed)
}

/// Why the annotation cannot be followed yet on a Broadcast that is not sealed. It is, once that has begun.
pub(super) fn refuse_before_it_began(source: &Broadcast, stage: &Stage) -> Option<Refusal> {
    source.annotations().get(RESTART_ANNOTATION).filter(|token| !token.is_empty())?;
    let (reason, message) = match stage {
        Stage::Held(_) => ("SourceHeld", held(&source.name_any())),
        _ => (
            "NotBegun",
            "the annotation asks for a restart, but this Broadcast has not begun yet, so there is nothing to send again: \
             remove the annotation, or it is followed as soon as this Broadcast has begun"
                .to_owned(),
        ),
    };
    Some(Refusal { reason, message })
}

/// A Broadcast of the child's name that is no restart of this source.
fn occupied(known: &Broadcast, source: &ObjectRef) -> Option<Refusal> {
    let restarts = known.spec.restart_from.as_ref().is_some_and(|from| {
        from.name == source.name && from.uid.as_ref().is_none_or(|uid| *uid == source.uid)
    });
    (!restarts).then(|| Refusal {
        reason: "NameTaken",
        message: format!(
            "the annotation asks for a restart, but Broadcast {} is there already and is none: apply a Broadcast with \
             spec.restartFrom under another name",
            known.name_any()
        ),
    })
}

/// A restart of this source that another token has asked for, or a person has applied.
fn under_way(known: &Broadcast, token: &String) -> Option<Refusal> {
    let name = known.name_any();
    (known.annotations().get(RESTARTED_FOR_ANNOTATION) != Some(token)).then(|| Refusal {
        reason: "RestartUnderWay",
        message: format!(
            "the annotation asks for a restart, but its restart {name} is there already and has not begun: kubectl describe bc {name} says \
             what it waits for. Remove the annotation, or delete {name} to have another one"
        ),
    })
}

fn child(source: &Broadcast, own: &ObjectRef, name: String, token: &str) -> Broadcast {
    let BroadcastSpec { pacing, retry, on_unknown, ttl_seconds_after_finished, .. } = source.spec.clone();
    let restart_from = RestartFrom {
        name: own.name.clone(),
        uid: Some(own.uid.clone()),
        include: vec![Include::Failed, Include::Unsent],
    };
    Broadcast {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: source.namespace(),
            labels: Some(BTreeMap::from([(RESTARTED_FROM_LABEL.to_owned(), own.name.clone())])),
            annotations: Some(BTreeMap::from([(RESTARTED_FOR_ANNOTATION.to_owned(), token.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: BroadcastSpec {
            restart_from: Some(restart_from),
            pacing,
            retry,
            on_unknown,
            ttl_seconds_after_finished,
            ..BroadcastSpec::default()
        },
        status: None,
    }
}
