//! The body of a receipts request: JSON text → receipts. Pure.

use jiff::{Timestamp, Unit};
use serde::Deserialize;
use serde_json::Value;

use crate::domain::outcome::{Outcome, Row};

/// Longest id that is looked up, in bytes: a token has about 50, a gateway's message id at most 128.
const MAX_ID: usize = 256;
/// Earliest time that is believed, 2000-01-01: what is older is a clock that was never set. The API server takes no year
/// before 0, and one such time would keep its whole page from being stored.
const EARLIEST: Timestamp = Timestamp::constant(946_684_800, 0);

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Token or message id.
    pub id: String,
    /// What is known of its row by it.
    pub evidence: Row,
}

/// The body is no list of receipts.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is no JSON.
    #[error("the body is not JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// It is something else.
    #[error("the body must be a JSON array of receipts: [{{\"id\": …, \"status\": \"delivered\"}}]")]
    NotAList,
}

/// Receipts of one request, and how many more could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Those that could be read.
    pub receipts: Vec<Receipt>,
    /// Number of those that could not: they are left out, so that they do not hold up the others for ever.
    pub malformed: usize,
}

#[derive(Deserialize)]
struct Raw {
    id: String,
    status: Status,
    #[serde(default)]
    time: Option<Timestamp>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
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
/// When it is no list of receipts.
pub fn parse(body: &[u8], now: Timestamp) -> Result<Body, BodyError> {
    let items = match serde_json::from_slice(body).map_err(BodyError::Json)? {
        Value::Array(items) => items,
        item @ Value::Object(_) => vec![item],
        _ => return Err(BodyError::NotAList),
    };
    let mut read = Body::default();
    for item in items {
        match serde_json::from_value::<Raw>(item) {
            Ok(raw) if (1..=MAX_ID).contains(&raw.id.len()) => read.receipts.push(receipt(raw, now)),
            _ => read.malformed += 1,
        }
    }
    Ok(read)
}

fn receipt(raw: Raw, now: Timestamp) -> Receipt {
    let outcome = match raw.status {
        Status::Sent => Outcome::Sent,
        Status::Delivered => Outcome::Delivered,
        Status::Read => Outcome::Read,
        Status::Failed => Outcome::Failed,
    };
    let time = raw.time.map_or(now, |time| believable(time, now));
    // What has a receipt has been tried once at least.
    let mut evidence = Row::known(outcome, 1, time);
    if outcome == Outcome::Failed {
        let code = raw.code.unwrap_or_else(|| "Failed".into());
        let detail = raw.message.unwrap_or_else(|| "the gateway reported that it failed".into());
        evidence = evidence.with_error(&code, &detail);
    }
    Receipt { id: raw.id, evidence }
}

/// The time of a receipt in milliseconds, as all times of a page. A gateway whose clock is ahead must not write into the
/// future.
fn believable(time: Timestamp, now: Timestamp) -> Timestamp {
    time.round(Unit::Millisecond).unwrap_or(now).min(now).max(EARLIEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-23T10:00:00Z".parse().expect("time")
    }

    fn read(body: &str) -> Body {
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
