//! What can go wrong with a receipt, or with a journal.

use std::sync::Arc;

use crate::cluster::ApiError;
use crate::domain::ids::ObjectKey;
use crate::ledger::LedgerError;

/// Why receipts could not be stored, or journals not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Their page could not be written.
    #[error(transparent)]
    Page(#[from] LedgerError),
    /// The API server did not take a journal.
    #[error("failed to store a journal of Broadcast {broadcast}")]
    NotStored {
        /// The Broadcast.
        broadcast: ObjectKey,
        /// What it said last.
        #[source]
        source: Arc<ApiError>,
    },
    /// Whoever stored them died.
    #[error("the write of a journal of Broadcast {broadcast} was abandoned")]
    Abandoned {
        /// The Broadcast.
        broadcast: ObjectKey,
    },
    /// A journal says nothing that this version understands, so what it has of its Broadcast is not known.
    #[error("journal {journal} cannot be read")]
    Unreadable {
        /// The journal.
        journal: ObjectKey,
    },
    /// Journals could not be listed.
    #[error("failed to list journals")]
    NotListed(#[source] ApiError),
}
