//! listmonk's "postback" messenger: the JSON that it sends to its messengers, so that a bridge made for it works unchanged. Read in its
//! source, `internal/messenger/postback`.

use std::collections::BTreeMap;

use http::HeaderValue;
use reqwest::Url;
use serde::Serialize;

use super::{error_text, is_of_another};
use crate::domain::answer::{Answer, RefusalKind};
use crate::providers::wire::{Outgoing, WireAnswer, WireRequest, answer_of_status};

/// One message.
#[derive(Serialize)]
struct Postback<'a> {
    subject: &'a str,
    from_email: &'a str,
    content_type: &'a str,
    body: &'a str,
    recipients: [Recipient<'a>; 1],
    campaign: Campaign<'a>,
    attachments: [(); 0],
}

#[derive(Serialize)]
struct Recipient<'a> {
    /// The token of the message, where listmonk has the UUID of a subscriber: a bridge can know a repeat by it.
    uuid: &'a str,
    email: &'a str,
    name: &'a str,
    attribs: BTreeMap<&'a str, &'a str>,
    status: &'a str,
}

#[derive(Serialize)]
struct Campaign<'a> {
    uuid: &'a str,
    name: &'a str,
    from_email: &'a str,
    headers: [(); 0],
    tags: [(); 0],
}

pub(super) fn request(url: Url, message: &Outgoing<'_>) -> Result<WireRequest, Answer> {
    if message.content.template.is_some() || message.content.media.is_some() {
        let detail = "a bridge made for listmonk takes texts alone: no template and no media";
        return Err(Answer::refused(RefusalKind::NotSupported, "UnsupportedContent", detail));
    }
    let param = |name: &str| message.params.get(name).map_or("", String::as_str);
    let mut attribs: BTreeMap<&str, &str> =
        message.params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // Bridges look for the address under one of these.
    for name in ["phone", "chat"] {
        attribs.entry(name).or_insert(message.chat);
    }
    // The token begins with the UID of the Broadcast.
    let uid = message.token.split('.').next().unwrap_or_default();
    let recipient = Recipient {
        uuid: message.token,
        email: param("email"),
        name: param("name"),
        attribs,
        status: "enabled",
    };
    let campaign =
        Campaign { uuid: uid, name: message.broadcast.name, from_email: "", headers: [], tags: [] };
    let body = Postback {
        subject: message.broadcast.name,
        from_email: "",
        content_type: "plain",
        body: &message.content.text,
        recipients: [recipient],
        campaign,
        attachments: [],
    };
    let request = WireRequest::json(url, &body);
    Ok(request.with(http::header::USER_AGENT, HeaderValue::from_static("listmonk")))
}

/// 200 is the only success; a bridge has no body that would say more.
pub(super) fn read(answer: &WireAnswer<'_>) -> Answer {
    match answer.status {
        200 => Answer::accepted(""),
        // For listmonk these are errors; what they say is that the message was taken.
        201..=299 => {
            Answer::unknown(answer.status.to_string(), "the bridge answered neither 200 nor an error")
        }
        status @ (400 | 402 | 404..=406 | 409..=428 | 430..=499) if !is_of_another(answer) => {
            Answer::refused(RefusalKind::Permanent, status.to_string(), error_text(status, None))
        }
        _ => answer_of_status(answer),
    }
}
