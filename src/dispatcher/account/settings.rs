//! Reading what an account needs: the channel's settings, and the token from its Secret.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::super::Context;
use crate::api::{BroadcastChannel, KeyRef};
use crate::cluster::within;
use crate::domain::ids::ObjectKey;
use crate::providers::gateway::Gateway;

/// Which channel was read: another one of the same name counts its generations from 1 again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dispatcher) struct Version {
    uid: Option<String>,
    generation: Option<i64>,
}

impl Version {
    pub(in crate::dispatcher) fn of(channel: &BroadcastChannel) -> Self {
        Self { uid: channel.uid(), generation: channel.metadata.generation }
    }
}

/// Settings and credentials, read.
pub(in crate::dispatcher) struct Opened {
    pub(super) gateway: Gateway,
    pub(super) token: Option<String>,
}

/// Why settings or credentials cannot be used.
pub(in crate::dispatcher) struct Trouble {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Trouble {
    /// The reading itself came to no end.
    pub(in crate::dispatcher) fn interrupted() -> Self {
        Self {
            reason: "Interrupted",
            message: "reading the channel's settings was interrupted, trying again".into(),
        }
    }
}

/// Reads settings and credentials of a channel.
pub(in crate::dispatcher) async fn read(
    context: &Context,
    key: &ObjectKey,
    channel: &BroadcastChannel,
) -> Result<Opened, Trouble> {
    let http = channel.spec.http.as_ref().ok_or_else(|| Trouble {
        reason: "InvalidSpec",
        message: "provider HTTP needs spec.http with the url of the gateway".into(),
    })?;
    let token = match &http.token_secret_ref {
        Some(reference) => Some(secret_value(context, &key.namespace, reference).await?),
        None => None,
    };
    let gateway = Gateway::new(http, token.as_deref(), &context.addresses)
        .map_err(|error| Trouble { reason: error.category(), message: error.to_string() })?;
    Ok(Opened { gateway, token })
}

async fn secret_value(context: &Context, namespace: &str, reference: &KeyRef) -> Result<String, Trouble> {
    let KeyRef { name, key } = reference;
    let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let secret = within(api.get(name)).await.map_err(|error| match error.is_not_found() {
        true => Trouble {
            reason: "SecretNotFound",
            message: format!("Secret {name} does not exist: create it with key {key}"),
        },
        false => {
            Trouble { reason: "SecretUnreadable", message: format!("failed to read Secret {name}: {error}") }
        }
    })?;
    let value = secret.data.as_ref().and_then(|data| data.get(key)).ok_or_else(|| Trouble {
        reason: "SecretKeyNotFound",
        message: format!("Secret {name} has no key {key}: add it"),
    })?;
    let text = std::str::from_utf8(&value.0).map_err(|_| Trouble {
        reason: "InvalidToken",
        message: format!("key {key} of Secret {name} is not text"),
    })?;
    Ok(text.trim().to_owned())
}
