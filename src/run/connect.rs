//! The client of the cluster: it repeats nothing by itself, and every request is counted.

use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::{BoxError, Layer, Service};

use super::RunError;
use crate::metrics::Metrics;
use crate::observed::WATCH_SECONDS;

/// How the cluster is called: nothing is repeated by itself, because a write whose answer was lost may have been stored,
/// and a connection that is dead without having been closed is noticed.
#[must_use]
pub fn configured(mut config: Config) -> Config {
    config.default_retry = false;
    // A quiet watch is ended by the API server and begun anew; a connection that stays silent longer than that is dead.
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 15));
    config
}

/// A client whose requests are counted.
pub(super) fn counted(config: Config, metrics: &Metrics) -> Result<Client, RunError> {
    let builder = ClientBuilder::try_from(config).map_err(RunError::Client)?;
    Ok(builder.with_layer(&CountRequests(metrics.clone())).build())
}

/// Counts every request to the API server by its answer.
#[derive(Clone)]
struct CountRequests(Metrics);

impl<S> Layer<S> for CountRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: self.0.clone() }
    }
}

#[derive(Clone)]
struct Counted<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (metrics, method) = (self.metrics.clone(), request.method().clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            metrics.requested(&method, answer.as_ref().ok().map(|answer| answer.status().as_u16()));
            answer
        })
    }
}
