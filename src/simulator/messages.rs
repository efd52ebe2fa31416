//! Messages and what else providers are asked: reads a request, lets the desk decide, and answers as decided.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::desk::{Reply, Request};
use super::gateway::Gateway;
use super::line::Line;
use super::wire::{Answer, Call, Incoming, Verb, route};
use crate::clock;

type ReadBody = Result<Bytes, BytesRejection>;

pub(super) fn routes() -> Router<Arc<Gateway>> {
    Router::new().route("/messages", post(send)).route("/messages/{account}", post(send)).fallback(call)
}

/// A message in the `HTTP` channel's own format.
async fn send(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(line): ConnectInfo<Line>,
    account: Option<Path<String>>,
    uri: Uri,
    headers: HeaderMap,
    body: ReadBody,
) -> Response {
    let call = Call::http(account.map(|Path(account)| account).unwrap_or_default());
    answer(&gateway, &line, &call, &incoming(uri.path(), &headers, &body)).await
}

/// Anything in the format of a provider.
async fn call(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(line): ConnectInfo<Line>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: ReadBody,
) -> Response {
    let Some(call) = route(&method, uri.path()) else { return respond(Answer::not_found()) };
    answer(&gateway, &line, &call, &incoming(uri.path(), &headers, &body)).await
}

fn incoming<'a>(path: &'a str, headers: &'a HeaderMap, body: &'a ReadBody) -> Incoming<'a> {
    let body = body.as_ref().map(|body| &body[..]).map_err(BytesRejection::body_text);
    Incoming { path, headers, body }
}

async fn answer(gateway: &Gateway, line: &Line, call: &Call, incoming: &Incoming<'_>) -> Response {
    match call.verb {
        Verb::Send(_) => decide(gateway, line, &call.format.read(call, incoming)).await,
        Verb::Probe | Verb::Status(_) => {
            let credential = call.format.credential(call, incoming);
            respond(gateway.inform(call, credential.as_deref()))
        }
    }
}

async fn decide(gateway: &Gateway, line: &Line, request: &Request) -> Response {
    let decision = gateway.decide(request);
    let in_flight = InFlight { gateway, sequence: decision.sequence, is_answered: false };
    // Whoever stops the simulator does not wait for those who wait here.
    if let Some(receipt) = decision.accepted.as_ref().and_then(|message| gateway.courier.take_on(message)) {
        gateway.stop.run_until_cancelled(receipt).await;
    }
    if !decision.latency.is_zero() {
        gateway.stop.run_until_cancelled(clock::wait(decision.latency)).await;
    }
    if decision.reply == Reply::Hang {
        gateway.stop.cancelled().await;
    }
    in_flight.answer();
    match decision.reply {
        Reply::Answer(answer) => respond(answer),
        Reply::Cut | Reply::Hang => {
            line.cut();
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn respond(Answer { status, content_type, headers, body }: Answer) -> Response {
    let mut response = Response::builder().status(status);
    if !content_type.is_empty() {
        response = response.header(CONTENT_TYPE, content_type);
    }
    for (name, value) in headers {
        response = response.header(name, value);
    }
    // What a fault says may be no header.
    response
        .body(Body::from(body))
        .unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response())
}

/// A request without an answer. When the client leaves, the server drops it together with the request.
struct InFlight<'a> {
    gateway: &'a Gateway,
    sequence: u64,
    is_answered: bool,
}

impl InFlight<'_> {
    fn answer(mut self) {
        self.is_answered = true;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.gateway.complete(self.sequence, !self.is_answered);
    }
}
