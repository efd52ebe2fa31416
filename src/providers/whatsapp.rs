//! Provider `WhatsApp`: the Cloud API of Meta. Pure.
//!
//! In: messages. Out: requests to `/messages` of a phone number, and what their answers mean. The token of a message travels as
//! `biz_opaque_callback_data`, so that its receipts name its row even when the answer was lost. The API drops no repeats.

mod codes;
mod content;
#[cfg(test)]
mod tests;
mod usage;
pub mod webhook;
#[cfg(test)]
mod webhook_tests;

use std::time::Duration;

use http::{HeaderValue, header};
use reqwest::Url;
use serde_json::{Value, json};

use super::SecretValues;
use super::gateway::GatewayError;
use super::wire::{Outgoing, Protocol, WireAnswer, WireRequest, answer_of_status, join, secret_header};
use crate::api::WhatsAppChannel;
use crate::domain::answer::{Answer, Refusal, RefusalKind, SenderTrouble};

/// `message_status` of a message that goes out at once. Others say what holds it back.
const ACCEPTED: &str = "accepted";

/// The protocol of one phone number.
pub struct WhatsApp {
    messages: Url,
    number: Url,
    authorization: HeaderValue,
}

impl WhatsApp {
    /// The protocol of a channel's phone number.
    ///
    /// # Errors
    /// When the url or the token cannot be used.
    pub fn new(channel: &WhatsAppChannel, secrets: &SecretValues) -> Result<Self, GatewayError> {
        let token = secrets.of(&channel.token_secret_ref);
        let number = format!("{}/{}", channel.api_version, channel.phone_number_id);
        Ok(Self {
            messages: join(&channel.base_url, &format!("{number}/messages"))?,
            number: join(&channel.base_url, &format!("{number}?fields=id"))?,
            authorization: secret_header(&format!("Bearer {token}"))?,
        })
    }
}

/// What an answer means that is no success.
fn refusal(answer: &WireAnswer<'_>, body: &Value) -> Answer {
    let error = &body["error"];
    let Some(code) = error["code"].as_i64() else { return answer_of_another(answer) };
    let detail = detail_of(error);
    let known = codes::kind_of(code, error["error_subcode"].as_i64().unwrap_or_default());
    let is_transient = error["is_transient"].as_bool().unwrap_or_default();
    let Some(kind) = known.or_else(|| kind_of_status(answer.status, is_transient)) else {
        return Answer::unknown(code.to_string(), detail).with_wait(answer.unavailable_for());
    };
    let wait = match kind {
        RefusalKind::RateLimited => wait_of(answer, code),
        RefusalKind::Unavailable => answer.unavailable_for(),
        _ => None,
    };
    Answer::refused(kind, code.to_string(), detail).with_wait(wait)
}

impl Protocol for WhatsApp {
    fn request(&self, message: &Outgoing<'_>) -> Result<WireRequest, Answer> {
        let recipient_type = recipient_type(message.chat)?;
        let (kind, content) = content::of(message.content)?;
        let mut body = json!({
            "messaging_product": "whatsapp",
            "recipient_type": recipient_type,
            "to": message.chat,
            "type": kind,
            "biz_opaque_callback_data": message.token,
        });
        body[kind] = content;
        let request = WireRequest::json(self.messages.clone(), &body);
        Ok(request.with(header::AUTHORIZATION, self.authorization.clone()))
    }

    fn answer(&self, answer: &WireAnswer<'_>) -> Answer {
        let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
        let is_error = !body["error"].is_null();
        match answer.status {
            // What answers without Meta's words may be anything, such as a page to log in.
            200..=299 if !is_error && is_taken(&body) => accepted(&body, usage::is_near_limit(answer)),
            500..=599 => match refusal(answer, &body) {
                // That they are not fetched is known before anything is sent, but not by a server that failed: its token settles it.
                Answer::Refused(refusal) if refusal.kind == RefusalKind::MediaNotFetched => {
                    Answer::unknown(refusal.code, refusal.detail).with_wait(answer.unavailable_for())
                }
                other => other,
            },
            _ => refusal(answer, &body),
        }
    }

    fn probe(&self) -> Option<WireRequest> {
        Some(WireRequest::get(self.number.clone()).with(header::AUTHORIZATION, self.authorization.clone()))
    }

    /// A token that may send and not read, which is enough for a channel, is told from one that is not valid.
    fn probed(&self, answer: &WireAnswer<'_>) -> Answer {
        let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
        if (200..=299).contains(&answer.status) && body["id"].is_string() {
            return Answer::accepted("");
        }
        match refusal(answer, &body) {
            Answer::Refused(refusal) if is_about_reading(&refusal) => {
                Answer::unknown(refusal.code, refusal.detail)
            }
            other => other,
        }
    }
}

fn is_taken(body: &Value) -> bool {
    body["messages"].is_array() || body["messaging_product"].is_string()
}

fn accepted(body: &Value, is_near_limit: bool) -> Answer {
    let message = &body["messages"][0];
    let held = message["message_status"].as_str().filter(|status| *status != ACCEPTED);
    Answer::Accepted {
        message_id: message["id"].as_str().unwrap_or_default().to_owned(),
        held: held.unwrap_or_default().to_owned(),
        is_near_limit,
    }
}

/// An answer without an error of Meta in it comes from something on the way.
fn answer_of_another(answer: &WireAnswer<'_>) -> Answer {
    let status = answer.status;
    match status {
        // Something that is not Meta's, and no refusal either.
        200..=299 => Answer::unknown(status.to_string(), "the provider answered with something unreadable"),
        _ => answer_of_status(answer),
    }
}

/// What is to be done about a code that is not known. `None`: that is not known either, as with a failure inside of the API.
fn kind_of_status(status: u16, is_transient: bool) -> Option<RefusalKind> {
    match status {
        429 => Some(RefusalKind::RateLimited),
        401 | 403 => Some(RefusalKind::Sender(SenderTrouble::AuthenticationFailed)),
        ..=499 if is_transient => Some(RefusalKind::Unavailable),
        400..=499 => Some(RefusalKind::Unlisted),
        _ => None,
    }
}

/// What Meta says at most length: its details, or else its message.
fn detail_of(error: &Value) -> &str {
    let texts = [&error["error_data"]["details"], &error["error_user_msg"], &error["message"]];
    texts.into_iter().filter_map(Value::as_str).find(|text| !text.is_empty()).unwrap_or_default()
}

/// How long to wait: what `Retry-After` says, or else the minutes until the account may call again, and never less than the code
/// asks for.
fn wait_of(answer: &WireAnswer<'_>, code: i64) -> Option<Duration> {
    let said = answer.retry_after().or_else(|| usage::wait(answer));
    said.max(codes::shortest_wait(code))
}

/// Whether a refusal of the probe may be about reading alone, which needs another permission than sending.
fn is_about_reading(refusal: &Refusal) -> bool {
    let is_about_all = ["0", "190", "401", "404"].contains(&refusal.code.as_str());
    refusal.kind == RefusalKind::Sender(SenderTrouble::AuthenticationFailed) && !is_about_all
}

/// Whether a chat is a group, by the id that the Groups API gave it: letters and digits, base64.
#[must_use]
pub fn is_group(chat: &str) -> bool {
    let is_of_id = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
    chat.bytes().all(is_of_id) && chat.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// A person, by phone number, or a group, by its id. Ids of phones and of other gateways, `…@c.us` and `…@g.us`, mean nothing to the
/// Cloud API.
fn recipient_type(chat: &str) -> Result<&'static str, Answer> {
    if !chat.is_empty() && chat.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok("individual")
    } else if is_group(chat) {
        Ok("group")
    } else {
        let detail = "not a phone number, nor an id of a group of the Cloud API, which has no @";
        Err(Answer::refused(RefusalKind::Permanent, "InvalidChat", detail))
    }
}
