//! The memory of processes over time, and whether it has come to rest.

use std::fmt;
use std::time::Duration;

use broadcast_operator::clock;

/// Parts of the whole time.
pub const PARTS: u32 = 10;
/// Parts at the end in which memory must be steady. Before, caches fill.
const JUDGED: usize = 5;
/// Most that the largest part may be above the smallest, in percent.
const STEADY_PERCENT: u64 = 10;
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Resident memory of two processes in KiB: the mean of each part.
pub struct Memory {
    processes: [u32; 2],
    parts: Vec<[u64; 2]>,
}

impl Memory {
    pub fn of(processes: [u32; 2]) -> Self {
        Self { processes, parts: Vec::new() }
    }

    /// Watches for one part of the time.
    pub async fn watch(&mut self, time: Duration) {
        let end = clock::monotonic() + time;
        let (mut sum, mut samples) = ([0, 0], 0);
        loop {
            for (sum, process) in sum.iter_mut().zip(self.processes) {
                *sum += resident(process);
            }
            samples += 1;
            let left = end.saturating_duration_since(clock::monotonic());
            if left.is_zero() {
                break;
            }
            clock::wait(left.min(SAMPLE_INTERVAL)).await;
        }
        self.parts.push(sum.map(|sum| sum / samples));
    }

    /// The part that was watched last.
    pub fn latest(&self) -> String {
        let [one, other] = self.parts.last().copied().unwrap_or_default().map(mebibytes);
        format!("{one} and {other} MiB")
    }

    /// By how much the largest of the last parts is above the smallest, in percent, for each process.
    fn spread(&self) -> [u64; 2] {
        let judged = &self.parts[self.parts.len().saturating_sub(JUDGED)..];
        [0, 1].map(|process| {
            let of = || judged.iter().map(|part| part[process]);
            let (least, most) = (of().min().unwrap_or_default(), of().max().unwrap_or_default());
            (most - least) * 100 / least.max(1)
        })
    }

    pub fn is_steady(&self) -> bool {
        self.spread().into_iter().all(|spread| spread <= STEADY_PERCENT)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(text, "| part | RSS of the first replica | of the second |\n|---|---|---|")?;
        for (number, part) in self.parts.iter().enumerate() {
            let [one, other] = part.map(mebibytes);
            writeln!(text, "| {} | {one} MiB | {other} MiB |", number + 1)?;
        }
        let [one, other] = self.spread();
        let verdict = if self.is_steady() { "steady" } else { "NOT steady" };
        write!(
            text,
            "\nmemory: {verdict}; from the least to the most of the last {JUDGED} parts: {one} % and {other} %, \
             {STEADY_PERCENT} % are allowed"
        )
    }
}

/// Resident memory of a process, in KiB, where the system says so as Linux does.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("should run, on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("should have memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("should be a number")
}

fn mebibytes(kibibytes: u64) -> String {
    format!("{}.{}", kibibytes / 1024, kibibytes % 1024 * 10 / 1024)
}
