//! A7: the API server refuses one request, of whatever kind.

use std::sync::Arc;

use super::planned;
use crate::cases::Case;
use crate::play::Reference;
use crate::tap::{Fault, Planned};

/// Too many requests, trouble, more trouble, a right that was taken away, a kind or an object that is gone.
const CODES: [u16; 5] = [429, 500, 503, 403, 404];

pub fn refused(reference: &Arc<Reference>, _: bool) -> Vec<Case> {
    let points = reference.log.iter().map(|logged| &logged.point);
    points
        .flat_map(|point| {
            CODES.map(|code| {
                let plan = vec![Planned::at(point, Fault::Answer(code))];
                planned("A7", reference, &format!("{point}/{code}"), plan)
            })
        })
        .collect()
}
