//! What each step does. Every change of a page is made by the real `Page`, `Row::merge`, `SendPolicy`, `next_window` and
//! `carried_over`; what is modelled is who writes when, from which view, and what becomes of the write.

use std::collections::BTreeMap;
use std::sync::Arc;

use broadcast_operator::api::{Include, Retry};
use broadcast_operator::domain::answer::{Answer, RefusalKind, SendPolicy};
use broadcast_operator::domain::ids::Incarnation;
use broadcast_operator::domain::outcome::{Outcome, Row};
use broadcast_operator::domain::page::{Page, Recipient};
use broadcast_operator::domain::restart::carried_over;
use jiff::Timestamp;

use super::actions::{Action, Fate, Said};
use super::mutants::{Mutant, Write};
use super::state::{Chat, Late, Replica, Restart, Sheet, State, Step, Stored, Window};

/// Time stands still: no rule of the protocol asks for it.
pub const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// How big the world is.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Chats of each page of the source.
    pub pages: &'static [usize],
    /// Whether the user restarts the Broadcast.
    pub restart: bool,
    /// Whether the user has Unknown chats sent again.
    pub resend: bool,
    /// What may become of a request.
    pub answers: &'static [Said],
    /// Whether a write may be stored without an answer.
    pub unheard: bool,
    /// Writes that may be late at the same time.
    pub late: usize,
    /// Which old views are kept.
    pub views: Views,
}

/// Which views of a page a process keeps when somebody else has stored a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// All of them.
    All,
    /// Those of the page on which it has a window. Any other one can only lead to a conflict, after which the page is read
    /// again, so it is read again at once.
    OfWindows,
}

/// The protocol, whole or without one of its rules.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub bounds: Bounds,
    pub mutant: Option<Mutant>,
}

/// What a process learns from its write.
#[derive(PartialEq, Eq)]
enum Heard {
    Stored,
    /// A conflict or an error: it reads the page again.
    Doubt,
}

impl Protocol {
    pub fn start(&self) -> State {
        let chats: usize = self.bounds.pages.iter().sum();
        let mut numbers = (0..chats).map(|chat| chat.to_string());
        let stored: Vec<Stored> = self
            .bounds
            .pages
            .iter()
            .map(|rows| numbers.by_ref().take(*rows).map(recipient).collect())
            .map(|recipients| Stored { sheet: Sheet::new(Page::planned(recipients)), version: 0 })
            .collect();
        let replica = |number: u64| Replica {
            incarnation: Arc::new(Incarnation::new(number.to_string())),
            attempts: 0,
            views: stored.clone(),
            window: None,
        };
        State {
            replicas: [replica(0), replica(1)],
            stored,
            late: Vec::new(),
            chats: vec![Chat::default(); chats],
            restart: Restart::NotAsked,
            processes: 2,
            has_regressed: false,
            has_sent_unclaimed: false,
        }
    }

    /// `None` when the step is refused.
    pub fn step(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Look { replica, page } => look(&mut state, replica, page),
            Action::Claim { replica, page, rows, fate } => {
                let attempt = state.replicas[replica].attempts;
                state.replicas[replica].attempts += 1;
                let step = Step::Claiming(rows);
                state.replicas[replica].window = Some(Window { page, attempt, has_landed: false, step });
                self.claim(&mut state, replica, fate);
                let window = state.replicas[replica].window.as_ref();
                // Nothing of it can land any more: to try it again is to make a new one.
                let is_over = matches!(fate, Fate::Answered | Fate::Lost)
                    && window.is_some_and(|window| matches!(window.step, Step::Claiming(_)));
                if is_over {
                    state.replicas[replica].window = None;
                }
            }
            Action::ClaimAgain { replica, fate } => self.claim(&mut state, replica, fate),
            Action::GiveUp { replica } => state.replicas[replica].window = None,
            Action::Send { replica, answer } => self.send(&mut state, replica, answer),
            Action::DropUnsent { replica } => {
                if let Step::Open { todo, .. } = &mut window_of(&mut state, replica).step {
                    todo.clear();
                }
            }
            Action::Record { replica, fate } => self.record(&mut state, replica, fate),
            Action::Recover { replica, page, fate } => self.recover(&mut state, replica, page, fate),
            Action::Seal { replica, page, fate } => {
                let mut content = state.replicas[replica].views[page].sheet.page().clone();
                if self.mutant == Some(Mutant::SealOverClaim) {
                    content.release_claim();
                }
                content.seal(NOW).ok()?;
                self.put(&mut state, replica, page, Write::Seal, content, fate);
            }
            Action::Plan { replica } => plan(&mut state, replica),
            Action::Crash { replica } => crash(&mut state, replica),
            Action::Land { write } => {
                let Late { page, next, version } = state.late.remove(write);
                if version.is_none_or(|version| version == state.stored[page].version) {
                    self.store(&mut state, page, next);
                }
            }
            Action::Restart => state.restart = Restart::Asked,
            Action::Foretell { replica } => {
                let window = window_of(&mut state, replica);
                let page = window.page;
                let Step::Open { todo, .. } = &window.step else { return None };
                let (row, sent) = (todo.first()?.0, Row::known(Outcome::Sent, 1, NOW));
                let mut content = state.replicas[replica].views[page].sheet.page().clone();
                content.merge(row, &sent);
                self.put(&mut state, replica, page, Write::Record, content, Fate::Answered);
            }
        }
        Some(state)
    }

    pub fn policy(&self) -> SendPolicy {
        let retry = Retry { max_attempts: 2, min_backoff_seconds: 0, max_backoff_seconds: 0 };
        SendPolicy { retry, resend: self.bounds.resend, idempotent: false }
    }

    pub fn is_conditional(&self, write: Write) -> bool {
        self.mutant != Some(Mutant::WithoutVersion(write))
    }

    /// Whether a planner has closed the pages, as far as it has seen.
    pub fn may_plan(&self, process: &Replica) -> bool {
        let mut sealed = process.views.iter().map(|view| view.sheet.page().is_sealed());
        match self.mutant {
            Some(Mutant::PlanBeforeSeal) => true,
            Some(Mutant::PlanAfterFirstSeal) => sealed.any(|sealed| sealed),
            _ => sealed.all(|sealed| sealed),
        }
    }

    /// Whether this mutant has yet to store the outcome of what it sends next.
    pub fn must_foretell(&self, process: &Replica, page: usize, row: usize) -> bool {
        self.mutant == Some(Mutant::RecordBeforeSend)
            && process.views[page].sheet.page().rows()[row].outcome != Outcome::Sent
    }

    /// `Ledger::claim`: one turn of its loop.
    fn claim(&self, state: &mut State, replica: usize, fate: Fate) {
        let process = &mut state.replicas[replica];
        let Some(Window { page, attempt, step: Step::Claiming(rows), .. }) = process.window.clone() else {
            return;
        };
        let incarnation = process.incarnation.clone();
        let mut content = process.views[page].sheet.page().clone();
        if !content.is_claimed_by(&incarnation, attempt) {
            if content.make_claim(&rows, self.bounds.resend, &incarnation, attempt, NOW).is_err() {
                process.window = None;
                return;
            }
            let is_written = self.mutant != Some(Mutant::SendWithoutClaim);
            if is_written
                && self.put(state, replica, page, Write::Claim, content.clone(), fate) != Heard::Stored
            {
                return;
            }
        }
        let todo = content.claimed_rows().into_iter().map(|row| (row, content.rows()[row].clone())).collect();
        window_of(state, replica).step = Step::Open { todo, results: Vec::new() };
    }

    /// A request and what comes back. A crash in between is a crash before the record: what was in memory is lost.
    fn send(&self, state: &mut State, replica: usize, said: Said) {
        let policy = self.policy();
        let window = state.replicas[replica].window.as_mut().expect("should have a window");
        let Step::Open { todo, results } = &mut window.step else { return };
        let (row, before) = todo.remove(0);
        let page = window.page;
        let broadcast = usize::from(page >= self.bounds.pages.len());
        state.has_sent_unclaimed |= !window.has_landed;
        let chat = &mut state.chats[state.stored[page].sheet.chats()[row]];
        chat.is_resent |= before.outcome == Outcome::Unknown;
        if matches!(said, Said::Accepted | Said::AcceptedUnheard) {
            chat.is_twice |= chat.accepted != [false; 2];
            chat.accepted[broadcast] = true;
        }
        let refused = || Answer::refused(RefusalKind::Permanent, "131026", "not on this network");
        let answer = match said {
            Said::Accepted => Answer::accepted(""),
            Said::Refused => refused(),
            _ if self.mutant == Some(Mutant::SilenceIsFailure) => refused(),
            Said::AcceptedUnheard | Said::Vanished => Answer::unknown("NoAnswer", ""),
        };
        if let Some(result) = policy.settle(&before, answer, NOW).row {
            // Of a chat that may be sent to again, a refusal may have nothing to say any more.
            let is_owed = result.has_evidence() && !(self.bounds.resend && result.outcome == Outcome::Failed);
            if is_owed && !state.stored[page].sheet.page().rows()[row].has_evidence() {
                chat.owed_by = Some(replica);
            }
            results.push((row, result));
        }
    }

    /// `Ledger::record`: one turn of its loop. Results leave memory only when they are stored.
    fn record(&self, state: &mut State, replica: usize, fate: Fate) {
        let process = &state.replicas[replica];
        let Some(Window { page, attempt, step: Step::Open { todo, results }, .. }) = &process.window else {
            return;
        };
        let (page, is_last) = (*page, todo.is_empty());
        let mut content = process.views[page].sheet.page().clone();
        let is_ours = content.is_claimed_by(&process.incarnation, *attempt);
        for (row, result) in results {
            match is_ours || self.mutant == Some(Mutant::LateRefusalCounts) {
                true => content.merge(*row, result),
                false => content.merge_late(*row, result),
            };
        }
        if is_last && is_ours {
            content.release_claim();
        }
        let heard = self.put(state, replica, page, Write::Record, content, fate);
        if heard == Heard::Stored && is_last {
            state.replicas[replica].window = None;
        } else if (heard == Heard::Stored || self.mutant == Some(Mutant::ResultsDropped))
            && let Step::Open { results, .. } = &mut window_of(state, replica).step
        {
            results.clear();
        }
    }

    /// `Ledger::recover`: one turn of its loop.
    fn recover(&self, state: &mut State, replica: usize, page: usize, fate: Fate) {
        let mut content = state.replicas[replica].views[page].sheet.page().clone();
        match self.mutant {
            Some(Mutant::OrphanSentAgain) => content.release_claim(),
            _ => content.orphan_claim(NOW),
        }
        self.put(state, replica, page, Write::Recover, content, fate);
    }

    /// `Ledger::write_once`: a PUT on the version of the view, and a fresh read after anything but a yes.
    fn put(
        &self,
        state: &mut State,
        replica: usize,
        page: usize,
        write: Write,
        next: Page,
        fate: Fate,
    ) -> Heard {
        let view = &state.replicas[replica].views[page];
        if is_same(view.sheet.page(), &next) {
            return Heard::Stored;
        }
        let version = self.is_conditional(write).then_some(view.version);
        let may_land = version.is_none_or(|version| version == state.stored[page].version);
        let next = Sheet::new(next);
        if fate == Fate::Late {
            state.late.push(Late { page, next, version });
        } else if may_land && fate != Fate::Lost {
            self.store(state, page, next);
        }
        look(state, replica, page);
        if may_land && fate == Fate::Answered { Heard::Stored } else { Heard::Doubt }
    }

    /// The page is stored as a new version. Writes on the earlier one can never land any more.
    fn store(&self, state: &mut State, page: usize, next: Sheet) {
        let before = state.stored[page].sheet.page();
        let after = next.page();
        let is_step_back = |(known, now): (&Row, &Row)| {
            let mut both = known.clone();
            both.merge(now);
            both.outcome != now.outcome
        };
        state.has_regressed |= before.rows().iter().zip(after.rows()).any(is_step_back);
        state.has_regressed |= before.is_sealed() && !after.is_sealed();
        for (chat, row) in next.chats().iter().zip(after.rows()) {
            if row.has_evidence() {
                state.chats[*chat].owed_by = None;
            }
        }
        let claim = after.claim();
        for replica in &mut state.replicas {
            let is_its = claim.is_some_and(|claim| replica.answers_for(claim));
            if let Some(window) = replica.window.as_mut().filter(|window| is_its && window.page == page) {
                window.has_landed = true;
            }
        }
        let version = state.stored[page].version + 1;
        state.stored[page] = Stored { sheet: next, version };
        state.late.retain(|late| late.page != page || late.version.is_none_or(|it| it == version));
        for replica in &mut state.replicas {
            let has_window = replica.window.as_ref().is_some_and(|window| window.page == page);
            if self.bounds.views == Views::OfWindows && !has_window {
                replica.views[page] = state.stored[page].clone();
            }
        }
    }
}

fn look(state: &mut State, replica: usize, page: usize) {
    state.replicas[replica].views[page] = state.stored[page].clone();
}

/// A planner's restart, from the pages as it has closed them. What is not closed it takes as if it were: a mutant's way.
fn plan(state: &mut State, replica: usize) {
    let pages: Vec<Page> = state.replicas[replica]
        .views
        .iter()
        .map(|view| {
            let mut page = view.sheet.page().clone();
            // A claimed page contributes what it has.
            let _ = page.seal(NOW);
            page
        })
        .collect();
    state.restart = Restart::Planned;
    let recipients = carried_over(pages.iter(), &[Include::Failed, Include::Unsent]);
    if recipients.is_empty() {
        return;
    }
    let page = Stored { sheet: Sheet::new(Page::planned(recipients)), version: 0 };
    state.stored.push(page.clone());
    for replica in &mut state.replicas {
        replica.views.push(page.clone());
    }
}

fn crash(state: &mut State, replica: usize) {
    let incarnation = Arc::new(Incarnation::new(state.processes.to_string()));
    state.processes += 1;
    state.replicas[replica] = Replica { incarnation, attempts: 0, views: state.stored.clone(), window: None };
    for chat in &mut state.chats {
        chat.owed_by = chat.owed_by.filter(|by| *by != replica);
    }
}

fn window_of(state: &mut State, replica: usize) -> &mut Window {
    state.replicas[replica].window.as_mut().expect("should have a window")
}

fn is_same(one: &Page, other: &Page) -> bool {
    one.rows() == other.rows() && one.claim() == other.claim() && one.is_sealed() == other.is_sealed()
}

fn recipient(chat: String) -> Recipient {
    Recipient { chat, skip: String::new(), params: BTreeMap::new() }
}
