//! Journals that others left: a process that is gone, or one whose write was stored without its knowing. The leader takes them in.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use kube::ResourceExt;

use super::fold::{Read, read};
use super::segments::{Stored, key_of, owner_of};
use super::{Journal, lock};
use crate::clock;
use crate::cluster::{ApiError, chain};
use crate::lease::Leases;

/// A journal that was seen for so many times the span between two looks was left. Whoever lives takes its own in after a quarter of
/// that; should it be late, both take it in, which changes nothing.
const LOOKS: u32 = 2;
/// Journals that are read and taken in together: with 2 KB each they are little. A look goes on behind them, so that some that
/// cannot be taken in do not keep it from the others.
const AT_ONCE: usize = 1000;

/// What a leader knows of journals. How old one is nobody says but two clocks that may differ; for how long it was seen, its own
/// clock says.
#[derive(Debug, Default)]
struct Term {
    /// Since when they are seen, by UID, as of the last look and of this one.
    seen_before: HashMap<String, Instant>,
    seen: HashMap<String, Instant>,
    /// Whether all of them were looked at once.
    has_looked: bool,
}

impl Term {
    /// Takes in that a journal is there. Out: whether it was left. A term begins because another process went, most of the time: so
    /// then all are.
    fn is_left(&mut self, uid: String, now: Instant, after: Duration) -> bool {
        let since = self.seen_before.get(&uid).copied().unwrap_or(now);
        self.seen.insert(uid, since);
        !self.has_looked || now >= since + after
    }

    /// A look is over. Those that did not come in it are gone.
    fn looked(&mut self, is_whole: bool) {
        self.seen_before = std::mem::take(&mut self.seen);
        self.has_looked |= is_whole;
    }
}

impl Journal {
    /// Takes in what others left, while this process leads.
    pub(super) async fn sweep(&self, leases: &Leases) {
        let mut leadership = leases.leadership();
        // The sender lives as long as the leases of this process; an error means that it is ending.
        while leadership.wait_for(|leads| *leads).await.is_ok() {
            let mut term = Term::default();
            loop {
                let is_whole = self.sweep_all(&mut term).await;
                term.looked(is_whole);
                tokio::select! {
                    () = clock::wait(self.settings.sweep_every) => {}
                    _ = leadership.wait_for(|leads| !*leads) => break,
                }
            }
        }
        // Nobody is to take this for the end of everything else.
        std::future::pending::<()>().await;
    }

    async fn sweep_all(&self, term: &mut Term) -> bool {
        let namespaces = self.observed.namespaces();
        let scopes: Vec<Option<&str>> = match namespaces {
            [] => vec![None],
            some => some.iter().map(|name| Some(name.as_str())).collect(),
        };
        let mut is_whole = true;
        for scope in scopes {
            if let Err(error) = self.sweep_in(scope, term).await {
                tracing::warn!(error = %chain(&error), "journals that others left are not taken in yet");
                is_whole = false;
            }
        }
        is_whole
    }

    async fn sweep_in(&self, namespace: Option<&str>, term: &mut Term) -> Result<(), ApiError> {
        let mut from = None;
        loop {
            let (stored, next) = self.segments.some(namespace, from.as_deref(), AT_ONCE).await?;
            self.take_in_left(stored, term).await;
            from = next;
            if from.is_none() {
                return Ok(());
            }
        }
    }

    /// Takes in those that were left of these.
    async fn take_in_left(&self, stored: Vec<Stored>, term: &mut Term) {
        let (own, now) = (lock(&self.waiting).names(), clock::monotonic());
        let after = LOOKS * self.settings.sweep_every;
        let mut left: BTreeMap<_, Vec<Stored>> = BTreeMap::new();
        for journal in stored {
            let is_left = term.is_left(journal.uid().unwrap_or_default(), now, after);
            if is_left && !own.contains(&key_of(&journal)) {
                left.entry(owner_of(&journal)).or_default().push(journal);
            }
        }
        for (owner, journals) in left {
            let Read { segments, receipts, unreadable: _ } = read(&journals);
            let Some(owner) = owner.filter(|_| !segments.is_empty()) else { continue };
            tracing::info!(broadcast = %owner.key, journals = segments.len(), "takes in journals that another process left");
            let left = self.fold(&owner, &receipts, Some(&self.pace)).await;
            self.delete(segments, &left).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWEEP: Duration = Duration::from_secs(30);

    impl Term {
        fn sees(&mut self, journal: &str, at: Instant) -> bool {
            self.is_left(journal.to_owned(), at, LOOKS * SWEEP)
        }
    }

    #[test]
    fn a_journal_was_left_when_it_is_there_as_the_term_begins_or_was_seen_for_a_minute() {
        let (start, mut term) = (clock::monotonic(), Term::default());
        assert!(term.sees("old", start));
        term.looked(false);
        assert!(term.sees("old", start + SWEEP), "the first look came to nothing");
        term.looked(true);
        assert!(!term.sees("new", start + 2 * SWEEP));
        term.looked(true);
        assert!(!term.sees("new", start + 3 * SWEEP));
        term.looked(false);
        assert!(term.sees("new", start + 4 * SWEEP));
    }

    #[test]
    fn journals_that_are_gone_are_forgotten() {
        let mut term = Term::default();
        for look in 0..10 {
            for journal in 0..3 {
                term.sees(&format!("{look}-{journal}"), clock::monotonic());
            }
            term.looked(true);
        }
        assert_eq!((term.seen_before.len(), term.seen.len()), (3, 0));
    }
}
