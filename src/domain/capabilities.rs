//! What the provider of a channel can send, and whether a message is something of that. Pure.

use crate::api::{
    BroadcastChannelSpec, HttpFormat, MediaKind, MessageContent, MessageTemplateRef, ProviderName, TextFormat,
};
use crate::domain::content::in_order;
use crate::domain::message::{MAX_TEXT, template_values};

/// Longest text of an SMS in many parts: Twilio refuses more with error 21617.
const TWILIO_TEXT: usize = 1600;
/// Longest caption of `WhatsApp` and Telegram.
const CAPTION: usize = 1024;

const ALL_MEDIA: &[MediaKind] = &[MediaKind::Image, MediaKind::Video, MediaKind::Audio, MediaKind::Document];
const NO_AUDIO: &[MediaKind] = &[MediaKind::Image, MediaKind::Video, MediaKind::Document];

/// What a provider can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    provider: &'static str,
    /// Longest text, in characters.
    max_text: usize,
    /// Longest caption, in characters.
    max_caption: usize,
    formats: &'static [TextFormat],
    templates: Templates,
    media: &'static [MediaKind],
    /// Media that a text can stand below.
    captioned: &'static [MediaKind],
    /// Media that the header of a template can be.
    in_templates: &'static [MediaKind],
    /// Parameters of a template have to be named, or numbered without a gap.
    ordered: bool,
    /// The buttons of a template have parameters of their own.
    buttons: bool,
    /// A text and a parameter may be nothing but spaces.
    blank: bool,
}

/// What a provider knows of templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Templates {
    None,
    /// By name, with or without a language.
    Named,
    /// By name and language.
    NeedLanguage,
    /// By an id of so many characters, which begins with this.
    ById(&'static str, usize),
}

/// A message that the channel cannot send, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(String);

impl Capabilities {
    /// What this channel can send.
    #[must_use]
    pub fn of(channel: &BroadcastChannelSpec) -> Self {
        let all = &[TextFormat::Plain, TextFormat::Html, TextFormat::MarkdownV2];
        let anything = Self {
            provider: "HTTP",
            max_text: MAX_TEXT,
            max_caption: MAX_TEXT,
            formats: &[TextFormat::Plain],
            templates: Templates::Named,
            media: ALL_MEDIA,
            captioned: ALL_MEDIA,
            in_templates: ALL_MEDIA,
            ordered: false,
            buttons: true,
            blank: true,
        };
        match channel.provider {
            ProviderName::Http => match channel.http.as_ref().map(|http| http.format) {
                Some(HttpFormat::Postback) => {
                    Self { provider: "HTTP (Postback)", templates: Templates::None, media: &[], ..anything }
                }
                _ => anything,
            },
            ProviderName::WhatsApp => Self {
                provider: "WhatsApp",
                max_caption: CAPTION,
                templates: Templates::NeedLanguage,
                captioned: NO_AUDIO,
                in_templates: NO_AUDIO,
                ordered: true,
                blank: false,
                ..anything
            },
            ProviderName::Telegram => Self {
                provider: "Telegram",
                max_caption: CAPTION,
                formats: all,
                templates: Templates::None,
                blank: false,
                ..anything
            },
            ProviderName::Twilio => Self {
                provider: "Twilio",
                max_text: TWILIO_TEXT,
                max_caption: TWILIO_TEXT,
                templates: Templates::ById("HX", 34),
                in_templates: &[],
                buttons: false,
                blank: false,
                ..anything
            },
            ProviderName::Periskope => Self {
                provider: "Periskope",
                max_caption: CAPTION,
                templates: Templates::None,
                blank: false,
                ..anything
            },
        }
    }

    /// Longest text, or caption, of this message, in characters.
    #[must_use]
    pub fn max_text_of(&self, message: &MessageContent) -> usize {
        if message.media.is_some() { self.max_caption } else { self.max_text }
    }

    /// Checks that the provider can send such a message, by all that is known before it is made for its recipients.
    ///
    /// # Errors
    /// When it cannot, with what to change.
    pub fn check(&self, message: &MessageContent) -> Result<(), Unsupported> {
        let provider = self.provider;
        if !self.formats.contains(&message.format) {
            return refuse(format!("{provider} sends plain text alone: remove message.format"));
        }
        if let Some(template) = &message.template {
            self.check_template(template)?;
        }
        let is_blank = |text: &String| text.trim().is_empty();
        if !self.blank && message.media.is_none() && message.text.as_ref().is_some_and(is_blank) {
            return refuse(format!("{provider} sends no empty text: write something into message.text"));
        }
        self.check_media(message)
    }

    fn check_template(&self, template: &MessageTemplateRef) -> Result<(), Unsupported> {
        let provider = self.provider;
        match self.templates {
            Templates::None => {
                return refuse(format!(
                    "{provider} has no templates: use message.text instead of message.template"
                ));
            }
            Templates::NeedLanguage if template.language.is_none() => {
                return refuse(format!(
                    "{provider} knows templates by name and language: add message.template.language"
                ));
            }
            Templates::ById(prefix, length)
                if !(template.name.starts_with(prefix) && template.name.len() == length) =>
            {
                return refuse(format!(
                    "{provider} knows templates by their id: message.template.name must be {prefix} and {} characters",
                    length - prefix.len()
                ));
            }
            Templates::Named | Templates::NeedLanguage | Templates::ById(..) => {}
        }
        if let (true, Err(error)) = (self.ordered, in_order(&template.parameters)) {
            return refuse(format!("{error}: correct message.template.parameters"));
        }
        if !self.buttons && !template.button_parameters.is_empty() {
            return refuse(format!(
                "a template of {provider} has its buttons' parameters among the others: move those of \
                 message.template.buttonParameters to message.template.parameters"
            ));
        }
        let blank = template_values(template).find(|(_, value)| value.trim().is_empty());
        match blank {
            Some((part, _)) if !self.blank => {
                refuse(format!("{provider} takes no empty parameter: give {part} a value, or remove it"))
            }
            _ => Ok(()),
        }
    }

    fn check_media(&self, message: &MessageContent) -> Result<(), Unsupported> {
        let provider = self.provider;
        let Some(media) = &message.media else { return Ok(()) };
        let kind = media.kind;
        if !self.media.contains(&kind) {
            return refuse(format!("{provider} sends no {}: remove message.media", word(kind)));
        }
        if message.template.is_some() && !self.in_templates.contains(&kind) {
            return refuse(format!(
                "a template of {provider} takes no {}: remove message.media, and give its link as a parameter if the template has one",
                word(kind)
            ));
        }
        if message.text.is_some() && !self.captioned.contains(&kind) {
            return refuse(format!("{provider} sends {} without a text: remove message.text", word(kind)));
        }
        Ok(())
    }
}

fn refuse(problem: String) -> Result<(), Unsupported> {
    Err(Unsupported(problem))
}

fn word(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "pictures",
        MediaKind::Video => "videos",
        MediaKind::Audio => "sounds",
        MediaKind::Document => "documents",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(provider: ProviderName, message: &Value) -> Result<(), String> {
        let message: MessageContent = serde_json::from_value(message.clone()).expect("a message");
        let capabilities = Capabilities::of(&BroadcastChannelSpec::of(provider));
        capabilities.check(&message).map_err(|refused| refused.to_string())
    }

    #[test]
    fn each_provider_sends_what_it_can_and_says_what_to_change_else() {
        use ProviderName::{Http, Periskope, Telegram, Twilio, WhatsApp};
        let text = json!({"text": "Hi"});
        let template = json!({"template": {"name": "promo"}});
        let with_language = json!({"template": {"name": "promo", "language": "en_US"}});
        let by_id = json!({"template": {"name": format!("HX{}", "0".repeat(32))}});
        let html = json!({"text": "<b>Hi</b>", "format": "HTML"});
        let image = json!({"text": "Hi", "media": {"kind": "Image", "url": "https://cdn.example/a.png"}});
        let sound = json!({"text": "Hi", "media": {"kind": "Audio", "url": "https://cdn.example/a.ogg"}});
        let mut illustrated = with_language.clone();
        illustrated["media"] = image["media"].clone();
        for provider in [Http, WhatsApp, Telegram, Twilio, Periskope] {
            assert_eq!(check(provider, &text), Ok(()), "{provider:?}");
            assert_eq!(check(provider, &image), Ok(()), "{provider:?}");
            assert_eq!(check(provider, &html).is_ok(), provider == Telegram, "{provider:?}");
            assert_eq!(check(provider, &sound).is_ok(), provider != WhatsApp, "{provider:?}");
            assert_eq!(check(provider, &template).is_ok(), provider == Http, "{provider:?}");
            let named = [Http, WhatsApp].contains(&provider);
            assert_eq!(check(provider, &with_language).is_ok(), named, "{provider:?}");
            assert_eq!(check(provider, &illustrated).is_ok(), named, "{provider:?}");
            assert_eq!(check(provider, &by_id).is_ok(), [Http, Twilio].contains(&provider), "{provider:?}");
        }
        let error = check(WhatsApp, &template).expect_err("no language");
        assert!(error.contains("message.template.language"), "{error}");
    }

    #[test]
    fn what_no_request_can_be_made_of_is_found_in_the_message_alone() {
        use ProviderName::{Http, Periskope, Telegram, Twilio, WhatsApp};
        let template = |parameters: Value, buttons: Value| {
            json!({"template": {"name": format!("HX{}", "0".repeat(32)), "language": "en_US",
                                "parameters": parameters, "buttonParameters": buttons}})
        };
        let parameters = |parameters| template(parameters, json!({}));
        let (by_name, all) =
            (&[Http, WhatsApp, Twilio][..], &[Http, WhatsApp, Twilio, Telegram, Periskope][..]);
        let ten: serde_json::Map<_, _> = (1..=10).map(|number| (number.to_string(), json!("a"))).collect();
        let blank = || json!({"text": " \n"});
        let captioned = json!({"text": " ", "media": {"kind": "Image", "url": "https://cdn.example/a.png"}});
        for (message, senders) in [
            (parameters(json!({})), by_name),
            (parameters(json!({"1": "a", "2": "{{ b }}"})), by_name),
            (parameters(json!(ten)), by_name),
            (parameters(json!({"name": "a", "order": "b"})), by_name),
            (parameters(json!({"1": "a", "3": "c"})), &[Http, Twilio]),
            (parameters(json!({"0": "a", "1": "c"})), &[Http, Twilio]),
            (parameters(json!({"1": "a", "01": "c"})), &[Http, Twilio]),
            (parameters(json!({"1": "a", "name": "c"})), &[Http, Twilio]),
            (parameters(json!({"99999999999999999999999": "a"})), &[Http, Twilio]),
            (template(json!({"1": "a"}), json!({"0": "b"})), &[Http, WhatsApp]),
            (template(json!({"1": "a"}), json!({"0": ""})), &[Http]),
            (parameters(json!({"1": "a", "2": ""})), &[Http]),
            (parameters(json!({"1": " "})), &[Http]),
            (blank(), &[Http]),
            (captioned, all),
        ] {
            for provider in all.iter().copied() {
                let checked = check(provider, &message);
                assert_eq!(
                    checked.is_ok(),
                    senders.contains(&provider),
                    "{provider:?} {message} {checked:?}"
                );
            }
        }
        let said = |provider, message: &Value| check(provider, message).expect_err("refused");
        for (error, words) in [
            (
                said(WhatsApp, &parameters(json!({"2": "a"}))),
                "1, 2, 3 without a gap: correct message.template",
            ),
            (said(Twilio, &template(json!({}), json!({"0": "b"}))), "to message.template.parameters"),
            (said(Twilio, &parameters(json!({"2": ""}))), "give message.template.parameters.2 a value"),
            (said(Telegram, &blank()), "into message.text"),
        ] {
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_caption_is_shorter_than_a_text() {
        let of = |provider| Capabilities::of(&BroadcastChannelSpec::of(provider));
        let text = MessageContent { text: Some("Hi".into()), ..MessageContent::default() };
        let image = json!({"text": "Hi", "media": {"kind": "Image", "url": "https://cdn.example/a.png"}});
        let image: MessageContent = serde_json::from_value(image).expect("a message");
        assert_eq!(of(ProviderName::WhatsApp).max_text_of(&text), 4096);
        assert_eq!(of(ProviderName::WhatsApp).max_text_of(&image), 1024);
        assert_eq!(of(ProviderName::Twilio).max_text_of(&text), 1600);
    }
}
