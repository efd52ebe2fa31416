//! What a wait or a stop of a channel belongs to: where its messages go, who sends them, with which credentials; and the wish of a person
//! to try again. What else the spec says can change no answer of the gateway, so it ends nothing. Pure.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::{
    BroadcastChannel, BroadcastChannelSpec, HttpChannel, MAX_TRY_AGAIN_TOKEN, PeriskopeChannel,
    TRY_AGAIN_ANNOTATION, TelegramChannel, TwilioChannel, WhatsAppChannel,
};

/// Digits of a digest: it tells the few settings apart that one channel has had.
const DIGITS: usize = 32;

/// What a wait or a stop of a channel belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayMark {
    /// Tells it from another one. It holds no value of a Secret, but their names.
    pub digest: String,
    /// The wish to try again that is in the digest. It stays there when the annotation is taken away: that is no new wish.
    pub try_again: Option<String>,
}

impl GatewayMark {
    /// That of a channel as it is now.
    #[must_use]
    pub fn of(channel: &BroadcastChannel) -> Self {
        let followed = || channel.status.as_ref().and_then(|status| status.try_again_token.clone());
        let try_again = wish(channel).or_else(followed);
        let digest = Sha256::digest(json!([settings(&channel.spec), try_again]).to_string());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { digest: digest[..DIGITS].to_owned(), try_again }
    }

    /// Whether what the status of the channel says of its gateway counts for the channel as it is now. A status of a version that had no
    /// marks counts for its generation of the spec.
    #[must_use]
    pub fn is_of_status(&self, channel: &BroadcastChannel) -> bool {
        let Some(status) = &channel.status else { return false };
        match &status.observed_gateway {
            Some(digest) => *digest == self.digest,
            None => {
                Some(status.observed_generation) == channel.metadata.generation && self.try_again.is_none()
            }
        }
    }
}

/// The value of the annotation by which a person wants the channel to try again.
fn wish(channel: &BroadcastChannel) -> Option<String> {
    let value = channel.metadata.annotations.as_ref()?.get(TRY_AGAIN_ANNOTATION)?;
    (!value.is_empty()).then(|| value.chars().take(MAX_TRY_AGAIN_TOKEN).collect())
}

/// The settings that the answers of a gateway can depend on. Each field is named, so that one that is new has to be thought of.
fn settings(spec: &BroadcastChannelSpec) -> Value {
    let BroadcastChannelSpec {
        provider,
        http,
        whats_app,
        telegram,
        twilio,
        periskope,
        ca_secret_ref,
        default_region: _,
        error_policy: _,
        limits: _,
        paused: _,
    } = spec;
    let of_provider = [
        http.as_ref().map(of_http),
        whats_app.as_ref().map(of_whats_app),
        telegram.as_ref().map(of_telegram),
        twilio.as_ref().map(of_twilio),
        periskope.as_ref().map(of_periskope),
    ];
    json!([provider, of_provider, ca_secret_ref])
}

fn of_http(settings: &HttpChannel) -> Value {
    let HttpChannel {
        url,
        token_secret_ref,
        format,
        headers,
        request_signing_secret_ref,
        signing_secret_ref: _,
        allow_unsigned: _,
        idempotent: _,
        timeout_seconds: _,
    } = settings;
    json!([url, token_secret_ref, format, headers, request_signing_secret_ref])
}

fn of_whats_app(settings: &WhatsAppChannel) -> Value {
    let WhatsAppChannel {
        phone_number_id,
        token_secret_ref,
        api_version,
        base_url,
        app_secret_ref: _,
        verify_token_secret_ref: _,
        timeout_seconds: _,
    } = settings;
    json!([phone_number_id, token_secret_ref, api_version, base_url])
}

fn of_telegram(settings: &TelegramChannel) -> Value {
    let TelegramChannel {
        token_secret_ref,
        base_url,
        webhook_secret_ref: _,
        disable_notification: _,
        disable_link_preview: _,
        timeout_seconds: _,
    } = settings;
    json!([token_secret_ref, base_url])
}

fn of_twilio(settings: &TwilioChannel) -> Value {
    let TwilioChannel {
        account_sid,
        auth_token_secret_ref,
        from,
        messaging_service_sid,
        base_url,
        public_url: _,
        poll_after_seconds: _,
        validity_period_seconds: _,
        timeout_seconds: _,
    } = settings;
    json!([account_sid, auth_token_secret_ref, from, messaging_service_sid, base_url])
}

fn of_periskope(settings: &PeriskopeChannel) -> Value {
    let PeriskopeChannel { phone, token_secret_ref, base_url, signing_secret_ref: _, timeout_seconds: _ } =
        settings;
    json!([phone, token_secret_ref, base_url])
}

#[cfg(test)]
#[path = "gateway_mark_tests.rs"]
mod tests;
