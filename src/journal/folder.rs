//! The journals of this process: what is in them is in its memory too, and it takes it into the pages before anybody else does.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::fold::{Left, Pace};
use super::segments::Segment;
use super::{Journal, Owner, lock};
use crate::clock;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::journal::Receipts;

/// So many journals are taken in earlier: with 2 KB each they are little, but each of them has to be listed and deleted.
const MANY: usize = 1000;
/// With so many no more are written, and receipts go into pages alone: whoever cannot write pages must not fill etcd with journals.
const MOST: usize = 4000;
/// Between two looks whether there is something to do.
const LOOK: Duration = Duration::from_secs(1);

/// Journals of one Broadcast, and what they say together.
pub(super) struct Backlog {
    owner: Owner,
    segments: Vec<Segment>,
    receipts: Receipts,
    since: Instant,
}

/// Journals that are not taken in yet.
#[derive(Default)]
pub(super) struct Waiting {
    backlogs: HashMap<BroadcastUid, Backlog>,
    segments: usize,
    /// Names of those that are being taken in, and since when the oldest of them waits.
    in_hand: HashSet<ObjectKey>,
    in_hand_since: Option<Instant>,
}

impl Backlog {
    pub(super) fn new(owner: Owner, segments: Vec<Segment>, receipts: Receipts, since: Instant) -> Self {
        Self { owner, segments, receipts, since }
    }
}

impl Waiting {
    pub(super) fn add(&mut self, new: Backlog) {
        self.segments += new.segments.len();
        match self.backlogs.get_mut(&new.owner.uid) {
            Some(known) => {
                known.segments.extend(new.segments);
                known.receipts.extend(new.receipts);
                known.since = known.since.min(new.since);
            }
            None => drop(self.backlogs.insert(new.owner.uid.clone(), new)),
        }
    }

    /// Takes all of them in hand.
    fn take(&mut self) -> Vec<Backlog> {
        self.in_hand_since = self.oldest();
        self.segments = 0;
        let taken: Vec<Backlog> = std::mem::take(&mut self.backlogs).into_values().collect();
        let names = taken.iter().flat_map(|backlog| &backlog.segments).map(|segment| segment.key.clone());
        self.in_hand = names.collect();
        taken
    }

    /// What was in hand is done with, or was added again.
    fn let_go(&mut self) {
        self.in_hand.clear();
        self.in_hand_since = None;
    }

    pub(super) fn has_room(&self) -> bool {
        self.number() < MOST
    }

    /// Names of all of them.
    pub(super) fn names(&self) -> HashSet<ObjectKey> {
        let waiting = self.backlogs.values().flat_map(|backlog| &backlog.segments);
        waiting.map(|segment| segment.key.clone()).chain(self.in_hand.iter().cloned()).collect()
    }

    fn number(&self) -> usize {
        self.segments + self.in_hand.len()
    }

    fn oldest(&self) -> Option<Instant> {
        self.backlogs.values().map(|backlog| backlog.since).chain(self.in_hand_since).min()
    }

    fn is_due(&self, now: Instant, after: Duration) -> bool {
        self.segments >= MANY || self.oldest().is_some_and(|oldest| now >= oldest + after)
    }
}

impl Journal {
    /// Takes the journals of this process into their pages until `ended`, and then what is left of them.
    pub(super) async fn fold_own(&self, ended: &CancellationToken) {
        let after = self.settings.fold_after;
        let mut next_try = clock::monotonic();
        while !ended.is_cancelled() {
            tokio::select! {
                () = ended.cancelled() => {}
                () = clock::wait(LOOK) => {}
            }
            let now = clock::monotonic();
            self.show(now);
            if now >= next_try && lock(&self.waiting).is_due(now, after) {
                // What does not go now is not tried again at once.
                let is_done = self.fold_waiting(Some(&self.pace), ended).await;
                next_try = clock::monotonic() + if is_done { Duration::ZERO } else { after };
            }
        }
        self.fold_waiting(None, &CancellationToken::new()).await;
    }

    /// Takes everything into its pages that waits now. Out: whether nothing is left of it.
    async fn fold_waiting(&self, pace: Option<&Pace>, ended: &CancellationToken) -> bool {
        let taken = lock(&self.waiting).take();
        let mut is_done = true;
        for backlog in taken {
            let Backlog { owner, segments, receipts, since } = backlog;
            let left = tokio::select! {
                left = self.fold(&owner, &receipts, pace) => left,
                // To take it in again changes nothing.
                () = ended.cancelled() => Left { pages: receipts.pages(), error: None },
            };
            let segments = self.delete(segments, &left).await;
            if !segments.is_empty() {
                is_done = false;
                // All that they say, also what pages took: before a journal is deleted at last, they may have been put back.
                let pages = segments.iter().flat_map(Segment::pages).chain(left.pages).collect();
                let receipts = receipts.of_pages(&pages);
                lock(&self.waiting).add(Backlog { owner, segments, receipts, since });
            }
        }
        lock(&self.waiting).let_go();
        is_done
    }

    fn show(&self, now: Instant) {
        let waiting = lock(&self.waiting);
        let age = waiting.oldest().map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest));
        self.metrics.journals_wait(waiting.number(), age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BroadcastIdentity, BroadcastJournal, BroadcastJournalSpec};
    use crate::domain::outcome::{Outcome, Row};

    fn owner(name: &str) -> Owner {
        Owner { key: ObjectKey::new("shop", name), uid: BroadcastUid::new(name.to_owned()) }
    }

    fn backlog(name: &str, journal: usize, since: Instant) -> Backlog {
        let broadcast = BroadcastIdentity { name: name.into(), uid: name.into() };
        let spec = BroadcastJournalSpec { broadcast, number: 1, receipts: String::new() };
        let stored = BroadcastJournal::new(&format!("{name}-{journal}"), spec);
        let evidence = [(journal, Row::known(Outcome::Read, 1, clock::now()))];
        let receipts = Receipts::of(0, &evidence).expect("plain");
        Backlog::new(owner(name), vec![Segment::of(&stored, &receipts)], receipts, since)
    }

    #[test]
    fn what_is_in_hand_still_counts_and_what_is_left_of_it_waits_on() {
        let start = clock::monotonic();
        let mut waiting = Waiting::default();
        for journal in 0..3 {
            waiting.add(backlog("sale", journal, start + LOOK * u32::try_from(journal).expect("small")));
        }
        waiting.add(backlog("news", 0, start + LOOK));
        let after = 15 * LOOK;
        assert!(!waiting.is_due(start + after / 2, after) && waiting.is_due(start + after, after));
        let taken = waiting.take();
        let of_sale = taken.iter().find(|backlog| backlog.owner == owner("sale")).expect("taken");
        assert_eq!((of_sale.segments.len(), of_sale.receipts.len()), (3, 3));
        waiting.add(backlog("sale", 3, start + 5 * LOOK));
        assert_eq!((waiting.number(), waiting.names().len(), waiting.oldest()), (5, 5, Some(start)));
        taken.into_iter().filter(|backlog| backlog.owner == owner("news")).for_each(|left| waiting.add(left));
        waiting.let_go();
        assert_eq!((waiting.number(), waiting.oldest()), (2, Some(start + LOOK)));
    }

    #[test]
    fn with_too_many_journals_no_more_are_written() {
        let mut waiting = Waiting::default();
        for journal in 0..MOST {
            assert!(waiting.has_room());
            waiting.add(backlog("sale", journal, clock::monotonic()));
        }
        assert!(!waiting.has_room());
        waiting.take();
        assert!(!waiting.has_room(), "they are not deleted yet");
        waiting.let_go();
        assert!(waiting.has_room());
    }
}
