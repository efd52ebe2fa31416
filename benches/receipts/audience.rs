//! A Broadcast that is sent, and what the gateway knows of its messages.

use broadcast_operator::clock;
use broadcast_operator::simulator::Entry;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};

use super::common::providers::Provider;
use super::common::stage::{Stage, broadcast, chat_id, is_complete, merge};
use super::common::wait::until;

/// Chats of one `ConfigMap`: it holds 1 MiB at most.
const CHATS_OF_A_MAP: usize = 25_000;
/// Between two looks while many messages are sent: a look must not slow them down.
const LOOK: std::time::Duration = std::time::Duration::from_millis(250);

/// Makes an audience, and a Broadcast to it through a provider's channel.
pub async fn manifest(stage: &Stage, provider: Provider, name: &str, chats: usize) -> Value {
    let mut sources = Vec::new();
    for first in (0..chats).step_by(CHATS_OF_A_MAP) {
        let of_map = first..chats.min(first + CHATS_OF_A_MAP);
        let csv: String = of_map.map(|chat| format!("{},Guest {chat}\n", chat_id(chat))).collect();
        let map = format!("{name}-{first}");
        let audience = ConfigMap {
            metadata: ObjectMeta { name: Some(map.clone()), ..ObjectMeta::default() },
            data: Some([("chats.csv".to_owned(), format!("chat,name\n{csv}"))].into()),
            ..ConfigMap::default()
        };
        stage.api().create(&PostParams::default(), &audience).await.expect("should make a ConfigMap");
        sources.push(json!({"configMapRef": {"name": map, "key": "chats.csv"}}));
    }
    let mut manifest = broadcast(name, 0, json!({"recipients": {"csv": null, "from": sources}}));
    merge(&mut manifest["spec"], json!({"channelRef": {"name": provider.name()}}));
    manifest
}

/// Waits until a Broadcast is complete, however long that takes. Out: its messages.
pub async fn sent(stage: &Stage, provider: Provider, name: &str, chats: usize) -> Vec<Entry> {
    // Longer than anything else may take.
    while stage.gateway.ledger().summary().requests.accepted < chats as u64 {
        clock::wait(LOOK).await;
    }
    until("it is complete", async || {
        let broadcast = stage.broadcast(name).await;
        if is_complete(&broadcast) { Ok(()) } else { Err(broadcast.status) }
    })
    .await;
    stage.accepted_of(provider)
}
