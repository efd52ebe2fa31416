//! What is sent to one recipient, after its parameters were put in. Providers turn it into requests.

use std::collections::BTreeMap;

use crate::api::{MediaKind, TextFormat};

/// A message for one recipient: a text, a template, media, or media with one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The text, or the caption of the media; empty where there is none.
    pub text: String,
    /// How the text is marked up.
    pub format: TextFormat,
    /// A template that the provider knows.
    pub template: Option<TemplateContent>,
    /// A picture, a video, a sound or a document.
    pub media: Option<MediaContent>,
}

impl Content {
    /// A plain text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// A template that the provider knows, with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateContent {
    /// Its name, or its id where the provider has no names.
    pub name: String,
    /// Its language, such as `en_US`; empty where it has none.
    pub language: String,
    /// Values by name. Positional ones are named `1`, `2` and so on.
    pub parameters: BTreeMap<String, String>,
    /// What is added to the links of its buttons, by the number of the button, from 0.
    pub buttons: BTreeMap<u8, String>,
}

/// Values of parameters in the order of their numbers. `None`: they are named. A template has one kind of them.
///
/// # Errors
/// When some have numbers, and not all of them, or not 1, 2, 3 without a gap.
pub fn in_order(parameters: &BTreeMap<String, String>) -> Result<Option<Vec<&str>>, OutOfOrder> {
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    if !parameters.keys().any(|name| is_number(name)) {
        return Ok(None);
    }
    // As texts, "10" comes before "2".
    let mut numbered: Vec<(usize, &str)> =
        parameters.iter().map(|(name, text)| (name.parse().unwrap_or_default(), text.as_str())).collect();
    numbered.sort_unstable();
    if numbered.iter().zip(1..).any(|((number, _), place)| *number != place) {
        return Err(OutOfOrder);
    }
    Ok(Some(numbered.into_iter().map(|(_, text)| text).collect()))
}

/// Parameters of a template have no order, and are not all named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the parameters of the template must all be named, or numbered 1, 2, 3 without a gap")]
pub struct OutOfOrder;

/// Media that the provider fetches by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaContent {
    /// What it is.
    pub kind: MediaKind,
    /// Where it is.
    pub url: String,
    /// Name of the file that a document is shown with, or empty.
    pub file_name: String,
}
