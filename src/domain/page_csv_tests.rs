//! What is read back is what was written, for every text; and a text takes the room that it is said to take.

use proptest::prelude::*;

use super::*;
use crate::domain::any;

/// Recipients with every text in every place, parameter names included: nobody but the operator writes pages, but whoever
/// restores one may have had another version of it.
fn recipients() -> impl Strategy<Value = Vec<Recipient>> {
    let value = any::text().prop_filter("an empty parameter is an absent one", |value| !value.is_empty());
    let recipient = (any::text(), any::text(), prop::collection::btree_map(any::text(), value, 0..4));
    let recipient = recipient.prop_map(|(chat, skip, params)| Recipient { chat, skip, params });
    prop::collection::vec(recipient, 0..12)
}

/// The text of one field as it stands in a page's JSON, as the API server writes it.
fn stored(field: &str) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    write(&mut writer, ["x", field].into_iter());
    let line = finish(writer);
    let field = line.strip_prefix("x,").and_then(|line| line.strip_suffix('\n')).expect("one line");
    let json = serde_json::to_string(field).expect("JSON");
    let more = |c: char| match c {
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    json[1..json.len() - 1].chars().map(more).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn recipients_are_read_as_they_were_written(recipients in recipients()) {
        let text = write_recipients(&recipients);
        let read = read_recipients(&text);
        prop_assert_eq!(read.expect("readable"), recipients, "{}", text);
    }

    #[test]
    fn rows_are_read_as_they_were_written(
        recipients in recipients(), rows in any::said_rows(12),
    ) {
        let rows = &rows[..recipients.len()];
        let text = write_outcomes(&recipients, rows);
        let read = read_outcomes(&recipients, &text);
        prop_assert_eq!(read.expect("readable"), rows, "{}", text);
    }

    #[test]
    fn rows_of_other_recipients_are_refused(
        recipients in recipients(), rows in any::said_rows(12), chat in any::text(),
    ) {
        prop_assume!(recipients.first().is_some_and(|first| first.chat != chat));
        let text = write_outcomes(&recipients, &rows[..recipients.len()]);
        let mut others = recipients.clone();
        others[0].chat = chat;
        prop_assert!(read_outcomes(&others, &text).is_err());
        prop_assert!(read_outcomes(&recipients[1..], &text).is_err());
    }

    #[test]
    fn whatever_a_page_is_changed_into_is_read_or_refused(text in any::text(), lines in any::text()) {
        let _ = read_recipients(&text);
        let recipients = read_recipients(&format!("chat,skip\n{lines}")).unwrap_or_default();
        let _ = read_outcomes(&recipients, &format!("{}\n{text}", OUTCOME_HEADER.join(",")));
        let _ = read_outcomes(&recipients, &text);
    }

    #[test]
    fn a_field_takes_the_room_that_is_counted_for_it(field in any::text()) {
        let (counted, taken) = (bytes_of(&field), stored(&field).len());
        prop_assert!(counted >= taken, "{} bytes are counted, {} taken", counted, taken);
        // Some control characters have a short form that not every version of the API server knows.
        if !field.chars().any(|c| c.is_ascii_control()) {
            prop_assert_eq!(counted, taken);
        }
    }

    #[test]
    fn a_field_is_cut_as_late_as_possible(field in any::text(), most in 0_usize..40) {
        let kept = cut(&field, most);
        prop_assert!(field.starts_with(kept) && bytes_of(kept) <= most);
        let more: String = field.chars().take(kept.chars().count() + 1).collect();
        prop_assert!(kept == field || bytes_of(&more) > most);
    }
}

#[test]
fn what_became_of_other_messages_is_kept_beside_the_id_and_goes_before_it() {
    let time = "2026-11-23T10:00:00Z".parse().expect("time");
    let mut row = Row::known(Outcome::Sent, 2, time).with_message_id("wamid.2");
    row.merge(&Row::known(Outcome::Failed, 1, time).with_message_id("wamid.1"));
    assert!(row.fates.has_failure());
    let recipient = Recipient { chat: "1".into(), skip: String::new(), params: BTreeMap::new() };
    let text = write_outcomes(std::slice::from_ref(&recipient), std::slice::from_ref(&row));
    let read = read_outcomes(std::slice::from_ref(&recipient), &text).expect("readable");
    assert_eq!(read, [row.clone()]);
    let cut = Cut { message_id: 10, ..LEAST };
    assert_eq!(cut.of(&row)[0], "wamid.2");
}

fn stored_row(row: &Row) -> String {
    let recipient = Recipient { chat: "group".into(), skip: String::new(), params: BTreeMap::new() };
    let text = write_outcomes(std::slice::from_ref(&recipient), std::slice::from_ref(row));
    text.lines().nth(1).expect("a row").to_owned()
}

#[test]
fn participants_stand_behind_the_detail_and_other_rows_are_as_they_were() {
    let time = "2026-11-23T10:00:00Z".parse().expect("time");
    let row = Row::known(Outcome::Delivered, 1, time).with_message_id("wamid.1").with_detail("said");
    assert_eq!(stored_row(&row), "group,Delivered,2026-11-23T10:00:00Z,1,wamid.1,,said");
    let of_group = row.clone().with_participant("group", "15550100");
    assert_eq!(stored_row(&of_group), "group,Delivered,2026-11-23T10:00:00Z,1,wamid.1,,said\tuife");
    for outcome in [Outcome::Sent, Outcome::Failed] {
        let row = Row { outcome, ..row.clone() };
        assert_eq!(
            row.clone().with_participant("group", "15550100"),
            row,
            "{outcome:?} is nothing of a participant"
        );
    }
}

#[test]
fn participants_that_a_version_without_them_has_cut_are_read_as_far_as_they_are_whole() {
    let counted =
        |detail: &str| split_detail(detail, Outcome::Read).1.counts().map(|counts| counts.delivered);
    assert_eq!(counted("\tAAAAAAAE"), Some(2));
    assert_eq!(counted("\tAAAAAAA"), Some(1));
    assert_eq!(counted("\tA"), None);
    assert_eq!(split_detail("a\tno, none", Outcome::Read), ("a\tno, none", Participants::default()));
    assert_eq!(split_detail("a\tAAAA", Outcome::Sent), ("a\tAAAA", Participants::default()));
}
