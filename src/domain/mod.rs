//! Pure rules: no async, no client, no clock, no random, no environment. Time and luck come in as arguments.

pub mod answer;
pub mod audience;
pub mod campaign;
pub mod channel_verdict;
pub mod conditions;
pub mod hold;
pub mod ids;
pub mod message;
pub mod outcome;
pub mod page;
mod page_csv;
pub mod rate;
pub mod restart;
pub mod standing;
pub mod summary;
pub mod token;
pub mod verdict;
pub mod window;
