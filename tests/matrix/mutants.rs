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
        Mutant::ClaimWithoutVersion
        | Mutant::SealWithoutVersion
        | Mutant::SealOverClaim
        | Mutant::ChildBeforeSeal => &["D1", "E1"],
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
        let noticed = first_red(env, cases, arguments.jobs, &mut number).await;
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

/// Runs cases until one fails, so many at a time, and lets all of them come to their end. Each gets a number of its own.
async fn first_red(
    env: &Arc<Env>,
    cases: Vec<Case>,
    at_once: usize,
    number: &mut usize,
) -> Option<(String, Failure)> {
    let mut cases = cases.into_iter().peekable();
    while cases.peek().is_some() {
        let running = cases.by_ref().take(at_once).map(|case| {
            *number += 1;
            cases::run_one(env.clone(), case, *number, false)
        });
        let running: Vec<_> = running.collect();
        let ended = join_all(running).await;
        let red = ended.into_iter().find_map(|(name, result)| result.err().map(|failure| (name, failure)));
        if red.is_some() {
            return red;
        }
    }
    None
}
