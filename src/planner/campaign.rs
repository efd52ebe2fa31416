//! Campaign keys: reserved before the seal, kept for a time after their Broadcast, then deleted.
//!
//! The one who creates the object of a key has it: the API server lets nobody else. It has no owner, so it stays when its
//! Broadcast goes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};

use super::begun::has_begun;
use super::plan::stalled;
use super::{Context, PlannerError};
use crate::api::{Broadcast, BroadcastCampaign};
use crate::clock;
use crate::cluster::{ApiError, as_seen, chain, within};
use crate::domain::campaign::{
    Use, campaign_name, campaign_of, has_other_key, is_own, judge, kept_until, refusal, retention,
};
use crate::domain::verdict::Stage;

/// Between two looks for keys that need not be kept any longer. Nobody waits for that: an old key is free by its time, not
/// by its deletion.
const SWEEP: Duration = Duration::from_secs(3600);

/// Keys that are asked for at once.
const CAMPAIGNS_PER_LIST: u32 = 500;

/// Why a Broadcast may not start under its key, if so. A key that need not be kept any longer is free then.
pub(super) async fn check(broadcast: &Broadcast, context: &Context) -> Result<Option<Stage>, PlannerError> {
    let Some((api, used)) = find(broadcast, context).await? else { return Ok(None) };
    let taken = settle(broadcast.metadata.uid.as_deref(), context, &api, used).await?;
    Ok(taken.map(|taken| already_sent(&taken)))
}

/// Takes the key of a Broadcast that is about to be sealed. `Err` when another one has it.
pub(super) async fn reserve(
    broadcast: &Broadcast,
    context: &Context,
) -> Result<Result<(), Stage>, PlannerError> {
    let Some(campaign) = campaign_of(broadcast, clock::now()) else { return Ok(Ok(())) };
    let api = api(context, campaign.namespace());
    match within(api.create(&PostParams::default(), &campaign)).await {
        Ok(_) => Ok(Ok(())),
        Err(error) if error.is_already_exists() => {
            let used = within(api.get(&campaign.name_any())).await?;
            if is_own(&used.spec, broadcast.metadata.uid.as_deref()) {
                return Ok(Ok(()));
            }
            // Somebody was faster; the next look finds out whether the key is free again by then.
            Ok(Err(already_sent(&used)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The Broadcast goes: its key is kept for a time, or is free at once if it never began.
pub(super) async fn release(broadcast: &Broadcast, context: &Context) -> Result<(), PlannerError> {
    let Some((api, used)) = find(broadcast, context).await? else { return Ok(()) };
    if !is_own(&used.spec, broadcast.metadata.uid.as_deref()) {
        return Ok(());
    }
    if has_begun(broadcast, context).await? {
        let now = time_at(&api, &used).await?;
        keep(&api, used, kept_until(retention(broadcast), now)).await?;
    } else {
        delete(&api, &used).await?;
    }
    Ok(())
}

/// Deletes keys whose time is over, and dates those whose Broadcast went without a word, while this process leads and until
/// it ends.
pub(super) async fn sweep(context: &Context) {
    let mut leadership = context.leases.leadership();
    // The sender lives as long as the leases of this process; an error means that it is ending.
    while leadership.wait_for(|leads| *leads).await.is_ok() {
        let namespaces = context.observed.namespaces();
        let scopes: Vec<Api<BroadcastCampaign>> = match namespaces {
            [] => vec![Api::all(context.client.clone())],
            some => some.iter().map(|name| Api::namespaced(context.client.clone(), name)).collect(),
        };
        for scope in scopes {
            if let Err(error) = sweep_once(context, &scope).await {
                tracing::warn!(error = %chain(&error), "old campaign keys are not deleted yet");
            }
        }
        clock::wait(SWEEP).await;
    }
}

async fn sweep_once(context: &Context, scope: &Api<BroadcastCampaign>) -> Result<(), PlannerError> {
    let mut params = ListParams::default().limit(CAMPAIGNS_PER_LIST);
    loop {
        let list = within(scope.list(&params)).await?;
        for campaign in list.items {
            let api = api(context, campaign.namespace());
            let name = campaign.spec.key.clone();
            if let Err(error) = settle(None, context, &api, campaign).await {
                tracing::warn!(campaign = name, error = %chain(&error), "failed to look after a campaign key");
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// What is stored under the key of a Broadcast.
async fn find(
    broadcast: &Broadcast,
    context: &Context,
) -> Result<Option<(Api<BroadcastCampaign>, BroadcastCampaign)>, PlannerError> {
    let Some(key) = &broadcast.spec.campaign_key else { return Ok(None) };
    let api = api(context, broadcast.namespace());
    match within(api.get(&campaign_name(key))).await {
        Ok(found) => Ok(Some((api, found))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Frees a key that need not be kept, and dates one that nobody has any more. Returns it while another Broadcast has it.
async fn settle(
    uid: Option<&str>,
    context: &Context,
    api: &Api<BroadcastCampaign>,
    used: BroadcastCampaign,
) -> Result<Option<BroadcastCampaign>, PlannerError> {
    if is_own(&used.spec, uid) {
        return Ok(None);
    }
    // Read fresh: a cache that does not have the owner yet would give its key away.
    let owners: Api<Broadcast> =
        Api::namespaced(context.client.clone(), &used.namespace().unwrap_or_default());
    let owner = match within(owners.get(&used.spec.broadcast.name)).await {
        Ok(owner) => Some(owner),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let has_begun = match &owner {
        Some(owner) if has_other_key(&used.spec, owner) => has_begun(owner, context).await?,
        _ => true,
    };
    let now = time_at(api, &used).await?;
    match judge(&used.spec, uid, owner.as_ref(), has_begun, now) {
        Use::Own => Ok(None),
        Use::Taken => Ok(Some(used)),
        Use::Free => {
            delete(api, &used).await?;
            Ok(None)
        }
        Use::Abandoned => {
            let until = kept_until(used.spec.retention_seconds, now);
            Ok(Some(keep(api, used, until).await?))
        }
    }
}

/// The time by the API server, which alone decides how long a key is kept: the clock of a replica may be days ahead. It says when an
/// object was changed last, also of a change that it is told not to store.
async fn time_at(api: &Api<BroadcastCampaign>, used: &BroadcastCampaign) -> Result<Timestamp, ApiError> {
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let mut never_stored = used.clone();
    // Any other number: what stays as it is has no new time.
    never_stored.spec.retention_seconds ^= 1;
    let changed = within(api.replace(&used.name_any(), &params, &never_stored)).await?;
    let times = changed.managed_fields().iter().filter_map(|entry| entry.time.as_ref());
    Ok(times.map(|time| time.0).max().unwrap_or_else(clock::now))
}

/// Sets the end of a key, unless it was changed since it was read.
async fn keep(
    api: &Api<BroadcastCampaign>,
    mut used: BroadcastCampaign,
    until: Time,
) -> Result<BroadcastCampaign, ApiError> {
    if used.spec.kept_until.is_some() {
        return Ok(used);
    }
    used.spec.kept_until = Some(until);
    within(api.replace(&used.name_any(), &PostParams::default(), &used)).await
}

/// Deletes a key, if it is still as it was read.
async fn delete(api: &Api<BroadcastCampaign>, used: &BroadcastCampaign) -> Result<(), ApiError> {
    let params = DeleteParams::default().preconditions(as_seen(used));
    match within(api.delete(&used.name_any(), &params)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

fn api(context: &Context, namespace: Option<String>) -> Api<BroadcastCampaign> {
    Api::namespaced(context.client.clone(), &namespace.unwrap_or_default())
}

fn already_sent(campaign: &BroadcastCampaign) -> Stage {
    stalled("CampaignAlreadySent", &refusal(campaign))
}
