//! A channel of each provider, all of them sending to the one gateway of a stage.
//!
//! Channel and Broadcast have the provider's name, and each provider an account of its own, so that one operator serves all of them
//! at once and the gateway's ledger tells them apart.

use std::collections::HashMap;

use broadcast_operator::api::Broadcast;
use broadcast_operator::simulator::{Entry, Format, ProviderReceipts, ReceiptSettings, SendQuery};
use futures::future::join_all;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::books;
use super::stage::{SIGNING_SECRET, Stage, broadcast, merge};
use super::wait::until;

/// Secret with everything that the providers' channels need.
pub const SECRET: &str = "accounts";

/// Whom messages are sent through, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    WhatsApp,
    Telegram,
    /// Twilio, by SMS.
    Twilio,
    /// Twilio, by `WhatsApp`.
    TwilioWhatsApp,
    Periskope,
    /// HTTP, in our own format.
    Native,
    /// HTTP, as listmonk has it.
    Postback,
}

use Provider::{Native, Periskope, Postback, Telegram, Twilio, TwilioWhatsApp, WhatsApp};

impl Provider {
    pub const ALL: [Self; 7] = [WhatsApp, Telegram, Twilio, TwilioWhatsApp, Periskope, Native, Postback];

    /// Its name: that of its channel, and of its Broadcast.
    pub fn name(self) -> &'static str {
        match self {
            WhatsApp => "whatsapp",
            Telegram => "telegram",
            Twilio => "twilio",
            TwilioWhatsApp => "twilio-whatsapp",
            Periskope => "periskope",
            Native => "native",
            Postback => "postback",
        }
    }

    pub fn format(self) -> Format {
        match self {
            WhatsApp => Format::WhatsApp,
            Telegram => Format::Telegram,
            Twilio | TwilioWhatsApp => Format::Twilio,
            Periskope => Format::Periskope,
            Native | Postback => Format::Http,
        }
    }

    /// Its account, as the gateway's ledger and rules name it.
    pub fn account(self) -> &'static str {
        match self {
            WhatsApp => "106540352242922",
            Telegram => "4217",
            Twilio => "AC0123456789abcdef0123456789abcdef",
            TwilioWhatsApp => "AC76543210fedcba9876543210fedcba98",
            Periskope => "15550190",
            Native | Postback => self.name(),
        }
    }

    /// What its messages are sent with. The gateway has one token for each format.
    pub fn token(self) -> &'static str {
        match self {
            WhatsApp => "EAAB-token-of-whatsapp",
            Telegram => "4217:AA-token_of_telegram",
            Twilio | TwilioWhatsApp => "token-of-twilio",
            Periskope => "token-of-periskope",
            Native | Postback => "token-of-http",
        }
    }

    /// What its receipts are signed with.
    pub fn signing_secret(self) -> &'static str {
        match self {
            WhatsApp => "app-secret-of-whatsapp",
            Telegram => "webhook-secret-of-telegram",
            Twilio | TwilioWhatsApp => self.token(),
            Periskope => "signing-key-of-periskope",
            Native | Postback => SIGNING_SECRET,
        }
    }

    /// Another token, of the same account.
    pub fn other_token(self) -> String {
        format!("{}-2", self.token())
    }

    /// The key of the Secret that its token is under.
    pub fn token_key(self) -> String {
        format!("{}-token", self.name())
    }

    /// Whether it tells what became of its messages.
    pub fn has_receipts(self) -> bool {
        self != Telegram
    }

    /// Whether its receipts bring our token back, so that they settle a message whose answer was lost.
    pub fn echoes_tokens(self) -> bool {
        matches!(self, WhatsApp | Twilio | TwilioWhatsApp | Native | Postback)
    }

    /// Whether it tells that a message was read.
    pub fn tells_of_reading(self) -> bool {
        self.has_receipts() && self != Twilio
    }

    /// Whether it answers a message with an id.
    pub fn has_message_ids(self) -> bool {
        self != Postback
    }
}

/// What the simulator calls a message of Periskope in its queue.
pub fn queue_id(id: &str) -> String {
    let end = id.get(id.len().saturating_sub(12)..).unwrap_or_default();
    format!("51000000-0000-4000-8000-{}", end.to_lowercase())
}

/// Does the same with all providers at once.
pub async fn with_each<T>(providers: &[Provider], one: impl AsyncFn(Provider) -> T) -> Vec<T> {
    join_all(providers.iter().map(|provider| one(*provider))).await
}

impl Stage {
    /// A stage with the Secret of all providers, whose gateway takes nothing without the right token. There are no channels.
    pub async fn of_providers() -> Self {
        Self::of_providers_with(&[]).await
    }

    /// The same with an operator that has these flags besides.
    pub async fn of_providers_with(flags: &[&str]) -> Self {
        let stage = Self::with_flags(flags).await;
        stage.make_known(|provider| provider.token().to_owned());
        stage.apply(&secret(Provider::token));
        stage
    }

    /// From now on the gateway takes these tokens alone.
    fn make_known(&self, token: impl Fn(Provider) -> String) {
        for provider in Provider::ALL {
            self.gateway.set_token_of(provider.format(), Some(token(provider)));
        }
    }

    /// A channel of this provider to the gateway, with more fields for `spec`.
    pub fn provider_channel(&self, provider: Provider, spec: Value) -> Value {
        self.provider_channel_at(provider, &self.gateway.url(), spec)
    }

    /// The same to a gateway at this url.
    pub fn provider_channel_at(&self, provider: Provider, url: &str, spec: Value) -> Value {
        let key = |key: &str| json!({"name": SECRET, "key": format!("{}-{key}", provider.name())});
        let http = json!({
            "url": format!("{url}/messages/{}", provider.account()),
            "tokenSecretRef": key("token"),
            "signingSecretRef": key("signing"),
        });
        let mut own = match provider {
            WhatsApp => json!({"provider": "WhatsApp", "whatsApp": {
                "phoneNumberId": provider.account(),
                "tokenSecretRef": key("token"),
                "appSecretRef": key("signing"),
                "verifyTokenSecretRef": key("verify"),
                "baseUrl": url,
            }}),
            Telegram => json!({"provider": "Telegram", "telegram": {
                "tokenSecretRef": key("token"),
                "webhookSecretRef": key("signing"),
                "baseUrl": url,
            }}),
            Twilio | TwilioWhatsApp => json!({"provider": "Twilio", "twilio": {
                "accountSid": provider.account(),
                "authTokenSecretRef": key("token"),
                "from": if provider == Twilio { "+15550199" } else { "whatsapp:+15550199" },
                "publicUrl": self.operator.receipts_base_url(),
                "baseUrl": url,
            }}),
            Periskope => json!({"provider": "Periskope", "periskope": {
                "phone": provider.account(),
                "tokenSecretRef": key("token"),
                "signingSecretRef": key("signing"),
                "baseUrl": url,
            }}),
            Native => json!({"provider": "HTTP", "http": http}),
            Postback => {
                let mut http = http;
                http["format"] = json!("Postback");
                json!({"provider": "HTTP", "http": http})
            }
        };
        // As fast as it goes, unless a test is about speed.
        own["limits"] = json!({"messagesPerSecond": 100_000});
        merge(&mut own, spec);
        json!({
            "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastChannel",
            "metadata": {"name": provider.name()}, "spec": own,
        })
    }

    /// Applies the channels of these providers, each with these fields for `spec`.
    pub fn apply_channels(&self, providers: &[Provider], spec: &Value) {
        self.apply_all(providers.iter().map(|provider| self.provider_channel(*provider, spec.clone())));
    }

    /// Applies a Broadcast to this many chats through each of these providers, with more fields for `spec`.
    pub fn apply_broadcasts(&self, providers: &[Provider], chats: usize, spec: &Value) {
        self.apply_all(providers.iter().map(|provider| {
            let mut broadcast = broadcast(provider.name(), chats, spec.clone());
            merge(&mut broadcast["spec"], json!({"channelRef": {"name": provider.name()}}));
            broadcast
        }));
    }

    /// Applies many manifests at once.
    pub fn apply_all(&self, manifests: impl IntoIterator<Item = Value>) {
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": Value::from_iter(manifests)}));
    }

    /// Where the receipts of a channel go.
    pub fn receipts_url_of(&self, provider: Provider) -> String {
        let url = self.operator.receipts_url().replace("{namespace}", &self.namespace);
        url.replace("{channel}", provider.name())
    }

    /// Sends receipts of all providers back, for everything that is accepted from here on.
    pub fn send_receipts_of_all(&self, settings: &ReceiptSettings) {
        self.send_receipts_signed(settings, Provider::signing_secret);
    }

    /// The same, signed with these secrets.
    pub fn send_receipts_signed(
        &self,
        settings: &ReceiptSettings,
        secret: impl Fn(Provider) -> &'static str,
    ) {
        let secret = |provider| Some(secret(provider).to_owned());
        let url = |provider| Some(self.receipts_url_of(provider));
        let providers = ProviderReceipts {
            whats_app_url: url(WhatsApp),
            whats_app_secret: secret(WhatsApp),
            telegram_url: url(Telegram),
            telegram_secret: secret(Telegram),
            twilio_auth_token: secret(Twilio),
            periskope_url: url(Periskope),
            periskope_signing_key: secret(Periskope),
            ..settings.providers.clone()
        };
        // The account of both HTTP formats is the name of the channel.
        let url = self.operator.receipts_url().replace("{namespace}", &self.namespace);
        let settings = ReceiptSettings { url, secret: secret(Native), providers, ..settings.clone() };
        self.gateway.set_receipts(Some(settings)).expect("should be valid settings");
    }

    /// Revokes the tokens of all providers: from now on their other ones are good.
    pub fn revoke_tokens(&self) {
        self.make_known(Provider::other_token);
    }

    /// Puts the other tokens of all providers into their Secret.
    pub fn renew_tokens(&self) {
        self.apply(&secret(Provider::other_token));
    }

    /// Requests of a provider that have arrived at the gateway.
    pub fn requests_of(&self, provider: Provider) -> Vec<Entry> {
        let query = SendQuery {
            format: Some(provider.format()),
            account: Some(provider.account().into()),
            ..SendQuery::default()
        };
        self.gateway.ledger().sends(&query)
    }

    /// Messages of a provider that the gateway has accepted.
    pub fn accepted_of(&self, provider: Provider) -> Vec<Entry> {
        let mut requests = self.requests_of(provider);
        requests.retain(|request| request.accepted);
        requests
    }

    /// How often each chat got a message of a provider.
    pub fn times_by_chat(&self, provider: Provider) -> HashMap<String, usize> {
        books::times_by_chat(&self.accepted_of(provider))
    }

    /// Waits until the gateway has accepted so many messages of a provider.
    pub async fn accepted_by(&self, provider: Provider, number: usize) {
        until(&format!("{number} messages of {provider:?} are accepted"), async || {
            let accepted = self.accepted_of(provider).len();
            if accepted >= number { Ok(()) } else { Err(accepted) }
        })
        .await;
    }

    /// Checks the Broadcast of a provider that has come to its end against what the gateway has accepted through it.
    pub async fn check_complete_of(&self, provider: Provider, broadcast: &Broadcast, audience: usize) {
        assert_eq!(broadcast.name_any(), provider.name(), "each provider has one Broadcast");
        books::check_complete_against(self, broadcast, audience, &self.times_by_chat(provider)).await;
    }
}

/// The Secret of all providers, with these tokens. Receipts of Twilio are signed with the token, so that is not there twice.
fn secret<T: Into<String>>(token: impl Fn(Provider) -> T) -> Value {
    let mut data = json!({"whatsapp-verify": VERIFY_TOKEN});
    for provider in Provider::ALL {
        data[provider.token_key()] = Value::String(token(provider).into());
        data[format!("{}-signing", provider.name())] = json!(provider.signing_secret());
    }
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": data})
}

/// The word that Meta gives back.
pub const VERIFY_TOKEN: &str = "word-of-the-handshake";
