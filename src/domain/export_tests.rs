//! No cell of an export is a formula, and nothing is lost by it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::api::{BatchProgress, BroadcastBatchSpec, BroadcastIdentity, BroadcastSpec, BroadcastStatus};
use crate::domain::any;
use crate::domain::outcome::Outcome;

/// What is dangerous, once more, in the words of the guidance: these at the beginning of a cell, whatever blanks are before
/// them.
fn is_dangerous(cell: &str) -> bool {
    let blank = |c: char| c.is_whitespace() || c.is_control() || is_invisible(c);
    cell.starts_with(['\t', '\r', '\n', '\0'])
        || cell.trim_start_matches(blank).starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
}

/// Takes the guards away again.
fn unguarded(cell: &str) -> String {
    let mut text = cell.to_owned();
    for place in places(cell) {
        assert_eq!(text.remove(place), GUARD, "{cell:?} has a place that is not guarded");
    }
    text
}

/// The cells of a CSV, as a program splits it.
fn read(text: &str, delimiter: u8) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    let rows = reader.records().map(|record| record.expect("CSV").iter().map(str::to_owned).collect());
    rows.collect()
}

/// Texts with formulas in all places.
fn text() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "=",
        "+",
        "-",
        "@",
        "＝",
        "＋",
        "－",
        "＠",
        "'",
        "\"",
        ";",
        ",",
        "\t",
        "\r",
        "\n",
        " ",
        "\0",
        "\u{feff}",
        "\u{a0}",
        "\u{200b}",
        "a",
        "1",
        "=HYPERLINK(\"http://evil.example\")",
    ]);
    prop_oneof![
        2 => prop::collection::vec(parts, 0..8).prop_map(|parts| parts.concat()),
        1 => any::text(),
    ]
}

fn pages() -> impl Strategy<Value = Vec<Page>> {
    let name = prop_oneof![4 => "[a-c]", 1 => prop::sample::select([&OUTCOME_HEADER[..], &PARTICIPANT_HEADER].concat()).prop_map(str::to_owned)];
    let value = text().prop_filter("an empty parameter is an absent one", |value| !value.is_empty());
    let recipient = (text(), prop::collection::btree_map(name, value, 0..4));
    let recipient = recipient.prop_map(|(chat, params)| Recipient { chat, skip: String::new(), params });
    let row = (any::said_rows(1), text(), text(), text());
    let row = row
        .prop_map(|(rows, id, code, detail)| rows[0].clone().with_message_id(&id).with_error(&code, &detail));
    let page = prop::collection::vec((recipient, row), 1..6).prop_map(|rows| {
        let (recipients, rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let mut page = Page::planned(recipients);
        for (number, row) in rows.iter().enumerate() {
            page.merge(number, row);
        }
        page
    });
    prop::collection::vec(page, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn a_guarded_text_is_no_formula_and_the_text_can_be_had_back(text in text()) {
        let guarded = guarded(&text);
        prop_assert!(!is_dangerous(&guarded), "{:?} became {:?}", text, guarded);
        prop_assert_eq!(unguarded(&guarded), text.clone());
        let harmless = !text.contains(FORMULA) && !text.trim_start_matches(GUARD).starts_with(char::is_control);
        prop_assert!(!harmless || guarded == text, "{:?} became {:?} for nothing", text, guarded);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_export_is_csv_without_formulas_and_with_all_that_the_pages_hold(pages in pages()) {
        let rows = read(&csv(&pages, Cells::Guarded), b',');
        let raw = read(&csv(&pages, Cells::Raw), b',');
        let [header, ..] = &rows[..] else { panic!("a header") };
        for cell in rows.iter().flatten() {
            prop_assert!(!is_dangerous(cell), "{:?}", cell);
        }
        for row in &rows {
            prop_assert_eq!(row.len(), header.len());
        }
        let undone: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| unguarded(cell)).collect()).collect();
        prop_assert_eq!(&undone, &raw);

        let columns: BTreeSet<&String> = header.iter().collect();
        prop_assert_eq!(columns.len(), header.len(), "each name once: {:?}", header);
        let held = pages.iter().flat_map(|page| page.recipients().iter().zip(page.rows()));
        let of_groups = held.clone().any(|(_, row)| row.participants.counts().is_some());
        prop_assert_eq!(held.clone().count() + 1, rows.len());
        for ((recipient, row), line) in held.zip(&undone[1..]) {
            let of: BTreeMap<&str, &str> = header.iter().map(String::as_str).zip(line.iter().map(String::as_str)).collect();
            prop_assert_eq!(of["chat"], &recipient.chat);
            prop_assert_eq!(of["outcome"], name(row.outcome));
            prop_assert_eq!(of["time"].parse().ok(), row.time);
            prop_assert_eq!(of["attempts"].parse(), Ok(row.attempts));
            prop_assert_eq!([of["messageId"], of["code"], of["detail"]], [&row.message_id, &row.code, &row.detail]);
            let counts = row.participants.counts();
            let counts = counts.map(|counts| [counts.delivered.to_string(), counts.read.to_string()]);
            let said = PARTICIPANT_HEADER.map(|name| if of_groups { of[name] } else { "" });
            prop_assert_eq!(said, counts.as_ref().map_or(["", ""], |[delivered, read]| [delivered.as_str(), read]));
            for column in &header[OUTCOME_HEADER.len()..header.len() - if of_groups { 2 } else { 0 }] {
                let param = column.strip_prefix("params.").unwrap_or(column);
                prop_assert_eq!(of[column.as_str()], recipient.params.get(param).map_or("", String::as_str));
            }
            for name in recipient.params.keys() {
                let told_apart = format!("params.{name}");
                let is_taken = OUTCOME_HEADER.contains(&name.as_str())
                    || of_groups && PARTICIPANT_HEADER.contains(&name.as_str());
                let wanted = if is_taken { &told_apart } else { name };
                prop_assert!(columns.contains(wanted), "{:?} in {:?}", wanted, header);
            }
        }
    }

    #[test]
    fn an_export_that_is_split_at_other_signs_than_commas_has_no_formulas_either(pages in pages()) {
        let text = csv(&pages, Cells::Guarded);
        for delimiter in [b';', b'\t'] {
            for cell in read(&text, delimiter).iter().flatten() {
                // Its first cells have commas in them, which is no beginning of anything.
                let formula = cell.trim_start_matches(|c: char| is_passed_over(c) && c != GUARD).starts_with(FORMULA);
                prop_assert!(!formula, "{:?} of {}", cell, text);
            }
        }
    }
}

#[test]
fn usual_texts_stay_as_they_are() {
    for text in [
        "",
        "15550100001",
        "Ana",
        "ana@example.com",
        "2026-11-23T10:00:00.123Z",
        "5 - 3 = 2",
        "O'Neil",
        "'90s",
        "a;b",
        "a\nb",
        "\"hi\"",
    ] {
        assert_eq!(guarded(text), text);
    }
}

#[test]
fn what_a_spreadsheet_could_run_is_guarded() {
    for (text, wanted) in [
        ("=HYPERLINK(\"http://evil.example\")", "'=HYPERLINK(\"http://evil.example\")"),
        ("+1 555", "'+1 555"),
        ("-1001234567890", "'-1001234567890"),
        ("@channel", "'@channel"),
        ("  =1", "'  =1"),
        ("\u{a0}\u{feff}＝1", "'\u{a0}\u{feff}＝1"),
        ("＋1", "'＋1"),
        ("－1", "'－1"),
        ("＠SUM(1)", "'＠SUM(1)"),
        ("\tAna", "'\tAna"),
        ("\rAna", "'\rAna"),
        ("\0=1", "'\0=1"),
        ("'=1", "''=1"),
        ("\"=1\"", "'\"=1\""),
        ("Ana;=1", "Ana;'=1"),
        ("Ana\r\n=1", "Ana\r'\n'=1"),
    ] {
        assert_eq!(guarded(text), wanted);
        assert_eq!(unguarded(wanted), text);
    }
}

#[test]
fn the_columns_are_those_of_the_log_and_then_the_parameters_of_all_recipients() {
    let recipient = |chat: &str, params: &[(&str, &str)]| Recipient {
        chat: chat.into(),
        skip: String::new(),
        params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let mut first = Page::planned(vec![recipient("15550100", &[("name", "=1+1")])]);
    let second = Page::planned(vec![recipient("15550101", &[("code", "SPRING"), ("city", "Córdoba, AR")])]);
    let time: Timestamp = "2026-11-23T10:00:00.123Z".parse().expect("time");
    first.merge(0, &Row::known(Outcome::Sent, 1, time).with_message_id("m-1"));
    let pages = [first, second];
    let rows = |name: &str| {
        format!(
            "chat,outcome,time,attempts,messageId,code,detail,city,params.code,name\n\
             15550100,Sent,2026-11-23T10:00:00.123Z,1,m-1,,,,,{name}\n\
             15550101,Pending,,0,,,,\"Córdoba, AR\",SPRING,\n"
        )
    };
    assert_eq!(csv(&pages, Cells::Guarded), rows("'=1+1"));
    assert_eq!(csv(&pages, Cells::Raw), rows("=1+1"));
}

/// A sealed Broadcast with so many pages.
fn sealed(total: i32) -> Broadcast {
    let mut broadcast = Broadcast::new("sale", BroadcastSpec::default());
    broadcast.metadata.uid = Some("ours".into());
    broadcast.status = Some(BroadcastStatus {
        batches: Some(BatchProgress { total, done: 0 }),
        ..BroadcastStatus::default()
    });
    broadcast
}

/// A stored page with one chat, of a Broadcast of the same name.
fn stored(uid: &str, index: i32) -> BroadcastBatch {
    let chat = format!("1555{index:04}");
    let page = Page::planned(vec![Recipient { chat, skip: String::new(), params: BTreeMap::new() }]);
    let broadcast = BroadcastIdentity { name: "sale".into(), uid: uid.into() };
    let spec = BroadcastBatchSpec { broadcast, index, recipients: page.recipients_csv() };
    let mut batch = BroadcastBatch::new(&format!("sale-{index:05}"), spec);
    batch.status = Some(page.status());
    batch
}

fn error(total: i32, batches: &[BroadcastBatch]) -> String {
    whole_log(&sealed(total), batches.to_vec()).expect_err("no whole log").to_string()
}

#[test]
fn a_log_is_the_pages_of_this_very_broadcast_in_their_order() {
    // Names sort otherwise from page 100,000 on.
    let batches = [stored("ours", 2), stored("earlier", 3), stored("ours", 0), stored("ours", 1)];
    let pages = whole_log(&sealed(3), batches.to_vec()).expect("whole");
    let chats: Vec<&str> = pages.iter().map(|page| page.recipients()[0].chat.as_str()).collect();
    assert_eq!(chats, ["15550000", "15550001", "15550002"]);
    assert_eq!(whole_log(&sealed(0), Vec::new()).expect("whole").len(), 0);
}

#[test]
fn pages_that_are_missing_or_cannot_be_read_are_named() {
    let here = [stored("ours", 0), stored("earlier", 1), stored("ours", 3)];
    assert_eq!(error(4, &here), "2 of its 4 pages are missing: sale-00001, sale-00002");
    let many = error(100, &here);
    assert!(
        many.starts_with("98 of its 100 pages are missing: sale-00001, ")
            && many.ends_with(", sale-00011, …"),
        "{many}"
    );
    assert_eq!(error(1, &here), "it has 2 pages and should have 1");
    assert_eq!(error(1, &[stored("ours", 0), stored("ours", 0)]), "it has 2 pages and should have 1");
    let mut broken = stored("ours", 1);
    broken.status = None;
    assert_eq!(error(2, &[stored("ours", 0), broken]), "page sale-00001 cannot be read");
    let mut planning = sealed(1);
    planning.status = Some(BroadcastStatus::default());
    assert!(matches!(whole_log(&planning, vec![stored("ours", 0)]), Err(LogError::NotSealed)));
}
