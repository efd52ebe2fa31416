//! The tests of the tests: each mistake that can be built in must turn a case red.
//!
//! Cases of the recipes that are near to the mistake run until the first of them fails. A mistake that none notices is the
//! failure here.

use std::sync::Arc;

use broadcast_operator::mutants::{Mutant, set};
use futures::stream::{self, StreamExt};

use crate::args::Arguments;
use crate::cases::{self, Case, Summary};
use crate::recipes::RECIPES;
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

/// Tries every mistake.
pub async fn run(arguments: &Arguments, env: &Arc<Env>) -> Result<Summary, Failure> {
    let mut summary = Summary::default();
    for mutant in Mutant::ALL {
        // What an operator without mistakes does is the measure.
        let mut noticed = None;
        for recipe in recipes_of(mutant) {
            let recipe = RECIPES.iter().filter(|known| known.name == *recipe);
            let cases = cases::cases(arguments, env, &recipe.collect::<Vec<_>>()).await?;
            set(Some(mutant));
            noticed = first_red(env, cases, arguments.jobs).await;
            set(None);
            if noticed.is_some() {
                break;
            }
        }
        if let Some((case, failure)) = noticed {
            println!("{mutant:?} is noticed by {case}: {}", failure.lines().next().unwrap_or_default());
            summary.passed += 1;
        } else {
            println!("{mutant:?} is noticed by nothing of {:?}", recipes_of(mutant));
            summary.failed += 1;
        }
    }
    Ok(summary)
}

/// Runs cases until one fails, so many at a time, and lets all of them come to their end.
async fn first_red(env: &Arc<Env>, cases: Vec<Case>, at_once: usize) -> Option<(String, Failure)> {
    let mut cases = cases.into_iter().enumerate().peekable();
    while cases.peek().is_some() {
        let some: Vec<(usize, Case)> = cases.by_ref().take(at_once).collect();
        let running = some.into_iter().map(|(number, case)| cases::run_one(env.clone(), case, number, false));
        let ended: Vec<(String, Result<bool, Failure>)> =
            stream::iter(running).buffer_unordered(at_once).collect().await;
        let red = ended.into_iter().find_map(|(name, result)| result.err().map(|failure| (name, failure)));
        if red.is_some() {
            return red;
        }
    }
    None
}
