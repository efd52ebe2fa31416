//! What is checked: the protocol in worlds that are small enough to visit every state, and each mutant in one of them.

use super::actions::Said;
use super::mutants::{MUTANTS, Mutant};
use super::protocol::{Bounds, Protocol, Views};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub protocol: Protocol,
    /// The promise that must break; none of them may where there is none.
    pub breaks: Option<&'static str>,
    /// Runs with `--whole` alone.
    pub is_big: bool,
}

const ANSWERS: [Said; 4] = [Said::Accepted, Said::Refused, Said::AcceptedUnheard, Said::Vanished];

/// One page of two chats, and every fault: two senders, each of which may believe that the other is gone.
pub const TAKE_OVER: Bounds = Bounds {
    pages: &[2],
    restart: false,
    resend: false,
    answers: &ANSWERS,
    unheard: true,
    late: 1,
    views: Views::All,
};

/// One chat, the user stops and restarts at any moment, and every fault, while the restart sends too.
pub const RESTART: Bounds = Bounds { pages: &[1], restart: true, ..TAKE_OVER };

/// Two pages that are closed one after the other, and a restart with two chats. Processes die and contradict each other, and
/// every write gets its answer.
pub const TWO_PAGES: Bounds =
    Bounds { pages: &[1, 1], unheard: false, late: 0, views: Views::OfWindows, ..RESTART };

/// One chat that is sent again while it is Unknown, as the user wants it. Every write gets its answer: a claim that is tried again
/// does not count the tries of its rows, so with lost answers they would grow for ever.
const RESEND: Bounds = Bounds { pages: &[1], restart: false, resend: true, ..TWO_PAGES };

const WORLDS: [(&str, Bounds); 4] = [
    ("the_protocol_holds_while_senders_take_over_from_each_other", TAKE_OVER),
    ("the_protocol_holds_while_the_user_restarts", RESTART),
    ("the_protocol_holds_while_a_restart_closes_two_pages", TWO_PAGES),
    ("the_protocol_holds_while_unknown_chats_are_sent_again", RESEND),
];

const BIG_WORLDS: [(&str, Bounds); 3] = [
    ("the_protocol_holds_with_two_late_writes", Bounds { late: 2, ..TAKE_OVER }),
    ("the_protocol_holds_while_the_user_restarts_with_two_late_writes", Bounds { late: 2, ..RESTART }),
    ("the_protocol_holds_while_a_restart_closes_two_pages_unheard", Bounds { unheard: true, ..TWO_PAGES }),
];

/// All cases, the longest first.
pub fn cases() -> Vec<Case> {
    let world = |is_big: bool| {
        move |(name, bounds): (&str, Bounds)| Case {
            name: name.to_owned(),
            protocol: Protocol { bounds, mutant: None },
            breaks: None,
            is_big,
        }
    };
    let mutants = MUTANTS.into_iter().map(|(mutant, name, promise)| Case {
        name: format!("mutant_{name}"),
        protocol: Protocol { bounds: world_of(mutant), mutant: Some(mutant) },
        breaks: Some(promise),
        is_big: false,
    });
    BIG_WORLDS.map(world(true)).into_iter().chain(WORLDS.map(world(false))).chain(mutants).collect()
}

/// The smallest world in which a mutant can go wrong.
fn world_of(mutant: Mutant) -> Bounds {
    use super::mutants::Write;
    match mutant {
        Mutant::WithoutVersion(Write::Seal)
        | Mutant::SealOverClaim
        | Mutant::PlanBeforeSeal
        | Mutant::SilenceIsFailure => RESTART,
        Mutant::PlanAfterFirstSeal => TWO_PAGES,
        Mutant::LateRefusalCounts => RESEND,
        Mutant::WithoutVersion(Write::Claim | Write::Record | Write::Recover)
        | Mutant::RecordBeforeSend
        | Mutant::SendWithoutClaim
        | Mutant::OrphanSentAgain
        | Mutant::ResultsDropped => TAKE_OVER,
    }
}
