//! Provider HTTP: one JSON request per message, as `docs/http-channel.md` describes it, or as listmonk's messengers take it. Pure.

mod postback;
#[cfg(test)]
mod tests;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::SecretValues;
use super::gateway::GatewayError;
use super::wire::{
    self, BroadcastName, Outgoing, Protocol, WireAnswer, WireRequest, Word, answer_of_status, secret_header,
};
use crate::api::{HttpChannel, HttpFormat};
use crate::domain::answer::{Answer, RefusalKind, SenderTrouble};
use crate::domain::content::{Content, MediaContent, TemplateContent};
use crate::webhooks::{self, Secret};

/// The protocol of one gateway.
pub struct Http {
    url: Url,
    headers: HeaderMap,
    format: HttpFormat,
    signing: Vec<Secret>,
}

/// One message.
#[derive(Serialize)]
struct Message<'a> {
    /// Token of the message, the same as in `Idempotency-Key`.
    id: &'a str,
    to: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<Template<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media: Option<Media<'a>>,
    broadcast: BroadcastName<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Template<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    language: &'a str,
    parameters: &'a std::collections::BTreeMap<String, String>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    button_parameters: &'a std::collections::BTreeMap<u8, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Media<'a> {
    kind: crate::api::MediaKind,
    url: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file_name: &'a str,
}

/// Body of a gateway's answer, as far as it concerns us. Everything in it is optional, and `null` is the same as absent.
#[derive(Debug, Default, Deserialize)]
struct Body {
    #[serde(default)]
    id: Option<Word>,
    #[serde(default)]
    error: Option<ErrorBody>,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: Option<Word>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    retryable: Option<bool>,
}

impl ErrorBody {
    /// What it says, if it says anything.
    fn said(&self) -> Option<&str> {
        self.message.as_deref().filter(|message| !message.is_empty())
    }
}

impl Http {
    /// The protocol of a channel's gateway.
    ///
    /// # Errors
    /// When the url, a header or a secret cannot be used.
    pub fn new(channel: &HttpChannel, secrets: &SecretValues) -> Result<Self, GatewayError> {
        let url = channel.url.parse().map_err(|error| GatewayError::InvalidUrl(format!("{error}")))?;
        let mut headers = HeaderMap::new();
        for wanted in &channel.headers {
            let name = HeaderName::try_from(wanted.name.as_str())
                .map_err(|_| GatewayError::InvalidHeader(wanted.name.clone()))?;
            let value = match &wanted.secret_ref {
                Some(reference) => secret_header(secrets.of(reference))?,
                None => HeaderValue::from_str(wanted.value.as_deref().unwrap_or_default())?,
            };
            headers.insert(name, value);
        }
        if let Some(reference) = &channel.token_secret_ref {
            let value = secret_header(&format!("Bearer {}", secrets.of(reference)))?;
            headers.insert(header::AUTHORIZATION, value);
        }
        let signing = match &channel.request_signing_secret_ref {
            Some(reference) => Secret::parse_all(secrets.of(reference))?,
            None => Vec::new(),
        };
        Ok(Self { url, headers, format: channel.format, signing })
    }

    fn sign(&self, mut request: WireRequest, message: &Outgoing<'_>) -> WireRequest {
        let text = |text: &str| HeaderValue::from_str(text).expect("should be plain ASCII");
        request.headers.extend(self.headers.clone());
        request.headers.insert("idempotency-key", text(message.token));
        if !self.signing.is_empty() {
            let signature = webhooks::sign(&self.signing, message.token, message.now, &request.body);
            let time = message.now.as_second().to_string();
            request.headers.insert(webhooks::ID_HEADER, text(message.token));
            request.headers.insert(webhooks::TIMESTAMP_HEADER, text(&time));
            request.headers.insert(webhooks::SIGNATURE_HEADER, text(&signature));
        }
        request
    }
}

impl Protocol for Http {
    fn request(&self, message: &Outgoing<'_>) -> Result<WireRequest, Answer> {
        let request = match self.format {
            HttpFormat::Native => WireRequest::json(self.url.clone(), &native(message)),
            HttpFormat::Postback => postback::request(self.url.clone(), message)?,
        };
        Ok(self.sign(request, message))
    }

    fn answer(&self, answer: &WireAnswer<'_>) -> Answer {
        match self.format {
            HttpFormat::Native => read(answer),
            HttpFormat::Postback => postback::read(answer),
        }
    }

    fn probe(&self) -> Option<WireRequest> {
        None
    }

    fn probed(&self, _: &WireAnswer<'_>) -> Answer {
        Answer::accepted("")
    }
}

fn native<'a>(message: &Outgoing<'a>) -> Message<'a> {
    let Content { text, format: _, template, media } = message.content;
    let template = template.as_ref().map(|template| {
        let TemplateContent { name, language, parameters, buttons } = template;
        Template { name, language, parameters, button_parameters: buttons }
    });
    let media = media.as_ref().map(|media| {
        let MediaContent { kind, url, file_name } = media;
        Media { kind: *kind, url, file_name }
    });
    Message { id: message.token, to: message.chat, text, template, media, broadcast: message.broadcast }
}

fn read(answer: &WireAnswer<'_>) -> Answer {
    let status = answer.status;
    let parsed: Option<Body> = serde_json::from_slice(answer.body).ok();
    let said_error = parsed.as_ref().is_some_and(|body| body.error.is_some());
    let body = parsed.unwrap_or_default();
    match status {
        200..=299 => Answer::accepted(body.id.map(Word::into_text).unwrap_or_default()),
        401 | 403 => Answer::refused(
            RefusalKind::Sender(SenderTrouble::AuthenticationFailed),
            status.to_string(),
            error_text(status, body.error.as_ref()),
        ),
        // By RFC 9110, 502 and 504 are those of something on the way, which had passed the request on: also in words like the gateway's.
        300..=399 | 407 | 408 | 429 | 502 | 504 => answer_of_status(answer),
        // A 5xx comes from anything on the way. Only with the gateway's own error body is it a definite no.
        400..=599 if said_error => refused(status, body.error.unwrap_or_default()),
        400..=499 if !is_of_another(answer) => refused(status, ErrorBody::default()),
        _ => answer_of_status(answer),
    }
}

/// Whether an answer without an error of the gateway is not the gateway's. A gateway may refuse a recipient with any status and any
/// body, so it is only where the body is a proxy's, or the status says nothing that could be about a recipient.
fn is_of_another(answer: &WireAnswer<'_>) -> bool {
    let is_about_the_request = matches!(answer.status, 405 | 411 | 414 | 421 | 426 | 431);
    wire::is_of_another(answer.status) && (is_about_the_request || answer.is_of_proxy())
}

fn refused(status: u16, error: ErrorBody) -> Answer {
    let detail = error.said().map_or_else(|| format!("the gateway answered {status}"), str::to_owned);
    let is_retryable = error.retryable.unwrap_or_default();
    let kind = if is_retryable { RefusalKind::Retryable } else { RefusalKind::Permanent };
    let code = error.code.map_or_else(|| status.to_string(), Word::into_text);
    Answer::refused(kind, code, detail)
}

fn error_text(status: u16, error: Option<&ErrorBody>) -> String {
    match error.and_then(ErrorBody::said) {
        Some(said) => format!("the gateway answered {status}: {said}"),
        None => format!("the gateway answered {status}"),
    }
}
