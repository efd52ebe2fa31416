//! The `HTTP` channel's own format: one JSON request per message, receipts as Standard Webhooks; and the requests of listmonk's
//! "postback" messengers, which are taken at the same place. Pure.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Call, Incoming, Item, Notice, text as text_at};
use crate::simulator::desk::{AcceptedMessage, Message, Request};
use crate::simulator::faults::Refusal;
use crate::simulator::receipts::{ReceiptPlan, Status};
use crate::webhooks::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign};

/// Error code of a `failed` receipt.
const FAILED_CODE: &str = "undeliverable";

/// Body of `POST /messages`.
#[derive(Deserialize)]
struct Body {
    id: String,
    to: String,
    text: Option<String>,
    template: Option<Value>,
    media: Option<Value>,
    broadcast: BroadcastName,
}

#[derive(Deserialize)]
struct BroadcastName {
    namespace: String,
    name: String,
}

/// What listmonk posts, as far as there is a place for it in the ledger. It has one recipient.
#[derive(Deserialize)]
struct Postback {
    body: String,
    recipients: [Recipient; 1],
    campaign: Campaign,
}

#[derive(Deserialize)]
struct Recipient {
    uuid: String,
    attribs: Map<String, Value>,
}

#[derive(Deserialize)]
struct Campaign {
    uuid: String,
}

pub(super) fn read(call: &Call, incoming: &Incoming<'_>) -> Request {
    let key = incoming.header("idempotency-key");
    let request = |message, refusal| Request {
        format: call.format,
        account: call.account.clone(),
        path: incoming.path.to_owned(),
        credential: incoming.bearer(),
        message,
        refusal,
    };
    match message(incoming) {
        Ok(message) => {
            let refusal = check(&message, key);
            request(message, refusal)
        }
        Err(error) => {
            let message = Message { token: key.unwrap_or_default().to_owned(), ..Message::default() };
            request(message, Some(refusal("invalid_request", error)))
        }
    }
}

fn message(incoming: &Incoming<'_>) -> Result<Message, String> {
    let json = incoming.json()?;
    let error = |error: serde_json::Error| error.to_string();
    if json.get("recipients").is_some() {
        serde_json::from_value(json).map(message_of_postback).map_err(error)
    } else {
        serde_json::from_value(json).map(message_of_body).map_err(error)
    }
}

fn message_of_body(body: Body) -> Message {
    let json = |value: Option<Value>| value.map(|value| value.to_string()).unwrap_or_default();
    Message {
        token: body.id,
        broadcast: format!("{}/{}", body.broadcast.namespace, body.broadcast.name),
        chat: body.to.clone(),
        to: body.to,
        text: body.text.unwrap_or_default(),
        template: json(body.template),
        media: body.media.as_ref().map(|media| text_at(media, "/url").to_owned()).unwrap_or_default(),
        ..Message::default()
    }
}

/// Bridges look for the address among the attributes of the recipient.
fn message_of_postback(Postback { body, recipients: [recipient], campaign }: Postback) -> Message {
    let Recipient { uuid: token, attribs } = recipient;
    let chat = ["chat", "phone"].iter().find_map(|name| attribs.get(*name)?.as_str()).unwrap_or_default();
    Message {
        token,
        broadcast: campaign.uuid,
        chat: chat.to_owned(),
        to: chat.to_owned(),
        text: body,
        ..Message::default()
    }
}

fn check(message: &Message, key: Option<&str>) -> Option<Refusal> {
    let Message { token, to, text, template, media, .. } = message;
    for (field, value) in [("id", token), ("to", to)] {
        if value.is_empty() {
            return Some(refusal("invalid_request", format!("{field} is empty")));
        }
    }
    if [text, template, media].iter().all(|content| content.is_empty()) {
        return Some(refusal("invalid_request", "one of text, template and media is needed".into()));
    }
    let is_other = key.is_some_and(|key| key != token);
    let text = "Idempotency-Key and the id in the body differ";
    is_other.then(|| refusal("idempotency_key_mismatch", text.into()))
}

fn refusal(code: &str, message: String) -> Refusal {
    Refusal { status: 400, code: code.into(), message, retryable: false }
}

pub(super) fn accepted(message: &AcceptedMessage) -> Answer {
    Answer::json(200, &json!({"id": &*message.message_id}))
}

pub(super) fn refused(Refusal { status, code, message, retryable }: &Refusal) -> Answer {
    Answer::json(*status, &json!({"error": {"code": code, "message": message, "retryable": retryable}}))
}

pub(super) fn notice(items: &[Item<'_>], plan: &ReceiptPlan, (id, now): (&str, Timestamp)) -> Notice {
    let receipts: Vec<Value> = items
        .iter()
        .map(|(message, receipt)| {
            let name = if plan.settings.use_message_id { &*message.message_id } else { &*message.token };
            let mut json = json!({"id": name, "status": receipt.status, "time": receipt.time});
            if receipt.status == Status::Failed {
                json["code"] = plan.failed_code(FAILED_CODE).into();
            }
            json
        })
        .collect();
    let body = Value::from(receipts).to_string();
    let mut headers = vec![(ID_HEADER, id.to_owned()), (TIMESTAMP_HEADER, now.as_second().to_string())];
    if !plan.secrets.is_empty() {
        headers.push((SIGNATURE_HEADER, sign(&plan.secrets, id, now, body.as_bytes())));
    }
    Notice { content_type: "application/json", headers, body }
}
