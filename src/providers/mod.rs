//! Providers: one file each, with requests and answers as pure functions; sending is in [`gateway`].
//!
//! In: a channel's settings, the values of its Secrets, messages. Out: answers.

pub mod gateway;
pub mod http;
pub mod json;
pub mod periskope;
mod secrecy;
#[cfg(test)]
mod sendable_tests;
pub mod telegram;
pub mod twilio;
pub mod whatsapp;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::Url;
use sha2::{Digest, Sha256};

use crate::api::{BroadcastChannelSpec, KeyRef, ProviderName};
use crate::domain::ids::ObjectKey;
use gateway::GatewayError;
use wire::Protocol;

/// What each certificate of a PEM file begins with.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// Fewest bytes of a secret among others on lines of their own: shorter ones would take words out of everything that is said.
const SHORTEST_ON_A_LINE: usize = 5;

/// The values of a channel's Secrets, by name and key. Never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretValues(BTreeMap<(String, String), String>);

impl std::fmt::Debug for SecretValues {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("SecretValues(…)")
    }
}

impl SecretValues {
    /// Takes in the value of a key.
    pub fn insert(&mut self, reference: &KeyRef, value: String) {
        self.0.insert((reference.name.clone(), reference.key.clone()), value);
    }

    /// The value of a key; empty when it was not read.
    #[must_use]
    pub fn of(&self, reference: &KeyRef) -> &str {
        self.0.get(&(reference.name.clone(), reference.key.clone())).map_or("", String::as_str)
    }

    /// What tells them apart from others without holding them.
    #[must_use]
    pub fn digest(&self) -> SecretDigest {
        let mut digest = Sha256::new();
        for ((name, key), value) in &self.0 {
            for text in [name, key, value] {
                // With its length before it, no text goes over into the next one.
                digest.update(text.len().to_le_bytes());
                digest.update(text);
            }
        }
        SecretDigest(digest.finalize().into())
    }

    /// What is not to be shown: all values, those of a rotation one by one, whether they stand on one line or on several. Of a value with
    /// several lines, what is too short to be a secret is left out, and certificates are none.
    fn words(&self) -> impl Iterator<Item = &str> {
        let values = self.0.values().filter(|value| !value.contains(CERTIFICATE));
        values.flat_map(|value| {
            let shortest = if value.trim().contains(['\n', '\r']) { SHORTEST_ON_A_LINE } else { 1 };
            value.split_whitespace().filter(move |word| word.len() >= shortest)
        })
    }
}

/// Tells the values of a channel's Secrets apart. It stays in memory: of a short secret it would show too much.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretDigest([u8; 32]);

/// The protocol that a channel speaks.
fn protocol(
    key: &ObjectKey,
    channel: &BroadcastChannelSpec,
    secrets: &SecretValues,
) -> Result<Arc<dyn Protocol>, GatewayError> {
    Ok(match channel.provider {
        ProviderName::Http => Arc::new(http::Http::new(settings("http", channel.http.as_ref())?, secrets)?),
        ProviderName::WhatsApp => {
            Arc::new(whatsapp::WhatsApp::new(settings("whatsApp", channel.whats_app.as_ref())?, secrets)?)
        }
        ProviderName::Telegram => {
            Arc::new(telegram::Telegram::new(settings("telegram", channel.telegram.as_ref())?, secrets)?)
        }
        ProviderName::Twilio => {
            let settings = settings("twilio", channel.twilio.as_ref())?;
            let callback = twilio::callback(settings, key)?;
            Arc::new(twilio::Twilio::new(settings, secrets, callback)?)
        }
        ProviderName::Periskope => {
            let settings = settings("periskope", channel.periskope.as_ref())?;
            Arc::new(periskope::Periskope::new(settings, secrets)?)
        }
    })
}

/// Where a channel sends to: the address that the guard is asked about before anything is sent.
fn base_url(channel: &BroadcastChannelSpec) -> Result<Url, GatewayError> {
    let text = match channel.provider {
        ProviderName::Http => &settings("http", channel.http.as_ref())?.url,
        ProviderName::WhatsApp => &settings("whatsApp", channel.whats_app.as_ref())?.base_url,
        ProviderName::Telegram => &settings("telegram", channel.telegram.as_ref())?.base_url,
        ProviderName::Twilio => &settings("twilio", channel.twilio.as_ref())?.base_url,
        ProviderName::Periskope => &settings("periskope", channel.periskope.as_ref())?.base_url,
    };
    text.parse().map_err(|error| GatewayError::InvalidUrl(format!("{error}")))
}

fn settings<'a, T>(field: &'static str, settings: Option<&'a T>) -> Result<&'a T, GatewayError> {
    settings.ok_or(GatewayError::NoSettings(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_secrets_of_all_lines_and_nothing_of_certificates() {
        let key = |key: &str| KeyRef { name: "gateway".into(), key: key.into() };
        let mut secrets = SecretValues::default();
        for (name, value) in [
            ("ca", "# ours\n-----BEGIN CERTIFICATE-----\nMIIBkTCB\n-----END CERTIFICATE-----\n"),
            ("rotated", "old-secret\nnew-secret\n\nto\n"),
            ("token", "abc"),
            ("two", "one-secret another"),
        ] {
            secrets.insert(&key(name), value.into());
        }
        let words: Vec<&str> = secrets.words().collect();
        assert_eq!(words, ["old-secret", "new-secret", "abc", "one-secret", "another"]);
    }
}
