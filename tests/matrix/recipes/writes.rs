//! A1, A2, A5, A6: something happens around one write.

use std::sync::Arc;

use super::planned;
use crate::cases::Case;
use crate::play::Reference;
use crate::tap::{Fault, Planned, Point};

/// Refusals that stand for all the time in the world. A page is tried so often, within 20 s, until its write is given up;
/// the short matrix has fewer. What a reconcile writes is tried after waits that double.
const FOR_EVER: usize = 14;
const OFTEN: usize = 4;

pub fn die_after(reference: &Arc<Reference>, _: bool) -> Vec<Case> {
    at_each_write("A1", reference, &Fault::DieAfter)
}

pub fn die_before(reference: &Arc<Reference>, _: bool) -> Vec<Case> {
    at_each_write("A2", reference, &Fault::DieBefore)
}

/// Writes whose answers matter. Events are told once, whatever becomes of them, and leases are the matter of D3.
fn points(reference: &Reference, is_whole: bool) -> impl Iterator<Item = &Point> {
    let is_wanted = move |kind: &str| is_whole || kind.starts_with("broadcast");
    reference.writes().filter(move |write| is_wanted(&write.kind)).map(|write| &write.point)
}

fn at_each_write(recipe: &str, reference: &Arc<Reference>, fault: &Fault) -> Vec<Case> {
    let points = reference.writes().map(|write| &write.point);
    points
        .map(|point| planned(recipe, reference, &point.to_string(), vec![Planned::at(point, fault.clone())]))
        .collect()
}

pub fn answer_lost(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let faults = [
        ("504", Fault::LandsThenTimeout),
        ("reset", Fault::LandsThenReset),
        ("never", Fault::LandsThenNothing),
    ];
    let points = points(reference, is_whole);
    points
        .flat_map(|point| {
            faults.iter().map(move |(tag, fault)| {
                planned("A5", reference, &format!("{point}/{tag}"), vec![Planned::at(point, fault.clone())])
            })
        })
        .collect()
}

pub fn conflict(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let points = points(reference, is_whole);
    points
        .flat_map(|point| {
            let is_page = point.name.starts_with("PUT-broadcastbatches") && point.occurrence > 0;
            let for_ever = if is_whole && is_page { FOR_EVER } else { OFTEN };
            [("once", 1), ("thrice", 3), ("for-ever", for_ever)].map(|(tag, times)| {
                let plan = vec![Planned::from(point, times, Fault::Answer(409))];
                planned("A6", reference, &format!("{point}/{tag}"), plan)
            })
        })
        .collect()
}
