use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;

/// Far longer than anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);
const HALF_A_BODY: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18\r\n\r\nbegin ";
const HALF_A_HEAD: &[u8] = b"POST /held HTTP/1.1\r\nhost: a\r\nwebhook-i";

/// A server whose `/held` answers when it is let go, and says when it has begun.
struct Server {
    address: SocketAddr,
    begun: Arc<Semaphore>,
    let_go: Arc<Semaphore>,
    ended: CancellationToken,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start(connections: usize, head: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (begun, let_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (says, waits) = (begun.clone(), let_go.clone());
        let held = move || async move {
            says.add_permits(1);
            waits.acquire().await.expect("never closed").forget();
            "held"
        };
        let read = async |body: String| body;
        let routes =
            Router::new().route("/", get(|| async { "at once" }).post(read)).route("/held", get(held));
        let ended = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, routes, Bounds { connections, head }, ended.clone()));
        Self { address, begun, let_go, ended, serving }
    }

    async fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).await.expect("a connection");
        connection.write_all(bytes).await.expect("should write");
        connection
    }

    /// A connection on which a request has begun that is held.
    async fn hold(&self) -> TcpStream {
        let connection = self.connect(&request("/held")).await;
        in_time(self.begun.acquire()).await.expect("never closed").forget();
        connection
    }

    async fn end(self) {
        self.ended.cancel();
        in_time(self.serving).await.expect("no panic");
    }
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes()
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("should not take so long")
}

/// Reads until the text is there.
async fn answered(connection: &mut TcpStream, text: &str) {
    let mut answer = Vec::new();
    while !answer.ends_with(text.as_bytes()) {
        let read = in_time(connection.read_buf(&mut answer)).await.expect("should read");
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
    }
}

/// Waits until the server has closed a connection.
async fn closed(connection: &mut TcpStream) {
    let mut rest = Vec::new();
    // It may be reset, where something was not read.
    let _ = in_time(connection.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn who_does_not_finish_a_head_or_asks_for_nothing_more_is_disconnected() {
    let server = Server::start(8, SHORT).await;
    closed(&mut server.connect(HALF_A_HEAD).await).await;
    closed(&mut server.connect(b"").await).await;
    let mut idle = server.connect(&request("/")).await;
    answered(&mut idle, "at once").await;
    closed(&mut idle).await;
    server.end().await;
}

#[tokio::test]
async fn more_half_requests_than_connections_keep_nobody_out() {
    for half in [HALF_A_HEAD, HALF_A_BODY] {
        let server = Server::start(4, PATIENCE * 10).await;
        let mut halves = Vec::new();
        for _ in 0..12 {
            halves.push(server.connect(half).await);
        }
        for _ in 0..3 {
            let mut other = server.connect(&request("/")).await;
            answered(&mut other, "at once").await;
        }
        for half in &mut halves[..8] {
            closed(half).await;
        }
        drop(halves);
        server.end().await;
    }
}

#[tokio::test]
async fn a_body_that_comes_in_two_halves_is_read_and_the_connection_used_again() {
    let server = Server::start(1, PATIENCE * 10).await;
    let mut connection = server.connect(HALF_A_BODY).await;
    connection.write_all(b"and the rest").await.expect("should write");
    answered(&mut connection, "begin and the rest").await;
    connection.write_all(&request("/")).await.expect("should write");
    answered(&mut connection, "at once").await;
    // Now it waits, and makes room.
    let mut other = server.connect(&request("/")).await;
    answered(&mut other, "at once").await;
    closed(&mut connection).await;
    server.end().await;
}

#[tokio::test]
async fn a_request_that_was_begun_is_answered_before_its_connection_makes_room() {
    let server = Server::start(2, PATIENCE * 10).await;
    let mut held = [server.hold().await, server.hold().await];
    let mut third = server.connect(&request("/")).await;
    server.let_go.add_permits(1);
    answered(&mut third, "at once").await;
    server.let_go.add_permits(1);
    for connection in &mut held {
        answered(connection, "held").await;
    }
    server.end().await;
}

#[tokio::test]
async fn what_was_begun_is_answered_at_the_end_and_nothing_else_begins() {
    let server = Server::start(8, PATIENCE * 10).await;
    let mut idle = server.connect(&request("/")).await;
    answered(&mut idle, "at once").await;
    let mut held = server.hold().await;
    server.ended.cancel();
    closed(&mut idle).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    server.let_go.add_permits(1);
    answered(&mut held, "held").await;
    closed(&mut held).await;
    server.end().await;
}
