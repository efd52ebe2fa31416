//! Which row a receipt speaks of. In: a token or a message id, and the caches. Out: a page and a row, or whether it may
//! have one later.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::{Broadcast, BroadcastChannel, KeyRef, ProviderName};
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::token::MessageToken;
use crate::journal::{Owner, PageOf};
use crate::observed::Observed;

/// Longest time until what one replica has stored is in view of another: watches that work take milliseconds.
const SEEN_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The page.
    pub page: ObjectKey,
    /// Its number, from 0.
    pub index: usize,
    /// The Broadcast that the page belongs to.
    pub broadcast: BroadcastUid,
    /// Row in the page.
    pub row: usize,
    /// Name of the Broadcast.
    pub name: String,
    /// Name of the channel that the message went through.
    pub channel: String,
    /// What it was found by.
    pub named_by: NamedBy,
}

impl At {
    /// Its page, and whose it is.
    #[must_use]
    pub fn page_of(&self) -> PageOf {
        let key = ObjectKey::new(&self.page.namespace, &self.name);
        let owner = Owner { key, uid: self.broadcast.clone() };
        PageOf { broadcast: owner, key: self.page.clone(), index: self.index }
    }
}

/// What a row is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// Its token, which is that of all tries.
    Token,
    /// The id of one message.
    MessageId,
}

/// What an id names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A message of the channel.
    Row(At),
    /// Nothing yet; it may be the id of a message whose answer is on its way.
    Nothing,
    /// Nothing yet: what it names is stored, and not in view here.
    Unseen,
    /// Nothing, and its Broadcast is not in view: it was deleted, or this replica has not heard of it yet.
    Homeless(BroadcastUid),
    /// No message of the channel, now or later.
    Stranger,
}

/// The Broadcasts that were sent through one channel, or through another number of its app: a receipt settles no other
/// channel's messages.
pub struct Places<'a> {
    observed: &'a Observed,
    channel: &'a ObjectKey,
    /// Names of those channels.
    names: Vec<String>,
}

impl<'a> Places<'a> {
    /// The places of this channel's messages.
    #[must_use]
    pub fn of(observed: &'a Observed, channel: &'a ObjectKey) -> Self {
        Self { observed, channel, names: names_of(observed, channel) }
    }

    /// Whether the gateway makes one message of all tries of a chat.
    #[must_use]
    pub fn are_one_message(&self) -> bool {
        self.observed.channel(self.channel).is_some_and(|channel| channel.spec.is_idempotent())
    }

    /// What a token or message id names.
    #[must_use]
    pub fn find(&self, id: &str) -> Named {
        let token = id.parse::<MessageToken>().ok();
        let own = token.as_ref().and_then(|token| Some((token, self.own(&token.broadcast)?)));
        if let Some((token, broadcast)) = own {
            let page = self.observed.pages.page(&self.channel.namespace, &token.broadcast, token.page);
            return match page {
                Some(page) if token.row >= page.rows => Named::Stranger,
                Some(_) => {
                    let at = self.at(&broadcast, token.page, token.row, NamedBy::Token);
                    at.map_or(Named::Nothing, Named::Row)
                }
                None if is_planned(&broadcast, token) => Named::Unseen,
                None => Named::Nothing,
            };
        }
        let token = token.filter(|token| is_uuid(token.broadcast.as_str()));
        match (self.find_message(id), token) {
            (Some(at), _) => Named::Row(at),
            // Tokens are known before they are sent.
            (None, Some(token)) => self.home_of(token.broadcast),
            (None, None) => Named::Nothing,
        }
    }

    /// The message of the channel with this id, in the youngest Broadcast that has one.
    fn find_message(&self, id: &str) -> Option<At> {
        let found = self.observed.pages.message_ids.find_all(id).into_iter();
        let own = found.filter_map(|(uid, page, row)| Some((self.own(&uid)?, page, row)));
        let mut own: Vec<_> = own.collect();
        own.sort_by_key(|(broadcast, ..)| std::cmp::Reverse(broadcast.creation_timestamp()));
        own.iter().find_map(|(broadcast, page, row)| self.at(broadcast, *page, *row, NamedBy::MessageId))
    }

    /// The Broadcast with this UID, if it is one of the channel.
    fn own(&self, uid: &BroadcastUid) -> Option<Arc<Broadcast>> {
        let found = self.observed.by_uid.find(&self.channel.namespace, uid)?;
        let channel = &found.status.as_ref()?.resolved.as_ref()?.channel_ref.name;
        self.names.contains(channel).then_some(found)
    }

    /// Where a message is whose Broadcast is none of the channel's, as far as is in view.
    fn home_of(&self, uid: BroadcastUid) -> Named {
        match self.observed.by_uid.find(&self.channel.namespace, &uid) {
            Some(known) if known.status.as_ref().is_some_and(|status| status.resolved.is_some()) => {
                Named::Stranger
            }
            // It was sent from, so it is sealed.
            Some(_) => Named::Unseen,
            None => Named::Homeless(uid),
        }
    }

    /// What any of the ids of a message names, and which of them that is. A message is a stranger only by all of its ids.
    #[must_use]
    pub fn find_any<'i>(&self, ids: impl Iterator<Item = &'i str>) -> (&'i str, Named) {
        let mut first = None;
        for id in ids {
            match self.find(id) {
                row @ Named::Row(_) => return (id, row),
                named @ (Named::Nothing | Named::Unseen | Named::Homeless(_)) => first = Some((id, named)),
                Named::Stranger => first = first.or(Some((id, Named::Stranger))),
            }
        }
        first.unwrap_or(("", Named::Stranger))
    }

    /// Whether the provider gives the tokens of messages back in their receipts.
    #[must_use]
    pub fn have_tokens(&self) -> bool {
        self.observed.channel(self.channel).is_some_and(|channel| {
            matches!(channel.spec.provider, ProviderName::WhatsApp | ProviderName::Twilio)
        })
    }

    /// Whether requests of this channel may be in flight, so that an id that is unknown now may be known soon. Another
    /// replica may send for it, and what it stores may not be in view yet; so it is not asked what is claimed, but what may be.
    #[must_use]
    pub fn may_have_sends_in_flight(&self, now: Timestamp) -> bool {
        let ends = self.names.iter().map(|name| ObjectKey::new(&self.channel.namespace, name));
        let last = ends.filter_map(|channel| self.observed.by_uid.last_end(&channel)).max();
        last.is_some_and(|end| now.duration_since(end) <= SEEN_WITHIN)
    }

    /// Whether a receipt of this number of the provider's may be of a message of one of its channels.
    #[must_use]
    pub fn is_of(&self, number: &str) -> bool {
        number.is_empty() || !channels_of(self.observed, self.channel, number).is_empty()
    }

    fn at(&self, broadcast: &Broadcast, page: usize, row: usize, named_by: NamedBy) -> Option<At> {
        let uid = BroadcastUid::new(broadcast.uid()?);
        let summary = self.observed.pages.page(&self.channel.namespace, &uid, page)?;
        let channel = broadcast.status.as_ref()?.resolved.as_ref()?.channel_ref.name.clone();
        let (name, page, index) = (broadcast.name_any(), summary.key.clone(), summary.index);
        (row < summary.rows).then_some(At { page, index, broadcast: uid, row, name, channel, named_by })
    }
}

/// Whether a Broadcast should have the page of a message.
fn is_planned(broadcast: &Broadcast, token: &MessageToken) -> bool {
    let batches = broadcast.status.as_ref().and_then(|status| status.batches.as_ref());
    let total = batches.map_or(0, |batches| batches.total);
    usize::try_from(total).is_ok_and(|total| token.page < total)
}

/// The channels whose receipts come the same way: Meta has one webhook for all numbers of an app.
fn names_of(observed: &Observed, channel: &ObjectKey) -> Vec<String> {
    let others = of_app(observed, channel);
    others.iter().map(|other| other.name_any()).chain([channel.name.clone()]).collect()
}

/// The channels that a notice of this number is about: the one whose address was called, and that of the number, if it is another one
/// of the same app. None, where no channel has that number.
#[must_use]
pub fn channels_of(observed: &Observed, channel: &ObjectKey, number: &str) -> Vec<ObjectKey> {
    if number.is_empty() {
        return vec![channel.clone()];
    }
    let is_its = |other: &BroadcastChannel| {
        other.spec.whats_app.as_ref().is_some_and(|whats_app| whats_app.phone_number_id == number)
    };
    // The channel itself may have no app secret any more.
    let own = observed.channel(channel).into_iter();
    let all = own.chain(of_app(observed, channel)).filter(|other| is_its(other));
    let mut names: Vec<String> = all.map(|other| other.name_any()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| ObjectKey::new(&channel.namespace, name)).collect()
}

/// The channels of one app.
fn of_app(observed: &Observed, channel: &ObjectKey) -> Vec<Arc<BroadcastChannel>> {
    fn app(channel: &BroadcastChannel) -> Option<&KeyRef> {
        channel.spec.whats_app.as_ref()?.app_secret_ref.as_ref()
    }
    let own = observed.channel(channel);
    let Some(own) = own.as_deref().and_then(app) else { return Vec::new() };
    let is_in = |other: &BroadcastChannel| other.metadata.namespace.as_deref() == Some(&channel.namespace);
    observed.channels.state_filter(|other| is_in(other) && app(other) == Some(own))
}

/// Whether this is a UID as the API server makes them, and not the beginning of a message id that looks like a token.
fn is_uuid(uid: &str) -> bool {
    let groups = uid.split('-').map(str::len);
    groups.eq([8, 4, 4, 4, 12]) && uid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
