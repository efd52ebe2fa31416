//! Every provider, from apply to complete and through everything that can go wrong with it.
//!
//! The gateway speaks as each of them. Most scenarios are the same for all, so one operator plays them with all at once.

mod accounts;
mod certificates;
mod contents;
mod groups;
mod limits;
mod policies;
mod polling;
mod receipts;
mod sending;
pub mod stops;

use broadcast_operator::api::{BroadcastChannel, Condition};

use crate::common::providers::Provider;
use crate::common::stage::Stage;
use crate::common::wait::until;

/// Waits until Ready of a provider's channel has this reason. Out: the channel.
pub async fn channel_state(stage: &Stage, provider: Provider, reason: &str) -> BroadcastChannel {
    until(&format!("channel {}: {reason}", provider.name()), async || {
        let channel = stage.channel_now(provider.name()).await;
        let conditions = channel.status.as_ref().map_or(&[][..], |status| &status.conditions);
        match Condition::find(conditions, "Ready") {
            Some(ready) if ready.reason == reason => Ok(channel),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}
