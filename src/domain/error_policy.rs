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

/// Whether what stopped a channel with this code still stops it by the rules as they are now. A rule that was taken away stops nothing
/// any more, and one with another action says that the code is not about the account. What has no code is no matter of rules.
#[must_use]
pub fn still_stops(rules: &[ErrorRule], trouble: SenderTrouble, code: &str) -> bool {
    code.is_empty()
        || match action_of(rules, code) {
            Some(action) => action == ErrorAction::StopChannel,
            None => trouble != SenderTrouble::ByErrorPolicy,
        }
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
    fn a_stop_ends_when_its_rule_is_gone_or_when_another_rule_says_that_it_is_none() {
        use SenderTrouble::{AccountRestricted, ByErrorPolicy};
        for (trouble, code, expected) in [
            (ByErrorPolicy, "5", true),
            (ByErrorPolicy, "3", false),
            (ByErrorPolicy, "7", false),
            (ByErrorPolicy, "", true),
            (AccountRestricted, "7", true),
            (AccountRestricted, "5", true),
            (AccountRestricted, "3", false),
            (AccountRestricted, "", true),
        ] {
            assert_eq!(still_stops(&rules(), trouble, code), expected, "{trouble:?} {code}");
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
