use jiff::Timestamp;
use serde_json::{Value, json};

use super::webhook::{is_genuine, read};
use crate::domain::receipt::{NoticeError, Notices, Preference};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("small")
}

fn read_text(body: &str) -> Result<Notices, NoticeError> {
    read(body.as_bytes(), at(1_760_000_000))
}

fn update(chat: &Value, status: &str) -> Notices {
    let member = |status: &str| json!({"user": {"id": 1, "is_bot": true}, "status": status});
    let change = json!({
        "chat": chat, "from": {"id": 4711}, "date": 1_750_000_000,
        "old_chat_member": member("member"), "new_chat_member": member(status),
    });
    read_text(&json!({"update_id": 7, "my_chat_member": change}).to_string()).expect("an update")
}

#[test]
fn only_who_knows_a_secret_is_genuine() {
    assert!(is_genuine(&["word"], "word"));
    assert!(is_genuine(&["new", "word"], "word"));
    for (secrets, header) in [(vec!["word"], "wor"), (vec!["word"], ""), (vec![""], ""), (vec![], "word")] {
        assert!(!is_genuine(&secrets, header), "{secrets:?} {header}");
    }
}

#[test]
fn a_person_who_blocks_the_bot_does_not_want_it_and_one_who_starts_it_again_does() {
    for (status, is_wanted) in [("kicked", false), ("member", true)] {
        let notices = update(&json!({"id": 4711, "type": "private"}), status);
        let expected = Preference::new("4711", is_wanted, status, Some(at(1_750_000_000)), at(1_760_000_000));
        assert_eq!(expected.time, at(1_750_000_000), "it is as old as it is, however late it comes");
        assert_eq!(notices, Notices { preferences: vec![expected], ..Notices::default() });
    }
}

#[test]
fn a_group_that_has_the_bot_again_is_written_to_again() {
    for (kind, status) in [("group", "member"), ("supergroup", "administrator"), ("channel", "administrator")]
    {
        let notices = update(&json!({"id": -4711, "type": kind}), status);
        let expected = Preference::new("-4711", true, status, Some(at(1_750_000_000)), at(1_760_000_000));
        assert_eq!(notices.preferences, [expected], "{kind} {status}");
    }
}

#[test]
fn everything_else_is_left_out() {
    for (kind, status) in [
        ("private", "left"),
        ("private", ""),
        ("group", "kicked"),
        ("channel", "left"),
        ("private", "administrator"),
    ] {
        assert_eq!(
            update(&json!({"id": -4711, "type": kind}), status),
            Notices::default(),
            "{kind} {status}"
        );
    }
    let message = json!({"update_id": 7, "message": {"message_id": 1, "text": "Hi"}});
    for body in
        [message.to_string(), r#"{"update_id":7}"#.into(), r#"{"update_id":7,"my_chat_member":7}"#.into()]
    {
        assert_eq!(read_text(&body).expect("an update"), Notices::default(), "{body}");
    }
    assert_eq!(update(&json!({"type": "private"}), "kicked").malformed, 1);
}

#[test]
fn bodies_of_something_else_are_refused() {
    for body in ["", "{", "<html>"] {
        assert!(matches!(read_text(body), Err(NoticeError::Json(_))), "{body}");
    }
    for body in ["{}", "[]", "7", r#"{"update_id":"7"}"#] {
        assert!(matches!(read_text(body), Err(NoticeError::Missing("update_id"))), "{body}");
    }
}
