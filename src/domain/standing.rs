//! How far the rows of pages have come. A row that was sent to is never Pending again, and evidence is never lost, so what
//! stands below an earlier standing was put back in time.

use crate::api::{BatchCounts, Counts};

/// How far some rows have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Rows that are Pending, those of a claim among them. Never rises.
    pub pending: i32,
    /// Rows of which the gateway has said or shown what became of them. Never falls.
    pub evidence: i32,
}

impl Standing {
    /// The standing of one page.
    #[must_use]
    pub fn of_page(counts: &BatchCounts) -> Self {
        Self {
            pending: counts.pending,
            evidence: counts.sent + counts.delivered + counts.read + counts.failed,
        }
    }

    /// The standing of a whole Broadcast, as its status counted it.
    #[must_use]
    pub fn of_broadcast(counts: &Counts) -> Self {
        Self {
            pending: counts.pending + counts.sending,
            evidence: counts.sent + counts.delivered + counts.read + counts.failed,
        }
    }

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { pending: self.pending + other.pending, evidence: self.evidence + other.evidence }
    }

    /// This one without a part of it.
    #[must_use]
    pub fn without(self, part: Self) -> Self {
        Self { pending: self.pending - part.pending, evidence: self.evidence - part.evidence }
    }

    /// Whether these rows once were further than they are here.
    #[must_use]
    pub fn is_behind(self, earlier: Self) -> bool {
        self.chats_behind(earlier) > 0
    }

    /// How many rows at least are not as far as they once were.
    #[must_use]
    pub fn chats_behind(self, earlier: Self) -> i32 {
        (self.pending - earlier.pending).max(earlier.evidence - self.evidence).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pending_row_more_or_an_outcome_less_is_behind() {
        let earlier = Standing { pending: 5, evidence: 10 };
        for (pending, evidence, behind) in
            [(5, 10, 0), (4, 11, 0), (4, 10, 0), (6, 10, 1), (5, 8, 2), (8, 7, 3)]
        {
            let now = Standing { pending, evidence };
            assert_eq!(now.chats_behind(earlier), behind, "{now:?}");
            assert_eq!(now.is_behind(earlier), behind > 0);
        }
    }
}
