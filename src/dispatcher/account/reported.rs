//! What receipts say of an account, as its channel's status holds it. Time comes in.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::refused::Refused;
use super::{Account, Door};
use crate::api::{BroadcastChannel, ReportedTrouble, TroubleReason};
use crate::domain::answer::{ChannelEffect, with_code};

/// How long an account waits that was too fast, as only receipts say: the provider took the messages and dropped them later, so it may
/// still have others. It gives no time of its own.
const TOO_FAST_WAIT: Duration = Duration::from_secs(10);

impl Account {
    /// Stops or slows down for what receipts say of the account, as for an answer, once: any replica may have taken them. Until it is
    /// open it says nothing that counts for long.
    pub(super) fn heed(&mut self, channel: &BroadcastChannel, now: Instant, wall: Timestamp) {
        let reported = reported(channel).filter(|reported| self.heeded.as_ref() != Some(*reported));
        let Some(reported) = reported else { return };
        match &self.door {
            Door::Open { .. } => self.heeded = Some(reported.clone()),
            // It has stopped for the same already, as an answer shows: what ends that ends both.
            Door::Closed { reason, is_refused: true, .. } if *reason == reported.reason.as_str() => {
                self.heeded = Some(reported.clone());
                return;
            }
            Door::Opening | Door::Closed { .. } => return,
        }
        let ReportedTrouble { reason, code, message, .. } = reported;
        let detail = with_code(code, message.clone());
        let Some(trouble) = reason.trouble() else {
            if !reported.is_stale(wall) {
                let effect = ChannelEffect::Throttle(Some(TOO_FAST_WAIT));
                self.feel(self.door_number, effect, now, wall);
            }
            return;
        };
        if let Door::Open { opened, .. } = &self.door {
            self.close(Refused::by_receipt(opened.credentials, trouble, &detail), now);
        }
    }
}

/// What the sender before this one has slowed down for: its wait is in the status too, and this one has no speed yet to be halved.
pub(super) fn slowed_down_for(channel: &BroadcastChannel) -> Option<ReportedTrouble> {
    reported(channel).filter(|reported| reported.reason == TroubleReason::RateLimited).cloned()
}

/// What receipts say of the account, if that was of the spec as it is now.
pub(super) fn reported(channel: &BroadcastChannel) -> Option<&ReportedTrouble> {
    let reported = channel.status.as_ref()?.reported.as_ref()?;
    (Some(reported.observed_generation) == channel.metadata.generation).then_some(reported)
}
