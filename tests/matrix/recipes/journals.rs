//! A8: receipts go through journals, and one request on the way goes wrong: a journal is stored, its page is written for it, it is
//! deleted; or the same of journals that a dead process left.

use std::sync::Arc;
use std::time::Duration;

use broadcast_operator::api::{Broadcast, BroadcastBatch, OutcomeName as Outcome};
use kube::ResourceExt;
use kube::api::PostParams;
use reqwest::StatusCode;
use serde_json::json;

use super::{planned, script};
use crate::cases::{Case, Running};
use crate::common::stage::counts;
use crate::observer::Seen;
use crate::play::{Reference, SALE, all_is_told, come_to_rest, finish, send_both, tell, tell_of_sale};
use crate::poster::{first_answer, journals, post, taken_in};
use crate::scene::{Failure, Scene};
use crate::tap::{Fault, Planned, Point, Tap};

/// A day, in milliseconds.
const DAY: i64 = 86_400_000;
/// The only page of sale.
const PAGE: &str = "sale-00000";
/// A process that does not take its own journals in as long as it is watched.
const NEVER: Duration = Duration::from_secs(600);
/// What the next process asks about journals that were left, each for the first time.
const OF_THE_NEXT: [&str; 3] =
    ["LIST-broadcastjournals", "PUT-broadcastbatches-status-sale-00000", "DELETE-broadcastjournals-sale"];

/// What goes wrong with each request, those that are soon over first.
fn faults() -> [(&'static str, Fault); 9] {
    [
        ("403", Fault::Answer(403)),
        ("die-after", Fault::DieAfter),
        ("413", Fault::Answer(413)),
        ("die-before", Fault::DieBefore),
        ("409", Fault::Answer(409)),
        ("reset", Fault::LandsThenReset),
        ("500", Fault::Answer(500)),
        ("unsent", Fault::Unsent),
        ("never", Fault::LandsThenNothing),
    ]
}

/// The short matrix has another one of the first of them at each request.
const SHORT: usize = 7;

pub fn go_wrong(reference: &Arc<Reference>, is_whole: bool) -> Vec<Case> {
    let of_one = points(reference).into_iter().map(|point| (None, point));
    let of_the_next = OF_THE_NEXT.map(|name| (Some(1), Point { name: name.to_owned(), occurrence: 0 }));
    let all = of_one.chain(of_the_next).enumerate().flat_map(|(number, (process, point))| {
        let short = number % SHORT;
        let wanted = faults().into_iter().enumerate().filter(move |(fault, _)| is_whole || *fault == short);
        wanted.map(move |(_, (tag, fault))| match process {
            None => planned("A8", reference, &format!("{point}/{tag}"), vec![Planned::at(&point, fault)]),
            Some(process) => {
                let plan = vec![Planned::at(&point, fault).of(process)];
                case(reference, &format!("left/{point}/{tag}"), 1, move |scene, reference| {
                    let plan = plan.clone();
                    Box::pin(async move { left(scene, &reference, plan, 0).await })
                })
            }
        })
    });
    let clock = case(reference, "left/clock-back", 0, |scene, reference| {
        Box::pin(async move { left(scene, &reference, Vec::new(), -DAY).await })
    });
    let unseen = case(reference, "left/unseen", 0, |scene, reference| {
        Box::pin(async move { unseen(scene, &reference).await })
    });
    let unreadable = case(reference, "left/unreadable", 0, |scene, reference| {
        Box::pin(async move { unreadable(scene, &reference).await })
    });
    let put_back = case(reference, "DELETE-broadcastjournals-sale/put-back", 1, |scene, reference| {
        Box::pin(async move { put_back(scene, &reference).await })
    });
    let told = case(reference, "told/unseen", 0, |scene, reference| {
        Box::pin(async move { told_unseen(scene, &reference).await })
    });
    all.chain([clock, unseen, unreadable, put_back, told]).collect()
}

/// Every request on journals of a run in which nothing goes wrong, and the writes of the page for what is in them.
fn points(reference: &Reference) -> Vec<Point> {
    let writes: Vec<_> = reference.writes().collect();
    let first = writes.iter().position(|write| write.kind == "broadcastjournals").unwrap_or(writes.len());
    let is_wanted = |point: &Point| point.name.contains("journals") || point.name.ends_with(PAGE);
    writes[first..].iter().map(|write| write.point.clone()).filter(is_wanted).collect()
}

fn case(
    reference: &Arc<Reference>,
    what: &str,
    meets: usize,
    run: impl for<'a> Fn(&'a mut Scene, Arc<Reference>) -> Running<'a> + Send + Sync + 'static,
) -> Case {
    let (name, reference) = (reference.case("A8", what), reference.clone());
    Case { name, meets, run: script(move |scene| run(scene, reference.clone())) }
}

/// A process answers from journals and dies before it takes any in.
async fn leave(scene: &mut Scene, reference: &Reference) -> Result<(), Failure> {
    reference.play.prepare(scene);
    scene.journals.fold_after = NEVER;
    scene.start_operator().await;
    tell(scene).await?;
    scene.processes[0].kill().await;
    match journals(scene).await?.len() {
        2 => Ok(()),
        number => Err(format!("it left {number} journals, not 2")),
    }
}

/// The next one takes in what was left, with a wall clock that is off by this.
async fn left(
    scene: &mut Scene,
    reference: &Reference,
    plan: Vec<Planned>,
    off_by: i64,
) -> Result<(), Failure> {
    scene.tap.plan(plan);
    leave(scene, reference).await?;
    scene.replace_the_dead().await?;
    scene.processes[1].jump(off_by);
    all_is_told(scene).await?;
    come_to_rest(scene).await?;
    finish(scene, Some(reference)).await
}

/// The next process does not see the Broadcast, and the page is gone: it may come back, and journals that it needs then are kept.
async fn unseen(scene: &mut Scene, reference: &Reference) -> Result<(), Failure> {
    leave(scene, reference).await?;
    scene.dead.push(0);
    scene.delete::<BroadcastBatch>(PAGE).await?;
    scene.tap.garble("Broadcast", SALE);
    scene.start_operator().await;
    let tap = scene.tap.clone();
    let has_looked = |_: &Seen, tap: &Tap| tap.next_of(1, "LIST-broadcastjournals").occurrence >= 2;
    scene.until_with("it looks for the second time", has_looked, &tap).await?;
    match journals(scene).await?.len() {
        2 => Ok(()),
        number => Err(format!("I9 answered is stored: {number} journals of 2 are left, and no page")),
    }
}

/// One of those that were left does not fit its schema: it is kept, and the other one is taken in.
async fn unreadable(scene: &mut Scene, reference: &Reference) -> Result<(), Failure> {
    leave(scene, reference).await?;
    let names = journals(scene).await?.into_iter().map(|journal| journal.name_any());
    let first = names.min().ok_or("no journal is left")?;
    scene.tap.garble("BroadcastJournal", &first);
    scene.replace_the_dead().await?;
    let is_read = |seen: &Seen| seen.broadcasts.get(SALE).is_some_and(|sale| counts(sale).read == 2);
    scene.until("the other one is taken in", is_read).await?;
    let left: Vec<_> = journals(scene).await?.into_iter().map(|journal| journal.name_any()).collect();
    if !left.contains(&first) {
        return Err(format!("I9 answered is stored: the one that cannot be read is gone, {left:?} are left"));
    }
    scene.tap.mend();
    all_is_told(scene).await?;
    come_to_rest(scene).await?;
    finish(scene, Some(reference)).await
}

/// Journals that were taken in cannot be deleted yet, and their page is put back to what it was before: it gets again what they say.
async fn put_back(scene: &mut Scene, reference: &Reference) -> Result<(), Failure> {
    reference.play.prepare(scene);
    let deletion = Point { name: OF_THE_NEXT[2].to_owned(), occurrence: 0 };
    scene.tap.plan(vec![Planned::from(&deletion, usize::MAX, Fault::Answer(500))]);
    scene.start_operator().await;
    send_both(scene).await?;
    let page = async |scene: &Scene| scene.api::<BroadcastBatch>().get(PAGE).await.map_err(|e| e.to_string());
    let before = page(scene).await?.status;
    tell_of_sale(scene).await?;
    let is_read = |seen: &Seen| {
        let status = seen.pages.get(PAGE).and_then(|page| page.status.as_ref());
        status.is_some_and(|status| (status.counts.read, status.counts.delivered) == (2, 1))
    };
    scene.until("the page has what they say", is_read).await?;
    let tap = scene.tap.clone();
    scene.until_with("a deletion was refused", |_, tap| tap.met() > 0, &tap).await?;
    let put_back = BroadcastBatch { status: before, ..page(scene).await? };
    scene.view.forget_rows();
    let replaced =
        scene.api::<BroadcastBatch>().replace_status(PAGE, &PostParams::default(), &put_back).await;
    let replaced = replaced.map_err(|error| format!("failed to put a page back: {error}"))?;
    let version = replaced.resource_version().and_then(|version| version.parse::<u64>().ok());
    let is_read_again = |seen: &Seen| seen.version("BroadcastBatch", PAGE) > version && is_read(seen);
    scene.until("it has again what they say", is_read_again).await?;
    scene.tap.plan(Vec::new());
    taken_in(scene).await
}

/// Receipts come to a process that does not see their Broadcast. It takes them when it does, and not before.
async fn told_unseen(scene: &mut Scene, reference: &Reference) -> Result<(), Failure> {
    reference.play.prepare(scene);
    scene.start_operator().await;
    send_both(scene).await?;
    scene.processes[0].kill().await;
    scene.dead.push(0);
    scene.tap.garble("Broadcast", SALE);
    scene.start_operator().await;
    let told = [(0, Outcome::Read)];
    let answer = first_answer(scene, &told).await?;
    if answer != StatusCode::SERVICE_UNAVAILABLE {
        return Err(format!("I9 answered is stored: it answered {answer}, and does not see the Broadcast"));
    }
    scene.tap.mend();
    let change = json!({"metadata": {"annotations": {"shop.example/seen": "yes"}}});
    scene.patch::<Broadcast>(SALE, change).await?;
    post(scene, &told).await?;
    taken_in(scene).await
}
