//! What all rounds have come to: numbers by scenario, and a last line for machines.

use std::collections::BTreeMap;
use std::fmt;

use crate::losses::Loss;
use crate::round::Played;
use crate::script::Scenario;

/// Sums of some rounds.
#[derive(Debug, Default)]
struct Sums {
    passed: usize,
    failed: usize,
    sum: Played,
    /// What came nearest to its bound.
    nearest: Loss,
}

impl Sums {
    fn add(&mut self, played: &Played) {
        let Played { kills, sends, receipts, processes, doubles, lost, unknown, bound, losses, findings } =
            played;
        match findings.is_empty() {
            true => self.passed += 1,
            false => self.failed += 1,
        }
        self.sum.kills += kills;
        self.sum.sends += sends;
        self.sum.receipts += receipts;
        self.sum.processes += processes;
        self.sum.doubles += doubles;
        self.sum.lost += lost;
        self.sum.unknown += unknown;
        self.sum.bound += bound;
        let all = losses.iter().copied().chain([self.nearest]);
        self.nearest = all.max_by_key(Loss::percent).unwrap_or_default();
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let Played { kills, sends, receipts, processes, doubles, lost, unknown, bound, .. } = self.sum;
        let numbers = [
            self.passed + self.failed,
            kills,
            sends,
            receipts,
            doubles,
            lost,
            unknown,
            bound,
            processes,
            unknown / processes.max(1),
        ];
        let Loss { claimed, bound, .. } = self.nearest;
        let nearest = format!("{claimed} of {bound}");
        let numbers = numbers.map(|number| number.to_string());
        [name.to_owned()].into_iter().chain(numbers).chain([nearest]).collect()
    }
}

/// All rounds.
#[derive(Debug, Default)]
pub struct Report {
    all: Sums,
    scenarios: BTreeMap<Scenario, Sums>,
}

const HEAD: [&str; 12] = [
    "scenario",
    "rounds",
    "kills",
    "sends",
    "receipts",
    "doubles",
    "lost",
    "Unknown",
    "bound",
    "processes lost",
    "Unknown per process",
    "claimed at a kill, nearest to its bound",
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
