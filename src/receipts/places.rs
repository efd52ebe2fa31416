//! Which row a receipt speaks of. In: a token or a message id, and the caches. Out: a page and a row, or nothing.

use std::sync::Arc;

use kube::ResourceExt;

use crate::api::Broadcast;
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::token::MessageToken;
use crate::observed::Observed;

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The page.
    pub page: ObjectKey,
    /// The Broadcast that the page belongs to.
    pub broadcast: BroadcastUid,
    /// Row in the page.
    pub row: usize,
}

/// The Broadcasts that were sent through one channel: a receipt settles no other channel's messages.
pub struct Places<'a> {
    observed: &'a Observed,
    namespace: &'a str,
    broadcasts: Vec<Arc<Broadcast>>,
}

impl<'a> Places<'a> {
    /// The places of this channel's messages.
    #[must_use]
    pub fn of(observed: &'a Observed, channel: &'a ObjectKey) -> Self {
        let mut broadcasts = observed.broadcasts.state_filter(|broadcast| {
            let resolved = broadcast.status.as_ref().and_then(|status| status.resolved.as_ref());
            broadcast.namespace().as_deref() == Some(&channel.namespace)
                && resolved.is_some_and(|resolved| resolved.channel_ref.name == channel.name)
        });
        broadcasts.sort_by_key(|broadcast| std::cmp::Reverse(broadcast.creation_timestamp()));
        Self { observed, namespace: &channel.namespace, broadcasts }
    }

    /// The row of a token or message id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<At> {
        if let Ok(token) = id.parse::<MessageToken>()
            && self.uids().any(|uid| uid == token.broadcast)
        {
            return self.at(&token.broadcast, token.page, token.row);
        }
        let ids = &self.observed.pages.message_ids;
        self.uids().find_map(|uid| ids.find(&uid, id).and_then(|(page, row)| self.at(&uid, page, row)))
    }

    /// Whether requests of this channel are in flight, so that an id that is unknown now may be known soon.
    #[must_use]
    pub fn has_sends_in_flight(&self) -> bool {
        self.uids().any(|uid| {
            let pages = self.observed.pages.of(self.namespace, &uid);
            pages.iter().any(|page| page.claim.is_some())
        })
    }

    fn at(&self, broadcast: &BroadcastUid, page: usize, row: usize) -> Option<At> {
        let summary = self.observed.pages.page(self.namespace, broadcast, page)?;
        (row < summary.rows).then(|| At { page: summary.key.clone(), broadcast: broadcast.clone(), row })
    }

    fn uids(&self) -> impl Iterator<Item = BroadcastUid> + '_ {
        self.broadcasts.iter().filter_map(|broadcast| broadcast.uid()).map(BroadcastUid::new)
    }
}
