//! A restart: when it may take its source over, and which chats it gets.

use std::collections::{BTreeMap, HashSet};

use super::audience::DUPLICATE;
use super::chat::ChatRules;
use super::outcome::{Outcome, Row};
use super::page::{Page, Recipient};
use crate::api::{Broadcast, Include, Lineage, MAX_BROADCAST_NAME, ObjectRef, RestartFrom};

/// Whether a restart may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The source can be taken over now.
    Go,
    /// Later, and why not now.
    Wait(String),
    /// Never, as things stand: a reason for programs, and what to do.
    Refused(&'static str, String),
}

/// Decides by the source as it is stored.
#[must_use]
pub fn decide(child: &Broadcast, request: &RestartFrom, source: Option<&Broadcast>) -> Decision {
    let name = &request.name;
    if child.metadata.name.as_deref() == Some(name) {
        return refused("RestartOfItself", "a Broadcast cannot restart itself: give it another name".into());
    }
    if child.spec.recipients.is_some() {
        return refused(
            "RecipientsGiven",
            "a restart takes its recipients from the source: remove spec.recipients".into(),
        );
    }
    let Some(source) = source else {
        return refused(
            "SourceNotFound",
            format!("Broadcast {name} does not exist in this namespace: check spec.restartFrom.name"),
        );
    };
    if request.uid.is_some() && request.uid != source.metadata.uid {
        return refused(
            "SourceHasAnotherUid",
            format!(
                "Broadcast {name} was deleted and made anew: its chats are not those of the one with UID {}",
                request.uid.as_deref().unwrap_or_default()
            ),
        );
    }
    let status = source.status.clone().unwrap_or_default();
    if let Some(by) = &status.restarted_by {
        if Some(&by.uid) != child.metadata.uid.as_ref() {
            return already_restarted(name, by);
        }
        return Decision::Go;
    }
    if status.audience_digest.is_none() {
        return Decision::Wait(format!("Broadcast {name} has not begun yet: there is nothing to send again"));
    }
    let sending = status.counts.unwrap_or_default().sending;
    let stopped = source.spec.paused && sending == 0;
    if status.completion_time.is_some() || stopped || source.metadata.deletion_timestamp.is_some() {
        return Decision::Go;
    }
    Decision::Wait(format!(
        "waiting until Broadcast {name} is complete or stopped: to stop it, kubectl patch bc {name} --type=merge -p \
         '{{\"spec\":{{\"paused\":true}}}}'"
    ))
}

/// Decides about a source with closed batches that names no restart: a restart gave it back before it began, or its status was lost
/// or is older than the restart. `by` is a restart that has begun with its chats, if one is left.
#[must_use]
pub fn decide_closed(child: &Broadcast, source: &Broadcast, by: Option<&ObjectRef>) -> Decision {
    let name = source.metadata.name.as_deref().unwrap_or_default();
    let is_given_back = source.status.as_ref().is_some_and(|status| status.given_back_by.is_some());
    match by {
        Some(by) if Some(&by.uid) != child.metadata.uid.as_ref() => already_restarted(name, by),
        None if !is_given_back => refused(
            "AlreadyRestarted",
            format!(
                "batches of Broadcast {name} were closed by a restart that is not known any more, so who has the message by it \
                 is not known either. Find out from the gateway's books who does not have it, and send to those with a \
                 Broadcast with recipients of its own"
            ),
        ),
        Some(_) | None => Decision::Go,
    }
}

/// Whether a Broadcast is a restart of this very source, as far as it says so itself.
#[must_use]
pub fn is_restart_of(child: &Broadcast, source: &Broadcast) -> bool {
    let Some(request) = &child.spec.restart_from else { return false };
    let taken = child.status.as_ref().and_then(|status| status.restarted_from.as_ref());
    let uid = taken.map(|taken| &taken.uid).or(request.uid.as_ref());
    source.metadata.name.as_ref() == Some(&request.name)
        && (uid.is_none() || uid == source.metadata.uid.as_ref())
}

fn already_restarted(name: &str, by: &ObjectRef) -> Decision {
    refused(
        "AlreadyRestarted",
        format!("Broadcast {name} was restarted by {} already: restart that one", by.name),
    )
}

fn refused(reason: &'static str, message: String) -> Decision {
    Decision::Refused(reason, message)
}

/// The chats of sealed pages that a restart sends to, with their parameters.
#[must_use]
pub fn carried_over<'a>(pages: impl Iterator<Item = &'a Page>, include: &[Include]) -> Vec<Recipient> {
    pages
        .flat_map(|page| page.recipients().iter().zip(page.rows()))
        .filter(|(recipient, row)| recipient.skip.is_empty() && is_included(row, include))
        .map(|(recipient, _)| recipient.clone())
        .collect()
}

/// Chats of a source whose channel has the rules `from`, as those of a channel with the rules `to`. None is left out: what
/// the new channel cannot send to, or has already, is a row with the reason.
#[must_use]
pub fn readdressed(recipients: Vec<Recipient>, from: &ChatRules, to: &ChatRules) -> Vec<Recipient> {
    let mut seen = HashSet::new();
    let skipped = |chat, skip| Recipient { chat, skip, params: BTreeMap::new() };
    recipients
        .into_iter()
        .map(|recipient| match to.adopt(&recipient.chat, from) {
            Err(problem) => skipped(recipient.chat, problem.to_string()),
            Ok(chat) if seen.insert(to.identity(&chat).into_owned()) => Recipient { chat, ..recipient },
            Ok(chat) => skipped(chat, DUPLICATE.into()),
        })
        .collect()
}

fn is_included(row: &Row, include: &[Include]) -> bool {
    match row.outcome {
        Outcome::Failed => include.contains(&Include::Failed),
        Outcome::Cancelled => include.contains(&Include::Unsent),
        Outcome::Unknown => include.contains(&Include::Unknown),
        Outcome::Pending | Outcome::Skipped | Outcome::Sent | Outcome::Delivered | Outcome::Read => false,
    }
}

/// The place of a restart in its chain. `accepted` chats of the source have the message: its pages say so, while its status
/// may be a second behind.
#[must_use]
pub fn lineage(source: &Broadcast, accepted: i32) -> Lineage {
    let status = source.status.as_ref();
    let total = status.and_then(|status| status.total).unwrap_or_default();
    let known = status.and_then(|status| status.lineage.clone());
    let known = known.unwrap_or_else(|| Lineage {
        root: source.metadata.name.clone().unwrap_or_default(),
        depth: 0,
        total,
        reached: 0,
    });
    let counts = status.and_then(|status| status.counts).unwrap_or_default();
    let counted = counts.sent + counts.delivered + counts.read;
    Lineage { depth: known.depth + 1, reached: known.reached - counted + accepted, ..known }
}

/// How many chats of pages have the message.
#[must_use]
pub fn accepted<'a>(pages: impl Iterator<Item = &'a Page>) -> i32 {
    let counts = pages.map(Page::counts);
    counts.map(|counts| counts.sent + counts.delivered + counts.read).sum()
}

/// Name of the child that a restart by annotation makes: always the same for the same source.
#[must_use]
pub fn child_name(source: &ObjectRef, lineage: &Lineage) -> String {
    let suffix = format!("-r{}", lineage.depth);
    let name = format!("{}{suffix}", lineage.root);
    if name.len() <= MAX_BROADCAST_NAME {
        return name;
    }
    // Cut, and told apart by the source's UID.
    let tag: String = source.uid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    let room = MAX_BROADCAST_NAME - suffix.len() - tag.len() - 1;
    format!("{}-{tag}{suffix}", lineage.root[..room].trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            lineage(&source, 40),
            Lineage { root: "first".into(), depth: 2, total: 300, reached: 140 }
        );
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
            [
                ("34600111222", "", 1),
                ("34600111222", "Duplicate", 0),
                ("-1001234567890", "NotAPhoneNumber", 0)
            ]
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
}
