use proptest::prelude::*;

use super::*;
use crate::domain::any;
use crate::domain::page::{Page, Recipient};

/// Rows of a page that the tests take receipts into.
const ROWS: usize = 4;

fn time(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(946_684_800_000 + millisecond).expect("in range")
}

/// A receipt that says how far a message came: a row and what is known of it.
fn progress() -> impl Strategy<Value = (usize, Row)> {
    (0..ROWS, any::<bool>(), 0_i64..4, prop::option::of(0_u8..20)).prop_map(
        |(row, is_read, millisecond, participant)| {
            let outcome = if is_read { Outcome::Read } else { Outcome::Delivered };
            let told = Row::known(outcome, 1, time(millisecond));
            let participant = participant.map(|person| person.to_string());
            (row, participant.map_or(told.clone(), |person| told.with_participant("group", &person)))
        },
    )
}

/// A page whose rows are as they may be when a receipt is put into a journal.
fn page() -> impl Strategy<Value = Page> {
    let row = (prop::sample::select(vec![Outcome::Sent, Outcome::Delivered, Outcome::Read]), 0_i64..4);
    prop::collection::vec(row, ROWS).prop_map(|rows| {
        let recipient = |row: usize| Recipient {
            chat: format!("1555{row:07}"),
            skip: String::new(),
            params: BTreeMap::new(),
        };
        let mut page = Page::planned((0..ROWS).map(recipient).collect());
        for (row, (outcome, millisecond)) in rows.into_iter().enumerate() {
            let id = format!("m{row}");
            page.merge(row, &Row::known(outcome, 1, time(millisecond)).with_message_id(&id));
        }
        page
    })
}

fn take_in(page: &mut Page, evidence: &[(usize, Row)]) {
    for (row, evidence) in evidence {
        page.merge_receipt(*row, evidence);
    }
}

fn take_in_journal(page: &mut Page, receipts: &Receipts) {
    receipts.by_page().values().for_each(|evidence| take_in(page, evidence));
}

proptest! {
    #[test]
    fn what_went_through_journals_leaves_the_page_that_direct_receipts_leave(
        before in page(),
        evidence in prop::collection::vec(progress(), 0..12),
        cut in 0_usize..12,
    ) {
        let mut direct = before.clone();
        take_in(&mut direct, &evidence);
        let (first, second) = evidence.split_at(cut.min(evidence.len()));
        let journals = [first, second].map(|part| Receipts::of(0, part).expect("plain"));
        let mut both = journals[0].clone();
        both.extend(journals[1].clone());
        let [first, second] = &journals;
        // Together, apart, in the other order, and twice.
        for order in [&[&both][..], &[first, second], &[second, first], &[second, &both, first, second]] {
            let mut folded = before.clone();
            for journal in order {
                take_in_journal(&mut folded, journal);
            }
            prop_assert_eq!(&folded, &direct);
        }
    }

    #[test]
    fn what_is_taken_in_late_takes_nothing_back(
        evidence in prop::collection::vec(progress(), 0..8),
        later in any::said_rows(ROWS),
    ) {
        let receipts = Receipts::of(0, &evidence).expect("plain");
        let recipient = |row: usize| Recipient {
            chat: format!("1555{row:07}"),
            skip: String::new(),
            params: BTreeMap::new(),
        };
        let mut page = Page::planned((0..ROWS).map(recipient).collect());
        for (row, later) in later.iter().enumerate() {
            page.merge(row, later);
        }
        let before = page.clone();
        take_in_journal(&mut page, &receipts);
        for (before, after) in before.rows().iter().zip(page.rows()) {
            let mut again = after.clone();
            again.merge(before);
            prop_assert_eq!(&again, after, "what was known is in it");
        }
    }

}

proptest! {
    // Each case is a thousand rows and more.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_journal_survives_its_text(
        evidence in prop::collection::vec((0_usize..4000, 0_usize..250, any::<bool>(), any::time()), 0..2500),
        groups in any::participants(5),
    ) {
        let mut receipts = Receipts::default();
        for ((page, row, is_read, time), group) in evidence.into_iter().zip(groups.iter().cycle()) {
            let Some(time) = time else { continue };
            let outcome = if is_read { Outcome::Read } else { Outcome::Delivered };
            let told = Row { participants: group.clone(), ..Row::known(outcome, 1, time) };
            receipts.extend(Receipts::of(page, &[(row, told)]).expect("plain"));
        }
        let mut read = Receipts::default();
        let mut number = 0;
        for part in receipts.parts() {
            let text = part.text();
            prop_assert!(part.len() <= MAX_RECEIPTS && text.len() <= 50_000, "{} bytes", text.len());
            number += part.len();
            prop_assert_eq!(&Receipts::parse(&text), &Ok(part));
            read.extend(Receipts::parse(&text).expect("a journal"));
        }
        prop_assert_eq!(number, receipts.len());
        prop_assert_eq!(read, receipts);
    }
}

#[test]
fn what_says_more_than_how_far_a_message_came_is_left_to_the_page() {
    let read = || Row::known(Outcome::Read, 1, time(0));
    for evidence in [
        Row::known(Outcome::Sent, 1, time(0)),
        Row::known(Outcome::Failed, 1, time(0)).with_error("131026", "no such number"),
        Row::known(Outcome::Unknown, 1, time(0)),
        Row::known(Outcome::Read, 2, time(0)),
        read().with_error("partially_delivered", ""),
        read().with_detail("said more"),
        Row { time: None, ..read() },
    ] {
        assert_eq!(Receipts::of(0, &[(0, read()), (1, evidence.clone())]), None, "{evidence:?}");
    }
    assert!(Receipts::of(0, &[(0, read().with_message_id("wamid.1"))]).is_some());
}

#[test]
fn only_receipts_of_groups_have_a_field_for_participants() {
    let told = |row: Row| Receipts::of(3, &[(7, row)]).expect("plain").text();
    let read = Row::known(Outcome::Read, 1, time(0));
    assert_eq!(told(read.clone()), "page,row,outcome,time\n3,7,Read,2000-01-01T00:00:00Z\n");
    let of_group = told(read.with_participant("group", "15550100"));
    assert_eq!(of_group, "page,row,outcome,time\n3,7,Read,2000-01-01T00:00:00Z,uiff\n");
}

#[test]
fn other_texts_are_no_journals() {
    for (text, line) in [
        ("", 1),
        ("page,row\n", 1),
        ("page,row,outcome,time\n1,2,Sent,2026-11-23T10:00:00Z\n", 2),
        ("page,row,outcome,time\n1,2,Read,2026-11-23T10:00:00Z\n1,2,Read\n", 3),
        ("page,row,outcome,time\n1,2,Read,soon\n", 2),
        ("page,row,outcome,time\n-1,2,Read,2026-11-23T10:00:00Z\n", 2),
        ("page,row,outcome,time\n1,2,Read,2026-11-23T10:00:00Z,x\n", 2),
        ("page,row,outcome,time\n1,2,Read,2026-11-23T10:00:00Z,\n", 2),
        ("page,row,outcome,time\n1,2,Read,2026-11-23T10:00:00Z,b=d-\n", 2),
        ("page,row,outcome,time\n1,2,Read,2026-11-23T10:00:00Z,abcd,efgh\n", 2),
    ] {
        assert_eq!(Receipts::parse(text), Err(NotAJournal { line }), "{text}");
    }
}
