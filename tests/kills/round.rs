//! Plays a round: sends Broadcasts, strikes, and reads the books.

use std::fmt;
use std::time::Duration;

use broadcast_operator::clock;
use futures::future::join_all;
use serde_json::json;

use crate::books::{Books, Losses, MAX_IN_FLIGHT};
use crate::common::control_plane::{self, tail};
use crate::common::operator::Operator;
use crate::common::stage::Stage;
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
/// Lines of each operator's log that are shown when a round failed.
const LINES: usize = 40;

/// What a round has come to.
#[derive(Debug, Default)]
pub struct Played {
    pub kills: usize,
    pub sends: usize,
    /// Replicas that were killed or given up.
    pub processes: usize,
    pub doubles: usize,
    pub lost: usize,
    pub unknown: usize,
    pub bound: usize,
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
        let Self { kills, sends, processes, doubles, lost, unknown, bound, findings } = self;
        write!(
            text,
            "{kills} kills, {sends} sends, {doubles} doubles, {lost} lost, {unknown} Unknown of at most {bound} \
             after {processes} lost processes"
        )?;
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
    }
    field.read_books(script, kills).await
}

/// Where a round is played.
struct Field {
    stage: Stage,
    /// Replicas besides the stage's own.
    others: Vec<Operator>,
    broadcasts: Vec<String>,
    losses: Losses,
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
        let broadcasts: Vec<String> = (0..replicas).map(|number| format!("sale-{number}")).collect();
        for name in &broadcasts {
            let limits = json!({"limits": {"messagesPerSecond": limit, "maxInFlight": MAX_IN_FLIGHT}});
            stage.apply(&stage.channel(name, json!({}), limits));
        }
        for name in &broadcasts {
            let channel = json!({"channelRef": {"name": name}});
            stage.create(&stage.broadcast_from_config_map(name, script.chats, channel).await).await;
        }
        Self { stage, others, broadcasts, losses: Losses::default() }
    }

    /// Waits for a moment: so many requests from now on. Out: whether it comes before everything is complete.
    async fn comes(&self, after: u64) -> bool {
        let ledger = self.stage.gateway.ledger();
        let moment = ledger.summary().requests.requests + after;
        tokio::select! {
            biased;
            _ = ledger.wait_until(|summary| summary.requests.requests >= moment) => true,
            _ = join_all(self.broadcasts.iter().map(|name| self.stage.complete(name))) => false,
        }
    }

    fn replica(&mut self, number: usize) -> &mut Operator {
        match number {
            0 => &mut self.stage.operator,
            _ => &mut self.others[number - 1],
        }
    }

    /// Strikes, and sets everything going again.
    async fn strike(&mut self, strike: &Strike, number: usize) {
        let Strike { blow, replica, .. } = *strike;
        match blow {
            Blow::Crash => self.crash(replica).await,
            Blow::CrashWithPod => {
                self.losses.processes += 1;
                let operator = self.replica(replica);
                operator.kill();
                operator.restart_in(&format!("pod-{replica}-{number}")).await;
            }
            Blow::CrashOfAll => {
                self.losses.processes += 1 + self.others.len();
                self.operators().for_each(Operator::kill);
                join_all(self.operators().map(Operator::restart)).await;
            }
            Blow::ShortFreeze => self.freeze(replica, SHORT_FREEZE).await,
            Blow::LongFreeze => self.freeze(replica, LONG_FREEZE).await,
            Blow::Etcd | Blow::ApiServer => {
                self.kill_plane(blow);
                self.stage.plane.start_again().await;
            }
            Blow::EtcdAndCrash | Blow::ApiServerAndCrash => {
                self.kill_plane(blow);
                self.replica(replica).kill();
                self.stage.plane.start_again().await;
                self.crash(replica).await;
            }
        }
    }

    async fn crash(&mut self, replica: usize) {
        self.losses.processes += 1;
        self.replica(replica).kill_and_restart().await;
    }

    async fn freeze(&mut self, replica: usize, time: Duration) {
        self.replica(replica).signal("STOP");
        clock::wait(time).await;
        self.replica(replica).signal("CONT");
    }

    fn kill_plane(&mut self, blow: Blow) {
        self.losses.planes += 1;
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
        let complete = join_all(self.broadcasts.iter().map(|name| self.stage.complete(name))).await;
        self.losses.processes +=
            self.operators().map(|operator| operator.log().matches(WAS_GIVEN_UP).count()).sum::<usize>();
        let sends = self.stage.gateway.ledger().summary().requests.requests;
        let processes = self.losses.processes;
        let mut played = Played {
            kills,
            sends: usize::try_from(sends).unwrap_or(usize::MAX),
            processes,
            ..Played::default()
        };
        for broadcast in &complete {
            let books = Books::read(&self.stage, broadcast, script.chats, script.scenario, self.losses).await;
            played.add(books);
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

    /// The pages of all rounds together would fill etcd.
    async fn clean_up(&self) {
        self.stage.kubectl(&["delete", "broadcasts", "--all", "--wait=false"]);
        for name in &self.broadcasts {
            self.stage.gone(name).await;
        }
        self.stage.plane.kubectl(&["delete", "namespace", &self.stage.namespace, "--wait=false"], "");
    }
}
