//! Pages before the first send, and pages that a restart closes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Deref;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::core::DeserializeGuard;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::store::Base;
use super::{Ledger, LedgerError};
use crate::api::{BROADCAST_LABEL, Broadcast, BroadcastBatch, BroadcastBatchSpec, BroadcastIdentity};
use crate::clock;
use crate::cluster::{ApiError, as_seen, list_all, within};
use crate::domain::ids::{BroadcastUid, ObjectKey, page_name};
use crate::domain::page::Page;

/// Pages that are asked for at once: 5 MB at most, so that an answer stays well below the bound on a call.
const PAGES_PER_LIST: u32 = 100;

/// A page that is closed for ever. Only the ledger makes one, after the closing was stored.
#[derive(Clone, Debug)]
pub struct SealedPage(Page);

impl Deref for SealedPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.0
    }
}

impl Ledger {
    /// Creates page `index` of a Broadcast: first the recipients, then the outcomes. A page that an interrupted plan
    /// left with the same recipients is taken over, with its outcomes if it has any that can be read.
    ///
    /// # Errors
    /// [`LedgerError::Foreign`] when a page of this name has another owner or other recipients.
    pub async fn create_page(
        &self,
        broadcast: &Broadcast,
        index: usize,
        page: Page,
    ) -> Result<(), LedgerError> {
        let uid = BroadcastUid::new(broadcast.uid().unwrap_or_default());
        let created = self.create(broadcast, index, page).await;
        created.inspect_err(|error| match error {
            // Another process was faster: what stands there now is looked at anew.
            LedgerError::Api { source, .. } if source.is_conflict() => {}
            error => self.tell_of(error, &uid),
        })
    }

    async fn create(&self, broadcast: &Broadcast, index: usize, page: Page) -> Result<(), LedgerError> {
        let batch = batch_of(broadcast, index, &page);
        let key = ObjectKey::new(broadcast.namespace().unwrap_or_default(), batch.name_any());
        let api = self.api(&key.namespace);
        let created = match within(api.create(&PostParams::default(), &batch)).await {
            Ok(created) => created,
            Err(error) if error.is_already_exists() || error.is_ambiguous() => {
                self.created_before(&key, &batch, error).await?
            }
            Err(source) => return Err(LedgerError::Api { page: key, source }),
        };
        if Page::parse(&created).is_ok() {
            return Ok(());
        }
        let next = BroadcastBatch { status: Some(page.status()), ..created };
        self.put(&key, &next).await.map(drop)
    }

    /// Closes a page for ever. Rows that were not sent become Cancelled. Closing it again changes nothing.
    ///
    /// # Errors
    /// [`LedgerError::Claimed`] while requests of it are in flight, [`LedgerError::WentBack`] when it was put back in time.
    pub async fn seal(&self, page: &ObjectKey, broadcast: &BroadcastUid) -> Result<SealedPage, LedgerError> {
        let slot = self.slot(page);
        let mut stored = slot.lock().await;
        // The last stored version may be older than what another process has made of the page since.
        *stored = None;
        let now = clock::now();
        self.write(page, broadcast, &slot, &mut stored, Base::Latest, |content| {
            #[cfg(feature = "mutants")]
            if crate::mutants::is_on(crate::mutants::Mutant::SealOverClaim) {
                content.release_claim();
            }
            if !content.is_sealed() {
                content.seal(now).map_err(|_| LedgerError::Claimed { page: page.clone() })?;
            }
            Ok(SealedPage(content.clone()))
        })
        .await
    }

    /// All pages under the name of a Broadcast, of whatever UID, read from the API server. One that does not fit its schema is
    /// not among them, as if it were missing: it holds up its own Broadcast, and not the look at it.
    pub async fn stored_pages(&self, broadcast: &ObjectKey) -> Result<Vec<BroadcastBatch>, ApiError> {
        let api =
            Api::<DeserializeGuard<BroadcastBatch>>::namespaced(self.client.clone(), &broadcast.namespace);
        let pages = pages_under(&api, &broadcast.name).await?;
        Ok(pages.into_iter().filter_map(|page| page.0.ok()).collect())
    }

    /// Deletes a page that no sealed plan needs, if it is still as it was read.
    pub async fn delete_page(&self, batch: &BroadcastBatch) -> Result<(), ApiError> {
        let key = ObjectKey::new(batch.namespace().unwrap_or_default(), batch.name_any());
        let params = DeleteParams::default().preconditions(as_seen(batch));
        self.slot(&key).lock().await.take();
        match within(self.api(&key.namespace).delete(&key.name, &params)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn created_before(
        &self,
        key: &ObjectKey,
        wanted: &BroadcastBatch,
        error: ApiError,
    ) -> Result<BroadcastBatch, LedgerError> {
        let found = within(self.api(&key.namespace).get(&key.name)).await;
        let found = found.map_err(|_| LedgerError::Api { page: key.clone(), source: error })?;
        if found.spec == wanted.spec { Ok(found) } else { Err(LedgerError::Foreign { page: key.clone() }) }
    }
}

/// All pages under the name of a Broadcast, of whatever UID, some at a time and all of one moment.
pub async fn pages_under<K>(api: &Api<K>, broadcast: &str) -> Result<Vec<K>, ApiError>
where
    K: Clone + Debug + DeserializeOwned,
{
    let labels = format!("{BROADCAST_LABEL}={broadcast}");
    list_all(api, ListParams::default().limit(PAGES_PER_LIST).labels(&labels)).await
}

fn batch_of(broadcast: &Broadcast, index: usize, page: &Page) -> BroadcastBatch {
    let name = broadcast.name_any();
    let owner: OwnerReference =
        broadcast.controller_owner_ref(&()).expect("should have a name and a UID once stored");
    let identity = BroadcastIdentity { name: name.clone(), uid: owner.uid.clone() };
    let spec = BroadcastBatchSpec {
        broadcast: identity,
        index: i32::try_from(index).expect("should have fewer pages than i32 holds"),
        recipients: page.recipients_csv(),
    };
    BroadcastBatch {
        metadata: ObjectMeta {
            name: Some(page_name(&name, index)),
            namespace: broadcast.namespace(),
            labels: Some(BTreeMap::from([(BROADCAST_LABEL.to_owned(), name)])),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}
