//! The end of the process: what a signal starts, and how long it may take.
//!
//! The first SIGTERM or SIGINT stops sending, lets the requests in flight finish and records them. A second one ends the
//! process on the spot; what was claimed then is Unknown afterwards, never sent twice.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Longest time for the requests in flight and their records: the longest time-out of a channel (60 s) and a call to
/// the API server. The chart's `terminationGracePeriodSeconds` is longer.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(70);

/// Exit code of a process that a second signal ended.
const ABORTED: i32 = 130;

/// A token that the first signal cancels.
///
/// # Errors
/// When signals cannot be listened to.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping: no further message is sent, requests in flight are finished and recorded");
        cancelled.cancel();
        either(&mut terminate, &mut interrupt).await;
        tracing::warn!("stopping at once: requests in flight will be Unknown");
        std::process::exit(ABORTED);
    });
    Ok(token)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
