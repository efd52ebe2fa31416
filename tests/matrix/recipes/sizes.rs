//! H1: the smallest, the edges of a page, the largest, and the longest.

use std::sync::Arc;

use broadcast_operator::api::Broadcast;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::script;
use crate::cases::Case;
use crate::common::stage::{broadcast, chat_id, counts};
use crate::play::{Reference, SALE, finish, is_over};
use crate::scene::{Failure, Scene};

/// More than any page, status or list holds at once.
const MANY: usize = 100_000;
/// Chats of one `ConfigMap`: below its 1 MiB.
const CHATS_PER_SOURCE: usize = 50_000;

pub fn all(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let case = |what: &str, run| Case { name: reference.case("H1", what), meets: 0, run };
    let mut cases: Vec<Case> = [1, 249, 250, 251]
        .map(|chats| {
            case(
                &chats.to_string(),
                script(move |scene| {
                    Box::pin(async move { send(scene, broadcast(SALE, chats, json!({})), chats).await })
                }),
            )
        })
        .into();
    cases.push(case("longest", script(|scene| Box::pin(async move { longest(scene).await }))));
    if is_whole {
        cases.push(case(&MANY.to_string(), script(|scene| Box::pin(async move { many(scene).await }))));
    }
    cases
}

async fn send(scene: &mut Scene, manifest: Value, chats: usize) -> Result<(), Failure> {
    scene.start_operator().await;
    scene.apply(&manifest).await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    let sale = scene.api::<Broadcast>().get(SALE).await.map_err(|error| error.to_string())?;
    let sent = counts(&sale).sent;
    if usize::try_from(sent) != Ok(chats) {
        return Err(format!("{sent} of {chats} are sent"));
    }
    finish(scene, None).await
}

/// A page of the longest chats and parameters that fit, with the longest text.
async fn longest(scene: &mut Scene) -> Result<(), Failure> {
    let mut csv = String::from("chat,name\n");
    for number in 0..250 {
        csv += &format!("user-{number:0>123},{}\n", "ж".repeat(400));
    }
    let text = format!("{{{{ name }}}}{}", "я".repeat(4096 - 400));
    let spec = json!({"recipients": {"csv": csv}, "message": {"text": text}});
    send(scene, broadcast(SALE, 0, spec), 250).await
}

async fn many(scene: &mut Scene) -> Result<(), Failure> {
    let api = scene.api::<ConfigMap>();
    let mut sources = Vec::new();
    for first in (0..MANY).step_by(CHATS_PER_SOURCE) {
        let csv: String =
            (first..first + CHATS_PER_SOURCE).map(|chat| format!("{}\n", chat_id(chat))).collect();
        let name = format!("chats-{first}");
        let map = serde_json::from_value(json!({"metadata": {"name": name}, "data": {"chats.csv": csv}}));
        let map = map.expect("should be a ConfigMap");
        api.create(&PostParams::default(), &map).await.map_err(|error| error.to_string())?;
        sources.push(json!({"configMapRef": {"name": name, "key": "chats.csv"}}));
    }
    scene.patience *= 8;
    let spec = json!({"recipients": {"csv": null, "from": sources}, "message": {"text": "Hi"}});
    send(scene, broadcast(SALE, 0, spec), MANY).await
}
