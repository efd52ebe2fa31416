//! What the spec of a channel says, whatever its provider.

use std::time::Duration;

use super::channel::{BroadcastChannelSpec, Limits, ProviderName};
use super::channel_settings::{HttpChannel, TwilioChannel, WhatsAppChannel};
use super::references::KeyRef;

impl BroadcastChannelSpec {
    /// A channel of this provider without any settings.
    #[must_use]
    pub fn of(provider: ProviderName) -> Self {
        Self {
            provider,
            http: None,
            whats_app: None,
            telegram: None,
            twilio: None,
            periskope: None,
            ca_secret_ref: None,
            default_region: None,
            error_policy: Vec::new(),
            limits: Limits::default(),
            paused: false,
        }
    }

    /// The keys of Secrets that messages are sent with.
    pub fn sending_secrets(&self) -> impl Iterator<Item = &KeyRef> {
        let Self { http, whats_app, telegram, twilio, periskope, ca_secret_ref, .. } = self;
        let http = http.iter().flat_map(HttpChannel::sending_secrets);
        let whats_app = whats_app.iter().map(|whats_app| &whats_app.token_secret_ref);
        let telegram = telegram.iter().map(|telegram| &telegram.token_secret_ref);
        let twilio = twilio.iter().map(|twilio| &twilio.auth_token_secret_ref);
        let periskope = periskope.iter().map(|periskope| &periskope.token_secret_ref);
        http.chain(whats_app).chain(telegram).chain(twilio).chain(periskope).chain(ca_secret_ref)
    }

    /// The keys of Secrets that receipts are checked with.
    pub fn receipt_secrets(&self) -> impl Iterator<Item = &KeyRef> {
        let Self { http, whats_app, telegram, twilio, periskope, .. } = self;
        let http = http.iter().filter_map(|http| http.signing_secret_ref.as_ref());
        let whats_app = whats_app.iter().flat_map(WhatsAppChannel::receipt_secrets);
        let telegram = telegram.iter().filter_map(|telegram| telegram.webhook_secret_ref.as_ref());
        let twilio = twilio.iter().map(|twilio| &twilio.auth_token_secret_ref);
        let periskope = periskope.iter().filter_map(|periskope| periskope.signing_secret_ref.as_ref());
        http.chain(whats_app).chain(telegram).chain(twilio).chain(periskope)
    }

    /// Whether this channel hears that its messages were delivered.
    #[must_use]
    pub fn hears_of_delivery(&self) -> bool {
        match self.provider {
            ProviderName::Http => self.http.as_ref().is_some_and(HttpChannel::has_receipts),
            ProviderName::WhatsApp => {
                self.whats_app.as_ref().is_some_and(|whats_app| whats_app.app_secret_ref.is_some())
            }
            ProviderName::Telegram => false,
            ProviderName::Twilio => {
                self.twilio.as_ref().is_some_and(|twilio| twilio.public_url.is_some())
                    || self.poll_after().is_some()
            }
            ProviderName::Periskope => {
                self.periskope.as_ref().is_some_and(|periskope| periskope.signing_secret_ref.is_some())
            }
        }
    }

    /// Whether this channel hears that its messages were read: an SMS never is, and who asks hears it by chance alone, because
    /// nothing is asked about a message that was delivered.
    #[must_use]
    pub fn hears_of_reading(&self) -> bool {
        let is_told = |twilio: &TwilioChannel| twilio.is_whats_app() && twilio.public_url.is_some();
        self.hears_of_delivery() && self.twilio.as_ref().is_none_or(is_told)
    }

    /// How long a last receipt is waited for before the provider is asked what became of a message. `None`: it is not asked, or
    /// cannot be.
    #[must_use]
    pub fn poll_after(&self) -> Option<Duration> {
        self.twilio.as_ref().and_then(TwilioChannel::poll_after)
    }

    /// Whether the provider drops a second request with the token of the first.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.http.as_ref().is_some_and(|http| http.idempotent)
    }

    /// Seconds that a request waits for its answer.
    #[must_use]
    pub fn timeout_seconds(&self) -> i32 {
        match self.provider {
            ProviderName::Http => self.http.as_ref().map(|http| http.timeout_seconds),
            ProviderName::WhatsApp => self.whats_app.as_ref().map(|whats_app| whats_app.timeout_seconds),
            ProviderName::Telegram => self.telegram.as_ref().map(|telegram| telegram.timeout_seconds),
            ProviderName::Twilio => self.twilio.as_ref().map(|twilio| twilio.timeout_seconds),
            ProviderName::Periskope => self.periskope.as_ref().map(|periskope| periskope.timeout_seconds),
        }
        .unwrap_or_default()
    }

    /// Messages per second at most, as given or as usual for such a sender. `None`: no limit.
    ///
    /// The usual ones are those of the providers' documentation: the throughput of a new number of the Cloud API, somewhat less than the
    /// 30 of a Telegram bot, a US long code of Twilio and the least of its `WhatsApp` senders; Periskope sends a message a second.
    #[must_use]
    pub fn messages_per_second(&self) -> Option<u32> {
        let usual = match self.provider {
            ProviderName::Http => None,
            ProviderName::WhatsApp => Some(80),
            ProviderName::Telegram => Some(25),
            ProviderName::Twilio if self.twilio.as_ref().is_some_and(TwilioChannel::is_whats_app) => Some(10),
            ProviderName::Twilio | ProviderName::Periskope => Some(1),
        };
        self.limits.messages_per_second.and_then(|limit| u32::try_from(limit).ok()).or(usual)
    }
}
