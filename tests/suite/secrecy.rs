//! No secret anywhere, and no phone number or text but where they are listed, whatever providers repeat of what they were sent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broadcast_operator::api::{Broadcast, BroadcastChannel, BroadcastSuppression, Condition};
use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::simulator::{Entry, ReceiptSettings};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::receipt_edges::post_until_taken;
use crate::common::books;
use crate::common::chart;
use crate::common::notices::Notice;
use crate::common::providers::Provider::{
    self, Native, Periskope, Postback, Telegram, Twilio, TwilioWhatsApp, WhatsApp,
};
use crate::common::providers::{VERIFY_TOKEN, with_each};
use crate::common::stage::{SIGNING_SECRET, Stage, broadcast, chat_id, counts, merge};
use crate::common::wait::until;

/// What a header of the channel of our own format holds.
const HEADER_SECRET: &str = "secret-of-a-header";
/// What all phone numbers of the audiences begin with.
const PHONE: &str = "15551000";
/// Most bytes that are kept of what a provider says.
const MOST_SAID: usize = 160;
/// So much of a secret is more than chance.
const SHORTEST_PART: usize = 6;
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
        TwilioWhatsApp => "63024",
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
    let mut answers = send_forged_receipts(&stage).await;
    answers.extend(send_unreadable_receipts(&stage, &Provider::ALL).await);

    // Broadcasts that stop by themselves.
    let rules =
        Provider::ALL.iter().flat_map(|provider| refuse(*provider, 0..30, bad_chat_code(*provider), ""));
    stage.set_faults(rules.collect());
    send_until(&stage, &Provider::ALL, "first", "FirstMessagesFailed").await;
    let of_templates = [
        (WhatsApp, "132015", ""),
        (Telegram, "400", "Bad Request: can't parse entities: "),
        (Twilio, "63013", ""),
        (TwilioWhatsApp, "63041", ""),
    ];
    let rules = of_templates.iter().flat_map(|(provider, code, said)| refuse(*provider, 0..30, code, said));
    stage.set_faults(rules.collect());
    send_until(&stage, &of_templates.map(|(provider, ..)| provider), "template", "TemplateUnavailable").await;

    // Channels that are refused.
    let rules = Provider::ALL.iter().flat_map(|provider| {
        let code = match provider {
            WhatsApp => "190",
            Twilio | TwilioWhatsApp => "20003",
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

    check(&stage, 20, &answers).await;
}

/// Those whose receipts say something in words.
const TELLING: [Provider; 5] = [WhatsApp, Twilio, TwilioWhatsApp, Native, Postback];

/// Those whose receipts say by a code that a chat wants no more messages.
const OPTED_OUT: [(Provider, &str); 3] = [(WhatsApp, "131050"), (Twilio, "21610"), (TwilioWhatsApp, "21610")];

/// A receipt that a message failed, with this code and in these words.
fn failure(stage: &Stage, provider: Provider, message: &Entry, code: &str, said: &str) -> Notice {
    let mut notice = Notice::of(stage, provider, message, Outcome::Failed);
    if matches!(provider, Twilio | TwilioWhatsApp) {
        let said: String = form_urlencoded::byte_serialize(said.as_bytes()).collect();
        notice.body = format!("{}&ErrorMessage={said}", notice.body.replace("30005", code));
        return notice.signed();
    }
    let mut body: Value = serde_json::from_str(&notice.body).expect("should be JSON");
    if provider == WhatsApp {
        let code: u32 = code.parse().expect("should be a number");
        let status = &mut body["entry"][0]["changes"][0]["value"]["statuses"][0];
        status["errors"] = json!([{"code": code, "title": "no", "error_data": {"details": said}}]);
    } else {
        merge(&mut body[0], json!({"code": code, "message": said}));
    }
    notice.body = body.to_string();
    notice.signed()
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_repeat_secrets_tell_none_of_them_also_where_they_are_cut_off() {
    let stage = Stage::of_providers_with(&["--log-format", "json", "--log-filter", "trace"]).await;
    let of_account = |provider| match provider {
        WhatsApp => "131031",
        Twilio | TwilioWhatsApp => "30002",
        _ => "account",
    };
    stage.apply_all(TELLING.map(|provider| {
        let rule = json!({"codes": ["account"], "action": "StopChannel"});
        let spec = json!({"errorPolicy": [rule], "limits": {"messagesPerSecond": 5}});
        stage.provider_channel(provider, spec)
    }));
    stage.apply_broadcasts(&TELLING, 60, &json!({}));
    let client = &Client::new();
    with_each(&TELLING, async |provider| {
        let (name, token, signing) = (provider.name(), provider.token(), provider.signing_secret());
        stage.accepted_by(provider, 5).await;
        let messages = stage.accepted_of(provider);
        let all = |chat: &str| format!("{signing} or {token} may not write to +{chat}");
        // As much is kept of what is said as there is room for: the last of it would be a part of the secret.
        let cut = |secret: &str| format!("{}{secret}", "-".repeat(MOST_SAID - secret.len() + 3));
        let usual = if matches!(provider, Twilio | TwilioWhatsApp) { "30005" } else { "131026" };
        let mut told = vec![
            (usual, all(&messages[0].chat)),
            (usual, cut(token)),
            (usual, cut(signing)),
            (of_account(provider), all(&messages[3].chat)),
        ];
        let opt_out = OPTED_OUT.iter().find(|(own, _)| *own == provider);
        told.extend(opt_out.map(|(_, code)| (*code, all(&messages[4].chat))));
        if matches!(provider, Native | Postback) {
            // Codes of a gateway of one's own are words too.
            told.push((token, String::new()));
        }
        for ((code, said), message) in told.iter().zip(&messages) {
            post_until_taken(client, &failure(&stage, provider, message, code, said)).await;
        }
        until(&format!("{name} has stopped"), async || {
            let status = stage.channel_now(name).await.status.expect("status");
            match Condition::find(&status.conditions, "Stalled") {
                Some(stalled) if stalled.message.contains("may not write to") => Ok(()),
                _ => Err(status),
            }
        })
        .await;
        let failed =
            stage.wait(name, "they are shown", |it| usize::try_from(counts(it).failed) == Ok(told.len()));
        failed.await;
        let rows = books::rows(&stage, name).await;
        for (message, (_, said)) in messages.iter().zip(&told) {
            let (_, row) = rows.iter().find(|(to, _)| *to.chat == *message.chat).expect("a row");
            let shown = if said.is_empty() { &row.code } else { &row.detail };
            assert!(shown.contains('…'), "{name}: of {said:?} there is {row:?}");
            for secret in [token, signing].map(|secret| &secret[..SHORTEST_PART]) {
                assert!(!shown.contains(secret), "{name}: of {said:?} there is {shown:?}");
            }
        }
    })
    .await;
    let suppressions = stage.api::<BroadcastSuppression>().list(&ListParams::default()).await;
    assert_eq!(suppressions.expect("should list suppressions").items.len(), OPTED_OUT.len());
    let answers = send_unreadable_receipts(&stage, &TELLING).await;
    check(&stage, 10, &answers).await;
}

/// Receipts in the name of the providers, about chats, from somebody who does not know their secrets. Out: the answers.
async fn send_forged_receipts(stage: &Stage) -> Vec<String> {
    let body = json!({"to": chat_id(0), "id": chat_id(0), "status": "read"}).to_string();
    let mut answers = Vec::new();
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
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{provider:?}");
        answers.push(answer.text().await.expect("text"));
        // This one knows the word, and has it in its url.
        let handshake = format!("{url}&hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}");
        let answer = reqwest::get(handshake).await.expect("an answer");
        answers.push(answer.text().await.expect("text"));
    }
    answers
}

/// Requests that are signed, cannot be read, and repeat all that their sender knows. Out: the answers.
async fn send_unreadable_receipts(stage: &Stage, providers: &[Provider]) -> Vec<String> {
    let mut answers = Vec::new();
    for provider in providers {
        let (url, body) = (stage.receipts_url_of(*provider), echo(*provider, &chat_id(0)));
        let notice = Notice { provider: *provider, url, headers: Vec::new(), body }.signed();
        let mut request = Client::new().post(&notice.url).body(notice.body.clone());
        for (name, value) in &notice.headers {
            request = request.header(*name, value);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{provider:?}");
        answers.push(answer.text().await.expect("text"));
    }
    answers
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

/// Looks at everything that the operator says: to the cluster, and to those who send receipts.
async fn check(stage: &Stage, fewest_events: usize, answers: &[String]) {
    let (status, metrics) = stage.operator.get("/metrics").await.expect("should have metrics");
    assert_eq!(status, 200);
    let params = ListParams::default();
    let events = stage.api::<Event>().list(&params).await.expect("should list events").items;
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), chart::NAMESPACE);
    let leases = leases.list(&params).await.expect("should list leases").items;
    assert!(events.len() >= fewest_events, "{} events", events.len());
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
    let all_of = |kind: &str| stage.kubectl(&["get", kind, "-o", "json"]);
    let places = [
        ("the log", stage.operator.log(), &[PHONE, TEXT][..]),
        ("metrics", metrics, &[PHONE, TEXT]),
        ("events", text(&events), &[PHONE, TEXT]),
        ("leases", text(&leases), &[PHONE, TEXT]),
        ("statuses of channels", text(&channels), &[PHONE, TEXT]),
        ("statuses of Broadcasts", text(&statuses), &[PHONE]),
        ("errors in batches", rows.join("\n"), &[PHONE, TEXT]),
        ("batches", all_of("broadcastbatches"), &[]),
        ("answers to receipts", answers.join("\n"), &[PHONE, TEXT]),
        ("journals", all_of("broadcastjournals"), &[TEXT]),
        // Their chats are what they are for.
        ("suppressions", all_of("broadcastsuppressions"), &[TEXT]),
    ];
    let mut leaks = Vec::new();
    for (place, text, also) in &places {
        assert!(text.len() > 50, "{place}: there is nothing in it: {text}");
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
