//! Pages that are not stored, for whoever tells people of it: a sender tries on for ever, and nothing else would show why.

use tokio::sync::broadcast;

use super::{Ledger, LedgerError};
use crate::cluster::chain;
use crate::domain::ids::{BroadcastUid, ObjectKey};

/// Refusals that wait to be told. More of them say nothing new.
pub(super) const REMEMBERED: usize = 64;

/// A write of a page that the API server refused, or did not take for all of its tries.
#[derive(Clone, Debug)]
pub struct NotStored {
    /// The page.
    pub page: ObjectKey,
    /// The Broadcast of the page.
    pub broadcast: BroadcastUid,
    /// Whether the API server has said anything. When it is away, there is nothing to tell of one Broadcast.
    pub was_answered: bool,
    /// One word for metrics.
    pub category: &'static str,
    /// What the API server said.
    pub error: String,
}

impl Ledger {
    /// Writes that are not stored, from now on.
    #[must_use]
    pub fn refusals(&self) -> broadcast::Receiver<NotStored> {
        self.refused.subscribe()
    }

    /// A write was given up, or will be tried again later with little hope.
    pub(super) fn tell_of(&self, error: &LedgerError, broadcast: &BroadcastUid) {
        if let LedgerError::Api { page, source } = error {
            let not_stored = NotStored {
                page: page.clone(),
                broadcast: broadcast.clone(),
                was_answered: source.status().is_some(),
                category: source.category(),
                error: chain(source),
            };
            // Nobody may listen, as in a test.
            let _ = self.refused.send(not_stored);
        }
    }
}
