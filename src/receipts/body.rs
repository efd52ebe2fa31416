//! The body of a receipts request: JSON text → receipts. Pure.

use jiff::Timestamp;
use serde::Deserialize;

use crate::domain::outcome::Outcome;
use crate::domain::receipt::{NoticeError, Notices, Receipt};
use crate::providers::json::Json;
use crate::providers::wire::Word;

/// One receipt. What is optional may be `null`, and ids, codes and numbers of phones may be numbers.
#[derive(Deserialize)]
struct Raw {
    id: Word,
    /// The gateway's own id of the message, for a receipt whose `id` is the token.
    #[serde(default, rename = "messageId")]
    message_id: Option<Word>,
    /// The recipient.
    #[serde(default)]
    to: Option<Word>,
    status: Status,
    #[serde(default)]
    time: Option<Timestamp>,
    #[serde(default)]
    code: Option<Word>,
    #[serde(default)]
    message: Option<String>,
    /// The recipient wants no more messages of this sender.
    #[serde(default, rename = "optOut")]
    opt_out: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Sent,
    Delivered,
    Read,
    Failed,
}

/// Reads a body. One receipt alone may come without the list around it.
///
/// # Errors
/// When it is no list of receipts, or too long a one.
pub fn parse(body: &[u8], now: Timestamp) -> Result<Notices, NoticeError> {
    let body = Json::parse(body).map_err(NoticeError::Json)?;
    let mut read = Notices::default();
    if body.is_object() {
        read_item(body, now, &mut read)?;
        return Ok(read);
    }
    for item in body.items().ok_or(NoticeError::NotAList)? {
        read_item(item, now, &mut read)?;
    }
    Ok(read)
}

fn read_item(item: Json<'_>, now: Timestamp, notices: &mut Notices) -> Result<(), NoticeError> {
    let Some(receipt) = item.read::<Raw>().and_then(|raw| receipt(raw, now)) else {
        notices.malformed += 1;
        return Ok(());
    };
    notices.add_receipt(receipt)
}

fn receipt(raw: Raw, now: Timestamp) -> Option<Receipt> {
    let outcome = match raw.status {
        Status::Sent => Outcome::Sent,
        Status::Delivered => Outcome::Delivered,
        Status::Read => Outcome::Read,
        Status::Failed => Outcome::Failed,
    };
    let text = |word: Option<Word>| word.map(Word::into_text).unwrap_or_default();
    let receipt = Receipt::new(&raw.id.into_text(), outcome, raw.time, now)?;
    let receipt = receipt.with_message_id(&text(raw.message_id)).with_chat(&text(raw.to));
    let receipt = Receipt { is_opt_out: raw.opt_out.unwrap_or_default(), ..receipt };
    if outcome != Outcome::Failed {
        return Some(receipt);
    }
    let code = raw.code.map_or_else(|| "Failed".into(), Word::into_text);
    let detail = raw.message.unwrap_or_else(|| "the gateway reported that it failed".into());
    Some(receipt.with_error(&code, &detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::outcome::Row;

    fn now() -> Timestamp {
        "2026-11-23T10:00:00Z".parse().expect("time")
    }

    fn read(body: &str) -> Notices {
        parse(body.as_bytes(), now()).expect("a list")
    }

    #[test]
    fn receipts_become_evidence() {
        let body = read(
            r#"[{"id":"a","status":"delivered","time":"2026-11-23T09:59:00Z"},{"id":"b","status":"failed","code":"131026"}]"#,
        );
        assert_eq!(body.malformed, 0);
        let [a, b] = &body.receipts[..] else { panic!("{body:?}") };
        let early = "2026-11-23T09:59:00Z".parse().expect("time");
        assert_eq!((a.id.as_str(), &a.evidence), ("a", &Row::known(Outcome::Delivered, 1, early)));
        assert_eq!((b.evidence.outcome, b.evidence.code.as_str()), (Outcome::Failed, "131026"));
    }

    #[test]
    fn an_opt_out_counts_with_any_status_and_an_unnamed_message_with_its_own_id() {
        for status in ["sent", "delivered", "read", "failed"] {
            let body = read(&format!(
                r#"{{"id":"a","messageId":"m1","to":"15550100","status":"{status}","optOut":true}}"#
            ));
            let [receipt] = &body.receipts[..] else { panic!("{body:?}") };
            assert!(receipt.is_opt_out, "{status}");
            assert_eq!((receipt.chat.as_str(), receipt.evidence.message_id.as_str()), ("15550100", "m1"));
        }
        assert!(!read(r#"{"id":"a","status":"read"}"#).receipts[0].is_opt_out);
    }

    #[test]
    fn ids_and_codes_may_be_numbers_and_null_is_the_same_as_absent() {
        let nulls = r#""messageId":null,"to":null,"time":null,"code":null,"message":null,"optOut":null"#;
        let body = read(&format!(
            r#"[{{"id":"a","status":"delivered",{nulls}}},{{"id":"b","status":"failed",{nulls}}},
                {{"id":18446744073709551615,"messageId":17,"to":15550100,"status":"failed","code":-7,"optOut":true}}]"#
        ));
        let [delivered, failed, numbers] = &body.receipts[..] else { panic!("{body:?}") };
        assert_eq!(delivered.evidence, Row::known(Outcome::Delivered, 1, now()));
        assert_eq!(*failed, read(r#"{"id":"b","status":"failed"}"#).receipts[0]);
        assert_eq!((numbers.id.as_str(), numbers.chat.as_str()), ("18446744073709551615", "15550100"));
        assert_eq!((numbers.evidence.code.as_str(), numbers.evidence.message_id.as_str()), ("-7", "17"));
        assert!(numbers.is_opt_out);
    }

    #[test]
    fn a_number_that_is_not_whole_is_no_id_and_what_is_needed_may_not_be_null() {
        let body = read(
            r#"[{"id":1.5,"status":"read"},{"id":1e30,"status":"read"},{"id":null,"status":"read"},{"id":"a","status":null}]"#,
        );
        assert_eq!((body.receipts.len(), body.malformed), (0, 4));
    }

    #[test]
    fn a_time_in_the_future_is_now() {
        let body = read(r#"{"id":"a","status":"read","time":"2036-01-01T00:00:00Z"}"#);
        assert_eq!(body.receipts[0].evidence.time, Some(now()));
    }

    #[test]
    fn a_time_before_the_year_2000_is_that_year() {
        for time in ["-000044-03-15T12:00:00Z", "1970-01-01T00:00:00Z", "-009999-01-02T01:59:59Z"] {
            let body = read(&format!(r#"{{"id":"a","status":"read","time":"{time}"}}"#));
            let time = body.receipts[0].evidence.time.expect("time");
            assert_eq!(time.to_string(), "2000-01-01T00:00:00Z");
        }
    }

    #[test]
    fn times_are_kept_in_milliseconds() {
        let body = read(r#"{"id":"a","status":"read","time":"2026-11-23T09:59:00.123456789Z"}"#);
        assert_eq!(body.receipts[0].evidence.time.expect("time").to_string(), "2026-11-23T09:59:00.123Z");
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_does_not_hold_up_the_rest() {
        let body = read(r#"[{"id":"a","status":"eaten"},{"id":""},7,{"id":"c","status":"read"}]"#);
        assert_eq!((body.receipts.len(), body.malformed), (1, 3));
    }

    #[test]
    fn other_bodies_are_refused() {
        for body in ["", "{", "\"x\"", "3"] {
            assert!(parse(body.as_bytes(), now()).is_err(), "{body}");
        }
    }
}
