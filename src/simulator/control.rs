//! `/simulator/…`: what a test asks, and how it changes the simulator while it runs.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::entry::{Entry, SendQuery};
use super::faults::Rule;
use super::gateway::{Gateway, Ledger, Summary};
use super::settings::ReceiptSettings;
use super::wire::Format;

pub(super) fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/simulator/sends", get(sends))
        .route("/simulator/summary", get(summary))
        .route("/simulator/ledger", delete(delete_ledger))
        .route("/simulator/faults", get(faults).put(put_faults))
        .route("/simulator/token", put(put_token))
        .route("/simulator/receipts", put(put_receipts))
        .route("/simulator/receipts/hold", post(hold))
        .route("/simulator/receipts/release", post(release))
}

/// A control request that makes no sense. The text says why.
struct Nonsense(String);

impl IntoResponse for Nonsense {
    fn into_response(self) -> Response {
        let error = json!({"error": {"code": "invalid_request", "message": self.0, "retryable": false}});
        (StatusCode::BAD_REQUEST, Json(error)).into_response()
    }
}

type Change = Result<StatusCode, Nonsense>;

/// `{"token": "…"}`, or `{"token": null}` to look at none; of one format, or of all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSetting {
    token: Option<String>,
    #[serde(default)]
    format: Option<Format>,
}

async fn sends(
    State(gateway): State<Arc<Gateway>>,
    query: Result<Query<SendQuery>, QueryRejection>,
) -> Result<Json<Vec<Entry>>, Nonsense> {
    let Query(query) = query.map_err(|error| Nonsense(error.body_text()))?;
    Ok(Json(Ledger(gateway).sends(&query)))
}

async fn summary(State(gateway): State<Arc<Gateway>>) -> Json<Summary> {
    Json(gateway.summary())
}

async fn delete_ledger(State(gateway): State<Arc<Gateway>>) -> StatusCode {
    Ledger(gateway).delete();
    StatusCode::NO_CONTENT
}

async fn faults(State(gateway): State<Arc<Gateway>>) -> Json<Vec<Rule>> {
    Json(gateway.desk().faults.rules())
}

async fn put_faults(State(gateway): State<Arc<Gateway>>, body: Bytes) -> Change {
    gateway.set_faults(read(&body)?).map_err(|error| Nonsense(error.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn put_token(State(gateway): State<Arc<Gateway>>, body: Bytes) -> Change {
    let TokenSetting { token, format } = read(&body)?;
    gateway.set_token(format, token);
    Ok(StatusCode::NO_CONTENT)
}

/// `null` ends receipts.
async fn put_receipts(State(gateway): State<Arc<Gateway>>, body: Bytes) -> Change {
    let settings: Option<ReceiptSettings> = read(&body)?;
    gateway.set_receipts(settings).map_err(|error| Nonsense(error.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn hold(State(gateway): State<Arc<Gateway>>) -> StatusCode {
    gateway.courier.hold(true);
    StatusCode::NO_CONTENT
}

async fn release(State(gateway): State<Arc<Gateway>>) -> StatusCode {
    gateway.courier.hold(false);
    StatusCode::NO_CONTENT
}

/// Reads JSON whatever the content type says, so that a bare `curl -d` will do.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Nonsense> {
    serde_json::from_slice(body).map_err(|error| Nonsense(error.to_string()))
}
