//! The one place where time is read; everything else takes it as an argument.
#![expect(clippy::disallowed_methods, reason = "this is the place")]

use jiff::{Timestamp, Unit};

/// Wall-clock time in whole milliseconds, for records that people and other systems read.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now().round(Unit::Millisecond).expect("should round a current time to milliseconds")
}

/// Monotonic time, for time-outs, rates and leases.
#[must_use]
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

/// Waits. Nothing else in the crate sleeps, so that every wait is found by looking for its callers.
pub async fn wait(time: std::time::Duration) {
    tokio::time::sleep(time).await;
}
