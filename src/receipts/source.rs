//! Who sends notices to a channel, and how: the one place of the receipts server that knows providers apart.
//!
//! In: a channel, the head of a request, later its body and secrets. Out: notices, or why they are not taken. Pure; secrets and
//! time come in.

use http::request::Parts;
use jiff::Timestamp;

use super::body;
use super::room::MAX_BODY;
use super::secrets::Untrusted;
use crate::api::{BroadcastChannelSpec, HttpChannel, KeyRef, TwilioChannel};
use crate::domain::receipt::{NoticeError, Notices};
use crate::providers::{periskope, telegram, twilio, whatsapp};
use crate::webhooks::{self, Secret, Signed, WebhookError};

/// A request that says that it comes from a channel's provider.
pub struct Source<'a> {
    /// What it must be signed with. `None`: the channel takes it unsigned.
    pub secret: Option<&'a KeyRef>,
    proof: Proof<'a>,
}

/// The body of a request, as it is looked at before it is known whose it is.
#[derive(Debug)]
pub enum Content<'a> {
    /// As it came.
    Bytes(&'a [u8]),
    /// The fields of a form.
    Form(Vec<twilio::webhook::Field<'a>>),
}

/// How a request shows where it comes from.
enum Proof<'a> {
    /// Not at all.
    Unsigned,
    StandardWebhooks(Signed<'a>),
    WhatsApp(&'a str),
    Telegram(&'a str),
    Twilio {
        signature: &'a str,
        /// The address that Twilio believes to have called.
        url: String,
        /// The token in its query.
        token: Option<String>,
    },
    Periskope(&'a str),
}

impl<'a> Source<'a> {
    /// Looks at the head of a request, before its body is read.
    ///
    /// # Errors
    /// When the channel takes no notices, or the request has no signature at all.
    pub fn of(channel: &'a BroadcastChannelSpec, head: &'a Parts) -> Result<Self, Untrusted> {
        let BroadcastChannelSpec { http, whats_app, telegram, twilio, periskope, .. } = channel;
        let header = |name| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.ok_or(Untrusted::NoSignature(name))
        };
        let signed = |secret: Option<&'a KeyRef>, field, proof: Result<Proof<'a>, Untrusted>| {
            let secret = Some(secret.ok_or(Untrusted::NotConfigured(field))?);
            Ok(Self { secret, proof: proof? })
        };
        if let Some(http) = http {
            return Self::of_http(http, head);
        }
        if let Some(whats_app) = whats_app {
            let proof = header(whatsapp::webhook::SIGNATURE_HEADER).map(Proof::WhatsApp);
            return signed(whats_app.app_secret_ref.as_ref(), "whatsApp.appSecretRef", proof);
        }
        if let Some(telegram) = telegram {
            let proof = header(telegram::webhook::SECRET_HEADER).map(Proof::Telegram);
            return signed(telegram.webhook_secret_ref.as_ref(), "telegram.webhookSecretRef", proof);
        }
        if let Some(twilio) = twilio {
            let signature = header(twilio::webhook::SIGNATURE_HEADER);
            let proof = signature.and_then(|signature| Self::twilio(twilio, head, signature));
            return signed(Some(&twilio.auth_token_secret_ref), "twilio.publicUrl", proof);
        }
        let periskope = periskope.as_ref().ok_or(Untrusted::NotConfigured("http"))?;
        let proof = header(periskope::webhook::SIGNATURE_HEADER).map(Proof::Periskope);
        signed(periskope.signing_secret_ref.as_ref(), "periskope.signingSecretRef", proof)
    }

    fn of_http(channel: &'a HttpChannel, head: &'a Parts) -> Result<Self, Untrusted> {
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let secret = channel.signing_secret_ref.as_ref();
        if secret.is_none() {
            return match channel.allow_unsigned {
                true => Ok(Self { secret: None, proof: Proof::Unsigned }),
                false => Err(Untrusted::NotConfigured("http.signingSecretRef")),
            };
        }
        let headers =
            (text(webhooks::ID_HEADER), text(webhooks::TIMESTAMP_HEADER), text(webhooks::SIGNATURE_HEADER));
        let (Some(id), Some(timestamp), Some(signatures)) = headers else {
            return Err(WebhookError::MissingHeaders.into());
        };
        Ok(Self { secret, proof: Proof::StandardWebhooks(Signed { id, timestamp, signatures }) })
    }

    /// The signature covers the address that Twilio called, which a proxy may have changed on the way.
    fn twilio(channel: &TwilioChannel, head: &Parts, signature: &'a str) -> Result<Proof<'a>, Untrusted> {
        let public = channel.public_url.as_ref().ok_or(Untrusted::NotConfigured("twilio.publicUrl"))?;
        let path = head.uri.path_and_query().map_or("", |path| path.as_str());
        // As it stood in the callback that the message named: hosts are written in one way there.
        let base = public.parse::<reqwest::Url>().map_or_else(|_| public.clone(), String::from);
        let url = format!("{}{path}", base.trim_end_matches('/'));
        let token = head.uri.query().and_then(twilio::webhook::token_of);
        Ok(Proof::Twilio { signature, url, token })
    }

    /// Whether the head of a request says all that can be checked, so that its body need not be read before.
    #[must_use]
    pub fn is_shown_by_head(&self) -> bool {
        matches!(self.proof, Proof::Unsigned | Proof::Telegram(_))
    }

    /// Whether the provider brings again what is answered 5xx. Twilio repeats a call whose connection failed, and of Periskope
    /// nothing is known.
    #[must_use]
    pub fn comes_again(&self) -> bool {
        !matches!(self.proof, Proof::Twilio { .. } | Proof::Periskope(_))
    }

    /// Largest body that is read. That of a form is bounded by what Twilio sends, as it must be taken apart to check its signature.
    #[must_use]
    pub fn largest_body(&self) -> usize {
        if matches!(self.proof, Proof::Twilio { .. }) { twilio::webhook::MAX_FORM } else { MAX_BODY }
    }

    /// What is checked and read of a body.
    ///
    /// # Errors
    /// When it has more parts than the provider sends.
    pub fn content<'b>(&self, body: &'b [u8]) -> Result<Content<'b>, NoticeError> {
        Ok(match &self.proof {
            Proof::Twilio { .. } => Content::Form(twilio::webhook::params(body)?),
            _ => Content::Bytes(body),
        })
    }

    /// Checks that a request comes from the provider. `secrets` are the values of the key, of which one must match.
    ///
    /// # Errors
    /// When none does.
    pub fn check(&self, secrets: &[String], content: &Content<'_>, now: Timestamp) -> Result<(), Untrusted> {
        let texts: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let (body, params) = content.parts();
        let is_genuine = match &self.proof {
            Proof::Unsigned => true,
            Proof::StandardWebhooks(signed) => {
                let secrets = texts.iter().map(|secret| Secret::parse(secret)).collect::<Result<Vec<_>, _>>();
                let secrets = secrets.map_err(|_| Untrusted::Unusable)?;
                return Ok(webhooks::verify(&secrets, *signed, body, now)?);
            }
            Proof::WhatsApp(signature) => whatsapp::webhook::is_genuine(&texts, signature, body),
            Proof::Telegram(secret) => telegram::webhook::is_genuine(&texts, secret),
            Proof::Twilio { signature, url, .. } => {
                twilio::webhook::is_genuine(&texts, &[url], params, signature)
            }
            Proof::Periskope(signature) => periskope::webhook::is_genuine(&texts, signature, body),
        };
        if is_genuine { Ok(()) } else { Err(WebhookError::NoMatch.into()) }
    }

    /// Reads a request that is genuine.
    ///
    /// # Errors
    /// When it is not what the provider sends.
    pub fn read(&self, content: &Content<'_>, now: Timestamp) -> Result<Notices, NoticeError> {
        let (body, params) = content.parts();
        match &self.proof {
            Proof::Unsigned | Proof::StandardWebhooks(_) => body::parse(body, now),
            Proof::WhatsApp(_) => whatsapp::webhook::read(body, now),
            Proof::Telegram(_) => telegram::webhook::read(body, now),
            Proof::Twilio { token, .. } => twilio::webhook::read(token.as_deref(), params, now),
            Proof::Periskope(_) => periskope::webhook::read(body, now),
        }
    }
}

impl<'a> Content<'a> {
    fn parts(&self) -> (&'a [u8], &[twilio::webhook::Field<'a>]) {
        match self {
            Self::Bytes(body) => (body, &[]),
            Self::Form(fields) => (&[], fields),
        }
    }
}
