//! The way out of journals: what several of them say of one page is stored by one write of it, and then they are deleted.

use std::collections::BTreeSet;
use std::time::Instant;

use futures::StreamExt;
use kube::ResourceExt;

use super::segments::{Segment, Stored, key_of};
use super::{Journal, JournalError, Owner};
use crate::api::{Broadcast, BroadcastJournal};
use crate::clock;
use crate::cluster::chain;
use crate::domain::ids::{BroadcastUid, ObjectKey, page_name};
use crate::domain::journal::Receipts;
use crate::domain::rate::RateLimit;
use crate::ledger::LedgerError;

/// Pages that are written for journals in a second: the 400 pages of 100,000 chats in eight seconds. It does not grow with the
/// number of pages; of more pages each is written less often, and for more receipts.
const PAGES_PER_SECOND: u32 = 50;
/// Pages that are written for journals at the same time, and journals that are deleted: half of the turns that a Broadcast has.
const AT_ONCE: usize = 6;

/// How fast pages are written for journals.
pub(super) struct Pace(tokio::sync::Mutex<RateLimit>);

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self(tokio::sync::Mutex::new(RateLimit::new(PAGES_PER_SECOND, None, now)))
    }

    /// Waits until the next page may be written.
    async fn next(&self) {
        let mut limit = self.0.lock().await;
        loop {
            let now = clock::monotonic();
            let wait = limit.wait(now);
            if wait.is_zero() {
                return limit.take(now);
            }
            clock::wait(wait).await;
        }
    }
}

/// What could not be taken into pages.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Numbers of the pages.
    pub(super) pages: BTreeSet<usize>,
    /// Why, where another try may succeed without anybody's help.
    pub(super) error: Option<LedgerError>,
}

impl Journal {
    /// Takes everything into pages that journals of this very Broadcast say, as they are stored now.
    ///
    /// # Errors
    /// When they or one of them cannot be read, or a page cannot be written now.
    pub async fn fold_all_of(&self, broadcast: &Broadcast) -> Result<(), JournalError> {
        let key = ObjectKey::new(broadcast.namespace().unwrap_or_default(), broadcast.name_any());
        let uid = BroadcastUid::new(broadcast.uid().unwrap_or_default());
        let owner = Owner { key, uid };
        let stored = self.segments.of(&owner).await.map_err(JournalError::NotListed)?;
        let Read { segments, receipts, unreadable } = read(&stored);
        let left = self.fold(&owner, &receipts, None).await;
        if let Some(error) = left.error {
            return Err(error.into());
        }
        self.delete(segments, &left).await;
        // It may say that somebody has the message who has not by the pages.
        unreadable.into_iter().next().map_or(Ok(()), |journal| Err(JournalError::Unreadable { journal }))
    }

    /// Takes receipts into their pages, at a pace or as fast as it goes.
    pub(super) async fn fold(&self, owner: &Owner, receipts: &Receipts, pace: Option<&Pace>) -> Left {
        let merges = receipts.by_page().into_iter().map(async |(index, evidence)| {
            if let Some(pace) = pace {
                pace.next().await;
            }
            let page = ObjectKey::new(&owner.key.namespace, page_name(&owner.key.name, index));
            let number = evidence.len();
            (index, number, self.ledger.merge_gathered(&page, &owner.uid, evidence).await)
        });
        let mut merges = futures::stream::iter(merges).buffer_unordered(AT_ONCE);
        let (mut left, mut gone) = (Left::default(), BTreeSet::new());
        while let Some((index, number, merged)) = merges.next().await {
            match merged {
                Ok(_) => self.metrics.folded(number),
                Err(LedgerError::Gone { .. } | LedgerError::Foreign { .. }) => drop(gone.insert(index)),
                Err(error) => {
                    tracing::warn!(broadcast = %owner.key, index, error = %chain(&error), "receipts wait on in their journal");
                    left.pages.insert(index);
                    left.error = Some(error);
                }
            }
        }
        if !gone.is_empty() && self.may_come_back(owner).await {
            left.pages.extend(gone);
        }
        left
    }

    /// Deletes journals that were taken in whole. Out: those that were not, and those that could not be deleted.
    pub(super) async fn delete(&self, segments: Vec<Segment>, left: &Left) -> Vec<Segment> {
        #[cfg(feature = "mutants")]
        let left = if crate::mutants::is_on(crate::mutants::Mutant::JournalDeletedEarly) {
            &Left::default()
        } else {
            left
        };
        let deletions = segments.into_iter().map(async |segment| {
            if segment.is_of(&left.pages) {
                return Some(segment);
            }
            let deleted = self.segments.delete(&segment).await;
            let error = deleted.err()?;
            tracing::warn!(journal = %segment.key, error = %chain(&error), "failed to delete a journal that was taken in");
            Some(segment)
        });
        futures::stream::iter(deletions)
            .buffer_unordered(AT_ONCE)
            .filter_map(async |left| left)
            .collect()
            .await
    }

    /// Whether pages that are gone may come back, from a backup or given up and made anew: as long as their Broadcast is there, or
    /// nobody knows whether it is.
    async fn may_come_back(&self, owner: &Owner) -> bool {
        match self.segments.has_broadcast(owner).await {
            Ok(is_there) => is_there,
            Err(error) => {
                tracing::warn!(broadcast = %owner.key, error = %chain(&error), "journals of pages that are gone are kept");
                true
            }
        }
    }
}

/// What stored journals of one Broadcast say together.
#[derive(Default)]
pub(super) struct Read {
    pub(super) segments: Vec<Segment>,
    pub(super) receipts: Receipts,
    /// Those that say nothing that can be understood. They are left where they are.
    pub(super) unreadable: Vec<ObjectKey>,
}

/// Reads stored journals of one Broadcast.
pub(super) fn read<'a>(journals: impl IntoIterator<Item = &'a Stored>) -> Read {
    let mut read = Read::default();
    for stored in journals {
        match parse(stored) {
            Ok((journal, receipts)) => {
                read.segments.push(Segment::of(journal, &receipts));
                read.receipts.extend(receipts);
            }
            Err(error) => {
                tracing::error!(journal = stored.name_any(), error, "a journal cannot be read, left alone");
                read.unreadable.push(key_of(stored));
            }
        }
    }
    read
}

fn parse(stored: &Stored) -> Result<(&BroadcastJournal, Receipts), String> {
    let journal = stored.0.as_ref().map_err(|invalid| invalid.error.clone())?;
    let receipts = Receipts::parse(&journal.spec.receipts).map_err(|error| error.to_string())?;
    Ok((journal, receipts))
}
