//! The pages of a Broadcast that goes on without what it has lost.
//!
//! In: the pages that its audience makes now, and those that are stored. Out: pages to go on with. Those that are stored stay as they
//! are, and chats of the others become Unknown.

use std::collections::{BTreeMap, HashSet};

use kube::ResourceExt;

use super::plan::stalled;
use crate::api::{Broadcast, BroadcastBatch};
use crate::clock;
use crate::domain::audience::pages;
use crate::domain::page::{Page, Recipient};
use crate::domain::suppression::unmarked;
use crate::domain::verdict::Stage;

/// The pages of a Broadcast that goes on without the status that it had: those that are stored stay as they are, and what may
/// have been sent from the others is Unknown.
pub(super) fn take_up(
    broadcast: &Broadcast,
    mut wanted: Vec<Page>,
    stored: &[BroadcastBatch],
) -> Result<Vec<Page>, Stage> {
    if let Some(other) = stored.iter().find(|batch| !put_in_place(&mut wanted, batch)) {
        // Nobody can give a restart back the audience that it had: receipts change its source.
        let around = broadcast.spec.restart_from.as_ref().and_then(|_| pages_around(stored, &wanted));
        wanted = around.ok_or_else(|| audience_changed(other))?;
    }
    Ok(give_up(wanted, |index| is_readable(stored, index)))
}

fn audience_changed(other: &BroadcastBatch) -> Stage {
    let message = format!(
        "batch {} has other recipients than the audience has now: give it back the audience that it was sent with, or \
         send to the rest with a Broadcast of another name",
        other.name_any()
    );
    stalled("AudienceChanged", &message)
}

/// The stored pages of a restart, and around them, in the gaps that lost ones have left, those chats of its source that it would get
/// now and that they do not have. Who was in a lost page and is not among these has another outcome in the source since. `None` when
/// the recipients of a stored page cannot be read.
fn pages_around(stored: &[BroadcastBatch], wanted: &[Page]) -> Option<Vec<Page>> {
    let mut kept = BTreeMap::new();
    for batch in stored {
        kept.insert(usize::try_from(batch.spec.index).ok()?, Page::planned_as(batch).ok()?);
    }
    let known: HashSet<&str> =
        kept.values().flat_map(Page::recipients).map(|recipient| recipient.chat.as_str()).collect();
    let is_missing = |recipient: &&Recipient| !known.contains(recipient.chat.as_str());
    let missing = wanted.iter().flat_map(Page::recipients).filter(is_missing).cloned().collect();
    let mut missing = pages(missing).into_iter();
    let end = kept.keys().next_back().map_or(0, |last| last + 1);
    let in_place = |index| kept.remove(&index).or_else(|| missing.next());
    let mut around: Vec<Page> =
        (0..end).map(in_place).map(|page| page.unwrap_or_else(|| Page::planned(Vec::new()))).collect();
    around.extend(missing);
    Some(around)
}

/// Puts a stored page in its place among those that are wanted, with the chats skipped that were suppressed when it was planned.
/// Returns false when it has other recipients; who has opted out since makes no other recipients.
pub(super) fn put_in_place(wanted: &mut [Page], batch: &BroadcastBatch) -> bool {
    let place = usize::try_from(batch.spec.index).ok().and_then(|index| wanted.get_mut(index));
    match (place, Page::planned_as(batch)) {
        (Some(place), Ok(page)) if unmarked(place) == unmarked(&page) => {
            *place = page;
            true
        }
        _ => false,
    }
}

/// Whether a page of this number is stored and can be read.
pub(super) fn is_readable(stored: &[BroadcastBatch], index: usize) -> bool {
    stored.iter().any(|batch| usize::try_from(batch.spec.index) == Ok(index) && Page::parse(batch).is_ok())
}

/// Pages whose log is lost: their chats become Unknown.
pub(super) fn give_up(mut wanted: Vec<Page>, is_kept: impl Fn(usize) -> bool) -> Vec<Page> {
    let now = clock::now();
    for (index, page) in wanted.iter_mut().enumerate() {
        if !is_kept(index) {
            page.give_up(now);
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BroadcastBatchSpec, BroadcastIdentity, BroadcastSpec, RestartFrom};
    use crate::domain::outcome::Outcome;

    fn page(chats: &[&str]) -> Page {
        let recipient = |chat: &&str| Recipient {
            chat: (*chat).to_owned(),
            skip: String::new(),
            params: BTreeMap::new(),
        };
        Page::planned(chats.iter().map(recipient).collect())
    }

    fn batch(index: i32, page: &Page) -> BroadcastBatch {
        let broadcast = BroadcastIdentity { name: "again".into(), uid: "1".into() };
        let spec = BroadcastBatchSpec { broadcast, index, recipients: page.recipients_csv() };
        let mut batch = BroadcastBatch::new(&format!("again-{index:05}"), spec);
        batch.status = Some(page.status());
        batch
    }

    fn again(is_restart: bool) -> Broadcast {
        let restart_from =
            is_restart.then(|| RestartFrom { name: "sale".into(), uid: None, include: Vec::new() });
        Broadcast::new("again", BroadcastSpec { restart_from, ..BroadcastSpec::default() })
    }

    fn rows(pages: &[Page]) -> Vec<Vec<(&str, Outcome)>> {
        fn of(page: &Page) -> Vec<(&str, Outcome)> {
            let outcomes = page.rows().iter().map(|row| row.outcome);
            page.recipients().iter().map(|recipient| recipient.chat.as_str()).zip(outcomes).collect()
        }
        pages.iter().map(of).collect()
    }

    #[test]
    fn the_pages_of_a_restart_stay_and_what_else_its_source_has_left_fills_the_gaps_as_unknown() {
        use Outcome::{Pending, Unknown};
        let stored = [batch(1, &page(&["c", "d"])), batch(3, &page(&["e"]))];
        // The source has reached d since, and a and b were in a page that is lost.
        let wanted = vec![page(&["a", "b"]), page(&["c", "e"])];
        let pages = take_up(&again(true), wanted.clone(), &stored).expect("a restart");
        assert_eq!(
            rows(&pages),
            [
                vec![("a", Unknown), ("b", Unknown)],
                vec![("c", Pending), ("d", Pending)],
                vec![],
                vec![("e", Pending)]
            ]
        );
        assert!(Page::parse(&batch(2, &pages[2])).is_ok(), "a page of nobody can be read");
        assert!(take_up(&again(false), wanted, &stored).is_err(), "another one has an audience of its own");
    }

    #[test]
    fn chats_of_a_last_page_that_is_lost_come_after_the_others() {
        let stored = [batch(0, &page(&["b", "c"]))];
        let pages = take_up(&again(true), vec![page(&["b", "d"])], &stored).expect("a restart");
        assert_eq!(
            rows(&pages),
            [vec![("b", Outcome::Pending), ("c", Outcome::Pending)], vec![("d", Outcome::Unknown)]]
        );
    }
}
