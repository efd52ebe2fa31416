//! Cases: made from reference runs, run beside each other, counted by recipe.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use broadcast_operator::clock;
use futures::{StreamExt, TryStreamExt, stream};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::args::{Arguments, Chaos};
use crate::chaos;
use crate::common::control_plane::ControlPlane;
use crate::holders;
use crate::observer::Observer;
use crate::play::{Play, Reference};
use crate::recipes::{self, RECIPES};
use crate::scene::{Env, Failure, Scene};

/// How often a case is run whose point is not reached.
const ATTEMPTS: usize = 2;
/// Reference runs, each of them twice, beside each other.
const PLAYS_AT_ONCE: usize = 4;

/// One case.
#[derive(Clone)]
pub struct Case {
    /// As in `A1/PUT-broadcastbatches-status-sale-00000#2`: the same for the same point in each run.
    pub name: String,
    /// Runs it on a fresh scene.
    pub run: Script,
    /// How many faults must have come for the case to mean what it says.
    pub meets: usize,
}

/// What a case does.
pub type Script = Arc<dyn for<'a> Fn(&'a mut Scene) -> Running<'a> + Send + Sync>;

/// A case at work.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// How it went.
#[derive(Default)]
pub struct Summary {
    pub passed: usize,
    pub failed: usize,
}

/// Cases that there are at least, of the smallest plays and of all. What finds no points would pass. How many there are differs by a
/// tenth, for a point that only one of two reference runs came by is none.
const LEAST: usize = 400;
const LEAST_WHOLE: usize = 1_800;

#[derive(Default)]
struct Count {
    passed: usize,
    /// Passed, but the point of the fault was not reached.
    missed: usize,
    failed: usize,
}

/// Runs what is wanted.
pub async fn run(arguments: &Arguments) -> Summary {
    if arguments.is_list {
        for recipe in RECIPES {
            println!("{}: {}", recipe.name, recipe.says);
        }
        return Summary::default();
    }
    let wanted: Vec<&recipes::Recipe> =
        RECIPES.iter().filter(|recipe| arguments.wants_recipe(recipe.name)).collect();
    if wanted.is_empty() && arguments.chaos.is_none() {
        return Summary::default();
    }
    let started = clock::monotonic();
    let plane = ControlPlane::start().await;
    plane.install_crds();
    let env = environment(&plane).await;
    eprintln!("matrix: control plane ready after {:.1} s", started.elapsed().as_secs_f32());
    let ran = match &arguments.chaos {
        _ if arguments.is_of_mutants => run_mutants(arguments, &env).await,
        Some(chaos) => run_chaos(arguments, chaos, &env).await,
        None => match cases(arguments, &env, &wanted).await {
            Ok(cases) => {
                eprintln!("matrix: {} cases", cases.len());
                let least = if arguments.is_whole { LEAST_WHOLE } else { LEAST };
                let has_lost = arguments.filters.is_empty() && cases.len() < least;
                let mut summary = run_all(arguments, &env, cases.into_iter()).await;
                if has_lost {
                    println!(
                        "FAILED: there are at least {least} cases usually: a recipe does not find its points any more"
                    );
                    summary.failed += 1;
                }
                Ok(summary)
            }
            Err(error) => Err(error),
        },
    };
    eprintln!("matrix: took {:.1} s", started.elapsed().as_secs_f32());
    ran.unwrap_or_else(|error| {
        println!("the reference run failed: {error}");
        Summary { passed: 0, failed: 1 }
    })
}

/// Random cases, as many as are wanted or the time allows.
async fn run_chaos(arguments: &Arguments, chaos: &Chaos, env: &Arc<Env>) -> Result<Summary, Failure> {
    println!("chaos: seed {}; SEED={} make chaos plays it again", chaos.seed, chaos.seed);
    let references = references(env, chaos::PLAYS.iter().copied()).await?;
    let references: Vec<Arc<Reference>> = references.into_values().collect();
    let (started, chaos) = (clock::monotonic(), chaos.clone());
    let numbers = (0..chaos.cases).take_while(move |_| started.elapsed() < chaos.time);
    let cases = numbers.map(move |number| chaos::case(&references, chaos.seed, number));
    let cases = cases.filter(|case| arguments.wants(&case.name));
    Ok(run_all(arguments, env, cases).await)
}

/// Undisturbed runs of these plays.
pub async fn references(
    env: &Arc<Env>,
    plays: impl Iterator<Item = Play>,
) -> Result<BTreeMap<Play, Arc<Reference>>, Failure> {
    let records = plays.enumerate().map(|(number, play)| async move {
        Ok((play, Arc::new(Reference::record(env, play, &format!("reference-{number}")).await?)))
    });
    // Under more load than the cases make, they come by points that the cases do not reach.
    stream::iter(records).buffer_unordered(PLAYS_AT_ONCE).try_collect().await
}

async fn environment(plane: &ControlPlane) -> Arc<Env> {
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig("admin")).expect("should be a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.expect("should be usable");
    let client = Client::try_from(config.clone()).expect("should be a client");
    let observer = Observer::start(&client);
    Arc::new(Env { client, config, observer })
}

/// All wanted cases, from the reference runs of the plays that they need.
async fn cases(
    arguments: &Arguments,
    env: &Arc<Env>,
    wanted: &[&recipes::Recipe],
) -> Result<Vec<Case>, Failure> {
    let plays: BTreeSet<Play> =
        wanted.iter().flat_map(|recipe| recipe.plays(arguments.is_whole)).copied().collect();
    let references = references(env, plays.into_iter()).await?;
    let mut cases = Vec::new();
    for recipe in wanted {
        for play in recipe.plays(arguments.is_whole) {
            cases.extend((recipe.cases)(&references[play], arguments.is_whole));
        }
    }
    cases.retain(|case| arguments.wants(&case.name));
    if let Some(mutant) = &arguments.mutant {
        build_in(mutant)?;
    }
    Ok(cases)
}

/// Makes a mistake from here on, in all operators.
#[cfg(feature = "mutants")]
fn build_in(name: &str) -> Result<(), Failure> {
    use broadcast_operator::mutants::{Mutant, set};
    let mutant = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
    set(Some(mutant.ok_or_else(|| format!("no mutant is called {name}: {:?}", Mutant::ALL))?));
    Ok(())
}

#[cfg(feature = "mutants")]
async fn run_mutants(arguments: &Arguments, env: &Arc<Env>) -> Result<Summary, Failure> {
    crate::mutants::run(arguments, env).await
}

#[cfg(not(feature = "mutants"))]
#[expect(clippy::unused_async, reason = "it is called as its other form is")]
async fn run_mutants(_: &Arguments, _: &Arc<Env>) -> Result<Summary, Failure> {
    Err("--mutants needs a build with --features mutants".into())
}

#[cfg(not(feature = "mutants"))]
fn build_in(name: &str) -> Result<(), Failure> {
    Err(format!("{name} needs a build with --features mutants"))
}

async fn run_all(arguments: &Arguments, env: &Arc<Env>, cases: impl Iterator<Item = Case>) -> Summary {
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let mut done = 0;
    let flags = match &arguments.chaos {
        Some(chaos) => format!("--chaos --seed {} ", chaos.seed),
        None if arguments.is_whole => "--whole ".into(),
        None => String::new(),
    };
    let running = cases.enumerate().map(|(number, case)| {
        let (env, shows_logs) = (env.clone(), arguments.shows_logs);
        async move { run_one(env, case, number, shows_logs).await }
    });
    let mut running = stream::iter(running).buffer_unordered(arguments.jobs);
    while let Some((name, result)) = running.next().await {
        done += 1;
        let recipe = name.split('/').next().unwrap_or_default().to_owned();
        let count = counts.entry(recipe).or_default();
        match result {
            Ok(true) => count.passed += 1,
            Ok(false) => {
                count.passed += 1;
                count.missed += 1;
                eprintln!("matrix: {name}: its point was not reached");
            }
            Err(failure) => {
                count.failed += 1;
                println!("FAILED {name}\n{failure}\nreplay: cargo test --test matrix -- {flags}'{name}'\n");
            }
        }
        if done % 50 == 0 {
            eprintln!("matrix: {done} cases done");
        }
    }
    let mut summary = Summary::default();
    for (recipe, Count { passed, missed, failed }) in counts {
        let without =
            if missed > 0 { format!(", {missed} without reaching their point") } else { String::new() };
        println!("{recipe}: {} cases, {failed} failed{without}", passed + failed);
        summary.passed += passed;
        summary.failed += failed;
        // A recipe whose faults do not come any more tests nothing.
        if missed > 1 && 2 * missed > passed + failed {
            println!("{recipe}: FAILED, most of its cases did not reach their point");
            summary.failed += 1;
        }
    }
    summary
}

/// Runs a case. One whose point was not reached, because the run took another turn, is run again. Out: whether its faults
/// came.
pub async fn run_one(
    env: Arc<Env>,
    case: Case,
    number: usize,
    shows_logs: bool,
) -> (String, Result<bool, Failure>) {
    let mut result = Ok(false);
    for attempt in 0..ATTEMPTS {
        result = run_once(&env, &case, &format!("{number:04}-{attempt}"), shows_logs).await;
        if !matches!(result, Ok(false)) {
            break;
        }
    }
    (case.name, result)
}

/// Runs a case in a task of its own, so that a panic is a failure of this case alone.
async fn run_once(env: &Arc<Env>, case: &Case, tag: &str, shows_logs: bool) -> Result<bool, Failure> {
    let (env, run, meets, tag) = (env.clone(), case.run.clone(), case.meets, tag.to_owned());
    let work = async move {
        let mut scene = Scene::new(env.clone(), &tag).await?;
        let mut result = run(&mut scene).await;
        let met = scene.met() >= meets;
        if result.is_ok() {
            result = holders::let_go(&scene).await;
        }
        for process in &scene.processes {
            process.kill().await;
        }
        env.observer.forget(&scene.namespace);
        result.map(|()| met).map_err(|failure| match shows_logs {
            true => format!("{failure}\n{}", scene.log.text()),
            false => failure,
        })
    };
    tokio::spawn(work).await.unwrap_or_else(|died| Err(format!("the case panicked: {died}")))
}
