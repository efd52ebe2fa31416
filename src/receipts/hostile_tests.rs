//! What bodies cost that are made to cost much: the largest ones, of the smallest pieces, for every provider.

use allocation_counter::measure;
use jiff::Timestamp;

use super::room::MAX_BODY;
use crate::domain::receipt::{MAX_NOTICES, NoticeError, Notices};
use crate::providers::whatsapp;

/// Most that reading a body may hold at any moment, in bodies. Read into a tree, it would be a hundred.
const MOST: u64 = 10;

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

/// A body as large as may be: `before`, then `piece` again and again, then `after`.
fn body(before: &str, piece: &str, after: &str) -> Vec<u8> {
    let pieces = (MAX_BODY - before.len() - after.len()) / piece.len();
    format!("{before}{}{after}", piece.repeat(pieces)).into_bytes()
}

/// Lists of the smallest items of all kinds, between these two; and items of which each has something to tell.
fn lists(before: &str, after: &str, telling: &str) -> Vec<Vec<u8>> {
    let pieces = [r#"{"":0},"#, "[],", "0,", r#""","#, r#"{"a":{"a":{}}},"#, r#""\u0061","#, telling];
    let last = format!("0{after}");
    let mut lists: Vec<_> = pieces.iter().map(|piece| body(before, piece, &last)).collect();
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
    bodies.push(body(preferences, preference, "0]}}]}]}"));
    for body in bodies {
        // One that tells too much is refused; no other kind of trouble may stop the reading.
        match read_within(&body, || whatsapp::webhook::read(&body, now())) {
            Ok(_) | Err(NoticeError::TooMany | NoticeError::Missing("entry")) => {}
            Err(error) => panic!("{error}"),
        }
    }
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
