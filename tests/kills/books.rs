//! What the ledger of a round says, held against what the gateway knows: as numbers, and as sentences about what is wrong.

use std::collections::HashMap;

use broadcast_operator::api::{Broadcast, OutcomeName as Outcome};
use broadcast_operator::simulator::SendQuery;
use kube::ResourceExt;

use crate::common::books::{Chat, accepted, rows, sum};
use crate::common::stage::{Stage, counts};
use crate::script::Scenario;

/// Most requests in flight, of each channel.
pub const MAX_IN_FLIGHT: usize = 64;
/// Rows that are claimed ahead where there is no rate limit, as in `src/dispatcher/sender.rs`. Where there is one, it is the
/// work of one second.
const UNLIMITED_AHEAD: usize = 500;
/// An answer is recorded this soon: it waits for others for one second at most, and its write may take another one.
const RECORDED_WITHIN_MICROS: u64 = 2_000_000;

/// What has happened that may leave rows Unknown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// Processes that died, or were given up by the others: what they had claimed has lost its process.
    pub processes: usize,
    /// Deaths of the control plane: the answer to a claim may be lost, and nothing of it is sent then.
    pub planes: usize,
}

/// What became of a Broadcast.
#[derive(Debug, Default)]
pub struct Books {
    pub doubles: usize,
    pub lost: usize,
    pub unknown: usize,
    /// Most rows that may be Unknown.
    pub bound: usize,
    pub findings: Vec<String>,
}

impl Books {
    /// Reads the books of a Broadcast that is complete.
    pub async fn read(
        stage: &Stage,
        broadcast: &Broadcast,
        chats: usize,
        scenario: Scenario,
        losses: Losses,
    ) -> Self {
        let name = broadcast.name_any();
        let (rows, accepted) = (rows(stage, &name).await, accepted(stage, &name));
        let mut books = Self { bound: bound(&arrivals(stage, &name), scenario, losses), ..Self::default() };
        books.count(&rows, &accepted, chats);
        books.compare(&rows, &accepted);
        books.add_up(broadcast, &rows, chats);
        for finding in &mut books.findings {
            *finding = format!("{name}: {finding}");
        }
        books
    }

    fn count(&mut self, rows: &[Chat], accepted: &HashMap<String, usize>, chats: usize) {
        let open = rows.iter().filter(|(_, row)| row.outcome == Outcome::Pending).count();
        self.doubles = accepted.values().filter(|times| **times > 1).count();
        self.lost = chats.saturating_sub(rows.len()) + open;
        self.unknown = of(rows, Outcome::Unknown);
        for (number, what) in [(self.doubles, "got it more than once"), (self.lost, "have no outcome")] {
            if number > 0 {
                self.findings.push(format!("{number} chats {what}"));
            }
        }
        if self.unknown > self.bound {
            self.findings.push(format!("{} are Unknown, {} may be", self.unknown, self.bound));
        }
    }

    /// A recorded Sent was accepted, and what was accepted is recorded as Sent or Unknown.
    fn compare(&mut self, rows: &[Chat], accepted: &HashMap<String, usize>) {
        for (recipient, row) in rows {
            let is_accepted = accepted.contains_key(&recipient.chat);
            let fits = match row.outcome {
                Outcome::Unknown => true,
                Outcome::Sent => is_accepted,
                _ => !is_accepted,
            };
            if !fits {
                let finding = format!("{} is {:?}, accepted: {is_accepted}", recipient.chat, row.outcome);
                self.findings.push(finding);
            }
        }
    }

    /// All rows are there once, and the status says what they say.
    fn add_up(&mut self, broadcast: &Broadcast, rows: &[Chat], chats: usize) {
        let (counts, sum) = (counts(broadcast), sum(broadcast));
        let total = broadcast.status.as_ref().and_then(|status| status.total);
        let as_counted = |number: i32, outcome| usize::try_from(number) == Ok(of(rows, outcome));
        let fits = rows.len() == chats
            && total == i32::try_from(chats).ok()
            && total == Some(sum)
            && counts.sending + counts.pending == 0
            && as_counted(counts.sent, Outcome::Sent)
            && as_counted(counts.unknown, Outcome::Unknown);
        if !fits {
            let finding = format!("{} rows of {chats} chats, total {total:?}, {counts:?}", rows.len());
            self.findings.push(finding);
        }
    }
}

/// What a process that ends leaves Unknown is what it had claimed and not recorded. Of that, it had not sent what it claims
/// ahead; what it had sent was in flight, or answered and not recorded yet. The last cannot be more than what arrived at
/// the gateway in the time in which an answer is recorded, and no span of so long had more than the busiest one. While the
/// control plane is away nothing can be claimed, so a process that dies then leaves no more than one that dies before.
fn bound(arrivals: &[u64], scenario: Scenario, losses: Losses) -> usize {
    let ahead = scenario.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(UNLIMITED_AHEAD);
    let window = ahead + MAX_IN_FLIGHT + busiest(arrivals);
    losses.processes * window + losses.planes * ahead
}

/// Most arrivals in any span in which an answer is recorded. They are in order.
fn busiest(arrivals: &[u64]) -> usize {
    let spans = arrivals.iter().enumerate().map(|(first, from)| {
        let end = arrivals.partition_point(|at| *at < from + RECORDED_WITHIN_MICROS);
        end - first
    });
    spans.max().unwrap_or_default()
}

fn arrivals(stage: &Stage, name: &str) -> Vec<u64> {
    let broadcast = Some(format!("{}/{name}", stage.namespace));
    let sends = stage.gateway.ledger().sends(&SendQuery { broadcast, ..SendQuery::default() });
    sends.iter().map(|entry| entry.arrived_micros).collect()
}

fn of(rows: &[Chat], outcome: Outcome) -> usize {
    rows.iter().filter(|(_, row)| row.outcome == outcome).count()
}
