//! What a kill takes of a Broadcast: the rows that were claimed at that moment and not recorded, and how many may have been.
//! In: its pages and the requests at its gateway, right after the kill. Out: both numbers.

use std::collections::HashSet;

use broadcast_operator::api::BroadcastBatch;
use broadcast_operator::domain::page::Page;
use broadcast_operator::domain::token::MessageToken;
use broadcast_operator::simulator::{Entry, SendQuery};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::common::chart::NAMESPACE;
use crate::common::stage::Stage;
use crate::common::wait::until;
use crate::script::Scenario;

/// Most requests in flight, of each channel.
pub const MAX_IN_FLIGHT: usize = 64;
/// Rows that are claimed ahead where there is no rate limit, as in `src/dispatcher/sender.rs`. Where there is one, it is the
/// work of one second.
const UNLIMITED_AHEAD: usize = 500;
/// An answer is recorded this soon: it waits for others for one second at most, and its write may take another one.
const RECORDED_WITHIN_MICROS: u64 = 2_000_000;

/// A row of a Broadcast: its page, and its number there.
type Place = (usize, usize);

/// What one kill took of one Broadcast, whose sender it hit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss {
    /// Number of the kill in its round.
    pub kill: usize,
    /// Rows that were claimed and not recorded. They become Unknown, unless a write of the dead process was on its way.
    pub claimed: usize,
    /// Most rows that may have been.
    pub bound: usize,
}

impl Loss {
    /// How near it is to its bound, in percent.
    pub fn percent(&self) -> usize {
        self.claimed * 100 / self.bound.max(1)
    }
}

/// What all kills have taken of one Broadcast.
#[derive(Debug, Default)]
pub struct Losses {
    pub kills: Vec<Loss>,
    claimed: HashSet<Place>,
}

impl Losses {
    /// Takes in what stands there after a kill of the sender. When something held the sender up shortly before, claims that it
    /// dropped then may still be stored.
    pub async fn note(
        &mut self,
        stage: &Stage,
        name: &str,
        kill: usize,
        scenario: Scenario,
        was_held_up: bool,
    ) {
        let claimed = claimed(&pages(stage, name).await);
        let new: HashSet<Place> = claimed.difference(&self.claimed).copied().collect();
        let arrivals = arrivals(stage, name);
        let arrived = arrived(&arrivals).intersection(&new).count();
        let held_up = if was_held_up { ahead(scenario) } else { 0 };
        // What was claimed had not left, or was in flight, or had arrived and its answer was not recorded yet.
        let bound = ahead(scenario) + MAX_IN_FLIGHT + arrived.min(busiest(&arrivals)) + held_up;
        self.kills.push(Loss { kill, claimed: new.len(), bound });
        self.claimed.extend(new);
    }

    /// Most rows that all of them together may have left Unknown: where a claim was on its way at the kill, it may have been
    /// stored after the look.
    pub fn bound(&self) -> usize {
        self.kills.iter().map(|loss| loss.bound).sum()
    }

    /// What is wrong with them.
    pub fn findings(&self) -> impl Iterator<Item = String> + '_ {
        let too_many = self.kills.iter().filter(|loss| loss.claimed > loss.bound);
        too_many.map(|Loss { kill, claimed, bound }| {
            format!("{claimed} rows were claimed at kill {kill}, {bound} may be")
        })
    }
}

/// Rows that are claimed before their turn.
pub fn ahead(scenario: Scenario) -> usize {
    scenario.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(UNLIMITED_AHEAD)
}

/// Most rows that a process may have claimed of a Broadcast that nobody looked at when it lost them. Of what was answered and
/// not recorded there cannot be more than what arrived in the time in which an answer is recorded, and no span of so long had
/// more than the busiest one.
pub fn unseen(stage: &Stage, name: &str, scenario: Scenario) -> usize {
    ahead(scenario) + MAX_IN_FLIGHT + busiest(&arrivals(stage, name))
}

/// Names of the channels that the processes of these pods hold, by their leases.
pub async fn held_by(stage: &Stage, pods: &[String]) -> HashSet<String> {
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), NAMESPACE);
    let group = format!("broadcast-operator.dev/replicas-of={}", stage.namespace);
    let params = ListParams::default().labels(&group);
    let leases = until("the leases are listed", async || leases.list(&params).await).await;
    let held = leases.items.into_iter().filter_map(|lease| {
        let channel =
            lease.annotations().get("broadcast-operator.dev/channel")?.split_once('/')?.1.to_owned();
        let holder = lease.spec?.holder_identity?;
        let (pod, _) = holder.rsplit_once('_')?;
        pods.iter().any(|of| of == pod).then_some(channel)
    });
    held.collect()
}

async fn pages(stage: &Stage, name: &str) -> Vec<BroadcastBatch> {
    let params = ListParams::default().labels(&format!("broadcast-operator.dev/broadcast={name}"));
    // The API server may have come back a moment ago.
    until("the pages are listed", async || stage.api::<BroadcastBatch>().list(&params).await).await.items
}

fn claimed(pages: &[BroadcastBatch]) -> HashSet<Place> {
    let rows = pages.iter().filter_map(|page| {
        let index = usize::try_from(page.spec.index).ok()?;
        // A page that is being planned has no outcomes and no claim.
        let content = Page::parse(page).ok()?;
        Some(content.claimed_rows().into_iter().map(move |row| (index, row)))
    });
    rows.flatten().collect()
}

fn arrivals(stage: &Stage, name: &str) -> Vec<Entry> {
    let broadcast = Some(format!("{}/{name}", stage.namespace));
    stage.gateway.ledger().sends(&SendQuery { broadcast, ..SendQuery::default() })
}

fn arrived(arrivals: &[Entry]) -> HashSet<Place> {
    let tokens = arrivals.iter().filter_map(|entry| entry.token.parse::<MessageToken>().ok());
    tokens.map(|token| (token.page, token.row)).collect()
}

/// Most arrivals in any span in which an answer is recorded. They are in order.
fn busiest(arrivals: &[Entry]) -> usize {
    let spans = arrivals.iter().enumerate().map(|(first, from)| {
        let end = from.arrived_micros + RECORDED_WITHIN_MICROS;
        arrivals.partition_point(|entry| entry.arrived_micros < end) - first
    });
    spans.max().unwrap_or_default()
}
