//! The tests of the tests: each mistake that can be built in must turn a case red.
//!
//! Cases of the recipes that are near to the mistake run until the first of them fails. A mistake that none notices is the
//! failure here.

use std::collections::BTreeSet;
use std::sync::Arc;

use broadcast_operator::mutants::{Mutant, set};
use futures::future::join_all;

use crate::args::Arguments;
use crate::cases::{self, Case, Summary};
use crate::play::Play;
use crate::recipes::{RECIPES, Recipe};
use crate::scene::{Env, Failure};

/// Recipes in which a mistake shows itself, the likeliest first.
fn recipes_of(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::RecordBeforeSend | Mutant::OrphanClaimedAgain => &["A3", "A1"],
        Mutant::ResultsDroppedOnConflict => &["A6", "D1"],
        Mutant::ClaimWithoutVersion | Mutant::ChildBeforeSeal => &["D1", "E1"],
        Mutant::SealWithoutVersion | Mutant::SealOverClaim => &["E2"],
        Mutant::AnsweredUnstored | Mutant::JournalDeletedEarly => &["A8"],
    }
}

/// Tries every mistake. What operators without one do is the measure.
pub async fn run(arguments: &Arguments, env: &Arc<Env>) -> Result<Summary, Failure> {
    let near = |name: &&'static str| RECIPES.iter().find(|recipe| recipe.name == *name);
    let all: Vec<&Recipe> =
        Mutant::ALL.iter().flat_map(|mutant| recipes_of(*mutant)).filter_map(near).collect();
    let plays: BTreeSet<Play> = all.iter().flat_map(|recipe| recipe.plays(false)).copied().collect();
    let references = cases::references(env, plays.into_iter()).await?;
    let (mut summary, mut number) = (Summary::default(), 0);
    for mutant in Mutant::ALL {
        let recipes = recipes_of(mutant).iter().filter_map(near);
        let of_play = recipes.flat_map(|recipe| recipe.plays(false).iter().map(move |play| (recipe, play)));
        let cases: Vec<Case> =
            of_play.flat_map(|(recipe, play)| (recipe.cases)(&references[play], false)).collect();
        set(Some(mutant));
        let noticed = first_red(env, cases, arguments.jobs, &mut number, mutant).await;
        set(None);
        if let Some((case, failure)) = noticed {
            let broken = failure.lines().map(str::trim).find(|line| !line.ends_with(':'));
            println!("{mutant:?} is noticed by {case}: {}", broken.unwrap_or(&failure));
            summary.passed += 1;
        } else {
            println!("{mutant:?} is noticed by nothing of {:?}", recipes_of(mutant));
            summary.failed += 1;
        }
    }
    Ok(summary)
}

/// Runs cases until one notices the mistake, so many at a time, and lets all of them come to their end. Each gets a number of its
/// own. A case that breaks no promise and comes to no end has noticed it if it comes to its end without the mistake: else the
/// machine was busy.
async fn first_red(
    env: &Arc<Env>,
    cases: Vec<Case>,
    at_once: usize,
    number: &mut usize,
    mutant: Mutant,
) -> Option<(String, Failure)> {
    for cases in cases.chunks(at_once) {
        let running = cases.iter().map(|case| {
            *number += 1;
            cases::run_one(env.clone(), case.clone(), *number, false)
        });
        let running: Vec<_> = running.collect();
        let ended = join_all(running).await;
        for (case, (name, result)) in cases.iter().zip(ended) {
            let Err(failure) = result else { continue };
            if is_of_a_promise(&failure) {
                return Some((name, failure));
            }
            *number += 1;
            set(None);
            let (_, without) = cases::run_one(env.clone(), case.clone(), *number, false).await;
            if without.is_ok() {
                return Some((name, failure));
            }
            set(Some(mutant));
        }
    }
    None
}

/// Whether a promise was broken: a wait that came to no end on a busy machine is no proof of anything.
fn is_of_a_promise(failure: &str) -> bool {
    let names_one = |line: &str| {
        let mut letters = line.trim_start().chars();
        letters.next() == Some('I') && letters.next().is_some_and(|letter| letter.is_ascii_digit())
    };
    failure.lines().any(names_one)
}
