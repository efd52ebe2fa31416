//! What all parts of a running simulator share, and the ledger as its owner sees it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::courier::{Courier, ReceiptCounts};
use super::desk::{Decision, Desk, Request, Tokens};
use super::entry::{Entry, RequestCounts, SendQuery};
use super::faults::{Faults, InvalidRule, Rule};
use super::receipts::{ReceiptPlan, Status};
use super::settings::{InvalidSettings, ReceiptSettings};
use super::wire::{self, Answer, Call, Format, Verb};
use crate::clock;

/// Everything that happened, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Of messages.
    #[serde(flatten)]
    pub requests: RequestCounts,
    /// Of receipts.
    pub receipts: ReceiptCounts,
    /// Questions what became of a message.
    #[serde(default)]
    pub lookups: usize,
}

/// A running gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) desk: Mutex<Desk>,
    pub(super) courier: Arc<Courier>,
    pub(super) changed: watch::Sender<()>,
    pub(super) stop: CancellationToken,
    pub(super) started: Instant,
}

impl Gateway {
    pub(super) fn decide(&self, request: &Request) -> Decision {
        let mut desk = self.desk();
        // Read under the lock, so that the ledger is in the order of its times.
        let micros = clock::monotonic().duration_since(self.started).as_micros();
        let decision = desk.decide(request, (clock::now(), u64::try_from(micros).unwrap_or(u64::MAX)));
        drop(desk);
        self.changed.send_replace(());
        decision
    }

    pub(super) fn complete(&self, sequence: u64, client_left: bool) {
        self.desk().records.complete(sequence, client_left, clock::now());
        self.changed.send_replace(());
    }

    pub(super) fn summary(&self) -> Summary {
        let desk = self.desk();
        let (requests, lookups) = (desk.records.counts(), desk.lookups.len());
        drop(desk);
        Summary { requests, receipts: self.courier.counts(), lookups }
    }

    pub(super) fn set_faults(&self, rules: Vec<Rule>) -> Result<(), InvalidRule> {
        self.desk().faults = Faults::new(rules)?;
        Ok(())
    }

    /// Of one format, or of all.
    pub(super) fn set_token(&self, format: Option<Format>, token: Option<String>) {
        let mut desk = self.desk();
        match format {
            Some(format) => desk.tokens.set(format, token),
            None => desk.tokens = Tokens::of_all(token),
        }
    }

    /// Answers a request that is no message: whether credentials are good, or what became of a message.
    pub(super) fn inform(&self, call: &Call, credential: Option<&str>) -> Answer {
        let plan = self.courier.plan();
        let mut desk = self.desk();
        if let Verb::Status(id) = &call.verb {
            desk.lookups.push(id.clone());
            self.changed.send_replace(());
        }
        if !desk.tokens.take(call.format, credential) {
            return call.format.refused(&call.format.unauthorized(), "");
        }
        match &call.verb {
            Verb::Send(_) => Answer::not_found(),
            Verb::Probe => call.format.probed(call),
            Verb::Status(id) => {
                let message = desk.known.get(id.as_str()).filter(|message| *message.account == *call.account);
                wire::twilio_status(message, plan.as_deref(), clock::now())
            }
        }
    }

    pub(super) fn set_receipts(&self, settings: Option<ReceiptSettings>) -> Result<(), InvalidSettings> {
        self.courier.set_plan(settings.map(ReceiptPlan::new).transpose()?);
        Ok(())
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("should not be poisoned: no holder of this lock panics")
    }
}

/// What arrived and what was done with it. Cheap to clone, and readable after the simulator has stopped.
#[derive(Clone, Debug)]
pub struct Ledger(pub(super) Arc<Gateway>);

impl Ledger {
    /// Everything that happened, in numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.0.summary()
    }

    /// Requests in the order of their arrival.
    #[must_use]
    pub fn sends(&self, query: &SendQuery) -> Vec<Entry> {
        self.0.desk().records.sends(query)
    }

    /// How often a message to this chat was accepted for this Broadcast, given as the entries have it.
    #[must_use]
    pub fn accepted(&self, broadcast: &str, chat: &str) -> u64 {
        self.0.desk().records.accepted(broadcast, chat)
    }

    /// What the last receipt of a message in the `HTTP` channel's own format says, by its token and as receipts are set now.
    /// `None`: it has no receipt.
    #[must_use]
    pub fn last_receipt(&self, token: &str) -> Option<Status> {
        self.0.courier.plan()?.last_of(token)
    }

    /// Ids of the messages that were asked about, in the order in which somebody asked.
    #[must_use]
    pub fn lookups(&self) -> Vec<String> {
        self.0.desk().lookups.clone()
    }

    /// Waits until the numbers are as wanted. Whoever calls it sets the time limit.
    pub async fn wait_until(&self, wanted: impl Fn(&Summary) -> bool) -> Summary {
        let mut changed = self.0.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let summary = self.summary();
            if wanted(&summary) {
                return summary;
            }
            changed.changed().await.expect("should not close: the ledger holds the other end");
        }
    }

    /// Forgets all requests, and with them which keys were used and which messages can be asked for.
    pub fn delete(&self) {
        let mut desk = self.0.desk();
        desk.records.delete();
        desk.known.clear();
        desk.lookups.clear();
        drop(desk);
        self.0.changed.send_replace(());
    }
}
