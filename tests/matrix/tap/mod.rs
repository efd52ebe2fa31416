//! The tap in the line between an operator and the API server: it names and remembers every request, and at the points of
//! a plan it lets things go wrong.

mod body;
mod fault;
mod gate;
pub mod name;
mod service;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use serde_json::Value;
use tokio::sync::{Notify, watch};

pub use fault::{EventFault, Fault, Planned, Point};
pub use gate::Gate;
use name::Call;
pub use service::TapLayer;

/// One request, as it went.
#[derive(Clone, Debug)]
pub struct Logged {
    /// How many requests came before it.
    pub number: usize,
    pub point: Point,
    pub kind: String,
    pub is_write: bool,
    /// Number of the process.
    pub process: usize,
    /// Status that the API server answered with; `None` when it was not asked, or has not answered yet.
    pub status: Option<u16>,
    /// resourceVersion of what was written.
    pub version: Option<u64>,
}

impl Logged {
    /// Whether it changed what is stored.
    pub fn landed(&self) -> bool {
        self.is_write && self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// A claim that a process asked for.
#[derive(Clone, Debug)]
pub struct AskedClaim {
    pub broadcast: String,
    pub page: usize,
    pub rows: Range<usize>,
    pub incarnation: String,
    pub attempt: i64,
    pub process: usize,
    /// When it was surely stored. One whose process died before the answer may be stored all the same.
    pub landed: Option<Instant>,
}

#[derive(Default)]
struct State {
    counts: HashMap<String, usize>,
    /// The same of each process.
    own_counts: HashMap<(usize, String), usize>,
    plan: Vec<Planned>,
    log: Vec<Logged>,
    /// With the number of requests before it.
    events: Vec<(Point, usize)>,
    claims: Vec<AskedClaim>,
    /// Under which ids processes have asked for a lease of their own.
    replicas: Vec<(usize, String)>,
    met: usize,
    hanging: usize,
    /// Lists were answered with what had been stored earlier.
    has_shown_the_past: bool,
    /// An object that no program can read, by kind and name.
    garbled: Option<(String, String)>,
}

/// The tap of one case. All processes of the case go through it.
#[derive(Clone)]
pub struct Tap(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

/// A request that waits in vain.
struct Hanging(Tap);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.state().hanging -= 1;
        self.0.0.changed.send_replace(());
    }
}

/// Whether a process lives.
#[derive(Default)]
pub struct Life {
    dead: AtomicBool,
    pub died: Notify,
    /// What it is to wait for with everything that it does.
    still: Mutex<Option<Gate>>,
    stands: Notify,
}

impl Life {
    /// Ends the process: from here on nothing of it goes out.
    pub fn end(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    pub fn is_over(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// The whole process stands still until the gate opens.
    pub fn freeze(&self, gate: Gate) {
        *self.still.lock().unwrap_or_else(PoisonError::into_inner) = Some(gate);
        self.stands.notify_one();
    }

    /// In the thread of the process: stands still whenever it is to. Does not end.
    pub async fn stand_still(&self) {
        loop {
            self.stands.notified().await;
            let gate = self.still.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(gate) = gate {
                gate.freeze();
            }
        }
    }
}

impl Tap {
    pub fn new() -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), changed: watch::Sender::new(()) }))
    }

    /// From now on these faults are planned, and no other.
    pub fn plan(&self, plan: Vec<Planned>) {
        self.state().plan = plan;
    }

    /// How many requests or events of this name there were.
    pub fn count(&self, name: &str) -> usize {
        self.state().counts.get(name).copied().unwrap_or_default()
    }

    /// The next request or event of this name in the line of one process.
    pub fn next_of(&self, process: usize, name: &str) -> Point {
        let known = self.state().own_counts.get(&(process, name.to_owned())).copied();
        Point { name: name.to_owned(), occurrence: known.unwrap_or_default() }
    }

    /// How many faults have happened.
    pub fn met(&self) -> usize {
        self.state().met
    }

    /// From now on operators see an object of this kind and name that they cannot read.
    pub fn garble(&self, kind: &str, name: &str) {
        self.state().garbled = Some((kind.to_owned(), name.to_owned()));
    }

    /// From now on they can read it again.
    pub fn mend(&self) {
        self.state().garbled = None;
    }

    /// Whether operators see nothing that they can read of this object.
    pub fn hides(&self, kind: &str, name: &str) -> bool {
        self.state()
            .garbled
            .as_ref()
            .is_some_and(|garbled| (garbled.0.as_str(), garbled.1.as_str()) == (kind, name))
    }

    fn garbles(&self) -> bool {
        self.state().garbled.is_some()
    }

    /// A line of a watch, as it is to be seen.
    fn garbled(&self, object: &Value, line: &[u8]) -> Bytes {
        match self.state().is_garbled(object) {
            true => {
                String::from_utf8_lossy(line).replacen("\"spec\":{", "\"spec\":\"?\",\"was\":{", 1).into()
            }
            false => Bytes::copy_from_slice(line),
        }
    }

    /// A list, as it is to be seen.
    fn garbled_list(&self, list: &[u8]) -> Vec<u8> {
        let Ok(mut list) = serde_json::from_slice::<Value>(list) else { return list.to_vec() };
        let kind = list["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).map(str::to_owned);
        for item in list["items"].as_array_mut().into_iter().flatten() {
            if let (None, Some(kind)) = (item.get("kind"), &kind) {
                item["kind"] = kind.as_str().into();
            }
            if self.state().is_garbled(item) {
                item["spec"] = "?".into();
            }
        }
        list.to_string().into_bytes()
    }

    /// The version that a write made.
    fn version_of(&self, write: &Point) -> Option<u64> {
        self.state().log.iter().find(|logged| logged.point == *write && logged.landed())?.version
    }

    /// Whether a list was answered with what had been stored earlier. Who was shown that says so, and later that all is well again.
    pub fn has_shown_the_past(&self) -> bool {
        self.state().has_shown_the_past
    }

    /// The same, from now on.
    fn shows_the_past(&self) {
        self.state().has_shown_the_past = true;
    }

    /// How many requests wait for an answer that never comes.
    pub fn hanging(&self) -> usize {
        self.state().hanging
    }

    /// Counts a request that waits in vain, until it is given up.
    fn hang(&self) -> Hanging {
        self.state().hanging += 1;
        Hanging(self.clone())
    }

    /// Everything that was asked so far.
    pub fn log(&self) -> Vec<Logged> {
        self.state().log.clone()
    }

    /// All watch events that came by, and how many requests came before each.
    pub fn events(&self) -> Vec<(Point, usize)> {
        self.state().events.clone()
    }

    /// All claims that were asked for.
    pub fn claims(&self) -> Vec<AskedClaim> {
        self.state().claims.clone()
    }

    /// The process that asked for a lease of its own under this id.
    pub fn process_of(&self, replica: &str) -> Option<usize> {
        let state = self.state();
        state.replicas.iter().find(|(_, known)| known == replica).map(|(process, _)| *process)
    }

    /// A signal for every request and every answer.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a request. Out: its number in the log, and what goes wrong with it.
    fn begin(&self, call: &Call, process: usize) -> (usize, Option<Fault>) {
        let mut state = self.state();
        let (point, fault) = state.meet(&call.name, process);
        let number = state.log.len();
        let Call { kind, is_write, .. } = call.clone();
        state.log.push(Logged { number, point, kind, is_write, process, status: None, version: None });
        drop(state);
        self.0.changed.send_replace(());
        (number, fault)
    }

    /// Takes in what the API server answered.
    fn answered(&self, number: usize, status: u16, version: Option<u64>) {
        let mut state = self.state();
        let logged = &mut state.log[number];
        (logged.status, logged.version) = (Some(status), version);
        drop(state);
        self.0.changed.send_replace(());
    }

    /// Takes in an event of a watch.
    fn event(&self, name: &str, process: usize) -> Option<EventFault> {
        let mut state = self.state();
        let (point, fault) = state.meet(name, process);
        let before = state.log.len();
        state.events.push((point, before));
        match fault {
            Some(Fault::Event(fault)) => Some(fault),
            _ => None,
        }
    }

    /// Takes in the lease that a process asks for to show that it lives.
    fn replica(&self, lease: &[u8], process: usize) {
        let holder = serde_json::from_slice::<Value>(lease).ok();
        let holder = holder.and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_owned));
        self.state().replicas.extend(holder.map(|holder| (process, holder)));
    }

    /// Takes in a page that is to be stored, or was.
    fn page(&self, page: &[u8], process: usize, landed: Option<Instant>) {
        let Some(claim) = claim_in(page, process) else { return };
        let mut state = self.state();
        let known = state
            .claims
            .iter_mut()
            .find(|known| known.incarnation == claim.incarnation && known.attempt == claim.attempt);
        match known {
            Some(known) => known.landed = known.landed.or(landed),
            None => state.claims.push(AskedClaim { landed, ..claim }),
        }
    }
}

impl State {
    fn is_garbled(&self, object: &Value) -> bool {
        self.garbled.as_ref().is_some_and(|(kind, name)| {
            object["kind"] == kind.as_str() && object["metadata"]["name"] == name.as_str()
        })
    }

    fn meet(&mut self, name: &str, process: usize) -> (Point, Option<Fault>) {
        let count = |known: &mut usize| std::mem::replace(known, *known + 1);
        let occurrence = count(self.counts.entry(name.to_owned()).or_default());
        let own = count(self.own_counts.entry((process, name.to_owned())).or_default());
        let planned = self.plan.iter().find(|planned| planned.is_at(name, process, occurrence, own));
        let point = Point { name: name.to_owned(), occurrence };
        let fault = planned.map(|planned| planned.fault.clone());
        self.met += usize::from(fault.is_some());
        (point, fault)
    }
}

/// The claim in a page.
fn claim_in(page: &[u8], process: usize) -> Option<AskedClaim> {
    let page: Value = serde_json::from_slice(page).ok()?;
    let claim = page["status"].get("claim")?;
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
    Some(AskedClaim {
        broadcast: page["spec"]["broadcast"]["uid"].as_str()?.to_owned(),
        page: number(&page["spec"]["index"])?,
        rows: number(&claim["from"])?..number(&claim["to"])?,
        incarnation: claim["incarnation"].as_str()?.to_owned(),
        attempt: claim["attempt"].as_i64()?,
        process,
        landed: None,
    })
}

/// How long something that comes late is late: longer than everything that an operator does without being told.
pub const LATE: Duration = Duration::from_secs(2);
/// How long the stream of an operator is late that is to hear nothing meanwhile.
pub const LATER: Duration = Duration::from_secs(8);
