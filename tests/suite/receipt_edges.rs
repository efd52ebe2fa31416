//! The edges of the receipts server: every order, every forgery, bodies without end, ids without a message.

use broadcast_operator::clock;
use broadcast_operator::domain::outcome::Outcome::{self, Delivered, Failed, Read, Sent};
use broadcast_operator::simulator::{Entry, SendQuery};
use futures::StreamExt;
use futures::future::join_all;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::books;
use crate::common::control_plane;
use crate::common::notices::Notice;
use crate::common::providers::Provider::{
    self, Native, Periskope, Postback, Telegram, Twilio, TwilioWhatsApp, WhatsApp,
};
use crate::common::providers::{SECRET, with_each};
use crate::common::stage::{CHANNEL, Stage, broadcast, chat_id, counts};
use crate::common::wait::until;
use crate::providers::channel_state;

const WITH_RECEIPTS: [Provider; 6] = [WhatsApp, Twilio, TwilioWhatsApp, Periskope, Native, Postback];

/// The order of this number, of the 24 in which four things can be.
fn order(number: usize) -> [Outcome; 4] {
    let mut left = vec![Sent, Delivered, Read, Failed];
    [number / 6 % 4, number / 2 % 3, number % 2, 0].map(|place| left.remove(place))
}

/// Posts until it is taken, as providers do. Twilio calls once, and its token finds the message at once.
pub async fn post_until_taken(client: &Client, notice: &Notice) {
    if matches!(notice.provider, Twilio | TwilioWhatsApp) {
        assert_eq!(notice.clone().signed().post(client).await, StatusCode::NO_CONTENT, "{notice:?}");
        return;
    }
    until("the receipt is taken", async || match notice.clone().signed().post(client).await {
        StatusCode::NO_CONTENT => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_in_every_order_each_twice_and_before_the_answer_end_alike_with_every_provider() {
    let stage = Stage::of_providers().await;
    // The gateway has taken a message by then, and its answer is still on its way.
    stage.set_faults(json!([{"do": {"latencyMs": 1000}}]));
    stage.apply_channels(&WITH_RECEIPTS, &json!({}));
    stage.apply_broadcasts(&WITH_RECEIPTS, 24, &json!({}));
    let client = &Client::new();
    with_each(&WITH_RECEIPTS, async |provider| {
        stage.accepted_by(provider, 24).await;
        let messages = stage.accepted_of(provider);
        let trails = messages.iter().enumerate().map(async |(number, message)| {
            for outcome in order(number) {
                for _ in 0..2 {
                    post_until_taken(client, &Notice::of(&stage, provider, message, outcome)).await;
                }
            }
        });
        join_all(trails).await;
        let name = provider.name();
        let done = stage.wait(name, "all are read", |broadcast| counts(broadcast).read == 24).await;
        assert_eq!(books::sum(&done), 24, "{provider:?}");
        stage.check_complete_of(provider, &stage.complete(name).await, 24).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_nobody_brings_again_is_kept_until_the_answer_to_its_message_is_there() {
    let stage = Stage::of_providers().await;
    // The answer comes later than a receipt waits for it while its sender does.
    stage.set_faults(json!([{"do": {"latencyMs": 4000}}]));
    stage.apply_channels(&[Periskope], &json!({}));
    stage.apply_broadcasts(&[Periskope], 2, &json!({}));
    stage.accepted_by(Periskope, 1).await;
    let message = &stage.accepted_of(Periskope)[0];
    let notice = Notice::of(&stage, Periskope, message, Read).signed();
    assert_eq!(notice.post(&Client::new()).await, StatusCode::SERVICE_UNAVAILABLE);
    stage.wait(Periskope.name(), "it is read", |broadcast| counts(broadcast).read == 1).await;
    assert_eq!(stage.operator.metric("broadcast_receipts_total", "Applied").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_good_for_its_own_bytes_and_of_its_own_secret_alone() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&Provider::ALL, &json!({}));
    stage.apply_broadcasts(&Provider::ALL, 1, &json!({}));
    let client = &Client::new();
    with_each(&Provider::ALL, async |provider| {
        stage.complete(provider.name()).await;
        let message = &stage.accepted_of(provider)[0];
        let notice = Notice::of(&stage, provider, message, Read);
        let other = if matches!(provider, Native | Postback) {
            "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODk="
        } else {
            "secret-of-somebody-else"
        };
        let mut forged = vec![notice.clone(), notice.clone().signed_with(other)];
        // Telegram signs nothing: its secret is all that it shows.
        if provider != Telegram {
            forged.push(notice.clone().signed().with_other_bytes());
        }
        for forged in forged {
            assert_eq!(forged.post(client).await, StatusCode::UNAUTHORIZED, "{forged:?}");
        }
        let rows = books::rows(&stage, provider.name()).await;
        assert_eq!(rows[0].1.outcome, Sent, "{provider:?}");
        assert_eq!(notice.signed().post(client).await, StatusCode::NO_CONTENT, "{provider:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_secret_opens_no_channel() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&Provider::ALL, &json!({}));
    stage.apply_broadcasts(&Provider::ALL, 1, &json!({}));
    with_each(&Provider::ALL, async |provider| stage.complete(provider.name()).await).await;
    for empty in ["", " \n"] {
        let mut data = json!({Twilio.token_key(): empty, TwilioWhatsApp.token_key(): empty});
        for provider in Provider::ALL {
            data[format!("{}-signing", provider.name())] = json!(empty);
        }
        let name = json!({"name": SECRET});
        stage.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": name, "stringData": data}));
        let client = &Client::new();
        with_each(&Provider::ALL, async |provider| {
            let message = &stage.accepted_of(provider)[0];
            let notice = Notice::of(&stage, provider, message, Read);
            // What the empty key makes of it; our own format has no way to write one.
            let signed = || match provider {
                Native | Postback => notice.clone().signed(),
                _ => notice.clone().signed_with(empty.trim()),
            };
            until(&format!("{provider:?} is closed"), async || match signed().post(client).await {
                StatusCode::SERVICE_UNAVAILABLE => Ok(()),
                other => Err(other),
            })
            .await;
            let rows = books::rows(&stage, provider.name()).await;
            assert_eq!(rows[0].1.outcome, Sent, "{provider:?}");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_another_namespace_has_no_match_even_under_the_same_names_and_secret() {
    let plane = control_plane::shared().await;
    let other = format!("other-{}", std::process::id());
    plane.kubectl(&["create", "namespace", &other], "");
    let stage = Stage::with_flags(&["--namespace", &other]).await;
    let secret = stage.kubectl(&["get", "secret", "gateway", "-o", "jsonpath={.data}"]);
    let data: Value = serde_json::from_str(&secret).expect("JSON");
    let items = json!([
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway"}, "data": data},
        stage.channel(CHANNEL, json!({}), json!({})),
        broadcast("sale", 1, json!({})),
    ]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    for namespace in [&stage.namespace, &other] {
        plane.kubectl(&["apply", "-n", namespace, "-f", "-"], &list.to_string());
    }
    let sent = |namespace: &str| -> Option<Entry> {
        let broadcast = Some(format!("{namespace}/sale"));
        stage.gateway.ledger().sends(&SendQuery { broadcast, ..SendQuery::default() }).pop()
    };
    until("both are sent", async || {
        let both = sent(&stage.namespace).zip(sent(&other));
        both.filter(|_| stage.gateway.ledger().summary().requests.in_flight == 0).ok_or("one is not")
    })
    .await;
    stage.complete("sale").await;
    let foreign = sent(&other).expect("sent");
    let post = async |namespace: &str, id: &str| {
        let url = stage.operator.receipts_url().replace("{namespace}", namespace);
        let notice = Notice {
            provider: Native,
            url: url.replace("{channel}", CHANNEL),
            headers: Vec::new(),
            body: json!([{"id": id, "status": "read"}]).to_string(),
        };
        notice.signed().post(&Client::new()).await
    };
    let unknown = async || stage.operator.metric("broadcast_receipts_total", "UnknownId").await;
    assert_eq!(post(&stage.namespace, &foreign.token).await, StatusCode::NO_CONTENT);
    assert_eq!(unknown().await, 1);
    // By the gateway's own id it may be one of a message whose answer is on its way: until it is known not to be.
    let id = foreign.message_id.as_deref().expect("an id");
    assert_ne!(post(&stage.namespace, id).await, StatusCode::OK);
    assert_eq!(stage.operator.metric("broadcast_receipts_total", "Applied").await, 0);
    // Under its own namespace the same id has its row.
    assert_eq!(post(&other, &foreign.token).await, StatusCode::NO_CONTENT);
    assert_eq!(stage.operator.metric("broadcast_receipts_total", "Applied").await, 1);
    assert_eq!(books::rows(&stage, "sale").await[0].1.outcome, Sent);
    plane.kubectl(&["delete", "broadcast", "sale", "-n", &other], "");
    plane.kubectl(&["delete", "namespace", &other, "--wait=false"], "");
}

const MIB: usize = 1024 * 1024;
/// Largest body that is read.
const MAX_BODY: usize = 4 * MIB;

/// A connection to the receipts port on which the head of a request is sent, with these headers besides.
async fn begin(stage: &Stage, channel: &str, headers: &str) -> TcpStream {
    let base = stage.operator.receipts_base_url();
    let address = base.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "POST /v1/namespaces/{}/channels/{channel}/receipts HTTP/1.1\r\nhost: {address}\r\n{headers}\
         webhook-id: 1\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,AAAA\r\n\r\n",
        stage.namespace
    );
    connection.write_all(head.as_bytes()).await.expect("should write");
    connection
}

async fn first_line(connection: &mut TcpStream) -> String {
    let mut answer = vec![0; 512];
    let read = connection.read(&mut answer).await.expect("should read");
    String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_ten_megabytes_is_refused_before_it_has_come() {
    let stage = Stage::new().await;
    until("the receipts server has heard of the channel", async || {
        let answer = first_line(&mut begin(&stage, CHANNEL, "content-length: 0\r\n").await).await;
        if answer == "HTTP/1.1 401 Unauthorized" { Ok(()) } else { Err(answer) }
    })
    .await;
    // It says so: nothing of it is read.
    let mut connection = begin(&stage, CHANNEL, &format!("content-length: {}\r\n", 10 * MIB)).await;
    assert_eq!(first_line(&mut connection).await, "HTTP/1.1 413 Payload Too Large");
    // It does not say so: it is read as far as the largest body goes.
    let mut connection = begin(&stage, CHANNEL, "transfer-encoding: chunked\r\n").await;
    let chunk = format!("{MIB:x}\r\n{}\r\n", "x".repeat(MIB));
    for _ in 0..MAX_BODY / MIB {
        connection.write_all(chunk.as_bytes()).await.expect("should write");
    }
    connection.write_all(b"1\r\nx\r\n").await.expect("should write");
    assert_eq!(first_line(&mut connection).await, "HTTP/1.1 413 Payload Too Large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_twilio_would_not_send_is_refused_before_anybody_asks_whose_it_is() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&[Twilio], &json!({}));
    channel_state(&stage, Twilio, "Ready").await;
    let head = |length: usize| format!("content-length: {length}\r\nx-twilio-signature: AAAA\r\n");
    // One that is too large says so: nothing of it is read.
    let mut connection = begin(&stage, Twilio.name(), &head(64 * 1024 + 1)).await;
    assert_eq!(first_line(&mut connection).await, "HTTP/1.1 413 Payload Too Large");
    for (fields, answer) in [(513, "HTTP/1.1 413 Payload Too Large"), (512, "HTTP/1.1 401 Unauthorized")] {
        let form = vec!["a"; fields].join("&");
        let mut connection = begin(&stage, Twilio.name(), &head(form.len())).await;
        connection.write_all(form.as_bytes()).await.expect("should write");
        assert_eq!(first_line(&mut connection).await, answer, "{fields} fields");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_of_telegram_and_a_channel_that_is_not_there_are_refused_before_the_body_comes() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&[Telegram], &json!({}));
    channel_state(&stage, Telegram, "Ready").await;
    let headers = "content-length: 100\r\nx-telegram-bot-api-secret-token: guessed\r\n";
    for (channel, answer) in
        [(Telegram.name(), "HTTP/1.1 401 Unauthorized"), ("nobody", "HTTP/1.1 404 Not Found")]
    {
        assert_eq!(first_line(&mut begin(&stage, channel, headers).await).await, answer);
    }
    let lines = || stage.operator.log().lines().filter(|line| line.contains("refused receipts")).count();
    for _ in 0..3 {
        first_line(&mut begin(&stage, Telegram.name(), headers).await).await;
    }
    assert_eq!(stage.operator.metric("broadcast_receipts_total", "Refused").await, 4);
    assert_eq!(lines(), 1, "one a minute");
}

/// Ids of one request.
const IDS: usize = 5_000;
/// Requests at the same time: what they need together moves with the allocator by more than would be remembered.
const AT_ONCE: usize = 2;
/// Most memory, in KiB, that may stay after 100,000 ids of no message: for one that is remembered there are 8,192.
const MOST_GROWTH: u64 = 6 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_no_message_leave_nothing_behind_in_memory() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({"timeoutSeconds": 60}), json!({})));
    // While a message is in flight each of them may be its id, and is remembered for a while.
    stage.set_faults(json!([{"when": {"chats": [chat_id(0)]}, "do": {"hangAfterAccept": {}}}]));
    stage.apply(&broadcast("sale", 2, json!({})));
    stage.accepted("sale", 2).await;
    let post_many = async |first: usize, requests: usize| {
        let started = clock::monotonic();
        let client = Client::new();
        let posts = (first..first + requests).map(|request| {
            let ids = (0..IDS).map(|id| json!({"id": format!("wamid.{request}.{id}"), "status": "read"}));
            let body = ids.collect::<Value>().to_string();
            let url = stage.operator.receipts_url().replace("{namespace}", &stage.namespace);
            let url = url.replace("{channel}", CHANNEL);
            let notice = Notice { provider: Native, url, headers: Vec::new(), body }.signed();
            let client = client.clone();
            async move { notice.post(&client).await }
        });
        let answers: Vec<StatusCode> =
            futures::stream::iter(posts.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect().await;
        println!("{} ids in {} ms", requests * IDS, started.elapsed().as_millis());
        answers
    };
    post_many(100, 20).await;
    let Some(before) = stage.operator.memory() else { return };
    let answers = post_many(10, 20).await;
    let after = stage.operator.memory().expect("memory");
    // There is room to remember 8,192 as perhaps too early. All others are counted and done with.
    assert!(answers.iter().all(|status| *status == StatusCode::NO_CONTENT), "{answers:?}");
    assert!(after < before + MOST_GROWTH, "from {before} to {after} KiB");
}
