//! Each fault, as the client sees it and as the ledger has it.

use super::*;
use crate::simulator::{Done, Entry, SendQuery};

fn only_entry(bench: &Bench) -> Entry {
    let mut entries = bench.simulator.ledger().sends(&SendQuery::default());
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

#[tokio::test]
async fn a_refusal_is_an_answer_in_the_gateways_own_words() {
    let refusal = json!({"status": 422, "code": "131026", "message": "no such chat", "retryable": true});
    let bench = Bench::with_faults(json!([{"do": {"refuse": refusal}}])).await;
    let (status, answer) = body(bench.send("1").await.expect("answer")).await;
    let error = json!({"code": "131026", "message": "no such chat", "retryable": true});
    assert_eq!((status, answer), (422, json!({"error": error})));
    let entry = only_entry(&bench);
    let refused = Done::Refused { status: 422, code: "131026".into() };
    assert_eq!((entry.done, entry.accepted, entry.message_id), (refused, false, None));
}

#[tokio::test]
async fn too_many_requests_says_how_long_to_wait() {
    let limit = json!({"tooManyRequests": {"retryAfterSeconds": 7}});
    let bench = Bench::with_faults(json!([
        {"when": {"first": 1}, "do": limit},
        {"do": {"tooManyRequests": {}}},
    ]))
    .await;
    let answer = bench.send("1").await.expect("answer");
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["retry-after"], "7");
    let answer = bench.send("1").await.expect("answer");
    assert_eq!((answer.status().as_u16(), answer.headers().get("retry-after")), (429, None));
    let counts = bench.simulator.ledger().summary().requests;
    assert_eq!((counts.rate_limited, counts.accepted), (2, 0));
}

#[tokio::test]
async fn a_bare_5xx_comes_before_or_after_the_message_was_accepted() {
    for (fault, accepted) in [("statusBeforeAccept", false), ("statusAfterAccept", true)] {
        let bench = Bench::with_faults(json!([{"do": {fault: 502}}])).await;
        let answer = bench.send("1").await.expect("answer");
        assert_eq!(answer.status(), 502);
        let text = answer.text().await.expect("body");
        assert!(serde_json::from_str::<Value>(&text).is_err(), "{text}");
        let entry = only_entry(&bench);
        assert_eq!((entry.done, entry.accepted), (Done::Failed { status: 502 }, accepted), "{fault}");
        assert_eq!(entry.message_id.is_some(), accepted);
        assert_eq!(bench.simulator.ledger().accepted("shop/sale", "1"), u64::from(accepted));
    }
}

#[tokio::test]
async fn the_page_of_a_proxy_is_for_people() {
    let bench = Bench::with_faults(json!([{"do": {"proxyPage": 404}}])).await;
    let answer = bench.send("1").await.expect("answer");
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["content-type"].as_bytes()),
        (404, &b"text/html"[..])
    );
    assert_eq!((only_entry(&bench).done, only_entry(&bench).accepted), (Done::Failed { status: 404 }, false));
}

#[tokio::test]
async fn a_cut_connection_shows_no_answer() {
    for (fault, accepted) in [("resetBeforeAccept", false), ("resetAfterAccept", true)] {
        let bench = Bench::with_faults(json!([{"when": {"chats": ["2"]}, "do": {fault: {}}}])).await;
        // A connection in use before is cut as well as a fresh one.
        assert_eq!(bench.send("1").await.expect("answer").status(), 200);
        bench.send_into_reset("2").await;
        assert_eq!(bench.send("3").await.expect("answer").status(), 200);
        let query = SendQuery { chat: Some("2".into()), ..SendQuery::default() };
        let entry = bench.simulator.ledger().sends(&query).remove(0);
        assert_eq!(
            (entry.done, entry.accepted, entry.client_left),
            (Done::Reset, accepted, false),
            "{fault}"
        );
        let summary = bench.wait_until(|summary| summary.requests.in_flight == 0).await;
        assert_eq!((summary.requests.reset, summary.requests.accepted), (1, 2 + u64::from(accepted)));
    }
}

#[tokio::test]
async fn a_cut_connection_is_a_reset_and_not_an_end() {
    let bench = Bench::with_faults(json!([{"do": {"resetBeforeAccept": {}}}])).await;
    let error = bench.send("1").await.expect_err("should see no answer");
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    assert_eq!(kind, Some(std::io::ErrorKind::ConnectionReset), "{error:?}");
}

#[tokio::test]
async fn a_hanging_request_ends_when_its_client_leaves() {
    for (fault, accepted) in [("hang", false), ("hangAfterAccept", true)] {
        let bench = Bench::with_faults(json!([{"do": {fault: {}}}])).await;
        tokio::select! {
            answer = bench.send("1") => panic!("{answer:?}"),
            _ = bench.wait_until(|summary| summary.requests.in_flight == 1) => {}
        }
        bench.wait_until(|summary| summary.requests.in_flight == 0).await;
        let entry = only_entry(&bench);
        assert_eq!((entry.done, entry.accepted, entry.client_left), (Done::Hung, accepted, true), "{fault}");
        assert!(entry.completed.is_some());
    }
}

#[tokio::test]
async fn a_redirect_leads_to_the_same_place_unless_told_otherwise() {
    let elsewhere = json!({"redirect": {"status": 302, "location": "http://127.0.0.1:9/x"}});
    let bench = Bench::with_faults(json!([
        {"when": {"chats": ["1"]}, "do": {"redirect": {}}},
        {"do": elsewhere},
    ]))
    .await;
    for (chat, status, location) in [("1", 307, "/messages/sales"), ("2", 302, "http://127.0.0.1:9/x")] {
        let answer = bench.send(chat).await.expect("answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (status, &location.parse().expect("header"))
        );
    }
    let counts = bench.simulator.ledger().summary().requests;
    assert_eq!((counts.redirected, counts.accepted), (2, 0));
}

#[tokio::test]
async fn a_late_answer_belongs_to_a_message_accepted_at_once() {
    let bench = Bench::with_faults(json!([{"do": {"latencyMs": 86_400_000}}])).await;
    tokio::select! {
        answer = bench.send("1") => panic!("{answer:?}"),
        summary = bench.wait_until(|summary| summary.requests.accepted == 1) => {
            assert_eq!(summary.requests.in_flight, 1);
        }
    }
    bench.wait_until(|summary| summary.requests.clients_left == 1).await;
    assert!(only_entry(&bench).accepted);
}

#[tokio::test]
async fn latency_delays_each_answer() {
    let latency = Duration::from_millis(40);
    let bench = Bench::start(Settings { latency, ..Settings::default() }).await;
    bench
        .simulator
        .set_faults(vec![Rule {
            action: super::super::Action { latency_ms: 30, fault: None },
            ..Rule::default()
        }])
        .expect("rule");
    let started = crate::clock::monotonic();
    assert_eq!(bench.send("1").await.expect("answer").status(), 200);
    assert!(started.elapsed() >= Duration::from_millis(70));
}

#[tokio::test]
async fn faults_change_while_the_simulator_runs() {
    let bench = Bench::start(Settings::default()).await;
    let rules = json!([{"when": {"broadcast": "shop/sale", "first": 1}, "do": {"latencyMs": 0, "statusBeforeAccept": 503}}]);
    assert_eq!(bench.put("/simulator/faults", rules.to_string()).await, 204);
    assert_eq!(bench.get("/simulator/faults").await, rules);
    assert_eq!(bench.send("1").await.expect("answer").status(), 503);
    assert_eq!(bench.send("1").await.expect("answer").status(), 200);
    // Counting begins anew.
    assert_eq!(bench.put("/simulator/faults", rules.to_string()).await, 204);
    assert_eq!(bench.send("1").await.expect("answer").status(), 503);
}

#[tokio::test]
async fn an_idempotent_gateway_accepts_once_whatever_the_answers_were() {
    let faults = serde_json::from_value(json!([
        {"when": {"first": 1}, "do": {"resetAfterAccept": {}}},
        {"when": {"first": 1}, "do": {"statusAfterAccept": 503}},
    ]))
    .expect("rules");
    let bench = Bench::start(Settings { idempotent: true, faults, ..Settings::default() }).await;
    bench.send_into_reset("1").await;
    assert_eq!(bench.send("1").await.expect("answer").status(), 503);
    let (status, answer) = body(bench.send("1").await.expect("answer")).await;
    assert_eq!((status, answer), (200, json!({"id": "sim-1"})));
    let counts = bench.simulator.ledger().summary().requests;
    assert_eq!((counts.requests, counts.accepted, counts.max_accepted_per_token), (3, 1, 1));
}
