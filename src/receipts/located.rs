//! Which rows receipts are of. In: receipts. Out: evidence by page, and what of them names nothing, or nothing yet.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

use super::Context;
use super::places::{At, Named, NamedBy, Places};
use super::refusal::Refusal;
use super::room::ChannelRoom;
use crate::clock;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::outcome::{Outcome, Row};
use crate::domain::receipt::Receipt;
use crate::domain::token::MessageToken;
use crate::journal::PageOf;
use crate::providers::whatsapp;

/// Longest wait for the answer of a send whose receipt came before it.
pub const EARLY_WAIT: Duration = Duration::from_secs(2);

/// Evidence by page.
pub type Found = BTreeMap<PageOf, Vec<(usize, Row)>>;

/// Receipts by what their ids name.
#[derive(Default)]
pub struct Located {
    pub found: Found,
    /// Of these, those that may mean more than their chat: failures, and chats that want no more messages.
    pub notable: Vec<(At, Receipt)>,
    /// Receipts of messages that are not of this channel.
    pub strangers: usize,
    /// Of these, those of chats that want no more messages.
    pub lost: Vec<Receipt>,
    /// Receipts that may be of messages whose answers are on their way.
    pub unknown: Vec<Receipt>,
    /// Those of Broadcasts that are not in view.
    homeless: Vec<(BroadcastUid, Receipt)>,
    /// Those of messages that are stored and not in view here.
    pub unseen: Vec<Receipt>,
}

impl Located {
    /// What is told by these, of which nothing is found yet.
    #[must_use]
    pub fn of(unknown: Vec<Receipt>) -> Self {
        Self { unknown, ..Self::default() }
    }

    /// Looks again for what was not found before.
    pub fn look(&mut self, places: &Places<'_>, room: Option<&ChannelRoom>) {
        for mut receipt in std::mem::take(&mut self.unknown) {
            let (id, named) = places.find_any(receipt.ids());
            let id = id.to_owned();
            match named {
                Named::Row(at) => {
                    if let Some(room) = room.filter(|_| at.named_by == NamedBy::Token) {
                        room.note_echo();
                    }
                    if places.are_one_message() {
                        // Whatever it is called: all tries of a chat are the same one.
                        receipt.evidence = receipt.evidence.with_message_id("");
                    } else if at.named_by == NamedBy::MessageId && receipt.evidence.message_id.is_empty() {
                        // It speaks of this very message, and of no other of its chat.
                        receipt.evidence = receipt.evidence.with_message_id(&id);
                    }
                    let rows = self.found.entry(at.page_of()).or_default();
                    rows.push((at.row, receipt.evidence_of_chat()));
                    if receipt.is_opt_out || receipt.evidence.outcome == Outcome::Failed {
                        self.notable.push((at, receipt));
                    }
                }
                Named::Nothing
                    if places.is_of(&receipt.number) && !is_foreign(&id, &receipt, places, room) =>
                {
                    self.unknown.push(receipt);
                }
                Named::Unseen => self.unseen.push(receipt),
                Named::Homeless(uid) => self.homeless.push((uid, receipt)),
                Named::Nothing | Named::Stranger => self.is_stranger(receipt),
            }
        }
    }

    fn is_stranger(&mut self, receipt: Receipt) {
        self.strangers += 1;
        self.lost.extend(Some(receipt).filter(|receipt| receipt.is_opt_out));
    }

    /// Asks the API server about Broadcasts that are not in view. One that is there is in view soon; the others were deleted.
    pub async fn house(&mut self, context: &Context, namespace: &str) -> Result<(), Refusal> {
        let uids = self.homeless.iter().map(|(uid, _)| uid.clone()).collect();
        let there = context.homes.there(&context.books.client, namespace, uids).await;
        let there = there.map_err(|error| Refusal::NotStored(Box::new(error)))?;
        for (uid, receipt) in std::mem::take(&mut self.homeless) {
            match there.contains(&uid) {
                true => self.unseen.push(receipt),
                false => self.is_stranger(receipt),
            }
        }
        Ok(())
    }
}

/// Whether an id that names nothing is of a message that somebody else sent through the same account: ours come back with their tokens.
/// Whether those to groups of the Cloud API do is not known: Meta's examples of them have none.
fn is_foreign(id: &str, receipt: &Receipt, places: &Places<'_>, room: Option<&ChannelRoom>) -> bool {
    let has_token = id.parse::<MessageToken>().is_ok() || whatsapp::is_group(&receipt.chat);
    !has_token && places.have_tokens() && room.is_some_and(ChannelRoom::echoes)
}

/// Finds the rows of receipts. A receipt that is here before the answer to its send waits for that, for a while, when it
/// comes for the first time.
pub async fn locate(
    context: &Context,
    channel: &ObjectKey,
    room: &ChannelRoom,
    receipts: Vec<Receipt>,
) -> Located {
    let mut located = Located::of(receipts);
    let mut changes: watch::Receiver<u64> = context.books.observed.changes();
    let deadline = clock::monotonic() + EARLY_WAIT;
    loop {
        changes.mark_unchanged();
        let places = Places::of(&context.books.observed, channel);
        located.look(&places, Some(room));
        let left = deadline.saturating_duration_since(clock::monotonic());
        let ids = located.unknown.iter().map(|receipt| receipt.id.as_str());
        if left.is_zero() || !room.refused.is_any_new(ids) || !places.may_have_sends_in_flight(clock::now()) {
            return located;
        }
        drop(places);
        // The answers of sends are known a little before the caches change, so a change is not the only thing to wait for.
        tokio::select! {
            _ = changes.changed() => {}
            () = clock::wait(left.min(EARLY_WAIT / 20)) => {}
        }
    }
}
