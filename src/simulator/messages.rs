//! `POST /messages`: reads a request, lets the desk decide, and answers as decided.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};

use super::desk::{Message, Reply, Request};
use super::gateway::Gateway;
use super::line::Line;
use crate::clock;

pub(super) fn routes() -> Router<Arc<Gateway>> {
    Router::new().route("/messages", post(send)).route("/messages/{account}", post(send))
}

async fn send(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(line): ConnectInfo<Line>,
    account: Option<Path<String>>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let message = read_message(body);
    let request = Request {
        account: account.map(|Path(account)| account).unwrap_or_default(),
        path: uri.path().to_owned(),
        bearer: header(&headers, &AUTHORIZATION)
            .and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned)),
        key: header(&headers, &HeaderName::from_static("idempotency-key")).map(str::to_owned),
        broadcast: message.as_ref().map(Message::broadcast).unwrap_or_default(),
        message,
    };
    let decision = gateway.decide(&request);
    let in_flight = InFlight { gateway: &gateway, sequence: decision.sequence, is_answered: false };
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
    respond(decision.reply, &line)
}

fn read_message(body: Result<Bytes, BytesRejection>) -> Result<Message, String> {
    let body = body.map_err(|error| error.body_text())?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn respond(reply: Reply, line: &Line) -> Response {
    let plain = [(CONTENT_TYPE, "text/plain")];
    match reply {
        Reply::Json(status, body) => (code(status), Json(body)).into_response(),
        Reply::TooManyRequests(Some(seconds)) => {
            (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds.to_string())]).into_response()
        }
        Reply::TooManyRequests(None) => StatusCode::TOO_MANY_REQUESTS.into_response(),
        Reply::Plain(status) => (code(status), plain, "upstream error\n").into_response(),
        Reply::Redirect(status, location) => (code(status), [(LOCATION, location)]).into_response(),
        Reply::Cut | Reply::Hang => {
            line.cut();
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("should be a status: faults are checked when they are set")
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
