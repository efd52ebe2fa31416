use super::*;

const TOKEN: &str = "12345";
const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
const SIGNATURE: &str = "RSOYDt4T1cUTdK1PDd93/VVr8B8=";

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<Field<'static>> {
    let owned = |text: &str| Cow::from(text.to_owned());
    pairs.iter().map(|(name, value)| (owned(name), owned(value))).collect()
}

fn call() -> Vec<Field<'static>> {
    pairs(&[
        ("To", "+18005551212"),
        ("CallSid", "CA1234567890ABCDE"),
        ("Caller", "+14158675309"),
        ("Digits", "1234"),
        ("From", "+14158675309"),
    ])
}

/// The cases that Twilio's library for Node is tested with.
#[test]
fn signatures_of_twilios_own_tests_are_genuine() {
    let array =
        |first, second| pairs(&[("MessagingBinding.Address", first), ("MessagingBinding.Address", second)]);
    let several = pairs(&[
        ("SidAccount", "AC123"),
        ("Digits", "5678"),
        ("Digits", "1234"),
        ("Sid", "CA123"),
        ("Digits", "1234"),
    ]);
    for (url, params, signature) in [
        (URL, call(), SIGNATURE),
        ("https://mycompany.com:1234/myapp.php?foo=1&bar=2", call(), SIGNATURE),
        ("http://mycompany.com:1234/myapp.php?foo=1&bar=2", call(), "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        (URL, call(), "kvajT1Ptam85bY51eRf/AJRuM3w="),
        ("http://mycompany.com/myapp.php?foo=1&bar=2", call(), "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        ("https://user:pass@mycompany.com/myapp.php?foo=1&bar=2", call(), "CukzLTc1tT5dXEDIHm/tKBanW10="),
        ("https://user@mycompany.com/myapp.php?foo=1&bar=2", call(), "2YRLlVAflCqxaNicjMpJcSTgzSs="),
        ("https://user:pass@mycompany.com/myapp.php?foo=1&bar=2", call(), "ZQFR1PTIZXF2MXB8ZnKCvnnA+rI="),
        (URL, array("+1325xxxxxxx", "+1415xxxxxxx"), "83O6e2vORAoJHUNzJjDWN1jz+BA="),
        (URL, array("+1415xxxxxxx", "+1325xxxxxxx"), "83O6e2vORAoJHUNzJjDWN1jz+BA="),
        (URL, several, "IK+Dwps556ElfBT0I3Rgjkr1wJU="),
    ] {
        assert!(is_genuine(&[TOKEN], &[url], &params, signature), "{url} {params:?}");
    }
}

#[test]
fn any_of_several_tokens_and_urls_will_do() {
    let urls = ["https://inside.example/", "not a url", URL];
    assert!(is_genuine(&["old", "", TOKEN], &urls, &call(), SIGNATURE));
}

#[test]
fn what_was_changed_is_not_genuine() {
    let mut changed = call();
    changed[3].1 = "1235".into();
    let mut more = call();
    more.extend(pairs(&[("MessageStatus", "delivered")]));
    for (token, url, params, signature) in [
        (TOKEN, URL, changed, SIGNATURE),
        (TOKEN, URL, more, SIGNATURE),
        (TOKEN, URL, Vec::new(), SIGNATURE),
        (TOKEN, "https://mycompany.com/myapp.php?foo=1&bar=3", call(), SIGNATURE),
        (TOKEN, "https://mycompany.org/myapp.php?foo=1&bar=2", call(), SIGNATURE),
        ("12346", URL, call(), SIGNATURE),
        (TOKEN, URL, call(), "WRONG_SIGNATURE"),
        (TOKEN, URL, call(), "RSOYDt4T1cUTdK1PDd93"),
        (TOKEN, URL, call(), ""),
    ] {
        assert!(!is_genuine(&[token], &[url], &params, signature), "{token} {url} {params:?} {signature}");
    }
    assert!(!is_genuine(&[], &[URL], &call(), SIGNATURE));
    assert!(!is_genuine(&[TOKEN], &[], &call(), SIGNATURE));
}

#[test]
fn an_empty_token_signs_nothing() {
    // Base64 of HMAC-SHA1 with an empty key over an empty text, which anybody can compute.
    let signature = "+9sdGxiqbAgyS31ktx+3Y3BpDh0=";
    assert!(!is_genuine(&[""], &[""], &[], signature));
    assert!(
        is_genuine(&["\0"], &[""], &[], signature),
        "a key of zeros is the same to HMAC: the case is right"
    );
}

#[test]
fn a_form_is_read_as_twilio_writes_it() {
    let body = b"From=%2B15550100&Body=Hi+%26+bye&Empty=&From=x";
    assert_eq!(
        params(body).expect("few fields"),
        pairs(&[("From", "+15550100"), ("Body", "Hi & bye"), ("Empty", ""), ("From", "x")])
    );
}

fn receipts(fields: &[(&str, &str)]) -> Vec<Receipt> {
    let notices = read(Some("u.0.1"), &pairs(fields), now()).expect("a receipt");
    assert_eq!((notices.preferences.len(), notices.malformed), (0, 0));
    notices.receipts
}

#[test]
fn every_status_becomes_an_outcome_or_nothing() {
    for (status, outcome) in [
        ("accepted", None),
        ("scheduled", None),
        ("queued", None),
        ("sending", None),
        ("receiving", None),
        ("received", None),
        ("sent", Some(Outcome::Sent)),
        ("partially_delivered", Some(Outcome::Sent)),
        ("delivered", Some(Outcome::Delivered)),
        ("read", Some(Outcome::Read)),
        ("failed", Some(Outcome::Failed)),
        ("undelivered", Some(Outcome::Failed)),
        ("canceled", Some(Outcome::Failed)),
    ] {
        let fields = [("MessageSid", "SM1"), ("MessageStatus", status), ("RawDlrDoneDate", "2001011200")];
        let receipts = receipts(&fields);
        assert_eq!(receipts.first().map(|receipt| receipt.evidence.outcome), outcome, "{status}");
        for Receipt { id, evidence, is_opt_out, .. } in receipts {
            assert_eq!((id.as_str(), evidence.message_id.as_str()), ("u.0.1", "SM1"));
            assert_eq!((evidence.time, is_opt_out), (Some(now()), false));
        }
    }
    let notices = read(None, &pairs(&[("MessageSid", "SM1"), ("MessageStatus", "eaten")]), now());
    assert_eq!(notices.expect("a receipt"), Notices { malformed: 1, ..Notices::default() });
}

#[test]
fn a_failure_has_its_code_and_why() {
    for (fields, code, detail, is_opt_out) in [
        (vec![("ErrorCode", "30003")], "30003", "the handset cannot be reached", false),
        (vec![("ErrorCode", "30003"), ("ErrorMessage", "gone")], "30003", "gone", false),
        (vec![("ErrorCode", "99999")], "99999", "Twilio reported that it failed", false),
        (vec![("ErrorCode", "")], "undelivered", "Twilio reported that it failed", false),
        (vec![], "undelivered", "Twilio reported that it failed", false),
        (vec![("ErrorCode", "21610")], "21610", "the recipient has unsubscribed", true),
        (
            vec![("ErrorCode", "63032")],
            "63032",
            "the network does not let this recipient have the message",
            false,
        ),
    ] {
        let fields = [vec![("MessageSid", "SM1"), ("MessageStatus", "undelivered")], fields].concat();
        let [Receipt { evidence, is_opt_out: opted_out, .. }] = &receipts(&fields)[..] else { panic!("one") };
        assert_eq!((evidence.code.as_str(), evidence.detail.as_str()), (code, detail));
        assert_eq!(*opted_out, is_opt_out, "{code}");
    }
}

#[test]
fn a_receipt_names_its_recipient_and_may_be_about_the_account() {
    for to in ["+15550100", "whatsapp:+15550100"] {
        let fields = [("MessageSid", "SM1"), ("MessageStatus", "failed"), ("ErrorCode", "30002"), ("To", to)];
        let receipt = receipts(&fields).remove(0);
        assert_eq!(receipt.chat, "15550100");
        assert_eq!(receipt.trouble, Some(crate::domain::answer::SenderTrouble::AccountRestricted));
    }
}

#[test]
fn a_part_that_arrived_is_told_apart_from_a_whole_and_hides_no_error() {
    let one = |status| receipts(&[("MessageSid", "SM1"), ("MessageStatus", status)]).remove(0).evidence;
    let part = one("partially_delivered");
    assert_eq!(part.code, "partially_delivered");
    let mut row = one("sent");
    row.merge(&part);
    assert_eq!(row, part);
    row.merge(&one("undelivered"));
    assert_eq!(row.outcome, Outcome::Failed);
    row.merge(&part);
    assert_eq!(row.outcome, Outcome::Failed);
}

#[test]
fn a_receipt_is_found_by_its_token_or_else_by_twilios_id() {
    let id = |token, fields: &[(&str, &str)]| {
        let fields = [&[("MessageStatus", "sent")], fields].concat();
        let receipts = read(token, &pairs(&fields), now()).expect("a receipt").receipts;
        (receipts[0].id.clone(), receipts[0].evidence.message_id.clone())
    };
    let both = |id: &str, sid: &str| (id.to_owned(), sid.to_owned());
    assert_eq!(id(Some("u.0.1"), &[("MessageSid", "SM1"), ("SmsSid", "SM2")]), both("u.0.1", "SM1"));
    assert_eq!(id(None, &[("MessageSid", "SM1")]), both("SM1", "SM1"));
    assert_eq!(id(Some(""), &[("SmsSid", "SM2")]), both("SM2", "SM2"));
    assert_eq!(id(Some("u.0.1"), &[]), both("u.0.1", ""));
    let long = "x".repeat(300);
    let fields = pairs(&[("MessageStatus", "sent"), ("MessageSid", &long)]);
    assert_eq!(read(None, &fields, now()).expect("a receipt").malformed, 1);
}

#[test]
fn old_forms_have_their_status_under_another_name() {
    let fields = pairs(&[("SmsSid", "SM1"), ("SmsStatus", "delivered")]);
    let receipts = read(None, &fields, now()).expect("a receipt").receipts;
    assert_eq!(receipts[0].evidence.outcome, Outcome::Delivered);
}

#[test]
fn incoming_messages_tell_what_their_senders_want() {
    let heard = |from, word| {
        let fields = [("MessageSid", "SM1"), ("SmsStatus", "received"), ("From", from), ("OptOutType", word)];
        let notices = read(None, &pairs(&fields), now()).expect("a message");
        assert_eq!((notices.receipts.len(), notices.malformed), (0, 0));
        notices.preferences
    };
    let wants = |is_wanted, code: &str| vec![Preference::new("15550100", is_wanted, code, None, now())];
    assert_eq!(heard("+15550100", "STOP"), wants(false, "STOP"));
    assert_eq!(heard("whatsapp:+15550100", "START"), wants(true, "START"));
    assert_eq!(heard("+15550100", "HELP"), []);
    assert_eq!(heard("+15550100", ""), []);
}

#[test]
fn what_is_no_receipt_and_no_message_is_refused() {
    let missing = |fields: &[(&str, &str)]| match read(None, &pairs(fields), now()) {
        Err(NoticeError::Missing(field)) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(&[]), "MessageStatus");
    assert_eq!(missing(&[("MessageSid", "SM1")]), "MessageStatus");
    assert_eq!(missing(&[("MessageStatus", "sent")]), "MessageSid");
    assert_eq!(missing(&[("OptOutType", "STOP")]), "From");
}
