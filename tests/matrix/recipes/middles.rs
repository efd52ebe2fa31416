//! B3 in the middle of a Broadcast, while it is sent and while it is paused: what is put back is what was there a moment before.

use std::sync::{Arc, Mutex, PoisonError};

use broadcast_operator::api::{BatchStatus, Broadcast, BroadcastBatch, BroadcastChannel};
use serde_json::json;

use super::backups::{
    KINDS, PAGE, Restored, change_status, without_broadcast_status, without_channel_status,
};
use super::gone::accept;
use super::odd::missing;
use super::{script, spec};
use crate::cases::Case;
use crate::common::stage::{broadcast, chat_id, counts};
use crate::invariants;
use crate::observer::Seen;
use crate::play::{Reference, SALE, another_goes_its_way, finish, is_claimed, is_over, state_of};
use crate::scene::{CHANNEL, Failure, Scene};

/// Enough for several seconds of sending.
const MANY: usize = 200;
const PER_SECOND: usize = 20;
/// Messages that the backup knows of at least, and that it does not know of.
const KNOWN: i32 = 5;

pub fn restored(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let ways = [
        ("sending/running", false, false),
        ("sending/restarted", false, true),
        ("paused/running", true, false),
        ("paused/restarted", true, true),
    ];
    let ways = if is_whole { &ways[..] } else { &ways[..1] };
    let cases = KINDS.into_iter().flat_map(|(tag, what)| {
        ways.iter().map(move |(when, is_paused, dies)| {
            let (name, is_paused, dies) = (reference.case("B3", &format!("{tag}/{when}")), *is_paused, *dies);
            let run =
                script(move |scene| Box::pin(async move { put_back(scene, what, is_paused, dies).await }));
            Case { name, meets: 0, run }
        })
    });
    cases.collect()
}

async fn put_back(scene: &mut Scene, what: Restored, is_paused: bool, dies: bool) -> Result<(), Failure> {
    let slow = spec(json!({"limits": {"messagesPerSecond": PER_SECOND, "burst": 1}}));
    scene.patch::<BroadcastChannel>(CHANNEL, slow).await?;
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, MANY, json!({}))).await?;
    let recorded = |seen: &Seen| {
        seen.pages.get(PAGE).and_then(|page| page.status.as_ref()).map_or(0, |page| page.counts.sent)
    };
    scene.until("something is recorded", |seen| recorded(seen) > KNOWN).await?;
    let older = scene.view.seen().pages.get(PAGE).cloned().ok_or("it has no page")?;
    let known = older.status.as_ref().map_or(0, |status| status.counts.sent);
    let is_further =
        |seen: &Seen| seen.broadcasts.get(SALE).map(counts).unwrap_or_default().sent > known + KNOWN;
    scene.until("its status says more", is_further).await?;
    if is_paused {
        scene.patch::<Broadcast>(SALE, spec(json!({"paused": true}))).await?;
        scene.until("it has stopped", |seen| state_of(seen, SALE) == "Stopped").await?;
    }
    invariants::check(scene, "before the restore").await?;
    if scene.requests_of(SALE) == MANY {
        return Err("everything was sent before".into());
    }
    if dies {
        scene.replicas = 0;
        scene.kill().await?;
    }
    scene.view.forget_rows();
    // What a page was before it lost its status.
    let mut lost = None;
    match what {
        Restored::BroadcastWithoutStatus => without_broadcast_status(scene).await?,
        Restored::OlderPage => put_page(scene, older.status.as_ref()).await.map(drop)?,
        Restored::PageWithoutStatus => lost = put_page(scene, None).await?,
        Restored::ChannelWithoutStatus => without_channel_status(scene).await?,
    }
    scene.replicas = 1;
    scene.replace_the_dead().await?;
    if is_paused {
        scene.patch::<Broadcast>(SALE, spec(json!({"paused": false}))).await?;
    }
    // What a dead one had claimed stays so until it is sent from again.
    let has_let_go = |seen: &Seen| dies || !is_claimed(seen);
    match what {
        Restored::BroadcastWithoutStatus => {
            let is_held = |seen: &Seen| state_of(seen, SALE) == "StatusLost" && has_let_go(seen);
            held(scene, "it is held", is_held).await?;
            accept(scene).await?;
        }
        Restored::OlderPage => {
            // To go on would send to some twice. That is for a person to say.
            let is_held = |seen: &Seen| state_of(seen, SALE) == "BatchesWentBack" && has_let_go(seen);
            return held(scene, "it is held", is_held).await;
        }
        Restored::PageWithoutStatus => {
            held(scene, "its page is missed", |seen| missing(seen, SALE)).await?;
            put_page(scene, lost.as_ref()).await?;
        }
        Restored::ChannelWithoutStatus => {}
    }
    scene.patch::<BroadcastChannel>(CHANNEL, spec(json!({"limits": null}))).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    finish(scene, None).await?;
    // Whatever a dead one had claimed is Unknown, and everything else was sent.
    match (dies, scene.requests_of(SALE)) {
        (false, requests) if requests != MANY => Err(format!("{requests} requests for {MANY} chats")),
        _ => nobody_twice(scene),
    }
}

/// Gives the page another status. Out: the one that it had.
async fn put_page(scene: &Scene, status: Option<&BatchStatus>) -> Result<Option<BatchStatus>, Failure> {
    let had = Mutex::new(None);
    let put = |page: &mut BroadcastBatch| {
        let before = std::mem::replace(&mut page.status, status.cloned());
        *had.lock().unwrap_or_else(PoisonError::into_inner) = before;
    };
    change_status::<BroadcastBatch>(scene, PAGE, put).await?;
    Ok(had.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Waits until nothing is sent any more, for a reason that is said. It stays so.
async fn held(scene: &mut Scene, what: &str, is_held: impl Fn(&Seen) -> bool) -> Result<(), Failure> {
    scene.until(what, &is_held).await?;
    let requests = scene.requests_of(SALE);
    another_goes_its_way(scene).await?;
    if !is_held(&scene.view.seen()) {
        return Err(format!("not any more: {what}\n{}", scene.view.seen().text()));
    }
    match scene.requests_of(SALE) {
        now if now == requests => nobody_twice(scene),
        now => Err(format!("{} requests after it was held", now - requests)),
    }
}

fn nobody_twice(scene: &Scene) -> Result<(), Failure> {
    let (ledger, sale) = (scene.gateway.ledger(), format!("{}/{SALE}", scene.namespace));
    match (0..MANY).map(chat_id).find(|chat| ledger.accepted(&sale, chat) > 1) {
        Some(chat) => Err(format!("I1 never twice: {chat} got it again after the restore")),
        None => Ok(()),
    }
}
