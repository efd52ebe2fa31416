use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::Sha256;

use super::webhook::{challenge, is_genuine, read};
use crate::domain::answer::SenderTrouble;
use crate::domain::outcome::{Outcome, Row};
use crate::domain::receipt::{NoticeError, Notices, Preference, Receipt};

const OURS: &str = "0b3f9a3e-1c5e-4c8e-9d0a-7c3d2f1a9b10.3.249";

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

fn earlier() -> Timestamp {
    now() - SignedDuration::from_secs(60)
}

fn seconds() -> String {
    earlier().as_second().to_string()
}

fn sign(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length").chain_update(body);
    let code = mac.finalize().into_bytes();
    format!("sha256={}", code.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn change(field: &str, value: &Value) -> Value {
    json!({"field": field, "value": value})
}

fn statuses(statuses: &[Value]) -> Value {
    change("messages", &json!({"messaging_product": "whatsapp", "statuses": statuses}))
}

fn read_changes(changes: &[Value]) -> Notices {
    let body = json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": changes}]});
    read(body.to_string().as_bytes(), now()).expect("a webhook")
}

fn read_status(status: &Value) -> Notices {
    read_changes(&[statuses(std::slice::from_ref(status))])
}

fn only_receipt(status: &Value) -> Receipt {
    let notices = read_status(status);
    assert_eq!(notices.malformed, 0);
    let [receipt] = &notices.receipts[..] else { panic!("{notices:?}") };
    receipt.clone()
}

#[test]
fn the_handshake_gives_the_challenge_back_to_who_knows_the_word() {
    let query = |mode: &str, token: &str| {
        let pairs = [("hub.mode", mode), ("hub.verify_token", token), ("hub.challenge", "1158201444")];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    assert_eq!(challenge(&query("subscribe", "word"), "word").as_deref(), Some("1158201444"));
    for (mode, token, ours) in
        [("subscribe", "other", "word"), ("unsubscribe", "word", "word"), ("subscribe", "", "")]
    {
        assert_eq!(challenge(&query(mode, token), ours), None, "{mode} {token} {ours}");
    }
    assert_eq!(challenge(&query("subscribe", "word")[..2], "word"), None);
    assert_eq!(challenge(&[], "word"), None);
}

#[test]
fn only_the_raw_body_with_one_of_the_secrets_is_genuine() {
    let body = br#"{"entry": []}"#;
    let signature = sign("app", body);
    assert!(is_genuine(&["app"], &signature, body));
    assert!(is_genuine(&["new", "app"], &signature, body));
    assert!(is_genuine(&["app"], &signature.to_uppercase().replace("SHA", "sha"), body));
    assert!(!is_genuine(&["app"], &signature, br#"{"entry":[]}"#));
    assert!(!is_genuine(&["other"], &signature, body));
    assert!(!is_genuine(&[], &signature, body));
    assert!(!is_genuine(&[""], &sign("", body), body));
    let hex = signature.trim_start_matches("sha256=");
    for header in
        ["", "sha256=", "sha256=zz", "sha256=+f", "sha1=aa", hex, &signature[..70], &signature[..69]]
    {
        assert!(!is_genuine(&["app"], header, body), "{header}");
    }
}

#[test]
fn the_signature_is_that_of_the_test_vector_of_rfc_4231() {
    let header = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert!(is_genuine(&["Jefe"], header, b"what do ya want for nothing?"));
}

#[test]
fn every_status_becomes_what_it_shows() {
    for (word, outcome) in [
        ("sent", Outcome::Sent),
        ("delivered", Outcome::Delivered),
        ("read", Outcome::Read),
        ("played", Outcome::Read),
        ("failed", Outcome::Failed),
    ] {
        let status =
            json!({"id": "wamid.X", "status": word, "timestamp": seconds(), "recipient_id": "15550100"});
        let receipt = only_receipt(&status);
        assert_eq!((receipt.id.as_str(), receipt.evidence.outcome), ("wamid.X", outcome));
        assert_eq!(receipt.evidence.time, Some(earlier()));
        assert_eq!(receipt.evidence.message_id, "wamid.X");
    }
    for word in ["deleted", "warning", "new"] {
        let status = json!({"id": "wamid.X", "status": word, "timestamp": seconds()});
        assert_eq!(read_status(&status), Notices::default(), "{word}");
    }
}

#[test]
fn a_receipt_is_named_by_our_token_and_by_the_message_id_when_the_token_is_not_ours() {
    let id = |data: Value| {
        let status = json!({"id": "wamid.X", "status": "sent", "biz_opaque_callback_data": data});
        let receipt = only_receipt(&status);
        assert_eq!(receipt.evidence.message_id, "wamid.X");
        receipt.id
    };
    assert_eq!(id(json!(OURS)), OURS);
    for other in [json!("order 7"), json!(""), json!(null), json!(7)] {
        assert_eq!(id(other), "wamid.X");
    }
}

#[test]
fn times_are_seconds_or_milliseconds_and_now_when_there_is_none() {
    let time = |timestamp: Value| {
        let status = json!({"id": "wamid.X", "status": "sent", "timestamp": timestamp});
        only_receipt(&status).evidence.time.expect("time")
    };
    let (second, millisecond) = (earlier().as_second(), earlier().as_millisecond());
    for value in
        [json!(second), json!(second.to_string()), json!(millisecond), json!(millisecond.to_string())]
    {
        assert_eq!(time(value.clone()), earlier(), "{value}");
    }
    for value in [json!(null), json!(""), json!("soon"), json!("99999999999999999999"), json!({})] {
        assert_eq!(time(value.clone()), now(), "{value}");
    }
}

#[test]
fn a_failure_says_why_and_only_one_reason_is_an_opt_out() {
    let failed =
        |errors: Value| only_receipt(&json!({"id": "wamid.X", "status": "failed", "errors": errors}));
    let error = |code: i64| json!([{"code": code, "title": "short", "message": "longer", "error_data": {"details": "in detail"}}]);
    for (code, is_opt_out) in [(131_049, false), (131_026, false), (132_015, false), (131_050, true)] {
        let receipt = failed(error(code));
        let Row { code: said, detail, .. } = &receipt.evidence;
        assert_eq!((said.as_str(), detail.as_str()), (code.to_string().as_str(), "in detail"));
        assert_eq!(receipt.is_opt_out, is_opt_out, "{code}");
        assert_eq!(receipt.trouble, None, "{code}");
    }
    let (restricted, unpaid) = (failed(error(131_031)).trouble, failed(error(131_042)).trouble);
    assert_eq!(restricted, Some(SenderTrouble::AccountRestricted));
    assert_eq!(unpaid, Some(SenderTrouble::PaymentRequired));
    let is_too_fast = |code| failed(error(code)).is_too_fast;
    assert!([80_007, 130_429].into_iter().all(is_too_fast));
    assert!(![131_026, 131_048, 131_056].into_iter().any(is_too_fast));
    assert_eq!(failed(json!([{"code": 1, "title": "short"}])).evidence.detail, "short");
    for nothing in [json!([]), json!(null), json!({})] {
        let receipt = failed(nothing);
        assert_eq!((receipt.evidence.code.as_str(), receipt.is_opt_out), ("Failed", false));
    }
}

#[test]
fn preferences_about_marketing_are_told_by_chat() {
    let preference = |value: Value| {
        let value = json!({"contacts": [{"wa_id": "15550100"}], "user_preferences": [value]});
        read_changes(&[change("user_preferences", &value)])
    };
    let item = |word: &str, category: &str| json!({"wa_id": "15550100", "category": category, "value": word});
    for (word, is_wanted) in [("stop", false), ("resume", true)] {
        let expected = Preference::new("15550100", is_wanted, word, None, now());
        let notices = preference(item(word, "marketing_messages"));
        assert_eq!((&notices.preferences[..], notices.malformed), (&[expected][..], 0));
    }
    let mut late = item("resume", "marketing_messages");
    late["timestamp"] = json!(seconds());
    assert_eq!(
        preference(late).preferences[0].time,
        earlier(),
        "it is as old as it is, however late it comes"
    );
    for left_out in [item("maybe", "marketing_messages"), item("stop", "something_else")] {
        assert_eq!(preference(left_out), Notices::default());
    }
    assert_eq!(preference(json!({"value": "stop"})).malformed, 1);
}

#[test]
fn what_is_told_names_its_recipient_and_the_number_that_it_is_about() {
    let metadata = json!({"display_phone_number": "15550199", "phone_number_id": "1063"});
    let status = json!({"id": "wamid.X", "status": "sent", "recipient_id": "15550100"});
    let preference = json!({"wa_id": "15550100", "value": "stop"});
    let notices = read_changes(&[
        change("messages", &json!({"metadata": metadata, "statuses": [status]})),
        change("user_preferences", &json!({"metadata": metadata, "user_preferences": [preference]})),
    ]);
    let (receipt, preference) = (&notices.receipts[0], &notices.preferences[0]);
    assert_eq!((receipt.chat.as_str(), receipt.number.as_str()), ("15550100", "1063"));
    assert_eq!((preference.chat.as_str(), preference.number.as_str()), ("15550100", "1063"));
}

#[test]
fn a_status_of_a_participant_speaks_of_that_one_alone() {
    let told = |status: &str, field: &str, participant: Value| {
        only_receipt(&json!({
            "id": "wamid.X", "status": status, "timestamp": seconds(), "recipient_type": "group", "recipient_id": "Z3JvdXA=",
            field: participant, "errors": [{"code": 131_050}],
        }))
    };
    let of = |outcome| Row::known(outcome, 1, earlier()).with_message_id("wamid.X");
    for (field, said, participant) in [
        ("recipient_participant_id", json!("15550191"), "15550191"),
        ("participant_recipient_id", json!("+15550191"), "15550191"),
        ("recipient_participant_user_id", json!("US.13491208655302741918"), "US.13491208655302741918"),
        ("recipient_participant_id", json!(""), ""),
        ("recipient_participant_id", json!(null), ""),
    ] {
        for (status, outcome) in [("delivered", Outcome::Delivered), ("read", Outcome::Read)] {
            let receipt = told(status, field, said.clone());
            assert_eq!((receipt.chat.as_str(), receipt.participant.as_str()), ("Z3JvdXA=", participant));
            let row = of(outcome);
            let row =
                if participant.is_empty() { row } else { row.with_participant("Z3JvdXA=", participant) };
            assert_eq!(receipt.evidence, row, "{field}");
        }
        let failed = told("failed", field, said);
        assert!(failed.is_opt_out);
        let shown = if participant.is_empty() { Outcome::Failed } else { Outcome::Sent };
        assert_eq!(failed.evidence_of_chat().outcome, shown, "{field}");
        assert_eq!(told("sent", field, json!("15550191")).evidence, of(Outcome::Sent));
    }
}

#[test]
fn one_bad_item_does_not_hold_up_the_rest_and_other_kinds_are_left_out() {
    let sent = |id: &str| json!({"id": id, "status": "sent", "timestamp": seconds()});
    let incoming = json!({
        "contacts": [{"wa_id": "15550100"}],
        "messages": [{"from": "15550100", "id": "wamid.IN", "type": "text", "text": {"body": "Hi"}}],
        "statuses": [sent("wamid.2")],
    });
    let call = json!({"statuses": [{"id": "wacid.1", "status": "RINGING"}]});
    let body = json!({"object": "whatsapp_business_account", "entry": [
        {"id": "1", "changes": [statuses(&[sent("wamid.1"), json!(7), json!({"id": "wamid.3"}), sent(""), json!({})])]},
        7,
        {"id": "2"},
        {"id": "3", "changes": [change("messages", &incoming), change("calls", &call), json!({"value": {}}), json!(null)]},
        {"id": "4", "changes": [change("messages", &json!({"statuses": {}})), statuses(&[sent("wamid.4")])]},
    ]});
    let notices = read(body.to_string().as_bytes(), now()).expect("a webhook");
    let ids: Vec<&str> = notices.receipts.iter().map(|receipt| receipt.id.as_str()).collect();
    assert_eq!(ids, ["wamid.1", "wamid.2", "wamid.4"]);
    // Four statuses, one entry, two changes, and one list that is none.
    assert_eq!(notices.malformed, 8);
}

#[test]
fn bodies_of_something_else_are_refused() {
    for body in ["", "{", "<html>"] {
        assert!(matches!(read(body.as_bytes(), now()), Err(NoticeError::Json(_))), "{body}");
    }
    for body in ["[]", "7", "{}", r#"{"entry":{}}"#] {
        assert!(matches!(read(body.as_bytes(), now()), Err(NoticeError::Missing("entry"))), "{body}");
    }
}
