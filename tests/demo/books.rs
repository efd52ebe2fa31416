//! The log of the operator held against the books of the gateway. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use broadcast_operator::api::OutcomeName as Outcome;
use broadcast_operator::simulator::Entry;
use serde::Deserialize;

/// The log of one Broadcast.
pub struct Log {
    pub broadcast: &'static str,
    pub rows: Vec<Row>,
}

/// One chat of a log, as the pages have it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub chat: String,
    pub outcome: Outcome,
    pub code: String,
    pub detail: String,
}

impl Log {
    /// Reads the pages of a Broadcast, one after the other, each with its header.
    pub fn read(broadcast: &'static str, pages: &str) -> Self {
        let header = pages.lines().next().unwrap_or_default();
        let rows = pages.lines().filter(|line| *line != header);
        let text: String = std::iter::once(header).chain(rows).map(|line| format!("{line}\n")).collect();
        let rows = csv::Reader::from_reader(text.as_bytes()).into_deserialize().collect::<Result<_, _>>();
        Self { broadcast, rows: rows.unwrap_or_else(|error| panic!("the log of {broadcast}: {error}")) }
    }

    /// How many chats have this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.rows.iter().filter(|row| row.outcome == outcome).count()
    }

    /// Chats with one of these outcomes.
    fn chats(&self, outcomes: &[Outcome]) -> BTreeSet<&str> {
        self.rows.iter().filter(|row| outcomes.contains(&row.outcome)).map(|row| row.chat.as_str()).collect()
    }

    fn violations(&self, accepted: &HashMap<(&str, &str), usize>, found: &mut Vec<String>) {
        let rows = self.rows.iter().filter(|row| row.outcome != Outcome::Skipped);
        for Row { chat, outcome, .. } in rows {
            let times = accepted.get(&(self.broadcast, chat.as_str())).copied().unwrap_or_default();
            let is_true = match outcome {
                Outcome::Sent | Outcome::Delivered | Outcome::Read => times == 1,
                Outcome::Unknown => times <= 1,
                Outcome::Failed | Outcome::Cancelled => times == 0,
                Outcome::Pending | Outcome::Skipped => false,
            };
            if !is_true {
                found.push(format!(
                    "{}: {chat} is {outcome:?}, and was accepted {times} times",
                    self.broadcast
                ));
            }
        }
    }
}

/// Everything in these logs that must not be. `sends` are all requests that reached the gateway.
pub fn violations(first: &Log, restart: &Log, rows: usize, sends: &[Entry]) -> Vec<String> {
    let mut found = Vec::new();
    let mut accepted: HashMap<(&str, &str), usize> = HashMap::new();
    let mut by_chat: BTreeMap<&str, usize> = BTreeMap::new();
    for send in sends.iter().filter(|send| send.accepted) {
        let name = send.broadcast.rsplit('/').next().unwrap_or_default();
        *accepted.entry((name, &send.chat)).or_default() += 1;
        *by_chat.entry(&send.chat).or_default() += 1;
    }
    let twice = by_chat.iter().filter(|(_, times)| **times > 1);
    found.extend(twice.map(|(chat, times)| format!("{chat} got the message {times} times")));
    if first.rows.len() != rows {
        found.push(format!("{} has {} rows of {rows}", first.broadcast, first.rows.len()));
    }
    if first.chats(&[Outcome::Failed, Outcome::Cancelled])
        != restart.rows.iter().map(|row| row.chat.as_str()).collect()
    {
        found.push(format!("{} is not for those who failed or were not reached", restart.broadcast));
    }
    first.violations(&accepted, &mut found);
    restart.violations(&accepted, &mut found);
    found
}
