//! What goes wrong, for which requests. A list of rules goes in, the first that fits a request comes out. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One fault, and for which requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which requests.
    #[serde(default)]
    pub when: When,
    /// What happens to them.
    #[serde(default, rename = "do")]
    pub action: Action,
}

/// Which requests: those that fit everything that is given. Nothing given fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct When {
    /// To one of these chats, as the ledger or the provider has them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub chats: BTreeSet<String>,
    /// Of this Broadcast, as the ledger has it: `namespace/name`, or its uid where the format has no place for the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<String>,
    /// To this account, as in `POST /messages/{account}`: the sender's phone number, bot or account in other formats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Only the first so many of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// Only each so manieth of them: 3 is the third, the sixth, the ninth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_nth: Option<u64>,
}

/// What happens: a wait, and then a fault. Without a fault the message is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Map<String, Value>")]
pub struct Action {
    /// How long the answer waits.
    pub latency_ms: u64,
    /// What goes wrong.
    #[serde(flatten)]
    pub fault: Option<Fault>,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// The gateway says no, in its own words. Not accepted.
    Refuse(Refusal),
    /// 429, in the provider's own words where it has some. Not accepted.
    TooManyRequests(TooManyRequests),
    /// A 5xx of something on the way, or one of the provider that leaves open what became of the message. Not accepted.
    StatusBeforeAccept(u16),
    /// The same, but the message was accepted.
    StatusAfterAccept(u16),
    /// A 4xx that is the page of a proxy on the way, and not the provider's. Not accepted.
    ProxyPage(u16),
    /// The connection is cut without an answer. Not accepted.
    ResetBeforeAccept {},
    /// The same, but the message was accepted.
    ResetAfterAccept {},
    /// No answer until the client leaves. Not accepted.
    Hang {},
    /// The same, but the message was accepted.
    HangAfterAccept {},
    /// The client is sent elsewhere. Not accepted.
    Redirect(Redirect),
}

/// How the gateway says no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Refusal {
    /// Status of the answer, 400 to 599. Where the provider's code says which one it is, 400 stands for that.
    pub status: u16,
    /// The code in its body. Where the provider has numbers alone, another word stands for a chat that cannot be reached.
    pub code: String,
    /// The message in its body: with Telegram, the description.
    pub message: String,
    /// Whether the body says that the message may be sent again, where the format has a place for it.
    pub retryable: bool,
}

impl Default for Refusal {
    fn default() -> Self {
        Self { status: 400, code: "refused".into(), message: "refused by a fault".into(), retryable: false }
    }
}

/// How the gateway asks for patience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TooManyRequests {
    /// Seconds in `Retry-After`. Without them there is no such header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

/// Where the client is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    /// Status of the answer, 300 to 399.
    pub status: u16,
    /// The address. Without one it is the address of the request itself, so that a client that follows is seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { status: 307, location: None }
    }
}

/// A rule that cannot be followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// A count from 1 is 0.
    #[error("everyNth must be at least 1")]
    EveryZeroth,
    /// The status does not belong to the fault.
    #[error("{fault} takes a status from {lowest} to {highest}, not {status}")]
    Status {
        /// Name of the fault.
        fault: &'static str,
        /// First status that it takes.
        lowest: u16,
        /// Last status that it takes.
        highest: u16,
        /// What was given.
        status: u16,
    },
}

/// Fields other than `latencyMs` are one fault: two at once have no meaning, and a misspelt one is an error.
impl TryFrom<Map<String, Value>> for Action {
    type Error = serde_json::Error;

    fn try_from(mut fields: Map<String, Value>) -> Result<Self, serde_json::Error> {
        let latency = fields.remove("latencyMs").map(serde_json::from_value).transpose()?;
        let fault =
            if fields.is_empty() { None } else { Some(serde_json::from_value(Value::Object(fields))?) };
        Ok(Self { latency_ms: latency.unwrap_or_default(), fault })
    }
}

impl From<Fault> for Action {
    fn from(fault: Fault) -> Self {
        Self { latency_ms: 0, fault: Some(fault) }
    }
}

impl Fault {
    /// Whether a message with this fault is accepted all the same.
    #[must_use]
    pub fn accepts(&self) -> bool {
        matches!(self, Self::StatusAfterAccept(_) | Self::ResetAfterAccept {} | Self::HangAfterAccept {})
    }

    fn check(&self) -> Result<(), InvalidRule> {
        let (fault, lowest, highest, status) = match self {
            Self::Refuse(refusal) => ("refuse", 400, 599, refusal.status),
            Self::StatusBeforeAccept(status) => ("statusBeforeAccept", 500, 599, *status),
            Self::StatusAfterAccept(status) => ("statusAfterAccept", 500, 599, *status),
            Self::ProxyPage(status) => ("proxyPage", 400, 499, *status),
            Self::Redirect(redirect) => ("redirect", 300, 399, redirect.status),
            _ => return Ok(()),
        };
        if (lowest..=highest).contains(&status) {
            return Ok(());
        }
        Err(InvalidRule::Status { fault, lowest, highest, status })
    }
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) account: &'a str,
    pub(super) broadcast: &'a str,
    pub(super) chat: &'a str,
    /// The chat as the provider has it.
    pub(super) to: &'a str,
}

impl When {
    fn covers(&self, target: Target<'_>) -> bool {
        let fits =
            |wanted: &Option<String>, given: &str| wanted.as_ref().is_none_or(|wanted| wanted == given);
        fits(&self.broadcast, target.broadcast)
            && fits(&self.account, target.account)
            && (self.chats.is_empty()
                || [target.chat, target.to].iter().any(|chat| self.chats.contains(*chat)))
    }

    /// Whether the `number`th request that is covered is meant, counted from 1.
    fn means(&self, number: u64) -> bool {
        self.first.is_none_or(|first| number <= first)
            && self.every_nth.is_none_or(|nth| number.is_multiple_of(nth))
    }
}

/// The rules, and how many requests each has seen.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<(Rule, u64)>,
}

impl Faults {
    pub(super) fn new(rules: Vec<Rule>) -> Result<Self, InvalidRule> {
        for rule in &rules {
            if rule.when.every_nth == Some(0) {
                return Err(InvalidRule::EveryZeroth);
            }
            rule.action.fault.as_ref().map_or(Ok(()), Fault::check)?;
        }
        Ok(Self { rules: rules.into_iter().map(|rule| (rule, 0)).collect() })
    }

    pub(super) fn rules(&self) -> Vec<Rule> {
        self.rules.iter().map(|(rule, _)| rule.clone()).collect()
    }

    /// What happens to this request. Each rule that is asked counts it, up to the first that fits.
    pub(super) fn choose(&mut self, target: Target<'_>) -> Action {
        for (rule, seen) in &mut self.rules {
            if rule.when.covers(target) {
                *seen += 1;
                if rule.when.means(*seen) {
                    return rule.action.clone();
                }
            }
        }
        Action::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(json: Value) -> Faults {
        Faults::new(serde_json::from_value(json).expect("rules")).expect("should be valid rules")
    }

    fn status(faults: &mut Faults, broadcast: &str, chat: &str) -> u16 {
        match faults.choose(Target { account: "a", broadcast, chat, to: "" }).fault {
            Some(Fault::StatusBeforeAccept(status)) => status,
            None => 200,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_rule_that_fits_wins() {
        let mut faults = faults(json!([
            {"when": {"chats": ["1"], "broadcast": "shop/sale"}, "do": {"statusBeforeAccept": 501}},
            {"when": {"account": "b"}, "do": {"statusBeforeAccept": 502}},
            {"when": {"chats": ["1", "2"]}, "do": {"statusBeforeAccept": 503}},
        ]));
        assert_eq!(status(&mut faults, "shop/sale", "1"), 501);
        assert_eq!(status(&mut faults, "shop/other", "1"), 503);
        assert_eq!(status(&mut faults, "shop/sale", "2"), 503);
        assert_eq!(status(&mut faults, "shop/sale", "3"), 200);
    }

    #[test]
    fn a_rule_counts_only_requests_that_it_covers() {
        let mut faults = faults(json!([
            {"when": {"chats": ["1"], "first": 2}, "do": {"statusBeforeAccept": 501}},
            {"when": {"everyNth": 3}, "do": {"statusBeforeAccept": 503}},
        ]));
        let seen: Vec<u16> =
            ["2", "1", "1", "1", "2", "2"].map(|chat| status(&mut faults, "shop/sale", chat)).to_vec();
        assert_eq!(seen, [200, 501, 501, 200, 503, 200]);
    }

    #[test]
    fn rules_survive_their_json_form() {
        let rules = json!([
            {"when": {"chats": ["1"], "first": 2}, "do": {"latencyMs": 5, "resetAfterAccept": {}}},
            {"when": {}, "do": {"latencyMs": 0, "tooManyRequests": {"retryAfterSeconds": 3}}},
            {"when": {}, "do": {"latencyMs": 7}},
        ]);
        assert_eq!(serde_json::to_value(faults(rules.clone()).rules()).expect("json"), rules);
    }

    #[test]
    fn misspelt_and_impossible_rules_are_refused() {
        for rule in [
            json!({"when": {"chat": "1"}}),
            json!({"do": {"statusAfter": 503}}),
            json!({"do": {"hang": {}, "resetBeforeAccept": {}}}),
            json!({"do": {"refuse": {"statuscode": 400}}}),
        ] {
            assert!(serde_json::from_value::<Rule>(rule.clone()).is_err(), "{rule}");
        }
        let check = |rule: Value| Faults::new(vec![serde_json::from_value(rule).expect("rule")]).map(|_| ());
        assert_eq!(check(json!({"when": {"everyNth": 0}})), Err(InvalidRule::EveryZeroth));
        for action in [json!({"statusAfterAccept": 404}), json!({"redirect": {"status": 200}})] {
            assert!(matches!(check(json!({"do": action})), Err(InvalidRule::Status { .. })));
        }
    }
}
