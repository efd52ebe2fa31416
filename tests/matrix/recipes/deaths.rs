//! A3, A4: a process dies around a send, and one that follows a dead one dies too.

use std::sync::Arc;

use super::{CHATS, planned};
use crate::cases::Case;
use crate::gateway_line::Moment;
use crate::play::{Reference, disturbed};
use crate::tap::{Fault, Planned};

/// Around each send, in each of its moments.
pub fn around_sends(reference: &Arc<Reference>, _: bool) -> Vec<Case> {
    let moments = [
        ("before-it-left", Moment::DieBeforeItLeft),
        ("after-it-left", Moment::DieAfterItLeft),
        ("after-the-answer", Moment::DieAfterTheAnswer),
    ];
    let cases = (0..CHATS).flat_map(|request| {
        moments.clone().map(|(tag, moment)| {
            let name = reference.case("A3", &format!("send#{request}/{tag}"));
            let reference = reference.clone();
            let run = super::script(move |scene| {
                let (reference, moment) = (reference.clone(), moment.clone());
                Box::pin(async move {
                    scene.line.plan(request, moment);
                    disturbed(scene, &reference, Vec::new()).await
                })
            });
            Case { name, meets: 1, run }
        })
    });
    cases.collect()
}

/// After each write, and once more after each later one.
pub fn two(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let is_wanted = |kind: &str| is_whole || matches!(kind, "broadcasts" | "broadcastbatches");
    let writes: Vec<_> = reference.writes().filter(|write| is_wanted(&write.kind)).collect();
    let mut cases = Vec::new();
    for (number, first) in writes.iter().enumerate() {
        for second in &writes[number + 1..] {
            let plan = [first, second].map(|write| Planned::at(&write.point, Fault::DieAfter));
            let what = format!("{}+{}", first.point, second.point);
            let case = planned("A4", reference, &what, plan.to_vec());
            cases.push(Case { meets: 2, ..case });
        }
    }
    cases
}
