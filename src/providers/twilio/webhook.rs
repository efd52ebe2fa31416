//! What Twilio posts to the operator: receipts of messages, and recipients who want no more of them. Pure.
//!
//! In: the url and the form of a request. Out: whether it is genuine, and what it tells.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha1::Sha1;

use super::codes;
use crate::domain::outcome::Outcome;
use crate::domain::receipt::{NoticeError, Notices, Preference, Receipt};

/// Parameter of the callback url that holds our token.
pub const TOKEN_PARAMETER: &str = "token";
/// Header with the signature of a request.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";

/// Largest form that is read: those of Twilio have some KB, an incoming message of 1,600 characters included.
pub const MAX_FORM: usize = 64 * 1024;
/// Most fields of a form. Receipts have about 10, incoming messages some dozens.
pub const MAX_FIELDS: usize = 512;

/// Name and value of a field of a form.
pub type Field<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The fields of a form, in their order.
///
/// # Errors
/// When there are more than Twilio sends: nobody has signed them yet.
pub fn params(body: &[u8]) -> Result<Vec<Field<'_>>, NoticeError> {
    let params: Vec<_> = form_urlencoded::parse(body).take(MAX_FIELDS + 1).collect();
    if params.len() > MAX_FIELDS { Err(NoticeError::TooManyFields(MAX_FIELDS)) } else { Ok(params) }
}

/// The token in the query of a callback.
#[must_use]
pub fn token_of(query: &str) -> Option<String> {
    let mut params = form_urlencoded::parse(query.as_bytes());
    params.find(|(name, _)| name == TOKEN_PARAMETER).map(|(_, token)| token.into_owned())
}

/// Whether a form comes from Twilio: its signature is base64 of HMAC-SHA1, with the auth token as key, over the url as Twilio was
/// told it (with its query, without what follows `#`), and each field's name and value, sorted by name; of several values for one
/// name each counts once, in order. Source: the validators of Twilio's own libraries, which also try the url with and without
/// port, because Twilio's servers do not agree on that.
///
/// `urls` are the addresses that the request may have had from outside: behind a proxy that is not what arrives here. An empty
/// auth token is none. Receipts and incoming messages are forms; Twilio's webhooks with JSON are of other products.
#[must_use]
pub fn is_genuine(auth_tokens: &[&str], urls: &[&str], params: &[Field<'_>], signature: &str) -> bool {
    let Ok(code) = STANDARD.decode(signature.trim()) else { return false };
    let mut fields: Vec<&Field<'_>> = params.iter().collect();
    fields.sort_unstable();
    fields.dedup();
    let is_of = |token: &str, url: &str| {
        let mut mac =
            Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("should take a key of any length");
        mac.update(url.as_bytes());
        for (name, value) in &fields {
            mac.update(name.as_bytes());
            mac.update(value.as_bytes());
        }
        mac.verify_slice(&code).is_ok()
    };
    let variants: Vec<String> = urls.iter().copied().flat_map(variants).collect();
    let keys = auth_tokens.iter().filter(|token| !token.is_empty());
    keys.into_iter().any(|token| variants.iter().any(|url| is_of(token, url)))
}

/// A url as it is, without its port, and with the port that its scheme has. It is changed as text: a parser would write other
/// parts of it anew, and the signature is that of every byte.
fn variants(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else { return vec![url.to_owned()] };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let (host, has_port) = match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => (host, true),
        _ => (authority, false),
    };
    let standard = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let other = match has_port {
        true => format!("{scheme}://{host}{path}"),
        false => format!("{scheme}://{host}:{standard}{path}"),
    };
    vec![url.to_owned(), other]
}

/// Reads a form, at `now`. `query_token` is the token in the query of its url: it names the row even when the answer to the
/// message was lost, so it is preferred to Twilio's id.
///
/// The time of a receipt is when it comes: `RawDlrDoneDate` has no time zone.
///
/// # Errors
/// When it is neither a receipt nor an incoming message.
pub fn read(query_token: Option<&str>, params: &[Field<'_>], now: Timestamp) -> Result<Notices, NoticeError> {
    let field = |wanted: &str| {
        let mut values = params.iter().filter(|(name, value)| *name == wanted && !value.is_empty());
        values.next().map(|(_, value)| &**value)
    };
    if let Some(word) = field("OptOutType") {
        let from = field("From").ok_or(NoticeError::Missing("From"))?;
        return Ok(Notices {
            preferences: preference(from, word, now).into_iter().collect(),
            ..Notices::default()
        });
    }
    let status = field("MessageStatus").or_else(|| field("SmsStatus"));
    let status = status.ok_or(NoticeError::Missing("MessageStatus"))?;
    let sid = field("MessageSid").or_else(|| field("SmsSid"));
    let token = query_token.filter(|token| !token.is_empty());
    let id = token.or(sid).ok_or(NoticeError::Missing("MessageSid"))?;
    let told = Told {
        status,
        error: field("ErrorCode").and_then(|code| code.parse().ok()),
        message: field("ErrorMessage").unwrap_or_default(),
        time: None,
    };
    let receipt = match told.receipt(id, now) {
        Ok(receipt) => receipt.map(|receipt| {
            let receipt = receipt.with_chat(chat_of(field("To").unwrap_or_default()));
            match sid {
                Some(sid) => receipt.with_message_id(sid),
                None => receipt,
            }
        }),
        Err(NotReadable) => return Ok(Notices { malformed: 1, ..Notices::default() }),
    };
    Ok(Notices { receipts: receipt.into_iter().collect(), ..Notices::default() })
}

/// What an incoming message says about the wishes of its sender: `OptOutType` is there when Twilio knew it as a keyword.
fn preference(from: &str, word: &str, now: Timestamp) -> Option<Preference> {
    let is_wanted = match word {
        "STOP" => false,
        "START" => true,
        _ => return None,
    };
    Some(Preference::new(chat_of(from), is_wanted, word, None, now))
}

/// The chat of an address of Twilio's.
fn chat_of(address: &str) -> &str {
    let number = address.strip_prefix("whatsapp:").unwrap_or(address);
    number.strip_prefix('+').unwrap_or(number)
}

/// A status that Twilio does not document, or an id that cannot be one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotReadable;

/// What Twilio says of one message, in a receipt or when it is asked.
pub(super) struct Told<'a> {
    /// Its status.
    pub status: &'a str,
    /// Its error.
    pub error: Option<u32>,
    /// What Twilio writes about the error; often empty.
    pub message: &'a str,
    /// When, where that is known.
    pub time: Option<Timestamp>,
}

impl Told<'_> {
    /// A receipt, if the status is one that has become known at last: `None` for a message that is still on its way, or an
    /// incoming one.
    pub(super) fn receipt(&self, id: &str, now: Timestamp) -> Result<Option<Receipt>, NotReadable> {
        let outcome = match self.status {
            "accepted" | "scheduled" | "queued" | "sending" | "receiving" | "received" => return Ok(None),
            // A part of a long text arrived, and a part did not. It is not Delivered, which would hide that, and not Failed, which
            // a restart would send again to somebody who has half of it.
            "sent" | "partially_delivered" => Outcome::Sent,
            "delivered" => Outcome::Delivered,
            "read" => Outcome::Read,
            "failed" | "undelivered" | "canceled" => Outcome::Failed,
            _ => return Err(NotReadable),
        };
        let receipt = Receipt::new(id, outcome, self.time, now).ok_or(NotReadable)?;
        Ok(Some(match outcome {
            Outcome::Failed => self.failed(receipt),
            _ if self.status == "partially_delivered" => {
                receipt.with_error(self.status, "a part of the message was not delivered")
            }
            _ => receipt,
        }))
    }

    fn failed(&self, receipt: Receipt) -> Receipt {
        let known = self.error.and_then(codes::of);
        let meaning = known.map_or("Twilio reported that it failed", |code| code.meaning);
        let detail = if self.message.is_empty() { meaning } else { self.message };
        let code = self.error.map_or_else(|| self.status.to_owned(), |number| number.to_string());
        receipt.with_error(&code, detail).with_kind(known.map(|code| code.kind))
    }
}

#[cfg(test)]
mod tests;
