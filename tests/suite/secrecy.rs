//! No secret anywhere, and no phone number or text but where they are listed, whatever providers repeat of what they were sent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broadcast_operator::api::{Broadcast, BroadcastChannel};
use broadcast_operator::simulator::ReceiptSettings;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::common::books;
use crate::common::chart;
use crate::common::providers::Provider::{self, Native, Periskope, Postback, Telegram, Twilio, WhatsApp};
use crate::common::providers::{VERIFY_TOKEN, with_each};
use crate::common::stage::{SIGNING_SECRET, Stage, broadcast, chat_id, counts, merge};
use crate::common::wait::until;

/// What a header of the channel of our own format holds.
const HEADER_SECRET: &str = "secret-of-a-header";
/// What all phone numbers of the audiences begin with.
const PHONE: &str = "15551000";
/// A part of the texts that are sent.
const TEXT: &str = "the sale starts";

/// What a provider says that repeats all that it knows: the token and the number.
fn echo(provider: Provider, chat: &str) -> String {
    let token = provider.token();
    match provider {
        // A part of a text that Telegram says of a message that nobody can get is needed for that to be one.
        Telegram => format!("Bad Request: chat not found: {chat}, bot{token}"),
        WhatsApp => format!("Recipient +{chat} refused, malformed access token {token}"),
        Native => format!("You sent {HEADER_SECRET}, {token} and +{chat}"),
        _ => format!("The 'To' number +{chat} is not valid, {chat}@c.us; you sent {token}"),
    }
}

/// Lets a provider refuse its messages to chats, with a code and in words that repeat what they are about.
fn refuse(provider: Provider, chats: std::ops::Range<usize>, code: &str, said: &str) -> Vec<Value> {
    let rule = |chat: String| {
        let message = format!("{said}{}", echo(provider, &chat));
        let status = if code == "401" { 401 } else { 400 };
        let refusal = json!({"status": status, "code": code, "message": message});
        json!({"when": {"account": provider.account(), "chats": [chat]}, "do": {"refuse": refusal}})
    };
    chats.map(chat_id).map(rule).collect()
}

fn bad_chat_code(provider: Provider) -> &'static str {
    match provider {
        WhatsApp => "131026",
        Twilio => "21211",
        Telegram | Periskope | Native | Postback => "400",
    }
}

/// The channels, the one of our own format with all secrets that it can have.
fn apply_channels(stage: &Stage) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "more"},
        "stringData": {"header": HEADER_SECRET},
    });
    stage.apply(&secret);
    let limits = json!({"maxInFlight": 4});
    stage.apply_channels(&Provider::ALL, &json!({"limits": limits}));
    let signing = json!({"name": crate::common::providers::SECRET, "key": "native-signing"});
    let more = json!({"limits": limits, "http": {
        "headers": [{"name": "X-Api-Key", "secretRef": {"name": "more", "key": "header"}}],
        "requestSigningSecretRef": signing,
    }});
    stage.apply(&stage.provider_channel(Native, more));
}

/// Sends to 30 chats through these providers, under names that end like this, and waits for a state.
async fn send_until(stage: &Stage, providers: &[Provider], end: &str, reason: &str) {
    stage.apply_all(providers.iter().map(|provider| {
        let spec = json!({"channelRef": {"name": provider.name()}});
        broadcast(&format!("{}-{end}", provider.name()), 30, spec)
    }));
    with_each(providers, async |provider| {
        stage.wait_state(&format!("{}-{end}", provider.name()), reason).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_told_and_no_phone_number_but_as_a_chat() {
    let stage = Stage::of_providers_with(&["--log-format", "json", "--log-filter", "trace"]).await;
    stage.send_receipts_of_all(&ReceiptSettings {
        failed_percent: 20,
        delivered_percent: 80,
        ..Default::default()
    });
    apply_channels(&stage);

    // Messages that arrive, that are refused, and of which nobody knows.
    let mut rules = Vec::new();
    for (chat, fault) in [
        json!({"statusAfterAccept": 502}),
        json!({"statusBeforeAccept": 500}),
        json!({"statusBeforeAccept": 503}),
        json!({"resetBeforeAccept": {}}),
        json!({"resetAfterAccept": {}}),
    ]
    .into_iter()
    .enumerate()
    {
        rules.push(json!({"when": {"chats": [chat_id(10 + chat)]}, "do": fault}));
    }
    rules.extend(
        Provider::ALL.iter().flat_map(|provider| refuse(*provider, 5..8, bad_chat_code(*provider), "")),
    );
    stage.set_faults(json!(rules));
    send_until(&stage, &Provider::ALL, "sale", "Succeeded").await;
    send_forged_receipts(&stage).await;

    // Broadcasts that stop by themselves.
    let rules =
        Provider::ALL.iter().flat_map(|provider| refuse(*provider, 0..30, bad_chat_code(*provider), ""));
    stage.set_faults(rules.collect());
    send_until(&stage, &Provider::ALL, "first", "FirstMessagesFailed").await;
    let of_templates = [
        (WhatsApp, "132015", ""),
        (Telegram, "400", "Bad Request: can't parse entities: "),
        (Twilio, "63013", ""),
    ];
    let rules = of_templates.iter().flat_map(|(provider, code, said)| refuse(*provider, 0..30, code, said));
    stage.set_faults(rules.collect());
    send_until(&stage, &of_templates.map(|(provider, ..)| provider), "template", "TemplateUnavailable").await;

    // Channels that are refused.
    let rules = Provider::ALL.iter().flat_map(|provider| {
        let code = match provider {
            WhatsApp => "190",
            Twilio => "20003",
            _ => "401",
        };
        refuse(*provider, 0..30, code, "Unauthorized: ")
    });
    stage.set_faults(rules.collect());
    send_until(&stage, &Provider::ALL, "auth", "AuthenticationFailed").await;
    stage.revoke_tokens();
    with_each(&Provider::ALL, async |provider| {
        until(&format!("{provider:?}: its channel says why"), async || {
            let channel = stage.channel_now(provider.name()).await;
            let text = serde_json::to_string(&channel.status).expect("JSON");
            if text.contains("refused the credentials") { Ok(()) } else { Err(text) }
        })
        .await;
    })
    .await;

    check(&stage).await;
}

/// Receipts in the name of the providers, about chats, from somebody who does not know their secrets.
async fn send_forged_receipts(stage: &Stage) {
    let body = json!({"to": chat_id(0), "id": chat_id(0), "status": "read"}).to_string();
    for provider in Provider::ALL {
        let url = stage.receipts_url_of(provider);
        let url = format!("{url}?token={}&hub.verify_token=wrong", chat_id(0));
        let mut request = Client::new().post(&url).body(body.clone());
        for name in [
            "x-hub-signature-256",
            "x-telegram-bot-api-secret-token",
            "x-twilio-signature",
            "x-periskope-signature",
        ] {
            request = request.header(name, format!("sha256={}", "0a".repeat(32)));
        }
        let status = request.send().await.expect("an answer").status();
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{provider:?}");
        // This one knows the word, and has it in its url.
        let handshake = format!("{url}&hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}");
        reqwest::get(handshake).await.expect("an answer");
    }
}

/// Everything that must not be told.
fn secrets() -> Vec<String> {
    let basic = |provider: Provider| STANDARD.encode(format!("{}:{}", provider.account(), provider.token()));
    let of_providers = Provider::ALL.into_iter().flat_map(|provider| {
        [provider.token().to_owned(), provider.signing_secret().to_owned(), basic(provider)]
    });
    let signing = SIGNING_SECRET.trim_start_matches("whsec_");
    of_providers.chain([VERIFY_TOKEN, HEADER_SECRET, signing].map(str::to_owned)).collect()
}

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("should be JSON")
}

/// Looks at everything that the operator says.
async fn check(stage: &Stage) {
    let (status, metrics) = stage.operator.get("/metrics").await.expect("should have metrics");
    assert_eq!(status, 200);
    let params = ListParams::default();
    let events = stage.api::<Event>().list(&params).await.expect("should list events").items;
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), chart::NAMESPACE);
    let leases = leases.list(&params).await.expect("should list leases").items;
    assert!(events.len() >= 20, "{} events", events.len());
    let channels = stage.api::<BroadcastChannel>().list(&params).await.expect("should list channels").items;
    let channels: Vec<_> = channels.into_iter().map(|channel| channel.status).collect();
    let broadcasts = stage.api::<Broadcast>().list(&params).await.expect("should list Broadcasts").items;
    let mut statuses = Vec::new();
    let mut rows = Vec::new();
    for broadcast in broadcasts {
        let name = broadcast.metadata.name.clone().expect("name");
        assert!(
            counts(&broadcast).sent + counts(&broadcast).failed + counts(&broadcast).pending > 0,
            "{name}"
        );
        let mut status = serde_json::to_value(&broadcast.status).expect("JSON");
        // The places of chats. A message id of Telegram has its chat in it.
        for outcome in status["outcomes"].as_array_mut().expect("outcomes") {
            merge(outcome, json!({"chat": null, "messageId": null}));
        }
        statuses.push(status);
        for (_, row) in books::rows(stage, &name).await {
            rows.push(format!("{} {}", row.code, row.detail));
        }
    }
    let pages = stage.kubectl(&["get", "broadcastbatches", "-o", "json"]);
    let places = [
        ("the log", stage.operator.log(), &[PHONE, TEXT][..]),
        ("metrics", metrics, &[PHONE, TEXT]),
        ("events", text(&events), &[PHONE, TEXT]),
        ("leases", text(&leases), &[PHONE, TEXT]),
        ("statuses of channels", text(&channels), &[PHONE, TEXT]),
        ("statuses of Broadcasts", text(&statuses), &[PHONE]),
        ("errors in batches", rows.join("\n"), &[PHONE, TEXT]),
        ("batches", pages, &[]),
    ];
    let mut leaks = Vec::new();
    for (place, text, also) in &places {
        assert!(text.len() > 100, "{place}: there is nothing in it: {text}");
        let wanted = secrets().into_iter().chain(also.iter().map(|word| (*word).to_owned()));
        for secret in wanted {
            if let Some(at) = text.find(&secret) {
                let around: String = text[..at].chars().rev().take(120).collect();
                let around: String = around.chars().rev().collect();
                leaks.push(format!("{place}: {around}[{secret}]"));
            }
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n\n"));
}
