//! Rules of fields that the API server checks.

use serde_json::{Value, json};

/// `x-kubernetes-validations` of a text that must match `pattern`; where it does not, `message` says what it should be. A `pattern` of the
/// schema would show itself instead.
pub(super) fn must_match(pattern: &str, message: &str) -> Value {
    json!([{"rule": format!("self.matches(r'{pattern}')"), "message": message}])
}
