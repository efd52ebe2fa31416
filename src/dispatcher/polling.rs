//! Asking the provider what became of messages whose receipts are missing: one task beside the sender of a channel.
//!
//! In: pages as observed, and leave of the sender, which it gives while the channel works. Out: evidence, stored as receipts are, and
//! what a refusal says of the account. One question at a time, few in a second, and none
//! that a message waits for.

mod pace;
mod work;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Context;
use super::account::{DoorNumber, LookupRefused};
use crate::clock;
use crate::domain::ids::ObjectKey;
use crate::lease::Tenure;
use crate::providers::gateway::Gateway;
use work::Work;

/// After a panic nothing is asked for so long: the same question may be the next one.
const AFTER_PANIC: Duration = Duration::from_secs(60);

/// Who is told that the provider refused the sender of a question.
type Tell = Arc<dyn Fn(LookupRefused) + Send + Sync>;

/// Leave to ask.
#[derive(Clone)]
struct Leave {
    gateway: Gateway,
    door: DoorNumber,
}

/// The task. It ends when this is dropped; what it was told by then is stored all the same.
pub(super) struct Polling {
    leave: watch::Sender<Option<Leave>>,
    _end: DropGuard,
}

impl Polling {
    /// Starts the task of a channel, without leave.
    pub(super) fn start(context: Arc<Context>, tenure: Tenure, tell: Tell) -> Self {
        let (leave, given) = watch::channel(None);
        let end = CancellationToken::new();
        let channel = tenure.channel.clone();
        let work = move || Work::new(context.clone(), tenure.clone(), tell.clone(), given.clone()).run();
        let ended = end.clone();
        tokio::spawn(async move { ended.run_until_cancelled(keep_on(&channel, AFTER_PANIC, work)).await });
        Self { leave, _end: end.drop_guard() }
    }

    /// Gives leave to ask this way from now on, or takes it back.
    pub(super) fn allow(&self, way: Option<(DoorNumber, &Gateway)>) {
        self.leave.send_if_modified(|leave| {
            let is_news = leave.as_ref().map(|leave| leave.door) != way.map(|(door, _)| door);
            if is_news {
                *leave = way.map(|(door, gateway)| Leave { gateway: gateway.clone(), door });
            }
            is_news
        });
    }
}

/// Does the work, and begins it anew when it panics: receipts that are missing are no reason to stop sending.
async fn keep_on<W: Future<Output = ()>>(channel: &ObjectKey, rest: Duration, work: impl Fn() -> W) {
    while AssertUnwindSafe(work()).catch_unwind().await.is_err() {
        tracing::error!(channel = %channel, "asking for missing receipts ended by a panic, it begins anew in {} s", rest.as_secs());
        clock::wait(rest).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_panic_ends_one_question_and_not_all_that_would_come() {
        let begun = AtomicUsize::new(0);
        let work = || async {
            assert!(begun.fetch_add(1, Ordering::Relaxed) > 1, "the first two break");
        };
        keep_on(&ObjectKey::new("shop", "sms"), Duration::ZERO, work).await;
        assert_eq!(begun.load(Ordering::Relaxed), 3);
    }
}
