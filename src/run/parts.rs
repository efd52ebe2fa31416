//! Supervised parts of the process: one that ends by itself ends all.

use futures::future::select_all;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::RunError;

/// A supervised part of the process.
pub(super) struct Part {
    name: &'static str,
    task: JoinHandle<Result<(), RunError>>,
}

impl Part {
    pub(super) fn new(
        name: &'static str,
        work: impl Future<Output = Result<(), RunError>> + Send + 'static,
    ) -> Self {
        Self { name, task: tokio::spawn(work) }
    }

    pub(super) fn task(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::new(name, async move {
            work.await;
            Ok(())
        })
    }

    /// Waits until it ends, which it should not.
    pub(super) async fn ended(&mut self) -> RunError {
        match (&mut self.task).await {
            Ok(Ok(())) => RunError::Ended { part: self.name },
            Ok(Err(error)) => error,
            Err(source) => RunError::Died { part: self.name, source },
        }
    }

    /// Waits until it ends, as it should.
    pub(super) async fn finished(self) -> Result<(), RunError> {
        self.task.await.unwrap_or_else(|source| Err(RunError::Died { part: self.name, source }))
    }
}

/// Waits for the signal. A part that ends before it is an error.
pub(super) async fn stopped(
    stop: &CancellationToken,
    parts: impl IntoIterator<Item = &mut Part>,
) -> Result<(), RunError> {
    let ends = select_all(parts.into_iter().map(|part| Box::pin(part.ended())));
    tokio::select! {
        // The dispatcher ends because of the signal, at once when it is idle: that is no error.
        biased;
        () = stop.cancelled() => Ok(()),
        (ended, ..) = ends => Err(ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part that has ended already.
    async fn ended_part() -> Part {
        let part = Part::task("dispatcher", async {});
        while !part.task.is_finished() {
            tokio::task::yield_now().await;
        }
        part
    }

    #[tokio::test]
    async fn a_part_that_ends_with_the_signal_is_no_error_and_one_that_ends_before_it_is() {
        let stop = CancellationToken::new();
        let before = stopped(&stop, [&mut ended_part().await]).await;
        assert!(matches!(before, Err(RunError::Ended { part: "dispatcher" })), "{before:?}");
        stop.cancel();
        // Often, because a choice at random would be right half of the time.
        for _ in 0..64 {
            let after = stopped(&stop, [&mut ended_part().await]).await;
            assert!(after.is_ok(), "{after:?}");
        }
    }
}
