//! Signatures of requests, as the Standard Webhooks specification 1.0 has them: HMAC-SHA256 over id, time and raw body.
//!
//! In: secrets, headers, the body as it came. Out: a signature, or whether one is genuine. Pure; time comes in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;

/// Header with the id of a request; the same when it is repeated.
pub const ID_HEADER: &str = "webhook-id";
/// Header with the time of a request, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Header with the signatures, separated by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// A request that is older, or further in the future, may be a replay: the tolerance that the specification's own
/// libraries have.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);
/// What serialised secrets begin with.
const SECRET_PREFIX: &str = "whsec_";
/// Version of the signature scheme.
const VERSION: &str = "v1";
/// Signatures that are looked at in one request: a sender in a rotation gives two.
const MAX_SIGNATURES: usize = 8;

/// Why a request is not trusted. Says nothing that helps to forge one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// A header is missing or no text.
    #[error("the headers webhook-id, webhook-timestamp and webhook-signature are needed")]
    MissingHeaders,
    /// The time is not one.
    #[error("webhook-timestamp must be seconds since 1970")]
    InvalidTimestamp,
    /// The time is too far from now.
    #[error("webhook-timestamp is more than five minutes from now: check the clock of the sender")]
    OutsideTolerance,
    /// No signature is of one of our secrets.
    #[error("no signature matches: check the signing secret on both sides")]
    NoMatch,
}

/// A secret that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signing secret must be `whsec_` and base64, of at least 16 bytes")]
pub struct InvalidSecret;

/// Key of a signature. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Secret(…)")
    }
}

impl Secret {
    /// Reads `whsec_<base64>`.
    ///
    /// # Errors
    /// When it is something else, or shorter than 16 bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(InvalidSecret)?;
        let key = STANDARD.decode(encoded).map_err(|_| InvalidSecret)?;
        if key.len() < 16 { Err(InvalidSecret) } else { Ok(Self(key)) }
    }

    /// Reads several secrets, separated by white space, as a rotation needs them.
    ///
    /// # Errors
    /// When one of them is none, or there is none at all.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, InvalidSecret> {
        let secrets = text.split_whitespace().map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() { Err(InvalidSecret) } else { Ok(secrets) }
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("should take a key of any length");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac
    }
}

/// The value of the signature header for a request, with one signature per secret.
#[must_use]
pub fn sign(secrets: &[Secret], id: &str, timestamp: Timestamp, body: &[u8]) -> String {
    let timestamp = timestamp.as_second().to_string();
    let signatures = secrets.iter().map(|secret| {
        let code = secret.mac(id, &timestamp, body).finalize().into_bytes();
        format!("{VERSION},{}", STANDARD.encode(code))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

/// The three headers of a request, as they came.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// Value of `webhook-id`.
    pub id: &'a str,
    /// Value of `webhook-timestamp`.
    pub timestamp: &'a str,
    /// Value of `webhook-signature`.
    pub signatures: &'a str,
}

/// Checks a request: its time, and that one of its signatures is of one of the secrets. Compares in constant time.
///
/// # Errors
/// When it is not genuine.
pub fn verify(
    secrets: &[Secret],
    signed: Signed<'_>,
    body: &[u8],
    now: Timestamp,
) -> Result<(), WebhookError> {
    let seconds: i64 = signed.timestamp.parse().map_err(|_| WebhookError::InvalidTimestamp)?;
    let time = Timestamp::from_second(seconds).map_err(|_| WebhookError::InvalidTimestamp)?;
    if now.duration_since(time).abs() > TOLERANCE {
        return Err(WebhookError::OutsideTolerance);
    }
    let genuine = signed
        .signatures
        .split(' ')
        .take(MAX_SIGNATURES)
        .filter_map(|signature| signature.strip_prefix(VERSION)?.strip_prefix(','))
        .filter_map(|encoded| STANDARD.decode(encoded).ok())
        .any(|code| {
            secrets
                .iter()
                .any(|secret| secret.mac(signed.id, signed.timestamp, body).verify_slice(&code).is_ok())
        });
    if genuine { Ok(()) } else { Err(WebhookError::NoMatch) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: &str = "1614265330";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("small")
    }

    fn check(signatures: &str, body: &[u8], now: i64) -> Result<(), WebhookError> {
        let secrets = Secret::parse_all(&format!("{KEY}\nwhsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODk=")).expect("two");
        verify(&secrets, Signed { id: ID, timestamp: TIMESTAMP, signatures }, body, at(now))
    }

    #[test]
    fn the_specification_s_example_is_genuine() {
        let secret = Secret::parse(KEY).expect("valid");
        assert_eq!(sign(&[secret], ID, at(1_614_265_330), BODY), SIGNATURE);
        assert_eq!(check(SIGNATURE, BODY, 1_614_265_330), Ok(()));
    }

    #[test]
    fn any_of_several_signatures_and_secrets_will_do() {
        let other = Secret::parse("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODk=").expect("valid");
        let theirs = sign(&[other], ID, at(1_614_265_330), BODY);
        assert_eq!(check(&format!("v1a,AAAA v1,!! {theirs}"), BODY, 1_614_265_330), Ok(()));
    }

    #[test]
    fn a_changed_body_a_foreign_signature_and_an_old_time_are_refused() {
        assert_eq!(check(SIGNATURE, b"{}", 1_614_265_330), Err(WebhookError::NoMatch));
        assert_eq!(check("v1,AAAA", BODY, 1_614_265_330), Err(WebhookError::NoMatch));
        assert_eq!(check("", BODY, 1_614_265_330), Err(WebhookError::NoMatch));
        assert_eq!(check(SIGNATURE, BODY, 1_614_265_330 + 300), Ok(()));
        assert_eq!(check(SIGNATURE, BODY, 1_614_265_330 + 301), Err(WebhookError::OutsideTolerance));
        assert_eq!(check(SIGNATURE, BODY, 1_614_265_330 - 301), Err(WebhookError::OutsideTolerance));
    }

    #[test]
    fn a_secret_is_whsec_and_base64_of_some_length() {
        for text in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_AAAA", "whsec_???"] {
            assert_eq!(Secret::parse_all(text).map(|_| ()), Err(InvalidSecret), "{text}");
        }
    }
}
