//! What a message is in the Cloud API: its type, and the object under the name of the type. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::api::{MediaKind, TextFormat};
use crate::domain::answer::{Answer, RefusalKind};
use crate::domain::content::{Content, MediaContent, TemplateContent, in_order};

/// Type of a message, and what stands under it.
///
/// # Errors
/// When `WhatsApp` has no such message: a refusal of the content.
pub fn of(content: &Content) -> Result<(&'static str, Value), Answer> {
    let Content { text, format, template, media } = content;
    if *format != TextFormat::Plain && !text.is_empty() {
        return Err(unsendable("WhatsApp knows neither HTML nor MarkdownV2: use format Plain"));
    }
    match (template, media) {
        (Some(template), media) => Ok(("template", template_object(template, media.as_ref())?)),
        (None, Some(media)) => Ok((media_type(media.kind), media_message(media, text)?)),
        (None, None) if text.is_empty() => Err(unsendable("the message has no text, template or media")),
        (None, None) => Ok(("text", json!({"body": text, "preview_url": false}))),
    }
}

fn template_object(template: &TemplateContent, header: Option<&MediaContent>) -> Result<Value, Answer> {
    let TemplateContent { name, language, parameters, buttons } = template;
    if language.is_empty() {
        return Err(unsendable("a template of WhatsApp needs its language"));
    }
    let mut components = Vec::new();
    if let Some(media) = header {
        if media.kind == MediaKind::Audio {
            return Err(unsendable("the header of a template of WhatsApp can be no sound"));
        }
        let kind = media_type(media.kind);
        let mut parameter = json!({"type": kind});
        parameter[kind] = media_object(media);
        components.push(json!({"type": "header", "parameters": [parameter]}));
    }
    if !parameters.is_empty() {
        components.push(json!({"type": "body", "parameters": body_parameters(parameters)?}));
    }
    components.extend(buttons.iter().map(|(index, text)| {
        let parameters = [json!({"type": "text", "text": text})];
        json!({"type": "button", "sub_type": "url", "index": index.to_string(), "parameters": parameters})
    }));
    let mut object = json!({"name": name, "language": {"code": language}});
    if !components.is_empty() {
        object["components"] = Value::Array(components);
    }
    Ok(object)
}

/// Positional parameters in the order of their numbers, or named ones. A template has one kind of them.
fn body_parameters(parameters: &BTreeMap<String, String>) -> Result<Vec<Value>, Answer> {
    let named = |(name, text)| json!({"type": "text", "parameter_name": name, "text": text});
    match in_order(parameters) {
        Ok(None) => Ok(parameters.iter().map(named).collect()),
        Ok(Some(texts)) => Ok(texts.into_iter().map(|text| json!({"type": "text", "text": text})).collect()),
        Err(error) => Err(unsendable(&error.to_string())),
    }
}

fn media_message(media: &MediaContent, caption: &str) -> Result<Value, Answer> {
    let mut object = media_object(media);
    if !caption.is_empty() {
        if media.kind == MediaKind::Audio {
            return Err(unsendable("WhatsApp shows no text with a sound: send one of the two"));
        }
        object["caption"] = json!(caption);
    }
    Ok(object)
}

fn media_object(media: &MediaContent) -> Value {
    let mut object = json!({"link": media.url});
    if media.kind == MediaKind::Document && !media.file_name.is_empty() {
        object["filename"] = json!(media.file_name);
    }
    object
}

fn media_type(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "image",
        MediaKind::Video => "video",
        MediaKind::Audio => "audio",
        MediaKind::Document => "document",
    }
}

fn unsendable(detail: &str) -> Answer {
    Answer::refused(RefusalKind::NotSupported, "UnsendableContent", detail)
}
