//! What can happen next.

use std::ops::Range;

use broadcast_operator::domain::window::{Choice, next_window};

use super::mutants::{Mutant, Write};
use super::protocol::{NOW, Protocol};
use super::state::{REPLICAS, Replica, Restart, State, Step, Window};

/// One step of the world. In brackets the code that it mirrors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A process takes in a page as it is stored now (`Ledger::load`, the watch).
    Look { replica: usize, page: usize },
    /// A process stores a claim on rows (`Sender::spawn_claim`, `Ledger::claim`).
    Claim { replica: usize, page: usize, rows: Range<usize>, fate: Fate },
    /// It tries the same claim again after its answer was lost (the loop of `Ledger::write`).
    ClaimAgain { replica: usize, fate: Fate },
    /// It gives that claim up (`TRIES` of `Ledger::write`, `RecordedClaim::drop`).
    GiveUp { replica: usize },
    /// It sends the next row of its claim (`Sender::send_one`, `SendPolicy::settle`).
    Send { replica: usize, answer: Said },
    /// It forgets what it has claimed and not sent: a stop, a rate limit, a broken channel (`Lane::drop_unsent`).
    DropUnsent { replica: usize },
    /// It stores its results; the last time it releases the claim (`Lane::due`, `Ledger::record`).
    Record { replica: usize, fate: Fate },
    /// It calls a claim that it does not answer for an orphan (`Sender::recover_orphans`, `Ledger::recover`).
    Recover { replica: usize, page: usize, fate: Fate },
    /// Its planner closes a page of the source (`planner::restart::close_pages`, `Ledger::seal`).
    Seal { replica: usize, page: usize, fate: Fate },
    /// Its planner plans the restart from the closed pages (`domain::restart::carried_over`, `Ledger::create_page`).
    Plan { replica: usize },
    /// It dies with all that it has in memory, and a new one starts (`Ledger::new`).
    Crash { replica: usize },
    /// A write whose process heard an error arrives.
    Land { write: usize },
    /// The user stops the Broadcast and applies a restart. Processes may see it much later, or never.
    Restart,
    /// Only a mutant: the outcome is stored first, and sent then.
    Foretell { replica: usize },
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It gets its answer: stored, or a conflict.
    Answered,
    /// An error, and nothing is stored.
    Lost,
    /// It is stored, and the answer is lost.
    Unanswered,
    /// An error, and it may be stored later.
    Late,
}

/// What becomes of a request to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The gateway took it and said so.
    Accepted,
    /// The gateway refused it and said so.
    Refused,
    /// The gateway took it, and the answer is lost.
    AcceptedUnheard,
    /// It did not arrive, and nobody knows.
    Vanished,
}

impl Protocol {
    /// Everything that can happen in a state.
    pub fn enabled(&self, state: &State, actions: &mut Vec<Action>) {
        for replica in 0..REPLICAS {
            let process = &state.replicas[replica];
            for page in 0..state.stored.len() {
                self.enabled_on_page(state, replica, page, actions);
            }
            if let Some(window) = &process.window {
                self.enabled_with_window(state, replica, window, actions);
                actions.push(Action::Crash { replica });
            }
            if state.restart == Restart::Asked && self.may_plan(process) {
                actions.push(Action::Plan { replica });
            }
        }
        actions.extend((0..state.late.len()).map(|write| Action::Land { write }));
        if self.bounds.restart && state.restart == Restart::NotAsked {
            actions.push(Action::Restart);
        }
    }

    /// Whether a claim or a seal is refused, the page itself says.
    fn enabled_on_page(&self, state: &State, replica: usize, page: usize, actions: &mut Vec<Action>) {
        let process = &state.replicas[replica];
        let view = process.views[page].sheet.page();
        if !state.is_fresh(replica, page) {
            actions.push(Action::Look { replica, page });
        }
        if process.window.is_none() {
            for rows in self.windows(process, page) {
                let claim = |fate| Action::Claim { replica, page, rows: rows.clone(), fate };
                match self.mutant {
                    Some(Mutant::SendWithoutClaim) => actions.push(claim(Fate::Answered)),
                    _ => actions.extend(self.fates(state, replica, page, Write::Claim).map(claim)),
                }
            }
        }
        if view.claim().is_some_and(|claim| !process.answers_for(claim)) {
            let recover = |fate| Action::Recover { replica, page, fate };
            actions.extend(self.fates(state, replica, page, Write::Recover).map(recover));
        }
        let is_source = page < self.bounds.pages.len();
        if state.restart == Restart::Asked && is_source && !view.is_sealed() {
            let seal = |fate| Action::Seal { replica, page, fate };
            actions.extend(self.fates(state, replica, page, Write::Seal).map(seal));
        }
    }

    fn enabled_with_window(&self, state: &State, replica: usize, window: &Window, actions: &mut Vec<Action>) {
        let fates = |write| self.fates(state, replica, window.page, write);
        match &window.step {
            Step::Claiming(_) => {
                actions.extend(fates(Write::Claim).map(|fate| Action::ClaimAgain { replica, fate }));
                actions.push(Action::GiveUp { replica });
            }
            Step::Open { todo, results } => {
                if let Some((row, _)) = todo.first() {
                    if self.must_foretell(&state.replicas[replica], window.page, *row) {
                        actions.push(Action::Foretell { replica });
                    } else {
                        let answers = self.bounds.answers.iter();
                        actions.extend(answers.map(|answer| Action::Send { replica, answer: *answer }));
                    }
                    actions.push(Action::DropUnsent { replica });
                }
                if todo.is_empty() || !results.is_empty() {
                    actions.extend(fates(Write::Record).map(|fate| Action::Record { replica, fate }));
                }
            }
        }
    }

    /// Windows that a process may ask for: by `next_window`, with each budget.
    fn windows(&self, process: &Replica, page: usize) -> Vec<Range<usize>> {
        let rows = process.views[page].sheet.page().rows();
        let mut windows = Vec::with_capacity(rows.len());
        for budget in 1..=rows.len() {
            match next_window(rows, &self.policy(), NOW, budget) {
                Choice::Window(window) if !windows.contains(&window) => windows.push(window),
                _ => {}
            }
        }
        windows
    }

    /// What can become of a write from this view. One with an old version is refused, whenever it arrives, and then there
    /// is nothing to tell its fates apart.
    fn fates(
        &self,
        state: &State,
        replica: usize,
        page: usize,
        write: Write,
    ) -> impl Iterator<Item = Fate> + use<> {
        let may_land = state.is_fresh(replica, page) || !self.is_conditional(write);
        let may_be_unheard = self.bounds.unheard;
        let has_room = state.late.len() < self.bounds.late;
        let all = [Fate::Answered, Fate::Lost, Fate::Unanswered, Fate::Late];
        all.into_iter().filter(move |fate| match fate {
            Fate::Answered => true,
            // Nothing is stored, and the process reads again: a look. Only memory can differ by it.
            Fate::Lost => may_land && write == Write::Record,
            Fate::Unanswered => may_land && may_be_unheard,
            Fate::Late => may_land && has_room,
        })
    }
}
