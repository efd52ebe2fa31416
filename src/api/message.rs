//! The message of a Broadcast: what people write, before any recipient's parameters are in it.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};

use super::rules::must_match;

/// The message: a text, a template of the provider, media, or media with one of the two.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.text) && has(self.template))")
    .message("give text or template, not both: the text of a template is kept by the provider"))]
#[x_kube(validation = Rule::new("has(self.text) || has(self.template) || has(self.media)")
    .message("the message is empty: give text, template or media"))]
#[x_kube(validation = Rule::new("!has(self.format) || self.format == 'Plain' || has(self.text)")
    .message("format says how text is marked up: give text, or remove format"))]
pub struct MessageContent {
    /// Text, with the recipient's parameters between double braces, as in `Hi {{ name }}` (Jinja syntax). A parameter
    /// that a recipient does not have is an error, found before anything is sent; `{{ name | default("you") }}` gives a
    /// default. Beside `media` it is the caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub text: Option<String>,
    /// How the text is marked up. Parameters are escaped, so that `<` in a name stays a `<`. HTML and `MarkdownV2` are for
    /// Telegram.
    #[serde(default, skip_serializing_if = "TextFormat::is_plain")]
    pub format: TextFormat,
    /// A template that was approved by the provider: of `WhatsApp` by its name, of Twilio by its `ContentSid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<MessageTemplateRef>,
    /// A picture, a video, a sound or a document. Beside `template` it is what the header of the template shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
}

/// How a text is marked up.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum TextFormat {
    /// Not at all: every character is sent as it is.
    #[default]
    Plain,
    /// Tags, as Telegram knows them.
    #[serde(rename = "HTML")]
    Html,
    /// Telegram's Markdown, version 2.
    MarkdownV2,
}

impl TextFormat {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_plain(&self) -> bool {
        *self == Self::Plain
    }
}

/// A template that the provider knows.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MessageTemplateRef {
    /// Its name; for Twilio its `ContentSid`, `HX…`.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
    /// Its language, such as `en_US`. `WhatsApp` needs it, Twilio has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub language: Option<String>,
    /// Values of its parameters: `"1"`, `"2"` … or names, and texts that may hold the recipient's parameters as in
    /// `"{{ name }}"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "template_parameters_schema")]
    pub parameters: BTreeMap<String, String>,
    /// What is added to the links of its buttons, by the number of the button: `"0"` is the first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "button_parameters_schema")]
    pub button_parameters: BTreeMap<String, String>,
}

/// Media. The provider fetches it from its url, for each message anew.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.fileName) || self.kind == 'Document'")
    .message("fileName is for documents: remove it, or say kind: Document"))]
pub struct Media {
    /// What it is.
    pub kind: MediaKind,
    /// Where it is, on a server that the provider can reach. It may hold the recipient's parameters.
    #[schemars(
        length(min = 1, max = 2048),
        extend("x-kubernetes-validations" = must_match(r"^https?://[^\s/?#@\\{}]+([/?#].*)?$", "url begins with http:// or https:// and a host without a user name, a password or parameters; parameters may follow after the host"))
    )]
    pub url: String,
    /// Name that a document is shown with. It may hold the recipient's parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 240))]
    pub file_name: Option<String>,
}

/// What media is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// A video.
    Video,
    /// A sound.
    Audio,
    /// Any file.
    Document,
}

/// Parameters of a template: at most 64, names of at most 64 and values of at most 1,024 characters.
fn template_parameters_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 1024},
        "x-kubernetes-validations": [{
            "rule": "self.all(name, name.matches('^[A-Za-z0-9_]{1,64}$'))",
            "message": "names of template parameters have letters, digits and _ only, at most 64",
        }]
    })
}

/// Parameters of buttons: `"0"` to `"9"`.
fn button_parameters_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 10,
        "additionalProperties": {"type": "string", "maxLength": 1024},
        "x-kubernetes-validations": [{
            "rule": "self.all(number, number.matches('^[0-9]$'))",
            "message": "buttons are numbered \"0\" to \"9\"",
        }]
    })
}
