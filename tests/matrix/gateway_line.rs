//! The line between an operator and its gateway: it notes when each request came, and at the request that is asked for the
//! operator dies or stands still, or the request or its answer comes slowly.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use broadcast_operator::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::scene::LastLife;
use crate::tap::Gate;

/// What happens at a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The operator dies, and the gateway never gets the request.
    DieBeforeItLeft,
    /// The gateway has done what it does, and the operator dies without an answer.
    DieAfterItLeft,
    /// The operator has its answer, and dies with it.
    DieAfterTheAnswer,
    /// The status of the answer comes, and half of its body.
    SlowBody,
    /// The gateway gets the request when the gate opens.
    Late(Gate),
    /// The gateway has its request and answers, and the operator stands still until the gate opens.
    StandStill(Gate),
    /// The same, and the gateway too gets the request only when the gate opens.
    StandStillAndLate(Gate),
}

/// A line to one gateway.
pub struct GatewayLine {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    upstream: SocketAddr,
    life: LastLife,
}

#[derive(Default)]
struct State {
    /// By the number of the request.
    plan: BTreeMap<usize, Moment>,
    arrivals: Vec<(String, Instant)>,
    met: usize,
}

impl Drop for GatewayLine {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl GatewayLine {
    pub async fn start(upstream: SocketAddr, life: LastLife) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("should have a free port");
        let address = listener.local_addr().expect("should be bound");
        let shared = Arc::new(Shared { state: Mutex::default(), upstream, life });
        let serving = tokio::spawn(serve(listener, shared.clone()));
        Self { address, shared, serving }
    }

    /// Plans something for a request, counted from 0.
    pub fn plan(&self, request: usize, moment: Moment) {
        self.shared.state().plan.insert(request, moment);
    }

    /// How much of what was planned has happened.
    pub fn met(&self) -> usize {
        self.shared.state().met
    }

    /// Tokens of the requests that came, and when.
    pub fn arrivals(&self) -> Vec<(String, Instant)> {
        self.shared.state().arrivals.clone()
    }

    /// How many have come, at any later time.
    pub fn counter(&self) -> impl Fn() -> usize + Send + use<> {
        let shared = self.shared.clone();
        move || shared.state().arrivals.len()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        if let Some(life) = &*self.life.lock().unwrap_or_else(PoisonError::into_inner) {
            life.end();
        }
    }

    /// Lets the operator stand still, and waits until it does.
    async fn freeze(&self, gate: &Gate) {
        if let Some(life) = &*self.life.lock().unwrap_or_else(PoisonError::into_inner) {
            life.freeze(gate.clone());
        }
        gate.reached().await;
    }

    /// Takes in a request. Out: what happens to it.
    fn arrived(&self, head: &str, at: Instant) -> Option<Moment> {
        let key = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("idempotency-key: ").map(str::to_owned));
        let mut state = self.state();
        let number = state.arrivals.len();
        state.arrivals.push((key.unwrap_or_default(), at));
        let moment = state.plan.remove(&number);
        state.met += usize::from(moment.is_some());
        moment
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            // What breaks off on one side breaks off on the other.
            let _ = pass(client, &shared).await;
        });
    }
}

async fn pass(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut gateway = TcpStream::connect(shared.upstream).await?;
    gateway.set_nodelay(true)?;
    loop {
        let Some((request, at)) = message(&mut client).await? else { return Ok(()) };
        let moment = shared.arrived(&String::from_utf8_lossy(&request), at);
        match &moment {
            Some(Moment::DieBeforeItLeft) => {
                shared.kill();
                return Ok(());
            }
            Some(Moment::Late(gate)) => gate.pass().await,
            Some(Moment::StandStill(gate)) => shared.freeze(gate).await,
            Some(Moment::StandStillAndLate(gate)) => {
                shared.freeze(gate).await;
                gate.pass().await;
            }
            _ => {}
        }
        gateway.write_all(&request).await?;
        let Ok(Some((answer, _))) = message(&mut gateway).await else { return client.set_zero_linger() };
        match moment {
            Some(Moment::DieAfterItLeft) => {
                shared.kill();
                return Ok(());
            }
            Some(Moment::SlowBody) => {
                client.write_all(&answer[..answer.len() - 4]).await?;
                // The operator hangs up when it has waited long enough.
                client.read_u8().await?;
                return Ok(());
            }
            _ => client.write_all(&answer).await?,
        }
        if moment == Some(Moment::DieAfterTheAnswer) {
            shared.kill();
            return Ok(());
        }
    }
}

/// A whole request or answer, and when its first byte came.
async fn message(from: &mut TcpStream) -> std::io::Result<Option<(Vec<u8>, Instant)>> {
    let (mut bytes, mut first) = (Vec::new(), None);
    loop {
        if from.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        let at = *first.get_or_insert_with(clock::monotonic);
        let text = String::from_utf8_lossy(&bytes);
        let Some(head) = text.find("\r\n\r\n") else { continue };
        let length = text[..head].lines().find_map(|line| {
            let line = line.to_ascii_lowercase();
            line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok()
        });
        if bytes.len() >= head + 4 + length.unwrap_or_default() {
            return Ok(Some((bytes, at)));
        }
    }
}
