//! Telegram Bot API: `POST /bot{token}/{method}`, and updates of a bot's webhook. There are no receipts: what is heard of a chat is
//! that it blocked the bot. Pure.
//!
//! Source: Telegram's reference of the Bot API, and the answers of its open server.

use serde_json::{Map, Value, json};

use super::form;
use super::{Answer, Call, Incoming, Item, Notice, Verb, text};
use crate::simulator::desk::{AcceptedMessage, Message, Request};
use crate::simulator::faults::Refusal;
use crate::simulator::receipts::ReceiptPlan;

/// Most characters of a text.
const MAX_TEXT: usize = 4096;
/// Most characters of a caption.
const MAX_CAPTION: usize = 1024;
/// Methods that send something else than a text, and the field that it is in.
const MEDIA: [(&str, &str); 6] = [
    ("sendphoto", "photo"),
    ("sendvideo", "video"),
    ("sendaudio", "audio"),
    ("senddocument", "document"),
    ("sendanimation", "animation"),
    ("sendvoice", "voice"),
];

pub(super) fn read(call: &Call, incoming: &Incoming<'_>) -> Request {
    let fields = fields(incoming);
    let (message, refusal) = match &fields {
        Ok(fields) => (message(call, fields), check(call, fields).err()),
        Err(error) => (Message::default(), Some(refusal(400, &format!("Bad Request: {error}")))),
    };
    Request {
        format: call.format,
        account: call.account.clone(),
        path: incoming.path.to_owned(),
        credential: call.token.clone(),
        message,
        refusal,
    }
}

/// Methods take JSON or a form.
fn fields(incoming: &Incoming<'_>) -> Result<Value, String> {
    if incoming.header("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
        return incoming.json();
    }
    let body = String::from_utf8_lossy(incoming.body.clone()?).into_owned();
    let fields = form::decode(&body).into_iter().map(|(name, value)| (name, value.into()));
    Ok(Value::Object(fields.collect::<Map<_, _>>()))
}

/// A chat id is a number or a text.
fn chat_id(fields: &Value) -> String {
    match &fields["chat_id"] {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => String::new(),
    }
}

/// The field with the media of a method.
fn media_field(call: &Call) -> Option<&'static str> {
    let Verb::Send(method) = &call.verb else { return None };
    MEDIA.iter().find(|(name, _)| name == method).map(|(_, field)| *field)
}

fn message(call: &Call, fields: &Value) -> Message {
    let chat = chat_id(fields);
    let media = media_field(call).map(|field| text(fields, &format!("/{field}")));
    Message {
        to: chat.clone(),
        chat,
        text: text(fields, if media.is_some() { "/caption" } else { "/text" }).to_owned(),
        media: media.unwrap_or_default().to_owned(),
        ..Message::default()
    }
}

fn check(call: &Call, fields: &Value) -> Result<(), Refusal> {
    let media = media_field(call);
    // A token that cannot be one leads nowhere, as a method that there is not.
    if call.account.is_empty() || media.is_none() && call.verb != Verb::Send("sendmessage".into()) {
        return Err(refusal(404, "Not Found"));
    }
    if chat_id(fields).is_empty() {
        return Err(refusal(400, "Bad Request: chat_id is empty"));
    }
    let mode = text(fields, "/parse_mode").to_lowercase();
    if !["", "html", "markdown", "markdownv2"].contains(&&*mode) {
        return Err(refusal(400, "Bad Request: unsupported parse_mode"));
    }
    // With marks in it, a text is as long as what is left when they are taken out: that is not counted here.
    let length = |place| if mode.is_empty() { text(fields, place).chars().count() } else { 1 };
    match media {
        Some(field) if text(fields, &format!("/{field}")).is_empty() => {
            Err(refusal(400, &format!("Bad Request: there is no {field} in the request")))
        }
        Some(_) if length("/caption") > MAX_CAPTION => {
            Err(refusal(400, "Bad Request: message caption is too long"))
        }
        None if text(fields, "/text").is_empty() => Err(refusal(400, "Bad Request: message text is empty")),
        None if length("/text") > MAX_TEXT => Err(refusal(400, "Bad Request: message is too long")),
        _ => Ok(()),
    }
}

fn refusal(status: u16, message: &str) -> Refusal {
    Refusal { status, code: status.to_string(), message: message.into(), retryable: false }
}

/// Private chats have positive numbers, groups negative ones; a name is that of a channel.
fn chat(id: &str) -> Value {
    match id.parse::<i64>() {
        Ok(id) if id > 0 => json!({"id": id, "first_name": "Guest", "type": "private"}),
        Ok(id) => json!({"id": id, "title": "Guests", "type": "supergroup"}),
        Err(_) => {
            json!({"id": -1_001_234_567_890_i64, "title": id, "username": id.trim_start_matches('@'), "type": "channel"})
        }
    }
}

fn bot(account: &str) -> Value {
    let id: i64 = account.parse().unwrap_or_default();
    json!({"id": id, "is_bot": true, "first_name": "Simulator", "username": "simulator_bot"})
}

pub(super) fn accepted(message: &AcceptedMessage) -> Answer {
    let id: u64 = message.message_id.parse().unwrap_or_default();
    let mut result = json!({
        "message_id": id,
        "from": bot(&message.account),
        "date": message.time.as_second(),
        "chat": chat(&message.chat),
    });
    result[if message.media.is_empty() { "text" } else { "caption" }] = (*message.text).into();
    Answer::json(200, &json!({"ok": true, "result": result}))
}

fn error(status: u16, description: &str, parameters: &Value) -> Answer {
    let mut body = json!({"ok": false, "error_code": status, "description": description});
    if !parameters.is_null() {
        body["parameters"] = parameters.clone();
    }
    Answer::json(status, &body)
}

/// A group that was upgraded has a new id: the same digits after `-100`.
pub(super) fn refused(refusal: &Refusal, chat: &str) -> Answer {
    let is_upgraded = refusal.message.contains("upgraded to a supergroup");
    let new_id: Option<i64> = format!("-100{}", chat.trim_start_matches('-')).parse().ok();
    let parameters = match new_id.filter(|_| is_upgraded) {
        Some(id) => json!({"migrate_to_chat_id": id}),
        None => Value::Null,
    };
    error(refusal.status, &refusal.message, &parameters)
}

pub(super) fn too_many_requests(seconds: Option<u64>) -> Answer {
    let Some(seconds) = seconds else { return error(429, "Too Many Requests", &Value::Null) };
    let description = format!("Too Many Requests: retry after {seconds}");
    error(429, &description, &json!({"retry_after": seconds})).with_wait(Some(seconds))
}

/// 500 is the server's own, and may come after the message was sent. Other ones are of the proxy before it.
pub(super) fn broken(status: u16) -> Answer {
    if status == 500 {
        return error(500, "Internal Server Error", &Value::Null);
    }
    Answer {
        content_type: "text/html",
        ..Answer::plain(status, "<html><body>upstream error</body></html>\n")
    }
}

pub(super) fn probed(account: &str) -> Answer {
    Answer::json(200, &json!({"ok": true, "result": bot(account)}))
}

/// A private chat blocked the bot.
pub(super) fn notice(items: &[Item<'_>], plan: &ReceiptPlan) -> Notice {
    let Some((message, receipt)) = items.first() else { return Notice::default() };
    let bot = bot(&message.account);
    let number: u64 = message.message_id.parse().unwrap_or_default();
    let chat = chat(&message.chat);
    let from = json!({"id": chat["id"], "is_bot": false, "first_name": "Guest"});
    let body = json!({"update_id": 100_000_000 + number, "my_chat_member": {
        "chat": chat,
        "from": from,
        "date": receipt.time.as_second(),
        "old_chat_member": {"user": bot, "status": "member"},
        "new_chat_member": {"user": bot, "status": "kicked", "until_date": 0},
    }});
    let secret = plan.settings.providers.telegram_secret.clone();
    let headers = secret.map(|secret| ("x-telegram-bot-api-secret-token", secret)).into_iter().collect();
    Notice { content_type: "application/json", headers, body: body.to_string() }
}
