//! One write of one lease. In: a lease as it is to be. Out: the lease that stands there afterwards, whoever wrote it.

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};

use super::names::replica_lease;
use super::objects;
use crate::cluster::{ApiError, as_seen, within};
use crate::domain::ids::ReplicaId;

/// One write of one lease.
pub(super) enum Write {
    Create(Lease),
    /// A lease that is this process's, or nobody's.
    Replace(Lease),
    /// A lease of a replica that is not in view. It may have come just now, so its own lease is asked for first.
    TakeOver(Lease, ReplicaId),
    /// The lease of a replica that was silent for too long, with the mark that says so.
    GiveUp(Lease),
    Delete(Arc<Lease>),
}

/// A lease after a write, whoever made the last one; `None` when there is none any more.
pub(super) type Found = Option<Lease>;

/// Makes a write. Who fails because the lease is not as it was seen, or does not know, finds what stands there now.
pub(super) async fn make(api: &Api<Lease>, group: &str, write: &Write) -> Result<Found, ApiError> {
    if let Write::TakeOver(_, holder) = write {
        match within(api.get(&replica_lease(group, holder))).await {
            // Its id is never used again, so it never comes back.
            Ok(lease) if objects::is_given_up(&lease) => {}
            // It lives, and is known from now on.
            Ok(lease) => return Ok(Some(lease)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let (name, written) = match write {
        Write::Create(lease) => {
            (lease.name_any(), within(api.create(&PostParams::default(), lease)).await.map(Some))
        }
        Write::Replace(lease) | Write::TakeOver(lease, _) | Write::GiveUp(lease) => {
            let name = lease.name_any();
            let written = within(api.replace(&name, &PostParams::default(), lease)).await;
            (name, written.map(Some))
        }
        Write::Delete(lease) => {
            let params = DeleteParams::default().preconditions(as_seen(lease.as_ref()));
            (lease.name_any(), within(api.delete(&lease.name_any(), &params)).await.map(|_| None))
        }
    };
    match written {
        // Somebody else was first, or nobody knows: what stands there now decides.
        Err(error) if error.is_conflict() || error.is_already_exists() || error.is_ambiguous() => {
            match within(api.get(&name)).await {
                Ok(lease) => Ok(Some(lease)),
                Err(missing) if missing.is_not_found() => Ok(None),
                Err(_) => Err(error),
            }
        }
        Err(error) if error.is_not_found() => Ok(None),
        written => written,
    }
}
