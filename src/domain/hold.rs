//! Holds: a Broadcast that was restored or recreated sends nothing until a person accepts what was found. Pure.
//!
//! A person accepts by an annotation whose value is a token that the condition's message shows. The token is made from what
//! was found, so that nobody accepts what nobody has seen: neither a manifest in Git nor a script can know it before.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::restored::Restored;
use super::summary::{PageSummary, Seen};
use crate::api::{ACCEPT_ANNOTATION, Broadcast, BroadcastStatus, Condition, HoldReason, HoldStatus};

/// Bytes of the digest that a token has: short enough to type, and nobody guesses, because nobody gains by it.
const TOKEN_BYTES: usize = 4;

/// Longest time for written pages to come into view of another replica.
const PAGES_ARRIVE_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// Stands before the message of a hold while the annotation has another token.
const NOT_OBEYED: &str = "The annotation accept-restored has another token and is not obeyed. ";

/// What a Broadcast is held for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// What the annotation must say.
    pub token: String,
    /// For people: what was found, and what accepting it does, with the command at the end.
    pub message: String,
    /// How many chats at least it is about, where that may grow.
    pub chats: Option<i32>,
}

impl Hold {
    /// A hold for what was `found`; `says` is what a person reads before the command.
    #[must_use]
    pub fn new<'a>(
        broadcast: &'a Broadcast,
        reason: HoldReason,
        found: impl IntoIterator<Item = &'a str>,
        says: &str,
    ) -> Self {
        // What was accepted once is accepted once: the same find later has another token.
        let before = broadcast.status.as_ref().and_then(|status| status.accepted_token.as_deref());
        let found = std::iter::once(before.unwrap_or_default()).chain(found);
        Self::with_token(broadcast, reason, token_of(broadcast, reason, found), says)
    }

    fn with_token(broadcast: &Broadcast, reason: HoldReason, token: String, says: &str) -> Self {
        let (namespace, name) = (&broadcast.metadata.namespace, &broadcast.metadata.name);
        let message = format!(
            "{says}: kubectl -n {} annotate --overwrite bc/{} {ACCEPT_ANNOTATION}={token}",
            namespace.as_deref().unwrap_or_default(),
            name.as_deref().unwrap_or_default()
        );
        Self { reason, token, message, chats: None }
    }

    /// The hold of a Broadcast that may have been sent to in a time of which nothing is known, unless a person has accepted it.
    /// `source` is when the Broadcast that it restarts was created.
    #[must_use]
    pub fn of_restored(
        broadcast: &Broadcast,
        restored: &Restored,
        source: Option<Timestamp>,
    ) -> Option<Self> {
        if broadcast.spec.paused || !restored.concerns(broadcast, source) {
            return None;
        }
        let reason = HoldReason::ClusterRestored;
        // One restore is accepted once, so its token stays the same.
        let token = token_of(broadcast, reason, [restored.id.as_str()]);
        let says = format!(
            "the cluster was restored from a backup, as was noticed at {}: whom the operator sent to after the backup was made is \
             not known, so nothing is sent. The gateway's own books show it. To go on from what the backup knows",
            restored.noticed
        );
        let hold = Self::with_token(broadcast, reason, token, &says);
        let recorded = broadcast.status.as_ref().and_then(|status| status.accepted_restore.as_ref());
        let is_accepted = recorded == Some(&hold.token) || hold.is_accepted(broadcast);
        (!is_accepted).then_some(hold)
    }

    /// The hold that a status shows, as it was found then.
    #[must_use]
    pub fn shown(broadcast: &Broadcast) -> Option<Self> {
        let status = broadcast.status.as_ref()?;
        let HoldStatus { reason, token, chats } = status.hold.clone()?;
        let message = Condition::find(&status.conditions, "Stalled").map_or("", |stalled| &stalled.message);
        let message = message.strip_prefix(NOT_OBEYED).unwrap_or(message).to_owned();
        Some(Self { reason, token, message, chats })
    }

    /// Whether a person has accepted it.
    #[must_use]
    pub fn is_accepted(&self, broadcast: &Broadcast) -> bool {
        annotated(broadcast) == Some(&self.token)
    }

    /// The message of the condition: it says so when the annotation is of something else.
    #[must_use]
    pub fn message_on(&self, broadcast: &Broadcast) -> String {
        let other = annotated(broadcast).is_some_and(|token| *token != self.token);
        if other { format!("{NOT_OBEYED}{}", self.message) } else { self.message.clone() }
    }

    /// What the status says of it.
    #[must_use]
    pub fn status(&self) -> HoldStatus {
        HoldStatus { reason: self.reason, token: self.token.clone(), chats: self.chats }
    }
}

/// Names what was found of a Broadcast. Nobody can know it before.
fn token_of<'a>(
    broadcast: &'a Broadcast,
    reason: HoldReason,
    found: impl IntoIterator<Item = &'a str>,
) -> String {
    let mut hash = Sha256::new();
    let parts = [broadcast.metadata.uid.as_deref().unwrap_or_default(), name_of(reason)];
    for part in parts.into_iter().chain(found) {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().iter().take(TOKEN_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// The hold that a person has accepted, if the status shows one.
#[must_use]
pub fn accepted(broadcast: &Broadcast) -> Option<Hold> {
    Hold::shown(broadcast).filter(|hold| hold.is_accepted(broadcast))
}

/// Whether a person has accepted that a Broadcast goes on from its pages, without the status that it had.
#[must_use]
pub fn goes_on_without_status(broadcast: &Broadcast) -> bool {
    accepted(broadcast).is_some_and(|hold| hold.reason == HoldReason::StatusLost)
}

fn annotated(broadcast: &Broadcast) -> Option<&String> {
    broadcast.metadata.annotations.as_ref()?.get(ACCEPT_ANNOTATION)
}

/// The reason as conditions say it.
#[must_use]
pub fn name_of(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::PagesOfAnotherBroadcast => "PagesOfAnotherBroadcast",
        HoldReason::StatusLost => "StatusLost",
        HoldReason::BatchesMissing => "BatchesMissing",
        HoldReason::BatchesWentBack => "BatchesWentBack",
        HoldReason::ClusterRestored => "ClusterRestored",
    }
}

/// Whether the pages in view are what a status says of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Books {
    /// They are all there, and as far as the status or further.
    Agree,
    /// Some are not in view.
    Missing,
    /// They are all there, and so many chats at least are not as far as they once were.
    Behind(i32),
}

/// Compares pages with the status that was counted from them.
#[must_use]
pub fn books(status: &BroadcastStatus, seen: &Seen) -> Books {
    let wanted = status.batches.map_or(0, |batches| batches.total);
    if usize::try_from(wanted) != Ok(seen.pages) {
        return Books::Missing;
    }
    let counted = super::standing::Standing::of_broadcast(&status.counts.unwrap_or_default());
    match seen.standing.chats_behind(counted).max(seen.behind) {
        0 => Books::Agree,
        chats => Books::Behind(chats),
    }
}

/// The hold for pages of a sealed Broadcast that do not come into view any more. What is complete is not held: it sends
/// nothing.
#[must_use]
pub fn batches_missing(
    broadcast: &Broadcast,
    pages: &[std::sync::Arc<PageSummary>],
    now: Timestamp,
) -> Option<Hold> {
    let status = broadcast.status.as_ref()?;
    if status.completion_time.is_some() || books(status, &Seen::of(pages)) != Books::Missing {
        return None;
    }
    let sealed = status.start_time.as_ref().map_or(now, |start| start.0);
    if now.duration_since(sealed) < PAGES_ARRIVE_WITHIN {
        return None;
    }
    let wanted = status.batches.map_or(0, |batches| batches.total);
    let there: Vec<String> = pages.iter().map(|page| page.index.to_string()).collect();
    let says = format!(
        "{} of {wanted} batches are there and readable: nothing more is sent, because who has the message is not known. \
         Restore the batches. Or give them up: their chats become Unknown, and the others are sent to",
        pages.len()
    );
    Some(Hold::new(broadcast, HoldReason::BatchesMissing, there.iter().map(String::as_str), &says))
}

/// The hold for pages of a sealed Broadcast that know less than they did before.
#[must_use]
pub fn batches_went_back(broadcast: &Broadcast, chats: i32) -> Hold {
    let counts = broadcast.status.as_ref().and_then(|status| status.counts).unwrap_or_default();
    let standing = super::standing::Standing::of_broadcast(&counts);
    let found = [standing.pending.to_string(), standing.evidence.to_string(), chats.to_string()];
    let says = format!(
        "the batches were put back in time: what became of {chats} chats at least is forgotten, so nothing more is sent. To \
         go on from what the batches say, with a second message to chats that are Pending again"
    );
    let hold = Hold::new(broadcast, HoldReason::BatchesWentBack, found.iter().map(String::as_str), &says);
    Hold { chats: Some(chats), ..hold }
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
