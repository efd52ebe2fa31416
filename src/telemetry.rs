//! Logs: text for people, JSON for collectors. Never a chat, a text or a Secret.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    #[default]
    Json,
}

/// The filter is none.
#[derive(Debug, thiserror::Error)]
#[error("--log-filter is not valid, give for example `info` or `info,broadcast_operator=debug`")]
pub struct InvalidFilter(#[from] tracing_subscriber::filter::ParseError);

/// Writes logs to standard error from here on. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be read.
pub fn init(format: LogFormat, filter: &str) -> Result<(), InvalidFilter> {
    let filter = EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Left alone on a terminal: there the variable NO_COLOR decides.
    let builder = if std::io::stderr().is_terminal() { builder } else { builder.with_ansi(false) };
    // Only a second call fails: then the first one holds.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
    Ok(())
}
