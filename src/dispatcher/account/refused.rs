//! What a provider takes nothing with, and what ends that: other credentials, time, or a person. Time comes in.

use std::time::{Duration, Instant};

use super::settings::{Opened, Probed};
use crate::api::{BroadcastChannel, Condition};
use crate::domain::answer::SenderTrouble;
use crate::providers::SecretValues;

/// A gateway that refused the same credentials is asked again after so long: an account can be unlocked over there.
pub(super) const REFUSED_RETRY: Duration = Duration::from_secs(300);
/// An account that wants to be paid is tried again after so long.
const PAYMENT_RETRY: Duration = Duration::from_secs(3600);
/// What a restart of the operator does not end.
const LASTING: [SenderTrouble; 3] =
    [SenderTrouble::AccountRestricted, SenderTrouble::PaymentRequired, SenderTrouble::ByErrorPolicy];

/// Credentials that the provider takes nothing with.
pub(super) struct Refused {
    pub(super) secrets: SecretValues,
    pub(super) trouble: SenderTrouble,
    pub(super) message: String,
    /// Never, where a person has to settle something with the provider first: another message would make it worse.
    again: Option<Instant>,
    is_by_probe: bool,
}

impl Refused {
    /// What the provider said just now; `detail` is its own word.
    pub(super) fn new(secrets: SecretValues, trouble: SenderTrouble, detail: &str, now: Instant) -> Self {
        let (message, again) = (message_of(trouble, detail), again_of(trouble, now));
        Self { secrets, trouble, message, again, is_by_probe: false }
    }

    /// The same, said to a probe: another probe can show that it is over.
    pub(super) fn by_probe(self) -> Self {
        Self { is_by_probe: true, ..self }
    }

    /// What an earlier process was told, as the status of the channel holds it.
    pub(super) fn of_status(secrets: SecretValues, halted: (SenderTrouble, String), now: Instant) -> Self {
        let (trouble, message) = halted;
        Self { secrets, trouble, message, again: again_of(trouble, now), is_by_probe: false }
    }

    /// Whether nothing that a probe says ends it: the same credentials, and a person who has to settle something.
    pub(super) fn outlasts_a_probe(&self, opened: &Opened) -> bool {
        LASTING.contains(&self.trouble) && !self.is_by_probe && self.secrets == opened.secrets
    }

    /// Whether it still refuses what was read now. Where the provider can be asked, its answer counts.
    pub(super) fn still(&self, opened: &Opened, now: Instant) -> bool {
        let is_over = self.again.is_some_and(|again| now >= again);
        match opened.probed {
            Probed::Refused(..) => true,
            // What it said to the same question before is over.
            Probed::Good if self.is_by_probe => false,
            Probed::Good | Probed::Unknown => self.secrets == opened.secrets && !is_over,
        }
    }
}

/// When it makes sense to try again by itself.
fn again_of(trouble: SenderTrouble, now: Instant) -> Option<Instant> {
    match trouble {
        SenderTrouble::AuthenticationFailed | SenderTrouble::Redirected => Some(now + REFUSED_RETRY),
        SenderTrouble::PaymentRequired => Some(now + PAYMENT_RETRY),
        SenderTrouble::AccountRestricted | SenderTrouble::ByErrorPolicy => None,
    }
}

/// One word for it, as a condition's reason.
pub(super) fn reason_of(trouble: SenderTrouble) -> &'static str {
    match trouble {
        SenderTrouble::AuthenticationFailed => "AuthenticationFailed",
        SenderTrouble::AccountRestricted => "AccountRestricted",
        SenderTrouble::PaymentRequired => "PaymentRequired",
        SenderTrouble::Redirected => "UnexpectedRedirect",
        SenderTrouble::ByErrorPolicy => "StoppedByErrorPolicy",
    }
}

/// What happened, and what to do. `detail` is the provider's own word.
fn message_of(trouble: SenderTrouble, detail: &str) -> String {
    let (what, cure) = match trouble {
        SenderTrouble::AuthenticationFailed => (
            "the provider refused the credentials",
            "put a valid token into the Secret that the channel names; sending goes on by itself then",
        ),
        SenderTrouble::AccountRestricted => (
            "the provider restricted the account or the number that sends",
            "settle it there; sending goes on when the channel's spec is changed, for example spec.paused to true and back to false",
        ),
        SenderTrouble::PaymentRequired => (
            "the provider wants to be paid",
            "settle it there; it is tried again by itself every hour, and at once when the channel's spec is changed",
        ),
        SenderTrouble::Redirected => {
            ("the gateway redirects", "put the address that it redirects to into the channel's url")
        }
        SenderTrouble::ByErrorPolicy => (
            "a rule of spec.errorPolicy stopped the channel",
            "sending goes on when the channel's spec is changed, for example spec.paused to true and back to false",
        ),
    };
    let detail: String = detail.chars().take(200).collect();
    let said = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    format!("{what}{said}: {cure}; no chat fails by it")
}

/// What the status of a channel says that a restart of the operator does not end.
pub(super) fn lasting(channel: &BroadcastChannel) -> Option<(SenderTrouble, String)> {
    let conditions = &channel.status.as_ref()?.conditions;
    let stalled =
        Condition::find(conditions, "Stalled").filter(|_| Condition::is_true(conditions, "Stalled"))?;
    let trouble = LASTING.into_iter().find(|trouble| stalled.reason == reason_of(*trouble))?;
    Some((trouble, stalled.message.clone()))
}
