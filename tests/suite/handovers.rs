//! How long nobody sends for a channel when its replica goes, by the times that the replicas and the gateway write down: what this test
//! itself waits for is not in them. A machine that is busy with something else makes a round longer, and none shorter: so there are
//! several, not all have to be within the bound, and on one that is slow all the time the bound is that much wider.

use std::time::Duration;

use broadcast_operator::api::Counts;
use broadcast_operator::simulator::SendQuery;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use crate::common::books;
use crate::common::chart::NAMESPACE;
use crate::common::operator::Operator;
use crate::common::stage::{CHANNEL, Stage, broadcast, counts};
use crate::common::wait::until;

/// Rounds at most.
const ROUNDS: usize = 5;
/// Messages per second. All rounds together take less of the audience than it has.
const RATE: usize = 100;
const CHATS: usize = 6000;

/// A replica that is shut down records what is in flight, gives its channel back and is seen to have done so: a handful of calls
/// to the API server, of milliseconds each.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Leases that run out soon, so that a test does not wait long for it.
const SHORT: [&str; 6] =
    ["--lease-duration", "3s", "--lease-renew-deadline", "2s", "--lease-retry-period", "500ms"];
const LEASE: Duration = Duration::from_secs(3);
/// What comes to the lease duration: the last renewal has to be heard of, and then the mark is left, the channel taken and the first
/// window claimed. These are calls to the API server too, and one that is in vain is made again after the retry period.
const MARGIN: Duration = Duration::from_secs(1);

/// Leases that do not run out: what is taken over was handed over.
const LONG: [&str; 4] = ["--lease-duration", "600s", "--lease-renew-deadline", "500s"];

/// Two replicas with one channel.
struct Pair {
    stage: Stage,
    other: Operator,
}

impl Pair {
    async fn sending(flags: &[&str]) -> Self {
        let stage = Stage::with_flags(flags).await;
        let limits = json!({"limits": {"messagesPerSecond": RATE, "burst": 1}});
        stage.apply(&stage.channel(CHANNEL, json!({}), limits));
        let other = stage.join("pod-1", flags).await;
        stage.apply(&broadcast("sale", CHATS, json!({})));
        Self { stage, other }
    }

    /// The replica that holds the channel, and the other one, when some more messages were accepted.
    async fn sender(&mut self) -> (&mut Operator, &mut Operator) {
        self.stage.accepted("sale", self.stage.accepted_now("sale") + RATE / 4).await;
        let (first, second) = (&mut self.stage.operator, &mut self.other);
        let is_first = until("one of them holds the channel", async || {
            let held = [&*first, &*second].map(|replica| replica.metric("broadcast_channels_held", ""));
            match futures::future::join_all(held).await.as_slice() {
                [1, 0] => Ok(true),
                [0, 1] => Ok(false),
                held => Err(held.to_vec()),
            }
        })
        .await;
        if is_first { (first, second) } else { (second, first) }
    }

    /// When the first request after this moment came to the gateway.
    async fn next_request(&self, after: Timestamp) -> Timestamp {
        until("somebody sends again", async || {
            let sends = self.stage.gateway.ledger().sends(&SendQuery::default());
            let next = sends.iter().map(|send| send.arrived).find(|arrived| *arrived > after);
            next.ok_or("nobody does")
        })
        .await
    }

    /// Stops the Broadcast, and checks what was sent of it by whom ever.
    async fn stop(self) -> Counts {
        self.stage.pause("sale", true).await;
        let stopped = self.stage.wait_state("sale", "Stopped").await;
        books::check(&self.stage, "sale").await;
        counts(&stopped)
    }
}

/// When a line was written last that contains this.
fn time_of(log: &str, line: &str) -> Timestamp {
    let found = log.lines().rfind(|logged| logged.contains(line));
    let found = found.unwrap_or_else(|| panic!("{line:?} is not in\n{log}"));
    found.split_whitespace().next().expect("a time").parse().expect("a time")
}

fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// How long this machine takes just now for some calls to the API server, one after the other: what a replica makes of them between
/// its start and its lease. On one that has nothing else to do it is a fraction of a second.
fn some_calls(replica: &Operator) -> Duration {
    let log = replica.log();
    since(time_of(&log, "broadcast-operator starts"), time_of(&log, "joined the other replicas"))
}

/// Whether this round was within the bound, once it is printed.
fn is_within(what: &str, pause: Duration, bound: Duration) -> bool {
    println!(
        "{what}: nobody sent for {:.2} s, {:.2} s are allowed",
        pause.as_secs_f64(),
        bound.as_secs_f64()
    );
    pause <= bound
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_shut_down_hands_its_channel_over_within_two_seconds() {
    let mut pair = Pair::sending(&LONG).await;
    // Two in a row: one alone may be in time by chance, when something else wakes the other replica.
    let mut in_a_row = 0;
    for _ in 0..ROUNDS {
        let (sender, _) = pair.sender().await;
        sender.signal("TERM");
        assert_eq!(sender.ended().await, 0);
        let log = sender.log();
        let told = time_of(&log, "stopping: no further message is sent");
        // From here on, whoever sends is the other one.
        let recorded = time_of(&log, "stopped: everything that was in flight is recorded");
        // It is to be there before the next one goes.
        sender.restart().await;
        let pod = sender.pod().to_owned();
        let pause = since(told, pair.next_request(recorded).await);
        let replica = if pair.other.pod() == pod { &pair.other } else { &pair.stage.operator };
        let bound = HAND_OVER.max(4 * some_calls(replica));
        let is_in_time = is_within("hand-over after a proper shutdown", pause, bound);
        in_a_row = if is_in_time { in_a_row + 1 } else { 0 };
        if in_a_row == 2 {
            break;
        }
    }
    assert_eq!(in_a_row, 2, "hand-overs in {ROUNDS} rounds took too long");
    assert_eq!(pair.stop().await.unknown, 0, "what was in flight was recorded before it was handed over");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_replica_held_is_taken_over_when_its_lease_is_over_and_not_before() {
    let mut pair = Pair::sending(&SHORT).await;
    let mut is_in_time = false;
    let given_up = |replica: &Operator| replica.log().matches("is silent for too long").count();
    for _ in 0..ROUNDS {
        let (sender, other) = pair.sender().await;
        let before = given_up(other);
        sender.kill();
        let pods = [sender, other].map(|replica| replica.pod().to_owned());
        let renewed = last_renewal(&pair.stage, &pods[0]).await;
        let taker = if pair.other.pod() == pods[1] { &pair.other } else { &pair.stage.operator };
        until(
            "the dead one is given up",
            async || {
                if given_up(taker) > before { Ok(()) } else { Err(taker.log()) }
            },
        )
        .await;
        let taken = time_of(&taker.log(), "is silent for too long");
        assert!(since(renewed, taken) >= LEASE, "it may have lived: {renewed} to {taken}");
        let pause = since(renewed, pair.next_request(taken).await);
        // In another pod: a new process of the same one would take over at once what the dead one held.
        let dead = if pair.other.pod() == pods[0] { &mut pair.other } else { &mut pair.stage.operator };
        dead.restart_in(&format!("{}-again", pods[0])).await;
        let bound = LEASE + MARGIN.max(4 * some_calls(dead));
        is_in_time = is_within("take-over of a dead replica, since its last renewal", pause, bound);
        if is_in_time {
            break;
        }
    }
    assert!(is_in_time, "each of {ROUNDS} rounds took too long");
    pair.stop().await;
}

/// When a replica that is dead now renewed its lease last, as it wrote itself.
async fn last_renewal(stage: &Stage, pod: &str) -> Timestamp {
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), NAMESPACE);
    let of_replicas = format!("broadcast-operator.dev/replicas-of={}", stage.namespace);
    let list = leases.list(&ListParams::default().labels(&of_replicas)).await.expect("a list").items;
    let of_pod = list.into_iter().filter_map(|lease| lease.spec).filter(|spec| {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        holder.rsplit_once('_').is_some_and(|(name, _)| name == pod)
    });
    of_pod.filter_map(|spec| spec.renew_time).map(|time| time.0).max().expect("it had a lease")
}
