//! Whether the Secrets that a channel's receipts are checked with can be used (client required). They stop no sending, so nothing but a
//! look shows that they are wrong. Time comes in.

use std::time::{Duration, Instant};

use super::super::Context;
use super::settings::{Trouble, secret_value};
use super::{Account, Version};
use crate::api::{BroadcastChannel, Condition, KeyRef};
use crate::domain::channel_verdict::RECEIPTS_REFUSED;
use crate::domain::ids::ObjectKey;
use crate::webhooks::Secret;

/// How often they are looked at. A thousand channels are two reads in a second.
pub(super) const LOOK: Duration = Duration::from_secs(600);
/// The same while they cannot be used: somebody is about to correct them.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What was seen of one version of a channel.
pub(in crate::dispatcher) struct Looked(pub(super) Version, pub(super) Seen);

/// How the Secrets are.
pub(in crate::dispatcher) enum Seen {
    /// Receipts can be checked.
    Usable,
    /// They cannot, for this reason.
    Unusable(Trouble),
    /// The Secrets could not be read now.
    Unread,
}

impl Looked {
    /// The look came to no end.
    pub(in crate::dispatcher) fn interrupted(channel: &BroadcastChannel) -> Self {
        Self(Version::of(channel), Seen::Unread)
    }
}

/// What is known of them.
#[derive(Default)]
pub(super) struct ReceiptSecrets {
    is_looking: bool,
    looked: Option<Instant>,
    trouble: Option<(String, String)>,
}

impl ReceiptSecrets {
    /// Why receipts cannot be taken.
    pub(super) fn trouble(&self) -> Option<(String, String)> {
        self.trouble.clone()
    }

    /// What the process before this one has seen counts until the first look has ended.
    pub(super) fn take_up(&mut self, conditions: &[Condition]) {
        let refused = Condition::find_true(conditions, RECEIPTS_REFUSED);
        self.trouble = refused.map(|refused| (refused.reason.clone(), refused.message.clone()));
    }

    /// They may be others now.
    pub(super) fn forget_look(&mut self) {
        self.looked = None;
    }
}

impl Account {
    /// Whether they are to be looked at now. They are taken for being looked at from then on.
    pub(in crate::dispatcher) fn wants_receipt_look(&mut self, now: Instant) -> bool {
        let ReceiptSecrets { is_looking, looked, trouble } = &mut self.receipts;
        let after = if trouble.is_some() { LOOK_AGAIN } else { LOOK };
        let begins = !*is_looking && looked.is_none_or(|looked| now >= looked + after);
        *is_looking |= begins;
        begins
    }

    /// Takes in what was seen.
    pub(in crate::dispatcher) fn looked_at_receipts(&mut self, looked: Looked, now: Instant) {
        let Looked(version, seen) = looked;
        self.receipts.is_looking = false;
        if self.channel.as_deref().is_none_or(|channel| Version::of(channel) != version) {
            return;
        }
        self.receipts.looked = Some(now);
        self.receipts.trouble = match seen {
            Seen::Unread => return,
            Seen::Usable => None,
            Seen::Unusable(Trouble { reason, message, .. }) => {
                let told = "receipts, or the handshake of their webhook, cannot be checked and are answered 503, to come again";
                Some((reason.to_owned(), format!("{told}: {message}")))
            }
        };
    }
}

/// Reads the Secrets that receipts are checked with, but for those that messages are sent with as well.
pub(in crate::dispatcher) async fn look_at_receipt_secrets(
    context: &Context,
    key: &ObjectKey,
    channel: &BroadcastChannel,
) -> Looked {
    let version = Version::of(channel);
    let is_sent_with = |reference: &KeyRef| channel.spec.sending_secrets().any(|other| other == reference);
    for reference in channel.spec.receipt_secrets().filter(|reference| !is_sent_with(reference)) {
        let seen = secret_value(context, &key.namespace, reference).await;
        match seen.and_then(|value| usable(channel, reference, &value)) {
            Ok(()) => {}
            Err(trouble) if trouble.is_passing => return Looked(version, Seen::Unread),
            Err(trouble) => return Looked(version, Seen::Unusable(trouble)),
        }
    }
    Looked(version, Seen::Usable)
}

/// Whether a secret of receipts is one. Those of Standard Webhooks have a form; any word will do for the others.
fn usable(channel: &BroadcastChannel, KeyRef { name, key }: &KeyRef, value: &str) -> Result<(), Trouble> {
    if channel.spec.http.is_none() {
        return Ok(());
    }
    Secret::parse_all(value)
        .map(drop)
        .map_err(|error| Trouble::lasting("InvalidSecret", format!("key {key} of Secret {name}: {error}")))
}
