//! B1, B2: an operator that sees what was, and not what is.

use std::sync::Arc;

use super::planned;
use crate::cases::Case;
use crate::play::Reference;
use crate::tap::{EventFault, Fault, Planned, Point};

const KINDS: [&str; 4] = ["broadcasts", "broadcastchannels", "broadcastbatches", "leases"];

/// A process dies after each write, and the next one begins with what was stored after an earlier one.
pub fn after_a_death(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let writes: Vec<&Point> =
        reference.writes().filter(|write| write.kind != "events").map(|write| &write.point).collect();
    let mut cases = Vec::new();
    for (number, last) in writes.iter().enumerate() {
        // What was just before is what a replica of the API server that is behind shows; the rest is for long nights.
        let nearest = number.saturating_sub(if is_whole { number } else { 2 });
        for seen in &writes[nearest..number] {
            let mut plan = vec![Planned::at(last, Fault::DieAfter)];
            for kind in KINDS {
                plan.extend(old(kind, seen));
            }
            let case = planned("B1", reference, &format!("{last}@{seen}"), plan);
            cases.push(Case { meets: 1 + KINDS.len(), ..case });
        }
    }
    cases
}

/// A watch ends at each event, and the list that follows shows what was stored after an earlier write.
pub fn in_life(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for event in &reference.events {
        let Some(kind) = KINDS.iter().find(|kind| event.name.starts_with(&format!("EVENT-{kind}-"))) else {
            continue;
        };
        let first = reference.writes().find(|write| write.kind == *kind).map(|write| &write.point);
        // Of a write that comes later no list shows anything.
        let heard = reference.heard.get(event).copied().unwrap_or_default();
        let earlier = reference.writes().filter(|write| write.kind != "events" && write.number < heard);
        let seen: Vec<&Point> = match is_whole {
            true => earlier.map(|write| &write.point).collect(),
            false => first.into_iter().collect(),
        };
        for seen in seen {
            let mut plan = vec![Planned::at(event, Fault::Event(EventFault::Gone))];
            plan.extend(old(kind, seen));
            cases.push(planned("B2", reference, &format!("{event}@{seen}"), plan));
        }
    }
    cases
}

/// The second list of a kind shows what was, and the watch after it catches up late.
fn old(kind: &str, seen: &Point) -> [Planned; 2] {
    let second = |verb: &str| Point { name: format!("{verb}-{kind}"), occurrence: 1 };
    [
        Planned::at(&second("LIST"), Fault::ListAt(seen.clone())),
        Planned::at(&second("WATCH"), Fault::LateStream),
    ]
}
