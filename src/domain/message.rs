//! The message of a Broadcast: a template, made into a text for each recipient.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use super::page::Recipient;

/// Longest text that is sent, in characters: the limit of Telegram and of `WhatsApp`'s free texts.
pub const MAX_TEXT: usize = 4096;
/// Work for one text. A step of the template costs one, and 64 bytes that it makes, also on the way, cost one: a message
/// with fifty parameters needs a few hundred, and a loop without end is stopped after milliseconds and 3 MB.
const FUEL: u64 = 50_000;
/// Bytes of the longest text: no character has more than four.
const MAX_TEXT_BYTES: usize = 4 * MAX_TEXT;

/// Steps for the texts of one audience together: some seconds. A million texts then have a thousand steps each, and a usual
/// one takes some dozens.
const AUDIENCE_FUEL: u64 = 1_000_000_000;

const NAME: &str = "message";

/// A message that cannot be sent as it stands.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MessageError {
    /// The template is not valid.
    #[error("message.text is no valid template: {0}")]
    InvalidTemplate(String),
    /// Recipients lack a parameter.
    #[error(
        "message.text uses {{{{ {variable} }}}}, which {rows} of the recipients do not have (first: row {first_row}): add the \
         column to the audience, or write {{{{ {variable} | default(\"…\") }}}}"
    )]
    MissingParameter {
        /// The parameter.
        variable: String,
        /// Recipients without it.
        rows: usize,
        /// The first of them, counted from 1.
        first_row: usize,
    },
    /// The text of a recipient cannot be sent.
    #[error("the text for the recipient in row {row} {problem}")]
    UnsendableText {
        /// The recipient, counted from 1.
        row: usize,
        /// What is wrong with its text.
        problem: String,
    },
    /// The template does more than a message needs.
    #[error(
        "message.text takes too much work to be made into a text (first: row {row}): take loops over big ranges and repeated \
         texts out of it"
    )]
    TooMuchWork {
        /// The recipient, counted from 1.
        row: usize,
    },
}

impl MessageError {
    /// One word, as a condition's reason.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::InvalidTemplate(_) => "InvalidTemplate",
            Self::MissingParameter { .. } => "MissingParameter",
            Self::UnsendableText { .. } => "InvalidText",
            Self::TooMuchWork { .. } => "TemplateTooComplex",
        }
    }
}

/// A message, ready to be made into texts.
#[derive(Clone, Debug)]
pub struct MessageTemplate {
    text: String,
    /// Absent for a text without any template in it.
    environment: Option<Environment<'static>>,
}

impl MessageTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// When its syntax is wrong.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        let plain = !["{{", "{%", "{#"].iter().any(|mark| text.contains(mark));
        if plain {
            return Ok(Self { text: text.to_owned(), environment: None });
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment
            .add_template_owned(NAME, text.to_owned())
            .map_err(|error| MessageError::InvalidTemplate(one_line(&error)))?;
        Ok(Self { text: text.to_owned(), environment: Some(environment) })
    }

    /// The text for one recipient. Row numbers in errors are those of `row`, counted from 0.
    ///
    /// # Errors
    /// When the recipient lacks a parameter, the text is empty or too long, or takes too much work.
    pub fn render(&self, row: usize, params: &BTreeMap<String, String>) -> Result<String, MessageError> {
        let Some(environment) = &self.environment else { return Ok(self.text.clone()) };
        let template = environment.get_template(NAME).expect("should have the template that was added");
        let unsendable = |problem: String| MessageError::UnsendableText { row: row + 1, problem };
        let too_long = || unsendable(format!("has more than {MAX_TEXT} characters"));
        let mut text = BoundedText::default();
        template.render_captured_to(params, &mut text).map_err(|error| match error.kind() {
            ErrorKind::UndefinedError => self.missing(row, params),
            ErrorKind::OutOfFuel => MessageError::TooMuchWork { row: row + 1 },
            ErrorKind::WriteFailure => too_long(),
            ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => {
                MessageError::InvalidTemplate(one_line(&error))
            }
            _ => unsendable(format!("cannot be made: {}", one_line(&error))),
        })?;
        let text = String::from_utf8(text.0).expect("should be text, as templates and parameters are");
        if text.trim().is_empty() {
            return Err(unsendable("is empty".into()));
        }
        if text.chars().count() > MAX_TEXT {
            return Err(too_long());
        }
        Ok(text)
    }

    /// Checks that every recipient that is not skipped gets a text.
    ///
    /// # Errors
    /// The first problem, with the number of recipients that lack the same parameter.
    pub fn check<'a>(
        &self,
        recipients: &(impl Iterator<Item = &'a Recipient> + Clone),
    ) -> Result<(), MessageError> {
        if self.environment.is_none() {
            return Ok(());
        }
        let mut bounded = self.clone();
        if let Some(environment) = &mut bounded.environment {
            let rows = u64::try_from(recipients.clone().count()).unwrap_or(u64::MAX);
            environment.set_fuel(Some((AUDIENCE_FUEL / rows.max(1)).min(FUEL)));
        }
        let rows = || recipients.clone().enumerate().filter(|(_, recipient)| recipient.skip.is_empty());
        for (row, recipient) in rows() {
            match bounded.render(row, &recipient.params) {
                Ok(_) => {}
                Err(MessageError::MissingParameter { variable, first_row, .. }) => {
                    let lacking =
                        rows().filter(|(_, recipient)| !recipient.params.contains_key(&variable)).count();
                    return Err(MessageError::MissingParameter { variable, rows: lacking, first_row });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn missing(&self, row: usize, params: &BTreeMap<String, String>) -> MessageError {
        let absent = self.variables().into_iter().find(|variable| !params.contains_key(variable));
        let variable = absent.unwrap_or_else(|| "a variable".into());
        MessageError::MissingParameter { variable, rows: 1, first_row: row + 1 }
    }

    fn variables(&self) -> BTreeSet<String> {
        let template = self.environment.as_ref().and_then(|environment| environment.get_template(NAME).ok());
        template
            .map(|template| template.undeclared_variables(false).into_iter().collect())
            .unwrap_or_default()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(params: &[(&str, &str)]) -> Recipient {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Recipient { chat: "15550100".into(), skip: String::new(), params }
    }

    #[test]
    fn parameters_are_put_into_the_text() {
        let message = MessageTemplate::parse("Hi {{ name }}, <b>now</b>").expect("valid");
        assert_eq!(
            message.render(0, &recipient(&[("name", "Ana & Co")]).params).expect("text"),
            "Hi Ana & Co, <b>now</b>"
        );
    }

    #[test]
    fn a_missing_parameter_names_itself_the_rows_and_the_cure() {
        let message = MessageTemplate::parse("Hi {{ name }}").expect("valid");
        let rows = [recipient(&[("name", "Ana")]), recipient(&[]), recipient(&[])];
        let error = message.check(&rows.iter()).expect_err("two rows have no name");
        assert_eq!(error, MessageError::MissingParameter { variable: "name".into(), rows: 2, first_row: 2 });
        assert!(error.to_string().contains("{{ name | default(\"…\") }}"), "{error}");
    }

    #[test]
    fn a_default_takes_the_place_of_a_missing_parameter() {
        let message = MessageTemplate::parse("Hi {{ name | default('you') }}").expect("valid");
        assert_eq!(message.check(&[recipient(&[])].iter()), Ok(()));
    }

    #[test]
    fn a_syntax_error_is_found_before_anything_is_sent() {
        let error = MessageTemplate::parse("Hi {{ name").expect_err("unclosed");
        assert_eq!(error.category(), "InvalidTemplate");
    }

    #[test]
    fn an_empty_or_endless_text_is_refused() {
        let empty = MessageTemplate::parse("{% if false %}x{% endif %}").expect("valid");
        assert_eq!(empty.check(&[recipient(&[])].iter()).expect_err("empty").category(), "InvalidText");
        let long = MessageTemplate::parse("{{ 'x' * 9999 }}").expect("valid");
        assert_eq!(long.check(&[recipient(&[])].iter()).expect_err("long").category(), "InvalidText");
    }

    #[test]
    fn a_template_that_works_without_end_is_stopped() {
        let loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x";
        let doubled = format!(
            "{}{{{{ text|length }}}}",
            "{% set text = (text|default('x')) ~ (text|default('x')) %}".repeat(60)
        );
        let listed = "{{ range(99999)|list|join('a long separator')|length }}";
        for text in [loops, &doubled, listed, "{{ ('x' * 9999999)|length }}"] {
            let message = MessageTemplate::parse(text).expect("valid");
            let error = message.check(&[recipient(&[])].iter()).expect_err("too much");
            assert_eq!(error, MessageError::TooMuchWork { row: 1 }, "{text}");
            assert_eq!(error.category(), "TemplateTooComplex");
        }
    }

    #[test]
    fn a_text_is_refused_as_soon_as_it_is_too_long() {
        let message =
            MessageTemplate::parse("{% for i in range(2000) %}0123456789{% endfor %}").expect("valid");
        let error = message.render(4, &BTreeMap::new()).expect_err("20,000 characters");
        assert_eq!(error.to_string(), "the text for the recipient in row 5 has more than 4096 characters");
    }

    #[test]
    fn a_text_of_the_greatest_length_is_made_whatever_its_letters() {
        let message = MessageTemplate::parse("{{ '😀' * 4096 }}").expect("valid");
        assert_eq!(message.render(0, &BTreeMap::new()).map(|text| text.chars().count()), Ok(MAX_TEXT));
    }

    #[test]
    fn skipped_rows_need_no_parameters() {
        let message = MessageTemplate::parse("Hi {{ name }}").expect("valid");
        let skipped = Recipient { skip: "Duplicate".into(), ..recipient(&[]) };
        assert_eq!(message.check(&[skipped].iter()), Ok(()));
    }
}
