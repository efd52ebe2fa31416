//! Posts requests over connections that stay open. In: requests, and at what pace. Out: how long each answer took.
//!
//! It writes HTTP by hand: it shares the machine with what it measures, and must take little of it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broadcast_operator::clock;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};

/// What an answer begins with when the receipt is stored.
const STORED: &[u8] = b"HTTP/1.1 204";
/// Larger than any answer.
const MOST_BYTES: usize = 4096;

/// A request, and when it should go out.
pub struct Due {
    pub request: Vec<u8>,
    pub at: Instant,
}

/// Waits until a moment, to the millisecond: timers do not wait for less, and a thousand such waits would be a second.
pub async fn wait_until(at: Instant) {
    let left = at.saturating_duration_since(clock::monotonic());
    if left >= Duration::from_millis(1) {
        clock::wait(left).await;
    }
}

/// How requests were answered.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// From when each should have gone out to its answer.
    pub times: Vec<Duration>,
    /// When each was there.
    pub moments: Vec<Instant>,
    /// Those that were not answered 204.
    pub refused: usize,
    /// From the first request to the last answer.
    pub took: Duration,
}

impl Answers {
    /// The time that this part of all answers did not take longer than.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times
            .get((times.len() * percent / 100).min(times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    /// How many there are.
    pub fn number(&self) -> f64 {
        number(self.times.len())
    }

    pub fn per_second(&self) -> f64 {
        self.number() / self.took.as_secs_f64()
    }

    /// How many there were in a second, of a part of the time.
    pub fn per_second_in(&self, part: &Range<Instant>) -> f64 {
        let answers = self.moments.iter().filter(|moment| part.contains(*moment)).count();
        number(answers) / part.end.duration_since(part.start).as_secs_f64()
    }
}

/// A count, to calculate with.
pub fn number(of: usize) -> f64 {
    f64::from(u32::try_from(of).expect("should be a million at most"))
}

/// Posts all of them, so many at a time, each as soon as a connection is free. `next` makes the request of a number, or `None` after
/// the last.
pub async fn post_in_parallel(
    address: &str,
    connections: usize,
    next: impl Fn(usize) -> Option<Vec<u8>>,
) -> Answers {
    let (next, number) = (&next, &AtomicUsize::new(0));
    let started = clock::monotonic();
    let workers = (0..connections).map(|_| async move {
        let mut connection = Connection::open(address).await;
        let mut answers = Answers::default();
        while let Some(request) = next(number.fetch_add(1, Ordering::Relaxed)) {
            let at = clock::monotonic();
            connection.post(&Due { request, at }, &mut answers).await;
        }
        answers
    });
    all_of(join_all(workers).await, started)
}

/// Posts each when it is due, over as many connections as it takes, at most `connections`.
pub async fn post_when_due(address: String, connections: usize, due: mpsc::Receiver<Due>) -> Answers {
    let (address, due) = (&address, &Mutex::new(due));
    let started = clock::monotonic();
    let workers = (0..connections).map(|_| async move {
        let (mut connection, mut answers) = (None, Answers::default());
        loop {
            // Whoever is free waits here for the next one.
            let next = due.lock().await.recv().await;
            let Some(next) = next else { return answers };
            if connection.is_none() {
                connection = Some(Connection::open(address).await);
            }
            connection.as_mut().expect("should be open").post(&next, &mut answers).await;
        }
    });
    all_of(join_all(workers).await, started)
}

fn all_of(workers: Vec<Answers>, started: Instant) -> Answers {
    let mut all = Answers::default();
    for answers in workers {
        all.times.extend(answers.times);
        all.moments.extend(answers.moments);
        all.refused += answers.refused;
    }
    all.took = started.elapsed();
    all
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("should reach the operator");
        stream.set_nodelay(true).expect("should be a socket");
        Self { stream, buffer: vec![0; MOST_BYTES] }
    }

    async fn post(&mut self, due: &Due, answers: &mut Answers) {
        self.stream.write_all(&due.request).await.expect("should send a request");
        let mut read = 0;
        while !is_whole(&self.buffer[..read]) {
            let more = self.stream.read(&mut self.buffer[read..]).await.expect("should read an answer");
            assert!(more > 0, "the connection ended");
            read += more;
        }
        let moment = clock::monotonic();
        answers.times.push(moment.saturating_duration_since(due.at));
        answers.moments.push(moment);
        answers.refused += usize::from(!self.buffer.starts_with(STORED));
    }
}

/// Whether an answer is there with its body. One without a length has none.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}
