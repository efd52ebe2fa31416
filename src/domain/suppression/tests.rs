use std::collections::BTreeMap;

use super::*;
use crate::api::BroadcastChannelSpec;
use crate::domain::audience::{digest, pages};
use crate::domain::outcome::Outcome;
use crate::domain::page_csv::{bytes_of, outcome_room};

fn channel() -> ObjectKey {
    ObjectKey::new("shop", "sms")
}

fn suppression(chat: &str, reason: SuppressionReason, code: &str) -> BroadcastSuppression {
    suppression_of(&channel(), chat, reason, code, Timestamp::UNIX_EPOCH)
}

fn suppressed(chats: &[&str]) -> Suppressed {
    let objects: Vec<BroadcastSuppression> =
        chats.iter().map(|chat| suppression(chat, SuppressionReason::OptedOut, "131050")).collect();
    let mut suppressed = Suppressed::default();
    suppressed.add("sms", &objects);
    suppressed
}

fn recipient(chat: &str, skip: &str) -> Recipient {
    let params = BTreeMap::from([("name".to_owned(), "Ada".to_owned())]);
    Recipient { chat: chat.into(), skip: skip.into(), params }
}

#[test]
fn all_writings_of_a_number_have_one_name_and_other_chats_and_channels_another() {
    let name = name_of("sms", "15551230001");
    for chat in ["+1 (555) 123-0001", "001 555 1230001", " 15551230001 "] {
        assert_eq!(name_of("sms", chat), name, "{chat}");
    }
    assert_ne!(name_of("sms", "15551230002"), name);
    assert_ne!(name_of("sms-2", "15551230001"), name);
}

#[test]
fn names_are_what_the_api_server_takes() {
    let long = "a".repeat(MAX_CHANNEL - 2) + "-.-" + &"b".repeat(190);
    for (channel, chat) in [("sms", "120363@g.us"), (long.as_str(), "Ünïcode/chat"), ("a.b-c", "-100123")] {
        let name = name_of(channel, chat);
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        assert!(name.len() <= 253 && name.chars().all(is_plain), "{name}");
        let labels = || name.split('.');
        assert!(
            labels().all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')),
            "{name}"
        );
    }
}

#[test]
fn the_object_of_a_chat_has_its_one_form_and_no_owner() {
    let code = "x".repeat(70);
    let object = suppression("+1 555 123 0001", SuppressionReason::Blocked, &code);
    assert_eq!(object.metadata.name, Some(name_of("sms", "15551230001")));
    assert_eq!(object.metadata.namespace.as_deref(), Some("shop"));
    assert_eq!(object.metadata.owner_references, None);
    assert_eq!(
        object.spec,
        BroadcastSuppressionSpec {
            channel_ref: LocalRef { name: "sms".into() },
            chat: "15551230001".into(),
            reason: SuppressionReason::Blocked,
            code: Some("x".repeat(MAX_CODE)),
            time: Some(Time(Timestamp::UNIX_EPOCH)),
        }
    );
    assert_eq!(suppression("15551230001", SuppressionReason::OptedOut, "").spec.code, None);
}

#[test]
fn a_chat_is_found_in_every_writing_and_only_in_its_channel() {
    let mut suppressed = suppressed(&["+1 (555) 123-0001", "120363@g.us"]);
    for (chat, is_in) in [
        ("15551230001", true),
        ("00 1555 1230001", true),
        ("120363@g.us", true),
        ("15551230002", false),
        ("", false),
    ] {
        assert_eq!(suppressed.contains(chat), is_in, "{chat}");
    }
    let mut other = suppression("15551230002", SuppressionReason::Manual, "");
    other.spec.channel_ref.name = "sms-2".into();
    suppressed.add("sms", &[other]);
    assert!(!suppressed.contains("15551230002"));
}

#[test]
fn rows_are_skipped_with_the_reason_and_the_code_unless_they_are_already() {
    let objects = [
        suppression("1001", SuppressionReason::OptedOut, "131050"),
        suppression("1002", SuppressionReason::Blocked, ""),
        suppression("1003", SuppressionReason::Manual, "say \"no\", or (so): more than is shown"),
        suppression("1005", SuppressionReason::OptedOut, ""),
        suppression("+1001", SuppressionReason::Manual, ""),
    ];
    let mut suppressed = Suppressed::default();
    suppressed.add("sms", &objects);
    let duplicate = "Duplicate: the chat is in the audience already";
    let mut recipients = [("1001", ""), ("1002", ""), ("1003", ""), ("1004", ""), ("1005", duplicate)]
        .map(|(chat, skip)| recipient(chat, skip));
    suppressed.mark(&mut recipients);
    assert_eq!(
        recipients.map(|recipient| recipient.skip),
        [
            "Suppressed: OptedOut (131050)",
            "Suppressed: Blocked",
            "Suppressed: Manual (saynoorsomoretha)",
            "",
            duplicate
        ]
    );
}

#[test]
fn a_marked_row_is_skipped_with_the_code_suppressed() {
    let audience = vec![recipient("1001", ""), recipient("1002", "")];
    let [page] = &suppressed(&["1001"]).mark_pages(pages(audience))[..] else { panic!("one page") };
    let rows: Vec<_> =
        page.rows().iter().map(|row| (row.outcome, row.code.as_str(), row.detail.as_str())).collect();
    assert_eq!(rows, [(Outcome::Skipped, "Suppressed", "OptedOut (131050)"), (Outcome::Pending, "", "")]);
}

#[test]
fn an_audience_has_the_same_pages_and_the_same_digest_whoever_has_opted_out() {
    let chats: Vec<String> = (0..600).map(|chat| format!("1555{chat:07}")).collect();
    let mut audience: Vec<Recipient> = chats.iter().map(|chat| recipient(chat, "")).collect();
    audience.push(recipient("nobody", "InvalidChat: not a phone number or chat id"));
    let plain = pages(audience);
    let every_third: Vec<&str> = chats.iter().step_by(3).map(String::as_str).collect();
    let marked = suppressed(&every_third).mark_pages(plain.clone());
    let skipped: i32 = marked.iter().map(|page| page.counts().skipped).sum();
    assert_eq!((skipped, digest(&marked)), (201, digest(&plain)));
    for (marked, plain) in marked.iter().zip(&plain) {
        assert_eq!(unmarked(marked), plain.recipients());
        assert_ne!(marked.recipients(), plain.recipients());
    }
}

#[test]
fn a_suppressed_row_takes_no_more_room_than_one_that_is_sent() {
    let room = |recipient: &Recipient| bytes_of(&recipient.skip) + outcome_room(recipient);
    let sent = recipient("1001", "");
    for reason in [
        SuppressionReason::OptedOut,
        SuppressionReason::Blocked,
        SuppressionReason::ErrorPolicy,
        SuppressionReason::Manual,
    ] {
        let mut suppressed = Suppressed::default();
        suppressed.add("sms", &[suppression("1001", reason, &"\",<8".repeat(16))]);
        let mut marked = [sent.clone()];
        suppressed.mark(&mut marked);
        assert!(room(&marked[0]) <= room(&sent), "{:?}", marked[0]);
    }
}

#[test]
fn an_opt_out_counts_for_every_number_that_one_phone_has() {
    for (told, dialled) in [
        ("5215512345678", "525512345678"),
        ("551187654321", "5511987654321"),
        ("5491123456789", "541123456789"),
    ] {
        for (stored, asked) in [(told, dialled), (dialled, told)] {
            assert_eq!(name_of("sms", stored), name_of("sms", asked));
        }
    }
    assert_ne!(name_of("sms", "551132654321"), name_of("sms", "5511932654321"), "the first is a fixed line");
}

fn said_at(reason: SuppressionReason, second: i64) -> BroadcastSuppressionSpec {
    let time = Timestamp::from_second(second).expect("small");
    suppression_of(&channel(), "1001", reason, "stop", time).spec
}

#[test]
fn only_a_later_wish_of_the_chat_takes_its_suppression_back() {
    use SuppressionReason::{Blocked, ErrorPolicy, Manual, OptedOut};
    for (reason, stored, since, is_back) in [
        (OptedOut, 100, 101, true),
        (OptedOut, 100, 100, false),
        (OptedOut, 101, 100, false),
        (Blocked, 100, 200, true),
        (ErrorPolicy, 100, 200, false),
        (Manual, 100, 200, false),
    ] {
        let since = Timestamp::from_second(since).expect("small");
        assert_eq!(is_taken_back(&said_at(reason, stored), since), is_back, "{reason:?} {stored} {since}");
    }
}

#[test]
fn what_is_said_again_counts_if_it_is_later_or_the_first_wish_of_the_chat() {
    use SuppressionReason::{ErrorPolicy, Manual, OptedOut};
    for (stored, again, is_news) in [
        ((OptedOut, 100), (OptedOut, 101), true),
        ((OptedOut, 100), (OptedOut, 100), false),
        ((OptedOut, 101), (OptedOut, 100), false),
        ((OptedOut, 100), (ErrorPolicy, 101), false),
        ((ErrorPolicy, 100), (OptedOut, 99), true),
        ((ErrorPolicy, 100), (ErrorPolicy, 101), false),
        ((Manual, 100), (OptedOut, 101), false),
    ] {
        let again = said_at(again.0, again.1);
        let renewed = renewed(&said_at(stored.0, stored.1), &again);
        assert_eq!(renewed, is_news.then_some(again), "{stored:?}");
    }
}

/// The rules of a channel, and what people wrote down for it.
fn written(provider: ProviderName, region: Option<&str>, chats: &[&str]) -> (Suppressed, Vec<&'static str>) {
    let mut channel = BroadcastChannelSpec::of(provider);
    channel.default_region = region.map(str::to_owned);
    let objects: Vec<BroadcastSuppression> = chats
        .iter()
        .map(|chat| {
            let mut written = suppression("1", SuppressionReason::Manual, "");
            written.spec.chat = (*chat).to_owned();
            written
        })
        .collect();
    let mut suppressed = Suppressed::of(ChatRules::of(&channel));
    let unread = suppressed.add("sms", &objects).into_iter().map(|(_, problem)| problem.reason).collect();
    (suppressed, unread)
}

#[test]
fn a_chat_that_a_person_wrote_is_read_as_the_channel_reads_those_of_an_audience() {
    use ProviderName::{Http, Periskope, Telegram, Twilio, WhatsApp};
    let spain = "34612345678";
    for (provider, region, stored, chat) in [
        (WhatsApp, Some("ES"), "612 34 56 78", spain),
        (Twilio, Some("ES"), "612-345-678", spain),
        (WhatsApp, Some("ES"), "0034 612 345 678", spain),
        (WhatsApp, Some("ES"), "+34 612 345 678", spain),
        (WhatsApp, Some("ES"), "34612345678", spain),
        (WhatsApp, None, "+44 (0) 20 7946 0018", "442079460018"),
        (WhatsApp, Some("ES"), "15551230001", "15551230001"),
        (WhatsApp, Some("GB"), "020 7946 0018", "442079460018"),
        (Periskope, None, "34612345678@c.us", spain),
        (Periskope, None, "120363@g.us", "120363@g.us"),
        (Telegram, None, "@Ada_Lovelace", "@ada_lovelace"),
        (Telegram, None, "-100123", "-100123"),
        (Http, None, "001 555 1230001", "15551230001"),
    ] {
        let (suppressed, unread) = written(provider, region, &[stored]);
        assert!(suppressed.contains(chat), "{provider:?} {stored}");
        assert_eq!(unread, [""; 0], "{provider:?} {stored}");
    }
    let (suppressed, _) = written(WhatsApp, None, &["612 34 56 78"]);
    assert!(!suppressed.contains(spain), "nobody says that it is Spanish");
}

#[test]
fn digits_that_are_two_numbers_are_both() {
    let (suppressed, unread) = written(ProviderName::WhatsApp, Some("DE"), &["15112345678"]);
    assert_eq!(unread, [""; 0]);
    assert!(suppressed.contains("4915112345678") && suppressed.contains("15112345678"));
}

#[test]
fn what_is_no_chat_of_the_channel_is_told_and_still_counts_for_what_is_written_so() {
    for (provider, stored, reason) in [
        (ProviderName::WhatsApp, "12", "InvalidPhoneNumber"),
        (ProviderName::Twilio, "Ada", "NotAPhoneNumber"),
        (ProviderName::Twilio, "120363@g.us", "GroupNotSupported"),
        (ProviderName::Telegram, "+34 612 345 678", "InvalidChat"),
    ] {
        let (suppressed, unread) = written(provider, Some("ES"), &["34612345678", stored]);
        assert_eq!(unread, [reason], "{provider:?} {stored}");
        assert!(suppressed.contains(stored), "{provider:?} {stored}");
    }
}

#[test]
fn what_a_provider_told_of_is_one_number_and_what_a_person_wrote_may_be_two() {
    let mut channel = BroadcastChannelSpec::of(ProviderName::Twilio);
    channel.default_region = Some("DE".into());
    for (reason, of_a_stranger) in [
        (SuppressionReason::OptedOut, false),
        (SuppressionReason::Blocked, false),
        (SuppressionReason::ErrorPolicy, false),
        (SuppressionReason::Manual, true),
    ] {
        let mut suppressed = Suppressed::of(ChatRules::of(&channel));
        let unread = suppressed.add("sms", &[suppression("30123456", reason, "")]).len();
        assert_eq!(
            (suppressed.contains("4930123456"), suppressed.contains("30123456")),
            (of_a_stranger, true)
        );
        assert_eq!(unread == 0, of_a_stranger, "{reason:?}");
        let mut suppressed = Suppressed::of(ChatRules::of(&channel));
        assert!(suppressed.add("sms", &[suppression("34612345678", reason, "")]).is_empty());
        assert!(suppressed.contains("34612345678"));
        assert_eq!(suppressed.contains("4934612345678"), of_a_stranger, "{reason:?}");
    }
}
