//! What becomes of good and bad audiences.

use super::*;
use proptest::prelude::*;

/// A chat in the form that a gateway gets.
pub(super) fn normalise(chat: &str) -> Option<String> {
    ChatRules::default().normalise(chat).ok()
}

fn rows(text: &str) -> Vec<(String, String)> {
    let mut audience = Audience::default();
    audience.add_csv("chats.csv", text).expect("readable");
    let recipients = audience.finish().expect("somebody");
    recipients
        .into_iter()
        .map(|r| (r.chat, r.skip.split(':').next().unwrap_or_default().to_owned()))
        .collect()
}

fn error(text: &str) -> &'static str {
    let mut audience = Audience::default();
    match audience.add_csv("chats.csv", text) {
        Err(error) => error.category(),
        Ok(()) => audience.finish().expect_err("should fail").category(),
    }
}

fn chats(text: &str) -> Vec<String> {
    rows(text).into_iter().map(|(chat, _)| chat).collect()
}

#[test]
fn a_header_names_the_chat_column_whatever_its_case_and_place() {
    for text in [
        "chat,name\n15550100,Ana\n",
        "name,Phone\nAna,15550100\n",
        "\u{feff}ID;name\r\n15550100;Ana\r\n",
        "name\tid\nAna\t15550100",
    ] {
        assert_eq!(chats(text), ["15550100"], "{text}");
    }
}

#[test]
fn a_list_without_header_is_one_chat_per_line() {
    assert_eq!(chats("15550100\n\n15550101\r\n"), ["15550100", "15550101"]);
}

#[test]
fn forms_of_one_number_are_one_chat() {
    let all = rows("chat\n+1 (555) 010-0123\n0015550100123\n15550100123\n");
    let skips: Vec<&str> = all.iter().map(|(_, skip)| skip.as_str()).collect();
    assert_eq!(skips, ["", "Duplicate", "Duplicate"]);
    assert!(all.iter().all(|(chat, _)| chat == "15550100123"));
}

#[test]
fn ids_of_chat_networks_stay_as_they_are() {
    for id in ["-1001234567890", "@channel", "123-456@g.us", "ana@example.com"] {
        assert_eq!(normalise(id).as_deref(), Some(id));
    }
}

#[test]
fn bad_rows_are_rows_with_a_reason() {
    let all = rows("chat,name\n15550100,Ana,extra\n12,Bo\nnot a chat,Cy\n15550101\n,Di\n15550102,Ed\n");
    let skips: Vec<&str> = all.iter().map(|(_, skip)| skip.as_str()).collect();
    assert_eq!(skips, ["RaggedRow", "InvalidChat", "InvalidChat", "RaggedRow", "InvalidChat", ""]);
}

#[test]
fn a_text_that_makes_no_sense_is_refused_as_a_whole() {
    assert_eq!(error("name,city\nAna,Madrid\n"), "NoChatColumn");
    assert_eq!(error("name\nAna\n"), "NoChatColumn");
    assert_eq!(error("chat,first name\n15550100,Ana\n"), "InvalidColumn");
    assert_eq!(error("chat,name,name\n15550100,Ana,Bo\n"), "InvalidColumn");
    assert_eq!(error(""), "EmptyAudience");
    assert_eq!(error("chat,name\n"), "EmptyAudience");
}

#[test]
fn a_quote_that_is_not_closed_is_refused_and_its_line_is_named() {
    let mut audience = Audience::default();
    let error = audience.add_csv("chats.csv", "chat,name\n15550100,\"Ana\n15550101,Bo\n").expect_err("open");
    assert_eq!(error.category(), "InvalidCsv");
    assert!(error.to_string().contains("line 2"), "{error}");
}

/// Inline chats, each with `params` parameters of its own.
fn chats_with_params_of_their_own(chats: usize, params: usize) -> Vec<Chat> {
    let params = |chat| (0..params).map(move |param| (format!("p_{chat}_{param}"), "x".to_owned())).collect();
    (0..chats).map(|chat| Chat { id: format!("1555010{chat:04}"), params: params(chat) }).collect()
}

#[test]
fn parameter_names_are_counted_over_all_recipients() {
    let mut audience = Audience::default();
    audience.add_chats(&chats_with_params_of_their_own(2, 16)).expect("32 names");
    let more = Chat { id: "15550109999".into(), params: BTreeMap::from([("one_more".into(), "x".into())]) };
    let error = audience.add_chats(&[more]).expect_err("33 names");
    assert_eq!(error.category(), "TooManyParameters");
    assert!(error.to_string().contains("one_more"), "{error}");
    assert!(Audience::default().add_chats(&chats_with_params_of_their_own(250, 10)).is_err());
}

#[test]
fn a_parameter_of_an_inline_chat_has_a_name_that_a_message_can_use() {
    let chat = Chat { id: "15550100".into(), params: BTreeMap::from([("first name".into(), "Ana".into())]) };
    let error = Audience::default().add_chats(&[chat]).expect_err("a space");
    assert_eq!(error.category(), "InvalidParameter");
}

#[test]
fn a_recipient_with_too_much_text_is_a_row_with_a_reason() {
    let params = |value: &str| (0..32).map(|param| (format!("p{param}"), value.repeat(1024))).collect();
    let mut audience = Audience::default();
    let chat = |id: &str, value| Chat { id: id.into(), params: params(value) };
    audience.add_chats(&[chat("15550100", "x"), chat("15550101", "ж")]).expect("readable");
    let rows = audience.finish().expect("two");
    assert_eq!(rows[0].skip, "");
    assert!(rows[1].skip.starts_with("ParametersTooLong: "), "{}", rows[1].skip);
}

#[test]
fn an_audience_without_anybody_to_send_to_is_refused_and_says_what_is_wrong_with_its_first_row() {
    let mut audience = Audience::default();
    audience.add_csv("chats.csv", "chat\nnobody at all\n17\n").expect("readable");
    let error = audience.finish().expect_err("nobody");
    assert_eq!(error.category(), "EmptyAudience");
    assert!(error.to_string().contains("none of the 2 rows") && error.to_string().contains("InvalidChat"));
}

#[test]
fn quoted_fields_may_hold_anything() {
    let mut audience = Audience::default();
    audience.add_csv("x", "chat,note\n15550100,\"a, \"\"b\"\"\nc\"\n").expect("readable");
    assert_eq!(audience.finish().expect("one")[0].params["note"], "a, \"b\"\nc");
}

proptest! {
    #[test]
    fn pages_hold_every_row_once_and_survive_storage(
        values in prop::collection::vec(("[0-9]{5,9}", "\\PC{0,40}"), 1..600)
    ) {
        let chats: Vec<Chat> = values
            .into_iter()
            .map(|(id, value)| Chat { id, params: BTreeMap::from([("p".to_owned(), value)]) })
            .collect();
        let mut audience = Audience::default();
        audience.add_chats(&chats).expect("small");
        let recipients = audience.finish().expect("somebody");
        let pages = pages(recipients.clone());
        let stored: Vec<Recipient> = pages.iter().flat_map(|page| page.recipients().to_vec()).collect();
        prop_assert_eq!(stored, recipients);
        for page in &pages {
            prop_assert!(page.rows().len() <= MAX_PAGE_ROWS);
        }
    }
}

#[test]
fn what_spreadsheets_leave_of_a_number_is_nobody() {
    for chat in [
        "15550100001.0",
        "1.5550100001E+10",
        "1e10",
        "=15550100001",
        "'15550100002",
        "N/A",
        "null",
        "#N/A",
        "nan",
    ] {
        assert_eq!(normalise(chat), None, "{chat}");
    }
    for (chat, wanted) in
        [("1.555.010.0001", "15550100001"), ("e2e@example.com", "e2e@example.com"), ("@none", "@none")]
    {
        assert_eq!(normalise(chat).as_deref(), Some(wanted));
    }
}

#[test]
fn two_columns_that_may_hold_the_chat_are_no_guess() {
    for header in ["id,phone,name", "phone,chat", "Chat,ID"] {
        let mut audience = Audience::default();
        let error = audience.add_csv("chats.csv", &format!("{header}\n1,2,3\n")).expect_err("two of them");
        assert_eq!(error.category(), "InvalidColumn", "{header}");
    }
}

#[test]
fn what_is_no_audience_is_shown_nowhere_and_a_secret_is_none_without_a_header() {
    let mut audience = Audience::default();
    for text in ["hunter2-very-secret,second", "hunter2-very-secret", "15550100001,Ana"] {
        let error =
            audience.add_csv_with_header("key password of Secret other", text).expect_err("no header");
        assert_eq!(error.category(), "NoChatColumn");
        assert!(
            !["hunter2", "15550100001", "Ana"].iter().any(|word| error.to_string().contains(word)),
            "{error}"
        );
    }
    audience.add_csv_with_header("key chats of Secret customers", "phone\n15550100001\n").expect("readable");
    assert_eq!(audience.finish().map(|rows| rows.len()), Ok(1));
}
