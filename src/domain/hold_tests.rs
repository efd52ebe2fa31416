//! Tokens: who may accept what.

use std::collections::BTreeMap;

use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{BatchProgress, BroadcastSpec, Counts};

fn broadcast() -> Broadcast {
    let mut broadcast = Broadcast::new("sale", BroadcastSpec::default());
    broadcast.metadata.namespace = Some("shop".into());
    broadcast.metadata.uid = Some("0b3f9a3e".into());
    broadcast
}

fn annotate(broadcast: &mut Broadcast, token: &str) {
    broadcast.metadata.annotations = Some(BTreeMap::from([(ACCEPT_ANNOTATION.to_owned(), token.to_owned())]));
}

fn hold(broadcast: &Broadcast, found: &[&str]) -> Hold {
    Hold::new(broadcast, HoldReason::StatusLost, found.iter().copied(), "to go on")
}

#[test]
fn the_message_ends_with_a_command_that_accepts() {
    let mut broadcast = broadcast();
    let hold = hold(&broadcast, &["a"]);
    let (says, command) = hold.message.split_once(": ").expect("a command");
    assert_eq!(says, "to go on");
    let token = command
        .strip_prefix("kubectl -n shop annotate --overwrite bc/sale broadcast-operator.dev/accept-restored=");
    let token = token.expect("the whole command");
    assert!(token.len() == 8 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    assert!(!hold.is_accepted(&broadcast));
    annotate(&mut broadcast, token);
    assert!(hold.is_accepted(&broadcast));
}

#[test]
fn another_find_another_broadcast_and_another_time_have_other_tokens() {
    let here = broadcast();
    let mut elsewhere = broadcast();
    elsewhere.metadata.uid = Some("another".into());
    let mut again = broadcast();
    again.status =
        Some(BroadcastStatus { accepted_token: Some("3f9a1c2b".into()), ..BroadcastStatus::default() });
    let tokens = [
        hold(&here, &["a"]).token,
        hold(&here, &["b"]).token,
        hold(&here, &["a", "b"]).token,
        hold(&here, &["ab"]).token,
        hold(&elsewhere, &["a"]).token,
        hold(&again, &["a"]).token,
        Hold::new(&here, HoldReason::PagesOfAnotherBroadcast, ["a"], "").token,
    ];
    let different: std::collections::HashSet<&String> = tokens.iter().collect();
    assert_eq!(different.len(), tokens.len(), "{tokens:?}");
    assert_eq!(hold(&here, &["a"]), hold(&here, &["a"]), "the same find has the same token");
}

#[test]
fn a_token_of_something_else_is_not_obeyed_and_the_message_says_so_once() {
    let mut broadcast = broadcast();
    let found = hold(&broadcast, &["a"]);
    annotate(&mut broadcast, "00000000");
    assert!(!found.is_accepted(&broadcast));
    let message = found.message_on(&broadcast);
    assert!(message.starts_with(NOT_OBEYED) && message.ends_with(&found.message), "{message}");
    let stalled = super::super::conditions::Conditions::after(&[], 1, Timestamp::UNIX_EPOCH);
    broadcast.status = Some(BroadcastStatus {
        hold: Some(found.status()),
        conditions: stalled.with("Stalled", true, "StatusLost", &message).build(),
        ..BroadcastStatus::default()
    });
    assert_eq!(Hold::shown(&broadcast), Some(found));
    assert_eq!(accepted(&broadcast), None);
}

#[test]
fn books_that_lost_a_page_or_an_outcome_do_not_agree() {
    let status = BroadcastStatus {
        batches: Some(BatchProgress { total: 2, done: 0 }),
        counts: Some(Counts { pending: 3, sending: 2, sent: 4, failed: 1, ..Counts::default() }),
        ..BroadcastStatus::default()
    };
    let seen = |pages, pending, evidence, behind| {
        books(
            &status,
            &Seen { pages, standing: crate::domain::standing::Standing { pending, evidence }, behind },
        )
    };
    assert_eq!(seen(2, 5, 5, 0), Books::Agree);
    assert_eq!(seen(2, 1, 9, 0), Books::Agree, "the status is written after the pages");
    assert_eq!(seen(1, 5, 5, 0), Books::Missing);
    assert_eq!(seen(2, 6, 5, 0), Books::Behind(1));
    assert_eq!(seen(2, 5, 3, 0), Books::Behind(2));
    assert_eq!(seen(2, 1, 9, 4), Books::Behind(4), "a page that others have made up for");
}

#[test]
fn a_restore_of_the_cluster_is_accepted_once_for_each_broadcast() {
    let noticed: Timestamp = "2026-11-23T10:00:00Z".parse().expect("time");
    let restored = |id: &str| Restored { id: id.into(), noticed };
    let mut broadcast = broadcast();
    broadcast.metadata.creation_timestamp = Some(Time(noticed - SignedDuration::from_hours(2)));
    let hold = Hold::of_restored(&broadcast, &restored("a"), None).expect("held");
    assert!(hold.message.ends_with(&format!("{ACCEPT_ANNOTATION}={}", hold.token)), "{}", hold.message);
    annotate(&mut broadcast, &hold.token);
    assert_eq!(Hold::of_restored(&broadcast, &restored("a"), None), None);
    // Another hold needs the annotation: what was accepted is remembered in the status.
    annotate(&mut broadcast, "another");
    let status = BroadcastStatus { accepted_restore: Some(hold.token.clone()), ..BroadcastStatus::default() };
    broadcast.status = Some(status);
    assert_eq!(Hold::of_restored(&broadcast, &restored("a"), None), None);
    assert!(Hold::of_restored(&broadcast, &restored("b"), None).is_some(), "a later restore is another one");
    broadcast.spec.paused = true;
    assert_eq!(
        Hold::of_restored(&broadcast, &restored("b"), None),
        None,
        "what is stopped is shown as stopped"
    );
}
