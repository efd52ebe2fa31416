//! Webhooks of the Cloud API. In: requests of Meta as they came. Out: whether they are genuine, and what they tell. Pure.
//!
//! One request may hold many entries, changes and statuses, of other kinds too: what is not for us is left out, and what cannot be read
//! does not hold up the rest. Nothing is in order, and everything may come twice.

use jiff::Timestamp;
use serde_json::Value;

use super::codes;
use crate::domain::outcome::Outcome;
use crate::domain::receipt::{NoticeError, Notices, Preference, Receipt};
use crate::domain::token::MessageToken;
use crate::providers::secrecy;

/// Header with the signature of a request.
pub const SIGNATURE_HEADER: &str = "x-hub-signature-256";

/// What is before the hexadecimal code in that header.
const SCHEME: &str = "sha256=";
/// Times are seconds, but milliseconds have been seen: as seconds, this is the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// What to answer to the GET with which Meta checks the address of a webhook: its challenge, if it knows the verify token.
#[must_use]
pub fn challenge(query: &[(String, String)], verify_token: &str) -> Option<String> {
    let value = |wanted: &str| query.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let is_genuine = value("hub.mode") == Some("subscribe")
        && secrecy::is_known(verify_token, value("hub.verify_token").unwrap_or_default());
    if is_genuine { value("hub.challenge").map(str::to_owned) } else { None }
}

/// Whether a request is Meta's: its signature is that of the raw body with one of the app secrets. An empty secret signs nothing.
#[must_use]
pub fn is_genuine(app_secrets: &[&str], signature_header: &str, body: &[u8]) -> bool {
    let code = signature_header.strip_prefix(SCHEME).and_then(secrecy::bytes_of_hex);
    code.is_some_and(|code| app_secrets.iter().any(|secret| secrecy::is_signed(secret, body, &code)))
}

/// Reads a genuine request. A receipt is named by the token of its message, or by the message id when it has no token of ours.
///
/// # Errors
/// When it is nothing that Meta sends.
pub fn read(body: &[u8], now: Timestamp) -> Result<Notices, NoticeError> {
    let body: Value = serde_json::from_slice(body).map_err(NoticeError::Json)?;
    let entries = body["entry"].as_array().ok_or(NoticeError::Missing("entry"))?;
    let mut notices = Notices::default();
    for entry in entries {
        for change in items(entry, "changes", &mut notices) {
            let value = &change["value"];
            match change["field"].as_str() {
                Some("messages") => {
                    for status in items(value, "statuses", &mut notices) {
                        read_status(status, number_of(value), now, &mut notices);
                    }
                }
                Some("user_preferences") => {
                    for preference in items(value, "user_preferences", &mut notices) {
                        read_preference(preference, number_of(value), now, &mut notices);
                    }
                }
                Some(_) => {}
                None => notices.malformed += 1,
            }
        }
    }
    Ok(notices)
}

/// The items of a list that may not be there.
fn items<'a>(object: &'a Value, name: &str, notices: &mut Notices) -> &'a [Value] {
    match &object[name] {
        Value::Array(items) => items,
        Value::Null if object.is_object() => &[],
        _ => {
            notices.malformed += 1;
            &[]
        }
    }
}

/// Id of the phone number that a change speaks of: an app has one webhook for all of its numbers.
fn number_of(value: &Value) -> &str {
    value["metadata"]["phone_number_id"].as_str().unwrap_or_default()
}

fn read_status(status: &Value, number: &str, now: Timestamp, notices: &mut Notices) {
    let outcome = match status["status"].as_str() {
        Some("sent") => Outcome::Sent,
        Some("delivered") => Outcome::Delivered,
        // A voice message that was listened to.
        Some("read" | "played") => Outcome::Read,
        Some("failed") => Outcome::Failed,
        // Deleted, or something that Meta has added.
        Some(_) => return,
        None => {
            notices.malformed += 1;
            return;
        }
    };
    let message_id = status["id"].as_str().unwrap_or_default();
    let token = status["biz_opaque_callback_data"].as_str();
    let token = token.filter(|token| token.parse::<MessageToken>().is_ok());
    match Receipt::new(token.unwrap_or(message_id), outcome, time_of(&status["timestamp"]), now) {
        Some(receipt) => {
            let chat = status["recipient_id"].as_str().unwrap_or_default();
            let receipt = receipt.with_message_id(message_id).with_chat(chat);
            let receipt = Receipt { number: number.to_owned(), ..receipt };
            let is_failed = outcome == Outcome::Failed;
            notices.receipts.push(if is_failed {
                with_reason(receipt, &status["errors"][0])
            } else {
                receipt
            });
        }
        None => notices.malformed += 1,
    }
}

fn with_reason(receipt: Receipt, error: &Value) -> Receipt {
    let code = error["code"].as_i64();
    let texts = [&error["error_data"]["details"], &error["message"], &error["title"]];
    let detail = texts.into_iter().filter_map(Value::as_str).find(|text| !text.is_empty());
    let kind = code.and_then(|code| codes::kind_of(code, 0));
    let code = code.map_or_else(|| "Failed".to_owned(), |code| code.to_string());
    receipt.with_error(&code, detail.unwrap_or("the provider reported that it failed")).with_kind(kind)
}

fn read_preference(preference: &Value, number: &str, now: Timestamp, notices: &mut Notices) {
    if preference["category"].as_str().is_some_and(|category| category != "marketing_messages") {
        return;
    }
    match (preference["wa_id"].as_str(), preference["value"].as_str()) {
        (Some(chat), Some(word)) if !chat.is_empty() => {
            let is_wanted = match word {
                "stop" => false,
                "resume" => true,
                _ => return,
            };
            let preference = Preference::new(chat, is_wanted, word, time_of(&preference["timestamp"]), now);
            notices.preferences.push(Preference { number: number.to_owned(), ..preference });
        }
        _ => notices.malformed += 1,
    }
}

/// A time in seconds or milliseconds, as text or as a number.
fn time_of(value: &Value) -> Option<Timestamp> {
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok())?;
    if number < MILLISECONDS_FROM {
        Timestamp::from_second(number)
    } else {
        Timestamp::from_millisecond(number)
    }
    .ok()
}
