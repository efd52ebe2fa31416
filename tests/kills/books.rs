//! What the ledger of a round says, held against what the gateway knows: as numbers, and as sentences about what is wrong.

use std::collections::HashMap;

use broadcast_operator::api::{Broadcast, OutcomeName as Outcome};
use broadcast_operator::simulator::{Entry, Ledger, ReceiptStatus, SendQuery};
use kube::ResourceExt;

use crate::common::books::{Chat, accepted, rows, sum};
use crate::common::stage::{Stage, by_outcome, counts};

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
    /// Reads the books of a Broadcast that is complete, of which so many rows may be Unknown.
    pub async fn read(stage: &Stage, broadcast: &Broadcast, chats: usize, bound: usize) -> Self {
        let name = broadcast.name_any();
        let (rows, ledger) = (rows(stage, &name).await, stage.gateway.ledger());
        let mut books = Self { bound, ..Self::default() };
        books.count(&rows, &accepted(stage, &name), chats);
        let query = SendQuery {
            broadcast: Some(format!("{}/{name}", stage.namespace)),
            accepted: Some(true),
            ..SendQuery::default()
        };
        let entries = ledger.sends(&query).into_iter().map(|entry| (entry.chat.to_string(), entry));
        books.compare(&rows, &entries.collect(), &ledger);
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

    /// What was accepted is recorded as far as its receipts tell, and as Sent or Unknown where there are none. Of what was not, nobody
    /// knows that.
    fn compare(&mut self, rows: &[Chat], accepted: &HashMap<String, Entry>, ledger: &Ledger) {
        for (recipient, row) in rows {
            let entry = accepted.get(&recipient.chat);
            let told = entry.and_then(|entry| ledger.last_receipt(&entry.token));
            let fits = match (entry, told) {
                (None, _) => row.outcome == Outcome::Unknown,
                (Some(_), None) => matches!(row.outcome, Outcome::Sent | Outcome::Unknown),
                (Some(_), Some(ReceiptStatus::Read)) => row.outcome == Outcome::Read,
                (Some(_), Some(_)) => row.outcome == Outcome::Delivered,
            };
            if !fits {
                let (chat, outcome, is_accepted) = (&recipient.chat, row.outcome, entry.is_some());
                let told = told.map_or("nothing".into(), |told| format!("{told:?}"));
                let finding =
                    format!("{chat} is {outcome:?}, accepted: {is_accepted}, its receipts say {told}");
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
            && by_outcome(&counts).into_iter().all(|(number, outcome)| as_counted(number, outcome));
        if !fits {
            let finding = format!("{} rows of {chats} chats, total {total:?}, {counts:?}", rows.len());
            self.findings.push(finding);
        }
    }
}

fn of(rows: &[Chat], outcome: Outcome) -> usize {
    rows.iter().filter(|(_, row)| row.outcome == outcome).count()
}
