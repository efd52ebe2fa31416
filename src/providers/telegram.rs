//! Provider Telegram: the Bot API. Pure.
//!
//! In: messages. Out: requests to a method of the bot, and what their answers mean. The token of the bot is a part of every url, so no
//! url may be shown. Telegram drops no repeats and has no receipts: that it took a message is all that is ever known.

mod answers;
#[cfg(test)]
mod tests;
pub mod webhook;
#[cfg(test)]
mod webhook_tests;

use reqwest::Url;
use serde_json::{Value, json};

use super::SecretValues;
use super::gateway::GatewayError;
use super::wire::{Outgoing, Protocol, WireAnswer, WireRequest, join};
use crate::api::{MediaKind, TelegramChannel, TextFormat};
use crate::domain::answer::{Answer, RefusalKind};
use crate::domain::content::{Content, MediaContent};

/// The protocol of one bot.
pub struct Telegram {
    base_url: String,
    token: String,
    probe: Url,
    disable_notification: bool,
    disable_link_preview: bool,
}

impl Telegram {
    /// The protocol of a channel's bot.
    ///
    /// # Errors
    /// When the url or the token cannot be used.
    pub fn new(channel: &TelegramChannel, secrets: &SecretValues) -> Result<Self, GatewayError> {
        let token = secrets.of(&channel.token_secret_ref);
        // Any other character would change the path of the url, or show up in an error of it.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_-".contains(&byte);
        if token.is_empty() || !token.bytes().all(is_plain) {
            return Err(GatewayError::UnusableToken);
        }
        Ok(Self {
            base_url: channel.base_url.clone(),
            token: token.to_owned(),
            probe: method_url(&channel.base_url, token, "getMe")?,
            disable_notification: channel.disable_notification,
            disable_link_preview: channel.disable_link_preview,
        })
    }
}

impl Protocol for Telegram {
    fn request(&self, message: &Outgoing<'_>) -> Result<WireRequest, Answer> {
        let Content { text, format, template, media } = message.content;
        if template.is_some() {
            return Err(unsendable("Telegram has no templates: use message.text"));
        }
        let mut body = json!({"chat_id": chat_id(message.chat)?});
        let method = match media {
            Some(media) => put_media(&mut body, media, text),
            None if text.is_empty() => return Err(unsendable("the message has no text and no media")),
            None => {
                body["text"] = json!(text);
                if self.disable_link_preview {
                    body["link_preview_options"] = json!({"is_disabled": true});
                }
                "sendMessage"
            }
        };
        if let (Some(mode), false) = (parse_mode(*format), text.is_empty()) {
            body["parse_mode"] = json!(mode);
        }
        if self.disable_notification {
            body["disable_notification"] = json!(true);
        }
        let url = method_url(&self.base_url, &self.token, method)
            .expect("should be valid, as the url of the probe is");
        Ok(WireRequest::json(url, &body))
    }

    fn answer(&self, answer: &WireAnswer<'_>) -> Answer {
        answers::read(answer)
    }

    fn probe(&self) -> Option<WireRequest> {
        Some(WireRequest::get(self.probe.clone()))
    }

    fn probed(&self, answer: &WireAnswer<'_>) -> Answer {
        answers::read_probe(answer)
    }
}

fn method_url(base_url: &str, token: &str, method: &str) -> Result<Url, GatewayError> {
    join(base_url, &format!("bot{token}/{method}"))
}

/// A chat as the API names it: a number of up to 52 bits, below zero for groups and channels, or the `@name` of a public one.
fn chat_id(chat: &str) -> Result<Value, Answer> {
    let digits = chat.strip_prefix('-').unwrap_or(chat);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { chat.parse::<i64>().ok() } else { None };
    match number {
        Some(number) => Ok(json!(number)),
        None if chat.starts_with('@') && chat.len() > 1 => Ok(json!(chat)),
        None => {
            let detail = "not a chat of Telegram, which is a number or the @name of a group or channel";
            Err(Answer::refused(RefusalKind::Permanent, "InvalidChat", detail))
        }
    }
}

/// Puts media in, with its text as the caption. The name of a file is that of its url: Telegram takes no other for what it fetches.
fn put_media(body: &mut Value, media: &MediaContent, caption: &str) -> &'static str {
    let (method, field) = match media.kind {
        MediaKind::Image => ("sendPhoto", "photo"),
        MediaKind::Video => ("sendVideo", "video"),
        MediaKind::Audio => ("sendAudio", "audio"),
        MediaKind::Document => ("sendDocument", "document"),
    };
    body[field] = json!(media.url);
    if !caption.is_empty() {
        body["caption"] = json!(caption);
    }
    method
}

fn parse_mode(format: TextFormat) -> Option<&'static str> {
    match format {
        TextFormat::Plain => None,
        TextFormat::Html => Some("HTML"),
        TextFormat::MarkdownV2 => Some("MarkdownV2"),
    }
}

fn unsendable(detail: &str) -> Answer {
    Answer::refused(RefusalKind::NotSupported, "UnsendableContent", detail)
}
