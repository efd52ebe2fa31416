//! Broadcasts as receipts ask for them, of which there may be thousands a second: by UID, and by channel when each was complete.
//!
//! In: changes of Broadcasts. Out: one of them, or a time. None of the answers takes longer when more Broadcasts are kept.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::Broadcast;
use crate::domain::ids::{BroadcastUid, ObjectKey};

/// All Broadcasts. It holds them as the watch does, and no copy.
#[derive(Debug, Default)]
pub struct ByUid {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    broadcasts: HashMap<BroadcastUid, Arc<Broadcast>>,
    uids: HashMap<ObjectKey, BroadcastUid>,
    /// When the sealed ones of each channel were complete; at the end, those that are not yet.
    ends: HashMap<ObjectKey, BTreeSet<(Timestamp, BroadcastUid)>>,
}

impl ByUid {
    /// The Broadcast with this UID, if it is in this namespace.
    #[must_use]
    pub fn find(&self, namespace: &str, uid: &BroadcastUid) -> Option<Arc<Broadcast>> {
        let found = self.lock().broadcasts.get(uid).cloned();
        found.filter(|broadcast| broadcast.metadata.namespace.as_deref() == Some(namespace))
    }

    /// When the last sealed Broadcast of a channel was complete; the end of all times while one is not. `None`: there is none.
    #[must_use]
    pub fn last_end(&self, channel: &ObjectKey) -> Option<Timestamp> {
        self.lock().ends.get(channel)?.last().map(|(end, _)| *end)
    }

    pub(super) fn note(&self, broadcast: &Arc<Broadcast>) {
        let (key, uid) = (key_of(broadcast), BroadcastUid::new(broadcast.uid().unwrap_or_default()));
        let mut known = self.lock();
        known.forget(&key);
        if let Some((channel, end)) = end_of(broadcast) {
            known.ends.entry(channel).or_default().insert((end, uid.clone()));
        }
        known.uids.insert(key, uid.clone());
        known.broadcasts.insert(uid, broadcast.clone());
    }

    pub(super) fn forget(&self, broadcast: &Broadcast) {
        self.lock().forget(&key_of(broadcast));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Drops the Broadcast of this name, whichever it was.
    fn forget(&mut self, key: &ObjectKey) {
        let Some(uid) = self.uids.remove(key) else { return };
        let Some((channel, end)) = self.broadcasts.remove(&uid).and_then(|broadcast| end_of(&broadcast))
        else {
            return;
        };
        if let Some(ends) = self.ends.get_mut(&channel) {
            ends.remove(&(end, uid));
            if ends.is_empty() {
                self.ends.remove(&channel);
            }
        }
    }
}

fn key_of(broadcast: &Broadcast) -> ObjectKey {
    ObjectKey::new(broadcast.namespace().unwrap_or_default(), broadcast.name_any())
}

/// The channel of a sealed Broadcast, and when it was complete.
fn end_of(broadcast: &Broadcast) -> Option<(ObjectKey, Timestamp)> {
    let status = broadcast.status.as_ref().filter(|status| status.audience_digest.is_some())?;
    let channel = &status.resolved.as_ref()?.channel_ref.name;
    let end = status.completion_time.as_ref().map_or(Timestamp::MAX, |time| time.0);
    Some((ObjectKey::new(broadcast.namespace().unwrap_or_default(), channel), end))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn broadcast(name: &str, uid: &str, channel: &str, completed: Option<&str>) -> Arc<Broadcast> {
        let resolved = json!({"channelRef": {"name": channel}, "message": {"text": "Hi"}});
        let broadcast = json!({
            "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "Broadcast",
            "metadata": {"name": name, "namespace": "shop", "uid": uid},
            "spec": {"message": {"text": "Hi"}, "recipients": {"csv": "1"}},
            "status": {"audienceDigest": "d", "resolved": resolved, "completionTime": completed},
        });
        Arc::new(serde_json::from_value(broadcast).expect("a Broadcast"))
    }

    fn uid(text: &str) -> BroadcastUid {
        BroadcastUid::new(text.into())
    }

    #[test]
    fn a_broadcast_is_found_in_its_own_namespace_until_it_or_its_name_is_gone() {
        let all = ByUid::default();
        let found = |namespace, wanted| all.find(namespace, &uid(wanted)).map(|found| found.name_any());
        all.note(&broadcast("sale", "a", "sms", None));
        assert_eq!(found("shop", "a").as_deref(), Some("sale"));
        assert_eq!((found("other", "a"), found("shop", "b")), (None, None));
        // It was made anew under its name.
        all.note(&broadcast("sale", "b", "sms", None));
        assert_eq!((found("shop", "a"), found("shop", "b").as_deref()), (None, Some("sale")));
        all.forget(&broadcast("sale", "b", "sms", None));
        assert_eq!(found("shop", "b"), None);
        let known = all.lock();
        assert!(known.uids.is_empty() && known.ends.is_empty());
    }

    #[test]
    fn the_last_end_of_a_channel_is_that_of_the_broadcasts_that_are_there() {
        let all = ByUid::default();
        let last = |channel| all.last_end(&ObjectKey::new("shop", channel)).map(|end| end.to_string());
        let (early, late) = ("2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z");
        assert_eq!(last("sms"), None);
        all.note(&broadcast("early", "a", "sms", Some(early)));
        all.note(&broadcast("late", "b", "sms", Some(late)));
        all.note(&broadcast("other", "c", "mail", None));
        assert_eq!(last("sms").as_deref(), Some(late));
        assert_eq!(last("mail"), Some(Timestamp::MAX.to_string()));
        // It goes on, and is complete again.
        all.note(&broadcast("early", "a", "sms", None));
        assert_eq!(last("sms"), Some(Timestamp::MAX.to_string()));
        all.note(&broadcast("early", "a", "sms", Some(early)));
        assert_eq!(last("sms").as_deref(), Some(late));
        all.forget(&broadcast("late", "b", "sms", None));
        assert_eq!(last("sms").as_deref(), Some(early));
    }
}
