//! Reading what an account needs: the channel's settings, and the token from its Secret.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::super::Context;
use crate::api::{BroadcastChannel, BroadcastChannelSpec, KeyRef, Limits};
use crate::cluster::within;
use crate::domain::answer::{Answer, Refusal, RefusalKind, SenderTrouble};
use crate::domain::chat::{ChatRules, invalid_region};
use crate::domain::ids::ObjectKey;
use crate::providers::gateway::Gateway;
use crate::providers::{SecretDigest, SecretValues};

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
        default_region: None,
        limits: Limits::default(),
        error_policy: Vec::new(),
        paused: false,
        ..channel.spec.clone()
    };
    settings(before) == settings(after)
}

/// What need not be found out anew when settings and credentials are read.
pub(in crate::dispatcher) struct Known {
    /// The gateway behind the open door, and the credentials that it was made with.
    pub(super) held: Option<(SecretDigest, Gateway)>,
    /// Credentials that the provider need not be asked about.
    pub(super) told: Vec<SecretDigest>,
    /// The gateway is not to be asked anything now.
    pub(super) is_left_alone: bool,
}

impl Known {
    /// Whether the provider is to be asked whether these are good.
    pub(super) fn asks_about(&self, credentials: SecretDigest) -> bool {
        !self.is_left_alone && !self.told.contains(&credentials)
    }
}

/// Settings and credentials, read.
pub(in crate::dispatcher) struct Opened {
    pub(super) gateway: Gateway,
    pub(super) credentials: SecretDigest,
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
    /// It was not asked: it cannot be, or need not.
    NotAsked,
    /// It was asked, and did not say.
    NotTold {
        /// Why not.
        detail: String,
        /// How long it wants to be left alone.
        wait: Option<Duration>,
    },
}

impl Probed {
    /// What the provider answered when it was asked.
    pub(super) fn by(answer: Answer) -> Self {
        match answer {
            Answer::Accepted { .. } => Self::Good,
            Answer::Refused(Refusal { kind: RefusalKind::Sender(trouble), code, detail, .. }) => {
                Self::Refused(trouble, said(&code, detail))
            }
            Answer::Refused(Refusal { code, detail, wait, .. }) | Answer::Unknown { code, detail, wait } => {
                Self::NotTold { detail: said(&code, detail), wait }
            }
            Answer::Unreachable { detail } => {
                Self::NotTold { detail: format!("no connection: {detail}"), wait: None }
            }
        }
    }
}

fn said(code: &str, detail: String) -> String {
    if code.is_empty() { detail } else { format!("{code}: {detail}") }
}

/// Why settings or credentials cannot be used.
pub(in crate::dispatcher) struct Trouble {
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// It says nothing of the settings and the Secrets: they could not be read now.
    pub(super) is_passing: bool,
}

impl Trouble {
    /// The reading itself came to no end.
    pub(in crate::dispatcher) fn interrupted() -> Self {
        Self {
            reason: "Interrupted",
            message: "reading the channel's settings was interrupted, trying again".into(),
            is_passing: true,
        }
    }

    pub(super) fn lasting(reason: &'static str, message: String) -> Self {
        Self { reason, message, is_passing: false }
    }
}

/// Reads settings and credentials of a channel, and asks the provider about them.
pub(in crate::dispatcher) async fn read(
    context: &Context,
    key: &ObjectKey,
    channel: &BroadcastChannel,
    known: &Known,
) -> Result<Opened, Trouble> {
    if let Some(region) = ChatRules::of(&channel.spec).unknown_region() {
        return Err(Trouble::lasting("InvalidRegion", invalid_region(region)));
    }
    let mut secrets = SecretValues::default();
    for reference in channel.spec.sending_secrets() {
        secrets.insert(reference, secret_value(context, &key.namespace, reference).await?);
    }
    let credentials = secrets.digest();
    let gateway = match &known.held {
        Some((held, gateway)) if *held == credentials => gateway.clone(),
        _ => Gateway::new(key, &channel.spec, &secrets, &context.addresses)
            .map_err(|error| Trouble::lasting(error.category(), error.to_string()))?,
    };
    if !known.asks_about(credentials) {
        return Ok(Opened { gateway, credentials, probed: Probed::NotAsked });
    }
    let probed = gateway.probe().await.map_or(Probed::NotAsked, Probed::by);
    Ok(Opened { gateway, credentials, probed })
}

pub(super) async fn secret_value(
    context: &Context,
    namespace: &str,
    reference: &KeyRef,
) -> Result<String, Trouble> {
    let KeyRef { name, key } = reference;
    let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let secret = within(api.get(name)).await.map_err(|error| match error.is_not_found() {
        true => Trouble::lasting(
            "SecretNotFound",
            format!("Secret {name} does not exist: create it with key {key}"),
        ),
        false => Trouble {
            reason: "SecretUnreadable",
            message: format!("failed to read Secret {name}: {error}"),
            is_passing: true,
        },
    })?;
    let value = secret.data.as_ref().and_then(|data| data.get(key)).ok_or_else(|| {
        Trouble::lasting("SecretKeyNotFound", format!("Secret {name} has no key {key}: add it"))
    })?;
    let text = std::str::from_utf8(&value.0)
        .map_err(|_| Trouble::lasting("InvalidToken", format!("key {key} of Secret {name} is not text")))?;
    match text.trim() {
        "" => {
            Err(Trouble::lasting("SecretKeyEmpty", format!("key {key} of Secret {name} is empty: fill it")))
        }
        text => Ok(text.to_owned()),
    }
}
