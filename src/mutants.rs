//! Mistakes that the tests build into the protocol, to see that they would be noticed.
//!
//! Only with the feature `mutants`, which no build for use has: without it nothing of this is in the program.

use std::sync::atomic::{AtomicU8, Ordering};

use kube::{Api, ResourceExt};

use crate::api::BroadcastBatch;
use crate::domain::page::Page;

/// One mistake. Each takes away one thing that the promises hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// A claim overwrites whatever stands in the page, instead of failing when the page has changed.
    ClaimWithoutVersion = 1,
    /// Rows are recorded as sent together with their claim, before any request.
    RecordBeforeSend,
    /// The rows of a dead process are Pending again, instead of Unknown.
    OrphanClaimedAgain,
    /// A restart closes a page as it read it, whatever was stored since.
    SealWithoutVersion,
    /// A restart closes a page whose requests are in flight.
    SealOverClaim,
    /// A restart is planned from pages that are not closed yet.
    ChildBeforeSeal,
    /// Results are given up when somebody else has changed the page meanwhile.
    ResultsDroppedOnConflict,
    /// Receipts are answered although their journal was not stored.
    AnsweredUnstored,
    /// A journal is deleted although a page did not take what it says.
    JournalDeletedEarly,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ClaimWithoutVersion,
        Self::RecordBeforeSend,
        Self::OrphanClaimedAgain,
        Self::SealWithoutVersion,
        Self::SealOverClaim,
        Self::ChildBeforeSeal,
        Self::ResultsDroppedOnConflict,
        Self::AnsweredUnstored,
        Self::JournalDeletedEarly,
    ];
}

static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// Makes this mistake from here on, in the whole process; `None` makes none.
pub fn set(mutant: Option<Mutant>) {
    ACTIVE.store(mutant.map_or(0, |mutant| mutant as u8), Ordering::SeqCst);
}

/// Whether this mistake is made.
#[must_use]
pub fn is_on(mutant: Mutant) -> bool {
    ACTIVE.load(Ordering::SeqCst) == mutant as u8
}

/// Whether this change of a page is stored whatever stands there by now.
#[must_use]
pub fn forgets_version(before: &Page, after: &Page) -> bool {
    let claims = before.claim().is_none() && after.claim().is_some() && is_on(Mutant::ClaimWithoutVersion);
    let seals = !before.is_sealed() && after.is_sealed() && is_on(Mutant::SealWithoutVersion);
    claims || seals
}

/// The page as it is to be written, in the version that stands there now: the API server takes no write of a custom resource
/// without a version, so it gets the one that it wants to see.
pub async fn in_any_version(api: &Api<BroadcastBatch>, mut next: BroadcastBatch) -> BroadcastBatch {
    if let Ok(now) = api.get(&next.name_any()).await {
        next.metadata.resource_version = now.metadata.resource_version;
    }
    next
}
