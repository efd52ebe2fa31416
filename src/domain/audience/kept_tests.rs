//! What users write is kept as it is, from their CSV to the page, but for what docs/api.md says is not.

use csv::{QuoteStyle, Terminator, WriterBuilder};
use proptest::prelude::*;

use super::tests::normalise;
use super::*;
use crate::api::{BroadcastBatch, BroadcastBatchSpec, BroadcastIdentity};
use crate::domain::any;
use crate::domain::page::Page;

/// One row that a user writes: a chat and two parameters.
type Line = [String; 3];

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let mark =
        prop::sample::select(vec!["", " ", "\u{202a}", "\u{202c}", "\u{feff}", "\u{a0}", "\t", "\u{200e}"]);
    let dialled = prop::sample::select(vec!["", "+", "00", "000", "0000", "+00", "(00) 0"]);
    let number =
        (mark.clone(), dialled, "[-0-9(). ]{1,12}", mark).prop_map(|(a, b, c, d)| format!("{a}{b}{c}{d}"));
    let chat = prop_oneof![2 => number, 1 => "[a-z]{1,3}@[a-z]{1,3}", 1 => any::text()];
    prop::collection::vec((chat, any::text(), any::text()).prop_map(|(chat, a, b)| [chat, a, b]), 0..20)
}

/// How programs write CSV.
#[derive(Clone, Debug)]
struct Dialect {
    delimiter: u8,
    quotes: QuoteStyle,
    terminator: Terminator,
    marks: usize,
}

fn dialect() -> impl Strategy<Value = Dialect> {
    let quotes =
        prop::sample::select(vec![QuoteStyle::Always, QuoteStyle::Necessary, QuoteStyle::NonNumeric]);
    let terminator =
        prop::sample::select(vec![Terminator::CRLF, Terminator::Any(b'\n'), Terminator::Any(b'\r')]);
    (prop::sample::select(&b",;\t"[..]), quotes, terminator, 0_usize..3)
        .prop_map(|(delimiter, quotes, terminator, marks)| Dialect { delimiter, quotes, terminator, marks })
}

fn written(lines: &[Line], dialect: &Dialect) -> String {
    let mut writer = WriterBuilder::new()
        .delimiter(dialect.delimiter)
        .quote_style(dialect.quotes)
        .terminator(dialect.terminator)
        .from_writer(Vec::new());
    writer.write_record(["chat", "first", "second"]).expect("in memory");
    for line in lines {
        writer.write_record(line).expect("in memory");
    }
    let text = String::from_utf8(writer.into_inner().expect("in memory")).expect("text");
    format!("{}{text}", "\u{feff}".repeat(dialect.marks))
}

/// What the documentation says becomes of these rows.
fn documented<'a>(rows: impl Iterator<Item = &'a Line>) -> Vec<Recipient> {
    let mut seen = HashSet::new();
    let rows = rows.map(|[chat, first, second]| {
        let params = [("first", first), ("second", second)].into_iter();
        // White space around a value is dropped, and an empty value is an absent one.
        let params = params.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        let params = params.filter(|(_, value)| !value.is_empty()).collect();
        let skipped =
            |chat: String, reason: &str| Recipient { chat, skip: reason.into(), params: BTreeMap::new() };
        match normalise(chat) {
            // Control characters are dropped, and the rest of a very long one.
            None => {
                let shown = chat.trim().chars().filter(|c| !c.is_control()).take(128).collect();
                skipped(shown, "InvalidChat: not a phone number or chat id")
            }
            Some(chat) if seen.insert(chat.clone()) => Recipient { chat, skip: String::new(), params },
            Some(chat) => skipped(chat, "Duplicate: the chat is in the audience already"),
        }
    });
    rows.collect()
}

fn stored(recipients: Vec<Recipient>) -> Vec<Recipient> {
    let identity = BroadcastIdentity { name: "sale".into(), uid: "1".into() };
    let reread = |page: &Page| {
        let recipients = page.recipients_csv();
        let spec = BroadcastBatchSpec { broadcast: identity.clone(), index: 0, recipients };
        let mut batch = BroadcastBatch::new("sale-00000", spec);
        batch.status = Some(page.status());
        let json = serde_json::to_string(&batch).expect("JSON");
        Page::parse(&serde_json::from_str(&json).expect("the same kind")).expect("readable")
    };
    pages(recipients).iter().flat_map(|page| reread(page).recipients().to_vec()).collect()
}

/// `None` for an audience that is refused because nobody is in it.
fn finished(audience: Audience) -> Option<Vec<Recipient>> {
    match audience.finish() {
        Ok(recipients) => Some(recipients),
        Err(AudienceError::Empty | AudienceError::OnlyBadRows { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_csv_of_any_dialect_comes_to_the_pages_as_it_was_written(lines in lines(), dialect in dialect()) {
        let mut audience = Audience::default();
        let text = written(&lines, &dialect);
        let read = audience.add_csv("chats.csv", &text);
        prop_assert!(read.is_ok(), "{:?}: {:?}", read, text);
        // A line of nothing but white space is no row.
        let rows = lines.iter().filter(|line| line.iter().any(|cell| !cell.trim().is_empty()));
        let documented = documented(rows);
        prop_assert_eq!(&audience.recipients, &documented, "{:?}", text);
        if let Some(recipients) = finished(audience) {
            prop_assert_eq!(stored(recipients), documented);
        }
    }

    #[test]
    fn inline_chats_come_to_the_pages_as_they_were_written(lines in lines()) {
        let chats: Vec<Chat> = lines.iter().map(|[id, first, second]| {
            let params = [("first", first), ("second", second)].map(|(name, value)| (name.to_owned(), value.clone()));
            Chat { id: id.clone(), params: params.into() }
        }).collect();
        let mut audience = Audience::default();
        audience.add_chats(&chats).expect("few");
        // An inline chat is a row, be it blank.
        prop_assert_eq!(&audience.recipients, &documented(lines.iter()));
        if let Some(recipients) = finished(audience) {
            prop_assert_eq!(stored(recipients.clone()), recipients);
        }
    }

    #[test]
    fn the_one_form_of_a_chat_is_its_own(line in lines()) {
        for [chat, ..] in line {
            if let Some(normal) = normalise(&chat) {
                prop_assert_eq!(normalise(&normal), Some(normal.clone()), "{:?}", chat);
                prop_assert_eq!(normalise(&format!(" \u{202a}{chat}\u{202c}\r")), Some(normal));
            }
        }
    }

    #[test]
    fn whatever_stands_in_a_source_is_read_or_refused_and_what_is_read_is_stored(text in any::text(), more in any::text()) {
        for text in [&text, &format!("chat,{text}\n{more}"), &format!("chat,name\n{text}\n{more}")] {
            let mut audience = Audience::default();
            if audience.add_csv("chats.csv", text).is_ok()
                && let Ok(recipients) = audience.finish()
            {
                prop_assert_eq!(stored(recipients.clone()), recipients);
            }
        }
    }
}

#[test]
fn marks_that_no_eye_sees_make_no_other_chat() {
    for chat in [
        "\u{202a}+1 555 010-0123\u{202c}",
        "\u{feff}15550100123",
        "1555\u{200b}0100123",
        "15550100123\u{200f}\u{a0}",
    ] {
        assert_eq!(normalise(chat).as_deref(), Some("15550100123"), "{chat:?}");
    }
    assert_eq!(normalise("\u{200e}ana@example.com\u{feff}").as_deref(), Some("ana@example.com"));
    assert_eq!(normalise("ana\u{200b}@example.com"), None, "nobody can tell it from the one without it");
    assert_eq!(normalise("\u{200b}"), None);
}
