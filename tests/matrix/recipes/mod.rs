//! The recipes: which faults, and at which points of a reference run.

mod requests;
mod watches;
mod writes;

use std::sync::Arc;

use crate::cases::Case;
use crate::play::{Play, Reference, disturbed};
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

const ALL: &[Play] = &[Play::Send(3), Play::Restart, Play::Delete, Play::Send(251)];

/// The whole matrix.
pub const RECIPES: &[Recipe] = &[
    Recipe { name: "A1", says: "die right after a write", plays: ALL, cases: writes::die_after },
    Recipe { name: "A2", says: "die right before a write", plays: ALL, cases: writes::die_before },
    Recipe {
        name: "A5",
        says: "a write lands and its answer is lost",
        plays: ALL,
        cases: writes::answer_lost,
    },
    Recipe { name: "A6", says: "a write conflicts", plays: ALL, cases: writes::conflict },
    Recipe { name: "A7", says: "a request is refused", plays: ALL, cases: requests::refused },
    Recipe { name: "C1", says: "watch events are lost, late or doubled", plays: ALL, cases: watches::events },
    Recipe { name: "C2", says: "a watch breaks", plays: ALL, cases: watches::breaks },
];

/// A case that plays with faults from the beginning.
pub fn planned(recipe: &str, reference: &Arc<Reference>, what: &str, plan: Vec<Planned>) -> Case {
    let (name, reference) = (reference.case(recipe, what), reference.clone());
    Case {
        name,
        must_meet: true,
        run: Arc::new(move |scene| {
            let (reference, plan) = (reference.clone(), plan.clone());
            Box::pin(async move { disturbed(scene, &reference, plan).await })
        }),
    }
}
