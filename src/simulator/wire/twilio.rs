//! Twilio: `POST /2010-04-01/Accounts/{sid}/Messages.json` with a form, and status callbacks to where the message says. Pure.
//!
//! Source: Twilio's reference of the Messages resource, of error codes, of status callbacks, and of the security of requests.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::Url;
use serde_json::{Map, Value, json};

use super::form::{self, Fields, field};
use super::signature::hmac_sha1_base64;
use super::{Answer, Call, Incoming, Item, Notice, uid_of};
use crate::simulator::desk::{AcceptedMessage, Message, Request};
use crate::simulator::faults::Refusal;
use crate::simulator::receipts::{ReceiptPlan, Status};

/// Most characters of a body.
const MAX_BODY: usize = 1600;
/// The number is none.
const INVALID_NUMBER: &str = "21211";
/// The sender is of another network than the recipient.
const OTHER_NETWORK: &str = "21910";
/// Error code of a message that fails on its way: the number is unknown, or no longer in service.
const UNKNOWN_DESTINATION: &str = "30005";

pub(super) fn read(call: &Call, incoming: &Incoming<'_>) -> Request {
    let fields = incoming.body.clone().map(|body| form::decode(&String::from_utf8_lossy(body)));
    let (message, refusal) = match &fields {
        Ok(fields) => (message(fields), check(fields).err()),
        Err(error) => (Message::default(), Some(refusal("20001", error))),
    };
    Request {
        format: call.format,
        account: call.account.clone(),
        path: incoming.path.to_owned(),
        credential: password(&call.account, incoming),
        message,
        refusal,
    }
}

/// The password of Basic authentication, if its user is the account.
pub(super) fn password(account: &str, incoming: &Incoming<'_>) -> Option<String> {
    let encoded = incoming.header("authorization")?.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    (user == account).then(|| password.to_owned())
}

fn message(fields: &Fields) -> Message {
    let callback = field(fields, "StatusCallback");
    let token = callback.parse::<Url>().ok().and_then(|url| {
        url.query_pairs().find(|(name, _)| name == "token").map(|(_, token)| token.into_owned())
    });
    let token = token.unwrap_or_default();
    let service = field(fields, "MessagingServiceSid");
    Message {
        broadcast: uid_of(&token).to_owned(),
        token,
        chat: digits(field(fields, "To")).to_owned(),
        to: field(fields, "To").to_owned(),
        from: if service.is_empty() { field(fields, "From") } else { service }.to_owned(),
        text: field(fields, "Body").to_owned(),
        template: template(fields),
        media: field(fields, "MediaUrl").to_owned(),
        callback: callback.to_owned(),
    }
}

/// `whatsapp:+15550100` and `+15550100` are the chat `15550100`.
fn digits(to: &str) -> &str {
    to.rsplit_once(':').map_or(to, |(_, number)| number).trim_start_matches('+')
}

/// Whether an address is one of `WhatsApp`, and not a number in the telephone network.
fn is_by_whatsapp(address: &str) -> bool {
    address.starts_with("whatsapp:")
}

fn template(fields: &Fields) -> String {
    let sid = field(fields, "ContentSid");
    if sid.is_empty() {
        return String::new();
    }
    let variables: Value = serde_json::from_str(field(fields, "ContentVariables")).unwrap_or_default();
    json!({"contentSid": sid, "contentVariables": variables}).to_string()
}

fn check(fields: &Fields) -> Result<(), Refusal> {
    let [to, body] = ["To", "Body"].map(|name| field(fields, name));
    let is_absent = |name: &&str| field(fields, name).is_empty();
    if to.is_empty() {
        return Err(refusal("21604", "A 'To' phone number is required."));
    }
    if ["From", "MessagingServiceSid"].iter().all(&is_absent) {
        return Err(refusal("21603", "A 'From' phone number is required."));
    }
    if ["Body", "MediaUrl", "ContentSid"].iter().all(is_absent) {
        return Err(refusal("21619", "A text message body or media urls must be specified."));
    }
    if body.chars().count() > MAX_BODY {
        return Err(refusal("21617", "The concatenated message body exceeds the 1600 character limit."));
    }
    let number = to.rsplit_once(':').map_or(to, |(_, number)| number);
    let is_number = number.strip_prefix('+').is_some_and(|digits| {
        (5..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    if !is_number {
        return Err(refusal(INVALID_NUMBER, &format!("The 'To' number {to} is not a valid phone number.")));
    }
    let from = field(fields, "From");
    if !from.is_empty() && is_by_whatsapp(from) != is_by_whatsapp(to) {
        let message = "Invalid From and To pair. From and To should be of the same channel";
        return Err(refusal(OTHER_NETWORK, message));
    }
    let callback = field(fields, "StatusCallback");
    let is_url = callback.parse::<Url>().is_ok_and(|url| url.scheme().starts_with("http"));
    if !callback.is_empty() && !is_url {
        return Err(refusal("21609", "The 'StatusCallback' URL is not a valid URL."));
    }
    let variables = field(fields, "ContentVariables");
    if !variables.is_empty() && serde_json::from_str::<Map<String, Value>>(variables).is_err() {
        return Err(refusal("21656", "The ContentVariables Parameter is invalid."));
    }
    Ok(())
}

fn refusal(code: &str, message: &str) -> Refusal {
    Refusal { status: 400, code: code.into(), message: message.into(), retryable: false }
}

/// Codes are numbers. Those from 20400 to 20599 are an HTTP status, and 20003 is 401, unless the rule says another one.
pub(super) fn fit(refusal: Refusal) -> Refusal {
    let code: u16 = refusal.code.parse().unwrap_or_default();
    let own = match code {
        0 => return Refusal { code: INVALID_NUMBER.into(), ..refusal },
        20003 => 401,
        20400..=20599 => code - 20000,
        _ => 400,
    };
    let status = if refusal.status == Refusal::default().status { own } else { refusal.status };
    Refusal { status, ..refusal }
}

pub(super) fn accepted(message: &AcceptedMessage) -> Answer {
    let status = if message.from.starts_with("MG") { "accepted" } else { "queued" };
    Answer::json(201, &resource(message, status, None))
}

/// A message as the API shows it.
fn resource(message: &AcceptedMessage, status: &str, error: Option<&str>) -> Value {
    let is_service = message.from.starts_with("MG");
    let sender = |wanted: bool| if wanted { Value::from(&*message.from) } else { Value::Null };
    let date = message.time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
    let code = error.and_then(|code| code.parse::<u32>().ok());
    json!({
        "sid": &*message.message_id,
        "account_sid": &*message.account,
        "messaging_service_sid": sender(is_service),
        "from": sender(!is_service),
        "to": message.to,
        "body": &*message.text,
        "status": status,
        "direction": "outbound-api",
        "num_segments": "1",
        "num_media": if message.media.is_empty() { "0" } else { "1" },
        "price": null,
        "price_unit": "USD",
        "error_code": code,
        "error_message": null,
        "date_created": date,
        "date_updated": date,
        "date_sent": null,
        "api_version": "2010-04-01",
        "uri": format!("/2010-04-01/Accounts/{}/Messages/{}.json", &*message.account, &*message.message_id),
    })
}

/// What became of an accepted message by now, whether or not its callbacks were brought.
pub(in crate::simulator) fn status(
    message: Option<&AcceptedMessage>,
    plan: Option<&ReceiptPlan>,
    now: Timestamp,
) -> Answer {
    let Some(message) = message else {
        return refused(&Refusal {
            status: 404,
            code: "20404".into(),
            message: "The requested resource was not found".into(),
            retryable: false,
        });
    };
    let reached = plan.map_or(Some(Status::Sent), |plan| plan.reached(message, now));
    let status = reached.map_or("queued", word);
    let code = plan.map(|plan| plan.failed_code(UNKNOWN_DESTINATION));
    Answer::json(200, &resource(message, status, code.filter(|_| reached == Some(Status::Failed))))
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Sent => "sent",
        Status::Delivered => "delivered",
        Status::Read => "read",
        Status::Failed => "undelivered",
    }
}

pub(super) fn refused(Refusal { status, code, message, .. }: &Refusal) -> Answer {
    let number: u32 = code.parse().unwrap_or_default();
    let more = format!("https://www.twilio.com/docs/errors/{number}");
    Answer::json(*status, &json!({"code": number, "message": message, "more_info": more, "status": status}))
}

pub(super) fn too_many_requests(seconds: Option<u64>) -> Answer {
    let message = "Too Many Requests".into();
    refused(&Refusal { status: 429, code: "20429".into(), message, retryable: false }).with_wait(seconds)
}

/// The API says 500 and 503 itself. Other ones are of something before it.
pub(super) fn broken(status: u16) -> Answer {
    let message = match status {
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => return Answer::plain(status, "upstream error\n"),
    };
    let code = format!("20{status}");
    refused(&Refusal { status, code, message: message.into(), retryable: false })
}

pub(super) fn probed(account: &str) -> Answer {
    Answer::json(
        200,
        &json!({
            "sid": account,
            "friendly_name": "Simulator",
            "status": "active",
            "type": "Full",
            "uri": format!("/2010-04-01/Accounts/{account}.json"),
        }),
    )
}

/// When the connection fails, Twilio tries again once, or as often as `rc` in the fragment of the address says, up to five times.
pub(super) fn tries(url: &str) -> u32 {
    let fragment = url.split_once('#').map(|(_, fragment)| form::decode(fragment)).unwrap_or_default();
    field(&fragment, "rc").parse().map_or(2, |again: u32| 1 + again.min(5))
}

/// A status callback. The code covers the address without its fragment, and the fields in the order of their names.
pub(super) fn notice(items: &[Item<'_>], plan: &ReceiptPlan, url: &str) -> Notice {
    let Some((message, receipt)) = items.first() else { return Notice::default() };
    let status = word(receipt.status);
    let sid = &*message.message_id;
    let mut fields: Fields = [
        ("ApiVersion", "2010-04-01"),
        ("AccountSid", &*message.account),
        ("MessageSid", sid),
        ("MessageStatus", status),
        ("SmsSid", sid),
        ("SmsStatus", status),
        ("To", &*message.to),
        (if message.from.starts_with("MG") { "MessagingServiceSid" } else { "From" }, &*message.from),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    if receipt.status == Status::Failed {
        fields.push(("ErrorCode".into(), plan.failed_code(UNKNOWN_DESTINATION).into()));
    }
    if matches!(receipt.status, Status::Delivered | Status::Failed) {
        fields.push(("RawDlrDoneDate".into(), receipt.time.strftime("%y%m%d%H%M").to_string()));
    }
    let key = plan.settings.providers.twilio_auth_token.as_ref();
    let headers = key.map(|key| ("x-twilio-signature", signature(key, url, &fields))).into_iter().collect();
    Notice {
        content_type: "application/x-www-form-urlencoded; charset=UTF-8",
        headers,
        body: form::encode(&fields),
    }
}

fn signature(auth_token: &str, url: &str, fields: &Fields) -> String {
    let url = url.split('#').next().unwrap_or_default();
    let sorted: BTreeSet<&(String, String)> = fields.iter().collect();
    let content: String = sorted.into_iter().flat_map(|(name, value)| [&**name, &**value]).collect();
    hmac_sha1_base64(auth_token, format!("{url}{content}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in Twilio's documentation and in the tests of its libraries.
    #[test]
    fn a_signature_is_as_published() {
        let fields = form::decode(
            "Digits=1234&To=%2B18005551212&From=%2B14158675309&Caller=%2B14158675309&CallSid=CA1234567890ABCDE",
        );
        for url in [
            "https://mycompany.com/myapp.php?foo=1&bar=2",
            "https://mycompany.com/myapp.php?foo=1&bar=2#rc=2",
        ] {
            assert_eq!(signature("12345", url, &fields), "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        }
    }

    #[test]
    fn callbacks_are_tried_as_often_as_their_address_says() {
        for (url, expected) in [
            ("http://127.0.0.1/?token=a", 2),
            ("http://127.0.0.1/#ct=100&rc=0", 1),
            ("http://127.0.0.1/#rc=3&rp=all", 4),
            ("http://127.0.0.1/#rc=99", 6),
        ] {
            assert_eq!(tries(url), expected, "{url}");
        }
    }
}
