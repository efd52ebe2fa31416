//! A model of the delivery protocol: claim, send, record, recover, seal, plan a restart. Every state that its bounds allow is
//! visited, and in each the promises of `docs/delivery-guarantees.md` must hold; see `properties.rs`.
//!
//! In the world are pages in an API server that compares versions, two processes, a gateway, and a user who stops and restarts
//! once. At any moment a process may die and lose its memory, however often; act on an old view of a page; take the other one
//! for dead and call its claim an orphan, while that one sends on; drop what it has not sent. A write may be refused, be lost, be
//! stored without an answer, or be stored later. A request may be accepted, be refused, or get no answer and have arrived or not.
//! There are no clocks and no leases: whatever may happen late may happen at any time.
//!
//! The steps are in `actions.rs`, each with the code that it mirrors, and what they do is in `protocol.rs`. Every change of a page
//! is made by the product's own `Page`, `Row::merge`, `SendPolicy::settle`, `next_window` and `carried_over`, so what is modelled
//! is `src/ledger/store.rs`, `src/dispatcher` and `src/planner/restart.rs`. What is left out: receipts, several windows in one
//! process (its memory is lost as a whole), and the steps of writing a restart's pages, which nothing is sent from before they
//! are all there.
//!
//! A model that holds proves little if it cannot fail. So each rule is taken out once (`mutants.rs`), and then the promise that
//! hangs on it must break; and what should be possible must be reached, such as that everything is sent.
//!
//! `cargo test --test model` takes seconds and ends with a line of counts. `cargo test --test model -- --whole` visits bigger
//! worlds too, for minutes; `-- --paths mutant` shows the steps of each counterexample.

mod actions;
mod arguments;
mod cases;
mod mutants;
mod properties;
mod protocol;
mod state;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use broadcast_operator::clock;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use actions::Action;
use arguments::{Arguments, Extent, Task};
use cases::{Case, cases};
use properties::{PROMISES, properties};
use protocol::Protocol;
use state::State;

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.enabled(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.step(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties(self)
    }
}

/// What became of a case.
struct Report {
    is_as_wanted: bool,
    text: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::read(std::env::args().skip(1));
    let mut cases = cases();
    cases.retain(|case| arguments.wants(&case.name) && (arguments.extent == Extent::Whole || !case.is_big));
    if arguments.task == Task::List {
        for case in &cases {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    let failed = run(&cases, arguments.task == Task::ShowPaths);
    println!("\nmodel: {} passed, {failed} failed", cases.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the cases on all processors, each on one, so that it finds the same every time. Returns how many failed.
fn run(cases: &[Case], shows_paths: bool) -> usize {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = clock::monotonic();
            let report = catch_unwind(|| check(case, shows_paths))
                .unwrap_or_else(|_| Report { is_as_wanted: false, text: "the model panicked".into() });
            let verdict = if report.is_as_wanted { "ok" } else { "FAILED" };
            failed.fetch_add(usize::from(!report.is_as_wanted), Ordering::Relaxed);
            let seconds = started.elapsed().as_secs_f32();
            println!("{} ... {verdict} ({seconds:.1} s)\n    {}", case.name, report.text);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZeroUsize::get) {
            scope.spawn(work);
        }
    });
    failed.into_inner()
}

fn check(case: &Case, shows_path: bool) -> Report {
    match case.breaks {
        None => check_whole(case.protocol),
        Some(promise) => check_mutant(case.protocol, promise, shows_path),
    }
}

/// The protocol breaks no promise in any state, and reaches what it should.
fn check_whole(protocol: Protocol) -> Report {
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    if let Some(promise) = PROMISES.into_iter().find(|promise| found.contains_key(promise)) {
        let steps = shortest(protocol, promise).map_or_else(String::new, |(steps, _)| path(&steps));
        return Report { is_as_wanted: false, text: format!("{promise} is broken:{steps}") };
    }
    let wanted = properties(&protocol).into_iter().filter(|it| it.expectation == Expectation::Sometimes);
    let missed: Vec<&str> = wanted.map(|it| it.name).filter(|name| !found.contains_key(name)).collect();
    let text = match missed[..] {
        [] => format!(
            "{} states by {} steps, at most {} deep: nothing is broken",
            grouped(checker.unique_state_count()),
            grouped(checker.state_count()),
            checker.max_depth()
        ),
        _ => format!("never reached: {}", missed.join(", ")),
    };
    Report { is_as_wanted: missed.is_empty(), text }
}

/// The mutant breaks its promise.
fn check_mutant(protocol: Protocol, promise: &'static str, shows_path: bool) -> Report {
    let Some((steps, states)) = shortest(protocol, promise) else {
        return Report { is_as_wanted: false, text: format!("{promise} is not broken: nobody would notice") };
    };
    let steps_shown = if shows_path { path(&steps) } else { String::new() };
    let text = format!(
        "{promise} is broken after {} steps, among {} states{steps_shown}",
        steps.len(),
        grouped(states)
    );
    Report { is_as_wanted: true, text }
}

/// The shortest way to break a promise, and in how many states it was found. The checker looks at states in blocks and keeps
/// the last way of a block, so it is asked again for a shorter one.
fn shortest(protocol: Protocol, promise: &'static str) -> Option<(Vec<Action>, usize)> {
    let mut best: Option<(Vec<Action>, usize)> = None;
    loop {
        let wanted = HasDiscoveries::AllOf(BTreeSet::from([promise]));
        let mut builder = protocol.checker().finish_when(wanted);
        if let Some((steps, _)) = &best {
            // The start is of depth 1, and a state at this depth is not looked at any more.
            builder = builder.target_max_depth(steps.len() + 1);
        }
        let checker = builder.spawn_bfs().join();
        let Some(found) = checker.discovery(promise) else { return best };
        let states = best.map_or_else(|| checker.unique_state_count(), |(_, states)| states);
        best = Some((found.into_actions(), states));
    }
}

fn path(steps: &[Action]) -> String {
    steps.iter().map(|step| format!("\n      {step:?}")).collect()
}

/// A number with a comma at the thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
