//! Broadcasts that receipts name and that are not in view here: deleted ones, and ones that this replica has not heard of yet, because
//! its watch is late. In: their UIDs. Out: which of them are there, as the API server says.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::api::ListParams;
use kube::{Api, Client};

use crate::api::Broadcast;
use crate::cluster::{ApiError, within};
use crate::domain::ids::BroadcastUid;

/// Broadcasts that are known to be gone: their receipts go on coming for days, and a UID never comes back.
const REMEMBERED: usize = 1024;
/// Broadcasts that are asked for at once.
const PER_LIST: u32 = 500;

/// Looks Broadcasts up. Shared by all requests.
#[derive(Default)]
pub struct Homes {
    gone: Mutex<VecDeque<BroadcastUid>>,
    /// One looks at a time: who waits for it may know the answer then.
    turn: tokio::sync::Mutex<()>,
}

impl Homes {
    /// Which of these Broadcasts are in a namespace.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn there(
        &self,
        client: &Client,
        namespace: &str,
        mut uids: BTreeSet<BroadcastUid>,
    ) -> Result<BTreeSet<BroadcastUid>, ApiError> {
        self.forget_gone(&mut uids);
        if uids.is_empty() {
            return Ok(uids);
        }
        let _turn = self.turn.lock().await;
        self.forget_gone(&mut uids);
        if uids.is_empty() {
            return Ok(uids);
        }
        let all = all_of(client, namespace).await?;
        let (there, gone): (BTreeSet<_>, BTreeSet<_>) = uids.into_iter().partition(|uid| all.contains(uid));
        let mut known = self.known();
        known.extend(gone);
        let over = known.len().saturating_sub(REMEMBERED);
        known.drain(..over);
        Ok(there)
    }

    fn forget_gone(&self, uids: &mut BTreeSet<BroadcastUid>) {
        let known = self.known();
        uids.retain(|uid| !known.contains(uid));
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<BroadcastUid>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn all_of(client: &Client, namespace: &str) -> Result<BTreeSet<BroadcastUid>, ApiError> {
    let api: Api<Broadcast> = Api::namespaced(client.clone(), namespace);
    let (mut params, mut found) = (ListParams::default().limit(PER_LIST), BTreeSet::new());
    loop {
        let list = within(api.list_metadata(&params)).await?;
        found.extend(list.items.into_iter().filter_map(|known| known.metadata.uid).map(BroadcastUid::new));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    fn uids(names: &[&str]) -> BTreeSet<BroadcastUid> {
        names.iter().map(|name| BroadcastUid::new((*name).to_owned())).collect()
    }

    #[tokio::test]
    async fn each_broadcast_that_is_gone_is_asked_for_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let known = json!({"metadata": {"name": "sale", "uid": "there"}});
            let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": [known]});
            let response = Response::builder().body(Body::from(list.to_string().into_bytes()));
            std::future::ready(Ok::<_, Infallible>(response.expect("a response")))
        });
        let (client, homes) = (Client::new(service, "shop"), Homes::default());
        for (wanted, found, looks) in [
            (uids(&["there", "gone"]), uids(&["there"]), 1),
            (uids(&["gone"]), uids(&[]), 1),
            (uids(&["there"]), uids(&["there"]), 2),
            (uids(&["gone", "other"]), uids(&[]), 3),
        ] {
            let there = homes.there(&client, "shop", wanted).await;
            assert_eq!(there.ok(), Some(found));
            assert_eq!(asked.load(Ordering::Relaxed), looks);
        }
        let many: Vec<String> = (0..2 * REMEMBERED).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(homes.there(&client, "shop", uids(&many)).await.is_ok_and(|there| there.is_empty()));
        assert_eq!(homes.known().len(), REMEMBERED);
    }
}
