//! Escaping of parameters in Telegram's Markdown, version 2: each of its special characters may stand for itself after a backslash,
//! as the Bot API's page on formatting says.

use std::borrow::Cow;
use std::fmt::Write;

use minijinja::value::Value;
use minijinja::{AutoEscape, Output, State, escape_formatter};

/// The escaping of texts in this Markdown.
pub(super) const ESCAPE: AutoEscape = AutoEscape::Custom(Cow::Borrowed("markdown-v2"));

const SPECIAL: &str = "_*[]()~`>#+-=|{}.!\\";

/// Writes a value as the markup of its text wants it.
pub(super) fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    if *state.auto_escape() != ESCAPE || value.is_safe() {
        return escape_formatter(out, state, value);
    }
    for letter in value.to_string().chars() {
        if SPECIAL.contains(letter) {
            out.write_char('\\')?;
        }
        out.write_char(letter)?;
    }
    Ok(())
}
