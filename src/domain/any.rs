//! Values of every kind that a page may meet, for the tests of its laws: what users, gateways and crashes leave, and what
//! nobody would write on purpose.

use jiff::Timestamp;
use proptest::prelude::*;

use super::fates::Fates;
use super::outcome::{Outcome, Row};
use super::participants::Participants;

/// Every outcome.
pub(super) const OUTCOMES: [Outcome; 8] = [
    Outcome::Pending,
    Outcome::Skipped,
    Outcome::Cancelled,
    Outcome::Unknown,
    Outcome::Sent,
    Outcome::Failed,
    Outcome::Delivered,
    Outcome::Read,
];

/// What CSV, JSON, spreadsheets and terminals stumble over.
const NASTY: [&str; 30] = [
    "\"",
    "\"\"",
    "'",
    ",",
    ";",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\\",
    "\0",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "<",
    ">",
    "&",
    " ",
    "\u{a0}",
    "\u{2028}",
    "\u{202e}",
    "\u{feff}",
    "\u{fffe}",
    "\u{fdd0}",
    "\u{10ffff}",
    "😀",
    "e\u{301}",
    "=",
    "@",
    "chat,skip",
];

/// Any text: usual ones that often meet each other, printable ones, nasty ones, and whatever a string can hold.
pub(super) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(vec!["", "a", "b", "131026", "no such number"]).prop_map(str::to_owned),
        2 => "\\PC{0,20}",
        2 => prop::collection::vec(prop::sample::select(&NASTY[..]), 0..8).prop_map(|parts| parts.concat()),
        1 => prop::collection::vec(any::<char>(), 0..20).prop_map(|chars| chars.into_iter().collect::<String>()),
    ]
}

/// Times of a page: none, some that often meet each other, and any that a clock gives, in whole milliseconds.
pub(super) fn time() -> impl Strategy<Value = Option<Timestamp>> {
    // The first millisecond of the year 2000, and the last of 9999.
    let millisecond = prop_oneof![0_i64..4, 946_684_800_000_i64..253_402_207_200_000];
    prop::option::of(
        millisecond.prop_map(|time| Timestamp::from_millisecond(time).expect("should be in range")),
    )
}

/// Tries: few, or as many as the number holds.
pub(super) fn attempts() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0_u32..4, 1 => any::<u32>(), 1 => Just(u32::MAX)]
}

/// Any rows at all, be they such as no page would hold. They differ in some of their parts and are the same in the others, or
/// it would hardly ever matter which part of them is compared after which.
pub(super) fn rows(number: usize) -> impl Strategy<Value = Vec<Row>> {
    let outcome = || prop::sample::select(&OUTCOMES[..]);
    let texts = || ([text(), text()], [text(), text()], [text(), text()]);
    let parts = ([outcome(), outcome()], [time(), time()], [attempts(), attempts()], texts());
    let choices = prop::collection::vec(any::<[bool; 7]>(), number);
    let groups = participants(2);
    (parts, groups, choices).prop_map(
        |((outcomes, times, attempts, (ids, codes, details)), groups, choices)| {
            let row = |choice: &[bool; 7]| {
                let [outcome, time, tries, id, code, detail, group] = choice.map(usize::from);
                let has_arrived = matches!(outcomes[outcome], Outcome::Delivered | Outcome::Read);
                Row {
                    outcome: outcomes[outcome],
                    time: times[time],
                    attempts: attempts[tries],
                    message_id: ids[id].clone(),
                    fates: Fates::default(),
                    code: codes[code].clone(),
                    detail: details[detail].clone(),
                    participants: if has_arrived { groups[group].clone() } else { Participants::default() },
                }
            };
            choices.iter().map(row).collect()
        },
    )
}

/// Participants of groups: none, a few of the same ones, or more than are kept.
pub(super) fn participants(number: usize) -> impl Strategy<Value = Vec<Participants>> {
    let one = (0_u8..24, any::<bool>());
    let group = prop_oneof![
        1 => Just(Vec::new()),
        3 => prop::collection::vec(one.clone(), 0..6),
        1 => prop::collection::vec(one, 0..60),
    ];
    let join = |told: Vec<(u8, bool)>| {
        let one = |(person, is_read): (u8, bool)| Participants::one("group", &person.to_string(), is_read);
        told.into_iter().map(one).fold(Participants::default(), |all, one| all.join(&one))
    };
    prop::collection::vec(group.prop_map(join), number)
}

/// Rows as the operator makes them from what a gateway says: texts are cleaned and cut.
pub(super) fn said_rows(number: usize) -> impl Strategy<Value = Vec<Row>> {
    rows(number).prop_map(|rows| rows.into_iter().map(said).collect())
}

fn said(row: Row) -> Row {
    let (id, code, detail) = (row.message_id, row.code, row.detail);
    let bare = Row { message_id: String::new(), code: String::new(), detail: String::new(), ..row };
    bare.with_message_id(&id).with_error(&code, &detail)
}
