//! The laws of merging, over rows of every kind, and what they mean in the cases that happen.

use proptest::prelude::*;

use super::*;
use crate::domain::any;

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
        prop_assert!(weight(&both) >= weight(a));
        prop_assert!(both.attempts >= a.attempts && both.message_id >= a.message_id);
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
            prop_assert_eq!(Some(both.outcome), strongest);
        }
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
        prop_assert!(kept == id || (kept.is_empty() && page_csv::bytes_of(&id) > MAX_MESSAGE_ID));
    }
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
