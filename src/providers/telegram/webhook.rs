//! Updates of a bot, as its webhook gets them. In: requests as they came. Out: whether they are genuine, and who blocked the bot or
//! started it again. There are no receipts in them. Pure.

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::receipt::{NoticeError, Notices, Preference};
use crate::providers::secrecy;

/// Header with the `secret_token` that the webhook was set up with.
pub const SECRET_HEADER: &str = "x-telegram-bot-api-secret-token";

/// Whether a request is Telegram's: it knows one of the secrets. An empty one is known by nobody.
#[must_use]
pub fn is_genuine(secrets: &[&str], header: &str) -> bool {
    secrets.iter().any(|secret| secrecy::is_known(secret, header))
}

/// Reads a genuine update. All that it tells is whether a person wants the bot.
///
/// # Errors
/// When it is no update.
pub fn read(body: &[u8], _: Timestamp) -> Result<Notices, NoticeError> {
    let update: Value = serde_json::from_slice(body).map_err(NoticeError::Json)?;
    if !update["update_id"].is_i64() {
        return Err(NoticeError::Missing("update_id"));
    }
    let mut notices = Notices::default();
    let change = &update["my_chat_member"];
    // In groups it is about the rights of the bot, and whoever put it in or out speaks for nobody else.
    if change["chat"]["type"].as_str() != Some("private") {
        return Ok(notices);
    }
    let is_wanted = match change["new_chat_member"]["status"].as_str() {
        Some("kicked") => false,
        Some("member") => true,
        _ => return Ok(notices),
    };
    match change["chat"]["id"].as_i64() {
        Some(chat) => {
            let code = if is_wanted { "member" } else { "kicked" };
            notices.preferences.push(Preference { chat: chat.to_string(), is_wanted, code: code.into() });
        }
        None => notices.malformed += 1,
    }
    Ok(notices)
}
