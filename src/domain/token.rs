//! The token that goes out with a message and comes back with its receipts: it says which row of which page it is, so
//! that a receipt finds its row without any table, also after a restart of the operator.

use std::fmt;
use std::str::FromStr;

use super::ids::BroadcastUid;

/// Names one row of one Broadcast. The same for every try of that row, so that it serves as an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageToken {
    /// The Broadcast.
    pub broadcast: BroadcastUid,
    /// Index of the page.
    pub page: usize,
    /// Row in the page, from 0.
    pub row: usize,
}

/// The text is no token of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a message token")]
pub struct NotAToken;

impl fmt::Display for MessageToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.broadcast.as_str(), self.page, self.row)
    }
}

impl FromStr for MessageToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let mut parts = text.split('.');
        let (Some(uid), Some(page), Some(row), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAToken);
        };
        let uid_is_plausible =
            (1..=64).contains(&uid.len()) && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if !uid_is_plausible {
            return Err(NotAToken);
        }
        let number = |digits: &str| digits.parse::<u32>().map(|n| n as usize).map_err(|_| NotAToken);
        Ok(Self { broadcast: BroadcastUid::new(uid.to_owned()), page: number(page)?, row: number(row)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_form() {
        let token = MessageToken {
            broadcast: BroadcastUid::new("0b3f9a3e-1c5e-4c8e-9d0a-7c3d2f1a9b10".into()),
            page: 3,
            row: 249,
        };
        assert_eq!(token.to_string().parse(), Ok(token));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for text in [
            "",
            "wamid.HBgL",
            "a.b.c",
            "0b3f.1",
            "0b3f.1.2.3",
            "../etc.1.2",
            "0b3f.-1.2",
            "0b3f.1.99999999999",
        ] {
            assert_eq!(text.parse::<MessageToken>(), Err(NotAToken), "{text}");
        }
    }
}
