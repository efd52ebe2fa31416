//! Broadcasts that receipts name and that are not in view here: deleted ones, and ones that this replica has not heard of yet, because
//! its watch is late. In: their UIDs. Out: which of them are there, as the API server says.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::Mutex as AsyncMutex;

use crate::api::Broadcast;
use crate::clock;
use crate::cluster::{ApiError, within};
use crate::domain::ids::BroadcastUid;

/// Broadcasts that are known to be gone: their receipts go on coming for days, and a UID never comes back.
const REMEMBERED: usize = 1024;
/// Broadcasts that are asked for at once.
const PER_LIST: u32 = 500;
/// Between two looks at a namespace: whoever names tokens that nobody made causes no more of them. Those that come meanwhile wait for
/// the next look, and are not told to come again: not every provider would.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Why it is not known which Broadcasts are there.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The API server does not say.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It did not say so to another request, which asked for this one too.
    #[error("failed to list the Broadcasts of the namespace for another request")]
    Shared,
}

/// Looks Broadcasts up. Shared by all requests.
pub struct Homes {
    between_looks: Duration,
    gone: Mutex<Gone>,
    namespaces: Mutex<HashMap<String, Arc<Looks>>>,
}

/// The last look at a namespace. One looks at a time, for all who wait then.
type Looks = AsyncMutex<Option<Look>>;

struct Look {
    began: Instant,
    /// `None`: it failed.
    there: Option<BTreeSet<BroadcastUid>>,
}

/// A namespace, and a UID that is not in it.
type Absent = (String, BroadcastUid);

/// UIDs in the order in which they were found not to be in a namespace. They may be in another one.
#[derive(Default)]
struct Gone {
    order: VecDeque<Absent>,
    known: HashSet<Absent>,
}

impl Default for Homes {
    fn default() -> Self {
        Self::of(BETWEEN_LOOKS)
    }
}

impl Homes {
    fn of(between_looks: Duration) -> Self {
        Self { between_looks, gone: Mutex::default(), namespaces: Mutex::default() }
    }

    /// Which of these Broadcasts are in a namespace.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn there(
        &self,
        client: &Client,
        namespace: &str,
        mut uids: BTreeSet<BroadcastUid>,
    ) -> Result<BTreeSet<BroadcastUid>, LookError> {
        self.gone().forget(namespace, &mut uids);
        if uids.is_empty() {
            return Ok(uids);
        }
        let (asked, looks) = (clock::monotonic(), self.looks(namespace));
        let mut last = looks.lock().await;
        // A look that began after the question answers it.
        if last.as_ref().is_none_or(|look| look.began < asked) {
            if let Some(look) = last.as_ref() {
                clock::wait(self.between_looks.saturating_sub(look.began.elapsed())).await;
            }
            let look = last.insert(Look { began: clock::monotonic(), there: None });
            look.there = Some(all_of(client, namespace).await?);
        }
        let all = last.as_ref().and_then(|look| look.there.as_ref()).ok_or(LookError::Shared)?;
        let (there, gone): (BTreeSet<_>, BTreeSet<_>) = uids.into_iter().partition(|uid| all.contains(uid));
        self.gone().add(namespace, gone);
        Ok(there)
    }

    /// The last look at a namespace. Those at which nobody looks, and nobody has looked lately, are forgotten.
    fn looks(&self, namespace: &str) -> Arc<Looks> {
        let mut all = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(looks) = all.get(namespace) {
            return looks.clone();
        }
        let is_late = |look: &Look| look.began.elapsed() < self.between_looks;
        all.retain(|_, looks| looks.try_lock().map_or(true, |look| look.as_ref().is_some_and(is_late)));
        all.entry(namespace.to_owned()).or_default().clone()
    }

    fn gone(&self) -> MutexGuard<'_, Gone> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gone {
    /// Takes those that are known to be gone out of these.
    fn forget(&self, namespace: &str, uids: &mut BTreeSet<BroadcastUid>) {
        uids.retain(|uid| !self.known.contains(&(namespace.to_owned(), uid.clone())));
    }

    fn add(&mut self, namespace: &str, gone: BTreeSet<BroadcastUid>) {
        for uid in gone {
            let absent = (namespace.to_owned(), uid);
            if self.known.insert(absent.clone()) {
                self.order.push_back(absent);
            }
            if self.order.len() > REMEMBERED {
                self.order.pop_front().map(|oldest| self.known.remove(&oldest));
            }
        }
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// Looks may follow each other at once.
    const AT_ONCE: Duration = Duration::ZERO;
    /// Long enough to be seen.
    const PAUSE: Duration = Duration::from_millis(50);

    fn uids(names: &[&str]) -> BTreeSet<BroadcastUid> {
        names.iter().map(|name| BroadcastUid::new((*name).to_owned())).collect()
    }

    /// A cluster with one Broadcast, `there`, in each namespace but `silent`, of which nothing is heard. Out: how often it was asked.
    fn cluster() -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let is_silent = request.uri().path().contains("/namespaces/silent/");
            async move {
                if is_silent {
                    std::future::pending::<()>().await;
                }
                let known = json!({"metadata": {"name": "sale", "uid": "there"}});
                let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": [known]});
                let response = Response::builder().body(Body::from(list.to_string().into_bytes()));
                Ok::<_, Infallible>(response.expect("a response"))
            }
        });
        (Client::new(service, "shop"), asked)
    }

    #[tokio::test]
    async fn each_broadcast_that_is_gone_is_asked_for_once() {
        let ((client, asked), homes) = (cluster(), Homes::of(AT_ONCE));
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
        let gone = homes.gone();
        assert_eq!((gone.order.len(), gone.known.len()), (REMEMBERED, REMEMBERED));
    }

    #[tokio::test]
    async fn what_is_not_in_one_namespace_may_be_in_another() {
        let ((client, asked), homes) = (cluster(), Homes::of(AT_ONCE));
        let there = homes.there(&client, "shop", uids(&["elsewhere"])).await;
        assert_eq!((there.ok(), asked.load(Ordering::Relaxed)), (Some(uids(&[])), 1));
        let there = homes.there(&client, "other", uids(&["elsewhere"])).await;
        assert_eq!(
            (there.ok(), asked.load(Ordering::Relaxed)),
            (Some(uids(&[])), 2),
            "it is asked for there"
        );
    }

    #[tokio::test]
    async fn tokens_that_nobody_made_cause_one_look_for_all_that_came_before_it() {
        let ((client, asked), homes) = (cluster(), Homes::of(PAUSE));
        let began = clock::monotonic();
        let made_up = (0..100).map(|number| {
            let (client, homes, uid) = (client.clone(), &homes, format!("made up {number}"));
            async move { homes.there(&client, "shop", uids(&[&uid, "there"])).await }
        });
        for there in join_all(made_up).await {
            assert_eq!(there.ok(), Some(uids(&["there"])), "what is there is never said to be gone");
        }
        // One for the first of them, and one for all others.
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(began.elapsed() >= PAUSE);
    }

    #[tokio::test]
    async fn a_namespace_of_which_nothing_is_heard_holds_up_no_other() {
        let ((client, _), homes) = (cluster(), Homes::default());
        let mut silent = Box::pin(homes.there(&client, "silent", uids(&["lost"])));
        assert!(futures::poll!(&mut silent).is_pending());
        let other = homes.there(&client, "shop", uids(&["there"]));
        tokio::select! {
            there = other => assert_eq!(there.ok(), Some(uids(&["there"]))),
            _ = silent => panic!("nothing was heard of it"),
        }
    }
}
