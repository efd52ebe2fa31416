//! The arguments of the model: those of every test program of `cargo test`, as far as they mean something here, and two more.

/// libtest's flags that take a value of their own.
const WITH_VALUE: [&str; 6] = ["--color", "--format", "--logfile", "--shuffle-seed", "--test-threads", "-Z"];

/// What is to be done with cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    #[default]
    Run,
    /// `--paths`: run them, and show the steps of every counterexample.
    ShowPaths,
    /// `--list`: print their names.
    List,
}

/// Which cases there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// Those that take seconds.
    #[default]
    Quick,
    /// `--whole`: those that take minutes, too.
    Whole,
}

/// What was asked for.
#[derive(Debug, Default)]
pub struct Arguments {
    /// Parts of names of cases; none: all cases.
    filters: Vec<String>,
    /// Parts of names of cases that are left out.
    skips: Vec<String>,
    /// Names are meant whole.
    is_exact: bool,
    /// No case is an ignored one.
    wants_ignored: bool,
    /// What is to be done with the cases.
    pub task: Task,
    /// How much of them.
    pub extent: Extent,
}

impl Arguments {
    pub fn read(mut words: impl Iterator<Item = String>) -> Self {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--whole" => arguments.extent = Extent::Whole,
                "--paths" => arguments.task = Task::ShowPaths,
                "--list" => arguments.task = Task::List,
                "--exact" => arguments.is_exact = true,
                "--ignored" => arguments.wants_ignored = true,
                "--skip" => arguments.skips.extend(words.next()),
                flag if WITH_VALUE.contains(&flag) => drop(words.next()),
                flag if flag.starts_with("--skip=") => arguments.skips.push(flag["--skip=".len()..].into()),
                flag if flag.starts_with('-') => {}
                _ => arguments.filters.push(word),
            }
        }
        arguments
    }

    /// Whether a case is to be run.
    pub fn wants(&self, name: &str) -> bool {
        let is_meant =
            |part: &String| if self.is_exact { name == part } else { name.contains(part.as_str()) };
        let is_asked_for = self.filters.is_empty() || self.filters.iter().any(is_meant);
        is_asked_for && !self.skips.iter().any(is_meant) && !self.wants_ignored
    }
}
