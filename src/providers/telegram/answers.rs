//! What the Bot API answers. It has codes of HTTP alone, so most refusals can be told apart by their texts only, which its source shows:
//! `Client.cpp` of the Bot API server. Pure.

use std::time::Duration;

use serde_json::Value;

use crate::domain::answer::{Answer, RefusalKind, SenderTrouble};
use crate::providers::wire::{WireAnswer, answer_of_status};

/// Code of a message to a group that has another id now.
const MIGRATED: &str = "migrated";

/// In a 403: the person or the group does not have the bot, or is no more. When they have it again, its webhook tells.
const GONE: [&str; 6] = [
    "blocked by the user",
    "user is deactivated",
    "bot was kicked",
    "bot is not a member",
    "chat was deleted",
    "bot can't initiate conversation",
];

/// About the chat: it is not found, closed, another one, or the bot has no right to write there.
const OF_CHAT: [&str; 12] = [
    "chat not found",
    "user not found",
    "upgraded to a supergroup",
    "chat_id is empty",
    "peer_id_invalid",
    "not enough rights",
    "have no rights",
    "need administrator rights",
    "_forbidden",
    "chat_restricted",
    "topic_",
    "bots can't send messages to bots",
];

/// In a 400: about the text, which no chat can get.
const UNSENDABLE: [&str; 7] = [
    "can't parse",
    "unsupported parse_mode",
    "is too long",
    "_too_long",
    "text is empty",
    "must be non-empty",
    "entity_",
];

/// In a 400: about the media, which nobody can get who has the same link.
const UNFETCHABLE: [&str; 9] = [
    "http url specified",
    "wrong remote file identifier",
    "failed to get http url content",
    "wrong type of the web page content",
    "can't upload file by url",
    "file is too big",
    "photo_invalid_dimensions",
    "image_process_failed",
    "media_empty",
];

/// In a 400: the bot was logged out of this server.
const LOGGED_OUT: &str = "logged out";

/// What the API said to a message. The id of a message is `<chat>/<message>`, for Telegram counts them by chat.
pub fn read(answer: &WireAnswer<'_>) -> Answer {
    let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
    match (answer.status, body["ok"].as_bool()) {
        (200..=299, Some(true)) => Answer::accepted(message_id(&body["result"])),
        _ => refusal(answer, &body),
    }
}

/// What the API said to `getMe`.
pub fn read_probe(answer: &WireAnswer<'_>) -> Answer {
    let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
    match (answer.status, body["ok"].as_bool()) {
        (200..=299, Some(true)) => Answer::accepted(""),
        _ => refusal(answer, &body),
    }
}

fn message_id(message: &Value) -> String {
    let chat = message["chat"]["id"].as_i64();
    match (chat, message["message_id"].as_i64()) {
        (Some(chat), Some(id)) => format!("{chat}/{id}"),
        // Alone it would be the id of a message in every chat.
        _ => String::new(),
    }
}

fn refusal(answer: &WireAnswer<'_>, body: &Value) -> Answer {
    if body["ok"].as_bool() != Some(false) {
        // Not the API's, but of something on the way.
        return answer_of_status(answer);
    }
    let code = body["error_code"].as_u64().unwrap_or_else(|| answer.status.into());
    let detail = body["description"].as_str().unwrap_or_default();
    let parameters = &body["parameters"];
    let said = detail.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| said.contains(phrase));
    let kind = match code {
        429 => {
            let wait = parameters["retry_after"].as_u64().map(Duration::from_secs);
            let wait = wait.or_else(|| answer.retry_after());
            return Answer::refused(RefusalKind::RateLimited, "429", detail).with_wait(wait);
        }
        // No token, or no method: the paths are ours, so it is the token.
        401 | 404 => RefusalKind::Sender(SenderTrouble::AuthenticationFailed),
        400 if said.contains(LOGGED_OUT) => RefusalKind::Sender(SenderTrouble::AuthenticationFailed),
        // The bot is in use elsewhere in a way that excludes this one. The token is good, so the probe would not see it as bad.
        409 => RefusalKind::Sender(SenderTrouble::AccountRestricted),
        403 if says(&GONE) => RefusalKind::OptedOut,
        400 if parameters["migrate_to_chat_id"].is_i64() => {
            return migrated(&parameters["migrate_to_chat_id"]);
        }
        400 if says(&UNSENDABLE) => RefusalKind::Content,
        400 if says(&UNFETCHABLE) => RefusalKind::Media,
        413 => RefusalKind::Media,
        400..=499 if says(&OF_CHAT) => RefusalKind::Permanent,
        400..=499 => RefusalKind::Unlisted,
        // "Request aborted" and the like: it may have got through.
        _ => return Answer::unknown(code.to_string(), detail).with_wait(answer.unavailable_for()),
    };
    Answer::refused(kind, code.to_string(), detail)
}

fn migrated(chat: &Value) -> Answer {
    let detail = format!("the group is a supergroup now, with the id {chat}: put that into the audience");
    Answer::refused(RefusalKind::Permanent, MIGRATED, detail)
}
