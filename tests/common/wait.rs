//! Waiting for a condition, never for a time.

use std::fmt::Debug;
use std::time::Duration;

use broadcast_operator::clock;

/// Longest wait for anything. Long enough for a loaded machine; a condition that holds is noticed at once.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Looks until `look` finds what it looks for.
///
/// # Panics
/// When it does not within [`PATIENCE`]; `Err` of the last look says what was there instead.
pub async fn until<T, E: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    until_within(PATIENCE, what, look).await
}

/// The same with another patience.
///
/// # Panics
/// When it does not find it within `patience`.
pub async fn until_within<T, E: Debug>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let started = clock::monotonic();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > patience => {
                panic!("waited {} s for: {what}; last seen: {seen:#?}", patience.as_secs())
            }
            Err(_) => clock::wait(POLL).await,
        }
    }
}
