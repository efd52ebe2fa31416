//! Requests without faults: what is accepted, what is refused, what is counted.

use super::*;
use crate::simulator::{Done, SendQuery};

#[tokio::test]
async fn a_message_is_accepted_once_and_written_down() {
    let bench = Bench::start(Settings::default()).await;
    let (status, answer) = body(bench.send("1").await.expect("answer")).await;
    assert_eq!((status, &answer), (200, &json!({"id": "sim-1"})));
    let sends = bench.get("/simulator/sends?broadcast=shop/sale&chat=1").await;
    let entry = &sends[0];
    assert_eq!(sends.as_array().map(Vec::len), Some(1));
    for (field, value) in [
        ("sequence", json!(1)),
        ("token", json!("token-1")),
        ("account", json!("sales")),
        ("broadcast", json!("shop/sale")),
        ("chat", json!("1")),
        ("text", json!("Hi")),
        ("accepted", json!(true)),
        ("done", json!("accepted")),
        ("messageId", json!("sim-1")),
        ("clientLeft", json!(false)),
    ] {
        assert_eq!(entry[field], value, "{field}");
    }
    let time = |field: &str| entry[field].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    assert!(time("arrived").is_some() && time("arrived") <= time("completed"), "{entry}");
    bench.simulator.stop().await;
}

#[tokio::test]
async fn the_account_may_be_absent() {
    let bench = Bench::start(Settings::default()).await;
    assert_eq!(bench.post("/messages", &message("1")).await.expect("answer").status(), 200);
    assert_eq!(bench.simulator.ledger().sends(&SendQuery::default())[0].account, "");
}

#[tokio::test]
async fn what_listmonk_posts_to_its_messengers_is_accepted_too() {
    let bench = Bench::start(Settings::default()).await;
    let recipient = json!({"uuid": "u.0.1", "email": "", "attribs": {"phone": "15550100", "name": "Ana"}});
    let campaign = json!({"uuid": "u", "name": "sale"});
    let posted =
        json!({"subject": "sale", "body": "Hi Ana", "recipients": [recipient], "campaign": campaign});
    let url = format!("{}/messages/sales", bench.simulator.url());
    let answer = bench.client.post(&url).header("Idempotency-Key", "u.0.1").json(&posted).send().await;
    assert_eq!(answer.expect("answer").status(), 200);
    let sends = bench.simulator.ledger().sends(&SendQuery::default());
    let entry = &sends[0];
    let read = [&*entry.token, &*entry.broadcast, &*entry.chat, &*entry.text, &*entry.account];
    assert_eq!(read, ["u.0.1", "u", "15550100", "Hi Ana", "sales"]);
    let mut two = posted.clone();
    two["recipients"] = json!([posted["recipients"][0], posted["recipients"][0]]);
    assert_eq!(bench.client.post(url).json(&two).send().await.expect("answer").status(), 400);
}

#[tokio::test]
async fn a_repeat_is_accepted_twice_unless_the_gateway_is_idempotent() {
    for idempotent in [false, true] {
        let bench = Bench::start(Settings { idempotent, ..Settings::default() }).await;
        let (_, first) = body(bench.send("1").await.expect("answer")).await;
        let (status, second) = body(bench.send("1").await.expect("answer")).await;
        assert_eq!((status, first == second), (200, idempotent));
        let counts = bench.simulator.ledger().summary().requests;
        let twice = u64::from(!idempotent);
        assert_eq!((counts.accepted, counts.repeated), (1 + twice, 1 - twice));
        assert_eq!((counts.twice.chats, counts.twice.tokens), (twice, twice));
        assert_eq!(counts.max_accepted_per_token, 1 + twice);
    }
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_and_written_down() {
    let bench = Bench::start(Settings::default()).await;
    let mut without_chat = message("1");
    without_chat.as_object_mut().expect("object").remove("to");
    let mut empty_chat = message("1");
    empty_chat["to"] = json!("");
    for nonsense in [without_chat, empty_chat, json!([]), json!({"id": "t"})] {
        let (status, answer) = body(bench.post("/messages/sales", &nonsense).await.expect("answer")).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("invalid_request")), "{nonsense}");
        assert_eq!(answer["error"]["retryable"], json!(false));
        assert!(answer["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    let url = format!("{}/messages", bench.simulator.url());
    let other_key = bench.client.post(url).header("Idempotency-Key", "other").json(&message("1"));
    let (status, answer) = body(other_key.send().await.expect("answer")).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("idempotency_key_mismatch")));
    let counts = bench.simulator.ledger().summary().requests;
    assert_eq!((counts.requests, counts.refused, counts.accepted), (5, 5, 0));
}

#[tokio::test]
async fn a_wrong_token_is_refused_until_it_is_right() {
    let bench = Bench::start(Settings { token: Some("other".into()), ..Settings::default() }).await;
    let (status, answer) = body(bench.send("1").await.expect("answer")).await;
    assert_eq!((status, &answer["error"]["code"]), (401, &json!("unauthorized")));
    assert_eq!(bench.put("/simulator/token", json!({"token": "secret"}).to_string()).await, 204);
    assert_eq!(bench.send("1").await.expect("answer").status(), 200);
    assert_eq!(bench.put("/simulator/token", json!({"token": "third"}).to_string()).await, 204);
    assert_eq!(bench.send("2").await.expect("answer").status(), 401);
    bench.simulator.set_token(None);
    assert_eq!(bench.send("2").await.expect("answer").status(), 200);
    let refused = Done::Refused { status: 401, code: "unauthorized".into() };
    assert_eq!(bench.simulator.ledger().sends(&SendQuery::default())[0].done, refused);
}

#[tokio::test]
async fn the_summary_counts_what_happened() {
    let bench = Bench::start(Settings::default()).await;
    for chat in ["1", "2", "2", "3"] {
        bench.send(chat).await.expect("answer");
    }
    let summary = bench.get("/simulator/summary").await;
    let expected = [
        ("requests", 4),
        ("accepted", 4),
        ("refused", 0),
        ("distinctTokens", 3),
        ("distinctChats", 3),
        ("maxAcceptedPerToken", 2),
        ("inFlight", 0),
        ("highestInFlight", 1),
    ];
    for (field, value) in expected {
        assert_eq!(summary[field], json!(value), "{field}");
    }
    assert_eq!(summary["twice"], json!({"chats": 1, "tokens": 1}));
    let sends = bench.simulator.ledger().sends(&SendQuery::default());
    assert_eq!(summary["lastArrival"], serde_json::to_value(sends[3].arrived).expect("json"));
    assert_eq!(
        serde_json::from_value::<Summary>(summary).expect("summary"),
        bench.simulator.ledger().summary()
    );
}

#[tokio::test]
async fn requests_in_flight_are_counted_while_they_wait() {
    let bench = Bench::with_faults(json!([{"do": {"hang": {}}}])).await;
    let sends = futures::future::join(bench.send("1"), bench.send("2"));
    tokio::select! {
        answers = sends => panic!("{answers:?}"),
        summary = bench.wait_until(|summary| summary.requests.in_flight == 2) => {
            assert_eq!(summary.requests.highest_in_flight, 2);
        }
    }
    // The clients have left with the future that was dropped.
    let summary = bench.wait_until(|summary| summary.requests.in_flight == 0).await;
    assert_eq!((summary.requests.clients_left, summary.requests.highest_in_flight), (2, 2));
}

#[tokio::test]
async fn a_deleted_ledger_is_empty_and_numbers_go_on() {
    let bench = Bench::start(Settings::default()).await;
    bench.send("1").await.expect("answer");
    let url = format!("{}/simulator/ledger", bench.simulator.url());
    assert_eq!(bench.client.delete(url).send().await.expect("answer").status(), 204);
    assert_eq!(bench.get("/simulator/sends").await, json!([]));
    let (_, answer) = body(bench.send("1").await.expect("answer")).await;
    assert_eq!(answer, json!({"id": "sim-2"}));
    assert_eq!(bench.simulator.ledger().accepted("shop/sale", "1"), 1);
}

#[tokio::test]
async fn control_requests_that_make_no_sense_change_nothing() {
    let bench = Bench::start(Settings::default()).await;
    for (path, nonsense) in [
        ("/simulator/faults", json!([{"do": {"statusAfterAccept": 200}}])),
        ("/simulator/faults", json!({})),
        ("/simulator/token", json!({"tokens": "x"})),
        ("/simulator/receipts", json!({"url": "ftp://127.0.0.1/"})),
    ] {
        assert_eq!(bench.put(path, nonsense.to_string()).await, 400, "{path} {nonsense}");
    }
    let url = format!("{}/simulator/sends?chats=1", bench.simulator.url());
    assert_eq!(bench.client.get(url).send().await.expect("answer").status(), 400);
    assert_eq!(bench.get("/simulator/faults").await, json!([]));
    assert_eq!(bench.send("1").await.expect("answer").status(), 200);
}

#[tokio::test]
async fn a_stopped_simulator_takes_no_connection_and_keeps_its_ledger() {
    let bench = Bench::with_faults(json!([{"do": {"hangAfterAccept": {}}}])).await;
    let (url, ledger) = (bench.simulator.url(), bench.simulator.ledger());
    let client = bench.client.clone();
    let send = tokio::spawn({
        let url = format!("{url}/messages");
        async move { client.post(url).json(&message("1")).send().await }
    });
    bench.wait_until(|summary| summary.requests.in_flight == 1).await;
    tokio::time::timeout(PATIENCE, bench.simulator.stop()).await.expect("should stop with a client hanging");
    assert!(send.await.expect("task").is_err());
    let refused = bench.client.post(url).send().await.expect_err("should be closed");
    assert!(refused.is_connect(), "{refused:?}");
    assert_eq!(ledger.accepted("shop/sale", "1"), 1);
}
