//! `WhatsApp` Cloud API: `POST /{version}/{phone number id}/messages`, answers of the Graph API, and webhooks with statuses. Pure.
//!
//! Source: Meta's reference of the messages endpoint, of error codes, and of webhook payloads.

use serde_json::{Value, json};

use super::signature::hmac_sha256_hex;
use super::{Answer, Call, Incoming, Item, Notice, text, uid_of};
use crate::simulator::desk::{AcceptedMessage, Message, Request};
use crate::simulator::faults::Refusal;
use crate::simulator::receipts::{ReceiptPlan, Status, is_group};

/// Most characters of a text.
const MAX_TEXT: usize = 4096;
/// A parameter is missing, has the wrong kind, or too many characters.
const INVALID_PARAMETER: &str = "100";
/// A parameter of a template is missing.
const MISSING_PARAMETER: &str = "131008";
/// A kind of message that there is not.
const UNKNOWN_KIND: &str = "131051";
/// What a refusal without a code of Meta is: the message cannot be delivered to this recipient.
const UNDELIVERABLE: &str = "131026";
/// The throughput of the number is used up.
const THROUGHPUT: &str = "130429";
/// Id of the business account that all numbers belong to.
const BUSINESS_ACCOUNT: &str = "102290129340398";
/// Field of a status with the participant of a group: Meta's pages have both names, so each second participant has the other one.
const PARTICIPANT: [&str; 2] = ["recipient_participant_id", "participant_recipient_id"];
/// Kinds of media that a message can have.
const MEDIA: [&str; 5] = ["image", "video", "audio", "document", "sticker"];

pub(super) fn read(call: &Call, incoming: &Incoming<'_>) -> Request {
    let json = incoming.json();
    let (message, refusal) = match &json {
        Ok(json) => (message(json), check(json).err()),
        Err(error) => (Message::default(), Some(refusal(INVALID_PARAMETER, error))),
    };
    Request {
        format: call.format,
        account: call.account.clone(),
        path: incoming.path.to_owned(),
        credential: incoming.bearer(),
        message,
        refusal,
    }
}

fn message(json: &Value) -> Message {
    let to = text(json, "/to");
    let token = text(json, "/biz_opaque_callback_data");
    let kind = kind(json);
    let media = &json[kind];
    let is_media = MEDIA.contains(&kind);
    let link = [text(media, "/link"), text(media, "/id")].into_iter().find(|place| !place.is_empty());
    Message {
        token: token.to_owned(),
        broadcast: uid_of(token).to_owned(),
        // Meta takes numbers with and without a plus.
        chat: to.trim_start_matches('+').to_owned(),
        to: to.to_owned(),
        text: if is_media { text(media, "/caption") } else { text(json, "/text/body") }.to_owned(),
        template: if kind == "template" { json["template"].to_string() } else { String::new() },
        media: link.filter(|_| is_media).unwrap_or_default().to_owned(),
        ..Message::default()
    }
}

/// The kind of a message is `text` where it is not given.
fn kind(json: &Value) -> &str {
    json.get("type").map_or("text", |kind| kind.as_str().unwrap_or_default())
}

fn check(json: &Value) -> Result<(), Refusal> {
    if text(json, "/messaging_product") != "whatsapp" {
        return Err(refusal(INVALID_PARAMETER, "The parameter messaging_product is required."));
    }
    if text(json, "/to").is_empty() {
        return Err(refusal(INVALID_PARAMETER, "The parameter to is required."));
    }
    if !["", "individual", "group"].contains(&text(json, "/recipient_type")) {
        return Err(refusal(INVALID_PARAMETER, "Param recipient_type must be one of {individual, group}"));
    }
    match kind(json) {
        "text" => check_text(text(json, "/text/body")),
        "template" => check_template(&json["template"]),
        kind if MEDIA.contains(&kind) => check_media(kind, &json[kind]),
        kind => Err(refusal(UNKNOWN_KIND, &format!("Unsupported message type: {kind}"))),
    }
}

fn check_text(body: &str) -> Result<(), Refusal> {
    match body.chars().count() {
        0 => Err(refusal(INVALID_PARAMETER, "The parameter text['body'] is required.")),
        1..=MAX_TEXT => Ok(()),
        _ => Err(refusal(INVALID_PARAMETER, "Param text['body'] must be at most 4096 characters long.")),
    }
}

fn check_media(kind: &str, media: &Value) -> Result<(), Refusal> {
    if text(media, "/link").is_empty() == text(media, "/id").is_empty() {
        let message = format!("Exactly one of {kind}['link'] and {kind}['id'] is required.");
        return Err(refusal(INVALID_PARAMETER, &message));
    }
    if ["audio", "sticker"].contains(&kind) && media.get("caption").is_some() {
        return Err(refusal(INVALID_PARAMETER, &format!("Unexpected key \"caption\" on param \"{kind}\".")));
    }
    Ok(())
}

fn check_template(template: &Value) -> Result<(), Refusal> {
    for place in ["/name", "/language/code"] {
        if text(template, place).is_empty() {
            return Err(refusal(INVALID_PARAMETER, &format!("The parameter template{place} is required.")));
        }
    }
    let empty = Vec::new();
    for component in template["components"].as_array().unwrap_or(&empty) {
        let kind = text(component, "/type");
        let is_known = ["header", "body", "button"].contains(&kind);
        let is_button = kind == "button";
        if !is_known || is_button && (text(component, "/sub_type").is_empty() || component["index"].is_null())
        {
            return Err(refusal(INVALID_PARAMETER, "Invalid component of a template."));
        }
        component["parameters"].as_array().unwrap_or(&empty).iter().try_for_each(check_parameter)?;
    }
    Ok(())
}

/// A parameter has its value under the name of its kind: `{"type": "text", "text": "Ana"}`.
fn check_parameter(parameter: &Value) -> Result<(), Refusal> {
    let kind = text(parameter, "/type");
    let value = &parameter[kind];
    if kind.is_empty() || value.is_null() || value == "" {
        return Err(refusal(MISSING_PARAMETER, "Required parameter is missing"));
    }
    Ok(())
}

fn refusal(code: &str, message: &str) -> Refusal {
    Refusal { status: 400, code: code.into(), message: message.into(), retryable: false }
}

/// Codes of Meta are numbers.
pub(super) fn fit(refusal: Refusal) -> Refusal {
    if refusal.code.parse::<u32>().is_ok() {
        return refusal;
    }
    Refusal { code: UNDELIVERABLE.into(), ..refusal }
}

pub(super) fn accepted(message: &AcceptedMessage) -> Answer {
    let mut sent = json!({"id": &*message.message_id});
    if !message.template.is_empty() {
        sent["message_status"] = "accepted".into();
    }
    Answer::json(
        200,
        &json!({
            "messaging_product": "whatsapp",
            "contacts": [{"input": message.to, "wa_id": message.chat}],
            "messages": [sent],
        }),
    )
}

pub(super) fn refused(refusal: &Refusal) -> Answer {
    let Refusal { status, code, message, retryable } = refusal;
    let number: u32 = code.parse().unwrap_or_default();
    let mut error = json!({
        "message": format!("(#{code}) {message}"),
        "type": "OAuthException",
        "code": number,
        "error_data": {"messaging_product": "whatsapp", "details": message},
        "fbtrace_id": "ASimulatedTrace",
    });
    if *retryable {
        error["is_transient"] = true.into();
    }
    Answer::json(*status, &json!({"error": error}))
}

/// Meta tells the time to wait in whole minutes, in a header with the use of the account. `Retry-After` has the seconds.
pub(super) fn too_many_requests(seconds: Option<u64>) -> Answer {
    let refusal =
        Refusal { status: 429, code: THROUGHPUT.into(), message: "Rate limit hit".into(), retryable: false };
    let usage = json!({BUSINESS_ACCOUNT: [{
        "type": "messages",
        "call_count": 100,
        "total_cputime": 1,
        "total_time": 1,
        "estimated_time_to_regain_access": seconds.unwrap_or_default() / 60,
    }]});
    refused(&refusal).with("x-business-use-case-usage", &usage).with_wait(seconds)
}

pub(super) fn probed(phone_number_id: &str) -> Answer {
    Answer::json(
        200,
        &json!({
            "verified_name": "Simulator",
            "display_phone_number": "+1 555-0199",
            "quality_rating": "GREEN",
            "id": phone_number_id,
        }),
    )
}

pub(super) fn notice(items: &[Item<'_>], plan: &ReceiptPlan) -> Notice {
    let account = items.first().map(|(message, _)| &*message.account).unwrap_or_default();
    let statuses: Vec<Value> = items.iter().map(|item| status(item, plan)).collect();
    let body = json!({"object": "whatsapp_business_account", "entry": [{
        "id": BUSINESS_ACCOUNT,
        "changes": [{"field": "messages", "value": {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550199", "phone_number_id": account},
            "statuses": statuses,
        }}],
    }]})
    .to_string();
    let secret = plan.settings.providers.whats_app_secret.as_ref();
    let sign = |secret: &String| {
        ("x-hub-signature-256", format!("sha256={}", hmac_sha256_hex(secret, body.as_bytes())))
    };
    let headers = secret.map(sign).into_iter().collect();
    Notice { content_type: "application/json", headers, body }
}

fn status((message, receipt): &Item<'_>, plan: &ReceiptPlan) -> Value {
    let mut json = json!({
        "id": &*message.message_id,
        "status": receipt.status,
        "timestamp": receipt.time.as_second().to_string(),
        "recipient_id": message.chat,
    });
    if !message.token.is_empty() && !plan.settings.use_message_id {
        json["biz_opaque_callback_data"] = (*message.token).into();
    }
    if is_group(message) {
        json["recipient_type"] = "group".into();
    }
    if let Some(number) = receipt.participant {
        json[PARTICIPANT[number % PARTICIPANT.len()]] =
            plan.settings.providers.whats_app_participants[number].as_str().into();
    }
    if receipt.status == Status::Failed {
        let code = plan.failed_code(UNDELIVERABLE);
        let title = "Message undeliverable";
        json["errors"] = json!([{
            "code": code.parse::<u32>().unwrap_or_default(),
            "title": title,
            "message": title,
            "error_data": {"details": "The simulator was told that it fails."},
        }]);
    }
    json
}
