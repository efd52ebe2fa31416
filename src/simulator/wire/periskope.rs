//! Periskope: `POST /message/send` with the phone in a header, and webhooks with acknowledgements. Pure.
//!
//! Source: Periskope's reference of messages, webhooks and delivery status. Its error bodies are not documented: but for the code
//! of a 404, only their HTTP status is to be relied on.

use serde_json::{Value, json};

use super::signature::hmac_sha256_hex;
use super::{Answer, Call, Incoming, Item, Notice, text};
use crate::simulator::desk::{AcceptedMessage, Message, Request};
use crate::simulator::faults::Refusal;
use crate::simulator::receipts::{ReceiptPlan, Status};

/// What people's chats end with. Groups end with `@g.us`.
const PERSON: &str = "@c.us";
/// Id of the organisation that all phones belong to.
const ORGANISATION: &str = "51000000-0000-4000-8000-000000000000";

pub(super) fn read(call: &Call, incoming: &Incoming<'_>) -> Request {
    let phone = incoming.header("x-phone").unwrap_or_default();
    let json = incoming.json();
    let (message, refusal) = match &json {
        Ok(json) => (message(json, phone), check(json, phone).err()),
        Err(error) => (Message::default(), Some(refusal(error))),
    };
    Request {
        format: call.format,
        account: phone.to_owned(),
        path: incoming.path.to_owned(),
        credential: incoming.bearer(),
        message,
        refusal,
    }
}

fn message(json: &Value, phone: &str) -> Message {
    let to = text(json, "/chat_id");
    Message {
        chat: to.strip_suffix(PERSON).unwrap_or(to).to_owned(),
        to: if to.contains('@') { to.to_owned() } else { format!("{to}{PERSON}") },
        from: phone.to_owned(),
        text: text(json, "/message").to_owned(),
        media: text(json, "/media/url").to_owned(),
        ..Message::default()
    }
}

fn check(json: &Value, phone: &str) -> Result<(), Refusal> {
    if phone.is_empty() {
        return Err(refusal("x-phone is required"));
    }
    let chat = text(json, "/chat_id");
    let name = chat.split('@').next().unwrap_or_default();
    let is_chat = !name.is_empty() && (chat == name || chat.ends_with(PERSON) || chat.ends_with("@g.us"));
    if !is_chat {
        return Err(refusal("chat_id is required: a number, or an id that ends with @c.us or @g.us"));
    }
    let media = &json["media"];
    if text(json, "/message").is_empty() && media.is_null() {
        return Err(refusal("message or media is required"));
    }
    let has_source = ["/url", "/filedata"].iter().any(|place| !text(media, place).is_empty());
    if !media.is_null() && (!has_source || text(media, "/type").is_empty()) {
        return Err(refusal("media needs a type, and url or filedata"));
    }
    Ok(())
}

fn refusal(message: &str) -> Refusal {
    Refusal { status: 400, code: "400".into(), message: message.into(), retryable: false }
}

/// The queue's own id of a message.
fn queue_id(unique_id: &str) -> String {
    let digits = unique_id.len().saturating_sub(12);
    format!("51000000-0000-4000-8000-{}", unique_id[digits..].to_lowercase())
}

/// The reference has two forms of this answer, of which one names the message by its place in the queue alone: they take turns.
pub(super) fn accepted(message: &AcceptedMessage) -> Answer {
    let queue_id = queue_id(&message.message_id);
    let mut answer = json!({"queue_id": queue_id, "queue_position": 0});
    if has_unique_id(&message.message_id) {
        answer["unique_id"] = json!(&*message.message_id);
        answer["hint"] = json!(format!(
            "You can track message status using the fetch jobs api - /queue/jobs?queue_id={queue_id}"
        ));
    }
    Answer::json(200, &answer)
}

fn has_unique_id(unique_id: &str) -> bool {
    unique_id.bytes().last().is_none_or(|last| last % 2 == 1)
}

/// Its code of what is not there is known, and no other.
pub(super) fn refused(Refusal { status, code, message, .. }: &Refusal) -> Answer {
    let code = if *status == 404 { "NOT_FOUND_ERROR" } else { code };
    Answer::json(*status, &json!({"code": code, "message": message}))
}

pub(super) fn too_many_requests(seconds: Option<u64>) -> Answer {
    let message = "Too many requests".into();
    refused(&Refusal { status: 429, code: "429".into(), message, retryable: false }).with_wait(seconds)
}

pub(super) fn probed() -> Answer {
    let counts = json!({"active": 0, "completed": 0, "failed": 0, "is_running": true, "pending": 0});
    Answer::json(200, &counts)
}

/// One event `message.ack.updated`. Its name is sent as `event_type`, and as `event`, which the documentation has.
pub(super) fn notice(items: &[Item<'_>], plan: &ReceiptPlan) -> Notice {
    let Some((message, receipt)) = items.first() else { return Notice::default() };
    let unique_id = &*message.message_id;
    let message_id = format!("true_{}_{unique_id}", message.to);
    let phone = format!("{}{PERSON}", message.from);
    let ack = match receipt.status {
        Status::Failed => "-1",
        Status::Sent => "1",
        Status::Delivered => "3",
        Status::Read => "4",
    };
    let name = "message.ack.updated";
    let body = json!({
        "event": name,
        "event_type": name,
        "org_id": ORGANISATION,
        "timestamp": receipt.time,
        "data": {
            "message_id": message_id,
            "unique_id": unique_id,
            "queue_id": queue_id(unique_id),
            "id": {"id": unique_id, "fromMe": true, "remote": message.to, "_serialized": message_id},
            "org_id": ORGANISATION,
            "org_phone": phone,
            "chat_id": message.to,
            "ack": ack,
            "body": &*message.text,
            "from": phone,
            "to": message.to,
            "from_me": true,
            "has_media": !message.media.is_empty(),
            "message_type": if message.media.is_empty() { "chat" } else { "image" },
            "timestamp": message.time,
            "broadcast_id": null,
        },
    })
    .to_string();
    let key = plan.settings.providers.periskope_signing_key.as_ref();
    let sign = |key: &String| ("x-periskope-signature", hmac_sha256_hex(key, body.as_bytes()));
    let headers = key.map(sign).into_iter().collect();
    Notice { content_type: "application/json", headers, body }
}
