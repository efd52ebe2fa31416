//! How a simulator behaves: as its flags, a test or the control API say.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use super::faults::Rule;
use super::wire::Format;
use crate::webhooks::{InvalidSecret, Secret};

/// How a simulator behaves from its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How long each answer to a message waits, in addition to what its fault says.
    pub latency: Duration,
    /// The only token that it takes, in all formats: bearer token, token of a bot, or auth token. Without one it looks at none.
    pub token: Option<String>,
    /// Other ones for some formats.
    pub tokens: BTreeMap<Format, String>,
    /// Whether a repeated `Idempotency-Key` is answered with the earlier message id, and not accepted again.
    pub idempotent: bool,
    /// What goes wrong.
    pub faults: Vec<Rule>,
    /// Which receipts follow an accepted message.
    pub receipts: Option<ReceiptSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            latency: Duration::ZERO,
            token: None,
            tokens: BTreeMap::new(),
            idempotent: false,
            faults: Vec::new(),
            receipts: None,
        }
    }
}

/// Which receipts follow an accepted message, and how they come.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReceiptSettings {
    /// Where those in the `HTTP` channel's own format go, or empty. `{namespace}` is the Broadcast's, `{channel}` the account of
    /// `POST /messages/{account}`.
    pub url: String,
    /// Signs them: `whsec_<base64>`.
    pub secret: Option<String>,
    /// Of 100 accepted messages, how many get `delivered`.
    pub delivered_percent: u8,
    /// Of 100 accepted messages, how many get `read` too. At most `delivered_percent`.
    pub read_percent: u8,
    /// Of 100 accepted messages, how many get `failed`. With `delivered_percent` at most 100.
    pub failed_percent: u8,
    /// How long after the message its first receipt comes.
    pub delay_ms: u64,
    /// Most receipts in one request.
    pub batch_size: usize,
    /// How often waiting receipts are sent.
    pub flush_ms: u64,
    /// How often each receipt is sent.
    pub times: usize,
    /// Whether `read` comes before `delivered`.
    pub reverse: bool,
    /// Whether the first receipt of a message is sent, and its answer awaited, before the message itself is answered.
    pub before_answer: bool,
    /// Whether receipts name a message by its message id, not by its token, where they could do both.
    pub use_message_id: bool,
    /// Of 100 accepted messages, how many get `sent` before anything else.
    pub sent_percent: u8,
    /// Error code of `failed`. Without one it is the format's own for a chat that cannot be reached.
    pub failed_code: Option<String>,
    /// Receipts in the formats of providers.
    pub providers: ProviderReceipts,
}

/// Where the receipts of providers go, and what they are signed with. Those without an address are not sent, those without a secret
/// not signed. `{channel}` in an address is the sender: phone number id, bot id, or phone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProviderReceipts {
    /// Where `WhatsApp` statuses go.
    pub whats_app_url: Option<String>,
    /// App secret, for `X-Hub-Signature-256`.
    pub whats_app_secret: Option<String>,
    /// Who is in each group of `WhatsApp`: what becomes of its message is drawn and told for each of them.
    pub whats_app_participants: Vec<String>,
    /// Where updates of a Telegram bot go. There are no receipts: a message that fails is a person who blocks the bot.
    pub telegram_url: Option<String>,
    /// `X-Telegram-Bot-Api-Secret-Token`.
    pub telegram_secret: Option<String>,
    /// Auth token, for `X-Twilio-Signature`. Callbacks go to the `StatusCallback` of each message.
    pub twilio_auth_token: Option<String>,
    /// Where Periskope's events go.
    pub periskope_url: Option<String>,
    /// Signing key, for `x-periskope-signature`.
    pub periskope_signing_key: Option<String>,
}

impl Default for ProviderReceipts {
    fn default() -> Self {
        Self {
            whats_app_url: None,
            whats_app_secret: None,
            whats_app_participants: ["15551000091", "15551000092", "15551000093"].map(str::to_owned).into(),
            telegram_url: None,
            telegram_secret: None,
            twilio_auth_token: None,
            periskope_url: None,
            periskope_signing_key: None,
        }
    }
}

impl ProviderReceipts {
    fn urls(&self) -> impl Iterator<Item = &String> {
        [&self.whats_app_url, &self.telegram_url, &self.periskope_url].into_iter().flatten()
    }

    /// Whether any provider's receipts have somewhere to go. Twilio's have it in each message.
    fn has_address(&self) -> bool {
        self.urls().next().is_some() || self.twilio_auth_token.is_some()
    }
}

impl Default for ReceiptSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            secret: None,
            delivered_percent: 100,
            read_percent: 0,
            failed_percent: 0,
            delay_ms: 0,
            batch_size: 100,
            flush_ms: 50,
            times: 1,
            reverse: false,
            before_answer: false,
            use_message_id: false,
            sent_percent: 0,
            failed_code: None,
            providers: ProviderReceipts::default(),
        }
    }
}

/// Settings that contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// The receipts have no address.
    #[error("receipts need an http url, not {0:?}")]
    InvalidUrl(String),
    /// The secret is none.
    #[error(transparent)]
    InvalidSecret(#[from] InvalidSecret),
    /// The shares do not fit in 100.
    #[error(
        "deliveredPercent and failedPercent are at most 100 together, sentPercent is at most 100, and readPercent is part of \
         deliveredPercent"
    )]
    InvalidPercent,
    /// A number that must not be 0.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
}

impl ReceiptSettings {
    /// Checks the settings, and reads the secret.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn check(&self) -> Result<Vec<Secret>, InvalidSettings> {
        let is_http =
            |url: &String| url.parse::<reqwest::Url>().is_ok_and(|url| url.scheme().starts_with("http"));
        let is_needed = !self.url.is_empty() || !self.providers.has_address();
        let mut urls = is_needed.then_some(&self.url).into_iter().chain(self.providers.urls());
        if let Some(url) = urls.find(|url| !is_http(url)) {
            return Err(InvalidSettings::InvalidUrl(url.clone()));
        }
        let all = u16::from(self.delivered_percent) + u16::from(self.failed_percent);
        if all > 100 || self.sent_percent > 100 || self.read_percent > self.delivered_percent {
            return Err(InvalidSettings::InvalidPercent);
        }
        for (name, value) in [("times", self.times), ("batchSize", self.batch_size)] {
            if value == 0 {
                return Err(InvalidSettings::Zero(name));
            }
        }
        if self.flush_ms == 0 {
            return Err(InvalidSettings::Zero("flushMs"));
        }
        Ok(self.secret.as_deref().map(Secret::parse).transpose()?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipts(json: serde_json::Value) -> Result<usize, InvalidSettings> {
        let settings: ReceiptSettings = serde_json::from_value(json).expect("settings");
        settings.check().map(|secrets| secrets.len())
    }

    #[test]
    fn receipt_settings_that_contradict_each_other_are_refused() {
        let url = "http://127.0.0.1:8082/v1/namespaces/{namespace}/channels/{channel}/receipts";
        assert_eq!(receipts(serde_json::json!({"url": url})), Ok(0));
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        assert_eq!(receipts(serde_json::json!({"url": url, "secret": secret})), Ok(1));
        assert_eq!(receipts(serde_json::json!({})), Err(InvalidSettings::InvalidUrl(String::new())));
        let whats_app = |url: &str| receipts(serde_json::json!({"providers": {"whatsAppUrl": url}}));
        assert_eq!(whats_app("http://127.0.0.1:8082/"), Ok(0));
        assert_eq!(whats_app("127.0.0.1"), Err(InvalidSettings::InvalidUrl("127.0.0.1".into())));
        assert_eq!(receipts(serde_json::json!({"providers": {"twilioAuthToken": "t"}})), Ok(0));
        let percent = receipts(serde_json::json!({"url": url, "failedPercent": 1}));
        assert_eq!(percent, Err(InvalidSettings::InvalidPercent));
        let read = receipts(serde_json::json!({"url": url, "deliveredPercent": 10, "readPercent": 11}));
        assert_eq!(read, Err(InvalidSettings::InvalidPercent));
        assert_eq!(
            receipts(serde_json::json!({"url": url, "times": 0})),
            Err(InvalidSettings::Zero("times"))
        );
    }
}
