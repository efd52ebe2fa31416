//! Which source may be taken over and when, and which chats it gives.

use super::*;
use crate::api::{BroadcastChannelSpec, BroadcastSpec, BroadcastStatus, Counts, ProviderName};
use jiff::Timestamp;
use proptest::prelude::*;

fn rules(provider: ProviderName, region: Option<&str>) -> ChatRules {
    let mut channel = BroadcastChannelSpec::of(provider);
    channel.default_region = region.map(str::to_owned);
    ChatRules::of(&channel)
}

fn any_rules() -> impl Strategy<Value = ChatRules> {
    let providers = [
        ProviderName::Http,
        ProviderName::WhatsApp,
        ProviderName::Telegram,
        ProviderName::Twilio,
        ProviderName::Periskope,
    ];
    (prop::sample::select(providers.to_vec()), prop::sample::select(vec![None, Some("ES"), Some("US")]))
        .prop_map(|(provider, region)| rules(provider, region))
}

fn recipient(chat: &str) -> Recipient {
    let params = BTreeMap::from([("name".to_owned(), "Ana".to_owned())]);
    Recipient { chat: chat.into(), skip: String::new(), params }
}

fn broadcast(name: &str, uid: &str) -> Broadcast {
    let mut broadcast = Broadcast::new(name, BroadcastSpec::default());
    broadcast.metadata.uid = Some(uid.into());
    broadcast
}

fn request() -> RestartFrom {
    RestartFrom { name: "sale".into(), uid: None, include: vec![Include::Failed, Include::Unsent] }
}

fn source(paused: bool, sending: i32) -> Broadcast {
    let mut source = broadcast("sale", "u1");
    source.spec.paused = paused;
    source.status = Some(BroadcastStatus {
        audience_digest: Some("sha256:0".into()),
        counts: Some(Counts { sending, ..Counts::default() }),
        ..BroadcastStatus::default()
    });
    source
}

fn reason(decision: Decision) -> &'static str {
    match decision {
        Decision::Refused(reason, _) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn wrong_restarts_are_refused_each_with_its_reason() {
    let child = broadcast("sale-2", "u2");
    assert_eq!(reason(decide(&child, &request(), None)), "SourceNotFound");
    assert_eq!(reason(decide(&broadcast("sale", "u1"), &request(), None)), "RestartOfItself");
    let other = RestartFrom { uid: Some("u0".into()), ..request() };
    assert_eq!(reason(decide(&child, &other, Some(&source(true, 0)))), "SourceHasAnotherUid");
    let mut taken = source(true, 0);
    taken.status.as_mut().expect("status").restarted_by =
        Some(ObjectRef { name: "x".into(), uid: "u9".into() });
    assert_eq!(reason(decide(&child, &request(), Some(&taken))), "AlreadyRestarted");
    let mut greedy = child;
    greedy.spec.recipients = Some(crate::api::Recipients::default());
    assert_eq!(reason(decide(&greedy, &request(), Some(&source(true, 0)))), "RecipientsGiven");
}

#[test]
fn a_restart_waits_while_its_source_still_sends() {
    let child = broadcast("sale-2", "u2");
    assert!(matches!(decide(&child, &request(), Some(&source(false, 0))), Decision::Wait(_)));
    assert!(matches!(decide(&child, &request(), Some(&source(true, 3))), Decision::Wait(_)));
    assert_eq!(decide(&child, &request(), Some(&source(true, 0))), Decision::Go);
}

#[test]
fn a_source_without_a_plan_has_not_begun_unless_its_books_are_in_doubt() {
    let child = broadcast("sale-2", "u2");
    let mut unplanned = source(true, 0);
    let status = unplanned.status.as_mut().expect("status");
    status.audience_digest = None;
    let Decision::Wait(message) = decide(&child, &request(), Some(&unplanned)) else { panic!("not waiting") };
    assert!(message.contains("has not begun"), "{message}");
    unplanned.status.as_mut().expect("status").hold = Some(crate::api::HoldStatus {
        reason: crate::api::HoldReason::StatusLost,
        token: "1".into(),
        chats: None,
    });
    assert_eq!(reason(decide(&child, &request(), Some(&unplanned))), "SourceHeld");
}

#[test]
fn a_restart_that_was_interrupted_goes_on() {
    let mut taken = source(true, 0);
    taken.status.as_mut().expect("status").restarted_by =
        Some(ObjectRef { name: "sale-2".into(), uid: "u2".into() });
    assert_eq!(decide(&broadcast("sale-2", "u2"), &request(), Some(&taken)), Decision::Go);
}

#[test]
fn closed_batches_without_a_restart_are_those_of_one_that_is_found_or_gave_them_back() {
    let by = |uid: &str| ObjectRef { name: "sale-2".into(), uid: uid.into() };
    let child = broadcast("sale-3", "u3");
    let mut closed = source(true, 0);
    assert_eq!(reason(decide_closed(&child, &closed, None)), "AlreadyRestarted");
    assert_eq!(decide_closed(&child, &closed, Some(&by("u3"))), Decision::Go, "its own");
    closed.status.as_mut().expect("status").given_back_by = Some(by("u2"));
    assert_eq!(decide_closed(&child, &closed, None), Decision::Go);
    assert_eq!(reason(decide_closed(&child, &closed, Some(&by("u2")))), "AlreadyRestarted");
}

#[test]
fn a_restart_is_of_the_source_that_it_took_or_else_of_the_one_that_it_asks_for() {
    let mut child = broadcast("sale-2", "u2");
    assert!(!is_restart_of(&child, &source(true, 0)), "it is none");
    for (asked, taken, is_it) in [
        (None, None, true),
        (Some("u1"), None, true),
        (Some("u0"), None, false),
        (None, Some("u1"), true),
        (None, Some("u0"), false),
    ] {
        child.spec.restart_from = Some(RestartFrom { uid: asked.map(str::to_owned), ..request() });
        let restarted_from = taken.map(|uid| ObjectRef { name: "sale".into(), uid: uid.into() });
        child.status = Some(BroadcastStatus { restarted_from, ..BroadcastStatus::default() });
        assert_eq!(is_restart_of(&child, &source(true, 0)), is_it, "{asked:?} {taken:?}");
    }
}

#[test]
fn a_restart_that_names_none_of_the_chats_that_are_left_would_get_nobody() {
    use Outcome::{Cancelled, Failed, Pending, Sent, Skipped, Unknown};
    let of = |outcomes: &[Outcome]| {
        let mut page =
            Page::planned((0..outcomes.len()).map(|n| recipient(&format!("1555{n:04}"))).collect());
        for (row, outcome) in outcomes.iter().enumerate() {
            page.merge(row, &Row::known(*outcome, 1, Timestamp::UNIX_EPOCH));
        }
        page
    };
    let asked = |include: &[Include], outcomes: &[Outcome]| {
        let request = RestartFrom { include: include.to_vec(), ..request() };
        let left = [of(&[Sent]), of(outcomes)].iter().fold(Left::default(), Left::with);
        left.nobody_included("sale-r1", &request)
    };
    let usual = [Include::Failed, Include::Unsent];
    for outcomes in [&[Sent][..], &[Skipped], &[Sent, Failed, Unknown], &[Cancelled, Unknown], &[Pending]] {
        assert_eq!(asked(&usual, outcomes), None, "{outcomes:?}");
    }
    assert_eq!(asked(&[Include::Unknown], &[Unknown, Failed]), None);
    let message = asked(&usual, &[Unknown, Sent, Unknown]).expect("nobody");
    assert!(message.contains("2 Unknown,") && message.contains("ask the gateway first"), "{message}");
    assert!(message.contains(r#"kubectl patch bc sale-r1 --type=merge -p '{"spec":{"restartFrom":{"include":["Failed","Unsent","Unknown"]}}}'"#), "{message}");
    let counts = Counts { unknown: 2, sent: 2, ..Counts::default() };
    assert_eq!(Left::of(&counts).nobody_included("sale-r1", &request()), Some(message), "as the status says");
    let counts = Counts { sending: 1, ..counts };
    assert_eq!(Left::of(&counts).nobody_included("sale-r1", &request()), None);
    let message = asked(&[Include::Unknown], &[Failed, Cancelled, Cancelled]).expect("nobody");
    assert!(
        message.contains("1 Failed and 2 Cancelled or not sent,") && !message.contains("ask"),
        "{message}"
    );
}

#[test]
fn names_of_children_are_short_and_always_the_same() {
    let lineage = |root: &str| Lineage { root: root.into(), depth: 2, total: 0, reached: 0 };
    let source = ObjectRef { name: "sale-r1".into(), uid: "0b3f9a3e-1c5e".into() };
    assert_eq!(child_name(&source, &lineage("sale")), "sale-r2");
    let long = child_name(&source, &lineage(&"a".repeat(57)));
    assert!(long.len() <= MAX_BROADCAST_NAME && long.ends_with("-0b3f9a3e-r2"), "{long}");
}

#[test]
fn a_chain_counts_everybody_that_the_pages_say_was_reached() {
    let mut source = source(true, 0);
    let status = source.status.as_mut().expect("status");
    status.counts = Some(Counts { sent: 10, ..Counts::default() });
    status.lineage = Some(Lineage { root: "first".into(), depth: 1, total: 300, reached: 110 });
    // Its status is behind: its pages have 40, not 10.
    assert_eq!(lineage(&source, 40), Lineage { root: "first".into(), depth: 2, total: 300, reached: 140 });
}

#[test]
fn chats_that_become_one_in_another_channel_are_sent_to_once() {
    let recipients = ["34600111222", "600111222", "-1001234567890"].map(recipient).to_vec();
    let (http, whats_app) = (ChatRules::default(), rules(ProviderName::WhatsApp, Some("ES")));
    let rows = readdressed(recipients, &http, &whats_app);
    let rows: Vec<(&str, &str, usize)> = rows
        .iter()
        .map(|row| (row.chat.as_str(), row.skip.split(':').next().unwrap_or_default(), row.params.len()))
        .collect();
    assert_eq!(
        rows,
        [("34600111222", "", 1), ("34600111222", "Duplicate", 0), ("-1001234567890", "NotAPhoneNumber", 0)]
    );
}

proptest! {
    #[test]
    fn no_chat_is_lost_between_channels_and_none_is_sent_to_twice(
        chats in prop::collection::vec(
            prop_oneof!["[0-9]{3,16}", "-100[0-9]{10}", "@[A-Za-z0-9_]{4,8}", "[0-9]{9}@[cg]\\.us", "[A-Za-z0-9+/]{1,12}"], 0..40
        ),
        from in any_rules(), to in any_rules()
    ) {
        let recipients: Vec<Recipient> = chats.iter().map(|chat| recipient(chat)).collect();
        let rows = readdressed(recipients.clone(), &from, &to);
        prop_assert_eq!(rows.len(), recipients.len());
        let mut sent = HashSet::new();
        for (row, recipient) in rows.iter().zip(&recipients) {
            match row.skip.is_empty() {
                true => {
                    prop_assert_eq!(&row.params, &recipient.params);
                    prop_assert!(sent.insert(row.chat.clone()), "{} twice", row.chat);
                }
                false => prop_assert!(row.skip.contains(": ") && row.params.is_empty(), "{:?}", row),
            }
        }
    }

    #[test]
    fn nobody_who_has_the_message_is_carried_over(
        outcomes in prop::collection::vec(0_usize..6, 1..40), unknown in any::<bool>()
    ) {
        let kinds = [Outcome::Pending, Outcome::Unknown, Outcome::Sent, Outcome::Failed, Outcome::Delivered, Outcome::Read];
        let recipients: Vec<Recipient> = (0..outcomes.len())
            .map(|n| Recipient { chat: format!("1555{n:04}"), skip: String::new(), params: BTreeMap::new() })
            .collect();
        let mut page = Page::planned(recipients);
        for (row, kind) in outcomes.iter().enumerate() {
            page.merge(row, &Row::known(kinds[*kind], 1, Timestamp::UNIX_EPOCH));
        }
        page.seal(Timestamp::UNIX_EPOCH).expect("not claimed");
        let mut include = vec![Include::Failed, Include::Unsent];
        if unknown { include.push(Include::Unknown); }
        let carried: Vec<String> = carried_over([page].iter(), &include).into_iter().map(|r| r.chat).collect();
        let wanted: Vec<String> = outcomes.iter().enumerate()
            .filter(|(_, kind)| matches!(kinds[**kind], Outcome::Pending | Outcome::Failed)
                || (unknown && kinds[**kind] == Outcome::Unknown))
            .map(|(n, _)| format!("1555{n:04}"))
            .collect();
        prop_assert_eq!(carried, wanted);
    }
}
