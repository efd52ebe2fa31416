//! Reading what an account needs: the channel's settings, and the token from its Secret.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::super::Context;
use crate::api::{BroadcastChannel, BroadcastChannelSpec, KeyRef, Limits};
use crate::cluster::within;
use crate::domain::answer::{Answer, Refusal, RefusalKind, SenderTrouble};
use crate::domain::ids::ObjectKey;
use crate::providers::SecretValues;
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

/// Whether a changed channel sends to the same gateway, with the same credentials.
pub(super) fn is_same_gateway(before: &BroadcastChannel, after: &BroadcastChannel) -> bool {
    let settings = |channel: &BroadcastChannel| BroadcastChannelSpec {
        limits: Limits::default(),
        error_policy: Vec::new(),
        paused: false,
        ..channel.spec.clone()
    };
    settings(before) == settings(after)
}

/// Settings and credentials, read.
pub(in crate::dispatcher) struct Opened {
    pub(super) gateway: Gateway,
    pub(super) secrets: SecretValues,
    /// What the provider said when it was asked whether the credentials are good.
    pub(super) probed: Probed,
}

/// Whether credentials are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dispatcher) enum Probed {
    /// The provider says so.
    Good,
    /// The provider refuses them.
    Refused(SenderTrouble, String),
    /// It cannot be asked, or did not say.
    Unknown,
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

/// Reads settings and credentials of a channel, and asks the provider about them unless they are `known_to_be_bad`.
pub(in crate::dispatcher) async fn read(
    context: &Context,
    key: &ObjectKey,
    channel: &BroadcastChannel,
    known_to_be_bad: Option<&SecretValues>,
) -> Result<Opened, Trouble> {
    let mut secrets = SecretValues::default();
    for reference in channel.spec.sending_secrets() {
        secrets.insert(reference, secret_value(context, &key.namespace, reference).await?);
    }
    let gateway = Gateway::new(key, &channel.spec, &secrets, &context.addresses)
        .map_err(|error| Trouble { reason: error.category(), message: error.to_string() })?;
    if known_to_be_bad == Some(&secrets) {
        return Ok(Opened { gateway, secrets, probed: Probed::Unknown });
    }
    let probed = match gateway.probe().await {
        Some(Answer::Accepted { .. }) => Probed::Good,
        Some(Answer::Refused(Refusal { kind: RefusalKind::Sender(trouble), code, detail, .. })) => {
            let detail = if code.is_empty() { detail } else { format!("{code}: {detail}") };
            Probed::Refused(trouble, detail)
        }
        Some(_) | None => Probed::Unknown,
    };
    Ok(Opened { gateway, secrets, probed })
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
    match text.trim() {
        "" => Err(Trouble {
            reason: "SecretKeyEmpty",
            message: format!("key {key} of Secret {name} is empty: fill it"),
        }),
        text => Ok(text.to_owned()),
    }
}
