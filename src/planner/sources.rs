//! Reads an audience from where the spec says it is.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

use super::PlannerError;
use crate::api::{KeyRef, Recipients, Source};
use crate::cluster::within;
use crate::domain::audience::{Audience, AudienceError};
use crate::domain::chat::ChatRules;
use crate::domain::page::Recipient;

/// An audience, or why there is none: a reason for programs, and what to do.
pub(super) type Read<T> = Result<T, (String, String)>;

/// Reads the whole audience, of a channel with these rules.
pub(super) async fn audience(
    client: &Client,
    namespace: &str,
    recipients: &Recipients,
    rules: ChatRules,
) -> Result<Read<Vec<Recipient>>, PlannerError> {
    let mut audience = Audience::new(rules);
    if let Some(chats) = recipients.chats.clone() {
        audience = match add(audience, move |audience| audience.add_chats(&chats)).await {
            Ok(audience) => audience,
            Err(problem) => return Ok(Err(problem)),
        };
    }
    if let Some(csv) = recipients.csv.clone() {
        audience = match add(audience, move |audience| audience.add_csv("recipients.csv", &csv)).await {
            Ok(audience) => audience,
            Err(problem) => return Ok(Err(problem)),
        };
    }
    for source in recipients.from.iter().flatten() {
        let (name, text) = match text_of(client, namespace, source).await? {
            Ok(found) => found,
            Err(problem) => return Ok(Err(problem)),
        };
        let is_secret = source.secret_ref.is_some();
        let read = move |audience: &mut Audience| match is_secret {
            true => audience.add_csv_with_header(&name, &text),
            false => audience.add_csv(&name, &text),
        };
        audience = match add(audience, read).await {
            Ok(audience) => audience,
            Err(problem) => return Ok(Err(problem)),
        };
    }
    Ok(audience.finish().map_err(|error| problem(&error)))
}

/// Adds to an audience, on a thread that holds up nothing else: a million phone numbers take seconds.
async fn add(
    mut audience: Audience,
    step: impl FnOnce(&mut Audience) -> Result<(), AudienceError> + Send + 'static,
) -> Read<Audience> {
    let adding = tokio::task::spawn_blocking(move || step(&mut audience).map(|()| audience));
    match adding.await {
        Ok(added) => added.map_err(|error| problem(&error)),
        Err(died) => Err(("InvalidCsv".into(), format!("the audience could not be read: {died}"))),
    }
}

fn problem(error: &AudienceError) -> (String, String) {
    (error.category().to_owned(), error.to_string())
}

async fn text_of(
    client: &Client,
    namespace: &str,
    source: &Source,
) -> Result<Read<(String, String)>, PlannerError> {
    match (&source.config_map_ref, &source.secret_ref) {
        (Some(reference), _) => {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let found = optional(within(api.get(&reference.name)).await)?;
            Ok(named("ConfigMap", reference, found, |map, key| {
                let text = map.data.and_then(|mut data| data.remove(key)).map(String::into_bytes);
                text.or_else(|| map.binary_data.and_then(|mut data| data.remove(key)).map(|bytes| bytes.0))
            }))
        }
        (None, Some(reference)) => {
            let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
            let found = optional(within(api.get(&reference.name)).await)?;
            Ok(named("Secret", reference, found, |secret, key| {
                secret.data.and_then(|mut data| data.remove(key)).map(|bytes| bytes.0)
            }))
        }
        (None, None) => Ok(Err(("InvalidSpec".into(), "a source needs configMapRef or secretRef".into()))),
    }
}

fn optional<T>(found: Result<T, crate::cluster::ApiError>) -> Result<Option<T>, PlannerError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The text of a key, with a name for errors. Says which part of the way to it is missing.
fn named<K>(
    kind: &str,
    reference: &KeyRef,
    object: Option<K>,
    value: impl Fn(K, &str) -> Option<Vec<u8>>,
) -> Read<(String, String)> {
    let KeyRef { name, key } = reference;
    let Some(object) = object else {
        let message = format!("{kind} {name} does not exist in this namespace: create it with key {key}");
        return Err((format!("{kind}NotFound"), message));
    };
    let Some(bytes) = value(object, key) else {
        let message =
            format!("{kind} {name} has no key {key}: add it, or correct the key in spec.recipients.from");
        return Err((format!("{kind}KeyNotFound"), message));
    };
    String::from_utf8(bytes).map(|text| (format!("key {key} of {kind} {name}"), text)).map_err(|_| {
        let message = format!("key {key} of {kind} {name} is not UTF-8 text: save the CSV as UTF-8");
        ("InvalidCsv".into(), message)
    })
}
