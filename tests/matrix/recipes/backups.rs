//! B3: somebody puts an object back to what a backup had of it. What is to happen then is in `docs/delivery-guarantees.md`.

use std::sync::Arc;

use broadcast_operator::api::{Broadcast, BroadcastBatch, BroadcastChannel};
use broadcast_operator::domain::page::Page;
use kube::Resource;
use kube::api::PostParams;
use kube::core::NamespaceResourceScope;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{CHATS, script, spec};
use crate::cases::Case;
use crate::common::stage::broadcast;
use crate::invariants;
use crate::observer::Seen;
use crate::play::{Reference, SALE, check_rest, ends_as, is_at_rest, is_over, state_of};
use crate::scene::{CHANNEL, Failure, Scene};

/// The page of sale.
pub(super) const PAGE: &str = "sale-00000";

/// What is put back, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restored {
    BroadcastWithoutStatus,
    OlderPage,
    PageWithoutStatus,
    ChannelWithoutStatus,
}

pub(super) const KINDS: [(&str, Restored); 4] = [
    ("broadcast-without-status", Restored::BroadcastWithoutStatus),
    ("older-page", Restored::OlderPage),
    ("page-without-status", Restored::PageWithoutStatus),
    ("channel-without-status", Restored::ChannelWithoutStatus),
];

pub fn restored(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let cases = KINDS.into_iter().flat_map(|(tag, what)| {
        [("running", false), ("restarted", true)].map(|(when, dies)| {
            let name = reference.case("B3", &format!("{tag}/{when}"));
            let reference = reference.clone();
            let run = script(move |scene| {
                let reference = reference.clone();
                Box::pin(async move { put_back(scene, &reference, what, dies).await })
            });
            Case { name, meets: 0, run }
        })
    });
    let cases = cases.chain([super::pauses::put_back(reference)]);
    cases.chain(super::middles::restored(reference, is_whole)).collect()
}

async fn put_back(
    scene: &mut Scene,
    reference: &Reference,
    what: Restored,
    dies: bool,
) -> Result<(), Failure> {
    scene.start_operator().await;
    if what == Restored::PageWithoutStatus {
        // Nothing is sent before the restore.
        scene.patch::<BroadcastChannel>(CHANNEL, spec(json!({"paused": true}))).await?;
    }
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    let ready = |seen: &Seen| match what {
        Restored::PageWithoutStatus => state_of(seen, SALE) == "ChannelPaused",
        _ => is_over(seen, &[SALE]),
    };
    scene.until("sale is as far as it should be", ready).await?;
    invariants::check(scene, "before the restore").await?;
    let requests = scene.requests_of(SALE);
    scene.replicas = usize::from(!dies);
    if dies {
        scene.kill().await?;
    }
    restore(scene, what).await?;
    scene.replicas = 1;
    scene.replace_the_dead().await?;
    match what {
        Restored::BroadcastWithoutStatus => {
            scene.until("it is held", |seen| state_of(seen, SALE) == "StatusLost").await?;
        }
        // What stands there as never sent is sent again by nobody: that is checked below.
        Restored::OlderPage => {}
        Restored::PageWithoutStatus => {
            scene.patch::<BroadcastChannel>(CHANNEL, spec(json!({"paused": false}))).await?;
        }
        Restored::ChannelWithoutStatus => {
            scene.until("the channel has a status again", is_at_rest).await?;
            ends_as(scene, reference).await?;
        }
    }
    check_rest(scene).await.or_else(|failure| match what {
        // What is shown of a Broadcast follows what was put back.
        Restored::ChannelWithoutStatus => Err(failure),
        _ => Ok(()),
    })?;
    match scene.requests_of(SALE) {
        now if now == requests => Ok(()),
        now => Err(format!("{requests} requests before the restore, and {now} after it")),
    }
}

async fn restore(scene: &Scene, what: Restored) -> Result<(), Failure> {
    scene.view.forget_rows();
    match what {
        Restored::BroadcastWithoutStatus => without_broadcast_status(scene).await,
        Restored::OlderPage | Restored::PageWithoutStatus => {
            let planned = |page: &mut BroadcastBatch| {
                let recipients = Page::parse(page).map(|content| content.recipients().to_vec());
                page.status = match what {
                    Restored::OlderPage => {
                        recipients.ok().map(|recipients| Page::planned(recipients).status())
                    }
                    _ => None,
                };
            };
            change_status::<BroadcastBatch>(scene, PAGE, planned).await.map(drop)
        }
        Restored::ChannelWithoutStatus => without_channel_status(scene).await,
    }
}

pub(super) async fn without_broadcast_status(scene: &Scene) -> Result<(), Failure> {
    change_status::<Broadcast>(scene, SALE, |sale| sale.status = None).await.map(drop)
}

pub(super) async fn without_channel_status(scene: &Scene) -> Result<(), Failure> {
    let restored = change_status::<BroadcastChannel>(scene, CHANNEL, |channel| channel.status = None).await?;
    // What is waited for next must not be what was there before.
    scene.view.seen().channels.insert(CHANNEL.into(), restored);
    Ok(())
}

/// Changes the status of an object, however often others write it meanwhile. Out: what is stored then.
pub(super) async fn change_status<K>(scene: &Scene, name: &str, change: impl Fn(&mut K)) -> Result<K, Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let (api, failed) = (scene.api::<K>(), |error: kube::Error| format!("failed to put it back: {error}"));
    loop {
        let mut object = api.get(name).await.map_err(failed)?;
        change(&mut object);
        match api.replace_status(name, &PostParams::default(), &object).await {
            Ok(stored) => return Ok(stored),
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(failed(error)),
        }
    }
}
