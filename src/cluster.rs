//! Calls to the API server: a client that never repeats a write by itself, and a bound on every call.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use kube::api::{ListParams, Preconditions};
use kube::core::Status;
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;

/// Longest wait for one call. The API server ends most requests after 60 s by itself; a status write takes
/// milliseconds, so ten seconds without an answer is a lost answer.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A call to the API server that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It answered with an error, or could not be reached.
    #[error("the API server call failed: {0}")]
    Call(#[source] Box<kube::Error>),
    /// It did not answer in time.
    #[error("the API server did not answer within {} s", CALL_TIMEOUT.as_secs())]
    TimedOut,
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        Self::Call(Box::new(error))
    }
}

impl ApiError {
    /// The answer of the API server, where there was one.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Call(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::TimedOut => None,
        }
    }

    /// The object has changed since it was read.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409 && status.reason != "AlreadyExists")
    }

    /// An object of this name is there already.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|status| status.reason == "AlreadyExists")
    }

    /// There is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404 && names_object(status))
    }

    /// There is no such kind, as before the CRDs are installed, while they are replaced, and for a moment after the API
    /// server has started. It says nothing about any object.
    #[must_use]
    pub fn is_unknown_kind(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404 && !names_object(status))
    }

    /// The operator lacks a right.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.status().is_some_and(|status| status.code == 403)
    }

    /// A write that ended so may have been stored or not. Only an answer that names a reason why nothing was stored is
    /// certain.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.status().is_none_or(|status| !matches!(status.code, 400..=499))
    }

    /// Whether the same call may succeed later without anybody's help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.is_ambiguous()
            || self.is_unknown_kind()
            || self.status().is_some_and(|status| status.code == 429)
    }

    /// The same call is refused again until somebody changes something: what it asks for is too large, not allowed, or an admission
    /// webhook does not let it through.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let is_final = self.status().is_some_and(|status| (400..=499).contains(&status.code));
        is_final
            && !self.is_conflict()
            && !self.is_already_exists()
            && !self.is_not_found()
            && !self.is_temporary()
    }

    /// One word for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self.status().map(|status| status.code) {
            Some(404) => "NotFound",
            Some(409) => "Conflict",
            Some(403) => "Forbidden",
            Some(422 | 400) => "Invalid",
            Some(413) => "TooLarge",
            Some(429) => "TooManyRequests",
            Some(_) => "ServerError",
            None => "NoAnswer",
        }
    }
}

/// An object that is not there is named in the answer; a path that is not served is all that the other kind of 404 speaks of.
fn names_object(status: &Status) -> bool {
    status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

/// Waits for one call, but not for ever.
pub async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
    within_time(CALL_TIMEOUT, call).await
}

/// What a list holds, asked for in the parts that `params` say and all of one moment.
pub async fn list_all<K>(api: &Api<K>, params: ListParams) -> Result<Vec<K>, ApiError>
where
    K: Clone + Debug + DeserializeOwned,
{
    list_some(api, params, usize::MAX).await.map(|(found, _)| found)
}

/// The same as far as `most` objects, and what is left of the last part. Out: also the token with which the list goes on, if it does.
pub async fn list_some<K>(
    api: &Api<K>,
    mut params: ListParams,
    most: usize,
) -> Result<(Vec<K>, Option<String>), ApiError>
where
    K: Clone + Debug + DeserializeOwned,
{
    let mut found = Vec::new();
    loop {
        let list = within(api.list(&params)).await?;
        found.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) if found.len() < most => params = params.continue_token(&token),
            next => return Ok((found, next)),
        }
    }
}

/// Waits for one call, so long at most.
pub async fn within_time<T>(
    bound: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(bound, call).await {
        Ok(answer) => answer.map_err(ApiError::from),
        Err(_) => Err(ApiError::TimedOut),
    }
}

/// Deletes an object only if it is still the very one that was seen, in the version that was seen.
#[must_use]
pub fn as_seen(object: &impl ResourceExt) -> Preconditions {
    Preconditions { uid: object.uid(), resource_version: object.resource_version() }
}

/// An error with its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let next = inner.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_found(body: &str) -> ApiError {
        let status: Status = serde_json::from_str(body).expect("a status");
        ApiError::from(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn what_is_refused_for_good_is_told_from_what_may_be_taken_later() {
        let answer = |code: u16, reason: &str| {
            not_found(&format!(
                r#"{{"status": "Failure", "reason": "{reason}", "code": {code}, "details": {{"name": "sale-00000"}}}}"#
            ))
        };
        for (code, reason, is_refused) in [
            (413, "RequestEntityTooLarge", true),
            (403, "Forbidden", true),
            (422, "Invalid", true),
            (400, "", true),
            (404, "NotFound", false),
            (409, "Conflict", false),
            (409, "AlreadyExists", false),
            (429, "TooManyRequests", false),
            (500, "InternalError", false),
            (504, "Timeout", false),
        ] {
            assert_eq!(answer(code, reason).is_refused(), is_refused, "{code} {reason}");
        }
        assert!(!ApiError::TimedOut.is_refused());
    }

    #[test]
    fn an_object_is_gone_only_when_the_answer_names_it() {
        let gone = not_found(
            r#"{"status": "Failure", "reason": "NotFound", "code": 404, "details": {"name": "sale-00000", "kind": "broadcastbatches"}}"#,
        );
        assert!(gone.is_not_found() && !gone.is_unknown_kind() && !gone.is_temporary());
        let unserved = not_found(r#"{"status": "Failure", "message": "404 page not found", "code": 404}"#);
        assert!(!unserved.is_not_found() && unserved.is_unknown_kind() && unserved.is_temporary());
    }
}
