//! How much of its calls an account has used, as headers of Meta's answers say it. Pure.
//!
//! `x-app-usage` is one object, of the app; `x-business-use-case-usage` has a list of them for each account. Their figures are percent.

use std::time::Duration;

use serde_json::Value;

use crate::providers::wire::WireAnswer;

const ACCOUNTS_HEADER: &str = "x-business-use-case-usage";
const APP_HEADER: &str = "x-app-usage";
/// What is counted. Whichever comes to 100 closes the account.
const FIGURES: [&str; 3] = ["call_count", "total_cputime", "total_time"];
/// From this percentage on it is time to slow down.
const NEAR_LIMIT: f64 = 95.0;

/// Whether so much of any limit is used that more at this speed would soon be refused.
pub(super) fn is_near_limit(answer: &WireAnswer<'_>) -> bool {
    let accounts = read(answer, ACCOUNTS_HEADER);
    let app = read(answer, APP_HEADER);
    let is_near = |usage: &Value| {
        FIGURES.iter().any(|figure| usage[figure].as_f64().is_some_and(|percent| percent >= NEAR_LIMIT))
    };
    app.as_ref().is_some_and(is_near) || accounts.iter().flat_map(uses).any(is_near)
}

/// The longest `estimated_time_to_regain_access`, which is in minutes, of all uses of all accounts.
pub(super) fn wait(answer: &WireAnswer<'_>) -> Option<Duration> {
    let accounts = read(answer, ACCOUNTS_HEADER)?;
    let minutes =
        uses(&accounts).filter_map(|usage| usage["estimated_time_to_regain_access"].as_u64()).max()?;
    (minutes > 0).then(|| Duration::from_secs(minutes.saturating_mul(60)))
}

fn read(answer: &WireAnswer<'_>, header: &str) -> Option<Value> {
    serde_json::from_str(answer.headers.get(header)?.to_str().ok()?).ok()
}

fn uses(accounts: &Value) -> impl Iterator<Item = &Value> {
    accounts
        .as_object()
        .into_iter()
        .flat_map(|accounts| accounts.values())
        .filter_map(Value::as_array)
        .flatten()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use jiff::Timestamp;

    use super::*;

    fn is_near(headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers: HeaderMap = headers.collect();
        let answer = WireAnswer { status: 200, headers: &headers, body: b"", now: Timestamp::UNIX_EPOCH };
        is_near_limit(&answer)
    }

    #[test]
    fn the_highest_figure_of_any_limit_counts() {
        for (header, value, expected) in [
            (APP_HEADER, r#"{"call_count":94,"total_time":1,"total_cputime":94.9}"#, false),
            (APP_HEADER, r#"{"call_count":1,"total_time":1,"total_cputime":95}"#, true),
            (
                ACCOUNTS_HEADER,
                r#"{"1":[{"type":"messaging","call_count":94}],"2":[{"total_time":3}]}"#,
                false,
            ),
            (
                ACCOUNTS_HEADER,
                r#"{"1":[{"type":"messaging","call_count":9}],"2":[{"total_time":100}]}"#,
                true,
            ),
            // Minutes are no percentage.
            (ACCOUNTS_HEADER, r#"{"1":[{"call_count":9,"estimated_time_to_regain_access":100}]}"#, false),
            (APP_HEADER, "full", false),
            (APP_HEADER, "[100]", false),
            (ACCOUNTS_HEADER, r#"{"1":100,"2":[100]}"#, false),
        ] {
            assert_eq!(is_near(&[(header, value)]), expected, "{header}: {value}");
        }
        assert!(!is_near(&[]));
        assert!(is_near(&[(ACCOUNTS_HEADER, "{}"), (APP_HEADER, r#"{"call_count":97}"#)]));
    }
}
