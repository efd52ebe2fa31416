//! What must hold in every state, and what must be possible.

use broadcast_operator::domain::outcome::Outcome;
use stateright::Property;

use super::protocol::Protocol;
use super::state::{Restart, State, Step};

/// No chat gets two messages, across the source and its restart, unless Unknown ones are to be sent again.
pub const NEVER_TWICE: &str = "never twice";
/// What is recorded is so: Sent was taken by the gateway; Failed, Cancelled, and Pending outside of a claim were not.
pub const TRUTH: &str = "truth";
/// A definite answer is in the memory of the process that has it, or stored. A restart has every chat that was cancelled for
/// it, and none that was reached.
pub const NO_LOSS: &str = "no loss";
/// No write takes evidence or a seal back.
pub const NO_REGRESS: &str = "no regress";
/// Before each request its own claim was stored.
pub const CLAIM_FIRST: &str = "claim first";

pub const PROMISES: [&str; 5] = [NEVER_TWICE, TRUTH, NO_LOSS, NO_REGRESS, CLAIM_FIRST];

/// Everything is sent and recorded.
const ALL_SENT: &str = "everything can be sent";
/// A process whose claim was called an orphan sends on, and stores what it was told.
const DEPOSED: &str = "a deposed sender can have an answer";
/// What the source has not sent, its restart sends and records.
const REST_SENT: &str = "a restart can send the rest";

pub fn properties(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        Property::always(NEVER_TWICE, |_, state: &State| {
            state.chats.iter().all(|chat| !chat.is_twice || chat.is_resent)
        }),
        Property::always(TRUTH, is_true),
        Property::always(NO_LOSS, is_nothing_lost),
        Property::always(NO_REGRESS, |_, state: &State| !state.has_regressed),
        Property::always(CLAIM_FIRST, |_, state: &State| !state.has_sent_unclaimed),
        Property::sometimes(ALL_SENT, |_, state: &State| recorded_sent(state) == state.chats.len()),
        Property::sometimes(DEPOSED, has_deposed_answer),
    ];
    if protocol.bounds.restart {
        properties.push(Property::sometimes(REST_SENT, |protocol, state: &State| {
            let has_restart = state.stored.len() > protocol.bounds.pages.len();
            has_restart && recorded_sent(state) == state.chats.len()
        }));
    }
    properties
}

fn is_true(protocol: &Protocol, state: &State) -> bool {
    state.stored.iter().enumerate().all(|(number, stored)| {
        let broadcast = usize::from(number >= protocol.bounds.pages.len());
        let page = stored.sheet.page();
        let claim = page.claim().map_or(0..0, |claim| claim.from..claim.to);
        let mut rows = page.rows().iter().zip(stored.sheet.chats()).zip(0..);
        rows.all(|((row, chat), number)| {
            let is_accepted = state.chats[*chat].accepted[broadcast];
            match row.outcome {
                Outcome::Sent => is_accepted,
                Outcome::Failed | Outcome::Cancelled => !is_accepted,
                Outcome::Pending => !is_accepted || claim.contains(&number),
                Outcome::Unknown => true,
                Outcome::Skipped | Outcome::Delivered | Outcome::Read => false,
            }
        })
    })
}

fn is_nothing_lost(protocol: &Protocol, state: &State) -> bool {
    let in_memory = |chat: usize, by: usize| {
        state.replicas[by].window.as_ref().is_some_and(|window| {
            let chats = state.stored[window.page].sheet.chats();
            window.results().iter().any(|(row, result)| chats[*row] == chat && result.has_evidence())
        })
    };
    let mut owed = state.chats.iter().enumerate().filter_map(|(chat, it)| Some((chat, it.owed_by?)));
    let (source, restart) = state.stored.split_at(protocol.bounds.pages.len());
    let carries = |chat: usize| restart.iter().any(|page| page.sheet.chats().contains(&chat));
    let mut rows = source.iter().flat_map(|page| page.sheet.chats().iter().zip(page.sheet.page().rows()));
    owed.all(|(chat, by)| in_memory(chat, by))
        && rows.all(|(chat, row)| match row.outcome {
            Outcome::Cancelled => state.restart != Restart::Planned || carries(*chat),
            Outcome::Failed => true,
            _ => !carries(*chat),
        })
}

fn recorded_sent(state: &State) -> usize {
    let rows = state.stored.iter().flat_map(|stored| stored.sheet.page().rows());
    rows.filter(|row| row.outcome == Outcome::Sent).count()
}

fn has_deposed_answer(_: &Protocol, state: &State) -> bool {
    state.replicas.iter().filter_map(|replica| replica.window.as_ref()).any(|window| {
        let page = state.stored[window.page].sheet.page();
        let Step::Open { results, .. } = &window.step else { return false };
        results.iter().any(|(row, result)| {
            result.outcome == Outcome::Sent && page.rows()[*row].outcome == Outcome::Unknown
        })
    })
}
