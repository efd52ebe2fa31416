//! A restart: when it may take its source over, and which chats it gets.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::audience::DUPLICATE;
use super::chat::ChatRules;
use super::outcome::{Outcome, Row};
use super::page::{Page, Recipient};
use crate::api::{
    BatchCounts, Broadcast, Counts, Include, Lineage, MAX_BROADCAST_NAME, ObjectRef, RestartFrom,
};

/// Whether a restart may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The source can be taken over now.
    Go,
    /// Later, and why not now.
    Wait(String),
    /// Never, as things stand: a reason for programs, and what to do.
    Refused(&'static str, String),
}

/// Decides by the source as it is stored.
#[must_use]
pub fn decide(child: &Broadcast, request: &RestartFrom, source: Option<&Broadcast>) -> Decision {
    let name = &request.name;
    if child.metadata.name.as_deref() == Some(name) {
        return refused("RestartOfItself", "a Broadcast cannot restart itself: give it another name".into());
    }
    if child.spec.recipients.is_some() {
        return refused(
            "RecipientsGiven",
            "a restart takes its recipients from the source: remove spec.recipients".into(),
        );
    }
    let Some(source) = source else {
        return refused(
            "SourceNotFound",
            format!(
                "Broadcast {name} does not exist in this namespace: check spec.restartFrom.name. A restart needs the log of its source: \
                 if that was deleted, apply a Broadcast with recipients of its own"
            ),
        );
    };
    if request.uid.is_some() && request.uid != source.metadata.uid {
        return refused(
            "SourceHasAnotherUid",
            format!(
                "Broadcast {name} was deleted and made anew: its chats are not those of the one with UID {}",
                request.uid.as_deref().unwrap_or_default()
            ),
        );
    }
    let status = source.status.clone().unwrap_or_default();
    if let Some(by) = &status.restarted_by {
        if Some(&by.uid) != child.metadata.uid.as_ref() {
            return already_restarted(name, by);
        }
        return Decision::Go;
    }
    if status.audience_digest.is_none() && status.hold.is_some() {
        return refused("SourceHeld", held(name));
    }
    if status.audience_digest.is_none() {
        return Decision::Wait(format!("Broadcast {name} has not begun yet: there is nothing to send again"));
    }
    let sending = status.counts.unwrap_or_default().sending;
    let stopped = source.spec.paused && sending == 0;
    if status.completion_time.is_some() || stopped || source.metadata.deletion_timestamp.is_some() {
        return Decision::Go;
    }
    Decision::Wait(format!(
        "waiting until Broadcast {name} is complete or stopped: to stop it, kubectl patch bc {name} --type=merge -p \
         '{{\"spec\":{{\"paused\":true}}}}'"
    ))
}

/// What to do about a source whose books are in doubt.
#[must_use]
pub fn held(source: &str) -> String {
    format!(
        "the log of Broadcast {source} was put back in time or is held, so who has the message is not known: see kubectl \
         describe bc {source}, and decide there first"
    )
}

/// Decides about a source with closed batches that names no restart: a restart gave it back before it began, or its status was lost
/// or is older than the restart. `by` is a restart that has begun with its chats, if one is left.
#[must_use]
pub fn decide_closed(child: &Broadcast, source: &Broadcast, by: Option<&ObjectRef>) -> Decision {
    let name = source.metadata.name.as_deref().unwrap_or_default();
    let is_given_back = source.status.as_ref().is_some_and(|status| status.given_back_by.is_some());
    match by {
        Some(by) if Some(&by.uid) != child.metadata.uid.as_ref() => already_restarted(name, by),
        None if !is_given_back => refused(
            "AlreadyRestarted",
            format!(
                "batches of Broadcast {name} were closed by a restart that is not known any more, so who has the message by it \
                 is not known either. Find out from the gateway's books who does not have it, and send to those with a \
                 Broadcast with recipients of its own"
            ),
        ),
        Some(_) | None => Decision::Go,
    }
}

/// Whether a Broadcast is a restart of this very source, as far as it says so itself.
#[must_use]
pub fn is_restart_of(child: &Broadcast, source: &Broadcast) -> bool {
    let Some(request) = &child.spec.restart_from else { return false };
    let taken = child.status.as_ref().and_then(|status| status.restarted_from.as_ref());
    let uid = taken.map(|taken| &taken.uid).or(request.uid.as_ref());
    source.metadata.name.as_ref() == Some(&request.name)
        && (uid.is_none() || uid == source.metadata.uid.as_ref())
}

fn already_restarted(name: &str, by: &ObjectRef) -> Decision {
    refused(
        "AlreadyRestarted",
        format!("Broadcast {name} was restarted by {} already: restart that one", by.name),
    )
}

fn refused(reason: &'static str, message: String) -> Decision {
    Decision::Refused(reason, message)
}

/// The chats of sealed pages that a restart sends to, with their parameters.
#[must_use]
pub fn carried_over<'a>(pages: impl Iterator<Item = &'a Page>, include: &[Include]) -> Vec<Recipient> {
    pages
        .flat_map(|page| page.recipients().iter().zip(page.rows()))
        .filter(|(recipient, row)| recipient.skip.is_empty() && is_included(row, include))
        .map(|(recipient, _)| recipient.clone())
        .collect()
}

/// How many chats of a source do not have the message, or may not have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    failed: i32,
    unsent: i32,
    unknown: i32,
}

impl Left {
    /// By what the status of the source says, which may be a second behind.
    #[must_use]
    pub fn of(counts: &Counts) -> Self {
        let Counts { failed, pending, sending, cancelled, unknown, .. } = *counts;
        Self { failed, unsent: pending + sending + cancelled, unknown }
    }

    /// The same with those of one more of its pages.
    #[must_use]
    pub fn with(self, page: &Page) -> Self {
        let BatchCounts { failed, pending, cancelled, unknown, .. } = page.counts();
        Self {
            failed: self.failed + failed,
            unsent: self.unsent + pending + cancelled,
            unknown: self.unknown + unknown,
        }
    }

    /// Why a restart named `child` would get nobody although chats are left, if so: `include` names none of them. Such a restart must not
    /// close the source to one that does.
    #[must_use]
    pub fn nobody_included(self, child: &str, request: &RestartFrom) -> Option<String> {
        let Self { failed, unsent, unknown } = self;
        let groups = [
            (failed, "Failed", Include::Failed),
            (unsent, "Cancelled or not sent", Include::Unsent),
            (unknown, "Unknown", Include::Unknown),
        ];
        let left = || groups.iter().filter(|(chats, ..)| *chats > 0);
        if left().next().is_none() || left().any(|(_, _, group)| request.include.contains(group)) {
            return None;
        }
        let counts: Vec<String> = left().map(|(chats, name, _)| format!("{chats} {name}")).collect();
        let hint = match unknown {
            0 => "",
            _ => " Unknown ones may have the message: ask the gateway first.",
        };
        let include: BTreeSet<Include> =
            left().map(|(_, _, group)| *group).chain(request.include.iter().copied()).collect();
        Some(format!(
            "Broadcast {} has chats left, {}, and spec.restartFrom.include names none of them.{hint} To send to them: kubectl patch bc \
             {child} --type=merge -p '{{\"spec\":{{\"restartFrom\":{{\"include\":{}}}}}}}'",
            request.name,
            counts.join(" and "),
            serde_json::json!(include)
        ))
    }
}

/// Chats of a source whose channel has the rules `from`, as those of a channel with the rules `to`. None is left out: what
/// the new channel cannot send to, or has already, is a row with the reason.
#[must_use]
pub fn readdressed(recipients: Vec<Recipient>, from: &ChatRules, to: &ChatRules) -> Vec<Recipient> {
    let mut seen = HashSet::new();
    let skipped = |chat, skip| Recipient { chat, skip, params: BTreeMap::new() };
    recipients
        .into_iter()
        .map(|recipient| match to.adopt(&recipient.chat, from) {
            Err(problem) => skipped(recipient.chat, problem.to_string()),
            Ok(chat) if seen.insert(to.identity(&chat).into_owned()) => Recipient { chat, ..recipient },
            Ok(chat) => skipped(chat, DUPLICATE.into()),
        })
        .collect()
}

fn is_included(row: &Row, include: &[Include]) -> bool {
    match row.outcome {
        Outcome::Failed => include.contains(&Include::Failed),
        Outcome::Cancelled => include.contains(&Include::Unsent),
        Outcome::Unknown => include.contains(&Include::Unknown),
        Outcome::Pending | Outcome::Skipped | Outcome::Sent | Outcome::Delivered | Outcome::Read => false,
    }
}

/// The place of a restart in its chain. `accepted` chats of the source have the message: its pages say so, while its status
/// may be a second behind.
#[must_use]
pub fn lineage(source: &Broadcast, accepted: i32) -> Lineage {
    let status = source.status.as_ref();
    let total = status.and_then(|status| status.total).unwrap_or_default();
    let known = status.and_then(|status| status.lineage.clone());
    let known = known.unwrap_or_else(|| Lineage {
        root: source.metadata.name.clone().unwrap_or_default(),
        depth: 0,
        total,
        reached: 0,
    });
    let counts = status.and_then(|status| status.counts).unwrap_or_default();
    let counted = counts.sent + counts.delivered + counts.read;
    Lineage { depth: known.depth + 1, reached: known.reached - counted + accepted, ..known }
}

/// How many chats of pages have the message.
#[must_use]
pub fn accepted<'a>(pages: impl Iterator<Item = &'a Page>) -> i32 {
    let counts = pages.map(Page::counts);
    counts.map(|counts| counts.sent + counts.delivered + counts.read).sum()
}

/// Name of the child that a restart by annotation makes: always the same for the same source.
#[must_use]
pub fn child_name(source: &ObjectRef, lineage: &Lineage) -> String {
    let suffix = format!("-r{}", lineage.depth);
    let name = format!("{}{suffix}", lineage.root);
    if name.len() <= MAX_BROADCAST_NAME {
        return name;
    }
    // Cut, and told apart by the source's UID.
    let tag: String = source.uid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    let room = MAX_BROADCAST_NAME - suffix.len() - tag.len() - 1;
    format!("{}-{tag}{suffix}", lineage.root[..room].trim_end_matches(['-', '.']))
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
