//! Rules of a channel about error codes: they come before what the provider's own table says. Pure.

use super::answer::{Answer, Refusal, RefusalKind, SenderTrouble};
use crate::api::{ErrorAction, ErrorRule};

/// The answer as the first rule that names its code wants it. Only a definite no can be judged otherwise: whether a message may have
/// been taken is no matter of rules.
#[must_use]
pub fn judged(rules: &[ErrorRule], answer: Answer) -> Answer {
    let Answer::Refused(refusal) = answer else { return answer };
    let rule = rules.iter().find(|rule| rule.codes.contains(&refusal.code));
    let Some(rule) = rule else { return Answer::Refused(refusal) };
    let kind = match rule.action {
        ErrorAction::Retry => RefusalKind::Retryable,
        ErrorAction::Fail => RefusalKind::Permanent,
        ErrorAction::StopBroadcast => RefusalKind::Stopped,
        ErrorAction::StopChannel => RefusalKind::Sender(SenderTrouble::ByErrorPolicy),
        ErrorAction::Suppress => RefusalKind::OptedOut,
    };
    Answer::Refused(Refusal { kind, ..refusal })
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
            ("6", RefusalKind::OptedOut),
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
