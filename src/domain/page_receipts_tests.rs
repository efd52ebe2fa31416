//! Receipts of chats that have several messages, or are still being sent to.

use super::*;

/// A page of two chats whose answers were lost, which are being sent to again.
fn sent_again() -> Page {
    let recipient =
        |chat: &str| Recipient { chat: chat.into(), skip: String::new(), params: BTreeMap::new() };
    let mut page = Page::planned(vec![recipient("1"), recipient("2")]);
    page.make_claim(&(0..2), false, &Incarnation::new("first".into()), 0, now()).expect("free");
    page.orphan_claim(now());
    page.make_claim(&(0..2), true, &Incarnation::new("second".into()), 0, now()).expect("free");
    page
}

#[test]
fn a_failure_of_the_first_message_waits_for_the_answer_to_the_second() {
    let row = |outcome, id: &str| Row::known(outcome, 1, now()).with_message_id(id);
    let failed = row(Outcome::Failed, "1").with_error("131026", "no");
    let mut page = sent_again();
    assert!(page.merge_receipt(0, &failed) && page.merge_receipt(1, &failed));
    assert!(!page.merge_receipt(0, &failed), "it is noted once");
    assert_eq!(page.counts().unknown, 2);
    // The one is answered, the other is not.
    page.merge(0, &row(Outcome::Sent, "2"));
    page.orphan_claim(now());
    page = reread(&page);
    assert_eq!((page.rows()[0].outcome, page.rows()[1].outcome), (Outcome::Sent, Outcome::Unknown));
    // Nobody knows what became of a second message, until it says so itself.
    page.merge_receipt(1, &failed);
    assert_eq!(page.rows()[1].outcome, Outcome::Unknown);
    page.merge_receipt(1, &row(Outcome::Sent, "2"));
    assert_eq!(page.rows()[1].outcome, Outcome::Sent);
    for chat in 0..2 {
        page.merge_receipt(chat, &row(Outcome::Failed, "2"));
    }
    assert_eq!(page.counts().failed, 2, "both messages of both failed");
}

#[test]
fn a_failure_of_the_only_message_or_of_an_unnamed_one_counts_at_once() {
    let recipient = Recipient { chat: "1".into(), skip: String::new(), params: BTreeMap::new() };
    let mut page = Page::planned(vec![recipient]);
    page.make_claim(&(0..1), false, &Incarnation::new("first".into()), 0, now()).expect("free");
    page.orphan_claim(now());
    page.merge_receipt(0, &Row::known(Outcome::Failed, 1, now()).with_message_id("1"));
    assert_eq!(page.rows()[0].outcome, Outcome::Failed);
    let mut page = sent_again();
    page.merge_receipt(0, &Row::known(Outcome::Failed, 1, now()));
    assert_eq!(page.rows()[0].outcome, Outcome::Failed);
}

#[test]
fn a_chat_is_failed_when_each_of_its_tries_is_known_to_have_failed_in_any_order() {
    for ids in [["1", "2"], ["2", "1"]] {
        let mut page = sent_again();
        page.release_claim();
        page.merge(0, &Row::known(Outcome::Unknown, 2, now()));
        let failed = |id: &str| Row::known(Outcome::Failed, 1, now()).with_message_id(id);
        page.merge_receipt(0, &failed(ids[0]));
        assert!(!page.merge_receipt(0, &failed(ids[0])), "it is noted once");
        assert_eq!(page.rows()[0].outcome, Outcome::Unknown, "the other one may have arrived");
        page.merge_receipt(0, &failed(ids[1]));
        assert_eq!(page.rows()[0].outcome, Outcome::Failed);
        page.merge_receipt(0, &Row::known(Outcome::Delivered, 1, now()).with_message_id("1"));
        assert_eq!(page.rows()[0].outcome, Outcome::Delivered);
    }
}

/// A page of one chat with a claim on it.
fn being_sent() -> Page {
    let recipient = Recipient { chat: "1".into(), skip: String::new(), params: BTreeMap::new() };
    let mut page = Page::planned(vec![recipient]);
    claim_again(&mut page);
    page
}

fn claim_again(page: &mut Page) {
    page.make_claim(&(0..1), false, &Incarnation::new("first".into()), 0, now()).expect("free");
}

#[test]
fn a_failure_that_an_answer_told_already_does_not_end_a_chat_that_is_tried_again() {
    let failed =
        |id: &str| Row::known(Outcome::Failed, 1, now()).with_message_id(id).with_error("131056", "no");
    let outcome = |page: &Page| page.rows()[0].outcome;
    for tries in 0..2 {
        let mut page = being_sent();
        if tries > 0 {
            page.merge(0, &Row::known(Outcome::Pending, 1, now()).with_error("131056", "too many"));
        }
        page.release_claim();
        page.merge_receipt(0, &failed("1"));
        assert!(!page.merge_receipt(0, &failed("")), "one that names no message is no news");
        page = reread(&page);
        assert_eq!((outcome(&page), page.rows()[0].attempts), (Outcome::Pending, tries));
        claim_again(&mut page);
        page.merge(0, &Row::known(Outcome::Sent, tries + 1, now()).with_message_id("2"));
        page.release_claim();
        assert_eq!(outcome(&page), Outcome::Sent, "the second was taken");
        page.merge_receipt(0, &failed("2"));
        assert_eq!(outcome(&page), Outcome::Failed);
    }
}

#[test]
fn a_failure_that_comes_before_the_answer_counts_with_it_and_only_for_its_message() {
    let failed =
        |id: &str| Row::known(Outcome::Failed, 1, now()).with_message_id(id).with_error("30007", "filtered");
    let outcome = |page: &Page| page.rows()[0].outcome;
    let taken = |page: &mut Page| {
        page.merge(0, &Row::known(Outcome::Sent, 1, now()).with_message_id("1"));
    };
    let without = |page: &mut Page| {
        page.merge(0, &Row::known(Outcome::Unknown, 1, now()));
    };
    let lost = |page: &mut Page| page.orphan_claim(now());
    let answers: [&dyn Fn(&mut Page); 3] = [&taken, &without, &lost];
    for (number, answer) in answers.into_iter().enumerate() {
        let mut page = being_sent();
        page.merge_receipt(0, &failed("1"));
        assert_eq!(outcome(&page), Outcome::Pending, "it is being sent");
        page = reread(&page);
        answer(&mut page);
        page.release_claim();
        let page = reread(&page);
        let row = &page.rows()[0];
        assert_eq!(
            (row.outcome, row.code.as_str(), row.time),
            (Outcome::Failed, "30007", Some(now())),
            "{number}"
        );
    }
    // The second try is without an answer, and may have arrived.
    for lose in [
        |page: &mut Page| {
            page.merge(0, &Row::known(Outcome::Unknown, 2, now()));
        },
        |page: &mut Page| page.orphan_claim(now()),
    ] {
        let mut page = being_sent();
        page.merge(0, &Row::known(Outcome::Pending, 1, now()));
        page.merge_receipt(0, &failed("1"));
        lose(&mut page);
        page.release_claim();
        assert_eq!(outcome(&page), Outcome::Unknown);
        page.merge_receipt(0, &failed("2"));
        assert_eq!(outcome(&page), Outcome::Failed);
    }
}

#[test]
fn failures_of_more_messages_than_tries_do_not_fill_a_page() {
    let mut page = being_sent();
    for id in 0..100 {
        page.merge_receipt(0, &Row::known(Outcome::Failed, 1, now()).with_message_id(&id.to_string()));
    }
    assert_eq!(page.rows()[0].all_fates().failures(), 1);
}
