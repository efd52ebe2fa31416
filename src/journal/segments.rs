//! Journals in the cluster (client required): each is written once, read, and deleted.
//!
//! One that does not fit its schema comes as an error of its own, and keeps nobody from the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::{Api, Client, Resource, ResourceExt};

use super::Owner;
use crate::api::{
    BROADCAST_LABEL, BROADCAST_UID_LABEL, Broadcast, BroadcastIdentity, BroadcastJournal,
    BroadcastJournalSpec,
};
use crate::cluster::{ApiError, as_seen, list_all, list_some, within};
use crate::domain::ids::{BroadcastUid, Incarnation, ObjectKey};
use crate::domain::journal::Receipts;

/// Letters of the id of the process in the names of its journals. A name that is there already says that it was stored.
const ID_LENGTH: usize = 16;
/// Journals that are asked for at once: 5 MB at most.
const JOURNALS_PER_LIST: u32 = 100;

/// A journal as it is stored, if it fits its schema.
pub(super) type Stored = DeserializeGuard<BroadcastJournal>;

/// A stored journal: what is needed to know whether it was taken in whole, and to delete it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) key: ObjectKey,
    /// Numbers of the pages that it has receipts of.
    pages: Box<[usize]>,
    uid: Option<String>,
    resource_version: Option<String>,
}

impl Segment {
    pub(super) fn of(journal: &BroadcastJournal, receipts: &Receipts) -> Self {
        Self {
            key: key_of(journal),
            pages: receipts.pages().into_iter().collect(),
            uid: journal.uid(),
            resource_version: journal.resource_version(),
        }
    }

    /// Numbers of the pages that it has receipts of.
    pub(super) fn pages(&self) -> impl Iterator<Item = usize> + '_ {
        self.pages.iter().copied()
    }

    /// Whether it has receipts of one of these pages.
    pub(super) fn is_of(&self, pages: &BTreeSet<usize>) -> bool {
        self.pages().any(|page| pages.contains(&page))
    }
}

/// Namespace and name of a stored journal.
pub(super) fn key_of(journal: &impl ResourceExt) -> ObjectKey {
    ObjectKey::new(journal.namespace().unwrap_or_default(), journal.name_any())
}

/// Reads and writes journals.
pub(super) struct Segments {
    client: Client,
    id: String,
    number: AtomicU64,
}

impl Segments {
    pub(super) fn new(client: Client, incarnation: &Incarnation) -> Self {
        let id = incarnation.as_str().chars().take(ID_LENGTH).collect::<String>().to_ascii_lowercase();
        Self { client, id, number: AtomicU64::new(0) }
    }

    /// A journal that is not stored yet, under a name of its own.
    pub(super) fn make(&self, owner: &Owner, receipts: &Receipts) -> BroadcastJournal {
        let Owner { key, uid } = owner;
        let own = self.number.fetch_add(1, Ordering::Relaxed);
        let identity = BroadcastIdentity { name: key.name.clone(), uid: uid.as_str().to_owned() };
        let labels = [(BROADCAST_LABEL, &identity.name), (BROADCAST_UID_LABEL, &identity.uid)];
        BroadcastJournal {
            metadata: ObjectMeta {
                name: Some(format!("{}-{}-{own}", key.name, self.id)),
                namespace: Some(key.namespace.clone()),
                labels: Some(BTreeMap::from(labels.map(|(label, value)| (label.to_owned(), value.clone())))),
                owner_references: Some(vec![owned_by(&identity)]),
                ..ObjectMeta::default()
            },
            spec: BroadcastJournalSpec {
                broadcast: identity,
                number: i32::try_from(receipts.len()).unwrap_or(i32::MAX),
                receipts: receipts.text(),
            },
        }
    }

    /// Stores a journal, once. One that is there already is that of an earlier try, whose answer was lost.
    pub(super) async fn create(&self, journal: &BroadcastJournal) -> Result<BroadcastJournal, ApiError> {
        let api = self.api::<BroadcastJournal>(journal.metadata.namespace.as_deref());
        match within(api.create(&PostParams::default(), journal)).await {
            Err(error) if error.is_already_exists() => {
                let found = within(api.get(&journal.name_any())).await?;
                if found.spec == journal.spec { Ok(found) } else { Err(error) }
            }
            created => created,
        }
    }

    /// The journals of a Broadcast, as they are stored now.
    pub(super) async fn of(&self, owner: &Owner) -> Result<Vec<Stored>, ApiError> {
        let labels = format!("{BROADCAST_LABEL}={}", owner.key.name);
        let params = ListParams::default().limit(JOURNALS_PER_LIST).labels(&labels);
        let mut found = list_all(&self.api::<Stored>(Some(&owner.key.namespace)), params).await?;
        found.retain(|journal| uid_of(journal).is_none_or(|uid| uid == owner.uid.as_str()));
        Ok(found)
    }

    /// Journals of a namespace, or of all: so many at most, from the beginning or where an earlier list ended. Out: also where this
    /// one ended, if there are more.
    pub(super) async fn some(
        &self,
        namespace: Option<&str>,
        from: Option<&str>,
        most: usize,
    ) -> Result<(Vec<Stored>, Option<String>), ApiError> {
        let params = ListParams { continue_token: from.map(str::to_owned), ..ListParams::default() };
        list_some(&self.api::<Stored>(namespace), params.limit(JOURNALS_PER_LIST), most).await
    }

    /// Whether the very Broadcast is there. Asked of the API server: what a watch shows may be late, or not fit its schema, and what
    /// is thrown away by it does not come back.
    pub(super) async fn has_broadcast(&self, owner: &Owner) -> Result<bool, ApiError> {
        let Owner { key, uid } = owner;
        match within(self.api::<Broadcast>(Some(&key.namespace)).get_metadata(&key.name)).await {
            Ok(found) => Ok(found.metadata.uid.as_deref() == Some(uid.as_str())),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a journal that was taken in, if it is still the very one. One that is gone was deleted by somebody who took it in too,
    /// or with its Broadcast.
    pub(super) async fn delete(&self, segment: &Segment) -> Result<(), ApiError> {
        let Segment { key, pages: _, uid, resource_version } = segment;
        let api = self.api(Some(&key.namespace));
        let seen = Preconditions { uid: uid.clone(), resource_version: resource_version.clone() };
        let deleted = match within(api.delete(&key.name, &DeleteParams::default().preconditions(seen))).await
        {
            // What it says never changes, but somebody may have put a label on it.
            Err(error) if error.is_conflict() => self.delete_changed(&api, segment).await,
            deleted => deleted.map(drop),
        };
        match deleted {
            Err(error) if error.is_not_found() => Ok(()),
            finished => finished,
        }
    }

    async fn delete_changed(&self, api: &Api<BroadcastJournal>, segment: &Segment) -> Result<(), ApiError> {
        let found = within(api.get_metadata(&segment.key.name)).await?;
        if found.metadata.uid != segment.uid {
            return Ok(());
        }
        let params = DeleteParams::default().preconditions(as_seen(&found));
        within(api.delete(&segment.key.name, &params)).await.map(drop)
    }

    fn api<K>(&self, namespace: Option<&str>) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

/// UID of the Broadcast of a stored journal. One that does not fit its schema says it by a label, if at all.
fn uid_of(journal: &Stored) -> Option<&str> {
    match &journal.0 {
        Ok(journal) => Some(&journal.spec.broadcast.uid),
        Err(invalid) => invalid.metadata.labels.as_ref()?.get(BROADCAST_UID_LABEL).map(String::as_str),
    }
}

/// The Broadcast of a stored journal, if it can be read.
pub(super) fn owner_of(journal: &Stored) -> Option<Owner> {
    let BroadcastIdentity { name, uid } = &journal.0.as_ref().ok()?.spec.broadcast;
    Some(Owner {
        key: ObjectKey::new(journal.namespace().unwrap_or_default(), name),
        uid: BroadcastUid::new(uid.clone()),
    })
}

fn owned_by(broadcast: &BroadcastIdentity) -> OwnerReference {
    OwnerReference {
        api_version: Broadcast::api_version(&()).into_owned(),
        kind: Broadcast::kind(&()).into_owned(),
        name: broadcast.name.clone(),
        uid: broadcast.uid.clone(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}
