//! The formats of providers: what they share, and a table of requests and answers of each.

mod periskope;
mod telegram;
mod twilio;
mod whatsapp;

use reqwest::RequestBuilder;

use super::receipts::Receiver;
use super::*;
use crate::simulator::{Done, Entry, Format, ProviderReceipts, ReceiptSettings, SendQuery};

/// A token as the operator makes them.
const TOKEN: &str = "6f1c2a3e-1d2b-4c5d-8e9f-0a1b2c3d4e5f.0.7";
const UID: &str = "6f1c2a3e-1d2b-4c5d-8e9f-0a1b2c3d4e5f";

impl Bench {
    fn request(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.simulator.url()))
    }

    fn last_entry(&self) -> Entry {
        self.simulator.ledger().sends(&SendQuery::default()).pop().expect("should have an entry")
    }

    /// A plain text to this chat in this format, with whatever its provider needs besides.
    fn plain(&self, format: Format, chat: &str) -> RequestBuilder {
        match format {
            Format::Http => self.request("/messages/sales").bearer_auth("secret").json(&message(chat)),
            Format::WhatsApp => self.request("/v24.0/1063/messages").bearer_auth("secret").json(&json!({
                "messaging_product": "whatsapp", "to": chat, "text": {"body": "Hi"},
                "biz_opaque_callback_data": TOKEN,
            })),
            Format::Telegram => {
                self.request("/botsecret:x/sendMessage").json(&json!({"chat_id": chat, "text": "Hi"}))
            }
            Format::Twilio => {
                let fields =
                    [("To", format!("+{chat}")), ("From", "+15550199".into()), ("Body", "Hi".into())];
                let body = form(&fields.map(|(name, value)| (name, value)));
                self.request("/2010-04-01/Accounts/AC1/Messages.json")
                    .basic_auth("AC1", Some("secret"))
                    .body(body)
            }
            Format::Periskope => self
                .request("/v1/message/send")
                .bearer_auth("secret")
                .header("x-phone", "15550199")
                .json(&json!({"chat_id": format!("{chat}@c.us"), "message": "Hi"})),
        }
    }
}

const ALL: [Format; 5] =
    [Format::Http, Format::WhatsApp, Format::Telegram, Format::Twilio, Format::Periskope];

/// Fields as a form.
fn form<T: AsRef<str>>(fields: &[(&str, T)]) -> String {
    let mut url: reqwest::Url = "http://localhost/".parse().expect("url");
    url.query_pairs_mut().extend_pairs(fields);
    url.query().expect("should have fields").to_owned()
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    body(request.send().await.expect("answer")).await
}

#[tokio::test]
async fn a_chat_is_named_alike_in_all_formats() {
    let bench = Bench::start(Settings::default()).await;
    for format in ALL {
        let status = bench.plain(format, "15550100").send().await.expect("answer").status();
        assert!(status.is_success(), "{format:?} {status}");
        let entry = bench.last_entry();
        assert_eq!(
            (entry.format, &*entry.chat, &*entry.text, entry.accepted),
            (format, "15550100", "Hi", true)
        );
    }
    for (query, expected) in [
        ("chat=15550100&text=Hi", 5),
        ("text=Ho", 0),
        ("format=twilio", 1),
        ("account=1063", 1),
        (&*format!("broadcast={UID}&chat=15550100"), 1),
    ] {
        let sends = bench.get(&format!("/simulator/sends?{query}")).await;
        assert_eq!(sends.as_array().map(Vec::len), Some(expected), "{query}");
    }
}

#[tokio::test]
async fn what_has_no_token_is_not_counted_as_one() {
    let bench = Bench::start(Settings { idempotent: true, ..Settings::default() }).await;
    for format in [Format::Telegram, Format::Telegram, Format::Periskope] {
        bench.plain(format, "15550100").send().await.expect("answer");
    }
    let counts = bench.simulator.ledger().summary().requests;
    assert_eq!((counts.accepted, counts.distinct_tokens, counts.twice.tokens), (3, 0, 0));
    assert_eq!((counts.max_accepted_per_token, counts.twice.chats), (0, 1));
}

#[tokio::test]
async fn providers_without_a_key_for_repeats_accept_a_repeat() {
    let bench = Bench::start(Settings { idempotent: true, ..Settings::default() }).await;
    for _ in 0..2 {
        bench.plain(Format::WhatsApp, "15550100").send().await.expect("answer");
    }
    let counts = bench.simulator.ledger().summary().requests;
    assert_eq!((counts.accepted, counts.twice.tokens, counts.max_accepted_per_token), (2, 1, 2));
}

#[tokio::test]
async fn faults_without_an_answer_work_in_all_formats() {
    for format in ALL {
        let bench = Bench::with_faults(json!([
            {"when": {"chats": ["15550101"]}, "do": {"resetBeforeAccept": {}}},
            {"when": {"chats": ["15550102"]}, "do": {"resetAfterAccept": {}}},
            {"when": {"chats": ["15550103"]}, "do": {"redirect": {"status": 307}}},
            {"when": {"chats": ["15550104"]}, "do": {"statusAfterAccept": 502}},
            {"when": {"chats": ["15550105"]}, "do": {"hang": {}}},
        ]))
        .await;
        for (chat, accepted) in [("15550101", false), ("15550102", true)] {
            bench.plain(format, chat).send().await.expect_err("should be cut");
            let entry = bench.last_entry();
            assert_eq!((entry.done, entry.accepted), (Done::Reset, accepted), "{format:?}");
        }
        let redirect = bench.plain(format, "15550103").send().await.expect("answer");
        assert_eq!((redirect.status().as_u16(), redirect.headers().contains_key("location")), (307, true));
        let broken = bench.plain(format, "15550104").send().await.expect("answer");
        assert_eq!(broken.status(), 502);
        let text = broken.text().await.expect("text");
        assert!(serde_json::from_str::<Value>(&text).is_err(), "{format:?} {text}");
        assert!(bench.last_entry().accepted);
        tokio::select! {
            answer = bench.plain(format, "15550105").send() => panic!("{answer:?}"),
            _ = bench.wait_until(|summary| summary.requests.hung == 1) => {}
        }
    }
}

#[tokio::test]
async fn a_token_is_for_all_formats_or_for_one() {
    let bench = Bench::start(Settings { token: Some("secret".into()), ..Settings::default() }).await;
    let bot = json!({"token": "secret:x", "format": "telegram"});
    assert_eq!(bench.put("/simulator/token", bot.to_string()).await, 204);
    let status =
        async |format| bench.plain(format, "15550100").send().await.expect("answer").status().as_u16();
    for format in ALL {
        let expected = if format == Format::Twilio { 201 } else { 200 };
        assert_eq!(status(format).await, expected, "{format:?}");
    }
    bench.simulator.set_token_of(Format::Twilio, Some("other".into()));
    assert_eq!((status(Format::Twilio).await, status(Format::WhatsApp).await), (401, 200));
    bench.simulator.set_token(Some("revoked".into()));
    for format in ALL {
        assert_eq!(status(format).await, 401, "{format:?}");
    }
    let counts = bench.simulator.ledger().summary().requests;
    assert_eq!((counts.accepted, counts.refused), (6, 6));
}

#[tokio::test]
async fn unknown_paths_are_not_found_and_not_in_the_ledger() {
    let bench = Bench::start(Settings::default()).await;
    for path in ["/", "/v24/1063/messages", "/2010-04-01/Accounts/AC1/Calls.json"] {
        assert_eq!(bench.request(path).send().await.expect("answer").status(), 404, "{path}");
    }
    assert_eq!(bench.simulator.ledger().summary().requests.requests, 0);
}
