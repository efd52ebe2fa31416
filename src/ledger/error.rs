//! What can go wrong with a page.

use crate::cluster::ApiError;
use crate::domain::ids::ObjectKey;
use crate::domain::page::{ClaimRefused, PageError};

/// Why a page could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is no such page.
    #[error("page {page} does not exist")]
    Gone {
        /// The page.
        page: ObjectKey,
    },
    /// A page of this name belongs to another Broadcast, or has other recipients.
    #[error("page {page} belongs to another Broadcast or has other recipients")]
    Foreign {
        /// The page.
        page: ObjectKey,
    },
    /// Another window of the page is being sent.
    #[error("page {page} is claimed")]
    Claimed {
        /// The page.
        page: ObjectKey,
    },
    /// A restart took the page over.
    #[error("page {page} is sealed")]
    Sealed {
        /// The page.
        page: ObjectKey,
    },
    /// The page was further before: it was put back in time, or the whole cluster was.
    #[error("page {page} was put back to an older version than this process has seen")]
    WentBack {
        /// The page.
        page: ObjectKey,
    },
    /// No row of the window can be sent any more.
    #[error("nothing to send in the window of page {page}")]
    NothingToSend {
        /// The page.
        page: ObjectKey,
    },
    /// The stored page makes no sense.
    #[error("page {page} cannot be read")]
    Corrupt {
        /// The page.
        page: ObjectKey,
        /// What is wrong with it.
        #[source]
        source: PageError,
    },
    /// The API server refused, or could not be reached for too long.
    #[error("failed to store page {page}")]
    Api {
        /// The page.
        page: ObjectKey,
        /// What it said last.
        #[source]
        source: ApiError,
    },
    /// The writer went away before the evidence was stored.
    #[error("the write was abandoned")]
    Abandoned,
}

impl LedgerError {
    /// One word for events and metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Gone { .. } => "PageGone",
            Self::Foreign { .. } => "PageOfAnotherBroadcast",
            Self::Claimed { .. } => "PageClaimed",
            Self::Sealed { .. } => "PageSealed",
            Self::WentBack { .. } => "PageWentBack",
            Self::NothingToSend { .. } => "NothingToSend",
            Self::Corrupt { .. } => "PageCorrupt",
            Self::Api { source, .. } => source.category(),
            Self::Abandoned => "Abandoned",
        }
    }

    pub(super) fn refused(page: &ObjectKey, refusal: &ClaimRefused) -> Self {
        let page = page.clone();
        match refusal {
            ClaimRefused::Sealed => Self::Sealed { page },
            ClaimRefused::Claimed => Self::Claimed { page },
            ClaimRefused::Empty => Self::NothingToSend { page },
        }
    }
}
