//! Webhooks of the Cloud API. In: requests of Meta as they came. Out: whether they are genuine, and what they tell. Pure.
//!
//! One request may hold many entries, changes and statuses, of other kinds too: what is not for us is left out, and what cannot be read
//! does not hold up the rest. Nothing is in order, and everything may come twice.

use jiff::Timestamp;

use super::codes;
use crate::domain::outcome::Outcome;
use crate::domain::receipt::{NoticeError, Notices, Preference, Receipt};
use crate::domain::token::MessageToken;
use crate::providers::json::{Json, Parts};
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
/// When it is nothing that Meta sends, or too much at once.
pub fn read(body: &[u8], now: Timestamp) -> Result<Notices, NoticeError> {
    let [entries] = Json::parse(body).map_err(NoticeError::Json)?.fields(["entry"]);
    let entries = entries.items().ok_or(NoticeError::Missing("entry"))?;
    let mut notices = Notices::default();
    for entry in entries {
        let [changes] = entry.fields(["changes"]);
        for change in items(entry, changes, &mut notices) {
            read_change(change, now, &mut notices)?;
        }
    }
    Ok(notices)
}

fn read_change(change: Json<'_>, now: Timestamp, notices: &mut Notices) -> Result<(), NoticeError> {
    let [field, value] = change.fields(["field", "value"]);
    let Some(field) = field.text() else {
        notices.malformed += 1;
        return Ok(());
    };
    let [metadata, statuses, preferences] = value.fields(["metadata", "statuses", "user_preferences"]);
    // An app has one webhook for all of its numbers.
    let [number] = metadata.fields(["phone_number_id"]);
    let number = number.text().unwrap_or_default();
    match &*field {
        "messages" => {
            for status in items(value, statuses, notices) {
                read_status(status, &number, now, notices)?;
            }
        }
        "user_preferences" => {
            for preference in items(value, preferences, notices) {
                read_preference(preference, &number, now, notices)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The items of a list of an object, which may not be there.
fn items<'a>(object: Json<'a>, list: Json<'a>, notices: &mut Notices) -> Parts<'a> {
    let is_absent = list.is_null() && object.is_object();
    list.items().unwrap_or_else(|| {
        notices.malformed += usize::from(!is_absent);
        Parts::default()
    })
}

/// Reads a status of a message of the phone number with this id.
fn read_status(
    status: Json<'_>,
    number: &str,
    now: Timestamp,
    notices: &mut Notices,
) -> Result<(), NoticeError> {
    let [word, id, token, time, chat, errors] =
        status.fields(["status", "id", "biz_opaque_callback_data", "timestamp", "recipient_id", "errors"]);
    let outcome = match word.text().as_deref() {
        Some("sent") => Outcome::Sent,
        Some("delivered") => Outcome::Delivered,
        // A voice message that was listened to.
        Some("read" | "played") => Outcome::Read,
        Some("failed") => Outcome::Failed,
        // Deleted, or something that Meta has added.
        Some(_) => return Ok(()),
        None => {
            notices.malformed += 1;
            return Ok(());
        }
    };
    let message_id = id.text().unwrap_or_default();
    let token = token.text().filter(|token| token.parse::<MessageToken>().is_ok());
    let id = token.as_ref().unwrap_or(&message_id);
    let Some(receipt) = Receipt::new(id, outcome, time_of(time), now) else {
        notices.malformed += 1;
        return Ok(());
    };
    let (receipt, chat) = (receipt.with_message_id(&message_id), chat.text().unwrap_or_default());
    let receipt = match participant_of(status) {
        Some(participant) => receipt.with_participant(&chat, &participant),
        None => receipt.with_chat(&chat),
    };
    let receipt = Receipt { number: number.to_owned(), ..receipt };
    notices.add_receipt(if outcome == Outcome::Failed {
        let error = errors.items().and_then(|mut errors| errors.next());
        with_reason(receipt, error)
    } else {
        receipt
    })
}

/// Of a group, the participant that a status is about: the number, or the id of one whose number is not told. Meta's pages have the name
/// of the field in two ways.
fn participant_of(status: Json<'_>) -> Option<String> {
    let names = ["recipient_participant_id", "participant_recipient_id", "recipient_participant_user_id"];
    let ids = status.fields(names).into_iter().filter_map(Json::text);
    ids.map(|id| id.trim_start_matches('+').to_owned()).find(|id| !id.is_empty())
}

fn with_reason(receipt: Receipt, error: Option<Json<'_>>) -> Receipt {
    let names = ["code", "error_data", "message", "title"];
    let [code, data, message, title] = error.map(|error| error.fields(names)).unwrap_or_default();
    let [details] = data.fields(["details"]);
    let code = code.integer();
    let detail = [details, message, title].into_iter().filter_map(Json::text).find(|text| !text.is_empty());
    let kind = code.and_then(|code| codes::kind_of(code, 0));
    let code = code.map_or_else(|| "Failed".to_owned(), |code| code.to_string());
    receipt
        .with_error(&code, detail.as_deref().unwrap_or("the provider reported that it failed"))
        .with_kind(kind)
}

fn read_preference(
    preference: Json<'_>,
    number: &str,
    now: Timestamp,
    notices: &mut Notices,
) -> Result<(), NoticeError> {
    let [category, chat, word, time] = preference.fields(["category", "wa_id", "value", "timestamp"]);
    if category.text().is_some_and(|category| category != "marketing_messages") {
        return Ok(());
    }
    let (Some(chat), Some(word)) = (chat.text().filter(|chat| !chat.is_empty()), word.text()) else {
        notices.malformed += 1;
        return Ok(());
    };
    let is_wanted = match &*word {
        "stop" => false,
        "resume" => true,
        _ => return Ok(()),
    };
    let preference = Preference::new(&chat, is_wanted, &word, time_of(time), now);
    notices.add_preference(Preference { number: number.to_owned(), ..preference })
}

/// A time in seconds or milliseconds, as text or as a number.
fn time_of(value: Json<'_>) -> Option<Timestamp> {
    let number = value.integer().or_else(|| value.text()?.parse().ok())?;
    if number < MILLISECONDS_FROM {
        Timestamp::from_second(number)
    } else {
        Timestamp::from_millisecond(number)
    }
    .ok()
}
