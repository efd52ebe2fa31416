//! One write: read fresh or go on from the last stored version, change, PUT with its resourceVersion, and on any doubt
//! read again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use kube::api::PostParams;

use super::slot::{Slot, Waiting};
use super::{Ledger, LedgerError, Merged};
use crate::api::BroadcastBatch;
use crate::clock;
use crate::cluster::{ApiError, chain, within};
use crate::domain::ids::{BroadcastUid, ObjectKey};
use crate::domain::page::Page;

/// Waits between tries of one write. Conflicts are with another process or a person, which is rare; everything else is
/// an API server in trouble, which must not be hammered.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Tries of a write that may be given up, such as a claim or a receipt: about 20 s.
const TRIES: usize = 12;

/// Which version of a page a write may go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// Any: evidence is true, whatever has become of the page.
    Any,
    /// Only one that is as far as this process has seen it. What decides who is sent to must not be built on less.
    Latest,
}

impl Ledger {
    /// Changes a page and stores it, together with all evidence that waits for it. `change` may run several times, each
    /// time on the page as it is stored then.
    ///
    /// # Errors
    /// When `change` refuses, the page is gone or foreign, or the API server does not take it within the tries. Waiting
    /// evidence is then answered with an error, so that its sender repeats it.
    pub(super) async fn write<T>(
        &self,
        key: &ObjectKey,
        broadcast: &BroadcastUid,
        slot: &Slot,
        stored: &mut Option<BroadcastBatch>,
        base: Base,
        mut change: impl FnMut(&mut Page) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut waits = waits().with_max_times(TRIES).build();
        loop {
            let waiting = slot.take_waiting();
            match self.write_once(key, broadcast, stored, &waiting, base, &mut change).await {
                Ok((value, merged)) => {
                    for (waiting, merged) in waiting.into_iter().zip(merged) {
                        waiting.answer(Ok(merged));
                    }
                    return Ok(value);
                }
                Err(Failure::Final(error)) => {
                    // Whoever asks again asks about the page as it is then.
                    *stored = None;
                    self.tell_of(&error, broadcast);
                    Self::put_back_or_refuse(key, slot, waiting, &error);
                    return Err(error);
                }
                Err(Failure::Again(error)) => {
                    *stored = None;
                    for waiting in waiting {
                        slot.enqueue(waiting);
                    }
                    let Some(wait) = waits.next() else {
                        self.tell_of(&error, broadcast);
                        return Err(self.give_up(key, slot, error));
                    };
                    clock::wait(wait).await;
                }
            }
        }
    }

    /// Like [`write`](Self::write), for results that exist nowhere else: it goes on until they are stored or the page is
    /// gone.
    pub(super) async fn write_at_any_cost<T>(
        &self,
        key: &ObjectKey,
        broadcast: &BroadcastUid,
        slot: &Slot,
        stored: &mut Option<BroadcastBatch>,
        mut change: impl FnMut(&mut Page) -> T,
    ) -> Result<T, LedgerError> {
        #[cfg(feature = "mutants")]
        if crate::mutants::is_on(crate::mutants::Mutant::ResultsDroppedOnConflict) {
            let once =
                self.write_once(key, broadcast, stored, &[], Base::Any, &mut |page| Ok(change(page))).await;
            return once.map(|(value, _)| value).map_err(|_| LedgerError::Abandoned);
        }
        loop {
            match self.write(key, broadcast, slot, stored, Base::Any, |page| Ok(change(page))).await {
                Err(error @ (LedgerError::Api { .. } | LedgerError::Corrupt { .. })) => {
                    tracing::error!(page = %key, error = %chain(&error), "results are not stored yet, trying on");
                    clock::wait(LONGEST_WAIT).await;
                }
                finished => return finished,
            }
        }
    }

    async fn write_once<T>(
        &self,
        key: &ObjectKey,
        broadcast: &BroadcastUid,
        stored: &mut Option<BroadcastBatch>,
        waiting: &[Waiting],
        base: Base,
        change: &mut impl FnMut(&mut Page) -> Result<T, LedgerError>,
    ) -> Result<(T, Vec<Merged>), Failure> {
        let current = self.load(key, stored).await.map_err(Failure::of)?;
        let owner = BroadcastUid::new(current.spec.broadcast.uid.clone());
        if &owner != broadcast {
            return Err(Failure::Final(LedgerError::Foreign { page: key.clone() }));
        }
        let before = parse(key, current).map_err(Failure::of)?;
        if base == Base::Latest && self.observed.is_behind(current, &before) {
            return Err(Failure::Final(LedgerError::WentBack { page: key.clone() }));
        }
        let mut page = before.clone();
        let together = waiting.iter().map(Waiting::len).sum();
        let merged = waiting.iter().map(|waiting| Merged { together, ..waiting.apply(&owner, &mut page) });
        let merged = merged.collect();
        let value = change(&mut page).map_err(Failure::Final)?;
        let status = page.status();
        if current.status.as_ref() != Some(&status) {
            let next = BroadcastBatch { status: Some(status), ..current.clone() };
            let written = self.put(key, &next).await;
            #[cfg(feature = "mutants")]
            let written = match written {
                Err(LedgerError::Api { source, .. })
                    if source.is_conflict() && crate::mutants::forgets_version(&before, &page) =>
                {
                    let api = self.api(&key.namespace);
                    self.put(key, &crate::mutants::in_any_version(&api, next).await).await
                }
                written => written,
            };
            *stored = Some(written.map_err(Failure::of)?);
        }
        Ok((value, merged))
    }

    /// The page as last stored by this process, unless somebody else has stored or deleted it since, as far as the watch
    /// knows; else as it is now.
    pub(super) async fn load<'a>(
        &self,
        key: &ObjectKey,
        stored: &'a mut Option<BroadcastBatch>,
    ) -> Result<&'a BroadcastBatch, LedgerError> {
        if stored.as_ref().is_some_and(|stored| !self.observed.is_latest(stored)) {
            *stored = None;
        }
        if stored.is_none() {
            let read = within(self.api(&key.namespace).get(&key.name)).await;
            *stored = Some(read.map_err(|source| self.api_error(key, source))?);
        }
        Ok(stored.as_ref().expect("should hold the page that was just read"))
    }

    pub(super) async fn put(
        &self,
        key: &ObjectKey,
        next: &BroadcastBatch,
    ) -> Result<BroadcastBatch, LedgerError> {
        let api = self.api(&key.namespace);
        let written = within(api.replace_status(&key.name, &PostParams::default(), next)).await;
        let written = written.map_err(|source| self.api_error(key, source))?;
        self.observed.note(&written);
        Ok(written)
    }

    fn api_error(&self, key: &ObjectKey, source: ApiError) -> LedgerError {
        if source.is_not_found() {
            self.observed.forget_gone(key);
            return LedgerError::Gone { page: key.clone() };
        }
        LedgerError::Api { page: key.clone(), source }
    }

    /// A refused claim says nothing about the evidence that came along: it waits for the next turn, which its own sender
    /// takes. Every other error is that of the page, and goes to all who wait: nobody would take the turn of a sender that
    /// was answered with an error.
    fn put_back_or_refuse(key: &ObjectKey, slot: &Slot, waiting: Vec<Waiting>, error: &LedgerError) {
        for waiting in waiting {
            match error {
                LedgerError::Claimed { .. }
                | LedgerError::Sealed { .. }
                | LedgerError::WentBack { .. }
                | LedgerError::NothingToSend { .. } => {
                    slot.enqueue(waiting);
                }
                LedgerError::Gone { .. } => waiting.answer(Err(LedgerError::Gone { page: key.clone() })),
                LedgerError::Foreign { .. } => {
                    waiting.answer(Err(LedgerError::Foreign { page: key.clone() }));
                }
                LedgerError::Corrupt { .. } | LedgerError::Api { .. } | LedgerError::Abandoned => {
                    waiting.answer(Err(LedgerError::Abandoned));
                }
            }
        }
    }

    fn give_up(&self, key: &ObjectKey, slot: &Slot, error: LedgerError) -> LedgerError {
        tracing::warn!(page = %key, error = %chain(&error), incarnation = self.incarnation.as_str(), "gave up a write");
        for waiting in slot.take_waiting() {
            waiting.answer(Err(LedgerError::Abandoned));
        }
        error
    }
}

/// Whether another try may succeed.
enum Failure {
    Again(LedgerError),
    Final(LedgerError),
}

impl Failure {
    fn of(error: LedgerError) -> Self {
        match &error {
            LedgerError::Api { source, .. } if source.is_conflict() || source.is_temporary() => {
                Self::Again(error)
            }
            _ => Self::Final(error),
        }
    }
}

fn waits() -> ExponentialBuilder {
    ExponentialBuilder::new().with_min_delay(FIRST_WAIT).with_max_delay(LONGEST_WAIT).with_factor(2.0)
}

pub(super) fn parse(key: &ObjectKey, batch: &BroadcastBatch) -> Result<Page, LedgerError> {
    Page::parse(batch).map_err(|source| LedgerError::Corrupt { page: key.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::page::PageError;

    /// Who waits is answered, or still waits.
    fn is_answered(error: &LedgerError) -> bool {
        let (key, slot) = (ObjectKey::new("shop", "sale-00000"), Slot::default());
        let (waiting, mut answer) = Waiting::new(BroadcastUid::new("1".into()), Vec::new());
        Ledger::put_back_or_refuse(&key, &slot, vec![waiting], error);
        let left = slot.take_waiting().len();
        let answered = matches!(answer.try_recv(), Ok(Err(_)));
        assert_ne!(left == 1, answered, "{error}: it either waits or is answered");
        answered
    }

    #[test]
    fn evidence_waits_on_when_a_claim_is_refused_and_is_refused_with_the_page() {
        let page = ObjectKey::new("shop", "sale-00000");
        for refusal in [
            LedgerError::Claimed { page: page.clone() },
            LedgerError::Sealed { page: page.clone() },
            LedgerError::WentBack { page: page.clone() },
            LedgerError::NothingToSend { page: page.clone() },
        ] {
            assert!(!is_answered(&refusal), "{refusal}");
        }
        for error in [
            LedgerError::Api { page: page.clone(), source: ApiError::TimedOut },
            LedgerError::Corrupt { page: page.clone(), source: PageError::NoOutcomes },
            LedgerError::Gone { page: page.clone() },
            LedgerError::Foreign { page },
            LedgerError::Abandoned,
        ] {
            assert!(is_answered(&error), "{error}");
        }
    }
}
