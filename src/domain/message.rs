//! The message of a Broadcast: texts with the recipient's parameters in them, made into what one recipient gets.

mod markdown;
mod missing;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};

use super::content::{Content, MediaContent, TemplateContent};
use super::page::Recipient;
use crate::api::{MessageContent, MessageTemplateRef, TextFormat};
use missing::Lacking;
pub use missing::Missing;

/// Longest text that is sent, in characters: the limit of Telegram and of `WhatsApp`'s free texts.
pub const MAX_TEXT: usize = 4096;
/// Longest value of a template's parameter, name of a file and url, in characters.
const MAX_PARAMETER: usize = 1024;
const MAX_FILE_NAME: usize = 240;
const MAX_URL: usize = 2048;
/// Work for one text. A step of the template costs one, and 64 bytes that it makes, also on the way, cost one: a message
/// with fifty parameters needs a few hundred, and a loop without end is stopped after milliseconds and 3 MB.
const FUEL: u64 = 50_000;
/// Bytes of the longest text: no character has more than four.
const MAX_TEXT_BYTES: usize = 4 * MAX_TEXT;

/// Steps for the texts of one audience together: some seconds. A million texts then have a thousand steps each, and a usual
/// one takes some dozens.
const AUDIENCE_FUEL: u64 = 1_000_000_000;

/// A message that cannot be sent as it stands.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MessageError {
    /// The template is not valid.
    #[error("{part} is no valid template: {problem}")]
    InvalidTemplate {
        /// The field of the message.
        part: String,
        /// What is wrong.
        problem: String,
    },
    /// Recipients lack a parameter.
    #[error(
        "{rows} of the recipients (first: row {first_row}) do not have what the message uses: {missing}. Add the columns to the \
         audience, or write {{{{ {} | default(\"…\") }}}}", missing.example()
    )]
    MissingParameter {
        /// The parameters.
        missing: Missing,
        /// Recipients without one of them.
        rows: usize,
        /// The first of them, counted from 1.
        first_row: usize,
    },
    /// The text of a recipient cannot be sent.
    #[error("{part} for the recipient in row {row} {problem}")]
    UnsendableText {
        /// The field of the message.
        part: String,
        /// The recipient, counted from 1.
        row: usize,
        /// What is wrong with its text.
        problem: String,
    },
    /// The template does more than a message needs.
    #[error(
        "{part} takes too much work to be made into a text (first: row {row}): take loops over big ranges and repeated \
         texts out of it"
    )]
    TooMuchWork {
        /// The field of the message.
        part: String,
        /// The recipient, counted from 1.
        row: usize,
    },
}

impl MessageError {
    /// One word, as a condition's reason.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::InvalidTemplate { .. } => "InvalidTemplate",
            Self::MissingParameter { .. } => "MissingParameter",
            Self::UnsendableText { .. } => "InvalidText",
            Self::TooMuchWork { .. } => "TemplateTooComplex",
        }
    }
}

/// Why a message was not made for a recipient.
enum Unmade {
    /// It uses something that the recipient does not have.
    Undefined,
    Unsendable(MessageError),
}

impl From<MessageError> for Unmade {
    fn from(error: MessageError) -> Self {
        Self::Unsendable(error)
    }
}

/// A message, ready to be made for its recipients.
#[derive(Clone, Debug)]
pub struct MessageTemplate {
    message: MessageContent,
    environment: Environment<'static>,
    /// Longest text or caption, in characters.
    max_text: usize,
}

impl MessageTemplate {
    /// Reads a message, whose text or caption may have so many characters.
    ///
    /// # Errors
    /// When the syntax of one of its parts is wrong.
    pub fn parse(message: &MessageContent, max_text: usize) -> Result<Self, MessageError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let format = message.format;
        // The other parts are values and have no markup.
        environment.set_auto_escape_callback(move |part| match format {
            TextFormat::Html if part == TEXT => AutoEscape::Html,
            TextFormat::MarkdownV2 if part == TEXT => markdown::ESCAPE,
            _ => AutoEscape::None,
        });
        environment.set_formatter(markdown::format);
        environment.set_fuel(Some(FUEL));
        let mut template = Self { message: message.clone(), environment, max_text };
        for part in template.parts() {
            if let Some(text) = template.source(&part).filter(|text| has_marks(text)).map(str::to_owned) {
                template
                    .environment
                    .add_template_owned(part.clone(), text)
                    .map_err(|error| MessageError::InvalidTemplate { part, problem: one_line(&error) })?;
            }
        }
        Ok(template)
    }

    /// The message for one recipient. Row numbers in errors are those of `row`, counted from 0.
    ///
    /// # Errors
    /// When the recipient lacks a parameter, a part is empty or too long, or takes too much work.
    pub fn render(&self, row: usize, params: &BTreeMap<String, String>) -> Result<Content, MessageError> {
        self.make(row, params).map_err(|unmade| match unmade {
            Unmade::Undefined => {
                let mut lacking = Lacking::of(self);
                lacking.add(row, params);
                lacking.error()
            }
            Unmade::Unsendable(error) => error,
        })
    }

    fn make(&self, row: usize, params: &BTreeMap<String, String>) -> Result<Content, Unmade> {
        let MessageContent { text, format, template, media } = &self.message;
        let part = |name: &str, max: usize| self.part(name, max, row, params);
        let text = match text {
            Some(_) => part(TEXT, self.max_text)?,
            None => String::new(),
        };
        let template: Option<Result<_, Unmade>> = template.as_ref().map(|template| {
            let parameters = template.parameters.keys().map(|name| {
                let value = part(&parameter(name), MAX_PARAMETER)?;
                Ok((name.clone(), value))
            });
            let buttons = template.button_parameters.keys().map(|number| {
                let value = part(&button(number), MAX_PARAMETER)?;
                Ok((number.parse().unwrap_or_default(), value))
            });
            Ok(TemplateContent {
                name: template.name.clone(),
                language: template.language.clone().unwrap_or_default(),
                parameters: parameters.collect::<Result<_, Unmade>>()?,
                buttons: buttons.collect::<Result<_, Unmade>>()?,
            })
        });
        let media: Option<Result<_, Unmade>> = media.as_ref().map(|media| {
            let file_name = match media.file_name {
                Some(_) => part(FILE_NAME, MAX_FILE_NAME)?,
                None => String::new(),
            };
            Ok(MediaContent { kind: media.kind, url: part(URL, MAX_URL)?, file_name })
        });
        Ok(Content { text, format: *format, template: template.transpose()?, media: media.transpose()? })
    }

    /// Whether the link of the media may be another one for each recipient. It may be a parameter of a template.
    #[must_use]
    pub fn has_own_media(&self) -> bool {
        let MessageContent { template, media, .. } = &self.message;
        let is_of_template = template.is_some() && media.is_none();
        let has_parameters = self.environment.templates().next().is_some();
        self.environment.get_template(URL).is_ok() || (is_of_template && has_parameters)
    }

    /// Checks that every recipient that is not skipped gets a message.
    ///
    /// # Errors
    /// The first problem. Where that is a missing parameter: all that are missing, and how many recipients lack one.
    pub fn check<'a>(
        &self,
        recipients: &(impl Iterator<Item = &'a Recipient> + Clone),
    ) -> Result<(), MessageError> {
        let mut bounded = self.clone();
        let rows = u64::try_from(recipients.clone().count()).unwrap_or(u64::MAX);
        bounded.environment.set_fuel(Some((AUDIENCE_FUEL / rows.max(1)).min(FUEL)));
        let is_the_same_for_all = self.environment.templates().next().is_none();
        let rows = || recipients.clone().enumerate().filter(|(_, recipient)| recipient.skip.is_empty());
        let mut lacking = None;
        for (row, recipient) in rows().take(if is_the_same_for_all { 1 } else { usize::MAX }) {
            match bounded.make(row, &recipient.params) {
                Err(Unmade::Undefined) => {
                    lacking.get_or_insert_with(|| Lacking::of(&bounded)).add(row, &recipient.params);
                }
                Err(Unmade::Unsendable(error)) if lacking.is_none() => return Err(error),
                // What is wrong besides is said once nothing is missing.
                Ok(_) | Err(Unmade::Unsendable(_)) => {}
            }
        }
        lacking.map_or(Ok(()), |lacking| Err(lacking.error()))
    }

    /// Names of the parts that may hold parameters.
    fn parts(&self) -> Vec<String> {
        let of_template = self.message.template.iter().flat_map(template_values).map(|(part, _)| part);
        [TEXT, URL, FILE_NAME].into_iter().map(str::to_owned).chain(of_template).collect()
    }

    /// A part as it stands in the message.
    fn source(&self, part: &str) -> Option<&str> {
        let MessageContent { text, template, media, .. } = &self.message;
        match part {
            TEXT => text.as_deref(),
            URL => media.as_ref().map(|media| media.url.as_str()),
            FILE_NAME => media.as_ref().and_then(|media| media.file_name.as_deref()),
            part => {
                let template = template.as_ref()?;
                let (parameters, name) = match part.strip_prefix(PARAMETERS) {
                    Some(name) => (&template.parameters, name),
                    None => (&template.button_parameters, part.strip_prefix(BUTTONS)?),
                };
                parameters.get(name).map(String::as_str)
            }
        }
    }

    /// A part as this recipient gets it.
    fn part(
        &self,
        part: &str,
        max: usize,
        row: usize,
        params: &BTreeMap<String, String>,
    ) -> Result<String, Unmade> {
        let unsendable =
            |problem: String| MessageError::UnsendableText { part: part.to_owned(), row: row + 1, problem };
        let too_long = || unsendable(format!("has more than {max} characters"));
        let made = match self.environment.get_template(part) {
            Err(_) => Cow::Borrowed(self.source(part).unwrap_or_default()),
            Ok(template) => {
                let mut text = BoundedText::default();
                template.render_captured_to(params, &mut text).map_err(|error| match error.kind() {
                    ErrorKind::UndefinedError => Unmade::Undefined,
                    ErrorKind::OutOfFuel => {
                        MessageError::TooMuchWork { part: part.to_owned(), row: row + 1 }.into()
                    }
                    ErrorKind::WriteFailure => too_long().into(),
                    ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => {
                        MessageError::InvalidTemplate { part: part.to_owned(), problem: one_line(&error) }
                            .into()
                    }
                    _ => unsendable(format!("cannot be made: {}", one_line(&error))).into(),
                })?;
                let text =
                    String::from_utf8(text.0).expect("should be text, as templates and parameters are");
                if text.trim().is_empty() {
                    return Err(unsendable("is empty".into()).into());
                }
                Cow::Owned(text)
            }
        };
        if made.chars().count() > max { Err(too_long().into()) } else { Ok(made.into_owned()) }
    }
}

/// Names of the parts, as errors show them.
const TEXT: &str = "message.text";
const URL: &str = "message.media.url";
const FILE_NAME: &str = "message.media.fileName";
const PARAMETERS: &str = "message.template.parameters.";
const BUTTONS: &str = "message.template.buttonParameters.";

/// The values of a template as they stand in the message, with the names of their parts.
pub fn template_values(template: &MessageTemplateRef) -> impl Iterator<Item = (String, &str)> {
    let parameters = template.parameters.iter().map(|(name, value)| (parameter(name), value.as_str()));
    let buttons = template.button_parameters.iter().map(|(number, value)| (button(number), value.as_str()));
    parameters.chain(buttons)
}

fn parameter(name: &str) -> String {
    format!("{PARAMETERS}{name}")
}

fn button(number: &str) -> String {
    format!("{BUTTONS}{number}")
}

fn has_marks(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// Takes a text up to its greatest length, and refuses the rest while it is being made.
#[derive(Default)]
struct BoundedText(Vec<u8>);

impl io::Write for BoundedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn one_line(error: &minijinja::Error) -> String {
    let text = error.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
