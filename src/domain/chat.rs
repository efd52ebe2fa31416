//! How a channel's provider names chats: which texts are one, in the one form in which it is sent and compared, and which are a
//! group.
//!
//! In: a channel, and chats as people write them. Out: chats in their one form, or why they are none.

pub(super) mod phone;

use std::borrow::Cow;
use std::fmt;

use super::text::is_invisible;
use crate::api::{BroadcastChannelSpec, ProviderName};

/// Longest chat id, in characters.
pub(super) const MAX_CHAT: usize = 128;
/// Digits of a phone number or numeric chat id of a gateway: E.164 has 15 at most, Telegram ids 16.
const CHAT_DIGITS: std::ops::RangeInclusive<usize> = 3..=20;
/// Characters of a name of Telegram, after the `@`.
const NAME: std::ops::RangeInclusive<usize> = 5..=32;
/// Ends the id of a group on a connected phone.
const GROUP: &str = "@g.us";
/// Ends the id of a person on a connected phone, which is a phone number.
const PERSON: &str = "@c.us";

/// Why a text is no chat of a channel. As text, it is the reason of a row that is never sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatProblem {
    /// One word, for programs.
    pub reason: &'static str,
    /// What is wrong, for people.
    pub text: String,
}

impl ChatProblem {
    fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

impl fmt::Display for ChatProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.reason, self.text)
    }
}

/// What is to be done about a region that is no country.
#[must_use]
pub fn invalid_region(region: &str) -> String {
    format!(
        "spec.defaultRegion {region} is no country: give its two letters as in ISO 3166, such as ES or GB, or leave it out"
    )
}

/// How the chats of one channel are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRules {
    provider: ProviderName,
    region: Option<String>,
}

/// Those of a gateway, which may have chats of any kind.
impl Default for ChatRules {
    fn default() -> Self {
        Self { provider: ProviderName::Http, region: None }
    }
}

impl ChatRules {
    /// The rules of a channel: its provider, and the region of numbers without a country code.
    #[must_use]
    pub fn of(channel: &BroadcastChannelSpec) -> Self {
        Self { provider: channel.provider, region: channel.default_region.clone() }
    }

    /// The region, if it is no country: then no number without a country code could be read.
    #[must_use]
    pub fn unknown_region(&self) -> Option<&str> {
        self.region.as_deref().filter(|region| self.has_phones() && phone::country(region).is_none())
    }

    /// A chat as people write it, in its one form.
    ///
    /// Of a gateway (HTTP): digits for a number, ids as they are. Of `WhatsApp`, Twilio and Periskope: E.164 digits without `+`
    /// for a phone number; ids of groups as they are. Of Telegram: ids in decimal, `@names` in lower case, because case makes no
    /// other chat there.
    ///
    /// # Errors
    /// When the text is no chat of this provider.
    pub fn normalise(&self, chat: &str) -> Result<String, ChatProblem> {
        let chat = trimmed(chat);
        if self.provider == ProviderName::Http {
            return of_gateway(chat)
                .ok_or_else(|| ChatProblem::new("InvalidChat", "not a phone number or chat id"));
        }
        if is_spreadsheet_remains(chat) {
            return Err(ChatProblem::new("InvalidChat", "what a spreadsheet left of a number, or nothing"));
        }
        self.id(chat).unwrap_or_else(|| match self.provider {
            ProviderName::Telegram => Err(not_of_telegram(chat)),
            _ => phone::normalise(chat, self.region.as_deref()),
        })
    }

    /// A chat that the rules `from` of another channel, or an earlier one, have brought into its form, in the form of this one.
    /// Digits that are E.164 there are E.164 here, whatever the region. Where it cannot be told what digits are, they are
    /// nobody's: a number of one network is a stranger in another.
    ///
    /// # Errors
    /// When this provider has no such chat, or it cannot be told which one it is.
    pub fn adopt(&self, chat: &str, from: &Self) -> Result<String, ChatProblem> {
        let is_number = !chat.is_empty() && chat.bytes().all(|byte| byte.is_ascii_digit());
        match (from.provider, self.provider) {
            (_, ProviderName::Http) => self.normalise(chat),
            _ if !is_number => self.normalise(chat),
            (_, ProviderName::Telegram) if from.has_phones() => Err(phone_for_telegram()),
            (_, ProviderName::Telegram) => self.normalise(chat),
            (ProviderName::Telegram, _) => Err(ChatProblem::new("NotAPhoneNumber", "an id of Telegram")),
            // A gateway's number may lack its country code.
            (ProviderName::Http, _) => phone::of_either_reading(chat, self.region.as_deref()),
            _ => phone::international(chat),
        }
    }

    /// What two forms of one recipient have in common, where a provider keeps two of them apart.
    #[must_use]
    pub fn identity<'a>(&self, normal: &'a str) -> Cow<'a, str> {
        match self.has_phones() {
            true => phone::identity(normal),
            false => normal.into(),
        }
    }

    /// A chat that is no phone number, and is told from one by how it is written. `None`: it is a number, or nothing.
    fn id(&self, chat: &str) -> Option<Result<String, ChatProblem>> {
        let no_group = |text| Some(Err(ChatProblem::new("GroupNotSupported", text)));
        match self.provider {
            ProviderName::WhatsApp if chat.ends_with(GROUP) => no_group(
                "an id of a group on a phone; groups of the Cloud API have ids of their own, without @",
            ),
            // Without a digit it is a word, and a number may be written with a `+` or `-` as well.
            ProviderName::WhatsApp => (is_cloud_group(chat) && has_digit(chat)).then(|| Ok(chat.to_owned())),
            ProviderName::Twilio if chat.ends_with(GROUP) => no_group("Twilio sends to phone numbers alone"),
            ProviderName::Http | ProviderName::Twilio => None,
            ProviderName::Telegram => telegram_id(chat).or_else(|| telegram_name(chat)).map(Ok),
            ProviderName::Periskope => match chat.strip_suffix(PERSON) {
                Some(number) => Some(phone::normalise(number, None)),
                None => is_phone_group(chat).then(|| Ok(chat.to_owned())),
            },
        }
    }

    /// Whether its chats are phone numbers, which have a country code.
    pub(super) fn has_phones(&self) -> bool {
        matches!(self.provider, ProviderName::WhatsApp | ProviderName::Twilio | ProviderName::Periskope)
    }
}

/// Ids of the Groups API are letters and digits, or base64.
fn is_cloud_group(chat: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
    chat.len() <= MAX_CHAT
        && chat.bytes().all(is_allowed)
        && chat.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// `<digits>@g.us`, or in older groups `<digits>-<digits>@g.us`.
fn is_phone_group(chat: &str) -> bool {
    let id = chat.strip_suffix(GROUP).unwrap_or_default();
    chat.len() <= MAX_CHAT && has_digit(id) && id.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

fn has_digit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

/// A signed number of 64 bits; below zero for groups and channels.
fn telegram_id(chat: &str) -> Option<String> {
    let digits = chat.strip_prefix('-').unwrap_or(chat);
    // With a zero in front it is a phone number.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    chat.parse::<i64>().ok().filter(|_| is_number).map(|id| id.to_string())
}

fn telegram_name(chat: &str) -> Option<String> {
    let name = chat.strip_prefix('@')?;
    let is_name =
        NAME.contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| chat.to_ascii_lowercase())
}

fn not_of_telegram(chat: &str) -> ChatProblem {
    match phone::is_written_as_phone(chat) {
        true => phone_for_telegram(),
        false => ChatProblem::new(
            "InvalidChat",
            "not a chat id of Telegram, nor an @name of 5 to 32 letters, digits and _",
        ),
    }
}

fn phone_for_telegram() -> ChatProblem {
    ChatProblem::new("InvalidChat", "Telegram needs the chat id, not a phone number")
}

fn trimmed(chat: &str) -> &str {
    chat.trim_matches(|c: char| c.is_whitespace() || is_invisible(c))
}

/// A chat of a gateway, or `None` when it is none. Phone numbers become their digits (`+1 (555) 123-0001`, `001 555 1230001` and
/// `15551230001` are one chat); ids of chat networks stay as they are. The one form of a chat is that of its one form too.
fn of_gateway(chat: &str) -> Option<String> {
    if is_spreadsheet_remains(chat) {
        return None;
    }
    let looks_like_phone = !chat.starts_with('-')
        && chat.chars().all(|c| c.is_ascii_digit() || " +-().\u{a0}".contains(c) || is_invisible(c))
        && has_digit(chat);
    if looks_like_phone {
        let digits: String = chat.chars().filter(char::is_ascii_digit).collect();
        // No country code begins with a zero.
        let digits = digits.trim_start_matches("00");
        return CHAT_DIGITS.contains(&digits.len()).then(|| digits.to_owned());
    }
    let is_id = !chat.is_empty()
        && chat.chars().count() <= MAX_CHAT
        && chat.chars().any(char::is_alphanumeric)
        && !chat.contains(|c: char| c.is_whitespace() || c.is_control() || is_invisible(c));
    is_id.then(|| chat.to_owned())
}

/// What spreadsheets and exports leave where a number was: a float (`15550100001.0`, `1.555E+10`), a formula, a text mark,
/// or a word for nothing. Any of them would be another chat, or nobody's.
fn is_spreadsheet_remains(chat: &str) -> bool {
    let ends_as_float = chat.rsplit_once('.').is_some_and(|(whole, fraction)| {
        fraction.len() == 1 && !whole.is_empty() && chat.chars().all(|c| c.is_ascii_digit() || c == '.')
    });
    let is_scientific = chat.contains(['e', 'E'])
        && chat.starts_with(|c: char| c.is_ascii_digit())
        && chat.parse::<f64>().is_ok();
    let is_word =
        ["n/a", "#n/a", "na", "nan", "null", "none", "unknown"].contains(&chat.to_lowercase().as_str());
    ends_as_float || is_scientific || is_word || chat.starts_with(['=', '\''])
}

#[cfg(test)]
mod tests;
