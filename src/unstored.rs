//! Pages that the API server does not store, for people (client required). In: what the ledger says of them. Out: a metric, and an
//! event on the Broadcast, whose status goes on saying that it sends: what it waits for only this process knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::events::Recorder;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::api::Broadcast;
use crate::clock;
use crate::domain::ids::{ObjectKey, broadcast_of};
use crate::events;
use crate::ledger::{Ledger, NotStored};
use crate::metrics::Metrics;

/// Why a Broadcast does not go on, as events and conditions say it.
pub const REASON: &str = "BatchNotStored";
/// Events of one page at most: a write is tried again every few seconds, and events live for an hour.
const TELL_AGAIN: Duration = Duration::from_secs(300);

/// What a person reads.
#[must_use]
pub fn message(page: &str, error: &str) -> String {
    format!(
        "batch {page} cannot be stored: {error}. Until it can, nothing more of it is sent. It is tried again and again: look at \
         admission webhooks and policies, quotas, and the rights of the operator"
    )
}

/// Counts and tells until `ended`.
pub async fn tell(ledger: Arc<Ledger>, recorder: Recorder, metrics: Metrics, ended: CancellationToken) {
    let mut refusals = ledger.refusals();
    let mut told = Told::default();
    loop {
        let refused = tokio::select! {
            refused = refusals.recv() => refused,
            () = ended.cancelled() => return,
        };
        match refused {
            Ok(refused) => {
                metrics.not_stored(refused.category);
                if refused.was_answered && told.is_news(&refused.page, clock::monotonic()) {
                    let message = message(&refused.page.name, &refused.error);
                    events::warn(&recorder, &reference(&refused), REASON, message).await;
                }
            }
            // There are too many to tell of each.
            Err(RecvError::Lagged(_)) => {}
            // The ledger lives as long as this task.
            Err(RecvError::Closed) => return,
        }
    }
}

fn reference(refused: &NotStored) -> ObjectReference {
    ObjectReference {
        api_version: Some(Broadcast::api_version(&()).into_owned()),
        kind: Some(Broadcast::kind(&()).into_owned()),
        namespace: Some(refused.page.namespace.clone()),
        name: Some(broadcast_of(&refused.page.name).to_owned()),
        uid: Some(refused.broadcast.as_str().to_owned()),
        ..ObjectReference::default()
    }
}

/// When which page was told of last.
#[derive(Default)]
struct Told(HashMap<ObjectKey, Instant>);

impl Told {
    fn is_news(&mut self, page: &ObjectKey, now: Instant) -> bool {
        self.0.retain(|_, last| now < *last + TELL_AGAIN);
        let is_news = !self.0.contains_key(page);
        if is_news {
            self.0.insert(page.clone(), now);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_refused_again_and_again_is_told_of_now_and_then() {
        let (mut told, start) = (Told::default(), clock::monotonic());
        let (page, other) = (ObjectKey::new("shop", "sale-00000"), ObjectKey::new("shop", "sale-00001"));
        assert!(told.is_news(&page, start));
        assert!(!told.is_news(&page, start + TELL_AGAIN.mul_f64(0.9)));
        assert!(told.is_news(&other, start));
        assert!(told.is_news(&page, start + TELL_AGAIN));
        assert_eq!(told.0.len(), 1, "what is stored takes no memory");
    }

    #[test]
    fn the_event_is_on_the_broadcast_of_the_page() {
        let refused = NotStored {
            page: ObjectKey::new("shop", "spring-sale-00003"),
            broadcast: crate::domain::ids::BroadcastUid::new("uid".into()),
            was_answered: true,
            category: "TooLarge",
            error: "too large".into(),
        };
        let of = reference(&refused);
        assert_eq!((of.kind.as_deref(), of.name.as_deref()), (Some("Broadcast"), Some("spring-sale")));
        assert_eq!(of.uid.as_deref(), Some("uid"));
    }
}
