//! What every secret needs: to be compared in a time that tells nothing. Pure.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Whether somebody knows a secret. The time that it takes says nothing about where the two differ. An empty secret is known by
/// nobody.
#[must_use]
pub fn is_known(secret: &str, given: &str) -> bool {
    let code = |text: &str| mac(secret).chain_update(text);
    !secret.is_empty() && code(given).verify_slice(&code(secret).finalize().into_bytes()).is_ok()
}

/// Whether `code` is the HMAC-SHA256 of a body with this key. An empty key signs nothing.
#[must_use]
pub fn is_signed(key: &str, body: &[u8], code: &[u8]) -> bool {
    !key.is_empty() && mac(key).chain_update(body).verify_slice(code).is_ok()
}

/// The bytes that hexadecimal digits are, as signatures are written. `None`: they are none.
#[must_use]
pub fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| if let [high, low] = *pair { Some(digit(high)? << 4 | digit(low)?) } else { None })
        .collect()
}

fn mac(key: &str) -> Hmac<Sha256> {
    Hmac::new_from_slice(key.as_bytes()).expect("should take a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_text_is_known_and_an_empty_one_never() {
        assert!(is_known("s3cret", "s3cret"));
        for (secret, given) in
            [("s3cret", "s3cre"), ("s3cret", "s3cret "), ("s3cret", ""), ("", ""), ("", "x")]
        {
            assert!(!is_known(secret, given), "{secret} {given}");
        }
    }
}
