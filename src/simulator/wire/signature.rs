//! Codes that prove where a request comes from: key and content go in. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

/// HMAC-SHA256 in lower-case hexadecimal digits.
pub(super) fn hmac_sha256_hex(key: &str, content: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("should take a key of any length");
    mac.update(content);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// HMAC-SHA1 in base64.
pub(super) fn hmac_sha1_base64(key: &str, content: &[u8]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("should take a key of any length");
    mac.update(content);
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2, and the example in GitHub's documentation of `X-Hub-Signature-256`, which Meta's header is like.
    #[test]
    fn sha256_codes_are_as_published() {
        for (key, content, code) in [
            (
                "Jefe",
                "what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                "It's a Secret to Everybody",
                "Hello, World!",
                "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            ),
        ] {
            assert_eq!(hmac_sha256_hex(key, content.as_bytes()), code);
        }
    }

    /// RFC 2202, test case 2.
    #[test]
    fn sha1_codes_are_as_published() {
        let code = hmac_sha1_base64("Jefe", b"what do ya want for nothing?");
        assert_eq!(STANDARD.decode(code).expect("base64")[..4], [0xef, 0xfc, 0xdf, 0x6a]);
    }
}
