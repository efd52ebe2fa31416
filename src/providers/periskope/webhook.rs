//! What Periskope posts to the operator: how far messages came. Pure.
//!
//! In: the header and the body of a request. Out: whether it is genuine, and what it tells.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::domain::outcome::Outcome;
use crate::domain::receipt::{NoticeError, Notices, Receipt};
use crate::providers::json::Json;
use crate::providers::secrecy;

/// Header with the signature of a request.
pub const SIGNATURE_HEADER: &str = "x-periskope-signature";
/// The event that says how far a message came.
const ACK_UPDATED: &str = "message.ack.updated";

/// A message. The reference has more of it.
struct Acknowledged<'a> {
    unique_id: Option<Cow<'a, str>>,
    /// `true_<chat>_<unique id>`, in groups with the sender after it.
    message_id: Option<Cow<'a, str>>,
    queue_id: Option<Cow<'a, str>>,
    /// A number, or a number as text.
    ack: Option<i64>,
}

/// Whether a request comes from Periskope: its signature is HMAC-SHA256 of the body as it came, with the signing key as text, in
/// hexadecimal digits. An empty key is none. Compares in constant time.
///
/// Second-hand: name of the header and algorithm are those of public receivers of these webhooks, which agree with each other;
/// some of them write the body anew before they check it, which is the same only as long as nothing is written otherwise.
#[must_use]
pub fn is_genuine(keys: &[&str], signature: &str, body: &[u8]) -> bool {
    let code = secrecy::bytes_of_hex(signature.trim());
    code.is_some_and(|code| keys.iter().any(|key| secrecy::is_signed(key, body, &code)))
}

/// Reads an event, at `now`. Events of other kinds, and of messages that others sent, tell nothing. The reference calls the name of an
/// event `event`; receivers of it say that it comes as `event_type`.
///
/// # Errors
/// When it is no event.
pub fn read(body: &[u8], now: Timestamp) -> Result<Notices, NoticeError> {
    let event = Json::parse(body).map_err(NoticeError::Json)?;
    let [name, event_type, data, time] = event.fields(["event", "event_type", "data", "timestamp"]);
    let name = event_type.text().or_else(|| name.text()).ok_or(NoticeError::Missing("event"))?;
    if name != ACK_UPDATED {
        return Ok(Notices::default());
    }
    if !data.is_object() {
        return Err(NoticeError::Missing("data"));
    }
    let [from_me] = data.fields(["from_me"]);
    if from_me.truth() == Some(false) {
        return Ok(Notices::default());
    }
    let time = time.text().and_then(|text| text.parse().ok());
    Ok(match Acknowledged::of(data).receipt(time, now) {
        Ok(receipt) => Notices { receipts: receipt.into_iter().collect(), ..Notices::default() },
        Err(NotReadable) => Notices { malformed: 1, ..Notices::default() },
    })
}

/// A message without an id, or with an `ack` that is none.
struct NotReadable;

impl<'a> Acknowledged<'a> {
    fn of(data: Json<'a>) -> Self {
        let [unique_id, message_id, queue_id, ack] =
            data.fields(["unique_id", "message_id", "queue_id", "ack"]);
        let ack = ack.integer().or_else(|| ack.text()?.parse().ok());
        Self { unique_id: unique_id.text(), message_id: message_id.text(), queue_id: queue_id.text(), ack }
    }

    /// Its ids, any of which the answer to the message may have had.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let within = self.message_id.as_deref().and_then(|id| id.split('_').nth(2));
        let ids = [self.unique_id.as_deref(), within, self.queue_id.as_deref()];
        ids.into_iter().flatten().filter(|id| !id.is_empty())
    }

    /// `ack` only grows. The reference has changed its mind about 2: now it is what `WhatsApp` has and the recipient has not, or,
    /// in a group, not everybody; before, it was what the recipient has. So 2 is Sent, which 3 can still raise, and never a
    /// Delivered that is not true.
    fn receipt(&self, time: Option<Timestamp>, now: Timestamp) -> Result<Option<Receipt>, NotReadable> {
        let outcome = match self.ack.ok_or(NotReadable)? {
            -1 => Outcome::Failed,
            0 => return Ok(None),
            1 | 2 => Outcome::Sent,
            3 => Outcome::Delivered,
            4.. => Outcome::Read,
            _ => return Err(NotReadable),
        };
        let mut ids = self.ids();
        let id = ids.next().ok_or(NotReadable)?;
        let receipt = Receipt::new(id, outcome, time, now).ok_or(NotReadable)?.with_aliases(ids);
        Ok(Some(match outcome {
            Outcome::Failed => receipt.with_error("Failed", "Periskope could not send it"),
            _ => receipt,
        }))
    }
}

#[cfg(test)]
mod tests;
