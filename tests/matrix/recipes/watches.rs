//! C1, C2: what comes by a watch is not what was sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use broadcast_operator::observed::WATCH_SECONDS;

use super::{planned, script};
use crate::cases::Case;
use crate::play::{Play, Reference, disturbed};
use crate::tap::{EventFault, Fault, Planned, Point};

const KINDS: [&str; 4] = ["broadcasts", "broadcastchannels", "broadcastbatches", "leases"];

/// Every event is dropped, comes late alone or with others, twice, or again after a later one.
pub fn events(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let faults = [
        ("dropped", EventFault::Drop),
        ("compacted", EventFault::Compact),
        ("doubled", EventFault::Double),
        ("again", EventFault::Again),
        ("late", EventFault::Delay),
    ];
    let is_wanted = |point: &&Point| is_whole || !point.name.starts_with("EVENT-leases");
    let cases = reference.events.iter().filter(is_wanted).flat_map(|point| {
        faults.iter().map(move |(tag, fault)| {
            let plan = vec![Planned::at(point, Fault::Event(fault.clone()))];
            planned("C1", reference, &format!("{point}/{tag}"), plan)
        })
    });
    cases.collect()
}

/// Each watch breaks at its start and in the middle, in each way.
pub fn breaks(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let faults = [("cut", EventFault::Cut), ("410", EventFault::Gone), ("500", EventFault::Error)];
    let mut cases = Vec::new();
    for kind in KINDS {
        let prefix = format!("EVENT-{kind}-");
        let of_kind: Vec<&Point> =
            reference.events.iter().filter(|point| point.name.starts_with(&prefix)).collect();
        let places: BTreeSet<&Point> =
            [of_kind.first(), of_kind.get(of_kind.len() / 2)].into_iter().flatten().copied().collect();
        for point in places {
            for (tag, fault) in &faults {
                let plan = vec![Planned::at(point, Fault::Event(fault.clone()))];
                cases.push(planned("C2", reference, &format!("{point}/{tag}"), plan));
            }
            // Each waits for more than a minute, and costs next to nothing beside others. The short matrix has one.
            let is_wanted = is_whole || (kind == KINDS[0] && of_kind.first() == Some(&point));
            if is_wanted && reference.play == Play::Send(3) {
                cases.push(silent(reference, point));
            }
        }
        for code in [410, 500] {
            let point = Point { name: format!("WATCH-{kind}"), occurrence: 0 };
            let plan = vec![Planned::at(&point, Fault::Answer(code))];
            cases.push(planned("C2", reference, &format!("{point}/status-{code}"), plan));
        }
    }
    cases
}

/// A watch says nothing any more. That is noticed only after the longest quiet time of a watch.
fn silent(reference: &Arc<Reference>, point: &Point) -> Case {
    let plan = vec![Planned::at(point, Fault::Event(EventFault::Silence))];
    let name = reference.case("C2", &format!("{point}/silent"));
    let reference = reference.clone();
    let run = script(move |scene| {
        let (reference, plan) = (reference.clone(), plan.clone());
        Box::pin(async move {
            scene.patience += 2 * Duration::from_secs(WATCH_SECONDS.into());
            disturbed(scene, &reference, plan).await
        })
    });
    Case { name, meets: 1, run }
}
