//! A7: the API server refuses one request, of whatever kind; or the results of all sends for ever, and the process is to stop. What is
//! refused because its object is gone is in `gone`.

use std::sync::Arc;

use broadcast_operator::api::OutcomeName;
use serde_json::json;

use super::gateway::recorded;
use super::{CHATS, planned, script};
use crate::cases::Case;
use crate::common::stage::broadcast;
use crate::invariants;
use crate::observer::Seen;
use crate::play::{Play, Reference, SALE, finish, is_over};
use crate::process::End;
use crate::scene::{Failure, Scene};
use crate::tap::{Fault, Planned, Point, Tap};

/// Too many requests, trouble, more trouble, a right that was taken away, a kind or an object that is gone, and a body that is
/// too large.
const CODES: [u16; 6] = [429, 500, 503, 403, 404, 413];
/// A right that was taken away, and a webhook or a schema that does not take the object.
const FOR_EVER: [u16; 2] = [403, 422];
/// The page of the smallest play. Its status is written by the planner, then with the claim, and then with the results.
const PAGE: &str = "sale-00000";
const RESULTS: usize = 2;

/// The short matrix has each request refused in this many ways, and all ways about equally often. So has the whole one those that
/// every play begins with, and it has more ways for what comes after them. In the smallest play all of them: a case costs about a
/// second of one core, and what is left out would be some hundred cases more.
const WAYS: usize = 2;
const MORE_WAYS: usize = 3;

pub fn refused(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let is_smallest = reference.play == Play::Send(CHATS);
    let points = reference.log.iter().map(|logged| &logged.point).enumerate();
    let once = points.flat_map(|(number, point)| {
        let ways = match is_whole {
            true if is_smallest => CODES.len(),
            true if !is_of_every_start(point) => MORE_WAYS,
            _ => WAYS,
        };
        let codes = CODES.iter().cycle().skip(number * ways).take(ways);
        codes.map(move |code| {
            let plan = vec![Planned::at(point, Fault::Answer(*code))];
            planned("A7", reference, &format!("{point}/{code}"), plan)
        })
    });
    let for_ever = FOR_EVER.iter().filter(|_| is_smallest).map(|code| {
        let name = reference.case("A7", &format!("results/{code}-for-ever/stop"));
        let run = script(move |scene| Box::pin(async move { stopped_unrecorded(scene, *code).await }));
        Case { name, meets: 2, run }
    });
    let gone = if is_smallest { super::gone::all(reference, is_whole) } else { Vec::new() };
    for_ever.chain(once).chain(gone).collect()
}

/// What an operator asks before it knows of anything: whether its kinds are served, what there is of each, and its leases.
fn is_of_every_start(point: &Point) -> bool {
    let is_first = |verb: &&str| point.name.starts_with(*verb) && point.occurrence == 0;
    ["PEEK-", "LIST-", "WATCH-", "POST-leases-"].iter().any(is_first)
}

/// Everything is sent, nothing can be recorded, and the process is told to stop: it goes on trying until its time is up, and says
/// so. Who comes after it cannot know what was sent, and sends nothing again.
async fn stopped_unrecorded(scene: &mut Scene, code: u16) -> Result<(), Failure> {
    let results = Point { name: format!("PUT-broadcastbatches-status-{PAGE}"), occurrence: RESULTS };
    scene.tap.plan(vec![Planned::from(&results, usize::MAX, Fault::Answer(code)).of(0)]);
    scene.may_fail = true;
    scene.start_operator().await;
    scene.apply(&broadcast(SALE, CHATS, json!({}))).await?;
    let (tap, arrived) = (scene.tap.clone(), scene.line.counter());
    let is_refused = move |_: &Seen, tap: &Tap| arrived() >= CHATS && tap.met() > 0;
    scene.until_with("everything is sent, and its results are refused", is_refused, &tap).await?;
    match scene.processes[0].stop().await {
        End::Failed(why) if why.contains("were not recorded within") => {}
        end => return Err(format!("it did not end as one that could not record: {end:?}")),
    }
    let claim = |seen: &Seen| seen.pages.get(PAGE)?.status.as_ref()?.claim.clone();
    if claim(&scene.view.seen()).is_none() {
        return Err("what it could not record is not claimed any more".into());
    }
    invariants::check(scene, "after it has given up").await?;
    scene.until("sale is complete", |seen| is_over(seen, &[SALE])).await?;
    recorded(scene, |_| OutcomeName::Unknown).await?;
    match scene.requests_of(SALE) {
        CHATS => finish(scene, None).await,
        requests => Err(format!("{requests} requests for {CHATS} chats")),
    }
}
