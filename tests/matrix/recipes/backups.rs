//! B3: somebody puts an object back to what a backup had of it. What is to happen then is in `docs/delivery-guarantees.md`.

use std::sync::Arc;

use broadcast_operator::api::{Broadcast, BroadcastBatch, BroadcastChannel};
use broadcast_operator::domain::page::Page;
use kube::api::PostParams;
use serde_json::json;

use super::{CHATS, script, spec};
use crate::cases::Case;
use crate::common::stage::broadcast;
use crate::invariants;
use crate::observer::Seen;
use crate::play::{Reference, SALE, check_rest, ends_as, is_at_rest, is_over, state_of};
use crate::scene::{CHANNEL, Failure, Scene};

/// The page of sale.
const PAGE: &str = "sale-00000";

/// What is put back, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restored {
    BroadcastWithoutStatus,
    OlderPage,
    PageWithoutStatus,
    ChannelWithoutStatus,
}

pub fn restored(reference: &Arc<Reference>, _: bool) -> Vec<Case> {
    let kinds = [
        ("broadcast-without-status", Restored::BroadcastWithoutStatus),
        ("older-page", Restored::OlderPage),
        ("page-without-status", Restored::PageWithoutStatus),
        ("channel-without-status", Restored::ChannelWithoutStatus),
    ];
    let cases = kinds.into_iter().flat_map(|(tag, what)| {
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
    cases.chain([super::pauses::put_back(reference)]).collect()
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
    let failed = |error: kube::Error| format!("failed to put it back: {error}");
    scene.view.forget_rows();
    match what {
        Restored::BroadcastWithoutStatus => {
            let api = scene.api::<Broadcast>();
            let mut sale = api.get(SALE).await.map_err(failed)?;
            sale.status = None;
            api.replace_status(SALE, &PostParams::default(), &sale).await.map_err(failed)?;
        }
        Restored::OlderPage | Restored::PageWithoutStatus => {
            let api = scene.api::<BroadcastBatch>();
            let mut page = api.get(PAGE).await.map_err(failed)?;
            let recipients = Page::parse(&page).map_err(|error| error.to_string())?.recipients().to_vec();
            page.status = (what == Restored::OlderPage).then(|| Page::planned(recipients).status());
            api.replace_status(PAGE, &PostParams::default(), &page).await.map_err(failed)?;
        }
        Restored::ChannelWithoutStatus => {
            let api = scene.api::<BroadcastChannel>();
            let mut channel = api.get(CHANNEL).await.map_err(failed)?;
            channel.status = None;
            let restored =
                api.replace_status(CHANNEL, &PostParams::default(), &channel).await.map_err(failed)?;
            // What is waited for next must not be what was there before.
            scene.view.seen().channels.insert(CHANNEL.into(), restored);
        }
    }
    Ok(())
}
