//! What is counted. Labels are closed sets: a namespace, a channel, an outcome, never a chat or an error text.

mod labels;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::ProviderName;
use crate::domain::answer::{Answer, RefusalKind};
use crate::domain::ids::ObjectKey;
use crate::domain::outcome::Outcome;
use crate::domain::receipt::Lookup;
use labels::{
    ChannelLabels, ClaimLabels, ClaimResult, DeferLabels, ElectionLabels, LookupLabels, LookupResult,
    MessageLabels, MessageOutcome, ReasonLabels, ReceiptLabels, ReconcileLabels, ReconcileResult,
    RefusalClass, RefusalLabels, RenewalLabels, RequestLabels,
};
pub use labels::{DeferReason, ReceiptResult, RenewalResult};

/// Bounds of send times, in seconds: a gateway nearby answers in milliseconds, a chat network in tenths, and 60 s is the
/// longest time-out.
const SEND_SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];
/// Bounds of reconcile times, in seconds: most read caches only, planning a big audience takes seconds.
const RECONCILE_SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0];

/// All metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    messages: Family<MessageLabels, Counter>,
    send_seconds: Family<ChannelLabels, Histogram, fn() -> Histogram>,
    refusals: Family<RefusalLabels, Counter>,
    claims: Family<ClaimLabels, Counter>,
    orphaned_rows: Counter,
    not_stored: Family<ReasonLabels, Counter>,
    receipts: Family<ReceiptLabels, Counter>,
    lookups: Family<LookupLabels, Counter>,
    receipts_deferred: Family<DeferLabels, Counter>,
    journals: Journals,
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_seconds: Histogram,
    requests: Family<RequestLabels, Counter>,
    renewals: Family<RenewalLabels, Counter>,
    is_leader: Family<ElectionLabels, Gauge>,
    channels_held: Gauge,
}

/// What becomes of receipts that go through journals.
#[derive(Clone, Debug, Default)]
struct Journals {
    stored: Counter,
    receipts: Counter,
    folded: Counter,
    waiting: Gauge,
    age_seconds: Gauge<f64, AtomicU64>,
}

impl Journals {
    fn register(&self, registry: &mut Registry) {
        registry.register("broadcast_journals", "Journals of receipts that were stored", self.stored.clone());
        registry.register(
            "broadcast_journal_receipts",
            "Receipts that were stored in journals",
            self.receipts.clone(),
        );
        registry.register(
            "broadcast_journal_receipts_folded",
            "Receipts of journals that were taken into their pages",
            self.folded.clone(),
        );
        registry.register(
            "broadcast_journals_waiting",
            "Journals of this process that are not taken into pages yet",
            self.waiting.clone(),
        );
        registry.register(
            "broadcast_journal_age_seconds",
            "For how long the oldest of them waits",
            self.age_seconds.clone(),
        );
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A set of metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let send_histogram: fn() -> Histogram = || Histogram::new(SEND_SECONDS);
        let metrics = Self {
            registry: Arc::default(),
            messages: Family::default(),
            send_seconds: Family::new_with_constructor(send_histogram),
            refusals: Family::default(),
            claims: Family::default(),
            orphaned_rows: Counter::default(),
            not_stored: Family::default(),
            receipts: Family::default(),
            lookups: Family::default(),
            receipts_deferred: Family::default(),
            journals: Journals::default(),
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(RECONCILE_SECONDS),
            requests: Family::default(),
            renewals: Family::default(),
            is_leader: Family::default(),
            channels_held: Gauge::default(),
        };
        registry.register(
            "broadcast_messages",
            "Answers of gateways, by what they mean",
            metrics.messages.clone(),
        );
        registry.register(
            "broadcast_send_duration_seconds",
            "Time from request to answer",
            metrics.send_seconds.clone(),
        );
        registry.register(
            "broadcast_refusals",
            "Messages that providers did not take, by what that is about",
            metrics.refusals.clone(),
        );
        registry.register("broadcast_claims", "Claims of windows of rows", metrics.claims.clone());
        registry.register(
            "broadcast_orphaned_rows",
            "Rows that became Unknown because a process ended between claim and record",
            metrics.orphaned_rows.clone(),
        );
        registry.register(
            "broadcast_batches_not_stored",
            "Writes of batches that the API server refused, or did not take for about 20 s",
            metrics.not_stored.clone(),
        );
        registry.register("broadcast_receipts", "Receipts of gateways", metrics.receipts.clone());
        registry.register(
            "broadcast_lookups",
            "Questions to providers what became of messages whose receipts are missing",
            metrics.lookups.clone(),
        );
        registry.register(
            "broadcast_receipts_deferred",
            "Requests with receipts that were answered 503, to come again",
            metrics.receipts_deferred.clone(),
        );
        metrics.journals.register(&mut registry);
        registry.register(
            "controller_runtime_reconcile",
            "Reconciliations per controller",
            metrics.reconciles.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_time_seconds",
            "Length of time per reconciliation",
            metrics.reconcile_seconds.clone(),
        );
        registry.register(
            "rest_client_requests",
            "Requests to the API server, by status code and method",
            metrics.requests.clone(),
        );
        registry.register(
            "broadcast_lease_renewals",
            "Renewals of the lease of this replica, by how they ended",
            metrics.renewals.clone(),
        );
        registry.register(
            "leader_election_master_status",
            "Whether this replica plans and reports",
            metrics.is_leader.clone(),
        );
        registry.register(
            "broadcast_channels_held",
            "Channels that this replica sends for",
            metrics.channels_held.clone(),
        );
        Self { registry: Arc::new(registry), ..metrics }
    }

    /// All metrics in the text format of `OpenMetrics`.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// A request to a gateway has been answered, or given up.
    pub fn sent(&self, channel: &ObjectKey, took: Duration) {
        let labels = ChannelLabels { namespace: channel.namespace.clone(), channel: channel.name.clone() };
        self.send_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A provider has answered, or not.
    pub fn said(&self, provider: ProviderName, answer: &Answer) {
        let class = match answer {
            Answer::Accepted { .. } => return,
            Answer::Unreachable { .. } => RefusalClass::Unreachable,
            Answer::Unknown { .. } => RefusalClass::NoAnswer,
            Answer::Refused(refusal) => match refusal.kind {
                RefusalKind::Permanent
                | RefusalKind::Unlisted
                | RefusalKind::Retryable
                | RefusalKind::Later
                | RefusalKind::Suppressed => RefusalClass::Recipient,
                RefusalKind::OptedOut => RefusalClass::OptOut,
                RefusalKind::ChatLimited | RefusalKind::RateLimited => RefusalClass::RateLimit,
                RefusalKind::Content
                | RefusalKind::NotSupported
                | RefusalKind::Media
                | RefusalKind::MediaNotFetched
                | RefusalKind::Stopped => RefusalClass::Content,
                RefusalKind::Unavailable => RefusalClass::Unavailable,
                RefusalKind::Sender(_) => RefusalClass::Sender,
            },
        };
        self.refusals.get_or_create(&RefusalLabels { provider: provider.as_str(), class }).inc();
    }

    /// What an answer means for its chat; `None` when it means nothing for it.
    pub fn answered(&self, channel: &ObjectKey, outcome: Option<Outcome>) {
        let outcome = match outcome {
            Some(Outcome::Failed) => MessageOutcome::Failed,
            Some(Outcome::Unknown) => MessageOutcome::Unknown,
            Some(Outcome::Pending) => MessageOutcome::Retry,
            Some(_) => MessageOutcome::Sent,
            None => MessageOutcome::Postponed,
        };
        let labels =
            MessageLabels { namespace: channel.namespace.clone(), channel: channel.name.clone(), outcome };
        self.messages.get_or_create(&labels).inc();
    }

    /// A channel is gone: channels that come and go leave nothing behind.
    pub fn forget(&self, channel: &ObjectKey) {
        let ObjectKey { namespace, name } = channel;
        self.send_seconds.remove(&ChannelLabels { namespace: namespace.clone(), channel: name.clone() });
        for outcome in MessageOutcome::ALL {
            let (namespace, channel) = (namespace.clone(), name.clone());
            self.messages.remove(&MessageLabels { namespace, channel, outcome });
        }
    }

    /// A claim was stored, or not.
    pub fn claimed(&self, stored: bool) {
        let result = if stored { ClaimResult::Stored } else { ClaimResult::Refused };
        self.claims.get_or_create(&ClaimLabels { result }).inc();
    }

    /// Rows became Unknown because their process is gone.
    pub fn orphaned(&self, rows: usize) {
        self.orphaned_rows.inc_by(rows as u64);
    }

    /// A page was not stored. The reason is one of [`ApiError::category`](crate::cluster::ApiError::category).
    pub fn not_stored(&self, reason: &'static str) {
        self.not_stored.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// So many receipts ended so.
    pub fn receipts(&self, result: ReceiptResult, number: usize) {
        self.receipts.get_or_create(&ReceiptLabels { result }).inc_by(number as u64);
    }

    /// A provider was asked what became of a message.
    pub fn looked_up(&self, lookup: &Lookup) {
        let result = match lookup {
            Lookup::News(_) => LookupResult::News,
            Lookup::NoNews => LookupResult::NoNews,
            Lookup::Gone => LookupResult::Gone,
            Lookup::NotTold(_) => LookupResult::NotTold,
        };
        self.lookups.get_or_create(&LookupLabels { result }).inc();
    }

    /// A request with receipts has to come again.
    pub fn deferred(&self, provider: ProviderName, reason: DeferReason) {
        self.receipts_deferred.get_or_create(&DeferLabels { provider: provider.as_str(), reason }).inc();
    }

    /// A journal with so many receipts was stored.
    pub fn journaled(&self, receipts: usize) {
        self.journals.stored.inc();
        self.journals.receipts.inc_by(receipts as u64);
    }

    /// So many receipts of journals were taken into their page.
    pub fn folded(&self, receipts: usize) {
        self.journals.folded.inc_by(receipts as u64);
    }

    /// So many journals of this process are not taken in yet, the oldest of them for so long.
    pub fn journals_wait(&self, number: usize, age: Duration) {
        self.journals.waiting.set(i64::try_from(number).unwrap_or(i64::MAX));
        self.journals.age_seconds.set(age.as_secs_f64());
    }

    /// A reconciliation ended.
    pub fn reconciled(&self, succeeded: bool, took: Duration) {
        let result = if succeeded { ReconcileResult::Success } else { ReconcileResult::Error };
        self.reconciles.get_or_create(&ReconcileLabels { controller: "broadcast", result }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// The lease of this replica was renewed, or not.
    pub fn renewed(&self, result: RenewalResult) {
        self.renewals.get_or_create(&RenewalLabels { result }).inc();
    }

    /// What this replica has of the common work.
    pub fn holds(&self, is_leader: bool, channels: usize) {
        let labels = ElectionLabels { name: "broadcast-operator" };
        self.is_leader.get_or_create(&labels).set(i64::from(is_leader));
        self.channels_held.set(i64::try_from(channels).unwrap_or(i64::MAX));
    }

    /// The API server answered a request; `None` when it did not.
    pub fn requested(&self, method: &http::Method, code: Option<u16>) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        let labels = RequestLabels { code, method: method.to_string() };
        self.requests.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_names_that_dashboards_know() {
        let metrics = Metrics::new();
        let channel = ObjectKey::new("shop", "sms");
        metrics.answered(&channel, Some(Outcome::Sent));
        metrics.reconciled(true, Duration::from_millis(3));
        metrics.requested(&http::Method::PUT, Some(200));
        metrics.deferred(ProviderName::WhatsApp, DeferReason::TooEarly);
        let text = metrics.encode().expect("text");
        for line in [
            r#"broadcast_messages_total{namespace="shop",channel="sms",outcome="Sent"} 1"#,
            r#"controller_runtime_reconcile_total{controller="broadcast",result="Success"} 1"#,
            r#"rest_client_requests_total{code="200",method="PUT"} 1"#,
            r#"broadcast_receipts_deferred_total{provider="WhatsApp",reason="TooEarly"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_channel_that_is_gone_has_no_metrics() {
        let metrics = Metrics::new();
        let (gone, there) = (ObjectKey::new("shop", "gone"), ObjectKey::new("shop", "there"));
        let outcomes = [Outcome::Sent, Outcome::Failed, Outcome::Unknown, Outcome::Pending].map(Some);
        for channel in [&gone, &there] {
            metrics.sent(channel, Duration::from_millis(3));
            for outcome in outcomes.into_iter().chain([None]) {
                metrics.answered(channel, outcome);
            }
        }
        metrics.forget(&gone);
        let text = metrics.encode().expect("text");
        assert!(!text.contains("gone"), "{text}");
        assert!(text.contains("there"), "{text}");
    }
}
