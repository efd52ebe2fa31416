//! Groups of `WhatsApp`: who of them has the message, and what one participant says for the others.

use broadcast_operator::api::{
    Broadcast, BroadcastSuppression, ChatOutcome, OutcomeName as Outcome, ParticipantCounts,
};
use broadcast_operator::clock;
use broadcast_operator::simulator::{ProviderReceipts, ReceiptSettings};
use kube::api::ListParams;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::common::notices::Notice;
use crate::common::providers::Provider::{self, WhatsApp};
use crate::common::stage::{Stage, broadcast};
use crate::journals::ALWAYS;

const GROUP: &str = "Y2FwaV9ncm91cDoxNzA1NTU1MDEzOToxMjAzNjM0MDQ2OTQyMzM4MjAZD";
const ANA: &str = "15551000091";
const BEN: &str = "15551000092";
const CLEO: &str = "15551000093";

fn to(name: &str, chats: &[&str]) -> Value {
    let csv = format!("chat,name\n{}", chats.iter().map(|chat| format!("{chat},you\n")).collect::<String>());
    broadcast(name, 0, json!({"channelRef": {"name": WhatsApp.name()}, "recipients": {"csv": csv}}))
}

fn shown<'a>(broadcast: &'a Broadcast, chat: &str) -> Option<&'a ChatOutcome> {
    broadcast.status.as_ref()?.outcomes.iter().find(|outcome| outcome.chat == chat)
}

/// Waits until the group is as far, and so many participants have the message and have read it.
async fn wait_counts(stage: &Stage, outcome: Outcome, delivered: i32, read: i32) -> Broadcast {
    let counts = Some(ParticipantCounts { delivered, read });
    let what = format!("{outcome:?}, {delivered} have it, {read} have read it");
    let is_so = |broadcast: &Broadcast| {
        let shown = shown(broadcast, GROUP);
        shown.is_some_and(|shown| shown.outcome == outcome && shown.participants == counts)
    };
    stage.wait(WhatsApp.name(), &what, is_so).await
}

/// Posts what became of the message of the group for these participants, all in one request.
async fn post(stage: &Stage, told: &[(&str, &str, &str)]) {
    let message = &stage.accepted_of(WhatsApp)[0];
    let statuses = told.iter().map(|(status, field, participant)| {
        json!({
            "id": message.message_id, "status": status, "timestamp": clock::now().as_second().to_string(),
            "recipient_id": GROUP, "recipient_type": "group", (*field): participant,
            "biz_opaque_callback_data": message.token, "errors": [{"code": 131_050, "title": "no"}],
        })
    });
    let value = json!({
        "metadata": {"phone_number_id": WhatsApp.account()}, "statuses": statuses.collect::<Vec<_>>(),
    });
    let change = json!({"field": "messages", "value": value});
    let body = json!({"entry": [{"id": "1", "changes": [change]}]}).to_string();
    let notice =
        Notice { provider: WhatsApp, url: stage.receipts_url_of(WhatsApp), headers: Vec::new(), body };
    assert_eq!(notice.signed().post(&Client::new()).await, StatusCode::NO_CONTENT);
}

/// Who is suppressed.
async fn suppressed(stage: &Stage) -> Vec<String> {
    let list = stage.api::<BroadcastSuppression>().list(&ListParams::default()).await.expect("a list");
    list.items.into_iter().map(|suppression| suppression.spec.chat).collect()
}

async fn check_participants(flags: &[&str]) {
    let stage = Stage::of_providers_with(flags).await;
    let whats_app_participants = [ANA, BEN, CLEO].map(str::to_owned).into();
    stage.send_receipts_of_all(&ReceiptSettings {
        sent_percent: 100,
        times: 2,
        reverse: true,
        providers: ProviderReceipts { whats_app_participants, ..ProviderReceipts::default() },
        ..ReceiptSettings::default()
    });
    stage.apply_channels(&[Provider::WhatsApp], &json!({}));
    stage.apply(&to(WhatsApp.name(), &[GROUP]));
    wait_counts(&stage, Outcome::Delivered, 3, 0).await;
    stage.gateway.ledger().wait_until(|summary| summary.receipts.pending == 0).await;

    let (one, other) = ("recipient_participant_id", "participant_recipient_id");
    post(&stage, &[("read", other, ANA), ("read", one, BEN), ("delivered", other, BEN)]).await;
    wait_counts(&stage, Outcome::Read, 3, 2).await;
    post(&stage, &[("failed", other, CLEO), ("read", one, ANA)]).await;
    assert_eq!(suppressed(&stage).await, [CLEO], "who said so, and nobody else");
    let done = wait_counts(&stage, Outcome::Read, 3, 2).await;
    let status = done.status.expect("status");
    assert_eq!((status.delivered_percent, status.read_percent), (Some(100), Some(100)), "of chats");

    stage.apply(&to("next", &[GROUP, CLEO, BEN]));
    let next = stage.complete("next").await;
    let outcome = |chat| shown(&next, chat).map(|shown| shown.outcome);
    assert_eq!(outcome(CLEO), Some(Outcome::Skipped));
    for chat in [GROUP, BEN] {
        assert!(outcome(chat).is_some_and(|outcome| outcome != Outcome::Skipped), "{chat}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_of_a_group_are_counted_once_each_and_one_who_opts_out_speaks_for_nobody_else() {
    check_participants(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_are_counted_too_where_their_receipts_go_through_journals() {
    check_participants(ALWAYS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_one_participant_is_none_of_the_group_and_one_of_all_is() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&[Provider::WhatsApp], &json!({}));
    stage.apply(&to(WhatsApp.name(), &[GROUP]));
    stage.complete(WhatsApp.name()).await;
    let outcome = async || shown(&stage.broadcast(WhatsApp.name()).await, GROUP).map(|shown| shown.outcome);
    for _ in 0..2 {
        post(&stage, &[("failed", "recipient_participant_user_id", "US.13491208655302741918")]).await;
    }
    let row = &crate::common::books::rows(&stage, WhatsApp.name()).await[0].1;
    assert_eq!((row.outcome, outcome().await), (Outcome::Sent, Some(Outcome::Sent)));
    post(&stage, &[("failed", "recipient_participant_id", "")]).await;
    let is_failed =
        |broadcast: &Broadcast| shown(broadcast, GROUP).is_some_and(|shown| shown.outcome == Outcome::Failed);
    stage.wait(WhatsApp.name(), "the group is Failed", is_failed).await;
    assert!(suppressed(&stage).await.is_empty(), "a group does not opt out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_as_of_one_who_opted_out_suppresses_no_group() {
    let stage = Stage::of_providers().await;
    stage.set_faults(json!([{"do": {"refuse": {"code": "131050", "message": "stopped"}}}]));
    stage.apply_channels(&[Provider::WhatsApp], &json!({}));
    stage.apply(&to(WhatsApp.name(), &[GROUP, BEN]));
    let done = stage.complete(WhatsApp.name()).await;
    assert_eq!(shown(&done, GROUP).map(|shown| shown.outcome), Some(Outcome::Failed));
    assert_eq!(suppressed(&stage).await, [BEN]);
}
