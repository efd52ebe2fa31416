//! When a channel's Secrets are read, and the provider is asked about them: before the first message, and again and again behind an open
//! door. Nothing tells the operator that a Secret was changed: it may not watch them. Time comes in.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;

use super::caution::Why;
use super::refused::{Refused, ask_again};
use super::settings::{Known, Probed};
use super::{Account, Door, Opened, Trouble, Version};
use crate::api::BroadcastChannel;
use crate::providers::SecretDigest;

/// How often a Secret is looked at while its content keeps the channel from sending.
pub(super) const SECRET_POLL: Duration = Duration::from_secs(2);
/// How often it is looked at while messages are sent with it. Whoever replaces credentials waits so long before taking away the old ones.
pub(super) const BUSY_LOOK: Duration = Duration::from_secs(60);
/// How often it is looked at while nothing is sent, and the provider is asked whether it is good: nothing else would show that it is
/// not. A thousand channels are two reads in a second.
pub(super) const IDLE_LOOK: Duration = Duration::from_secs(600);

/// When the Secrets behind an open door were read, and what makes it worth while to read them again.
pub(super) struct Look {
    read: Instant,
    /// Messages went through since.
    is_used: bool,
    /// Something may be wrong with them.
    is_in_doubt: bool,
    /// How often in a row the provider was asked whether they are good, and did not say.
    untold: u32,
}

impl Look {
    fn at(read: Instant, untold: u32) -> Self {
        Self { read, is_used: false, is_in_doubt: false, untold }
    }

    /// Whether it is time to read them again. A gateway that wants to be left alone is not asked sooner for not having said anything.
    fn is_due(&self, is_left_alone: bool, now: Instant) -> bool {
        let after = match if is_left_alone { 0 } else { self.untold } {
            _ if self.is_used => BUSY_LOOK,
            0 => IDLE_LOOK,
            untold => ask_again(untold),
        };
        self.is_in_doubt || now >= self.read + after
    }
}

impl Probed {
    /// How often in a row the provider did not say, with this time.
    fn untold(&self, before: u32) -> u32 {
        if let Self::NotTold { .. } = self { before.saturating_add(1) } else { 0 }
    }
}

impl Account {
    /// Whether settings and credentials are to be read now. They are taken for being read from then on, until [`open`](Self::open).
    pub(super) fn wants_reading(&mut self, channel: &BroadcastChannel, now: Instant) -> bool {
        let is_left_alone = self.caution.rest(now).is_some();
        let wanted = match &self.door {
            Door::Opening => true,
            Door::Open { version, look, .. } => {
                *version != Version::of(channel) || look.is_due(is_left_alone, now)
            }
            Door::Closed { again, .. } => now >= *again,
        };
        let begins = wanted && !self.is_reading;
        self.is_reading |= begins;
        begins
    }

    /// What need not be found out anew by the next reading. Messages ask the provider all the time, so it is asked only while there are
    /// none, and nothing at all while it wants to be left alone.
    pub(in crate::dispatcher) fn known(&self, now: Instant) -> Known {
        let mut told: Vec<SecretDigest> = self.refusals.told(now).collect();
        let channel = self.channel.as_deref();
        let is_paused = channel.is_none_or(|channel| channel.spec.paused);
        let held = match &self.door {
            Door::Open { version, opened, look } => {
                // Who has changed the spec wants to know.
                let is_read = channel.map(Version::of).as_ref() == Some(version);
                let is_quiet = is_read && (is_paused || look.is_used || look.is_in_doubt);
                if is_quiet {
                    told.push(opened.credentials);
                }
                Some((opened.credentials, opened.gateway.clone()))
            }
            _ => None,
        };
        Known { held, told, is_left_alone: self.caution.rest(now).is_some() }
    }

    /// Takes in settings and credentials, as they were read of one version of the channel.
    pub(in crate::dispatcher) fn open(
        &mut self,
        version: Version,
        read: Result<Opened, Trouble>,
        now: Instant,
        wall: Timestamp,
    ) {
        self.is_reading = false;
        if self.channel.as_deref().is_none_or(|channel| Version::of(channel) != version) {
            // The channel has changed meanwhile: what was read is read again.
            return;
        }
        if let Ok(Opened { probed: Probed::NotTold { wait: Some(wait), .. }, .. }) = &read {
            self.caution.fail(*wait, Why::Throttled, now, wall);
        }
        if self.stays_open(&version, &read, now) {
            return;
        }
        self.door = match read {
            Ok(opened) => {
                self.know(opened.credentials, wall);
                self.door_to(version, opened, now, wall)
            }
            Err(trouble) => self.door_without(trouble, now + SECRET_POLL),
        };
    }

    /// Notes which credentials the account has. What was said of others counts for these no more.
    fn know(&mut self, credentials: SecretDigest, wall: Timestamp) {
        let before = self.credentials.replace(credentials);
        if before != Some(credentials) {
            self.door_number.credentials += 1;
        }
        if before.is_some_and(|before| before != credentials) {
            self.settle(wall);
            // One message to see whether they are taken.
            self.caution.probe();
        }
    }

    /// The door while settings or Secrets cannot be used. That says nothing of what the provider refused.
    fn door_without(&self, trouble: Trouble, again: Instant) -> Door {
        let is_less = trouble.is_passing && self.refused().is_some();
        Door::Closed { trouble: Some(trouble).filter(|_| !is_less), again }
    }

    /// Whether nothing is new behind the open door: a change of the settings that it was made with has closed it. Then it stays the same
    /// one, with its requests, and with what they say of it.
    fn stays_open(&mut self, of: &Version, read: &Result<Opened, Trouble>, now: Instant) -> bool {
        let Door::Open { version, opened, look } = &mut self.door else { return false };
        let stays = match read {
            Ok(again) => {
                again.credentials == opened.credentials && !matches!(again.probed, Probed::Refused(..))
            }
            Err(trouble) => trouble.is_passing,
        };
        if stays {
            *version = of.clone();
            let untold = match read {
                Ok(Opened { probed: Probed::NotAsked, .. }) | Err(_) => look.untold,
                Ok(again) => {
                    opened.probed = again.probed.clone();
                    again.probed.untold(look.untold)
                }
            };
            *look = Look::at(now, untold);
            if let (Err(trouble), Some(channel)) = (read, &self.channel) {
                let (namespace, name) = (channel.namespace().unwrap_or_default(), channel.name_any());
                tracing::warn!(
                    namespace,
                    channel = name,
                    trouble.message,
                    "goes on with the credentials that it has"
                );
            }
        }
        stays
    }

    fn door_to(&mut self, version: Version, opened: Opened, now: Instant, wall: Timestamp) -> Door {
        let Opened { credentials, ref probed, .. } = opened;
        if let Some(halted) = self.halted.take() {
            self.refusals.remember(Refused::of(credentials, halted, now));
        }
        let needs_a_person = self.refusals.of(credentials).is_some_and(Refused::outlasts_a_probe);
        if let Probed::Refused(trouble, detail) = probed
            && !needs_a_person
        {
            self.refusals.remember(Refused::new(credentials, *trouble, ("", detail), now).by_probe());
        }
        if *probed != Probed::NotAsked {
            self.refusals.asked(credentials, now);
        }
        if self.refused().is_some_and(|refused| refused.still(probed, now)) {
            return Door::Closed { trouble: None, again: now + SECRET_POLL };
        }
        if !self.refusals.is_empty() {
            self.caution.probe();
        }
        // What is tried again by itself after a while is settled by nobody.
        let is_settled = self.refused().is_some_and(|refused| refused.is_taken_back(probed));
        if std::mem::take(&mut self.may_have_others) || is_settled {
            self.settle_now(wall);
        }
        self.refusals.lift(credentials);
        let look = Look::at(now, probed.untold(0));
        Door::Open { version, opened, look }
    }

    /// What the provider refuses with the credentials that were read last.
    pub(super) fn refused(&self) -> Option<&Refused> {
        self.refusals.of(self.credentials?)
    }

    /// The provider refuses the credentials. The Secret is read at once: it may have been changed already. Of what requests that were in
    /// flight together say, the gravest counts.
    pub(super) fn close(&mut self, refused: Refused, now: Instant) {
        if self.refused().is_none_or(|before| before.weight() < refused.weight()) {
            self.refusals.remember(refused);
        }
        if !matches!(self.door, Door::Closed { .. }) {
            self.door = Door::Closed { trouble: None, again: now };
        }
    }

    /// The gateway took a message: it takes the credentials too.
    pub(super) fn works(&mut self) {
        self.caution.relax();
        if let Door::Open { opened, look, .. } = &mut self.door
            && matches!(opened.probed, Probed::NotTold { .. })
        {
            opened.probed = Probed::Good;
            look.untold = 0;
        }
    }

    /// A message goes through the open door.
    pub(super) fn use_door(&mut self) {
        if let Door::Open { look, .. } = &mut self.door {
            look.is_used = true;
        }
    }

    /// Something may be wrong with the Secrets behind the open door.
    pub(super) fn doubt_secrets(&mut self) {
        if let Door::Open { look, .. } = &mut self.door {
            look.is_in_doubt = true;
        }
    }
}
