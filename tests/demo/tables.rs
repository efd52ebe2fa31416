//! What is shown in the end.

use broadcast_operator::api::{Broadcast, OutcomeName as Outcome};
use broadcast_operator::simulator::{Entry, Summary};
use comfy_table::{CellAlignment, Table, presets};
use kube::ResourceExt;

use crate::books::Log;
use crate::common::stage::counts;

/// Rows with the same outcome and reason that are shown.
const EXAMPLES: usize = 4;

/// A line for each Broadcast: from its status, as the operator computed it.
pub fn results(broadcasts: &[Broadcast]) -> Table {
    let header = [
        "Broadcast",
        "Rows",
        "Read",
        "Delivered",
        "Sent",
        "Failed",
        "Unknown",
        "Skipped",
        "Cancelled",
        "Delivered %",
        "Read %",
    ];
    let mut table = table(&header);
    for broadcast in broadcasts {
        let status = broadcast.status.as_ref().expect("should have a status");
        let counts = counts(broadcast);
        let number = |number: Option<i32>| number.map_or_else(String::new, |number| number.to_string());
        let numbers = [
            status.total,
            Some(counts.read),
            Some(counts.delivered),
            Some(counts.sent),
            Some(counts.failed),
            Some(counts.unknown),
            Some(counts.skipped),
            Some(counts.cancelled),
            status.delivered_percent,
            status.read_percent,
        ];
        table.add_row(std::iter::once(broadcast.name_any()).chain(numbers.map(number)));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Everybody who has no message of this Broadcast, or perhaps none, and why.
pub fn reasons(logs: &[&Log]) -> Table {
    let mut table = table(&["Broadcast", "Chat", "Outcome", "Code", "Detail"]);
    for log in logs {
        for outcome in [Outcome::Failed, Outcome::Unknown, Outcome::Skipped] {
            for row in log.rows.iter().filter(|row| row.outcome == outcome) {
                let outcome = format!("{outcome:?}");
                table.add_row([log.broadcast, &row.chat, &outcome, &row.code, &row.detail]);
            }
        }
    }
    table
}

/// Some messages, as the gateway received them.
pub fn messages(sends: &[Entry]) -> Table {
    let mut table = table(&["Broadcast", "Chat", "Text"]);
    let mut last = "";
    for send in sends {
        if send.accepted && &*send.broadcast != last {
            last = &send.broadcast;
            let same = sends.iter().filter(|other| other.accepted && &*other.broadcast == last);
            for send in same.take(EXAMPLES) {
                table.add_row([&*send.broadcast, &*send.chat, &*send.text]);
            }
        }
    }
    table
}

/// The gateway's own counts.
pub fn summary(summary: &Summary) -> Table {
    let requests = &summary.requests;
    let mut table = table(&["The gateway counted", ""]);
    for (what, number) in [
        ("requests", requests.requests),
        ("messages accepted", requests.accepted),
        ("messages refused", requests.refused),
        ("connections cut", requests.reset),
        ("receipts sent and taken", summary.receipts.delivered),
        ("most requests in one second", requests.highest_arrivals_per_second),
        ("most requests in flight", requests.highest_in_flight),
        ("chats accepted more than once by a Broadcast", requests.twice.chats),
        ("tokens accepted more than once", requests.twice.tokens),
    ] {
        table.add_row([what, &number.to_string()]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header.iter().copied());
    table
}
