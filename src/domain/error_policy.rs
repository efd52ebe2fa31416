//! Rules of a channel about error codes: they come before what the provider's own table says. Pure.

use super::answer::{Answer, Refusal, RefusalKind, SenderTrouble};
use crate::api::{ErrorAction, ErrorRule};

/// The answer as the first rule that names its code wants it. Only a definite no can be judged otherwise: whether a message may have
/// been taken is no matter of rules, and neither is that a recipient wants no more messages. There a rule can stop something besides.
#[must_use]
pub fn judged(rules: &[ErrorRule], answer: Answer) -> Answer {
    let Answer::Refused(refusal) = answer else { return answer };
    let Some(action) = action_of(rules, &refusal.code) else { return Answer::Refused(refusal) };
    if refusal.kind == RefusalKind::OptedOut {
        return Answer::Refused(Refusal { besides: Some(action), ..refusal });
    }
    let kind = match action {
        ErrorAction::Retry => RefusalKind::Retryable,
        ErrorAction::Fail => RefusalKind::Permanent,
        ErrorAction::StopBroadcast => RefusalKind::Stopped,
        ErrorAction::StopChannel => RefusalKind::Sender(SenderTrouble::ByErrorPolicy),
        ErrorAction::Suppress => RefusalKind::Suppressed,
    };
    Answer::Refused(Refusal { kind, ..refusal })
}

/// What the first rule that names a code wants.
#[must_use]
pub fn action_of(rules: &[ErrorRule], code: &str) -> Option<ErrorAction> {
    rules.iter().find(|rule| rule.codes.iter().any(|named| named == code)).map(|rule| rule.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Vec<ErrorRule> {
        let rule = |codes: &[&str], action| ErrorRule {
            codes: codes.iter().map(|code| (*code).to_owned()).collect(),
            action,
        };
        vec![
            rule(&["1", "2"], ErrorAction::Retry),
            rule(&["2", "3"], ErrorAction::Fail),
            rule(&["4"], ErrorAction::StopBroadcast),
            rule(&["5"], ErrorAction::StopChannel),
            rule(&["6"], ErrorAction::Suppress),
        ]
    }

    #[test]
    fn the_first_rule_that_names_a_code_decides() {
        for (code, expected) in [
            ("1", RefusalKind::Retryable),
            ("2", RefusalKind::Retryable),
            ("3", RefusalKind::Permanent),
            ("4", RefusalKind::Stopped),
            ("5", RefusalKind::Sender(SenderTrouble::ByErrorPolicy)),
            ("6", RefusalKind::Suppressed),
            ("7", RefusalKind::Content),
        ] {
            let refused = |kind| Answer::refused(kind, code, "no");
            assert_eq!(judged(&rules(), refused(RefusalKind::Content)), refused(expected), "{code}");
        }
    }

    #[test]
    fn no_rule_makes_a_definite_answer_of_an_open_one() {
        for answer in
            [Answer::unknown("1", ""), Answer::accepted("1"), Answer::Unreachable { detail: "1".into() }]
        {
            assert_eq!(judged(&rules(), answer.clone()), answer);
        }
    }
}
