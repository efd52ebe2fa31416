//! Pure rules: no async, no client, no clock, no random, no environment. Time and luck come in as arguments.

pub mod adaptive;
pub mod answer;
#[cfg(test)]
mod any;
pub mod audience;
pub mod breaker;
pub mod campaign;
pub mod capabilities;
pub mod channel_verdict;
pub mod chat;
pub mod conditions;
pub mod content;
pub mod day_count;
pub mod error_policy;
pub mod export;
pub mod hold;
pub mod ids;
pub mod message;
pub mod outcome;
pub mod page;
mod page_csv;
pub mod rate;
pub mod receipt;
pub mod restart;
pub mod restored;
pub mod share;
pub mod standing;
pub mod summary;
pub mod suppression;
pub mod text;
pub mod token;
pub mod verdict;
pub mod window;
