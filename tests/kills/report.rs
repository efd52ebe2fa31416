//! What all rounds have come to: numbers by scenario, and a last line for machines.

use std::collections::BTreeMap;
use std::fmt;

use crate::round::Played;
use crate::script::Scenario;

/// Sums of some rounds.
#[derive(Debug, Default)]
struct Sums {
    passed: usize,
    failed: usize,
    sum: Played,
    /// Most Unknown rows by process that was lost, in one round.
    worst: usize,
}

impl Sums {
    fn add(&mut self, played: &Played) {
        let Played { kills, sends, processes, doubles, lost, unknown, bound, findings } = played;
        match findings.is_empty() {
            true => self.passed += 1,
            false => self.failed += 1,
        }
        self.sum.kills += kills;
        self.sum.sends += sends;
        self.sum.processes += processes;
        self.sum.doubles += doubles;
        self.sum.lost += lost;
        self.sum.unknown += unknown;
        self.sum.bound += bound;
        self.worst = self.worst.max(unknown / (*processes).max(1));
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let Played { kills, sends, processes, doubles, lost, unknown, bound, .. } = self.sum;
        let numbers = [
            self.passed + self.failed,
            kills,
            sends,
            doubles,
            lost,
            unknown,
            bound,
            processes,
            unknown / processes.max(1),
            self.worst,
        ];
        std::iter::once(name.to_owned()).chain(numbers.map(|number| number.to_string())).collect()
    }
}

/// All rounds.
#[derive(Debug, Default)]
pub struct Report {
    all: Sums,
    scenarios: BTreeMap<Scenario, Sums>,
}

const HEAD: [&str; 11] = [
    "scenario",
    "rounds",
    "kills",
    "sends",
    "doubles",
    "lost",
    "Unknown",
    "bound",
    "processes lost",
    "Unknown per process",
    "most in a round",
];

impl Report {
    pub fn add(&mut self, scenario: Scenario, played: &Played) {
        self.all.add(played);
        self.scenarios.entry(scenario).or_default().add(played);
    }

    pub fn kills(&self) -> usize {
        self.all.sum.kills
    }

    pub fn failed(&self) -> usize {
        self.all.failed
    }
}

impl fmt::Display for Report {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(text, "| {} |\n|{}", HEAD.join(" | "), "---|".repeat(HEAD.len()))?;
        for (scenario, sums) in &self.scenarios {
            writeln!(text, "| {} |", sums.cells(&scenario.to_string()).join(" | "))?;
        }
        writeln!(text, "| {} |", self.all.cells("all").join(" | "))?;
        write!(text, "\nkills: {} passed, {} failed", self.all.passed, self.all.failed)
    }
}
