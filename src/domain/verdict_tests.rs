//! A case for every row of the table of states.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::api::{
    BroadcastChannelSpec, BroadcastSpec, ChannelStatus, ConditionStatus, HoldReason, HttpChannel, ObjectRef,
    ProviderName,
};
use crate::domain::ids::{Incarnation, ObjectKey};
use crate::domain::outcome::Row;
use crate::domain::page::{Page, Recipient};
use crate::domain::summary::Place;

fn now() -> Timestamp {
    Timestamp::from_second(1_000).expect("small")
}

fn channel() -> BroadcastChannel {
    let http = HttpChannel { url: "http://gw".into(), allow_unsigned: true, ..HttpChannel::default() };
    BroadcastChannel::new(
        "sms",
        BroadcastChannelSpec { http: Some(http), ..BroadcastChannelSpec::of(ProviderName::Http) },
    )
}

/// A page whose rows have these outcomes; the rows of `claim` are being sent.
fn page(outcomes: &[OutcomeName], claim: std::ops::Range<usize>) -> Arc<PageSummary> {
    let recipient = |(n, outcome): (usize, &OutcomeName)| {
        let skip = if *outcome == OutcomeName::Skipped { "InvalidChat" } else { "" };
        Recipient { chat: format!("1555{n:04}"), skip: skip.into(), params: BTreeMap::new() }
    };
    let recipients = outcomes.iter().enumerate().map(recipient).collect();
    let mut page = Page::planned(recipients);
    for (row, outcome) in outcomes.iter().enumerate() {
        page.merge(row, &Row::known(*outcome, u32::from(*outcome != OutcomeName::Pending), now()));
    }
    if !claim.is_empty() {
        page.make_claim(&claim, false, &Incarnation::new("i".into()), 1, now()).expect("claimable");
    }
    summary(&page)
}

fn summary(page: &Page) -> Arc<PageSummary> {
    let place =
        Place { key: ObjectKey::new("shop", "sale-00000"), index: 0, uid: "p".into(), resource_version: 1 };
    Arc::new(PageSummary::of(place, page))
}

fn sealed(total: i32) -> Broadcast {
    let mut broadcast = Broadcast::new("sale", BroadcastSpec::default());
    broadcast.metadata.generation = Some(3);
    broadcast.status = Some(BroadcastStatus {
        total: Some(total),
        batches: Some(BatchProgress { total: 1, done: 0 }),
        counts: Some(Counts { pending: total, ..Counts::default() }),
        ..BroadcastStatus::default()
    });
    broadcast
}

/// The conditions as `Type=Status/Reason`, in their order.
fn conditions(status: &BroadcastStatus) -> Vec<String> {
    let text = |c: &Condition| format!("{}={:?}/{}", c.type_, c.status, c.reason);
    status.conditions.iter().map(text).collect()
}

fn judge(
    broadcast: &Broadcast,
    channel: Option<&BroadcastChannel>,
    page: Arc<PageSummary>,
) -> BroadcastStatus {
    status_of(&Observation {
        broadcast,
        channel,
        pages: &[page],
        stage: &Stage::Sealed,
        restart_refused: None,
        now: now(),
    })
}

use OutcomeName::{Delivered, Failed, Pending, Read, Sent, Skipped, Unknown};

#[test]
fn a_sending_broadcast_is_reconciling() {
    let status = judge(&sealed(3), Some(&channel()), page(&[Sent, Pending, Pending], 1..2));
    assert_eq!(
        conditions(&status),
        [
            "Ready=False/Sending",
            "Complete=False/Sending",
            "Suspended=False/Sending",
            "Reconciling=True/Sending"
        ]
    );
    let counts = status.counts.expect("counts");
    assert_eq!((counts.pending, counts.sending, counts.sent), (1, 1, 1));
    assert_eq!(status.progress.as_deref(), Some("1/3"));
}

#[test]
fn a_stopped_broadcast_is_ready_once_nothing_is_in_flight() {
    let mut broadcast = sealed(2);
    broadcast.spec.paused = true;
    let stopping = judge(&broadcast, Some(&channel()), page(&[Sent, Pending], 1..2));
    assert_eq!(conditions(&stopping)[0], "Ready=False/Stopping");
    let stopped = judge(&broadcast, Some(&channel()), page(&[Sent, Pending], 0..0));
    assert_eq!(
        conditions(&stopped),
        ["Ready=True/Stopped", "Complete=False/Stopped", "Suspended=True/Stopped"]
    );
}

#[test]
fn a_complete_broadcast_says_how_it_went() {
    let status = judge(&sealed(4), Some(&channel()), page(&[Read, Delivered, Failed, Skipped], 0..0));
    assert_eq!(
        conditions(&status),
        ["Ready=True/Succeeded", "Complete=True/Succeeded", "Suspended=False/Succeeded"]
    );
    assert_eq!((status.delivered_percent, status.read_percent), (Some(100), Some(50)));
    assert!(status.conditions[1].message.contains("2 of 4"), "{}", status.conditions[1].message);
    assert_eq!(status.completion_time, Some(Time(now())));
}

#[test]
fn percentages_are_absent_without_receipts_and_before_the_first_message() {
    let mut mute = channel();
    mute.spec.http.as_mut().expect("http").allow_unsigned = false;
    assert_eq!(judge(&sealed(1), Some(&mute), page(&[Sent], 0..0)).delivered_percent, None);
    assert_eq!(judge(&sealed(1), Some(&channel()), page(&[Pending], 0..0)).delivered_percent, None);
}

#[test]
fn a_message_that_fails_after_it_was_taken_counts_in_percentages_and_one_that_was_refused_does_not() {
    let recipient =
        |n| Recipient { chat: format!("1555{n:04}"), skip: String::new(), params: BTreeMap::new() };
    let mut page = Page::planned((0..4).map(recipient).collect());
    let taken = |n: usize, outcome| Row::known(outcome, 1, now()).with_message_id(&format!("m{n}"));
    for row in 0..3 {
        page.merge(row, &taken(row, Sent));
    }
    page.merge(3, &Row::known(Failed, 1, now()).with_error("131026", "no"));
    let percents = |page: &Page| {
        let status = judge(&sealed(4), Some(&channel()), summary(page));
        (status.delivered_percent, status.read_percent)
    };
    page.merge(0, &taken(0, Read));
    assert_eq!(percents(&page), (Some(33), Some(33)));
    page.merge(1, &taken(1, Failed).with_error("30005", "gone"));
    assert_eq!(percents(&page), (Some(33), Some(33)), "what fails makes nothing better");
    page.merge(2, &taken(2, Delivered));
    assert_eq!(percents(&page), (Some(66), Some(33)));
}

#[test]
fn a_held_unknown_is_an_outcome_and_a_resent_one_is_not() {
    let unknown = || page(&[Unknown], 0..0);
    assert_eq!(conditions(&judge(&sealed(1), Some(&channel()), unknown()))[1], "Complete=True/Succeeded");
    let mut resending = sealed(1);
    resending.spec.on_unknown = OnUnknown::Resend;
    assert_eq!(conditions(&judge(&resending, Some(&channel()), unknown()))[1], "Complete=False/Sending");
}

#[test]
fn a_restarted_source_is_complete_when_its_pages_are_closed() {
    let mut source = sealed(1);
    source.status.as_mut().expect("status").restarted_by =
        Some(ObjectRef { name: "r1".into(), uid: "u".into() });
    assert_eq!(
        conditions(&judge(&source, Some(&channel()), page(&[Pending], 0..0)))[0],
        "Ready=False/Restarting"
    );
    assert_eq!(
        conditions(&judge(&source, Some(&channel()), page(&[Failed], 0..0)))[0],
        "Ready=True/Restarted"
    );
}

#[test]
fn trouble_of_the_channel_is_trouble_of_its_broadcasts() {
    let pending = || page(&[Pending], 0..0);
    let mut refused = channel();
    refused.status = Some(ChannelStatus {
        conditions: Conditions::after(&[], 1, now())
            .with("Stalled", true, "AuthenticationFailed", "no")
            .build(),
        ..ChannelStatus::default()
    });
    let status = judge(&sealed(1), Some(&refused), pending());
    assert_eq!(conditions(&status)[3], "Stalled=True/AuthenticationFailed");
    let mut braked = channel();
    braked.spec.paused = true;
    assert_eq!(conditions(&judge(&sealed(1), Some(&braked), pending()))[0], "Ready=False/ChannelPaused");
    assert_eq!(conditions(&judge(&sealed(1), None, pending()))[0], "Ready=False/ChannelNotFound");
}

#[test]
fn a_problem_stalls_and_a_wait_reconciles() {
    let broadcast = Broadcast::new("sale", BroadcastSpec::default());
    let judge = |stage: &Stage| {
        conditions(&status_of(&Observation {
            broadcast: &broadcast,
            channel: None,
            pages: &[],
            stage,
            restart_refused: None,
            now: now(),
        }))
    };
    let stalled = judge(&Stage::Stalled("EmptyAudience".into(), "nobody".into()));
    assert_eq!(stalled.last().map(String::as_str), Some("Stalled=True/EmptyAudience"));
    let waiting = judge(&Stage::Waiting("WaitingForSource", String::new()));
    assert_eq!(waiting.last().map(String::as_str), Some("Reconciling=True/WaitingForSource"));
    assert_eq!(judge(&Stage::Checked)[0], "Ready=True/Stopped");
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut broadcast = sealed(1);
    let first = judge(&broadcast, Some(&channel()), page(&[Pending], 0..0));
    broadcast.status = Some(first.clone());
    let pages = [page(&[Sent], 0..0)];
    let later = Timestamp::from_second(2_000).expect("small");
    let second = status_of(&Observation {
        broadcast: &broadcast,
        channel: Some(&channel()),
        pages: &pages,
        stage: &Stage::Sealed,
        restart_refused: None,
        now: later,
    });
    let time = |status: &BroadcastStatus, type_| {
        Condition::find(&status.conditions, type_).map(|c| (c.status, c.last_transition_time.0))
    };
    assert_eq!(time(&second, "Ready"), Some((ConditionStatus::True, later)));
    assert_eq!(time(&second, "Suspended"), Some((ConditionStatus::False, now())));
}

#[test]
fn an_audience_without_pages_is_complete_at_once_and_says_so() {
    let mut broadcast = sealed(0);
    broadcast.status.as_mut().expect("status").batches = Some(BatchProgress::default());
    let status = status_of(&Observation {
        broadcast: &broadcast,
        channel: None,
        pages: &[],
        stage: &Stage::Sealed,
        restart_refused: None,
        now: now(),
    });
    assert_eq!(conditions(&status)[1], "Complete=True/Succeeded");
    assert!(status.conditions[1].message.starts_with("nothing to send"));
}

#[test]
fn what_is_complete_stays_complete_whatever_is_switched_on_later() {
    let mut broadcast = sealed(1);
    let unknown = page(&[Unknown], 0..0);
    let done = judge(&broadcast, Some(&channel()), unknown.clone());
    assert_eq!(conditions(&done)[0], "Ready=True/Succeeded");
    broadcast.status = Some(done);
    broadcast.spec.on_unknown = OnUnknown::Resend;
    let mut idempotent = channel();
    if let Some(http) = &mut idempotent.spec.http {
        http.idempotent = true;
    }
    let later = judge(&broadcast, Some(&idempotent), unknown);
    assert_eq!(conditions(&later)[0], "Ready=True/Succeeded");
    assert!(later.completion_time.is_some());
}

#[test]
fn a_lost_page_is_a_hold_once_it_cannot_be_on_its_way_any_more() {
    let mut broadcast = sealed(2);
    let page = page(&[Sent], 0..0);
    broadcast.status.as_mut().expect("status").batches = Some(BatchProgress { total: 2, done: 0 });
    assert_eq!(conditions(&judge(&broadcast, Some(&channel()), page.clone()))[0], "Ready=False/Planning");
    let held = |broadcast: &Broadcast, age| {
        let mut broadcast = broadcast.clone();
        let start = now() - jiff::SignedDuration::from_secs(age);
        broadcast.status.as_mut().expect("status").start_time = Some(Time(start));
        hold::batches_missing(&broadcast, std::slice::from_ref(&page), now()).map(|hold| hold.reason)
    };
    assert_eq!(held(&broadcast, 5), None);
    assert_eq!(held(&broadcast, 60), Some(HoldReason::BatchesMissing));
    broadcast.status.as_mut().expect("status").completion_time = Some(Time(now()));
    assert_eq!(held(&broadcast, 60), None, "what is complete sends nothing");
}

/// A Broadcast of three chats, two of them sent to, of which `page` knows less.
fn counted() -> (Broadcast, Arc<PageSummary>) {
    let mut broadcast = sealed(3);
    let status = judge(&broadcast, Some(&channel()), page(&[Sent, Sent, Pending], 0..0));
    broadcast.status = Some(status);
    (broadcast, page(&[Sent, Pending, Pending], 0..0))
}

#[test]
fn pages_that_went_back_do_not_change_what_was_counted() {
    let (broadcast, older) = counted();
    let status = judge(&broadcast, Some(&channel()), older);
    assert_eq!(conditions(&status)[0], "Ready=False/Planning", "they may be on their way");
    assert_eq!(status.counts.expect("counts").sent, 2);
}

#[test]
fn accepting_pages_that_went_back_counts_from_them() {
    let (mut broadcast, older) = counted();
    let hold = hold::batches_went_back(&broadcast, 1);
    let stage = Stage::Held(hold.clone());
    let judge = |broadcast: &Broadcast, stage: &Stage| {
        status_of(&Observation {
            broadcast,
            channel: Some(&channel()),
            pages: std::slice::from_ref(&older),
            stage,
            restart_refused: None,
            now: now(),
        })
    };
    let held = judge(&broadcast, &stage);
    assert_eq!(conditions(&held).last().map(String::as_str), Some("Stalled=True/BatchesWentBack"));
    assert_eq!((held.hold.clone(), held.counts.expect("counts").sent), (Some(hold.status()), 2));
    broadcast.status = Some(held);
    let annotation = (crate::api::ACCEPT_ANNOTATION.to_owned(), hold.token.clone());
    broadcast.metadata.annotations = Some(BTreeMap::from([annotation]));
    let accepted = judge(&broadcast, &Stage::Sealed);
    assert_eq!(conditions(&accepted)[0], "Ready=False/Sending");
    assert_eq!((accepted.hold, accepted.counts.expect("counts").sent), (None, 1));
    assert_eq!(accepted.accepted_token, Some(hold.token));
}

#[test]
fn what_is_complete_stays_complete_when_its_pages_go_back() {
    let mut broadcast = sealed(1);
    broadcast.status = Some(judge(&broadcast, Some(&channel()), page(&[Sent], 0..0)));
    let later = judge(&broadcast, Some(&channel()), page(&[Pending], 0..0));
    assert_eq!(conditions(&later)[0], "Ready=True/Succeeded");
    assert!(later.completion_time.is_some());
    assert!(later.conditions[1].message.contains("older than its counts"));
}

#[test]
fn a_refused_restart_is_a_condition_of_its_own() {
    let broadcast = sealed(1);
    let pages = [page(&[Sent], 0..0)];
    let status = status_of(&Observation {
        broadcast: &broadcast,
        channel: Some(&channel()),
        pages: &pages,
        stage: &Stage::Sealed,
        restart_refused: Some(&Refusal { reason: "NameTaken", message: "taken".into() }),
        now: now(),
    });
    let conditions = conditions(&status);
    assert_eq!(conditions[0], "Ready=True/Succeeded");
    assert_eq!(conditions.last().map(String::as_str), Some("RestartRefused=True/NameTaken"));
}

#[test]
fn nothing_is_said_of_reading_where_nobody_tells_it() {
    let public = serde_json::json!({"publicUrl": "https://receipts.example.com"});
    let polled = serde_json::json!({});
    let silent = serde_json::json!({"pollAfterSeconds": 0});
    let percents = |from: &str, more: &serde_json::Value| {
        let channel = twilio_channel(from, more);
        let status = judge(&sealed(2), Some(&channel), page(&[Sent, Delivered], 0..0));
        let nothing_yet = judge(&sealed(2), Some(&channel), page(&[Sent, Sent], 0..0));
        (status.delivered_percent, status.read_percent, nothing_yet.delivered_percent)
    };
    let (by_whatsapp, sms) = ("whatsapp:+15550100", "+15550100");
    assert_eq!(percents(by_whatsapp, &public), (Some(50), Some(0), Some(0)));
    assert_eq!(percents(sms, &public), (Some(50), None, Some(0)));
    // Who asks is told that a message was delivered, and asks no more.
    assert_eq!(percents(by_whatsapp, &polled), (Some(50), None, Some(0)));
    assert_eq!(percents(sms, &silent), (Some(50), None, None));
}

fn twilio_channel(from: &str, more: &serde_json::Value) -> BroadcastChannel {
    let mut twilio = serde_json::json!({
        "accountSid": format!("AC{}", "0".repeat(32)), "authTokenSecretRef": {"name": "twilio", "key": "token"},
        "from": from,
    });
    let more = more.as_object().expect("an object").clone();
    twilio.as_object_mut().expect("an object").extend(more);
    let twilio = serde_json::from_value(twilio).expect("settings");
    BroadcastChannel::new(
        "sms",
        BroadcastChannelSpec { twilio: Some(twilio), ..BroadcastChannelSpec::of(ProviderName::Twilio) },
    )
}

#[path = "verdict/ending_tests.rs"]
mod ending;
#[path = "verdict/stops_tests.rs"]
mod stops;
