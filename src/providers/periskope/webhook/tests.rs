use super::*;

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

/// The second test case of RFC 4231.
const KEY: &str = "Jefe";
const BODY: &[u8] = b"what do ya want for nothing?";
const SIGNATURE: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

#[test]
fn a_signature_is_of_the_body_as_it_came() {
    assert!(is_genuine(&[KEY], SIGNATURE, BODY));
    assert!(is_genuine(&["", "other", KEY], &format!(" {}", SIGNATURE.to_uppercase()), BODY));
    for (keys, signature, body) in [
        (&[KEY][..], SIGNATURE, &b"what do ya want for nothing"[..]),
        (&["jefe"], SIGNATURE, BODY),
        (&[], SIGNATURE, BODY),
        (&[KEY], "", BODY),
        (&[KEY], &SIGNATURE[..62], BODY),
        (&[KEY], &SIGNATURE[..63], BODY),
        (&[KEY], "zz", BODY),
    ] {
        assert!(!is_genuine(keys, signature, body), "{keys:?} {signature}");
    }
}

#[test]
fn an_empty_key_signs_nothing() {
    // HMAC-SHA256 with an empty key over an empty text, which anybody can compute.
    let signature = "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad";
    assert!(!is_genuine(&[""], signature, b""));
    assert!(is_genuine(&["\0"], signature, b""), "a key of zeros is the same to HMAC: the case is right");
}

fn told(body: &str) -> Notices {
    read(body.as_bytes(), now()).expect("an event")
}

fn ack(ack: &str) -> Notices {
    told(&format!(
        r#"{{"event":"message.ack.updated","data":{{"unique_id":"3EB0","from_me":true,"ack":{ack}}},"org_id":"o"}}"#
    ))
}

#[test]
fn every_ack_becomes_an_outcome_or_nothing() {
    for (number, outcome) in [
        ("-1", Some(Outcome::Failed)),
        ("0", None),
        ("1", Some(Outcome::Sent)),
        ("2", Some(Outcome::Sent)),
        ("3", Some(Outcome::Delivered)),
        ("4", Some(Outcome::Read)),
        ("5", Some(Outcome::Read)),
    ] {
        for number in [number.to_owned(), format!("\"{number}\"")] {
            let Notices { receipts, preferences, malformed } = ack(&number);
            assert_eq!(receipts.first().map(|receipt| receipt.evidence.outcome), outcome, "{number}");
            assert_eq!((preferences.len(), malformed), (0, 0));
            for receipt in receipts {
                assert_eq!((receipt.id.as_str(), receipt.evidence.time), ("3EB0", Some(now())));
                let is_failed = receipt.evidence.outcome == Outcome::Failed;
                assert_eq!(receipt.evidence.code, if is_failed { "Failed" } else { "" });
                assert!(!receipt.is_opt_out);
            }
        }
    }
    for number in ["null", "\"read\"", "-2", "1.5", "{}"] {
        assert_eq!(ack(number), Notices { malformed: 1, ..Notices::default() }, "{number}");
    }
}

#[test]
fn a_receipt_has_all_ids_that_the_answer_to_its_message_may_have_had() {
    for (data, ids) in [
        (r#""unique_id":"3EB0","message_id":"true_1@c.us_XXXX","queue_id":"q""#, &["3EB0", "XXXX", "q"][..]),
        (r#""unique_id":"3EB0","message_id":"true_1@c.us_3EB0","queue_id":"q""#, &["3EB0", "q"]),
        (r#""message_id":"true_15550100@c.us_3EB0","queue_id":"q""#, &["3EB0", "q"]),
        (r#""unique_id":"","message_id":"true_1203630@g.us_3EB0_15550999@c.us""#, &["3EB0"]),
        (r#""queue_id":"q""#, &["q"]),
        (r#""message_id":"odd""#, &[]),
        (r#""chat_id":"15550100@c.us""#, &[]),
    ] {
        let notices = told(&format!(r#"{{"event_type":"message.ack.updated","data":{{"ack":3,{data}}}}}"#));
        let told: Vec<_> = notices.receipts.iter().flat_map(Receipt::ids).collect();
        assert_eq!(told, ids, "{data}");
        assert_eq!(notices.malformed, usize::from(ids.is_empty()), "{data}");
    }
}

#[test]
fn the_time_is_that_of_the_event_if_it_has_one() {
    let time = |text: &str| {
        let data = r#"{"unique_id":"3EB0","ack":3}"#;
        let notices =
            told(&format!(r#"{{"event":"message.ack.updated","timestamp":"{text}","data":{data}}}"#));
        notices.receipts[0].evidence.time.expect("time").to_string()
    };
    assert_eq!(time("2026-11-23T09:59:00+00:00"), "2026-11-23T09:59:00Z");
    assert_eq!(time("2036-11-23T09:59:00+00:00"), "2026-11-23T10:00:00Z");
    assert_eq!(time("yesterday"), "2026-11-23T10:00:00Z");
}

#[test]
fn other_events_and_messages_of_others_tell_nothing() {
    for body in [
        r#"{"event":"message.created","data":{"unique_id":"3EB0","ack":"1","from_me":true}}"#,
        r#"{"event":"ticket.created","data":{"ticket_id":"t"}}"#,
        r#"{"event":"org.phone.disconnected"}"#,
        r#"{"event":"message.ack.updated","data":{"unique_id":"3EB0","ack":3,"from_me":false}}"#,
    ] {
        assert_eq!(told(body), Notices::default(), "{body}");
    }
}

#[test]
fn what_is_no_event_is_refused() {
    for body in ["", "{", "[]", "{}", r#"{"data":{}}"#, r#"{"event":"message.ack.updated"}"#] {
        assert!(read(body.as_bytes(), now()).is_err(), "{body}");
    }
}
