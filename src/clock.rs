//! The one place where time is read; everything else takes it as an argument.
#![expect(clippy::disallowed_methods, reason = "this is the place")]

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp, Unit};

thread_local! {
    /// By how much the wall clock of this thread is off, where a test wants it to be.
    static OFF: RefCell<Option<Arc<AtomicI64>>> = const { RefCell::new(None) };
}

/// Wall-clock time in whole milliseconds, for records that people and other systems read.
#[must_use]
pub fn now() -> Timestamp {
    let off = OFF.with_borrow(|off| off.as_ref().map_or(0, |off| off.load(Ordering::Relaxed)));
    let now = Timestamp::now() + SignedDuration::from_millis(off);
    now.round(Unit::Millisecond).expect("should round a current time to milliseconds")
}

/// For tests of a clock that jumps: from here on the wall clock of this thread is off by so many milliseconds, whenever it is
/// looked at.
pub fn set_off_by(millis: Arc<AtomicI64>) {
    OFF.set(Some(millis));
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
