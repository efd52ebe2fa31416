//! No page outgrows its limit, whatever users and gateways write.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use proptest::prelude::*;

use super::*;
use crate::api::{
    BROADCAST_LABEL, BroadcastBatch, BroadcastBatchSpec, BroadcastIdentity, Chat, MAX_BROADCAST_NAME,
};
use crate::domain::any;
use crate::domain::audience::{Audience, MAX_ROWS};
use crate::domain::ids::{Incarnation, ObjectKey, page_name};
use crate::domain::outcome::{MAX_MESSAGE_ID, MAX_PARTICIPANTS, Outcome, Row};
use crate::domain::summary::{PageSummary, Place};

/// Largest page as JSON, as the scalability guidance for custom resources has it.
const LARGEST_PAGE: usize = 50 * 1024;

/// What field managers take, one for the creation and one for the status: the one part of a stored page that is not made
/// here. `tests/suite/sizes.rs` measures whole objects, as the API server gives them.
const FIELD_MANAGERS: usize = 1024;

/// Bytes of a page with the longest names, with all that is stored of it, as the API server writes it: more is escaped than
/// JSON asks for.
fn json_bytes(page: &Page) -> usize {
    let uid = "0b3f9a3e-1c5e-4c8e-9d0a-7c3d2f1a9b10".to_owned();
    let name = "b".repeat(MAX_BROADCAST_NAME);
    let owner = OwnerReference {
        api_version: "broadcast-operator.dev/v1alpha1".into(),
        kind: "Broadcast".into(),
        name: name.clone(),
        uid: uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let batch = BroadcastBatch {
        metadata: ObjectMeta {
            name: Some(page_name(&name, MAX_ROWS - 1)),
            namespace: Some("n".repeat(63)),
            uid: Some(uid.clone()),
            generation: Some(1),
            resource_version: Some(u64::MAX.to_string()),
            creation_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
            labels: Some(BTreeMap::from([(BROADCAST_LABEL.to_owned(), name.clone())])),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: BroadcastBatchSpec {
            broadcast: BroadcastIdentity { name, uid },
            index: i32::MAX,
            recipients: page.recipients_csv(),
        },
        status: Some(page.status()),
    };
    let json = serde_json::to_string(&batch).expect("JSON");
    let escaped =
        |c| if matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') { 6 } else { char::len_utf8(c) };
    json.chars().map(escaped).sum::<usize>() + FIELD_MANAGERS
}

fn now() -> Timestamp {
    "2026-11-23T10:00:00.123Z".parse().expect("time")
}

fn audience(chats: &[Chat]) -> Vec<Recipient> {
    let mut audience = Audience::default();
    audience.add_chats(chats).expect("readable");
    audience.finish().expect("somebody")
}

/// Claims a page and records the same of all its chats.
fn answered(page: Page, answer: &Row) -> Page {
    recorded(page, std::slice::from_ref(answer))
}

/// Claims a page and records these results, again and again.
fn recorded(mut page: Page, results: &[Row]) -> Page {
    let rows = 0..page.rows().len();
    // A page of skipped rows has nothing to claim.
    let _ = page.make_claim(&rows, false, &Incarnation::new("i".repeat(24)), u64::from(u32::MAX), now());
    for (row, result) in rows.zip(results.iter().cycle()) {
        page.merge(row, result);
    }
    page
}

fn refusal(id: &str, code: &str, detail: &str) -> Row {
    Row::known(Outcome::Failed, 20, now()).with_message_id(id).with_error(code, detail)
}

/// Stored and read again.
fn reread(page: &Page) -> Page {
    let identity = BroadcastIdentity { name: "sale".into(), uid: "1".into() };
    let spec = BroadcastBatchSpec { broadcast: identity, index: 0, recipients: page.recipients_csv() };
    let mut batch = BroadcastBatch::new("sale-00000", spec);
    batch.status = Some(page.status());
    Page::parse(&batch).expect("readable")
}

/// One character of each kind that takes more room than it seems to, or than its neighbours.
const WIDE: [&str; 17] = [
    "a", "\"", "'", ",", "ж", "\n", "\r", "\t", "<", "&", "\\", "\0", "\u{1f}", "\u{7f}", "\u{2028}", "😀",
    " ",
];

fn texts() -> impl Strategy<Value = String> {
    let length = prop::sample::select(vec![0_usize, 1, 7, 20, 64, 128, 200, 1024]);
    (prop::collection::vec(prop::sample::select(&WIDE[..]), 1..4), length)
        .prop_map(|(parts, length)| parts.concat().chars().cycle().take(length).collect())
}

/// What may be recorded of a chat. Nothing is tried a thousand times: `maxAttempts` ends at 20.
fn results() -> impl Strategy<Value = Vec<Row>> {
    let outcome = prop::sample::select(&any::OUTCOMES[..]);
    let said = (outcome, 0_u32..1000, texts(), texts(), texts());
    let result = (said, 0..=MAX_PARTICIPANTS).prop_map(|((outcome, tries, id, code, detail), people)| {
        let row = Row::known(outcome, tries, now()).with_message_id(&id).with_error(&code, &detail);
        with_participants(&row, people)
    });
    prop::collection::vec(result, 1..9)
}

fn chats() -> impl Strategy<Value = Vec<Chat>> {
    let param = (0..32_usize).prop_map(|param| format!("{}{param}", "p".repeat(62)));
    let chat = (texts(), prop::collection::btree_map(param, texts(), 0..32));
    (prop::collection::vec(chat, 1..20), 1..20_usize).prop_map(|(kinds, times)| {
        let kinds = kinds.iter().cycle().take(kinds.len() * times).enumerate();
        let chats = kinds.map(|(chat, (id, params))| (format!("{id}{chat:07}"), params.clone()));
        // One that is surely valid, because an audience without any is none.
        let valid = ("15550100".to_owned(), BTreeMap::new());
        chats.chain([valid]).map(|(id, params)| Chat { id, params }).collect()
    })
}

/// Checks a page as it is planned, and as it is after this was recorded. Out: the bytes of the bigger one.
fn check(page: &Page, results: &[Row]) -> usize {
    let recorded = recorded(page.clone(), results);
    // What is read back is written again as it is, or each look at a page would be a write.
    let stored = reread(&recorded);
    assert_eq!(stored.status(), recorded.status());
    let bytes = json_bytes(page).max(json_bytes(&recorded));
    assert!(bytes <= LARGEST_PAGE, "{bytes} bytes: {results:?}\n{}", page.recipients_csv());
    for (row, stored) in recorded.rows().iter().zip(stored.rows()) {
        assert_eq!((row.outcome, row.time, row.attempts), (stored.outcome, stored.time, stored.attempts));
        assert!(row.code.starts_with(&stored.code) && row.detail.starts_with(&stored.detail));
        assert!(stored.message_id == row.message_id || stored.message_id.is_empty());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_page_outgrows_its_limit_whatever_users_and_gateways_write(chats in chats(), results in results()) {
        for page in pages(audience(&chats)) {
            check(&page, &results);
        }
    }
}

/// The audience that takes the most room of each form, made of one character.
fn widest_audiences(wide: &str) -> Vec<Vec<Chat>> {
    let names = || (0..32).map(|name| format!("{}{name:02}", "p".repeat(62)));
    let value = |length: usize| wide.repeat(length);
    let some = |columns: usize, number: usize, id: &dyn Fn(usize) -> String, length: usize| -> Vec<Chat> {
        let params = || names().take(columns).map(|name| (name, value(length))).collect();
        (0..number).map(|chat| Chat { id: id(chat), params: params() }).collect()
    };
    let chats = |number, id: &dyn Fn(usize) -> String, length| some(32, number, id, length);
    let phone = |chat| format!("49{chat:018}");
    // Not a chat if the character cannot stand in one: then the row is skipped, which takes room too.
    let longest = |chat| format!("{}{chat:06}", value(122));
    vec![
        chats(260, &phone, 0),
        chats(260, &longest, 0),
        chats(260, &phone, 1),
        // Rows that are short, and yet too long for as many as a page may have: what each of them takes besides its texts
        // matters most.
        some(1, 500, &phone, 4),
        chats(40, &longest, 20),
        // As much as a recipient may have, or too much, which is a skipped row.
        chats(2, &longest, 1024),
        chats(2, &longest, 32 * 1024 / 32 / 2),
        chats(2, &longest, 32 * 1024 / 32 / 6),
        // The same ones again and again.
        chats(260, &|_| longest(0), 0),
    ]
}

/// The longest of everything that a gateway can say, made of one character.
fn longest_answer(wide: &str, outcome: Outcome) -> Row {
    let ids = (1..=128).map(|length| wide.repeat(length)).take_while(|id| bytes_of(id) <= MAX_MESSAGE_ID);
    Row::known(outcome, 999, now())
        .with_message_id(&ids.last().unwrap_or_default())
        .with_error(&format!("c{}c", wide.repeat(64)), &format!("d{}d", wide.repeat(160)))
}

/// The same with so many participants, if it is a delivery.
fn with_participants(row: &Row, number: usize) -> Row {
    let told = |person: usize| row.clone().with_participant("group", &person.to_string());
    (0..number).map(told).fold(row.clone(), |mut all, one| {
        all.merge(&one);
        all
    })
}

#[test]
fn the_worst_of_every_form_and_outcome_fits_into_its_pages() {
    let mut largest = 0;
    for wide in WIDE {
        let mixed = any::OUTCOMES.map(|outcome| longest_answer(wide, outcome));
        let mixed = mixed.map(|row| with_participants(&row, MAX_PARTICIPANTS));
        // A longer id is dropped where there is no room for it, and this one is always kept.
        let id = "m".repeat(96);
        let delivered = longest_answer("m", Outcome::Delivered).with_message_id(&id);
        let delivered = [with_participants(&delivered, MAX_PARTICIPANTS)];
        for mut chats in widest_audiences(wide) {
            // An audience without anybody to send to is none.
            chats.push(Chat { id: "15550100".into(), params: BTreeMap::new() });
            // A full page, and one that ends the audience.
            for page in pages(audience(&chats)).iter().rev().take(2) {
                largest = largest.max(check(page, &mixed)).max(check(page, &delivered));
            }
        }
    }
    // The limit is no accident: the worst comes close to it.
    assert!(largest > LARGEST_PAGE - 1024, "{largest} bytes");
}

fn guests(number: usize) -> Vec<Chat> {
    let chat = |guest| Chat {
        id: format!("4915550{guest:06}"),
        params: BTreeMap::from([("name".to_owned(), format!("Guest {guest}"))]),
    };
    (0..number).map(chat).collect()
}

#[test]
fn phone_numbers_with_a_short_name_fill_whole_pages_and_the_worst_answers_fit() {
    let pages = pages(audience(&guests(1000)));
    assert_eq!(pages.len(), 4);
    for page in pages {
        let page = answered(page, &refusal(&"m".repeat(128), &"c".repeat(64), &"ж".repeat(80)));
        assert!(json_bytes(&page) <= LARGEST_PAGE);
        assert!(page.status().outcomes.contains(",cccccccc,"), "a code is kept");
    }
}

#[test]
fn usual_answers_are_kept_whole_in_a_full_page() {
    let detail = "the recipient has no account on this network";
    let [page] = &pages(audience(&guests(250)))[..] else { panic!("one page") };
    let stored = reread(&answered(page.clone(), &refusal("", "131026", detail)));
    assert!(stored.rows().iter().all(|row| row.code == "131026" && row.detail == detail));
    let sent = Row::known(Outcome::Sent, 1, now()).with_message_id(&"m".repeat(100));
    let stored = reread(&answered(page.clone(), &sent));
    assert!(stored.rows().iter().all(|row| row.message_id.len() == 100));
}

#[test]
fn one_chat_with_all_that_is_allowed_fits_into_a_page() {
    let params = (0..32).map(|param| (format!("{}{param:02}", "p".repeat(62)), "x".repeat(1024))).collect();
    let [page] = &pages(audience(&[Chat { id: "\"".repeat(120) + "a", params }]))[..] else {
        panic!("one page")
    };
    let page = answered(page.clone(), &refusal(&"m".repeat(128), &"c".repeat(64), &"d".repeat(160)));
    assert!(json_bytes(&page) <= LARGEST_PAGE);
    assert_eq!(page.rows()[0].detail.len(), 160);
}

/// How many participants are counted of each chat of a full page of groups, with message ids of so many bytes.
fn participants_in_a_full_page(people: usize, id: usize) -> Vec<Option<i32>> {
    let chat =
        |group| Chat { id: format!("Y2FwaV9ncm91cDo{}{group:04}", "x".repeat(42)), params: BTreeMap::new() };
    let pages = pages(audience(&(0..200).map(chat).collect::<Vec<_>>()));
    assert!(pages.len() > 1, "the first one is full");
    let read = Row::known(Outcome::Delivered, 1, now()).with_message_id(&"m".repeat(id));
    let page = answered(pages[0].clone(), &with_participants(&read, people));
    assert!(json_bytes(&page) <= LARGEST_PAGE);
    let stored = reread(&page);
    assert_eq!(stored.status(), page.status());
    assert!(stored.rows().iter().all(|row| row.message_id.len() == id));
    let place =
        Place { key: ObjectKey::new("shop", "sale-00000"), index: 0, uid: "1".into(), resource_version: 1 };
    let shown = PageSummary::of(place, &stored).notable;
    shown.iter().map(|chat| chat.participants.map(|counts| counts.delivered)).collect()
}

#[test]
fn a_full_page_of_groups_has_room_for_all_participants_that_a_group_may_have() {
    let counted = |people, id| {
        let mut counted = participants_in_a_full_page(people, id);
        counted.dedup();
        counted
    };
    assert_eq!(counted(8, 62), [Some(8)]);
    assert_eq!(counted(8, 70), [Some(8)]);
    // An id goes before what is counted.
    assert_eq!(counted(8, 90), [Some(3)]);
    assert_eq!(counted(8, 96), [Some(1)]);
    assert_eq!(counted(MAX_PARTICIPANTS, 62), [Some(10)]);
}
