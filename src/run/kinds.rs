//! Waits for the kinds that the operator works with.

use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::admin::Readiness;
use crate::api::{
    Broadcast, BroadcastBatch, BroadcastCampaign, BroadcastChannel, BroadcastJournal, BroadcastSuppression,
};
use crate::clock;
use crate::cluster::{ApiError, within};

/// Between two looks for the CRDs.
const CRD_POLL: Duration = Duration::from_secs(2);

/// Waits until all six kinds are served, and may be read in one namespace at least.
pub(super) async fn served(client: &Client, namespaces: &[String], readiness: &Readiness) {
    let places: Vec<Option<&str>> = match namespaces {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    loop {
        let mut reasons = Vec::new();
        for place in &places {
            let seen = [
                is_served::<Broadcast>(client, *place).await,
                is_served::<BroadcastChannel>(client, *place).await,
                is_served::<BroadcastBatch>(client, *place).await,
                is_served::<BroadcastJournal>(client, *place).await,
                is_served::<BroadcastCampaign>(client, *place).await,
                is_served::<BroadcastSuppression>(client, *place).await,
            ];
            reasons.extend(seen.into_iter().find_map(Result::err));
        }
        for reason in &reasons {
            tracing::warn!("{reason}");
        }
        if reasons.len() < places.len() {
            return readiness.open("crds");
        }
        readiness.close("crds", reasons.join("; "));
        clock::wait(CRD_POLL).await;
    }
}

async fn is_served<K>(client: &Client, namespace: Option<&str>) -> Result<(), String>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (kind, plural) = (K::kind(&()), K::plural(&()));
    match within(api.list_metadata(&ListParams::default().limit(1))).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_unknown_kind() => Err(format!(
            "kind {kind} is not installed: run `broadcast-operator crds | kubectl apply --server-side -f -`, or install the chart"
        )),
        Err(error) if error.is_forbidden() => {
            let place = namespace.unwrap_or("all namespaces");
            Err(format!(
                "the operator may not list {plural} in {place}: give its account the Roles of the chart"
            ))
        }
        Err(error @ (ApiError::Call(_) | ApiError::TimedOut)) => {
            Err(format!("failed to list {plural}: {error}"))
        }
    }
}
