//! What a receipt means beyond its chat: for later Broadcasts, for its own, and for its channel. Pure.

use crate::api::{BroadcastChannelSpec, ErrorAction, StopReason, SuppressionReason, TroubleReason};
use crate::domain::answer::SenderTrouble;
use crate::domain::error_policy::action_of;
use crate::domain::outcome::Outcome;
use crate::domain::receipt::Receipt;
use crate::domain::suppression::reason_of;

/// What a receipt means beyond its chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// Later Broadcasts of the channel skip the chat, for this reason.
    pub suppress: Option<SuppressionReason>,
    /// The channel stops, or slows down.
    pub trouble: Option<TroubleReason>,
    /// Its Broadcast stops, for this reason.
    pub stops_broadcast: Option<StopReason>,
}

/// What a receipt means by the code in it. A rule of the channel comes before what is usual for the code; that a person wants no more
/// messages is no matter of rules.
#[must_use]
pub fn of(spec: &BroadcastChannelSpec, receipt: &Receipt) -> Meaning {
    let wish = receipt.is_opt_out.then(|| reason_of(spec.provider));
    if receipt.evidence.outcome != Outcome::Failed {
        return Meaning { suppress: wish, ..Meaning::default() };
    }
    let action = action_of(&spec.error_policy, &receipt.evidence.code);
    let by_rule = (action == Some(ErrorAction::Suppress)).then_some(SuppressionReason::ErrorPolicy);
    Meaning {
        suppress: wish.or(by_rule),
        trouble: match action {
            Some(ErrorAction::StopChannel) => Some(TroubleReason::StoppedByErrorPolicy),
            Some(_) => None,
            None => receipt
                .trouble
                .map(SenderTrouble::reason)
                .or(receipt.is_too_fast.then_some(TroubleReason::RateLimited)),
        },
        stops_broadcast: match action {
            Some(ErrorAction::StopBroadcast) => Some(StopReason::ErrorPolicy),
            Some(_) => None,
            None => receipt.is_about_content.then_some(StopReason::TemplateUnavailable),
        },
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::{ErrorRule, ProviderName};
    use crate::domain::answer::RefusalKind;

    fn meaning(action: Option<ErrorAction>, outcome: Outcome, kind: RefusalKind) -> Meaning {
        let mut spec = BroadcastChannelSpec::of(ProviderName::WhatsApp);
        spec.error_policy.extend(action.map(|action| ErrorRule { codes: vec!["7".into()], action }));
        let receipt = Receipt::new("wamid.1", outcome, None, Timestamp::UNIX_EPOCH).expect("an id");
        of(&spec, &receipt.with_error("7", "no").with_kind(Some(kind)))
    }

    #[test]
    fn a_code_means_what_is_usual_for_it_unless_a_rule_names_it() {
        let restricted = RefusalKind::Sender(SenderTrouble::AccountRestricted);
        let nothing = Meaning::default();
        let stops = |trouble| Meaning { trouble: Some(trouble), ..nothing };
        let suppressed = |reason| Meaning { suppress: Some(reason), ..nothing };
        let failed = |action, kind| meaning(action, Outcome::Failed, kind);
        assert_eq!(failed(None, RefusalKind::Permanent), nothing);
        assert_eq!(failed(None, restricted), stops(TroubleReason::AccountRestricted));
        assert_eq!(failed(None, RefusalKind::RateLimited), stops(TroubleReason::RateLimited));
        // One chat that gets too many says nothing of the others.
        assert_eq!(failed(None, RefusalKind::ChatLimited), nothing);
        for action in [ErrorAction::Fail, ErrorAction::Retry] {
            assert_eq!(failed(Some(action), restricted), nothing);
            assert_eq!(failed(Some(action), RefusalKind::RateLimited), nothing);
        }
        let (stop_channel, permanent) = (Some(ErrorAction::StopChannel), RefusalKind::Permanent);
        assert_eq!(failed(stop_channel, permanent), stops(TroubleReason::StoppedByErrorPolicy));
        let by_rule = failed(Some(ErrorAction::Suppress), permanent);
        assert_eq!(by_rule, suppressed(SuppressionReason::ErrorPolicy));
        let stops_broadcast = |reason| Meaning { stops_broadcast: Some(reason), ..nothing };
        let stop_broadcast = Some(ErrorAction::StopBroadcast);
        assert_eq!(failed(stop_broadcast, permanent), stops_broadcast(StopReason::ErrorPolicy));
        assert_eq!(failed(stop_broadcast, RefusalKind::Content), stops_broadcast(StopReason::ErrorPolicy));
        assert_eq!(failed(None, RefusalKind::Content), stops_broadcast(StopReason::TemplateUnavailable));
        assert_eq!(failed(Some(ErrorAction::Fail), RefusalKind::Content), nothing);
        let wish = suppressed(SuppressionReason::OptedOut);
        for action in [None, Some(ErrorAction::Fail), Some(ErrorAction::Suppress)] {
            assert_eq!(failed(action, RefusalKind::OptedOut), wish);
        }
        assert_eq!(meaning(stop_channel, Outcome::Read, RefusalKind::OptedOut), wish);
    }
}
