//! The figures of `docs/operations.md`, measured on this machine and printed as the table there. `make bench` runs it.
//!
//! Control plane, operator and gateway share the machine, so the figures are those of the whole. Nothing is asserted.

#[path = "../../tests/common/mod.rs"]
mod common;

mod stops;
mod throughput;

use std::thread::available_parallelism;

use broadcast_operator::api::Broadcast;
use common::stage::{Stage, broadcast, chat_id};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};

#[tokio::main]
async fn main() {
    let stops = stops::measure().await;
    let throughput = throughput::measure().await;
    println!("\nMeasured on {} cores:\n", available_parallelism().map_or(0, usize::from));
    println!("| figure | value |\n|---|---|");
    for (figure, value) in stops.figures().into_iter().chain(throughput.figures()) {
        println!("| {figure} | {value} |");
    }
}

/// Makes an audience of this size in a `ConfigMap`, as the docs advise, and a Broadcast to it.
async fn broadcast_from_config_map(stage: &Stage, name: &str, chats: usize) -> Value {
    let csv: String = (0..chats).map(|chat| format!("{},Guest {chat}\n", chat_id(chat))).collect();
    let audience = ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("chats.csv".to_owned(), format!("chat,name\n{csv}"))].into()),
        ..ConfigMap::default()
    };
    stage.api().create(&PostParams::default(), &audience).await.expect("should make a ConfigMap");
    let source = json!([{"configMapRef": {"name": name, "key": "chats.csv"}}]);
    broadcast(name, 0, json!({"recipients": {"csv": null, "from": source}}))
}

/// Creates a Broadcast, and returns it as it was stored.
async fn create(stage: &Stage, manifest: &Value) -> Broadcast {
    let broadcast: Broadcast = serde_json::from_value(manifest.clone()).expect("should be a Broadcast");
    stage.api().create(&PostParams::default(), &broadcast).await.expect("should make a Broadcast")
}

/// The value in the middle, or the upper of the two.
fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|one, other| one.partial_cmp(other).expect("should be comparable"));
    sorted[sorted.len() / 2]
}
