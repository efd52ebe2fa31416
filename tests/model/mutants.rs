//! The protocol with one rule left out. Each must break its promise, or the properties have no teeth.

use super::properties::{CLAIM_FIRST, NEVER_TWICE, NO_LOSS, NO_REGRESS, TRUTH};

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A kind of write goes out without resourceVersion.
    WithoutVersion(Write),
    /// The outcome is stored, and then the message is sent.
    RecordBeforeSend,
    /// Rows are sent by a view of the page, without a claim.
    SendWithoutClaim,
    /// What an orphan locked is offered again.
    OrphanSentAgain,
    /// A page is closed while requests of it may be in flight.
    SealOverClaim,
    /// The restart takes the rows that look unsent, and closes nothing before.
    PlanBeforeSeal,
    /// The restart is planned as soon as one page is closed.
    PlanAfterFirstSeal,
    /// Results are forgotten when their write fails.
    ResultsDropped,
    /// No answer is taken for a refusal.
    SilenceIsFailure,
    /// A refusal counts also when its claim is another's by now, which may have reached the chat.
    LateRefusalCounts,
}

/// A kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Claim,
    Record,
    Recover,
    Seal,
}

/// Every mutant: its name, and the promise that it breaks.
pub const MUTANTS: [(Mutant, &str, &str); 14] = [
    (Mutant::WithoutVersion(Write::Claim), "a_claim_without_resource_version", NEVER_TWICE),
    (Mutant::WithoutVersion(Write::Record), "a_record_without_resource_version", NO_REGRESS),
    (Mutant::WithoutVersion(Write::Recover), "a_recovery_without_resource_version", NO_REGRESS),
    (Mutant::WithoutVersion(Write::Seal), "a_seal_without_resource_version", NEVER_TWICE),
    (Mutant::RecordBeforeSend, "a_record_before_the_send", TRUTH),
    (Mutant::SendWithoutClaim, "a_send_without_a_claim", NEVER_TWICE),
    (Mutant::SendWithoutClaim, "a_send_without_a_claim_even_once", CLAIM_FIRST),
    (Mutant::OrphanSentAgain, "an_orphan_that_is_sent_again", NEVER_TWICE),
    (Mutant::SealOverClaim, "a_seal_over_a_claim", NEVER_TWICE),
    (Mutant::PlanBeforeSeal, "a_restart_planned_before_the_seal", NEVER_TWICE),
    (Mutant::PlanAfterFirstSeal, "a_restart_planned_after_the_first_seal", NEVER_TWICE),
    (Mutant::ResultsDropped, "results_dropped_on_a_conflict", NO_LOSS),
    (Mutant::SilenceIsFailure, "silence_taken_for_failure", NEVER_TWICE),
    (Mutant::LateRefusalCounts, "a_late_refusal_that_counts", TRUTH),
];
