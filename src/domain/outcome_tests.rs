//! The laws of merging, over rows of every kind, and what they mean in the cases that happen.

use proptest::prelude::*;

use super::*;
use crate::domain::any;
use crate::domain::receipt::Receipt;

fn merged(a: &Row, b: &Row) -> Row {
    let mut row = a.clone();
    row.merge(b);
    row
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn merging_is_commutative(rows in any::rows(2)) {
        let [a, b] = &rows[..] else { panic!("two") };
        prop_assert_eq!(merged(a, b), merged(b, a));
    }

    #[test]
    fn merging_is_associative(rows in any::rows(3)) {
        let [a, b, c] = &rows[..] else { panic!("three") };
        prop_assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
    }

    #[test]
    fn merging_is_idempotent(rows in any::rows(2)) {
        let [a, b] = &rows[..] else { panic!("two") };
        prop_assert_eq!(&merged(a, a), a);
        let both = merged(a, b);
        prop_assert_eq!(&merged(&both, a), &both);
        prop_assert_eq!(&merged(&both, b), &both);
    }

    #[test]
    fn merging_is_monotone(rows in any::rows(3)) {
        let [a, b, c] = &rows[..] else { panic!("three") };
        let both = merged(a, b);
        prop_assert!(class(&both) >= class(a) && both.attempts >= a.attempts);
        prop_assert!(class(&both) > class(a) || both.message_id >= a.message_id);
        let known = |row: &Row| row.participants.counts().map(|counts| (counts.delivered, counts.read));
        prop_assert!(known(&both).map(|of| of.0) >= known(a).map(|of| of.0) || both.outcome == Outcome::Skipped);
        // What knows more before knows more after.
        let (less, more) = (merged(a, c), merged(&both, c));
        prop_assert_eq!(merged(&less, &more), more);
    }

    #[test]
    fn evidence_is_never_lost_and_never_made_up(rows in any::rows(2)) {
        let [a, b] = &rows[..] else { panic!("two") };
        let both = merged(a, b);
        let skipped = rows.iter().any(|row| row.outcome == Outcome::Skipped);
        prop_assert_eq!(both.has_evidence(), !skipped && (a.has_evidence() || b.has_evidence()));
        prop_assert!(rows.iter().any(|row| row.outcome == both.outcome));
        if !skipped && a.has_evidence() && b.has_evidence() {
            // A delivery is stronger than a failure, and a failure than the word that it was taken.
            let order = [Outcome::Sent, Outcome::Failed, Outcome::Delivered, Outcome::Read];
            let strongest = order.into_iter().rfind(|outcome| [a.outcome, b.outcome].contains(outcome));
            // Unless it is another message that failed.
            let are_two = a.message_id != b.message_id && !a.message_id.is_empty() && !b.message_id.is_empty();
            let is_left = are_two && [a.outcome, b.outcome].contains(&Outcome::Sent);
            let expected = strongest.map(|outcome| match outcome {
                Outcome::Failed if is_left => Outcome::Sent,
                outcome => outcome,
            });
            prop_assert_eq!(Some(both.outcome), expected);
        }
    }

    #[test]
    fn receipts_of_several_messages_come_to_the_same_in_any_order(rows in several_messages(), order in any::<[u8; 6]>()) {
        let mut shuffled: Vec<(u8, &Row)> = order.into_iter().cycle().zip(&rows).collect();
        shuffled.sort_by_key(|(place, _)| *place);
        let join = |rows: &[&Row]| rows.iter().skip(1).fold(rows[0].clone(), |known, row| merged(&known, row));
        let in_turn = join(&rows.iter().collect::<Vec<_>>());
        let shuffled: Vec<&Row> = shuffled.into_iter().map(|(_, row)| row).collect();
        prop_assert_eq!(&join(&shuffled), &in_turn);
        // Also where two halves have come together before.
        let (one, other) = shuffled.split_at(shuffled.len().div_ceil(2));
        if !other.is_empty() {
            prop_assert_eq!(&merged(&join(one), &join(other)), &in_turn);
        }
        // It is Failed when all that was taken has failed, and nothing arrived.
        let has = |outcome, id: &str| rows.iter().any(|row| row.outcome == outcome && row.message_id == id);
        let arrived = rows.iter().any(|row| matches!(row.outcome, Outcome::Delivered | Outcome::Read));
        let is_left = ["a", "b", "c"].iter().any(|id| has(Outcome::Sent, id) && !has(Outcome::Failed, id));
        let has_failed = rows.iter().any(|row| row.outcome == Outcome::Failed);
        let fails = has_failed && !arrived && (!is_left || has(Outcome::Failed, ""));
        prop_assert_eq!(in_turn.outcome == Outcome::Failed, fails);
    }

    #[test]
    fn what_is_kept_of_a_gateways_words_is_short_and_needs_no_cleaning(code in any::text(), detail in any::text()) {
        let row = Row::pending().with_error(&code, &detail);
        prop_assert!(page_csv::bytes_of(&row.code) <= MAX_CODE && page_csv::bytes_of(&row.detail) <= MAX_DETAIL);
        prop_assert_eq!(row.clone().with_error(&row.code, &row.detail), row);
    }

    #[test]
    fn any_message_id_is_kept_whole_or_not_at_all(id in any::text(), times in 1_usize..200) {
        let id = id.repeat(times);
        let kept = Row::pending().with_message_id(&id).message_id;
        prop_assert!(page_csv::bytes_of(&kept) <= MAX_MESSAGE_ID);
        let is_kept = page_csv::bytes_of(&id) <= MAX_MESSAGE_ID && !id.contains(AFTER_ID);
        prop_assert_eq!(kept, if is_kept { id } else { String::new() });
    }
}

/// What a gateway tells of up to three messages of one chat: answers, receipts, and failures that were only noted.
fn several_messages() -> impl Strategy<Value = Vec<Row>> {
    let outcome =
        prop::sample::select(&[Outcome::Sent, Outcome::Failed, Outcome::Failed, Outcome::Delivered][..]);
    let id = prop::sample::select(&["a", "b", "c", ""][..]);
    let code = prop::sample::select(&["131026", "131049", ""][..]);
    let row = (outcome, id, code, 0_i64..4, 1_u32..3).prop_map(|(outcome, id, code, second, attempts)| {
        Row::known(outcome, attempts, at(second)).with_message_id(id).with_error(code, "")
    });
    let noted = (row.clone(), 1_u32..3).prop_map(|(row, attempts)| {
        let mut unknown = Row::known(Outcome::Unknown, attempts, at(9)).with_error("Timeout", "");
        let failed = Row { outcome: Outcome::Failed, ..row };
        unknown.note_failure(&failed);
        vec![unknown, failed]
    });
    prop::collection::vec(prop_oneof![4 => row.prop_map(|row| vec![row]), 1 => noted], 1..5)
        .prop_map(|rows| rows.concat())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("small")
}

#[test]
fn a_late_sent_does_not_take_a_read_back() {
    let mut row = Row::known(Outcome::Read, 1, at(5));
    row.merge(&Row::known(Outcome::Sent, 1, at(9)).with_message_id("m1"));
    assert_eq!((row.outcome, row.message_id.as_str()), (Outcome::Read, "m1"));
}

#[test]
fn participants_of_a_group_outlast_whatever_else_is_heard_of_it() {
    let told = |outcome, person: &str| Row::known(outcome, 1, at(5)).with_participant("group", person);
    let mut row = Row::known(Outcome::Sent, 1, at(1)).with_message_id("1");
    for heard in [
        told(Outcome::Delivered, "ana"),
        told(Outcome::Read, "ben"),
        Row::known(Outcome::Failed, 1, at(6)).with_message_id("1").with_error("131026", "no"),
        Row::known(Outcome::Unknown, 2, at(7)),
        told(Outcome::Delivered, "ben"),
        Row::known(Outcome::Delivered, 1, at(0)),
    ] {
        row.merge(&heard);
    }
    let counts = row.participants.counts().map(|counts| (counts.delivered, counts.read));
    assert_eq!((row.outcome, counts), (Outcome::Read, Some((2, 1))));
}

#[test]
fn a_resend_is_a_step_up_and_evidence_stops_it() {
    let mut row = Row::known(Outcome::Unknown, 1, at(5));
    row.merge(&Row::known(Outcome::Unknown, 2, at(6)));
    assert_eq!(row.attempts, 2);
    row.merge(&Row::known(Outcome::Delivered, 0, at(4)));
    assert_eq!((row.outcome, row.attempts), (Outcome::Delivered, 2));
}

#[test]
fn a_delivery_beats_failed_and_unknown() {
    for earlier in [Outcome::Failed, Outcome::Unknown] {
        let mut row = Row::known(earlier, 1, at(5)).with_error("500", "oops");
        row.merge(&Row::known(Outcome::Delivered, 0, at(9)));
        assert_eq!((row.outcome, row.code.as_str()), (Outcome::Delivered, ""));
    }
}

/// What becomes of a chat by these answers and receipts: the message that each is about, and its outcome.
fn outcome_by(told: &[(&str, Outcome)]) -> Outcome {
    let mut row = Row::known(Outcome::Unknown, 1, at(1));
    for (second, (id, outcome)) in (2..).zip(told) {
        row.merge(&Row::known(*outcome, 1, at(second)).with_message_id(id));
    }
    row.outcome
}

#[test]
fn a_failure_of_an_earlier_try_does_not_turn_the_one_that_was_taken_since() {
    use Outcome::{Delivered, Failed, Sent};
    for (told, expected) in [
        (&[("2", Sent), ("1", Failed)][..], Sent),
        (&[("1", Failed), ("2", Sent)], Sent),
        (&[("2", Sent), ("2", Failed)], Failed),
        (&[("2", Sent), ("1", Failed), ("2", Failed)], Failed),
        (&[("1", Failed), ("2", Failed), ("2", Sent)], Failed),
        (&[("2", Sent), ("1", Delivered), ("2", Failed)], Delivered),
        (&[("2", Sent), ("", Failed)], Failed),
        (&[("", Sent), ("1", Failed)], Failed),
    ] {
        assert_eq!(outcome_by(told), expected, "{told:?}");
    }
}

#[test]
fn a_chat_whose_other_message_failed_is_sent_and_says_why_the_other_failed() {
    let mut row = Row::known(Outcome::Sent, 2, at(5)).with_message_id("2");
    row.merge(&Row::known(Outcome::Failed, 1, at(9)).with_message_id("1").with_error("131026", "no"));
    assert_eq!((row.outcome, row.code.as_str(), row.message_id.as_str()), (Outcome::Sent, "131026", "2"));
}

#[test]
fn an_error_text_is_not_replaced_by_an_empty_one() {
    let mut row = Row::known(Outcome::Failed, 1, at(5)).with_error("131026", "not on this network");
    row.merge(&Row::known(Outcome::Failed, 1, at(4)));
    assert_eq!(row.code, "131026");
}

#[test]
fn errors_are_cut_by_bytes_and_cleaned() {
    let row = Row::pending().with_error("a\nb", &"é".repeat(500));
    assert_eq!((row.code.as_str(), row.detail.len()), ("a b", MAX_DETAIL));
    let row = Row::pending().with_error(&"ж".repeat(64), "no \"such\" chat");
    assert_eq!((row.code.len(), row.detail.as_str()), (MAX_CODE, "no 'such' chat"));
}

#[test]
fn a_message_id_is_kept_whole_or_not_at_all() {
    let id = |id: &str| Row::pending().with_message_id(id).message_id;
    assert_eq!(id(&"m".repeat(128)).len(), 128);
    assert_eq!(id(&"m".repeat(129)), "");
    assert_eq!(id(&"\"".repeat(32)), "", "a quote takes four bytes in a page");
}

#[test]
fn a_failure_of_one_participant_shows_that_the_message_of_the_group_was_taken_and_no_more() {
    let failed = Receipt::new("0b3f.0.1", Outcome::Failed, Some(at(5)), at(6)).expect("a receipt");
    let failed = failed.with_message_id("1").with_error("131026", "no");
    let of_one = Receipt { participant: "ben".into(), ..failed.clone() }.evidence_of_chat();
    for (before, after) in
        [(Outcome::Unknown, Outcome::Sent), (Outcome::Sent, Outcome::Sent), (Outcome::Read, Outcome::Read)]
    {
        let mut row = Row::known(before, 1, at(1));
        row.merge(&of_one);
        assert_eq!((row.outcome, row.code.as_str()), (after, ""));
    }
    // That it failed for the whole group counts, whichever comes first.
    let mut row = of_one.clone();
    row.merge(&failed.evidence_of_chat());
    assert_eq!((row.outcome, row.code.as_str()), (Outcome::Failed, "131026"));
    let mut row = failed.evidence_of_chat();
    row.merge(&of_one);
    assert_eq!((row.outcome, row.code.as_str()), (Outcome::Failed, "131026"));
}
