//! An operator inside this process, with a thread, a runtime and a memory of its own. It dies like a process does: at one
//! point, with everything that it has not written down.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broadcast_operator::journal::JournalSettings;
use broadcast_operator::lease::{LeaseSettings, LeaseTimes};
use broadcast_operator::metrics::Metrics;
use broadcast_operator::run::{Setup, configured, operate};
use kube::Config;
use kube::client::ClientBuilder;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::tap::{Life, Tap, TapLayer};

/// What is logged of an operator, and shown when its case fails.
const LOG_FILTER: &str = "info,matrix=info,kube_runtime=warn,broadcast_operator=debug";

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was killed.
    Killed,
    /// It was told to.
    Stopped,
    /// A part of it died, or could not begin.
    Failed(String),
}

/// Where the processes of a case write their logs to.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A running operator.
pub struct Process {
    pub life: Arc<Life>,
    stop: CancellationToken,
    end: watch::Receiver<Option<End>>,
    /// By how many milliseconds its wall clock is off.
    clock: Arc<AtomicI64>,
    /// Where it takes receipts.
    pub receipts: SocketAddr,
}

/// What an operator is started with.
pub struct Start {
    pub config: Config,
    pub namespace: String,
    pub tap: Tap,
    /// Number of the process in its case.
    pub number: usize,
    pub log: Log,
    /// Where it takes receipts, if that is free; port 0 takes any.
    pub receipts: SocketAddr,
    /// How it shares its work with others.
    pub leases: LeaseSettings,
    /// How its receipts go through journals.
    pub journals: JournalSettings,
}

/// Leases that do not run out in a case.
pub const LONG: LeaseTimes = LeaseTimes {
    duration: Duration::from_secs(600),
    renew_deadline: Duration::from_secs(500),
    retry_period: Duration::from_secs(1),
};
/// Leases that run out soon, and not because the machine is busy.
pub const SHORT: LeaseTimes = LeaseTimes {
    duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry_period: Duration::from_millis(500),
};

impl Process {
    /// Starts one. It does not wait until it is ready.
    pub async fn start(start: Start) -> Self {
        let (admin, receipts) = (listen(any()).await, listen(start.receipts).await);
        let address = receipts.local_addr().expect("should be bound");
        let (life, stop) = (Arc::new(Life::default()), CancellationToken::new());
        let (ended, end) = watch::channel(None);
        let (its_life, its_stop) = (life.clone(), stop.clone());
        let clock = Arc::new(AtomicI64::new(0));
        let its_clock = clock.clone();
        let run = move || {
            broadcast_operator::clock::set_off_by(its_clock);
            let log = start.log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::new(LOG_FILTER))
                .with_writer(move || log.clone())
                .with_ansi(false)
                .finish();
            let end = tracing::subscriber::with_default(subscriber, || {
                live(start, admin, receipts, &its_life, its_stop)
            });
            ended.send_replace(Some(end));
        };
        std::thread::Builder::new().name(THREAD.into()).spawn(run).expect("should start a thread");
        Self { life, stop, end, clock, receipts: address }
    }

    /// Ends it on the spot: it sends and writes nothing more. Returns when it is gone.
    pub async fn kill(&self) -> End {
        self.life.end();
        self.ended().await
    }

    /// Lets its wall clock jump.
    pub fn jump(&self, millis: i64) {
        self.clock.fetch_add(millis, Ordering::Relaxed);
    }

    /// Tells it to stop, and waits until it has.
    pub async fn stop(&self) -> End {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> End {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| end.clone()).unwrap_or(End::Failed("its thread panicked".into()))
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.end.borrow().is_none()
    }

    /// Whether it has ended as it was told to.
    pub fn has_stopped(&self) -> bool {
        *self.end.borrow() == Some(End::Stopped)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.life.end();
    }
}

/// Name of the threads of operators: what panics there is told by the case.
pub const THREAD: &str = "operator";

fn live(
    start: Start,
    admin: std::net::TcpListener,
    receipts: std::net::TcpListener,
    life: &Arc<Life>,
    stop: CancellationToken,
) -> End {
    // After each step of any task the death is looked for, so that no other task goes on after it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(1).build();
    let runtime = runtime.expect("should make a runtime");
    let end = runtime.block_on(async {
        let layer = TapLayer { tap: start.tap, life: life.clone(), process: start.number };
        let client = ClientBuilder::try_from(configured(start.config)).expect("should be a client");
        let listener = |listener| TcpListener::from_std(listener).expect("should be a listener");
        let setup = Setup {
            client: client.with_layer(&layer).build(),
            metrics: Metrics::new(),
            admin: listener(admin),
            receipts: listener(receipts),
            namespaces: vec![start.namespace],
            allow_addresses: vec!["127.0.0.0/8".parse().expect("should be a range")],
            journals: start.journals,
            leases: start.leases,
        };
        tokio::select! {
            biased;
            () = life.died.notified() => End::Killed,
            () = life.stand_still() => End::Killed,
            ended = operate(setup, stop) => match ended {
                Ok(()) => End::Stopped,
                Err(error) => End::Failed(broadcast_operator::cluster::chain(&error)),
            },
        }
    });
    life.end();
    runtime.shutdown_background();
    end
}

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

async fn listen(wanted: SocketAddr) -> std::net::TcpListener {
    let listener = match TcpListener::bind(wanted).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(any()).await.expect("should have a free port"),
    };
    listener.into_std().expect("should be a listener")
}
