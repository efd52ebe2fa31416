//! The command line of the matrix.

use std::time::Duration;

use rand::RngExt;

/// Cases at the same time: they mostly wait.
const JOBS: usize = 16;

/// How long chaos lasts when nobody says.
const CHAOS_TIME: Duration = Duration::from_secs(600);

/// Random compositions.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// The same seed gives the same cases.
    pub seed: u64,
    pub time: Duration,
    pub cases: u64,
}

/// What is wanted.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Arguments {
    /// Beginnings of names of cases; none means all.
    pub filters: Vec<String>,
    /// Every recipe whole, not only on its smallest play.
    pub is_whole: bool,
    /// Random compositions instead of recipes.
    pub chaos: Option<Chaos>,
    /// A mistake to build in after the reference runs, by its name: what goes red notices it. Needs the feature `mutants`.
    pub mutant: Option<String>,
    /// Every such mistake, each of which some recipe must notice.
    pub is_of_mutants: bool,
    /// Names the recipes and runs nothing.
    pub is_list: bool,
    /// Cases at the same time.
    pub jobs: usize,
    /// Shows the logs of operators of failed cases.
    pub shows_logs: bool,
}

impl Arguments {
    /// Reads them. Flags of `cargo test` that mean nothing here are passed over.
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            filters: Vec::new(),
            is_whole: false,
            chaos: None,
            mutant: None,
            is_of_mutants: false,
            is_list: false,
            jobs: JOBS,
            shows_logs: false,
        };
        let (mut is_chaos, mut seed, mut time, mut cases) = (false, None, CHAOS_TIME, u64::MAX);
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
                value.parse::<u64>().map_err(|_| format!("{word} needs a number, not {value}"))
            };
            match word.as_str() {
                "--whole" => arguments.is_whole = true,
                "--list" => arguments.is_list = true,
                "--logs" => arguments.shows_logs = true,
                "--jobs" => arguments.jobs = usize::try_from(number()?).unwrap_or(JOBS).max(1),
                "--mutants" => arguments.is_of_mutants = true,
                "--mutant" => arguments.mutant = words.next(),
                "--chaos" => is_chaos = true,
                "--seed" => seed = Some(number()?),
                "--seconds" => time = Duration::from_secs(number()?),
                "--cases" => cases = number()?,
                "--test-threads" | "--format" | "--color" | "--skip" | "--logfile" | "-Z" => {
                    drop(words.next());
                }
                flag if flag.starts_with('-') => {}
                filter => arguments.filters.push(filter.to_owned()),
            }
        }
        let seed = seed.unwrap_or_else(|| u64::from(rand::rng().random::<u32>()));
        arguments.chaos = is_chaos.then_some(Chaos { seed, time, cases });
        Ok(arguments)
    }

    /// Whether cases of this recipe may be wanted.
    pub fn wants_recipe(&self, recipe: &str) -> bool {
        let recipe = format!("{recipe}/");
        self.filters.is_empty()
            || self
                .filters
                .iter()
                .any(|filter| recipe.starts_with(filter.as_str()) || filter.starts_with(&recipe))
    }

    /// Whether this case is wanted.
    pub fn wants(&self, case: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| case.starts_with(filter.as_str()))
    }
}
