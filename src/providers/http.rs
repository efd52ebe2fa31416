//! Provider HTTP: one JSON request per message, as `docs/http-channel.md` describes it. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::answer::{Answer, SenderTrouble};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SendRequest<'a> {
    /// Token of the message, the same as in `Idempotency-Key`.
    pub id: &'a str,
    /// To whom.
    pub to: &'a str,
    /// What.
    pub text: &'a str,
    /// The Broadcast that it is part of.
    pub broadcast: BroadcastName<'a>,
}

/// Namespace and name of a Broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BroadcastName<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
}

/// Body of a gateway's answer, as far as it concerns us. Everything in it is optional.
#[derive(Debug, Default, Deserialize)]
struct Body {
    #[serde(default)]
    id: Option<MessageId>,
    #[serde(default)]
    error: Option<ErrorBody>,
}

/// Some gateways number their messages.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum MessageId {
    Text(String),
    Number(u64),
}

#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: Option<MessageId>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    retryable: bool,
}

/// Reads an answer. `retry_after` is the header of that name; `now` is for its date form.
#[must_use]
pub fn read_answer(status: u16, retry_after: Option<&str>, body: &[u8], now: Timestamp) -> Answer {
    let parsed: Option<Body> = serde_json::from_slice(body).ok();
    let said_error = parsed.as_ref().is_some_and(|body| body.error.is_some());
    let body = parsed.unwrap_or_default();
    match status {
        200..=299 => Answer::Accepted { message_id: body.id.map(text_of).unwrap_or_default() },
        429 => Answer::RateLimited { wait: retry_after.and_then(|value| wait_of(value, now)) },
        401 | 403 => Answer::SenderRefused {
            trouble: SenderTrouble::AuthenticationFailed,
            detail: error_text(status, body.error),
        },
        300..=399 => Answer::SenderRefused {
            trouble: SenderTrouble::Redirected,
            detail: format!("the gateway answered {status}"),
        },
        // The gateway gave up waiting for the request: it may have read it whole.
        408 => Answer::Unknown { code: "408".into(), detail: "the gateway timed out".into() },
        400..=499 => refused(status, body.error.unwrap_or_default()),
        // A 5xx comes from anything on the way. Only with the gateway's own error body is it a definite no.
        500..=599 if said_error => refused(status, body.error.unwrap_or_default()),
        _ => Answer::Unknown { code: status.to_string(), detail: format!("the gateway answered {status}") },
    }
}

fn refused(status: u16, error: ErrorBody) -> Answer {
    let code = error.code.map_or_else(|| status.to_string(), text_of);
    let detail =
        if error.message.is_empty() { format!("the gateway answered {status}") } else { error.message };
    Answer::Refused { retryable: error.retryable, code, detail }
}

fn error_text(status: u16, error: Option<ErrorBody>) -> String {
    match error {
        Some(error) if !error.message.is_empty() => {
            format!("the gateway answered {status}: {}", error.message)
        }
        _ => format!("the gateway answered {status}"),
    }
}

fn text_of(id: MessageId) -> String {
    match id {
        MessageId::Text(text) => text,
        MessageId::Number(number) => number.to_string(),
    }
}

/// Seconds, or a date as in RFC 9110 §10.2.3.
fn wait_of(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long wait, not none: the channel bounds it.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Answer {
        read_answer(status, None, body.as_bytes(), Timestamp::UNIX_EPOCH)
    }

    fn refused(retryable: bool, code: &str, detail: &str) -> Answer {
        Answer::Refused { retryable, code: code.into(), detail: detail.into() }
    }

    #[test]
    fn answers_are_read_as_the_protocol_says() {
        let accepted = |id: &str| Answer::Accepted { message_id: id.into() };
        let unknown = |code: &str| matches!(read(code.parse().expect("status"), ""), Answer::Unknown { .. });
        assert_eq!(read(200, r#"{"id":"m1"}"#), accepted("m1"));
        assert_eq!(read(202, r#"{"id":17}"#), accepted("17"));
        assert_eq!(read(204, ""), accepted(""));
        assert_eq!(read(200, "<html>"), accepted(""));
        assert_eq!(
            read(400, r#"{"error":{"code":"bad_number","message":"no such number"}}"#),
            refused(false, "bad_number", "no such number")
        );
        assert_eq!(read(404, "nope"), refused(false, "404", "the gateway answered 404"));
        assert_eq!(
            read(503, r#"{"error":{"code":7,"message":"later","retryable":true}}"#),
            refused(true, "7", "later")
        );
        for status in ["408", "500", "502", "503", "504", "100"] {
            assert!(unknown(status), "{status}");
        }
        for status in [401, 403] {
            let trouble = SenderTrouble::AuthenticationFailed;
            assert!(
                matches!(read(status, ""), Answer::SenderRefused { trouble: t, .. } if t == trouble),
                "{status}"
            );
        }
        for status in [301, 302, 307, 308] {
            let trouble = SenderTrouble::Redirected;
            assert!(
                matches!(read(status, ""), Answer::SenderRefused { trouble: t, .. } if t == trouble),
                "{status}"
            );
        }
    }

    #[test]
    fn a_rate_limit_says_how_long_to_wait() {
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().expect("time");
        let wait = |header: Option<&str>| match read_answer(429, header, b"", now) {
            Answer::RateLimited { wait } => wait.map(|wait| wait.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(Some("120")), Some(120));
        assert_eq!(wait(Some("Mon, 23 Nov 2026 10:00:30 GMT")), Some(30));
        assert_eq!(wait(Some("Mon, 23 Nov 2026 09:00:00 GMT")), Some(0));
        assert_eq!(wait(Some("18446744073709551615")), Some(u64::MAX));
        assert_eq!(wait(Some("99999999999999999999999")), Some(u64::MAX));
        assert_eq!(wait(Some("soon")), None);
        assert_eq!(wait(Some("-1")), None);
        assert_eq!(wait(None), None);
    }

    #[test]
    fn a_request_carries_the_token_the_chat_and_the_text() {
        let request = SendRequest {
            id: "u.0.1",
            to: "15550100",
            text: "Hi",
            broadcast: BroadcastName { namespace: "shop", name: "sale" },
        };
        let json = serde_json::to_value(&request).expect("json");
        assert_eq!(
            json,
            serde_json::json!({"id":"u.0.1","to":"15550100","text":"Hi","broadcast":{"namespace":"shop","name":"sale"}})
        );
    }
}
