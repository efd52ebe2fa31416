use super::*;
use crate::api::{BroadcastBatchSpec, BroadcastIdentity};
use crate::clock;
use crate::domain::hold::{Books, books};
use crate::domain::outcome::{Outcome, Row};
use crate::domain::page::Recipient;

const NAMESPACE: &str = "shop";

fn uid() -> BroadcastUid {
    BroadcastUid::new("uid".into())
}

/// A page of three chats in this version, with so many of them sent to.
fn batch(index: i32, version: u64, sent: usize) -> BroadcastBatch {
    let recipient = |chat: usize| Recipient {
        chat: format!("1555000000{chat}"),
        skip: String::new(),
        params: BTreeMap::new(),
    };
    let mut page = Page::planned((0..3).map(recipient).collect());
    for row in 0..sent {
        page.merge(row, &Row::known(Outcome::Sent, 1, clock::now()));
    }
    let spec = BroadcastBatchSpec {
        broadcast: BroadcastIdentity { name: "sale".into(), uid: "uid".into() },
        index,
        recipients: page.recipients_csv(),
    };
    let mut batch = BroadcastBatch::new(&format!("sale-{index:05}"), spec);
    batch.metadata.namespace = Some(NAMESPACE.into());
    batch.metadata.uid = Some(format!("page-{index}"));
    batch.metadata.resource_version = Some(version.to_string());
    batch.status = Some(page.status());
    batch
}

/// The same page with something else in the place of its outcomes.
fn spoiled(mut batch: BroadcastBatch, outcomes: &str) -> BroadcastBatch {
    outcomes.clone_into(&mut batch.status.get_or_insert_default().outcomes);
    batch
}

fn numbers(index: &PageIndex) -> Vec<usize> {
    index.of(NAMESPACE, &uid()).iter().map(|page| page.index).collect()
}

#[test]
fn a_page_that_cannot_be_read_any_more_is_missing_until_it_can_be() {
    for spoil in ["nonsense", ""] {
        let index = PageIndex::default();
        for page in 0..2 {
            index.note(&batch(page, 10, 2));
        }
        index.note(&spoiled(batch(1, 12, 2), spoil));
        assert_eq!((numbers(&index), index.seen(NAMESPACE, &uid()).pages), (vec![0], 1), "{spoil}");
        assert!(index.page(NAMESPACE, &uid(), 1).is_some(), "its receipts find it, and wait");
        assert!(index.were_used(NAMESPACE, &uid()));
        assert!(!index.is_latest(&batch(1, 11, 2)), "it is read again before it is written");
        assert!(index.has_from(NAMESPACE, &uid(), 1) && index.keys().len() == 2, "it is there all the same");
        // The answer to a write that was stored before comes late.
        index.note(&batch(1, 11, 3));
        assert_eq!(numbers(&index), [0]);
        index.note(&batch(1, 13, 3));
        assert_eq!(numbers(&index), [0, 1]);
        let seen = index.seen(NAMESPACE, &uid());
        assert_eq!((seen.pages, seen.standing.evidence, seen.behind), (2, 5, 0));
    }
}

#[test]
fn a_page_that_can_be_read_again_is_held_against_what_it_was_before() {
    let index = PageIndex::default();
    index.note(&batch(0, 10, 3));
    index.note(&spoiled(batch(0, 11, 3), "nonsense"));
    index.note(&spoiled(batch(0, 12, 3), "more of it"));
    let older = batch(0, 13, 1);
    let page = Page::parse(&older).expect("a page");
    assert!(
        index.is_behind(&older, &page),
        "a claim on it is refused, whether the watch has brought it or not"
    );
    index.note(&older);
    assert_eq!(index.seen(NAMESPACE, &uid()).behind, 2);

    // What was accepted meanwhile is no reason any more.
    let index = PageIndex::default();
    index.note(&batch(0, 10, 3));
    index.note(&spoiled(batch(0, 11, 3), "nonsense"));
    let mut broadcast = Broadcast::new("sale", crate::api::BroadcastSpec::default());
    broadcast.metadata.namespace = Some(NAMESPACE.into());
    broadcast.metadata.uid = Some("uid".into());
    broadcast.status =
        Some(crate::api::BroadcastStatus { accepted_token: Some("1".into()), ..Default::default() });
    index.accept(&broadcast);
    index.note(&batch(0, 12, 1));
    assert_eq!(index.seen(NAMESPACE, &uid()).behind, 0);
}

#[test]
fn a_page_that_does_not_fit_its_schema_is_missing_and_one_that_is_deleted_then_is_gone() {
    let index = PageIndex::default();
    index.show(&batch(0, 10, 1));
    let mut known = batch(0, 11, 0);
    known.status = None;
    index.lose(&known);
    assert_eq!((numbers(&index), index.keys().len()), (Vec::new(), 1));
    let status = crate::api::BroadcastStatus {
        batches: Some(crate::api::BatchProgress { total: 1, done: 0 }),
        counts: Some(crate::api::Counts { pending: 2, sent: 1, ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(books(&status, &index.seen(NAMESPACE, &uid())), Books::Missing, "nothing of it is sent");
    // The same version comes by a list that can read it.
    index.show(&batch(0, 11, 1));
    assert_eq!(books(&status, &index.seen(NAMESPACE, &uid())), Books::Agree);
    index.lose(&{ BroadcastBatch { metadata: batch(0, 12, 1).metadata, ..known } });
    index.forget_gone(&ObjectKey::new(NAMESPACE, "sale-00000"));
    assert!(index.keys().is_empty());
}
