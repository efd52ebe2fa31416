//! What bodies cost that are made to cost much: the largest ones, of the smallest pieces, for every provider.

use allocation_counter::measure;
use jiff::Timestamp;

use super::body;
use super::room::MAX_BODY;
use crate::domain::receipt::{MAX_NOTICES, NoticeError, Notices};
use crate::providers::{periskope, telegram, twilio, whatsapp};

/// Most that reading a body may hold at any moment, in bodies. Read into a tree, it would be a hundred.
const MOST: u64 = 10;

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

/// A body as large as may be: `before`, then `piece` again and again, then `after`.
fn filled(before: &str, piece: &str, after: &str) -> Vec<u8> {
    let pieces = (MAX_BODY - before.len() - after.len()) / piece.len();
    format!("{before}{}{after}", piece.repeat(pieces)).into_bytes()
}

/// Lists of the smallest items of all kinds, between these two; and items of which each has something to tell.
fn lists(before: &str, after: &str, telling: &str) -> Vec<Vec<u8>> {
    let pieces = [r#"{"":0},"#, "[],", "0,", r#""","#, r#"{"a":{"a":{}}},"#, r#""\u0061","#, telling];
    let last = format!("0{after}");
    let mut lists: Vec<_> = pieces.iter().map(|piece| filled(before, piece, &last)).collect();
    let depth = (MAX_BODY - before.len() - after.len()) / 2;
    lists.push(format!("{before}{}{}{after}", "[".repeat(depth), "]".repeat(depth)).into_bytes());
    lists
}

/// What is read of a body, with a look at what it takes.
fn read_within(
    body: &[u8],
    read: impl FnOnce() -> Result<Notices, NoticeError>,
) -> Result<Notices, NoticeError> {
    let mut notices = None;
    let held = measure(|| notices = Some(read())).bytes_max;
    let bodies = held / u64::try_from(body.len()).expect("small");
    let begin = String::from_utf8_lossy(&body[..80]);
    assert!(bodies < MOST, "{begin}…: {held} bytes, {bodies} times the body");
    notices.expect("should be read")
}

/// Reads all of these. One that tells too much is refused; no other kind of trouble may stop the reading.
fn read_all(bodies: &[Vec<u8>], read: impl Fn(&[u8], Timestamp) -> Result<Notices, NoticeError>) {
    for body in bodies {
        match read_within(body, || read(body, now())) {
            Ok(_) | Err(NoticeError::TooMany | NoticeError::Missing(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn no_body_of_metas_is_many_times_as_large_in_memory() {
    let status = r#"{"id":"a","status":"failed"},"#;
    let preference = r#"{"wa_id":"1","value":"stop"},"#;
    let statuses = r#"{"entry":[{"changes":[{"field":"messages","value":{"statuses":["#;
    let mut bodies = lists(r#"{"a":["#, "]}", status);
    bodies.extend(lists(r#"{"entry":["#, "]}", status));
    bodies.extend(lists(r#"{"entry":[{"changes":["#, "]}]}", status));
    bodies.extend(lists(statuses, "]}}]}]}", status));
    let preferences = r#"{"entry":[{"changes":[{"field":"user_preferences","value":{"user_preferences":["#;
    bodies.push(filled(preferences, preference, "0]}}]}]}"));
    read_all(&bodies, whatsapp::webhook::read);
}

#[test]
fn as_many_notices_as_fit_are_read_and_one_more_is_too_many() {
    let status = r#"{"id":"a","status":"sent"}"#;
    let read = |statuses: usize| {
        let list = vec![status; statuses].join(",");
        let body = format!(
            r#"{{"entry":[{{"changes":[{{"field":"messages","value":{{"statuses":[{list}]}}}}]}}]}}"#
        );
        whatsapp::webhook::read(body.as_bytes(), now())
    };
    assert_eq!(read(MAX_NOTICES).expect("as many as fit").receipts.len(), MAX_NOTICES);
    assert!(matches!(read(MAX_NOTICES + 1), Err(NoticeError::TooMany)));
}

#[test]
fn no_list_of_receipts_is_many_times_as_large_in_memory() {
    let telling = r#"{"id":"a","status":"failed"},"#;
    let mut bodies = lists("[", "]", telling);
    bodies.extend(lists(r#"{"status":"sent","id":["#, "]}", telling));
    bodies.extend(lists(r#"{"status":"sent","id":"a","more":["#, "]}", telling));
    read_all(&bodies, body::parse);
}

#[test]
fn no_update_of_telegrams_and_no_event_of_periskopes_is_many_times_as_large_in_memory() {
    let telling = r#"{"id":1,"type":"private"},"#;
    let mut bodies = lists(r#"{"update_id":1,"message":["#, "]}", telling);
    bodies.extend(lists(r#"{"update_id":1,"my_chat_member":{"chat":["#, "]}}", telling));
    read_all(&bodies, telegram::webhook::read);
    let mut bodies = lists(r#"{"event":"message.ack.updated","data":["#, "]}", telling);
    bodies.extend(lists(r#"{"event":"message.ack.updated","data":{"ack":["#, "]}}", telling));
    read_all(&bodies, periskope::webhook::read);
}

/// What it takes to find out that a form is not Twilio's.
fn check_form(form: &[u8]) -> Result<bool, NoticeError> {
    let urls = ["https://receipts.example.com/"];
    let params = twilio::webhook::params(form)?;
    Ok(twilio::webhook::is_genuine(&["the secret"], &urls, &params, "bm90IGdlbnVpbmU="))
}

#[test]
fn no_form_is_many_times_as_large_in_memory_before_it_is_known_whose_it_is() {
    for piece in ["a&", "a=b&", "&", "%61&", "a=%C3%A9&", "%ff&"] {
        let form = filled("", piece, "");
        let mut checked = None;
        let held = measure(|| checked = Some(check_form(&form))).bytes_max;
        assert!(held < u64::try_from(form.len()).expect("small"), "{piece}: {held} bytes");
        match checked.expect("should be checked") {
            Ok(is_genuine) => assert!(piece == "&" && !is_genuine, "empty fields are none"),
            Err(error) => assert!(matches!(error, NoticeError::TooManyFields(_)), "{piece}: {error}"),
        }
    }
    let fields = vec!["a"; twilio::webhook::MAX_FIELDS].join("&");
    assert!(!check_form(fields.as_bytes()).expect("as many as may be"));
}
