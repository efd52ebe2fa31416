//! Connections to the ports of this process. Anybody on the internet may open one to that of receipts, before anything is known of them;
//! and one that leaks in a cluster must not keep the probes out of the other.
//!
//! In: a listener, and what answers requests. Out: answers. There is a bound on connections, and on the time that one may take for the
//! head of a request. When all are taken, the one that has waited longest without a whole request makes room for the next, so that
//! connections of which nothing comes, or little at a time, keep nobody out.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, HttpBody};
use axum::http::Request;
use axum::serve::Listener;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Longest time for the answer to a connection that is to leave: gateways wait no longer. One that reads no answers must not keep its
/// place.
const LAST_ANSWER: Duration = Duration::from_secs(30);

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// So many are open at once.
    pub connections: usize,
    /// Longest time from the beginning of a connection, or from the answer before, until the head of a request is there.
    pub head: Duration,
}

impl Bounds {
    /// A gateway that posts single receipts has 64 requests open, so there is room for those of a dozen, and a connection takes some
    /// ten KiB. A head comes in one packet or two.
    pub const RECEIPTS: Self = Self { connections: 1024, head: Duration::from_secs(10) };
    /// Probes, and those who collect metrics.
    pub const ADMIN: Self = Self { connections: 64, head: Duration::from_secs(10) };
}

/// Serves until `ended`, and then until what was begun is answered.
pub async fn serve(mut listener: TcpListener, routes: Router, bounds: Bounds, ended: CancellationToken) {
    let (open, doors) = (TaskTracker::new(), Arc::new(Doors::new(bounds)));
    let mut next = async || {
        let (stream, _) = Listener::accept(&mut listener).await;
        (stream, doors.room().await)
    };
    while let Some((stream, room)) = ended.run_until_cancelled(next()).await {
        let (routes, doors, ended) = (routes.clone(), doors.clone(), ended.clone());
        open.spawn(async move {
            converse(stream, routes, &doors, &ended).await;
            drop(room);
        });
    }
    drop(listener);
    open.close();
    open.wait().await;
}

/// Answers the requests of one connection.
async fn converse(stream: TcpStream, routes: Router, doors: &Arc<Doors>, ended: &CancellationToken) {
    let place = Arc::new(Place::new(doors.clone()));
    let there = place.clone();
    let answer = service_fn(move |request: Request<Incoming>| {
        let (routes, place) = (routes.clone(), there.clone());
        async move {
            place.has_head();
            let answer = routes.oneshot(request.map(|body| Coming::of(body, place.clone()))).await;
            place.waits(Step::Answered);
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(doors.bounds.head);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), answer));
    // Whatever ends a connection, its peer repeats what was not answered.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = ended.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
        // Its last answer may still be on the way.
        () = place.leave.cancelled() => if !place.is_receiving() {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LAST_ANSWER, connection).await;
        }
    }
}

/// Room for connections, and those that wait for a request.
struct Doors {
    bounds: Bounds,
    room: Arc<Semaphore>,
    /// By when their waits began: the one that has waited longest comes first.
    waiting: Mutex<BTreeMap<u64, CancellationToken>>,
    next: AtomicU64,
    /// One more waits.
    more: Notify,
}

impl Doors {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            room: Arc::new(Semaphore::new(bounds.connections)),
            waiting: Mutex::default(),
            next: AtomicU64::new(FIRST_NUMBER),
            more: Notify::new(),
        }
    }

    /// Room for one more connection, for which one that waits has to leave if there is none.
    async fn room(&self) -> OwnedSemaphorePermit {
        let mut is_one_leaving = false;
        loop {
            if let Ok(room) = self.room.clone().try_acquire_owned() {
                return room;
            }
            is_one_leaving = is_one_leaving || self.send_away();
            tokio::select! {
                room = self.room.clone().acquire_owned() => return room.expect("should never be closed"),
                () = self.more.notified(), if !is_one_leaving => {}
            }
        }
    }

    /// Asks the connection that has waited longest to leave. Returns whether there is one.
    fn send_away(&self) -> bool {
        let longest = self.waiting().pop_first();
        longest.inspect(|(_, leave)| leave.cancel()).is_some()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of a connection that has not waited yet, and that of the first one that waits.
const NO_NUMBER: u64 = 0;
const FIRST_NUMBER: u64 = 1;

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Its first request, or the body of a later one, is not there whole.
    Receiving,
    /// It has a request that is to be answered.
    Serving,
    /// It has its answer, and nothing more is known of it.
    Answered,
}

/// One connection among those that wait.
struct Place {
    doors: Arc<Doors>,
    /// When its wait began, and how far it is.
    state: Mutex<(u64, Step)>,
    leave: CancellationToken,
}

impl Place {
    fn new(doors: Arc<Doors>) -> Self {
        let state = Mutex::new((NO_NUMBER, Step::Receiving));
        let place = Self { doors, state, leave: CancellationToken::new() };
        place.waits(Step::Receiving);
        place
    }

    /// It waits, from now on.
    fn waits(&self, step: Step) {
        let mut state = self.state();
        let number = self.doors.next.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.doors.waiting();
        waiting.remove(&state.0);
        waiting.insert(number, self.leave.clone());
        *state = (number, step);
        self.doors.more.notify_one();
    }

    /// The head of a request is there: it waits on for the body.
    fn has_head(&self) {
        self.state().1 = Step::Receiving;
    }

    /// The body is there too, if nobody has answered before.
    fn has_body(&self) {
        let mut state = self.state();
        if state.1 == Step::Receiving {
            state.1 = Step::Serving;
            self.doors.waiting().remove(&state.0);
        }
    }

    fn is_receiving(&self) -> bool {
        self.state().1 == Step::Receiving
    }

    fn state(&self) -> MutexGuard<'_, (u64, Step)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = self.state().0;
        self.doors.waiting().remove(&number);
    }
}

/// The body of a request, which says when it has come whole.
struct Coming {
    body: Incoming,
    place: Arc<Place>,
}

impl Coming {
    fn of(body: Incoming, place: Arc<Place>) -> Self {
        if body.is_end_stream() {
            place.has_body();
        }
        Self { body, place }
    }
}

impl HttpBody for Coming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.place.has_body();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
