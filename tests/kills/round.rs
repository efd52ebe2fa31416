//! Plays a round: sends Broadcasts, strikes, and reads the books.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use broadcast_operator::api::Broadcast;
use broadcast_operator::clock;
use broadcast_operator::simulator::ReceiptSettings;
use futures::future::join_all;
use kube::ResourceExt;
use serde_json::json;

use crate::books::Books;
use crate::common::control_plane::{self, tail};
use crate::common::operator::Operator;
use crate::common::stage::{SIGNING_SECRET, Stage, is_complete};
use crate::losses::{self, Loss, Losses, MAX_IN_FLIGHT};
use crate::script::{Blow, Scenario, Script, Strike};

/// Leases that run out soon, so that a round does not wait long for it.
const LEASES: [&str; 6] =
    ["--lease-duration", "2s", "--lease-renew-deadline", "1400ms", "--lease-retry-period", "300ms"];
/// A freeze that the lease outlives.
const SHORT_FREEZE: Duration = Duration::from_millis(700);
/// A freeze that it does not, with time for another replica to send something.
const LONG_FREEZE: Duration = Duration::from_millis(3_500);
/// What a replica logs when it finds that another one has taken over what it had.
const WAS_GIVEN_UP: &str = "was given up by the other replicas";
/// Longest time until what was recorded last is counted, and receipts that a killed replica left in a journal are in their pages: the
/// leader takes them for left after a minute, and looks every half a minute.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// Longest time until a Broadcast is complete: a watch that a dying control plane leaves silent is noticed after 75 s.
const COMPLETE_WITHIN: Duration = Duration::from_secs(150);
/// Between two looks at books that do not agree yet.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Lines of each operator's log that are shown when a round failed.
const LINES: usize = 40;

/// Longest time until the last receipt is taken: as often as the gateway repeats it.
const RECEIPTS_WITHIN: Duration = Duration::from_secs(180);

/// Some messages are delivered, some of those are read, and of the others nothing is heard.
fn receipts() -> ReceiptSettings {
    ReceiptSettings { delivered_percent: 70, read_percent: 40, ..ReceiptSettings::default() }
}

/// What a round has come to.
#[derive(Debug, Default)]
pub struct Played {
    pub kills: usize,
    pub sends: usize,
    /// Receipts that were taken.
    pub receipts: usize,
    /// Replicas that were killed or given up.
    pub processes: usize,
    pub doubles: usize,
    pub lost: usize,
    pub unknown: usize,
    pub bound: usize,
    /// What each kill took of each Broadcast whose sender it hit.
    pub losses: Vec<Loss>,
    /// What is wrong.
    pub findings: Vec<String>,
}

impl Played {
    /// A round that did not come to its end.
    pub fn broken(finding: String) -> Self {
        Self { findings: vec![finding], ..Self::default() }
    }

    fn add(&mut self, books: Books) {
        self.doubles += books.doubles;
        self.lost += books.lost;
        self.unknown += books.unknown;
        self.bound += books.bound;
        self.findings.extend(books.findings);
    }
}

impl fmt::Display for Played {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, sends, receipts, processes, doubles, lost, unknown, bound, losses, findings } =
            self;
        write!(
            text,
            "{kills} kills, {sends} sends, {receipts} receipts, {doubles} doubles, {lost} lost, {unknown} Unknown of at most {bound} \
             after {processes} lost processes; claimed at kills:"
        )?;
        for Loss { kill, claimed, bound } in losses {
            write!(text, " #{kill} {claimed} of {bound}")?;
        }
        findings.iter().try_for_each(|finding| write!(text, "\n  {finding}"))
    }
}

/// Plays one.
///
/// # Panics
/// When something that must come to an end does not.
pub async fn play(script: &Script) -> Played {
    // The round before may have ended in the middle of a blow.
    control_plane::shared().await.start_again().await;
    let mut field = Field::prepare(script).await;
    let mut kills = 0;
    for strike in &script.strikes {
        if !field.comes(strike.after).await {
            break;
        }
        kills += 1;
        field.strike(strike, kills).await;
        field.send_receipts_to(kills % script.scenario.replicas);
    }
    field.read_books(script, kills).await
}

/// Where a round is played.
struct Field {
    stage: Stage,
    scenario: Scenario,
    /// Replicas besides the stage's own.
    others: Vec<Operator>,
    /// By name, which is that of the channel too: what was lost of each.
    broadcasts: BTreeMap<String, Losses>,
    /// Processes that were killed.
    processes: usize,
    /// Deaths of the control plane: the answer to a claim may be lost, and nothing of it is sent then.
    planes: usize,
    /// Freezes in which another replica takes over. Whoever is frozen may say so later.
    takeovers: usize,
    /// Whether a blow shortly before has held senders up, so that they dropped what they had claimed.
    was_held_up: bool,
}

impl Field {
    async fn prepare(script: &Script) -> Self {
        let Scenario { replicas, limit, latency_ms } = script.scenario;
        let stage = Stage::with_flags(&LEASES).await;
        let mut others = Vec::new();
        for number in 1..replicas {
            others.push(stage.join(&format!("pod-{number}"), &LEASES).await);
        }
        stage.set_faults(json!([{"do": {"latencyMs": latency_ms}}]));
        stage.send_receipts(&receipts());
        let broadcasts: BTreeMap<String, Losses> =
            (0..replicas).map(|number| (format!("sale-{number}"), Losses::default())).collect();
        for name in broadcasts.keys() {
            let limits = json!({"limits": {"messagesPerSecond": limit, "maxInFlight": MAX_IN_FLIGHT}});
            stage.apply(&stage.channel(name, json!({}), limits));
        }
        for name in broadcasts.keys() {
            let channel = json!({"channelRef": {"name": name}});
            stage.create(&stage.broadcast_from_config_map(name, script.chats, channel).await).await;
        }
        let scenario = script.scenario;
        Self {
            stage,
            scenario,
            others,
            broadcasts,
            processes: 0,
            planes: 0,
            takeovers: 0,
            was_held_up: false,
        }
    }

    /// Waits for a moment: so many requests from now on. Out: whether it comes before everything is complete.
    async fn comes(&self, after: u64) -> bool {
        let ledger = self.stage.gateway.ledger();
        let moment = ledger.summary().requests.requests + after;
        tokio::select! {
            biased;
            _ = ledger.wait_until(|summary| summary.requests.requests >= moment) => true,
            _ = join_all(self.broadcasts.keys().map(|name| complete(&self.stage, name))) => false,
        }
    }

    fn replica(&mut self, number: usize) -> &mut Operator {
        match number {
            0 => &mut self.stage.operator,
            _ => &mut self.others[number - 1],
        }
    }

    /// Receipts of what is accepted from here on go to this replica. Those of what was accepted before come again and again until
    /// the other one is back.
    fn send_receipts_to(&mut self, number: usize) {
        let url = self.replica(number).receipts_url();
        let settings = ReceiptSettings { url, secret: Some(SIGNING_SECRET.into()), ..receipts() };
        self.stage.gateway.set_receipts(Some(settings)).expect("should be valid settings");
    }

    /// Strikes, and sets everything going again.
    async fn strike(&mut self, strike: &Strike, number: usize) {
        let Strike { blow, replica, .. } = *strike;
        match blow {
            Blow::Crash => self.crash(replica, number).await,
            Blow::CrashWithPod => {
                self.replica(replica).kill();
                self.take_stock(number, &[replica]).await;
                self.replica(replica).restart_in(&format!("pod-{replica}-{number}")).await;
            }
            Blow::CrashOfAll => {
                self.operators().for_each(Operator::kill);
                let all: Vec<usize> = (0..self.scenario.replicas).collect();
                self.take_stock(number, &all).await;
                join_all(self.operators().map(Operator::restart)).await;
            }
            Blow::ShortFreeze => self.freeze(replica, SHORT_FREEZE, number).await,
            Blow::LongFreeze => self.freeze(replica, LONG_FREEZE, number).await,
            Blow::Etcd | Blow::ApiServer => {
                self.kill_plane(blow);
                self.stage.plane.start_again().await;
            }
            Blow::EtcdAndCrash | Blow::ApiServerAndCrash => {
                self.kill_plane(blow);
                self.replica(replica).kill();
                self.stage.plane.start_again().await;
                self.was_held_up = true;
                self.crash(replica, number).await;
            }
        }
        self.was_held_up = !matches!(blow, Blow::Crash | Blow::CrashWithPod | Blow::CrashOfAll);
    }

    async fn crash(&mut self, replica: usize, number: usize) {
        self.replica(replica).kill();
        self.take_stock(number, &[replica]).await;
        self.replica(replica).restart().await;
    }

    /// Counts the dead, and looks at what they had claimed.
    async fn take_stock(&mut self, number: usize, dead: &[usize]) {
        self.processes += dead.len();
        self.note_claims(number, dead).await;
    }

    /// Looks at what these replicas have claimed, while nobody else has found it yet.
    async fn note_claims(&mut self, number: usize, dead: &[usize]) {
        let pods: Vec<String> = dead.iter().map(|replica| self.replica(*replica).pod().to_owned()).collect();
        let held = losses::held_by(&self.stage, &pods).await;
        for (name, losses) in self.broadcasts.iter_mut().filter(|(name, _)| held.contains(*name)) {
            losses.note(&self.stage, name, number, self.scenario, self.was_held_up).await;
        }
    }

    async fn freeze(&mut self, replica: usize, time: Duration, number: usize) {
        self.replica(replica).signal("STOP");
        if time == LONG_FREEZE && !self.others.is_empty() {
            self.takeovers += 1;
            self.note_claims(number, &[replica]).await;
        }
        clock::wait(time).await;
        self.replica(replica).signal("CONT");
    }

    fn kill_plane(&mut self, blow: Blow) {
        self.planes += 1;
        match blow {
            Blow::Etcd | Blow::EtcdAndCrash => self.stage.plane.kill_etcd(),
            _ => self.stage.plane.kill_api_server(),
        }
    }

    fn operators(&mut self) -> impl Iterator<Item = &mut Operator> {
        std::iter::once(&mut self.stage.operator).chain(&mut self.others)
    }

    /// Waits for the end, reads the books, and leaves nothing behind in the control plane.
    async fn read_books(mut self, script: &Script, kills: usize) -> Played {
        let complete = join_all(self.broadcasts.keys().map(|name| complete(&self.stage, name))).await;
        let given_up =
            self.operators().map(|operator| operator.log().matches(WAS_GIVEN_UP).count()).sum::<usize>();
        let ledger = self.stage.gateway.ledger();
        let taken = ledger.wait_until(|summary| summary.receipts.pending == 0);
        let taken = tokio::time::timeout(RECEIPTS_WITHIN, taken).await.unwrap_or_else(|_| ledger.summary());
        let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let mut played = Played {
            kills,
            sends: number(taken.requests.requests),
            receipts: number(taken.receipts.delivered),
            processes: self.processes + given_up,
            ..Played::default()
        };
        if taken.receipts.pending + taken.receipts.failed > 0 {
            played.findings.push(format!("receipts were not taken: {:?}", taken.receipts));
        }
        // A machine that is too busy makes more of them than the freezes do.
        let unseen = given_up.saturating_sub(self.takeovers);
        for broadcast in complete {
            played.add(self.books_of(broadcast, script, unseen).await);
        }
        for (name, losses) in &self.broadcasts {
            played.losses.extend(&losses.kills);
            played.findings.extend(losses.findings().map(|finding| format!("{name}: {finding}")));
        }
        for (number, operator) in self.operators().enumerate() {
            if let Some(code) = operator.exit_code() {
                played.findings.push(format!("replica {number} ended by itself with {code}"));
            }
        }
        if !played.findings.is_empty() {
            for operator in self.operators() {
                eprintln!("last lines of a replica:\n{}", tail(&operator.log(), LINES));
            }
        }
        self.clean_up().await;
        played
    }

    /// The books of a Broadcast. A replica that was given up alive records what it had in flight when it can, also after the end:
    /// what was Unknown may become Sent, and is counted a second later.
    async fn books_of(&self, mut broadcast: Broadcast, script: &Script, unseen: usize) -> Books {
        let deadline = clock::monotonic() + SETTLED_WITHIN;
        let bound = self.bound(&broadcast.name_any(), unseen);
        loop {
            let books = Books::read(&self.stage, &broadcast, script.chats, bound).await;
            if books.findings.is_empty() || clock::monotonic() >= deadline {
                return books;
            }
            clock::wait(LOOK_AGAIN).await;
            broadcast = self.stage.broadcast(&broadcast.name_any()).await;
        }
    }

    /// Most rows of a Broadcast that may be Unknown. While the control plane is away nothing can be claimed, so a process that
    /// dies then leaves no more than one that dies before.
    fn bound(&self, name: &str, unseen: usize) -> usize {
        let lost = self.broadcasts[name].bound() + self.planes * losses::ahead(self.scenario);
        lost + unseen * losses::unseen(&self.stage, name, self.scenario)
    }

    /// The pages of all rounds together would fill etcd.
    async fn clean_up(&self) {
        self.stage.kubectl(&["delete", "broadcasts", "--all", "--wait=false"]);
        for name in self.broadcasts.keys() {
            self.stage.gone(name).await;
        }
        self.stage.plane.kubectl(&["delete", "namespace", &self.stage.namespace, "--wait=false"], "");
    }
}

async fn complete(stage: &Stage, name: &str) -> Broadcast {
    stage.wait_within(COMPLETE_WITHIN, name, "complete", is_complete).await
}
