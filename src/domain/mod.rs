//! Pure rules: no async, no client, no clock, no random, no environment. Time and luck come in as arguments.

pub mod ids;
pub mod outcome;
pub mod page;
mod page_csv;
pub mod token;
