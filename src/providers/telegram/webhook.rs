//! Updates of a bot, as its webhook gets them. In: requests as they came. Out: whether they are genuine, and who blocked the bot or
//! has it again. There are no receipts in them. Pure.

use jiff::Timestamp;

use crate::domain::receipt::{NoticeError, Notices, Preference};
use crate::providers::json::Json;
use crate::providers::secrecy;

/// Header with the `secret_token` that the webhook was set up with.
pub const SECRET_HEADER: &str = "x-telegram-bot-api-secret-token";

/// Whether a request is Telegram's: it knows one of the secrets. An empty one is known by nobody.
#[must_use]
pub fn is_genuine(secrets: &[&str], header: &str) -> bool {
    secrets.iter().any(|secret| secrecy::is_known(secret, header))
}

/// Reads a genuine update. All that it tells is whether a person wants the bot, and whether a group or channel has it.
///
/// # Errors
/// When it is no update.
pub fn read(body: &[u8], now: Timestamp) -> Result<Notices, NoticeError> {
    let update = Json::parse(body).map_err(NoticeError::Json)?;
    let [update_id, change] = update.fields(["update_id", "my_chat_member"]);
    update_id.integer().ok_or(NoticeError::Missing("update_id"))?;
    let mut notices = Notices::default();
    let [chat, date, member] = change.fields(["chat", "date", "new_chat_member"]);
    let ([kind, chat], [status]) = (chat.fields(["type", "id"]), member.fields(["status"]));
    let Some(kind) = kind.text() else { return Ok(notices) };
    let (is_wanted, code) = match (&*kind, status.text().as_deref()) {
        ("private", Some("kicked")) => (false, "kicked"),
        (_, Some("member")) => (true, "member"),
        // Who puts it out of a group speaks for nobody else: the answer to the next message shows whether it may write there.
        ("group" | "supergroup" | "channel", Some("administrator")) => (true, "administrator"),
        _ => return Ok(notices),
    };
    match chat.integer() {
        Some(chat) => {
            // A call that could not be delivered comes again later: the date is when it happened.
            let time = date.integer().and_then(|second| Timestamp::from_second(second).ok());
            notices.preferences.push(Preference::new(&chat.to_string(), is_wanted, code, time, now));
        }
        None => notices.malformed += 1,
    }
    Ok(notices)
}
