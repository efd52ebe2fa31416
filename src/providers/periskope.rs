//! Provider Periskope: one JSON request per message, to a phone with `WhatsApp` that is connected to Periskope. Pure.
//!
//! Periskope puts messages into a queue of its own and sends them one by one: a message that it took is not recalled. It has no key
//! by which it would drop a repeated message, and gives no token of ours back: receipts are found by its id of the message.
//!
//! Sources: the reference at docs.periskope.app and the types of its TypeScript client, version 1.1.3. Nothing here was tried with
//! the service itself.

#[cfg(test)]
mod tests;
pub mod webhook;

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, header};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::SecretValues;
use super::gateway::GatewayError;
use super::wire::{
    ErrorBody, Outgoing, Protocol, WireAnswer, WireRequest, answer_of_status, join, secret_header,
};
use crate::api::{MediaKind, PeriskopeChannel, TextFormat};
use crate::domain::answer::{Answer, RefusalKind, SenderTrouble};
use crate::domain::content::{Content, MediaContent};

/// Header that names the phone that sends.
const PHONE: HeaderName = HeaderName::from_static("x-phone");

/// Code of a chat that Periskope does not know.
const UNKNOWN_CHAT: &str = "NOT_FOUND_ERROR";

/// The protocol of one phone.
pub struct Periskope {
    send: Url,
    health: Url,
    authorization: HeaderValue,
    phone: HeaderValue,
}

#[derive(Serialize)]
struct Outbound<'a> {
    chat_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    media: Option<Media<'a>>,
}

/// Its client says that name and type of a file are needed, its reference says so for documents alone: they are always sent.
#[derive(Serialize)]
struct Media<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    url: &'a str,
    filename: &'a str,
    mimetype: &'static str,
}

/// The answer to a message that was taken.
#[derive(Default, Deserialize)]
struct Queued {
    /// Id of the message, which receipts name as well.
    #[serde(default)]
    unique_id: Option<String>,
    /// Id of the job in the queue.
    #[serde(default)]
    queue_id: Option<String>,
}

impl Periskope {
    /// The protocol of a channel.
    ///
    /// # Errors
    /// When the base url or the API key cannot be used.
    pub fn new(channel: &PeriskopeChannel, secrets: &SecretValues) -> Result<Self, GatewayError> {
        let token = secrets.of(&channel.token_secret_ref);
        Ok(Self {
            send: join(&channel.base_url, "message/send")?,
            health: join(&channel.base_url, "message/queues/health")?,
            authorization: secret_header(&format!("Bearer {token}"))?,
            phone: HeaderValue::from_str(&channel.phone)?,
        })
    }

    fn sign(&self, request: WireRequest) -> WireRequest {
        request.with(header::AUTHORIZATION, self.authorization.clone()).with(PHONE, self.phone.clone())
    }
}

/// An answer that is no success. Of a 5xx nothing says whether the message was put into the queue before. Errors are
/// `{"code": "NOT_FOUND_ERROR", "message": "…", "status": 404}`; what has nothing of that is not Periskope's. Gateways have
/// `{"message": "Not Found"}` for a path that leads nowhere, so of a 404 only that code is about the chat.
fn refused(answer: &WireAnswer<'_>) -> Answer {
    let status = answer.status;
    let Some(ErrorBody { code, message }) = ErrorBody::of(answer.body) else {
        return answer_of_status(answer);
    };
    let kind = match status {
        401 | 403 => RefusalKind::Sender(SenderTrouble::AuthenticationFailed),
        402 => RefusalKind::Sender(SenderTrouble::PaymentRequired),
        429 => RefusalKind::RateLimited,
        404 if code == UNKNOWN_CHAT => RefusalKind::Permanent,
        404 => return answer_of_status(answer),
        // Its codes are listed nowhere.
        400..=406 | 409..=499 => RefusalKind::Unlisted,
        _ => return answer_of_status(answer),
    };
    let code = if code.is_empty() { status.to_string() } else { code };
    let detail = if message.is_empty() { format!("Periskope answered {status}") } else { message };
    let wait = if kind == RefusalKind::RateLimited { answer.retry_after() } else { None };
    Answer::refused(kind, code, detail).with_wait(wait)
}

impl Protocol for Periskope {
    fn request(&self, message: &Outgoing<'_>) -> Result<WireRequest, Answer> {
        let cannot = |detail| Err(Answer::refused(RefusalKind::NotSupported, "UnsupportedContent", detail));
        let Content { text, format, template, media } = message.content;
        if template.is_some() {
            return cannot("Periskope has no templates: give message.text");
        }
        if *format != TextFormat::Plain {
            return cannot("Periskope knows no markup but WhatsApp's own: leave message.format out");
        }
        let chat_id = chat_id(message.chat)?;
        let body = Outbound { chat_id, message: text, media: media.as_ref().map(wire_media) };
        Ok(self.sign(WireRequest::json(self.send.clone(), &body)))
    }

    fn answer(&self, answer: &WireAnswer<'_>) -> Answer {
        if !(200..=299).contains(&answer.status) {
            return refused(answer);
        }
        let Queued { unique_id, queue_id } = serde_json::from_slice(answer.body).unwrap_or_default();
        let mut ids = unique_id.into_iter().chain(queue_id).filter(|id| !id.is_empty());
        match ids.next() {
            Some(id) => Answer::accepted(id),
            None => Answer::unknown(answer.status.to_string(), "the answer names no message"),
        }
    }

    /// Asks how many messages are in the queue. (`GET /queue` is deprecated.)
    fn probe(&self) -> Option<WireRequest> {
        Some(self.sign(WireRequest::get(self.health.clone())))
    }

    fn probed(&self, answer: &WireAnswer<'_>) -> Answer {
        match answer.status {
            200..=299 => Answer::accepted(""),
            _ => refused(answer),
        }
    }
}

/// The id of a chat: numbers are people; what has an `@` is an id already, such as that of a group.
fn chat_id(chat: &str) -> Result<Cow<'_, str>, Answer> {
    if !chat.is_empty() && chat.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Cow::Owned(format!("{chat}@c.us")));
    }
    if chat.contains('@') {
        return Ok(Cow::Borrowed(chat));
    }
    let detail = "Periskope sends to phone numbers and to ids such as 1203630@g.us, and this chat is neither";
    Err(Answer::refused(RefusalKind::Permanent, "UnsupportedChat", detail))
}

fn wire_media(media: &MediaContent) -> Media<'_> {
    let MediaContent { kind, url, file_name } = media;
    let kind_name = match kind {
        MediaKind::Image => "image",
        MediaKind::Video => "video",
        MediaKind::Audio => "audio",
        MediaKind::Document => "document",
    };
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let last = path.split_once('/').and_then(|(_, path)| path.rsplit('/').next()).unwrap_or_default();
    let names = [file_name.as_str(), last, kind_name];
    let filename = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    let mimetype = type_by_name(filename).or_else(|| type_by_name(last)).unwrap_or(match kind {
        MediaKind::Image => "image/jpeg",
        MediaKind::Video => "video/mp4",
        MediaKind::Audio => "audio/mpeg",
        MediaKind::Document => "application/octet-stream",
    });
    Media { kind: kind_name, url, filename, mimetype }
}

/// The media type of the files that `WhatsApp` shows, by the end of their names.
fn type_by_name(name: &str) -> Option<&'static str> {
    let (_, end) = name.rsplit_once('.')?;
    Some(match end.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "mp4" => "video/mp4",
        "3gp" => "video/3gpp",
        "mp3" => "audio/mpeg",
        "m4a" => "audio/mp4",
        "aac" => "audio/aac",
        "amr" => "audio/amr",
        "ogg" | "opus" => "audio/ogg",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        "csv" => "text/csv",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xls" => "application/vnd.ms-excel",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "ppt" => "application/vnd.ms-powerpoint",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "zip" => "application/zip",
        _ => return None,
    })
}
