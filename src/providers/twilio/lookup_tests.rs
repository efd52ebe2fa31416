use super::*;

/// What Twilio says of a message when it is asked.
fn looked_up(status: u16, body: &str) -> Lookup {
    let headers = HeaderMap::new();
    twilio(&channel()).looked_up(&WireAnswer { status, headers: &headers, body: body.as_bytes(), now: now() })
}

#[test]
fn a_message_that_is_asked_for_says_what_became_of_it() {
    let told = |status: &str| {
        looked_up(
            200,
            &format!(
                r#"{{"sid":"{SID}","status":"{status}","error_code":30003,"error_message":null,"date_updated":"Mon, 23 Nov 2026 09:59:00 +0000"}}"#
            ),
        )
    };
    for (status, outcome, code) in [
        ("sent", Outcome::Sent, ""),
        ("partially_delivered", Outcome::Sent, "partially_delivered"),
        ("delivered", Outcome::Delivered, ""),
        ("read", Outcome::Read, ""),
        ("undelivered", Outcome::Failed, "30003"),
        ("failed", Outcome::Failed, "30003"),
    ] {
        let Lookup::News(receipt) = told(status) else { panic!("{status}") };
        let evidence = &receipt.evidence;
        assert_eq!((receipt.id.as_str(), evidence.outcome, evidence.code.as_str()), (SID, outcome, code));
        assert_eq!(evidence.time, Some("2026-11-23T09:59:00Z".parse().expect("time")));
    }
    for status in ["queued", "sending", "accepted", "scheduled"] {
        assert_eq!(told(status), Lookup::NoNews, "{status}");
    }
}

#[test]
fn what_is_no_message_tells_nothing_and_one_is_gone_in_twilios_own_words_alone() {
    let not_told = |status, body: &str| match looked_up(status, body) {
        Lookup::NotTold(answer) => answer,
        other => panic!("{status} {body}: {other:?}"),
    };
    let eaten = r#"{"sid":"SM1","status":"eaten"}"#;
    for body in ["", "{}", r#"{"status":"delivered"}"#, eaten, r#"{"code":20404}"#] {
        assert!(matches!(not_told(200, body), Answer::Unknown { .. }), "{body}");
    }
    assert_eq!(looked_up(404, r#"{"code":20404,"message":"not found","status":404}"#), Lookup::Gone);
    assert_eq!(kind(&not_told(404, "<html>")), Some(OfSender(UnexpectedAnswer)));
    assert!(matches!(not_told(503, ""), Answer::Unknown { .. }));
    let refused = not_told(401, r#"{"code":20003,"message":"Authenticate","status":401}"#);
    assert_eq!(kind(&refused), Some(OfSender(AuthenticationFailed)));
    let limited = not_told(429, r#"{"code":20429,"message":"Too Many Requests","status":429}"#);
    assert_eq!(kind(&limited), Some(RateLimited));
}

#[test]
fn an_opt_out_is_learned_by_asking_too() {
    let body = format!(r#"{{"sid":"{SID}","status":"failed","error_code":21610}}"#);
    let Lookup::News(receipt) = looked_up(200, &body) else { panic!("no news") };
    assert!(receipt.is_opt_out);
}
