//! The product at work on this machine: a Broadcast is sent, stopped half-way because of its text, and restarted with a
//! corrected one. `make demo` runs it. It ends by itself, with 0 if what it shows is as promised; with `KEEP=1` it goes on
//! until Ctrl-C.

#[path = "../common/mod.rs"]
mod common;

mod audience;
mod books;
mod gateway;
mod shell;
mod tables;

use std::process::ExitCode;

use broadcast_operator::api::{Broadcast, OutcomeName as Outcome};
use broadcast_operator::clock;
use jiff::Timestamp;
use kube::Api;

use books::Log;
use common::control_plane::ControlPlane;
use common::operator::Operator;
use common::stage::counts;
use common::wait::until;
use gateway::Gateway;
use shell::{Shell, chapter, say};

const NAMESPACE: &str = "shop";
const FIRST: &str = "spring-sale";
const RESTART: &str = "spring-sale-corrected";

/// Exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Everything that runs. It ends with it.
struct Stage {
    shell: Shell,
    gateway: Gateway,
    operator: Operator,
    plane: ControlPlane,
}

#[tokio::main]
async fn main() -> ExitCode {
    let keep = std::env::var("KEEP").is_ok_and(|keep| keep == "1");
    let (stage, is_as_promised) = tokio::select! {
        done = show() => done,
        _ = tokio::signal::ctrl_c() => return INTERRUPTED.into(),
    };
    if keep {
        stage.say_how_to_look();
        // An error means that there is no Ctrl-C to wait for.
        let _ = tokio::signal::ctrl_c().await;
    }
    if is_as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Out: what runs, and whether all of it was as promised.
async fn show() -> (Stage, bool) {
    let started = clock::monotonic();
    let stage = Stage::start().await;
    stage.send().await;
    stage.stop().await;
    stage.restart().await;
    let is_as_promised = stage.compare_books().await;
    println!("\nThis took {} s.", started.elapsed().as_secs());
    (stage, is_as_promised)
}

impl Stage {
    async fn start() -> Self {
        chapter("A control plane, an operator and a gateway on loopback");
        let plane = ControlPlane::start().await;
        plane.install_crds();
        say("etcd, kube-apiserver and kube-controller-manager are up, the definitions are installed");
        let account = common::chart::account(&plane).await;
        let shell = Shell::new(&plane);
        shell.kubectl(&["create", "namespace", NAMESPACE]);
        shell.kubectl(&["config", "set-context", "--current", &format!("--namespace={NAMESPACE}")]);
        let operator = Operator::start(&plane, account, NAMESPACE).await;
        say("the operator is ready, with the account and the rights that the chart gives it");
        let faults = audience::faults(&format!("{NAMESPACE}/{FIRST}"));
        let gateway = Gateway::start(plane.folder(), &operator.receipts_url(), &faults).await;
        say(&format!(
            "chat-simulator listens on {}: a gateway that delivers nothing and keeps books",
            gateway.address()
        ));
        Self { shell, gateway, operator, plane }
    }

    /// Sends the first half.
    async fn send(&self) {
        chapter(&format!("A Broadcast to {} chats", audience::CHATS));
        let Self { shell, gateway, .. } = self;
        let channel = include_str!("manifests/channel.yaml").replace("GATEWAY", gateway.address());
        shell.write("channel.yaml", &channel);
        shell.write("chats.csv", &audience::csv());
        shell.write("spring-sale.yaml", include_str!("manifests/spring-sale.yaml"));
        shell.kubectl(&["apply", "-f", "channel.yaml"]);
        say(&format!("chats.csv has {} rows more that are bad on purpose", audience::BAD_ROWS.len()));
        shell.kubectl(&["create", "configmap", "spring-sale-audience", "--from-file=chats.csv"]);
        shell.cat("spring-sale.yaml");
        shell.kubectl(&["apply", "-f", "spring-sale.yaml"]);
        let half = u64::try_from(audience::CHATS / 2).expect("should be a small number");
        let reached = gateway.until("half of the chats have it", |summary| summary.requests.accepted >= half);
        shell.kubectl_until(&["get", "bc", "--watch"], reached).await;
    }

    /// Stops it, and shows how soon the gateway noticed.
    async fn stop(&self) {
        chapter("Stop: the text says 9 pm, and the sale starts at 9 am");
        let Self { shell, gateway, .. } = self;
        let patch = ["patch", "bc", FIRST, "--type=merge", "-p", r#"{"spec":{"paused":true}}"#, "-v=6"];
        let patched = shell.kubectl(&patch);
        shell.kubectl(&["wait", "--for=condition=Suspended", &format!("bc/{FIRST}")]);
        let last = gateway.summary().await.requests.last_arrival.expect("should have had requests");
        let from_answer = distance(last, patched.answered());
        let from_return = distance(last, patched.returned);
        say(&format!(
            "the last request reached the gateway {from_answer} the API server answered the patch, \
             {from_return} kubectl returned"
        ));
        shell.kubectl(&["get", "bc"]);
    }

    /// Sends a corrected text to those who have none.
    async fn restart(&self) {
        chapter("Restart with a corrected text, for those who failed or were not reached");
        let Self { shell, .. } = self;
        shell.write("spring-sale-corrected.yaml", include_str!("manifests/spring-sale-corrected.yaml"));
        shell.cat("spring-sale-corrected.yaml");
        shell.kubectl(&["apply", "-f", "spring-sale-corrected.yaml"]);
        let complete = ["wait", "--for=condition=Complete", &format!("bc/{RESTART}"), "--timeout=60s"];
        let is_complete = self.until_status(RESTART, common::stage::is_complete);
        shell.kubectl_until(&["get", "bc", RESTART, "--watch"], is_complete).await;
        shell.kubectl(&complete);
        // What the gateway calls taken is stored already.
        self.gateway.until("all receipts are taken", |summary| summary.receipts.pending == 0).await;
    }

    /// Shows what became of everybody. Out: whether both sides agree, and nobody has it twice.
    async fn compare_books(&self) -> bool {
        chapter("What became of everybody");
        let Self { shell, gateway, .. } = self;
        let [first, restart] = [FIRST, RESTART].map(|name| self.log(name));
        let broadcasts = [self.as_logged(&first).await, self.as_logged(&restart).await];
        shell.kubectl(&["get", "bc", "-o", "wide"]);
        println!("\n{}\n\n{}", tables::results(&broadcasts), tables::reasons(&[&first, &restart]));

        chapter("The gateway's own books");
        let sends = gateway.sends().await;
        println!("{}\n\n{}\n", tables::messages(&sends), tables::summary(&gateway.summary().await));
        let rows = audience::CHATS + audience::BAD_ROWS.len();
        let violations = books::violations(&first, &restart, rows, &sends);
        for violation in &violations {
            println!("NOT AS PROMISED: {violation}");
        }
        if violations.is_empty() {
            let accepted = sends.iter().filter(|send| send.accepted).count();
            println!(
                "{accepted} chats have one of the two texts, and nobody has two. Every row of the log is what the gateway says."
            );
        }
        violations.is_empty()
    }

    /// The log of a Broadcast, as a user reads it.
    fn log(&self, broadcast: &'static str) -> Log {
        let label = format!("broadcast-operator.dev/broadcast={broadcast}");
        let pages = "jsonpath={range .items[*]}{.status.outcomes}{end}";
        let log = Log::read(broadcast, &self.shell.ask(&["get", "bcb", "-l", &label, "-o", pages]).text);
        say(&format!("{} rows; those without a message are below", log.rows.len()));
        log
    }

    /// Waits until the status has what the log has: it is written once a second.
    async fn as_logged(&self, log: &Log) -> Broadcast {
        self.until_status(log.broadcast, |broadcast| {
            let counts = counts(broadcast);
            [
                (counts.read, Outcome::Read),
                (counts.delivered, Outcome::Delivered),
                (counts.sent, Outcome::Sent),
            ]
            .iter()
            .all(|(number, outcome)| usize::try_from(*number) == Ok(log.count(*outcome)))
        })
        .await
    }

    async fn until_status(&self, name: &str, wanted: impl Fn(&Broadcast) -> bool) -> Broadcast {
        let broadcasts: Api<Broadcast> = Api::namespaced(self.plane.client().await, NAMESPACE);
        until(&format!("the status of {name}"), async || {
            let broadcast = broadcasts.get(name).await.map_err(|error| error.to_string())?;
            if wanted(&broadcast) { Ok(broadcast) } else { Err(format!("{:?}", broadcast.status)) }
        })
        .await
    }

    fn say_how_to_look(&self) {
        println!("\nIt goes on until Ctrl-C. In another terminal:\n");
        println!("export KUBECONFIG={}", self.plane.kubeconfig("admin").display());
        println!("alias kubectl={}", self.plane.binary("kubectl").display());
        println!("kubectl get bc");
        println!("curl -s http://{}/simulator/summary", self.gateway.address());
        println!("curl -s {}", self.operator.admin_url("/metrics"));
    }
}

/// How far a moment is from another one, in words that the other one follows.
fn distance(moment: Timestamp, other: Timestamp) -> String {
    let milliseconds = moment.duration_since(other).as_millis();
    let word = if milliseconds < 0 { "before" } else { "after" };
    format!("{} ms {word}", milliseconds.abs())
}
