//! Holds: what is found of a Broadcast that was restored or recreated, and what accepting it does.
//!
//! In: pages as the API server has them. Out: a hold for the status, or, once a person has accepted it, pages to go on with.
//! Whatever is accepted, a chat of which a batch says that it was sent to is not sent to again.

use std::time::Duration;

use kube::ResourceExt;

use super::begun::{own_pages, was_used};
use super::plan::stalled;
use super::reconcile::{channel_of, key_of, uid_of};
use super::regain::{give_up, is_readable, put_in_place, take_up};
use super::{Context, PlannerError, opted_out, report, restart, sources};
use crate::api::{BROADCAST_LABEL, Broadcast, BroadcastBatch, BroadcastStatus, HoldReason};
use crate::clock;
use crate::domain::audience::{digest, pages};
use crate::domain::chat::ChatRules;
use crate::domain::hold::{self, Books, Hold, batches_missing, batches_went_back};
use crate::domain::ids::ObjectKey;
use crate::domain::page::{Page, Recipient};
use crate::domain::standing::Standing;
use crate::domain::summary::Seen;
use crate::domain::verdict::Stage;

/// The token of what a person has accepted of this Broadcast last, besides restores of the cluster.
pub(super) fn accepted_token(broadcast: &Broadcast) -> Option<String> {
    let now = hold::accepted(broadcast).filter(|hold| hold.reason != HoldReason::ClusterRestored);
    let before = || broadcast.status.as_ref().and_then(|status| status.accepted_token.clone());
    now.map(|hold| hold.token).or_else(before)
}

/// The token of the restore of the cluster that a person has accepted for this Broadcast last.
pub(super) fn accepted_restore(broadcast: &Broadcast) -> Option<String> {
    let now = hold::accepted(broadcast).filter(|hold| hold.reason == HoldReason::ClusterRestored);
    let before = || broadcast.status.as_ref().and_then(|status| status.accepted_restore.clone());
    now.map(|hold| hold.token).or_else(before)
}

/// What a Broadcast is held for because the whole cluster was restored, if a person has not accepted it.
pub(super) fn of_cluster(broadcast: &Broadcast, context: &Context) -> Option<Hold> {
    let restored = context.leases.restored()?;
    let source = broadcast.spec.restart_from.as_ref().and_then(|source| {
        let key = ObjectKey::new(broadcast.namespace().unwrap_or_default(), &source.name);
        context.observed.broadcast(&key)?.creation_timestamp().map(|created| created.0)
    });
    Hold::of_restored(broadcast, &restored, source)
}

/// Looks at pages that are there before the audience is sealed. Pages of another Broadcast, or with outcomes in them, are a
/// reason to hold: a restored or recreated Broadcast must not send again by itself. Other leftovers are thrown away when they
/// do not fit. Returns the pages to seal.
pub(super) async fn clear_leftovers(
    broadcast: &Broadcast,
    context: &Context,
    wanted: Vec<Page>,
) -> Result<Result<Vec<Page>, Stage>, PlannerError> {
    let stored = context.ledger.stored_pages(&key_of(broadcast)).await?;
    let found = refuse_leftovers(&stored, broadcast, context).map(|found| as_accepted(broadcast, found));
    match found.as_ref().map(|found| (found.is_accepted(broadcast), found.reason)) {
        Some((false, _)) => return Ok(found.map(Stage::Held).map_or(Ok(wanted), Err)),
        Some((true, HoldReason::PagesOfAnotherBroadcast)) => {
            for page in foreign(&stored, broadcast) {
                context.ledger.delete_page(page).await?;
            }
            let message = "the batches of the earlier Broadcast are being deleted, as accepted";
            return Ok(Err(Stage::Waiting("Planning", message.into())));
        }
        Some((true, _)) | None => {}
    }
    let accepted = found.or_else(|| hold::accepted(broadcast));
    if accepted.is_some_and(|accepted| accepted.reason == HoldReason::StatusLost) {
        return Ok(take_up(broadcast, wanted, &stored));
    }
    let unfit: Vec<&BroadcastBatch> = stored.iter().filter(|page| !fits(&wanted, page)).collect();
    if !unfit.is_empty() && !end_other_plans(broadcast, context).await? {
        let message = "batches of a plan that was broken off are being deleted";
        return Ok(Err(Stage::Waiting("Planning", message.into())));
    }
    for page in unfit {
        context.ledger.delete_page(page).await?;
    }
    Ok(Ok(wanted))
}

/// Makes sure that no other process can seal a plan that it began before: its seal is on the version of the Broadcast that it
/// planned from. Else one that leads no more, with an audience of its own, could seal what is half its plan and half this
/// one, and a chat could be in both halves. Returns whether the version that was seen is one on which nobody else plans.
async fn end_other_plans(broadcast: &Broadcast, context: &Context) -> Result<bool, PlannerError> {
    let own = context.ledger.incarnation().as_str();
    let status = broadcast.status.clone().unwrap_or_default();
    if status.planned_by.as_deref() == Some(own) {
        return Ok(true);
    }
    let status = BroadcastStatus { planned_by: Some(own.to_owned()), ..status };
    report::write(broadcast, context, status).await?;
    Ok(false)
}

/// What a Broadcast that is not sealed must be held for, if a person has not accepted it.
pub(super) async fn look_for_leftovers(
    broadcast: &Broadcast,
    context: &Context,
) -> Result<Option<Hold>, PlannerError> {
    let stored = context.ledger.stored_pages(&key_of(broadcast)).await?;
    let found = refuse_leftovers(&stored, broadcast, context).map(|found| as_accepted(broadcast, found));
    Ok(found.filter(|held| !held.is_accepted(broadcast)))
}

/// A lost status that was accepted is made up for to the end. An earlier try may have made some of the pages, so that others
/// are there than those that were shown; none of them is sent to again.
fn as_accepted(broadcast: &Broadcast, found: Hold) -> Hold {
    let accepted = hold::accepted(broadcast).filter(|accepted| accepted.reason == HoldReason::StatusLost);
    accepted.filter(|accepted| accepted.reason == found.reason).unwrap_or(found)
}

/// Why a Broadcast must not be planned over the pages that are there, if so.
fn refuse_leftovers(stored: &[BroadcastBatch], broadcast: &Broadcast, context: &Context) -> Option<Hold> {
    let mut owners: Vec<&str> =
        foreign(stored, broadcast).map(|page| page.spec.broadcast.uid.as_str()).collect();
    if let Some(page) = foreign(stored, broadcast).next() {
        // The garbage collector takes them one by one: the token is of whose they are, not of how many are left.
        owners.sort_unstable();
        owners.dedup();
        let says = format!(
            "batch {} is of an earlier Broadcast of this name, so its chats may have the message already: nothing is sent. \
             To delete the earlier batches and send to all chats",
            page.name_any()
        );
        return Some(Hold::new(broadcast, HoldReason::PagesOfAnotherBroadcast, owners, &says));
    }
    let is_known = context.observed.pages.were_used(&key_of(broadcast).namespace, &uid_of(broadcast));
    let says = match stored.iter().find(|page| was_used(page)) {
        Some(used) => format!(
            "batch {} has outcomes, but this Broadcast's status is gone: it was restored without it, so nothing is sent. \
             Restore the status as well. Or go on from what the batches say; chats of batches that are lost become Unknown",
            used.name_any()
        ),
        None if is_known => "this Broadcast was sent from, but its status is gone, and so are the batches that said to whom: nothing \
                             is sent. Restore them. Or go on from what the batches say, with a second message to chats that are \
                             Pending in them again; chats of batches that are lost become Unknown"
            .to_owned(),
        None => return None,
    };
    // Receipts change pages while it is held; which pages they are stays.
    let mut uids: Vec<String> = stored.iter().filter_map(ResourceExt::uid).collect();
    uids.sort_unstable();
    Some(Hold::new(broadcast, HoldReason::StatusLost, uids.iter().map(String::as_str), &says))
}

fn foreign<'a>(
    stored: &'a [BroadcastBatch],
    broadcast: &Broadcast,
) -> impl Iterator<Item = &'a BroadcastBatch> {
    let uid = uid_of(broadcast);
    stored.iter().filter(move |page| page.spec.broadcast.uid != uid.as_str())
}

/// Whether a stored page has the recipients that are wanted in its place.
fn fits(wanted: &[Page], batch: &BroadcastBatch) -> bool {
    let place = usize::try_from(batch.spec.index).ok().and_then(|index| wanted.get(index));
    place.is_some_and(|page| page.recipients_csv() == batch.spec.recipients)
}

/// What a sealed Broadcast is held for, if anything.
pub(super) async fn of_sealed(
    broadcast: &Broadcast,
    context: &Context,
) -> Result<Option<Hold>, PlannerError> {
    let shown = Hold::shown(broadcast).filter(|shown| shown.reason == HoldReason::BatchesWentBack);
    let is_complete = broadcast.status.as_ref().is_some_and(|status| status.completion_time.is_some());
    let books = context.observed.books(broadcast);
    let is_accepted = shown.as_ref().is_some_and(|shown| shown.is_accepted(broadcast));
    if let (Some(shown), Books::Behind(chats), false) = (&shown, books, is_accepted || is_complete)
        && shown.chats.is_none_or(|known| chats > known)
    {
        // Who restores pages one by one goes on doing so after the first was noticed.
        return Ok(Some(batches_went_back(broadcast, chats)));
    }
    if is_complete || (shown.is_some() && !(is_accepted && books == Books::Missing)) {
        // What went back stays so, also when receipts have made up for it since.
        return Ok(shown);
    }
    let pages = context.observed.pages.of(&broadcast.namespace().unwrap_or_default(), &uid_of(broadcast));
    let of_lost = hold::accepted(broadcast).filter(|hold| hold.reason == HoldReason::BatchesMissing);
    if of_lost.is_some() && Seen::of(&pages).behind == 0 {
        // It is carried out to its end. An earlier try may have made some of the pages, so that another number is missing now.
        return Ok(of_lost);
    }
    if let Some(missing) = batches_missing(broadcast, &pages, clock::now()) {
        return Ok(Some(missing));
    }
    match books {
        Books::Agree | Books::Missing => Ok(None),
        // An earlier version of the very page was seen.
        Books::Behind(chats) if Seen::of(&pages).behind > 0 => Ok(Some(batches_went_back(broadcast, chats))),
        Books::Behind(_) => confirmed(broadcast, context).await,
    }
}

/// Shows a person that pages of a sealed Broadcast went back, as this process has seen for itself. The leader may have seen
/// only what stands there now, and whoever saw more sends nothing from it, so whoever saw it says so, leader or not. It is
/// written on the version of the Broadcast that is known here, so what was accepted meanwhile is not held again.
pub(super) async fn bear_witness(
    broadcast: &Broadcast,
    context: &Context,
) -> Result<Option<Duration>, PlannerError> {
    let status = broadcast.status.as_ref().filter(|status| status.batches.is_some());
    let is_open = status.is_some_and(|status| status.completion_time.is_none() && status.hold.is_none());
    let seen = context.observed.pages.seen(&broadcast.namespace().unwrap_or_default(), &uid_of(broadcast));
    if !is_open || seen.behind == 0 || broadcast.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    match context.observed.books(broadcast) {
        Books::Behind(chats) => {
            let held = Stage::Held(batches_went_back(broadcast, chats));
            report::report(broadcast, context, &held, None).await
        }
        // All pages have to be there first; each that comes brings this Broadcast here again.
        Books::Agree | Books::Missing => Ok(None),
    }
}

/// Deletes pages that the sealed plan does not have: one of a plan that was given up may still have been on its way when the
/// other one was sealed. Nothing is sent while there are too many, so nothing was sent from them.
pub(super) async fn clear_strays(broadcast: &Broadcast, context: &Context) -> Result<(), PlannerError> {
    let batches = broadcast.status.as_ref().and_then(|status| status.batches);
    let Some(planned) = batches.and_then(|batches| usize::try_from(batches.total).ok()) else {
        return Ok(());
    };
    let namespace = broadcast.namespace().unwrap_or_default();
    if !context.observed.pages.has_from(&namespace, &uid_of(broadcast), planned) {
        return Ok(());
    }
    for page in own_pages(broadcast, context).await? {
        if usize::try_from(page.spec.index).is_ok_and(|index| index >= planned) && !was_used(&page) {
            context.ledger.delete_page(&page).await?;
        }
    }
    Ok(())
}

/// The watch of the pages may be behind that of the Broadcast, whose status another replica has written. Pages that are read
/// after the status are never behind it by themselves.
async fn confirmed(broadcast: &Broadcast, context: &Context) -> Result<Option<Hold>, PlannerError> {
    let stored = own_pages(broadcast, context).await?;
    let seen = seen(&stored);
    let status = broadcast.status.clone().unwrap_or_default();
    match hold::books(&status, &seen) {
        Books::Behind(chats) => Ok(Some(batches_went_back(broadcast, chats))),
        Books::Agree | Books::Missing => Ok(None),
    }
}

/// Stored pages, added up; those that cannot be read are not there.
pub(super) fn seen(stored: &[BroadcastBatch]) -> Seen {
    let readable = stored.iter().filter_map(|batch| Page::parse(batch).ok());
    readable.fold(Seen::default(), |seen, page| seen.with_stored(Standing::of_page(&page.counts())))
}

/// Does what a person has accepted of a sealed Broadcast. Returns what it is then.
pub(super) async fn go_on(
    broadcast: &Broadcast,
    context: &Context,
    accepted: &Hold,
) -> Result<Stage, PlannerError> {
    tracing::warn!(reason = hold::name_of(accepted.reason), token = accepted.token, "hold accepted");
    if accepted.reason != HoldReason::BatchesMissing {
        return Ok(Stage::Sealed);
    }
    let recipients = match audience_again(broadcast, context).await? {
        Ok(recipients) => recipients,
        Err(stage) => return Ok(stage),
    };
    let mut wanted = pages(recipients);
    let status = broadcast.status.clone().unwrap_or_default();
    if status.audience_digest != Some(digest(&wanted)) {
        let message = match broadcast.spec.restart_from {
            None => {
                "the missing batches cannot be given up, because the audience is not what it was: give it back, or send to the rest \
                     with a Broadcast of another name"
            }
            Some(_) => {
                "the missing batches cannot be given up, because receipts have changed the source since, so who was in them is not \
                        known: restore them. Or send to the rest with a Broadcast with recipients of its own"
            }
        };
        return Ok(stalled("AudienceChanged", message));
    }
    let stored = context.ledger.stored_pages(&key_of(broadcast)).await?;
    if let Some(other) = foreign(&stored, broadcast).next() {
        let message = format!(
            "batch {} of an earlier Broadcast is in the place of a missing one. Save what it says, and then: kubectl -n {} \
             delete bcb -l {BROADCAST_LABEL}={}",
            other.name_any(),
            broadcast.namespace().unwrap_or_default(),
            broadcast.name_any()
        );
        return Ok(stalled("PagesOfAnotherBroadcast", &message));
    }
    if let Some(resolved) = &status.resolved {
        // Whether they were skipped, or sent to before they opted out, is lost; to send to them now would be worse than either.
        wanted = opted_out::of_channel(broadcast, context, &resolved.channel_ref).await?.mark_pages(wanted);
    }
    for batch in &stored {
        put_in_place(&mut wanted, batch);
    }
    let is_kept = |index| is_readable(&stored, index);
    for (index, page) in give_up(wanted, is_kept).into_iter().enumerate() {
        if !is_kept(index) {
            context.ledger.create_page(broadcast, index, page).await?;
        }
    }
    Ok(Stage::Sealed)
}

/// The audience of a sealed Broadcast, as it is now.
async fn audience_again(
    broadcast: &Broadcast,
    context: &Context,
) -> Result<Result<Vec<Recipient>, Stage>, PlannerError> {
    if let Some(request) = &broadcast.spec.restart_from {
        return restart::recipients_again(broadcast, request, context).await;
    }
    let Some(recipients) = &broadcast.spec.recipients else {
        return Ok(Err(stalled("InvalidSpec", "recipients are needed")));
    };
    let Some(channel) = channel_of(broadcast, context) else {
        return Ok(Err(stalled("ChannelNotFound", "the channel does not exist any more: create it again")));
    };
    let namespace = broadcast.namespace().unwrap_or_default();
    let rules = ChatRules::of(&channel.spec);
    let read = sources::audience(&context.client, &namespace, recipients, rules).await?;
    Ok(read.map_err(|(reason, message)| Stage::Stalled(reason, message)))
}
