//! The laws of a page: evidence means the same whatever else happens to the page, nothing goes back, counts are counted,
//! and what is stored is read again.

use proptest::prelude::*;

use super::*;
use crate::api::{BroadcastBatchSpec, BroadcastIdentity};
use crate::domain::any;

/// What can be done to a page.
#[derive(Clone, Debug)]
enum Step {
    Claim { window: Range<usize>, resend: bool, incarnation: u8, attempt: u64 },
    Release,
    Orphan,
    Seal,
    Merge(usize, Row),
    Reread,
}

impl Step {
    fn take(&self, page: &mut Page) {
        match self {
            Self::Claim { window, resend, incarnation, attempt } => {
                let incarnation = Incarnation::new(format!("incarnation-{incarnation}"));
                let before = page.clone();
                if page.make_claim(window, *resend, &incarnation, *attempt, now()).is_err() {
                    assert_eq!(*page, before, "a claim that is refused changes nothing");
                }
            }
            Self::Release => page.release_claim(),
            Self::Orphan => page.orphan_claim(now()),
            Self::Seal => {
                let before = page.clone();
                if page.seal(now()).is_err() {
                    assert_eq!(*page, before, "a seal that is refused changes nothing");
                }
            }
            Self::Merge(row, evidence) => {
                let before = page.clone();
                assert_eq!(
                    page.merge(*row, evidence),
                    *page != before,
                    "merging says whether it changed anything"
                );
            }
            Self::Reread => *page = reread(page),
        }
    }
}

/// Rows of the pages of these tests, at most.
const ROWS: usize = 8;
/// Pieces of evidence, at most.
const PIECES: usize = 24;

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

/// Stored as JSON and read again.
fn reread(page: &Page) -> Page {
    let broadcast = BroadcastIdentity { name: "sale".into(), uid: "1".into() };
    let spec = BroadcastBatchSpec { broadcast, index: 0, recipients: page.recipients_csv() };
    let mut batch = BroadcastBatch::new("sale-00000", spec);
    batch.status = Some(page.status());
    let stored = serde_json::to_string(&batch).expect("JSON");
    Page::parse(&serde_json::from_str(&stored).expect("the same kind")).expect("readable")
}

fn recipients() -> impl Strategy<Value = Vec<Recipient>> {
    let skip = prop_oneof![4 => Just(String::new()), 1 => any::text()];
    let value = any::text().prop_filter("an empty parameter is an absent one", |value| !value.is_empty());
    let params = prop::collection::btree_map("[a-z_]{1,3}", value, 0..3);
    let recipient = (any::text(), skip, params);
    prop::collection::vec(
        recipient.prop_map(|(chat, skip, params)| Recipient { chat, skip, params }),
        1..ROWS,
    )
}

/// Pieces of evidence, often several on one row. Some name a row that is not there.
fn evidence() -> impl Strategy<Value = Vec<(usize, Row)>> {
    let rows = prop::collection::vec(0..ROWS, PIECES);
    (rows, any::rows(PIECES), 0..PIECES)
        .prop_map(|(rows, evidence, number)| rows.into_iter().zip(evidence).take(number).collect())
}

fn step() -> impl Strategy<Value = Step> {
    let claim = (0..ROWS, 0..=ROWS, any::<bool>(), 0_u8..3, 0_u64..4).prop_map(
        |(start, length, resend, incarnation, attempt)| Step::Claim {
            window: start..start + length,
            resend,
            incarnation,
            attempt,
        },
    );
    prop_oneof![
        4 => claim,
        2 => Just(Step::Release),
        2 => Just(Step::Orphan),
        1 => Just(Step::Seal),
        8 => (0..ROWS, any::said_rows(1)).prop_map(|(row, evidence)| Step::Merge(row, evidence[0].clone())),
        1 => Just(Step::Reread),
    ]
}

/// A page after some history.
fn page() -> impl Strategy<Value = Page> {
    (recipients(), prop::collection::vec(step(), 0..12)).prop_map(|(recipients, steps)| {
        let mut page = Page::planned(recipients);
        for step in &steps {
            step.take(&mut page);
        }
        page
    })
}

fn merged(mut page: Page, evidence: &[(usize, Row)]) -> Page {
    for (row, evidence) in evidence {
        page.merge(*row, evidence);
    }
    page
}

/// A page after one more thing that is no evidence.
fn after(mut page: Page, step: &Step) -> Page {
    step.take(&mut page);
    page
}

/// What a page says of its chats, tries aside.
fn said(page: &Page) -> Vec<Row> {
    page.rows.iter().map(|row| Row { attempts: 0, ..row.clone() }).collect()
}

/// Whether `row` knows all that `before` knew.
fn knows_all(row: &Row, before: &Row) -> bool {
    let mut joined = before.clone();
    joined.merge(row);
    joined == *row
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn evidence_in_any_order_and_any_number_of_times_gives_the_same_page(
        page in page(),
        (once, often) in evidence().prop_flat_map(|once| {
            let twice = [&once[..], &once[..once.len() / 2]].concat();
            (Just(once), Just(twice).prop_shuffle())
        }),
    ) {
        let expected = merged(page.clone(), &once);
        prop_assert_eq!(&merged(page, &often), &expected);
        prop_assert_eq!(&merged(expected.clone(), &often), &expected, "all of it once more");
    }

    #[test]
    fn evidence_says_the_same_before_and_after_a_claim_its_end_and_a_seal(
        page in page(),
        pieces in evidence(),
        claim in (0..ROWS, any::<bool>()),
    ) {
        let pieces: Vec<_> = pieces.into_iter().filter(|(_, row)| row.has_evidence()).collect();
        let (start, resend) = claim;
        let claim = Step::Claim { window: start..ROWS, resend, incarnation: 9, attempt: 9 };
        let mut at = page;
        for step in [claim, Step::Orphan, Step::Seal, Step::Release] {
            let (before, later) = (after(merged(at.clone(), &pieces), &step), merged(after(at.clone(), &step), &pieces));
            prop_assert_eq!(said(&before), said(&later), "{:?}", step);
            at = after(at, &step);
        }
    }

    #[test]
    fn nothing_goes_back_and_counts_are_counted_whatever_happens(
        recipients in recipients(),
        steps in prop::collection::vec(step(), 0..32),
    ) {
        let mut page = Page::planned(recipients);
        for step in steps {
            let before = page.clone();
            step.take(&mut page);
            prop_assert_eq!(&page.recipients, &before.recipients);
            for (row, earlier) in page.rows.iter().zip(&before.rows) {
                prop_assert!(knows_all(row, earlier), "{:?} made {:?} of {:?}", step, row, earlier);
                prop_assert_eq!(row.outcome == Outcome::Skipped, earlier.outcome == Outcome::Skipped);
                prop_assert!(row.has_evidence() || !earlier.has_evidence());
            }
            prop_assert!(page.sealed || !before.sealed, "a seal is for ever");
            prop_assert!(page.claim.is_none() || !page.sealed, "a sealed page is never claimed");
            let starts = page.claim != before.claim && page.claim.is_some();
            prop_assert!(!starts || (before.claim.is_none() && !page.claimed_rows().is_empty()));
            prop_assert!(!page.sealed || page.rows.iter().all(|row| row.outcome != Outcome::Pending));

            check_counts(&page)?;
            let stored = reread(&page);
            prop_assert_eq!(&stored, &page);
            check_counts(&stored)?;
            prop_assert_eq!(stored.status(), page.status(), "what is read is written again as it is");
        }
    }

    #[test]
    fn an_orphaned_claim_leaves_its_rows_unknown_and_all_others_alone(page in page()) {
        let locked = page.claimed_rows();
        let orphaned = after(page.clone(), &Step::Orphan);
        for (row, (now, before)) in orphaned.rows.iter().zip(&page.rows).enumerate() {
            if locked.contains(&row) {
                prop_assert_eq!(now.outcome, Outcome::Unknown);
            } else {
                prop_assert_eq!(now, before);
            }
        }
    }
}

/// Counts are those of the rows, and each row is in one of them.
fn check_counts(page: &Page) -> Result<(), TestCaseError> {
    let counts = page.counts();
    let of = |outcome| i32::try_from(page.rows.iter().filter(|row| row.outcome == outcome).count());
    let each = [
        (Outcome::Pending, counts.pending),
        (Outcome::Skipped, counts.skipped),
        (Outcome::Cancelled, counts.cancelled),
        (Outcome::Unknown, counts.unknown),
        (Outcome::Sent, counts.sent),
        (Outcome::Failed, counts.failed),
        (Outcome::Delivered, counts.delivered),
        (Outcome::Read, counts.read),
    ];
    for (outcome, count) in each {
        prop_assert_eq!(Ok(count), of(outcome), "{:?}", outcome);
    }
    let sum: i32 = each.iter().map(|(_, count)| count).sum();
    prop_assert_eq!(usize::try_from(sum), Ok(page.rows.len()));
    Ok(())
}

#[test]
fn a_refusal_that_comes_late_says_nothing_of_a_chat_that_was_tried_again() {
    let recipient =
        |chat: &str| Recipient { chat: chat.into(), skip: String::new(), params: BTreeMap::new() };
    let (first, second) = (Incarnation::new("first".into()), Incarnation::new("second".into()));
    let known = |outcome, attempts| Row::known(outcome, attempts, now());
    let mut page = Page::planned(vec![recipient("1"), recipient("2"), recipient("3")]);
    page.make_claim(&(0..3), false, &first, 0, now()).expect("free");
    page.orphan_claim(now());
    page.make_claim(&(0..2), true, &second, 0, now()).expect("free");
    // The chats of the other claim are being sent to again.
    assert!(!page.merge_late(0, &known(Outcome::Failed, 1)));
    assert!(page.merge_late(1, &known(Outcome::Sent, 1)), "what was accepted is true for ever");
    assert!(page.merge_late(2, &known(Outcome::Failed, 1)), "nobody else has sent to it");
    page.merge(0, &known(Outcome::Unknown, 2));
    page.release_claim();
    assert!(!page.merge_late(0, &known(Outcome::Failed, 1)), "the second try may have reached it");
    let outcomes: Vec<Outcome> = page.rows().iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::Sent, Outcome::Failed]);
}

#[path = "page_receipts_tests.rs"]
mod receipts;
