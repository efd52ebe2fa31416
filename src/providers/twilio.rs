//! Provider Twilio: one form per message, to its Programmable Messaging API of 2010-04-01, for SMS, MMS and `WhatsApp`. Pure.
//!
//! Twilio has no key by which it would drop a repeated message. Each message tells it where its receipts go, with our token in
//! the query: so the first receipt settles a message whose answer was lost.

mod codes;
#[cfg(test)]
mod tests;
pub mod webhook;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::Timestamp;
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;

use super::SecretValues;
use super::gateway::GatewayError;
use super::wire::{
    ErrorBody, Outgoing, Protocol, WireAnswer, WireRequest, answer_of_status, join, secret_header,
};
use crate::api::{TextFormat, TwilioChannel};
use crate::domain::answer::{Answer, RefusalKind, SenderTrouble};
use crate::domain::content::{Content, TemplateContent};
use crate::domain::ids::ObjectKey;
use crate::domain::receipt::Lookup;
use webhook::Told;

/// Twilio's number for what is not there.
const NOT_FOUND: &str = "20404";

/// What an address of `WhatsApp` begins with.
const WHATSAPP: &str = "whatsapp:";

/// The protocol of one account, with one sender.
pub struct Twilio {
    /// The account; its messages are below it.
    account: Url,
    authorization: HeaderValue,
    sender: Sender,
    validity_seconds: Option<i32>,
    callback: Option<Url>,
}

enum Sender {
    From(String),
    Service(String),
}

/// A message, as Twilio tells of it.
#[derive(Deserialize)]
struct Made {
    #[serde(default)]
    sid: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    error_code: Value,
    #[serde(default)]
    error_message: Option<String>,
    #[serde(default)]
    date_updated: Option<String>,
}

/// The account, as Twilio tells of it.
#[derive(Default, Deserialize)]
struct Account {
    #[serde(default)]
    status: String,
}

impl Twilio {
    /// The protocol of a channel.
    ///
    /// `callback` is where receipts of this channel arrive, as [`callback`] says it. Without it Twilio sends none.
    ///
    /// # Errors
    /// When the base url or the auth token cannot be used, or there is no sender.
    pub fn new(
        channel: &TwilioChannel,
        secrets: &SecretValues,
        callback: Option<Url>,
    ) -> Result<Self, GatewayError> {
        let sid = &channel.account_sid;
        let account = join(&channel.base_url, &format!("2010-04-01/Accounts/{sid}"))?;
        let token = secrets.of(&channel.auth_token_secret_ref);
        // Base64 would hide a line break in it.
        HeaderValue::from_str(token)?;
        let authorization = secret_header(&format!("Basic {}", STANDARD.encode(format!("{sid}:{token}"))))?;
        let sender = match (&channel.from, &channel.messaging_service_sid) {
            (Some(from), _) => Sender::From(from.clone()),
            (None, Some(service)) => Sender::Service(service.clone()),
            (None, None) => return Err(GatewayError::NoSettings("twilio.from")),
        };
        let validity_seconds = channel.validity_period_seconds;
        Ok(Self { account, authorization, sender, validity_seconds, callback })
    }

    fn below(&self, path: &[&str]) -> Url {
        let mut url = self.account.clone();
        // Each part is encoded, so that none of them leads out of the account.
        url.path_segments_mut().expect("should be a url with a host").extend(path);
        url
    }

    fn is_whatsapp(&self) -> bool {
        matches!(&self.sender, Sender::From(from) if from.starts_with(WHATSAPP))
    }

    /// The address of a chat. Twilio has numbers alone.
    fn address(&self, chat: &str) -> Result<String, Answer> {
        if chat.is_empty() || !chat.bytes().all(|byte| byte.is_ascii_digit()) {
            let detail = "Twilio sends to phone numbers alone, and this chat is none";
            return Err(Answer::refused(RefusalKind::Permanent, "UnsupportedChat", detail));
        }
        let network = if self.is_whatsapp() { WHATSAPP } else { "" };
        Ok(format!("{network}+{chat}"))
    }

    fn callback(&self, token: &str) -> Option<Url> {
        let mut url = self.callback.clone()?;
        url.query_pairs_mut().append_pair(webhook::TOKEN_PARAMETER, token);
        Some(url)
    }
}

/// The answer to a message that Twilio made. Receipts do not repeat the status that it has from the start.
fn created(answer: &WireAnswer<'_>) -> Answer {
    let message: Option<Made> = serde_json::from_slice(answer.body).ok();
    match message {
        Some(message) if message.is_failed() && message.error_code.is_null() => {
            Answer::refused(RefusalKind::Permanent, "failed", "Twilio could not send it and did not say why")
        }
        Some(message) if message.is_failed() => {
            refusal(answer, ErrorBody::new(&message.error_code, message.error_message.as_deref()))
        }
        Some(Made { sid, .. }) if !sid.is_empty() => Answer::accepted(sid),
        // It may come from a proxy. If Twilio has the message, its receipts will say so.
        _ => Answer::unknown(answer.status.to_string(), "the answer names no message"),
    }
}

/// The answer of a request that Twilio, or something on the way, did not carry out. Errors of Twilio have a number, with a message,
/// `status` and `more_info`.
fn refused(answer: &WireAnswer<'_>) -> Answer {
    let error = ErrorBody::of(answer.body).filter(|error| error.code.parse::<u32>().is_ok());
    match (answer.status, error) {
        (400..=406 | 409..=499, Some(error)) => refusal(answer, error),
        // A 5xx does not say whether the message was made, not even with an error of Twilio in it.
        (status @ 500..=599, Some(ErrorBody { message, .. })) if !message.is_empty() => {
            let detail = format!("Twilio answered {status}: {message}");
            Answer::unknown(status.to_string(), detail).with_wait(answer.unavailable_for())
        }
        _ => answer_of_status(answer),
    }
}

fn refusal(answer: &WireAnswer<'_>, error: ErrorBody) -> Answer {
    let status = answer.status;
    let number = error.code.parse().ok();
    let known = number.and_then(codes::of);
    let kind = match (status, known) {
        (429, _) => RefusalKind::RateLimited,
        (_, Some(code)) => code.kind,
        (401 | 403, None) => RefusalKind::Sender(SenderTrouble::AuthenticationFailed),
        _ => RefusalKind::Unlisted,
    };
    let meaning =
        || known.map_or_else(|| format!("Twilio answered {status}"), |code| code.meaning.to_owned());
    let detail = if error.message.is_empty() { meaning() } else { error.message };
    let code = number.map_or_else(|| status.to_string(), |number| number.to_string());
    let wait = if kind == RefusalKind::RateLimited { answer.retry_after() } else { None };
    Answer::refused(kind, code, detail).with_wait(wait)
}

impl Protocol for Twilio {
    fn request(&self, message: &Outgoing<'_>) -> Result<WireRequest, Answer> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("To", &self.address(message.chat)?);
        match &self.sender {
            Sender::From(from) => form.append_pair("From", from),
            Sender::Service(sid) => form.append_pair("MessagingServiceSid", sid),
        };
        form.extend_pairs(content(message.content)?);
        if let Some(seconds) = self.validity_seconds {
            form.append_pair("ValidityPeriod", &seconds.to_string());
        }
        if let Some(url) = self.callback(message.token) {
            form.append_pair("StatusCallback", url.as_str());
        }
        let content_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, content_type),
            (header::AUTHORIZATION, self.authorization.clone()),
        ]);
        let body = form.finish().into_bytes();
        Ok(WireRequest { method: Method::POST, url: self.below(&["Messages.json"]), headers, body })
    }

    fn answer(&self, answer: &WireAnswer<'_>) -> Answer {
        match answer.status {
            200..=299 => created(answer),
            _ => refused(answer),
        }
    }

    fn probe(&self) -> Option<WireRequest> {
        let mut url = self.account.clone();
        url.set_path(&format!("{}.json", self.account.path()));
        Some(WireRequest::get(url).with(header::AUTHORIZATION, self.authorization.clone()))
    }

    fn probed(&self, answer: &WireAnswer<'_>) -> Answer {
        if !(200..=299).contains(&answer.status) {
            return refused(answer);
        }
        let Account { status } = serde_json::from_slice(answer.body).unwrap_or_default();
        match status.as_str() {
            "suspended" | "closed" => {
                let kind = RefusalKind::Sender(SenderTrouble::AccountRestricted);
                Answer::refused(kind, "", format!("the account is {status}"))
            }
            _ => Answer::accepted(""),
        }
    }

    fn lookup(&self, sid: &str) -> Option<WireRequest> {
        let url = self.below(&["Messages", &format!("{sid}.json")]);
        Some(WireRequest::get(url).with(header::AUTHORIZATION, self.authorization.clone()))
    }

    fn looked_up(&self, answer: &WireAnswer<'_>) -> Lookup {
        match answer.status {
            200..=299 => read_message(answer.body, answer.now),
            // In Twilio's own words: a 404 of something on the way says nothing of the message.
            404 if is_not_found(answer.body) => Lookup::Gone,
            _ => Lookup::NotTold(refused(answer)),
        }
    }
}

/// Where receipts of the channel `key` arrive, as Twilio reaches it and without a query. `None`: nowhere.
///
/// # Errors
/// When the public url of the channel is none.
pub fn callback(channel: &TwilioChannel, key: &ObjectKey) -> Result<Option<Url>, GatewayError> {
    let ObjectKey { namespace, name } = key;
    let path = format!("v1/namespaces/{namespace}/channels/{name}/receipts");
    channel.public_url.as_ref().map(|public| join(public, &path)).transpose()
}

/// The fields of a form that say what is sent.
fn content(content: &Content) -> Result<Vec<(&'static str, String)>, Answer> {
    let cannot = |detail| Err(Answer::refused(RefusalKind::NotSupported, "UnsupportedContent", detail));
    let Content { text, format, template, media } = content;
    let Some(template) = template else {
        if *format != TextFormat::Plain {
            return cannot("Twilio sends plain texts alone: leave message.format out");
        }
        let text = (!text.is_empty()).then(|| ("Body", text.clone()));
        let media = media.as_ref().map(|media| ("MediaUrl", media.url.clone()));
        return Ok(text.into_iter().chain(media).collect());
    };
    // A content template has its language in itself.
    let TemplateContent { name, language: _, parameters, buttons } = template;
    if media.is_some() {
        return cannot("Twilio takes no media with a template: make its url one of the parameters");
    }
    if !buttons.is_empty() {
        return cannot("a template of Twilio has its buttons' parameters among the others: move them there");
    }
    let mut fields = vec![("ContentSid", name.clone())];
    if !parameters.is_empty() {
        let variables = serde_json::to_string(parameters).expect("should be able to write texts as JSON");
        fields.push(("ContentVariables", variables));
    }
    Ok(fields)
}

/// What became of a message, as Twilio shows it when it is asked.
fn read_message(body: &[u8], now: Timestamp) -> Lookup {
    let unreadable = || Lookup::NotTold(Answer::unknown("Unreadable", "the answer is no message of Twilio"));
    let Ok(message) = serde_json::from_slice::<Made>(body) else { return unreadable() };
    let time = message.date_updated.as_deref().and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
    let told = Told {
        status: message.status.as_deref().unwrap_or_default(),
        error: number(&message.error_code),
        message: message.error_message.as_deref().unwrap_or_default(),
        time: time.map(|time| time.timestamp()),
    };
    match told.receipt(&message.sid, now) {
        Ok(Some(receipt)) => Lookup::News(receipt),
        Ok(None) => Lookup::NoNews,
        Err(_) => unreadable(),
    }
}

fn is_not_found(body: &[u8]) -> bool {
    ErrorBody::of(body).is_some_and(|error| error.code == NOT_FOUND)
}

impl Made {
    fn is_failed(&self) -> bool {
        matches!(self.status.as_deref(), Some("failed" | "undelivered"))
    }
}

/// The number of an error. It may be written as text.
fn number(value: &Value) -> Option<u32> {
    match value {
        Value::Number(number) => u32::try_from(number.as_u64()?).ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}
