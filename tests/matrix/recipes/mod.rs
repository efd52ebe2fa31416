//! The recipes: which faults, and at which points of a reference run.

mod audiences;
mod backups;
mod clocks;
mod closings;
mod deaths;
mod gateway;
mod gone;
mod journals;
mod middles;
mod odd;
mod pauses;
mod races;
mod replicas;
mod requests;
mod sizes;
mod snapshots;
mod takeovers;
mod thefts;
pub mod users;
mod watches;
mod writes;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cases::{Case, Running, Script};
use crate::play::{Play, Reference, disturbed};
use crate::scene::Scene;
use crate::tap::Planned;

/// One row of the matrix.
pub struct Recipe {
    pub name: &'static str,
    pub says: &'static str,
    /// The smallest play, and then those of the whole matrix.
    plays: &'static [Play],
    /// The cases of one play.
    pub cases: fn(&Arc<Reference>, bool) -> Vec<Case>,
}

impl Recipe {
    pub fn plays(&self, is_whole: bool) -> &'static [Play] {
        if is_whole { self.plays } else { &self.plays[..1] }
    }
}

const ALL: &[Play] = &[Play::Send(CHATS), Play::Restart, Play::Delete, Play::Receipts, Play::Send(251)];

const FEWER: &[Play] = &[Play::Send(CHATS), Play::Restart, Play::Delete, Play::Receipts];
const TWO: &[Play] = &[Play::Send(CHATS), Play::Restart];
const SEND: &[Play] = &[Play::Send(CHATS)];
/// With receipts first: every part of an operator has something to write then.
const PANICS: &[Play] = &[Play::Receipts, Play::Restart, Play::Delete];
const JOURNALS: &[Play] = &[Play::Journals];
/// Chats of the smallest play.
const CHATS: usize = 3;

/// The whole matrix.
pub const RECIPES: &[Recipe] = &[
    Recipe { name: "A1", says: "die right after a write", plays: ALL, cases: writes::die_after },
    Recipe { name: "A2", says: "die right before a write", plays: ALL, cases: writes::die_before },
    Recipe { name: "A3", says: "die around a send", plays: SEND, cases: deaths::around_sends },
    Recipe { name: "A4", says: "two deaths", plays: SEND, cases: deaths::two },
    Recipe {
        name: "A5",
        says: "a write lands and its answer is lost",
        plays: FEWER,
        cases: writes::answer_lost,
    },
    Recipe { name: "A6", says: "a write conflicts", plays: FEWER, cases: writes::conflict },
    Recipe { name: "A7", says: "a request is refused", plays: FEWER, cases: requests::refused },
    Recipe {
        name: "A8",
        says: "a request on a journal goes wrong",
        plays: JOURNALS,
        cases: journals::go_wrong,
    },
    Recipe { name: "B1", says: "a new process sees what was", plays: SEND, cases: snapshots::after_a_death },
    Recipe { name: "B2", says: "a process sees again what was", plays: SEND, cases: snapshots::in_life },
    Recipe { name: "B3", says: "a backup is put back", plays: SEND, cases: backups::restored },
    Recipe { name: "C1", says: "watch events are lost, late or doubled", plays: TWO, cases: watches::events },
    Recipe { name: "C2", says: "a watch breaks", plays: TWO, cases: watches::breaks },
    Recipe { name: "C3", says: "the wall clock jumps", plays: SEND, cases: clocks::jumps },
    Recipe {
        name: "D1",
        says: "two that know nothing of each other",
        plays: SEND,
        cases: replicas::strangers,
    },
    Recipe { name: "D2", says: "the holder stands still", plays: SEND, cases: replicas::frozen },
    Recipe { name: "D3", says: "a lease cannot be written", plays: SEND, cases: replicas::lease_writes },
    Recipe { name: "E1", says: "a user acts", plays: SEND, cases: users::act },
    Recipe { name: "E2", says: "a restart closes a page late", plays: SEND, cases: closings::closed },
    Recipe { name: "F1", says: "the gateway goes wrong", plays: SEND, cases: gateway::goes_wrong },
    Recipe { name: "G1", says: "an object that cannot be read", plays: SEND, cases: odd::unreadable },
    Recipe { name: "G2", says: "a panic", plays: PANICS, cases: odd::panics },
    Recipe { name: "H1", says: "sizes", plays: SEND, cases: sizes::all },
];

/// A case that plays with faults from the beginning.
fn planned(recipe: &str, reference: &Arc<Reference>, what: &str, plan: Vec<Planned>) -> Case {
    let (name, reference) = (reference.case(recipe, what), reference.clone());
    let run = script(move |scene| {
        let (reference, plan) = (reference.clone(), plan.clone());
        Box::pin(async move { disturbed(scene, &reference, plan).await })
    });
    Case { name, meets: 1, run }
}

/// What a case does, as a value.
pub fn script(run: impl for<'a> Fn(&'a mut Scene) -> Running<'a> + Send + Sync + 'static) -> Script {
    Arc::new(run)
}

/// A merge patch of a spec.
#[expect(clippy::needless_pass_by_value, reason = "it reads better where it is called")]
fn spec(fields: Value) -> Value {
    json!({ "spec": fields })
}
