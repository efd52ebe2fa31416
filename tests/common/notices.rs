//! Receipts as the providers post them, one in a request. They are made by hand, so that whoever uses them decides over every byte.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broadcast_operator::clock;
use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::simulator::Entry;
use broadcast_operator::webhooks::{self, Secret};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, StatusCode};
use serde_json::json;
use sha1::Sha1;
use sha2::Sha256;

use super::providers::Provider::{
    self, Native, Periskope, Postback, Telegram, Twilio, TwilioWhatsApp, WhatsApp,
};
use super::providers::queue_id;
use super::stage::Stage;

/// One request.
#[derive(Clone, Debug)]
pub struct Notice {
    pub provider: Provider,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Notice {
    /// What became of a message, without a signature. Telegram has no receipts: it gets an update about nothing.
    pub fn of(stage: &Stage, provider: Provider, message: &Entry, outcome: Outcome) -> Self {
        let url = stage.receipts_url_of(provider);
        let url = match provider {
            Twilio | TwilioWhatsApp => format!("{url}?token={}", &*message.token),
            _ => url,
        };
        Self { provider, url, headers: Vec::new(), body: body(provider, message, outcome) }
    }

    /// The same, signed now with the secret of the provider.
    pub fn signed(self) -> Self {
        let secret = self.provider.signing_secret();
        self.signed_with(secret)
    }

    /// The same, signed now with this secret.
    pub fn signed_with(self, secret: &str) -> Self {
        let hmac_of_body = || hex(&sha256(secret, &self.body));
        let headers = match self.provider {
            WhatsApp => vec![("x-hub-signature-256", format!("sha256={}", hmac_of_body()))],
            Telegram => vec![("x-telegram-bot-api-secret-token", secret.to_owned())],
            Twilio | TwilioWhatsApp => vec![("x-twilio-signature", sign_form(secret, &self.url, &self.body))],
            Periskope => vec![("x-periskope-signature", hmac_of_body())],
            Native | Postback => {
                let (secret, now) = (Secret::parse(secret).expect("should be a secret"), clock::now());
                let signature = webhooks::sign(&[secret], "msg_1", now, self.body.as_bytes());
                vec![
                    (webhooks::ID_HEADER, "msg_1".into()),
                    (webhooks::TIMESTAMP_HEADER, now.as_second().to_string()),
                    (webhooks::SIGNATURE_HEADER, signature),
                ]
            }
        };
        Self { headers, ..self }
    }

    /// The same headers with other bytes of the same meaning: a space at the end, or in a form one field more.
    pub fn with_other_bytes(mut self) -> Self {
        self.body += if matches!(self.provider, Twilio | TwilioWhatsApp) { "&More=1" } else { " " };
        self
    }

    /// Posts it. Out: the status of the answer.
    pub async fn post(&self, client: &Client) -> StatusCode {
        self.try_post(client).await.expect("should get an answer")
    }

    /// The same where nobody may be there to answer.
    pub async fn try_post(&self, client: &Client) -> reqwest::Result<StatusCode> {
        let mut request = client.post(&self.url).body(self.body.clone());
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request.send().await.map(|answer| answer.status())
    }
}

fn body(provider: Provider, message: &Entry, outcome: Outcome) -> String {
    let (token, now) = (&*message.token, clock::now());
    let id = message.message_id.as_deref().unwrap_or_default();
    let status = match outcome {
        Outcome::Sent => "sent",
        Outcome::Delivered => "delivered",
        Outcome::Read => "read",
        Outcome::Failed => "failed",
        other => panic!("no provider says {other:?}"),
    };
    match provider {
        WhatsApp => {
            let mut told = json!({
                "id": id,
                "status": status,
                "timestamp": now.as_second().to_string(),
                "recipient_id": &*message.chat,
                "biz_opaque_callback_data": token,
            });
            if outcome == Outcome::Failed {
                told["errors"] = json!([{"code": 131_026, "title": "Message undeliverable"}]);
            }
            json!({"object": "whatsapp_business_account", "entry": [{"id": "102290129340398", "changes": [{
                "field": "messages",
                "value": {
                    "messaging_product": "whatsapp",
                    "metadata": {"display_phone_number": "15550199", "phone_number_id": provider.account()},
                    "statuses": [told],
                },
            }]}]})
            .to_string()
        }
        Telegram => json!({"update_id": 1}).to_string(),
        Twilio | TwilioWhatsApp => {
            let error = if outcome == Outcome::Failed { "&ErrorCode=30005" } else { "" };
            format!("MessageSid={id}&SmsSid={id}&MessageStatus={status}{error}")
        }
        Periskope => {
            let ack = match outcome {
                Outcome::Failed => "-1",
                Outcome::Sent => "1",
                Outcome::Delivered => "3",
                _ => "4",
            };
            let data = json!({"unique_id": id, "queue_id": queue_id(id), "from_me": true, "ack": ack});
            json!({"event_type": "message.ack.updated", "timestamp": now, "data": data}).to_string()
        }
        Native | Postback => {
            let code = (outcome == Outcome::Failed).then_some("131026");
            json!([{"id": token, "status": status, "time": now, "code": code}]).to_string()
        }
    }
}

fn sha256(key: &str, content: &str) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("should take a key of any length");
    mac.chain_update(content).finalize().into_bytes().to_vec()
}

/// Over the address, and the name and value of each field in the order of names.
fn sign_form(key: &str, url: &str, form: &str) -> String {
    let mut fields: Vec<_> = form_urlencoded::parse(form.as_bytes()).collect();
    fields.sort();
    let text: String = fields.iter().map(|(name, value)| format!("{name}{value}")).collect();
    let mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("should take a key of any length");
    STANDARD.encode(mac.chain_update(url).chain_update(text).finalize().into_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
