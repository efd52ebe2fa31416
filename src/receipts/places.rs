//! Which row a receipt speaks of. In: a token or a message id, and the caches. Out: a page and a row, or whether it may
//! have one later.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::{Broadcast, BroadcastChannel};
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::token::MessageToken;
use crate::observed::Observed;

/// Longest time until what one replica has stored is in view of another: watches that work take milliseconds.
const SEEN_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The page.
    pub page: ObjectKey,
    /// The Broadcast that the page belongs to.
    pub broadcast: BroadcastUid,
    /// Row in the page.
    pub row: usize,
    /// Name of the channel that the message went through.
    pub channel: String,
}

/// What an id names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A message of the channel.
    Row(At),
    /// Nothing yet; it may be the id of a message whose answer is on its way.
    Nothing,
    /// No message of the channel, now or later.
    Stranger,
}

/// The Broadcasts that were sent through one channel, or through another number of its app: a receipt settles no other
/// channel's messages.
pub struct Places<'a> {
    observed: &'a Observed,
    namespace: &'a str,
    broadcasts: Vec<Arc<Broadcast>>,
}

impl<'a> Places<'a> {
    /// The places of this channel's messages.
    #[must_use]
    pub fn of(observed: &'a Observed, channel: &'a ObjectKey) -> Self {
        let names = names_of(observed, channel);
        let mut broadcasts = observed.broadcasts.state_filter(|broadcast| {
            let resolved = broadcast.status.as_ref().and_then(|status| status.resolved.as_ref());
            broadcast.namespace().as_deref() == Some(&channel.namespace)
                && resolved.is_some_and(|resolved| names.contains(&resolved.channel_ref.name))
        });
        broadcasts.sort_by_key(|broadcast| std::cmp::Reverse(broadcast.creation_timestamp()));
        Self { observed, namespace: &channel.namespace, broadcasts }
    }

    /// What a token or message id names.
    #[must_use]
    pub fn find(&self, id: &str) -> Named {
        let token = id.parse::<MessageToken>().ok();
        if let Some(token) = token.as_ref().filter(|token| self.uids().any(|uid| uid == token.broadcast)) {
            let page = self.observed.pages.page(self.namespace, &token.broadcast, token.page);
            return match page {
                Some(page) if token.row >= page.rows => Named::Stranger,
                Some(_) => {
                    self.at(&token.broadcast, token.page, token.row).map_or(Named::Nothing, Named::Row)
                }
                None => Named::Nothing,
            };
        }
        let ids = &self.observed.pages.message_ids;
        let by_id =
            self.uids().find_map(|uid| ids.find(&uid, id).and_then(|(page, row)| self.at(&uid, page, row)));
        match by_id {
            Some(at) => Named::Row(at),
            // Tokens are known before they are sent: this one is of another channel or a deleted Broadcast.
            None if token.is_some_and(|token| is_uuid(token.broadcast.as_str())) => Named::Stranger,
            None => Named::Nothing,
        }
    }

    /// Whether requests of this channel may be in flight, so that an id that is unknown now may be known soon. Another
    /// replica may send for it, and what it stores may not be in view yet; so it is not asked what is claimed, but what may be.
    #[must_use]
    pub fn may_have_sends_in_flight(&self, now: Timestamp) -> bool {
        self.broadcasts.iter().filter_map(|broadcast| broadcast.status.as_ref()).any(|status| {
            let ended = status.completion_time.as_ref().map(|time| time.0);
            let is_over = ended.is_some_and(|ended| now.duration_since(ended) > SEEN_WITHIN);
            status.audience_digest.is_some() && !is_over
        })
    }

    fn at(&self, broadcast: &BroadcastUid, page: usize, row: usize) -> Option<At> {
        let summary = self.observed.pages.page(self.namespace, broadcast, page)?;
        let is_it = |known: &&Arc<Broadcast>| known.uid().as_deref() == Some(broadcast.as_str());
        let resolved = self.broadcasts.iter().find(is_it)?.status.as_ref()?.resolved.as_ref()?;
        let channel = resolved.channel_ref.name.clone();
        let (page, broadcast) = (summary.key.clone(), broadcast.clone());
        (row < summary.rows).then_some(At { page, broadcast, row, channel })
    }

    fn uids(&self) -> impl Iterator<Item = BroadcastUid> + '_ {
        self.broadcasts.iter().filter_map(|broadcast| broadcast.uid()).map(BroadcastUid::new)
    }
}

/// The channels whose receipts come the same way: Meta has one webhook for all numbers of an app.
fn names_of(observed: &Observed, channel: &ObjectKey) -> Vec<String> {
    let app = |channel: &BroadcastChannel| channel.spec.whats_app.as_ref()?.app_secret_ref.clone();
    let own = observed.channel(channel).and_then(|channel| app(&channel));
    let others = observed.channels.state_filter(|other| {
        other.namespace().as_deref() == Some(&channel.namespace) && own.is_some() && app(other) == own
    });
    others.iter().map(|other| other.name_any()).chain([channel.name.clone()]).collect()
}

/// Whether this is a UID as the API server makes them, and not the beginning of a message id that looks like a token.
fn is_uuid(uid: &str) -> bool {
    let groups = uid.split('-').map(str::len);
    groups.eq([8, 4, 4, 4, 12]) && uid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}
