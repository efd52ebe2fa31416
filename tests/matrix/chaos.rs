//! Random compositions: several faults at random points of a random play, and users who act meanwhile. A seed gives the same
//! cases again.

use std::io::Write;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::cases::Case;
use crate::common::stage::chat_id;
use crate::gateway_line::Moment;
use crate::play::{Play, Reference, disturbed};
use crate::recipes::script;
use crate::recipes::users::{ACTIONS, Action, act_at};
use crate::scene::Scene;
use crate::tap::{EventFault, Fault, Planned, Point};

/// Most faults of one case.
const MOST_FAULTS: usize = 5;

/// Plays that chaos happens in.
pub const PLAYS: &[Play] = &[Play::Send(3), Play::Restart, Play::Receipts, Play::Delete];

/// Case number `number` of a seed.
pub fn case(references: &[Arc<Reference>], seed: u64, number: u64) -> Case {
    let mut luck = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
    let reference = references.choose(&mut luck).expect("should have a play").clone();
    let faults = luck.random_range(1..=MOST_FAULTS);
    let plan: Vec<Planned> = (0..faults).filter_map(|_| fault(&reference, &mut luck)).collect();
    let moment = luck.random_bool(0.3).then(|| (luck.random_range(0..3), moment(&mut luck)));
    let action = (reference.play == Play::Send(3) && luck.random_bool(0.5)).then(|| {
        let writes: Vec<&Point> = points(&reference).collect();
        let point = (*writes.choose(&mut luck).expect("should have writes")).clone();
        (point, ACTIONS.choose(&mut luck).expect("should have actions").1)
    });
    let run = script(move |scene| {
        let (reference, plan, action) = (reference.clone(), plan.clone(), action.clone());
        let moment = moment.clone();
        Box::pin(async move {
            log_plan(scene, &plan, action.as_ref());
            scene.may_fail = true;
            scene.patience *= 4;
            scene.doubtful.extend((0..3).map(chat_id));
            if let Some((request, moment)) = moment {
                scene.line.plan(request, moment);
            }
            match action {
                Some((point, action)) => act_at(scene, &reference, &point, action, plan).await,
                None => disturbed(scene, &reference, plan).await,
            }
        })
    });
    Case { name: format!("chaos/{seed}/{number}"), meets: 0, run }
}

/// What a case does, at the beginning of its log.
fn log_plan(scene: &Scene, plan: &[Planned], action: Option<&(Point, Action)>) {
    // The log is memory.
    let _ = writeln!(scene.log.clone(), "plan: {plan:#?}\naction: {action:?}");
}

fn points(reference: &Reference) -> impl Iterator<Item = &Point> {
    let is_wanted = |kind: &str| matches!(kind, "broadcasts" | "broadcastbatches");
    reference.writes().filter(move |write| is_wanted(&write.kind)).map(|write| &write.point)
}

fn moment(luck: &mut StdRng) -> Moment {
    let moments = [Moment::DieBeforeItLeft, Moment::DieAfterItLeft, Moment::DieAfterTheAnswer];
    moments.choose(luck).expect("should have moments").clone()
}

/// A fault somewhere.
fn fault(reference: &Reference, luck: &mut StdRng) -> Option<Planned> {
    if luck.random_bool(0.25) {
        let point = reference.events.choose(luck)?;
        let faults = [
            EventFault::Drop,
            EventFault::Compact,
            EventFault::Double,
            EventFault::Again,
            EventFault::Delay,
            EventFault::Cut,
            EventFault::Gone,
            EventFault::Error,
        ];
        return Some(Planned::at(point, Fault::Event(faults.choose(luck)?.clone())));
    }
    let logged = reference.log.choose(luck)?;
    let code = *[403, 404, 409, 429, 500, 503].choose(luck)?;
    let times = luck.random_range(1..4);
    if !logged.is_write {
        return Some(Planned::from(&logged.point, times, Fault::Answer(code)));
    }
    // Deaths are what the rest is about.
    let fault = match luck.random_range(0..10) {
        0..3 => return Some(Planned::at(&logged.point, Fault::DieAfter)),
        3..5 => return Some(Planned::at(&logged.point, Fault::DieBefore)),
        5 => Fault::LandsThenTimeout,
        6 => Fault::LandsThenReset,
        7 => Fault::LandsThenNothing,
        8 => return Some(Planned::at(&logged.point, Fault::Panic)),
        _ => Fault::Answer(code),
    };
    Some(Planned::from(&logged.point, times, fault))
}
