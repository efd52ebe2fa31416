//! Why a gateway takes nothing from a sender, as a status says it, both ways. Pure.

use jiff::{SignedDuration, Timestamp};

use super::answer::SenderTrouble;
use crate::api::{ReportedTrouble, TroubleReason};

/// What receipts say of an account that happened longer ago is no news: providers repeat receipts for days, and what messages were
/// answered since says more.
const TROUBLE_COUNTS_FOR: SignedDuration = SignedDuration::from_hours(1);
/// That an account was too fast says nothing of what it does so long after.
const THROTTLE_COUNTS_FOR: SignedDuration = SignedDuration::from_mins(5);
/// Messages that the provider took before the channel slowed down may fail until so long after: they are no reason to slow down again.
const THROTTLE_SHOWS_AFTER: SignedDuration = SignedDuration::from_secs(30);

impl SenderTrouble {
    /// One word for it, as a condition's reason.
    #[must_use]
    pub fn reason(self) -> TroubleReason {
        match self {
            Self::AuthenticationFailed => TroubleReason::AuthenticationFailed,
            Self::AccountRestricted => TroubleReason::AccountRestricted,
            Self::PaymentRequired => TroubleReason::PaymentRequired,
            Self::Redirected => TroubleReason::UnexpectedRedirect,
            Self::UnexpectedAnswer => TroubleReason::UnexpectedAnswer,
            Self::ByErrorPolicy => TroubleReason::StoppedByErrorPolicy,
        }
    }
}

impl TroubleReason {
    /// The trouble that keeps a sender from sending at all. `None`: it was too fast.
    #[must_use]
    pub fn trouble(self) -> Option<SenderTrouble> {
        Some(match self {
            Self::AuthenticationFailed => SenderTrouble::AuthenticationFailed,
            Self::AccountRestricted => SenderTrouble::AccountRestricted,
            Self::PaymentRequired => SenderTrouble::PaymentRequired,
            Self::UnexpectedRedirect => SenderTrouble::Redirected,
            Self::UnexpectedAnswer => SenderTrouble::UnexpectedAnswer,
            Self::StoppedByErrorPolicy => SenderTrouble::ByErrorPolicy,
            Self::RateLimited => return None,
        })
    }

    /// Whether this stays when what has ended the other one ends it: a limit is over by itself, and what a rule stops when the rule is
    /// taken away, which settles nothing with the provider.
    #[must_use]
    pub fn outlasts(self, other: Self) -> bool {
        let lasts = |reason| match reason {
            Self::RateLimited => 0,
            Self::StoppedByErrorPolicy => 1,
            _ => 2,
        };
        lasts(self) > lasts(other)
    }
}

impl ReportedTrouble {
    /// The same, if it was said of this gateway. A version that had no marks of gateways wrote none: that counts for the present one.
    #[must_use]
    pub fn of_gateway(&self, digest: &str) -> Option<Self> {
        let is_of_it = self.observed_gateway.is_empty() || self.observed_gateway == digest;
        is_of_it.then(|| Self { observed_gateway: digest.into(), ..self.clone() })
    }

    /// Whether it happened so long ago that it means nothing now.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        let counts_for = match self.reason {
            TroubleReason::RateLimited => THROTTLE_COUNTS_FOR,
            _ => TROUBLE_COUNTS_FOR,
        };
        now.duration_since(self.time.0) > counts_for
    }

    /// Whether its message was sent before such trouble was settled, in whole seconds, as a status holds times.
    #[must_use]
    pub fn is_settled(&self, settled: Option<Timestamp>) -> bool {
        let sent = self.sent.as_ref().unwrap_or(&self.time);
        settled.is_some_and(|settled| sent.0.as_second() <= settled.as_second())
    }

    /// Whether all has failed by now, as far as is reckoned with, that the provider took before the channel slowed down for this.
    #[must_use]
    pub fn has_shown(&self, now: Timestamp) -> bool {
        now.duration_since(self.time.0) > THROTTLE_SHOWS_AFTER
    }

    /// Whether this comes in place of another report that still stands: one that outlasts it, and a limit in place of an earlier one that
    /// the channel has slowed down for.
    #[must_use]
    pub fn replaces(&self, standing: &Self) -> bool {
        let is_limit = |it: &Self| it.reason == TroubleReason::RateLimited;
        let is_later_limit = is_limit(self) && is_limit(standing) && standing.has_shown(self.time.0);
        is_later_limit || self.reason.outlasts(standing.reason)
    }
}
