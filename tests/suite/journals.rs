//! Scattered receipts: they are stored together, in a journal, and are in their pages soon after, whatever happens in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use broadcast_operator::api::{
    BROADCAST_LABEL, BROADCAST_UID_LABEL, BroadcastBatch, BroadcastIdentity, BroadcastJournal,
    BroadcastJournalSpec,
};
use broadcast_operator::domain::ids::BroadcastUid;
use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::domain::token::MessageToken;
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::common::books;
use crate::common::notices::Notice;
use crate::common::operator::Operator;
use crate::common::providers::Provider::Native;
use crate::common::stage::{CHANNEL, Stage, broadcast, counts, restart};
use crate::common::wait::until;

/// Every receipt that comes alone for its page goes into a journal.
pub const ALWAYS: &[&str] = &["--receipt-page-writes-per-second", "0"];
/// Rows of a page.
pub const ROWS: usize = 250;

/// A stage on which a Broadcast was sent to pages full of chats.
pub async fn sent(pages: usize) -> Stage {
    sent_with(pages, ALWAYS).await
}

/// The same by an operator with these flags.
pub async fn sent_with(pages: usize, flags: &[&str]) -> Stage {
    let stage = Stage::with_flags(flags).await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({})));
    stage.apply(&broadcast("sale", pages * ROWS, json!({})));
    stage.complete("sale").await;
    stage
}

/// Posts what became of one message.
async fn post(stage: &Stage, at: (usize, usize), status: &str) -> StatusCode {
    post_all(stage, &[at], status).await
}

/// Posts what became of messages, in one request.
async fn post_all(stage: &Stage, all: &[(usize, usize)], status: &str) -> StatusCode {
    post_to(stage, &stage.operator, all, status).await
}

/// The same to this operator.
async fn post_to(stage: &Stage, operator: &Operator, all: &[(usize, usize)], status: &str) -> StatusCode {
    let uid = BroadcastUid::new(stage.broadcast("sale").await.uid().expect("uid"));
    let receipts = all.iter().map(|(page, row)| {
        let id = MessageToken { broadcast: uid.clone(), page: *page, row: *row };
        json!({"id": id.to_string(), "status": status})
    });
    let url = operator.receipts_url().replace("{namespace}", &stage.namespace);
    let notice = Notice {
        provider: Native,
        url: url.replace("{channel}", CHANNEL),
        headers: Vec::new(),
        body: receipts.collect::<Value>().to_string(),
    };
    notice.signed().post(&Client::new()).await
}

pub async fn stored(stage: &Stage, at: (usize, usize), status: &str) {
    assert_eq!(post(stage, at, status).await, StatusCode::NO_CONTENT, "{at:?} {status}");
}

/// One receipt for each page.
pub async fn one_for_each_page(stage: &Stage, pages: usize, row: usize, status: &str) {
    one_for_each_page_to(stage, &stage.operator, pages, row, status).await;
}

/// The same to this operator.
pub async fn one_for_each_page_to(
    stage: &Stage,
    operator: &Operator,
    pages: usize,
    row: usize,
    status: &str,
) {
    let all: Vec<_> = (0..pages).map(|page| (page, row)).collect();
    assert_eq!(post_to(stage, operator, &all, status).await, StatusCode::NO_CONTENT);
}

pub async fn journals(stage: &Stage) -> Vec<BroadcastJournal> {
    stage.api().list(&ListParams::default()).await.expect("should list journals").items
}

pub async fn no_journal_left(stage: &Stage) {
    until("all journals are taken in", async || match journals(stage).await.as_slice() {
        [] => Ok(()),
        some => Err(some.to_vec()),
    })
    .await;
}

/// Counts the writes of pages from here on.
pub async fn count_page_writes(stage: &Stage) -> Arc<AtomicUsize> {
    let api = stage.api::<BroadcastBatch>();
    let version = api.list_metadata(&ListParams::default()).await.expect("a list").metadata.resource_version;
    let writes = Arc::new(AtomicUsize::new(0));
    let params = WatchParams::default().timeout(290);
    let mut events = api.watch(&params, &version.expect("a version")).await.expect("a watch").boxed();
    let counting = writes.clone();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if matches!(event, Ok(WatchEvent::Modified(_))) {
                counting.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    writes
}

#[tokio::test(flavor = "multi_thread")]
async fn scattered_receipts_are_answered_from_journals_and_each_page_is_written_once_for_them() {
    const PAGES: usize = 4;
    const ROUNDS: usize = 10;
    let stage = sent(PAGES).await;
    let writes = count_page_writes(&stage).await;
    for row in 0..ROUNDS {
        one_for_each_page(&stage, PAGES, row, "read").await;
    }
    let waiting = journals(&stage).await;
    let receipts: i32 = waiting.iter().map(|journal| journal.spec.number).sum();
    assert_eq!(usize::try_from(receipts), Ok(PAGES * ROUNDS), "each is stored before it is answered");
    assert_eq!(writes.load(Ordering::Relaxed), 0, "no page is written for them");
    assert_eq!(waiting.len(), ROUNDS, "what comes together is stored together");
    let uid = stage.broadcast("sale").await.uid().expect("uid");
    for journal in &waiting {
        assert_eq!(journal.labels().get(BROADCAST_UID_LABEL), Some(&uid));
        assert_eq!(journal.owner_references()[0].uid, uid);
    }
    let is_read = |broadcast: &_| usize::try_from(counts(broadcast).read) == Ok(PAGES * ROUNDS);
    let done = stage.wait("sale", "all are read", is_read).await;
    no_journal_left(&stage).await;
    assert_eq!(writes.load(Ordering::Relaxed), PAGES);
    books::check_complete(&stage, &done, PAGES * ROWS).await;
    let metric = async |name| stage.operator.metric(name, "").await;
    assert_eq!(metric("broadcast_journal_receipts_total").await, 40);
    assert_eq!(metric("broadcast_journal_receipts_folded_total").await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_in_the_pages_although_its_process_was_killed_before_it_took_it_in() {
    let mut stage = sent(2).await;
    one_for_each_page(&stage, 2, 7, "delivered").await;
    one_for_each_page(&stage, 2, 8, "read").await;
    stage.operator.kill();
    assert!(!journals(&stage).await.is_empty());
    assert_eq!(counts(&stage.broadcast("sale").await).sent, 500, "no page has them yet");
    stage.operator.restart().await;
    let done = stage
        .wait("sale", "all receipts are counted", |broadcast| {
            counts(broadcast).delivered == 2 && counts(broadcast).read == 2
        })
        .await;
    no_journal_left(&stage).await;
    books::check_complete(&stage, &done, 500).await;
}

/// A journal as some process may have left it.
pub async fn leave_journal(stage: &Stage, name: &str, uid: &str, receipts: &str) {
    let broadcast = BroadcastIdentity { name: "sale".into(), uid: uid.into() };
    let receipts = format!("page,row,outcome,time\n{receipts}");
    let mut journal = BroadcastJournal::new(name, BroadcastJournalSpec { broadcast, number: 1, receipts });
    let labels = [(BROADCAST_LABEL, "sale"), (BROADCAST_UID_LABEL, uid)];
    journal.metadata.labels = Some(labels.map(|(label, value)| (label.into(), value.into())).into());
    stage.api().create(&PostParams::default(), &journal).await.expect("should create a journal");
}

#[tokio::test(flavor = "multi_thread")]
async fn journals_that_come_twice_late_reversed_or_of_a_deleted_broadcast_change_nothing_else() {
    let mut stage = sent(1).await;
    let uid = stage.broadcast("sale").await.uid().expect("uid");
    let (early, late) = ("0,3,Delivered,2026-11-23T10:00:00Z\n", "0,3,Read,2026-11-23T11:00:00Z\n");
    stage.operator.kill();
    // As far as it got before it died: the first one is in the page, and not deleted.
    leave_journal(&stage, "first", &uid, late).await;
    stage.operator.restart().await;
    stage.wait("sale", "one is read", |broadcast| counts(broadcast).read == 1).await;
    no_journal_left(&stage).await;
    let before = books::rows(&stage, "sale").await;
    assert_eq!(before[3].1.outcome, Outcome::Read);
    stage.operator.kill();
    leave_journal(&stage, "again", &uid, late).await;
    leave_journal(&stage, "earlier", &uid, early).await;
    leave_journal(&stage, "beyond", &uid, "0,999,Read,2026-11-23T11:00:00Z\n9,0,Read,2026-11-23T11:00:00Z\n")
        .await;
    leave_journal(
        &stage,
        "of-another",
        "0b3f9a3e-1c5e-4c8e-9d0a-7c3d2f1a9b10",
        "0,5,Read,2026-11-23T11:00:00Z\n",
    )
    .await;
    stage.kubectl(&["label", "bcj", "again", "looked-at=yes"]);
    stage.operator.restart().await;
    // A page that is not there may come back as long as its Broadcast is there.
    until("the others are taken in", async || match journals(&stage).await.as_slice() {
        [only] if only.name_any() == "beyond" => Ok(()),
        other => Err(other.iter().map(ResourceExt::name_any).collect::<Vec<_>>()),
    })
    .await;
    assert_eq!(books::rows(&stage, "sale").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_knows_what_stands_in_journals_alone() {
    let stage = sent(2).await;
    // In the journal, and then something worse in the page: it was delivered all the same.
    one_for_each_page(&stage, 2, 7, "read").await;
    one_for_each_page(&stage, 2, 7, "failed").await;
    stored(&stage, (1, 9), "failed").await;
    let failed = |broadcast: &_| counts(broadcast).failed == 3;
    stage.wait("sale", "the pages have the failures alone", failed).await;
    assert!(!journals(&stage).await.is_empty());
    stage.apply(&restart("again", "sale", json!({})));
    let done = stage.complete("again").await;
    assert_eq!(done.status.as_ref().and_then(|status| status.total), Some(1));
    stage
        .wait("sale", "the source counts them", |source| {
            counts(source).read == 2 && counts(source).failed == 1
        })
        .await;
    no_journal_left(&stage).await;
}

/// Makes the API server refuse journals of the namespace, or take them again.
async fn refuse_journals(stage: &Stage, is_refused: bool) {
    let name = format!("no-journals-{}", stage.namespace);
    let kind = |kind: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let policy = kind(
        "ValidatingAdmissionPolicy",
        json!({
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}},
                "resourceRules": [{
                    "apiGroups": ["broadcast-operator.dev"], "apiVersions": ["*"], "operations": ["CREATE"],
                    "resources": ["broadcastjournals"],
                }],
            },
            "validations": [{"expression": "false", "message": "no journals here"}],
        }),
    );
    let binding =
        kind("ValidatingAdmissionPolicyBinding", json!({"policyName": name, "validationActions": ["Deny"]}));
    let verb = if is_refused { "apply" } else { "delete" };
    for manifest in [binding, policy] {
        stage.plane.kubectl(&[verb, "-f", "-"], &manifest.to_string());
    }
    until("it has its effect", async || {
        let broadcast = BroadcastIdentity { name: "none".into(), uid: "none".into() };
        let spec = BroadcastJournalSpec { broadcast, number: 0, receipts: String::new() };
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let tried = stage.api().create(&dry, &BroadcastJournal::new("try", spec)).await;
        if tried.is_err() == is_refused { Ok(()) } else { Err(format!("{tried:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_whose_journal_is_refused_have_to_come_again_and_are_in_their_page_then() {
    let stage = sent(1).await;
    refuse_journals(&stage, true).await;
    assert_eq!(post(&stage, (0, 7), "read").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(books::rows(&stage, "sale").await[7].1.outcome, Outcome::Sent);
    // It is not refused again: for a while receipts go into pages alone.
    stored(&stage, (0, 7), "read").await;
    assert_eq!(books::rows(&stage, "sale").await[7].1.outcome, Outcome::Read);
    refuse_journals(&stage, false).await;
    until("journals are written again", async || {
        stored(&stage, (0, 8), "delivered").await;
        if journals(&stage).await.is_empty() { Err("none") } else { Ok(()) }
    })
    .await;
    stage.wait("sale", "all are counted", |it| counts(it).read == 1 && counts(it).delivered == 1).await;
}
