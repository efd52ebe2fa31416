//! No page outgrows its limit, whatever users and gateways write.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use proptest::prelude::*;

use super::*;
use crate::api::{BROADCAST_LABEL, BroadcastBatch, BroadcastBatchSpec, BroadcastIdentity, Chat};
use crate::domain::audience::Audience;
use crate::domain::ids::Incarnation;
use crate::domain::outcome::{Outcome, Row};

/// Largest page as JSON, as the scalability guidance for custom resources has it.
const LARGEST_PAGE: usize = 50 * 1024;

/// Bytes of a page with the longest names, as the API server writes it: `<`, `>` and `&` are escaped. Field managers take
/// about 1 KiB.
fn json_bytes(page: &Page) -> usize {
    let uid = "0b3f9a3e-1c5e-4c8e-9d0a-7c3d2f1a9b10".to_owned();
    let name = "b".repeat(57);
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
            name: Some(format!("{name}-99999")),
            namespace: Some("n".repeat(63)),
            uid: Some(uid.clone()),
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
    json.chars().map(|c| if matches!(c, '<' | '>' | '&') { 6 } else { c.len_utf8() }).sum::<usize>() + 1024
}

fn now() -> Timestamp {
    "2026-11-23T10:00:00.123Z".parse().expect("time")
}

fn audience(chats: &[Chat]) -> Vec<Recipient> {
    let mut audience = Audience::default();
    audience.add_chats(chats).expect("readable");
    audience.finish().expect("somebody")
}

/// Claims a page and lets the gateway say the same to all its chats.
fn answered(mut page: Page, answer: &Row) -> Page {
    let rows = 0..page.rows().len();
    // A page of skipped rows has nothing to claim.
    let _ = page.make_claim(&rows, false, &Incarnation::new("i".repeat(24)), u64::from(u32::MAX), now());
    for row in rows {
        page.merge(row, answer);
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

fn texts() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec!["a", "\"", ",", "ж", "\n", "<", "\\", "\u{1}", "😀", " "]);
    let length = prop::sample::select(vec![0_usize, 1, 7, 20, 128, 200, 1024]);
    (prop::collection::vec(parts, 1..4), length)
        .prop_map(|(parts, length)| parts.concat().chars().cycle().take(length).collect())
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_page_outgrows_its_limit_whatever_users_and_gateways_write(
        chats in chats(), id in texts(), code in texts(), detail in texts(),
    ) {
        for page in pages(audience(&chats)) {
            prop_assert!(json_bytes(&page) <= LARGEST_PAGE, "planned: {}", json_bytes(&page));
            let page = answered(page, &refusal(&id, &code, &detail));
            prop_assert!(json_bytes(&page) <= LARGEST_PAGE, "answered: {}", json_bytes(&page));
            // What is read back is written again as it is, or each look at a page would be a write.
            prop_assert_eq!(reread(&page).status().outcomes, page.status().outcomes);
        }
    }
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
