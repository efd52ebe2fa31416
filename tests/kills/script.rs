//! What happens in a round: drawn from a seed, and the same for the same seed. Pure.

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Blows of a round. Each may cost a window or two, and the audience is large enough for all of them.
const BLOWS: std::ops::RangeInclusive<usize> = 5..=8;
/// Where a channel has a limit, it is this one.
const MESSAGES_PER_SECOND: u32 = 500;
/// Latency of the gateway, where it has one.
const LATENCY_MS: u64 = 50;

/// Under which conditions a round is played. Each replica has a channel and a Broadcast to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scenario {
    pub replicas: usize,
    /// Messages per second of each channel.
    pub limit: Option<u32>,
    pub latency_ms: u64,
}

/// What is done to the process of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL, and a new process in the same pod: it takes over at once.
    Crash,
    /// SIGKILL, and a new process in another pod: what the old one had is taken over when its lease has run out.
    CrashWithPod,
    /// SIGKILL of all replicas at the same moment.
    CrashOfAll,
    /// SIGSTOP, and SIGCONT before the lease runs out.
    ShortFreeze,
    /// SIGSTOP, and SIGCONT long after the lease ran out.
    LongFreeze,
    /// SIGKILL of etcd.
    Etcd,
    /// SIGKILL of the API server.
    ApiServer,
    /// SIGKILL of etcd, and of a replica while it is away.
    EtcdAndCrash,
    /// SIGKILL of the API server, and of a replica while it is away.
    ApiServerAndCrash,
}

/// How often each is drawn. Those that take the control plane away take seconds each.
const WEIGHTS: [(Blow, u32); 9] = [
    (Blow::Crash, 34),
    (Blow::CrashWithPod, 14),
    (Blow::CrashOfAll, 10),
    (Blow::ShortFreeze, 12),
    (Blow::LongFreeze, 8),
    (Blow::Etcd, 8),
    (Blow::ApiServer, 5),
    (Blow::EtcdAndCrash, 5),
    (Blow::ApiServerAndCrash, 4),
];

/// One blow, and when.
#[derive(Clone, Copy, Debug)]
pub struct Strike {
    /// Requests that arrive at the gateway since the blow before was over.
    pub after: u64,
    pub blow: Blow,
    /// Whom it hits.
    pub replica: usize,
}

/// A round.
#[derive(Clone, Debug)]
pub struct Script {
    pub scenario: Scenario,
    /// Audience of each Broadcast.
    pub chats: usize,
    pub strikes: Vec<Strike>,
}

impl Script {
    pub fn draw(seed: u32, round: u32) -> Self {
        let mut random = StdRng::seed_from_u64(u64::from(seed) << 32 | u64::from(round));
        let scenario = Scenario {
            replicas: random.random_range(1..=2),
            limit: random.random_bool(0.5).then_some(MESSAGES_PER_SECOND),
            latency_ms: if random.random_bool(0.5) { LATENCY_MS } else { 0 },
        };
        let (chats, longest) = if scenario.limit.is_some() { (4_000, 400) } else { (6_000, 800) };
        let strikes = (0..random.random_range(BLOWS)).map(|number| Strike {
            // Sometimes the first one hits the planning.
            after: if number == 0 && random.random_bool(0.2) { 0 } else { random.random_range(1..=longest) },
            blow: draw_blow(&mut random),
            replica: random.random_range(0..scenario.replicas),
        });
        let strikes = strikes.collect();
        Self { scenario, chats, strikes }
    }
}

fn draw_blow(random: &mut StdRng) -> Blow {
    let mut left = random.random_range(0..WEIGHTS.iter().map(|(_, weight)| weight).sum());
    for (blow, weight) in WEIGHTS {
        if left < weight {
            return blow;
        }
        left -= weight;
    }
    unreachable!("the number is below the sum of all weights")
}

impl fmt::Display for Scenario {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replicas = if self.replicas == 1 { "one replica" } else { "two replicas" };
        let limit = self.limit.map_or("full rate".into(), |limit| format!("{limit}/s"));
        write!(text, "{replicas}, {limit}, {} ms", self.latency_ms)
    }
}

impl fmt::Display for Script {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(text, "{}:", self.scenario)?;
        for Strike { after, blow, replica } in &self.strikes {
            write!(text, " +{after} {blow:?}")?;
            if !matches!(blow, Blow::CrashOfAll | Blow::Etcd | Blow::ApiServer) {
                write!(text, "({replica})")?;
            }
        }
        Ok(())
    }
}
