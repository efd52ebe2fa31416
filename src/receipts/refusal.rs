//! Why receipts were not stored, and how the gateway is told. Nothing of a Secret, and nothing that helps to forge one.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::room::BODY_TIMEOUT;
use super::secrets::Untrusted;
use crate::domain::receipt::NoticeError;
use crate::metrics::DeferReason;

/// Seconds after which a gateway may try again what could not be stored.
const RETRY_AFTER: &str = "5";

/// Why receipts were not stored.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no room for more at the moment.
    #[error("too many receipts at once, send them again later")]
    Busy,
    /// The body did not arrive.
    #[error("the body took longer than {} s, or broke off", BODY_TIMEOUT.as_secs())]
    Incomplete,
    /// The body is too large.
    #[error("the body is larger than {0} bytes: send fewer receipts at once")]
    TooLarge(usize),
    /// Nobody knows yet whose the body is, and it costs more to find out than bodies of the provider do.
    #[error(transparent)]
    Excessive(NoticeError),
    /// There is no such channel.
    #[error("there is no BroadcastChannel with this name in this namespace")]
    NoChannel,
    /// It does not come from the channel's gateway.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The handshake that sets a webhook up names another token.
    #[error("this is no handshake of a webhook, or its hub.verify_token is not that of the channel")]
    WrongToken,
    /// It is no list of receipts, or too long a one.
    #[error(transparent)]
    Malformed(#[from] NoticeError),
    /// The ledger did not take them.
    #[error("failed to store the receipts, send them again")]
    NotStored(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answers to their sends are still on their way.
    #[error("some messages are not known yet, send these receipts again")]
    TooEarly,
}

impl Refusal {
    /// Why the same request may be taken later.
    pub fn deferred(&self) -> Option<DeferReason> {
        match self {
            Self::Busy => Some(DeferReason::Busy),
            Self::Untrusted(Untrusted::Unusable) => Some(DeferReason::Secret),
            Self::NotStored(_) => Some(DeferReason::NotStored),
            Self::TooEarly => Some(DeferReason::TooEarly),
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            refusal if refusal.deferred().is_some() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Incomplete => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) | Self::Excessive(_) | Self::Malformed(NoticeError::TooMany) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::NoChannel => StatusCode::NOT_FOUND,
            Self::Untrusted(Untrusted::NotConfigured(_)) | Self::WrongToken => StatusCode::FORBIDDEN,
            Self::Untrusted(_) => StatusCode::UNAUTHORIZED,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Busy | Self::NotStored(_) | Self::TooEarly => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = axum::Json(serde_json::json!({ "error": { "message": self.to_string() } }));
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                (status, [(header::RETRY_AFTER, RETRY_AFTER)], body).into_response()
            }
            _ => (status, body).into_response(),
        }
    }
}
