//! The layer in the client of an operator.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body as Answer;
use broadcast_operator::clock;
use futures::FutureExt;
use futures::future::{BoxFuture, pending};
use http::{Request, Response, StatusCode, Uri, header};
use kube::client::{Body, DynBody};
use serde_json::{Value, json};
use tower::{BoxError, Layer, Service};

use super::name::{Call, name_of};
use super::{Fault, Life, Tap, body};

/// The tap in the client of one process.
#[derive(Clone)]
pub struct TapLayer {
    pub tap: Tap,
    pub life: Arc<Life>,
    /// Number of the process.
    pub process: usize,
}

impl<S> Layer<S> for TapLayer {
    type Service = Tapped<S>;

    fn layer(&self, inner: S) -> Tapped<S> {
        Tapped { inner, line: self.clone() }
    }
}

pub struct Tapped<S> {
    inner: S,
    line: TapLayer,
}

impl<S> Service<Request<Body>> for Tapped<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Answer>, BoxError>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if self.line.life.is_over() {
            return Box::pin(pending());
        }
        let sent = body_of(request.body());
        let call = name_of(request.method(), request.uri(), &sent);
        let (number, fault) = self.line.tap.begin(&call, self.line.process);
        if call.name == "POST-leases-replica" {
            self.line.tap.replica(&sent, self.line.process);
        }
        if let Some(fault) = &fault {
            tracing::info!(target: "matrix", request = call.name, ?fault, "fault");
        }
        if let Some(Fault::ListAt(write)) = &fault
            && let Some(version) = self.line.tap.version_of(write)
        {
            at_version(request.uri_mut(), version);
            self.line.tap.shows_the_past();
        }
        // Nothing leaves before this is polled.
        let answer = self.inner.call(request);
        let answer = async move { answer.await.map(|answer| answer.map(Answer::new)) };
        let turn = Turn { line: self.line.clone(), call, number, sent };
        Box::pin(turn.take(fault, answer))
    }
}

/// One request on its way.
struct Turn {
    line: TapLayer,
    call: Call,
    number: usize,
    sent: Vec<u8>,
}

impl Turn {
    async fn take(
        self,
        fault: Option<Fault>,
        answer: impl Future<Output = Result<Response<Answer>, BoxError>>,
    ) -> Result<Response<Answer>, BoxError> {
        match &fault {
            Some(Fault::DieBefore) => return self.die().await,
            Some(Fault::Answer(code)) => return Ok(refusal(*code)),
            Some(Fault::Panic) => panic!("a fault of the matrix at {}", self.call.name),
            Some(Fault::HoldBefore(gate)) => gate.pass().await,
            Some(Fault::FreezeBefore(gate)) => gate.freeze(),
            _ => {}
        }
        if self.line.life.is_over() {
            return pending().await;
        }
        if self.call.kind == "broadcastbatches" && self.call.is_write {
            self.line.tap.page(&self.sent, self.line.process, None);
        }
        let answer = match &fault {
            Some(Fault::Unsent) => return self.wait_in_vain().await,
            _ => self.landed(answer.await?).await?,
        };
        match fault {
            Some(Fault::DieAfter) => self.die().await,
            Some(Fault::LandsThenTimeout) => Ok(refusal(504)),
            Some(Fault::LandsThenReset) => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            Some(Fault::LandsThenNothing) => self.wait_in_vain().await,
            Some(Fault::HoldAfter(gate)) => {
                gate.pass().await;
                Ok(answer)
            }
            Some(Fault::FreezeAfter(gate)) => {
                gate.freeze();
                Ok(answer)
            }
            fault if self.call.is_watch => {
                let is_late = matches!(fault, Some(Fault::LateStream));
                let (line, kind) = (self.line.clone(), self.call.kind.clone());
                Ok(answer.map(|stream| body::watched(stream, line, kind, is_late)))
            }
            _ => Ok(answer),
        }
    }

    /// The process ends here: whatever it asked for, it never hears of it.
    async fn die(self) -> Result<Response<Answer>, BoxError> {
        self.line.life.end();
        pending().await
    }

    async fn wait_in_vain(self) -> Result<Response<Answer>, BoxError> {
        let _hanging = self.line.tap.hang();
        pending().await
    }

    /// Takes in the answer. That of a write is read whole, for the version that it made.
    async fn landed(&self, answer: Response<Answer>) -> Result<Response<Answer>, BoxError> {
        let status = answer.status();
        if !self.call.is_write && !self.call.is_watch && self.line.tap.garbles() {
            self.line.tap.answered(self.number, status.as_u16(), None);
            let (head, body) = answer.into_parts();
            let bytes = axum::body::to_bytes(body, usize::MAX).await?;
            return Ok(Response::from_parts(head, Answer::from(self.line.tap.garbled_list(&bytes))));
        }
        if !self.call.is_write {
            self.line.tap.answered(self.number, status.as_u16(), None);
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await?;
        if status.is_success() && self.call.kind == "broadcastbatches" {
            self.line.tap.page(&self.sent, self.line.process, Some(clock::monotonic()));
        }
        self.line.tap.answered(self.number, status.as_u16(), version_in(&bytes));
        Ok(Response::from_parts(head, Answer::from(bytes)))
    }
}

fn version_in(bytes: &[u8]) -> Option<u64> {
    let object: Value = serde_json::from_slice(bytes).ok()?;
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// A copy of a body. Bodies of calls to the API server are there whole.
fn body_of(body: &Body) -> Vec<u8> {
    let collected = body.try_clone().and_then(|copy| copy.collect_bytes().now_or_never());
    collected.and_then(Result::ok).map(|bytes| bytes.to_vec()).unwrap_or_default()
}

fn at_version(uri: &mut Uri, version: u64) {
    let kept = uri.query().unwrap_or_default().split('&').filter(|part| !part.starts_with("resourceVersion"));
    let query: Vec<&str> = kept.filter(|part| !part.is_empty()).collect();
    let text =
        format!("{}?{}&resourceVersion={version}&resourceVersionMatch=Exact", uri.path(), query.join("&"));
    *uri = text.parse().expect("should still be a URI");
}

/// The answer of an API server that does not do it.
pub fn refusal(code: u16) -> Response<Answer> {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        413 => "RequestEntityTooLarge",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a fault of the matrix", "reason": reason, "code": code,
    });
    let mut answer = Response::new(Answer::from(status.to_string()));
    *answer.status_mut() = StatusCode::from_u16(code).expect("should be a status");
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if code == 429 {
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    answer
}
