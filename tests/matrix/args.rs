//! The command line of the matrix.

/// Cases at the same time: they mostly wait.
const JOBS: usize = 16;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// Beginnings of names of cases; none means all.
    pub filters: Vec<String>,
    /// Every recipe whole, not only on its smallest play.
    pub is_whole: bool,
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
        let mut arguments =
            Self { filters: Vec::new(), is_whole: false, is_list: false, jobs: JOBS, shows_logs: false };
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
                value.parse::<usize>().map_err(|_| format!("{word} needs a number, not {value}"))
            };
            match word.as_str() {
                "--whole" => arguments.is_whole = true,
                "--list" => arguments.is_list = true,
                "--jobs" => arguments.jobs = number()?.max(1),
                "--logs" => arguments.shows_logs = true,
                "--test-threads" | "--format" | "--color" | "--skip" | "--logfile" | "-Z" => {
                    drop(words.next());
                }
                flag if flag.starts_with('-') => {}
                filter => arguments.filters.push(filter.to_owned()),
            }
        }
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
