//! A7: the API server refuses one request, of whatever kind.

use std::sync::Arc;

use super::planned;
use crate::cases::Case;
use crate::play::{Play, Reference};
use crate::tap::{Fault, Planned};

/// Too many requests, trouble, more trouble, a right that was taken away, a kind or an object that is gone.
const CODES: [u16; 5] = [429, 500, 503, 403, 404];

/// The short matrix has each request refused in this many ways, and all ways about equally often.
const WAYS: usize = 2;

pub fn refused(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let is_smallest = reference.play == Play::Send(3);
    let ways = if is_whole && is_smallest { CODES.len() } else { WAYS };
    let points = reference.log.iter().map(|logged| &logged.point).enumerate();
    points
        .flat_map(|(number, point)| {
            let codes = CODES.iter().cycle().skip(number * ways).take(ways);
            codes.map(move |code| {
                let plan = vec![Planned::at(point, Fault::Answer(*code))];
                planned("A7", reference, &format!("{point}/{code}"), plan)
            })
        })
        .collect()
}
