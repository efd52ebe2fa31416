//! When the provider may be asked what became of messages, and what it means for the account that it refuses to say.

use std::time::Instant;

use super::refused::Refused;
use super::{Account, Door, DoorNumber};
use crate::domain::answer::SenderTrouble;
use crate::providers::gateway::Gateway;

/// The provider was asked what became of a message, and refused the sender.
pub(in crate::dispatcher) struct LookupRefused {
    /// The way that the question took.
    pub(in crate::dispatcher) door: DoorNumber,
    /// Why.
    pub(in crate::dispatcher) trouble: SenderTrouble,
    /// What the provider said.
    pub(in crate::dispatcher) detail: String,
}

impl Account {
    /// The way for questions, while messages may be sent and leave room for one. The limits of messages are not theirs, and neither
    /// is a day that is full.
    pub(in crate::dispatcher) fn may_look_up(
        &self,
        in_flight: usize,
        now: Instant,
    ) -> Option<(DoorNumber, &Gateway)> {
        let is_paused = self.channel.as_ref()?.spec.paused;
        let is_free = !is_paused && self.caution.rest(now).is_none() && in_flight < self.max_in_flight();
        match &self.door {
            Door::Open { opened, .. } if is_free => Some((self.door_number, &opened.gateway)),
            _ => None,
        }
    }

    /// The provider refused the sender of a question: the channel stops, as by a probe, and another probe can show that it is over.
    pub(in crate::dispatcher) fn lookup_refused(&mut self, refused: &LookupRefused, now: Instant) {
        let LookupRefused { door, trouble, detail } = refused;
        if *door != self.door_number {
            return;
        }
        if let Some(credentials) = self.credentials {
            self.close(Refused::new(credentials, *trouble, ("", detail), now).by_probe(), now);
        }
    }
}
