//! Error codes of the Cloud API, and what is to be done about each. Meta says: decide by codes, not by titles or the HTTP status.
//! Pure.

use std::time::Duration;

use crate::domain::answer::{RefusalKind, SenderTrouble};

/// A number that is moved to a higher throughput is back after a minute (131057).
const MAINTENANCE: Duration = Duration::from_secs(60);

const AUTHENTICATION: RefusalKind = RefusalKind::Sender(SenderTrouble::AuthenticationFailed);
const RESTRICTED: RefusalKind = RefusalKind::Sender(SenderTrouble::AccountRestricted);

/// What is to be done about a code. `None`: the code is not known, and the HTTP status has to do.
#[must_use]
pub fn kind_of(code: i64, subcode: i64) -> Option<RefusalKind> {
    Some(match code {
        // Calls of the app or the account; messages of the number; the number in maintenance.
        4 | 80_007 | 80_008 | 130_429 | 131_057 => RefusalKind::RateLimited,
        // Messages to one chat.
        131_056 => RefusalKind::ChatLimited,
        // The phone number id is none, or none of this token: that is about every message, not about a parameter.
        100 if subcode == 33 => AUTHENTICATION,
        0 | 3 | 10 | 190 | 200..=299 | 131_005 => AUTHENTICATION,
        // To go on after 131048 (spam) or 131064 (misused templates) makes it worse.
        33 | 368 | 131_031 | 131_037 | 131_045 | 131_048 | 131_064 | 133_010 => RESTRICTED,
        131_042 => RefusalKind::Sender(SenderTrouble::PaymentRequired),
        // The template is missing, against the rules, paused or disabled; its flow is blocked, or may be sent ten times an hour; marketing
        // is switched off. The other messages of the number are sent.
        131_063 | 132_001 | 132_007 | 132_015 | 132_016 | 132_068 | 132_069 => RefusalKind::Content,
        // Parameters, too long a text, an unknown kind of message: the values are the recipient's.
        100 | 131_008 | 131_009 | 131_051 | 132_000 | 132_005 | 132_008 | 132_012
        // Undeliverable; outside of the 24 hours; in an experiment; the sender itself; not in the test list; no number behind the
        // name; another person than before.
        | 131_026 | 131_047 | 130_472 | 131_021 | 131_030 | 131_062 | 137_000
        // The business may not write to this country. A halt of the channel would hold up the other countries for ever.
        | 130_497 => RefusalKind::Permanent,
        // Enough marketing for this person today.
        131_049 => RefusalKind::Later,
        131_050 => RefusalKind::OptedOut,
        131_052 | 131_053 => RefusalKind::MediaNotFetched,
        // A service that is down, and what Meta does not know more of.
        1 | 2 | 131_000 | 131_016 | 135_000 => RefusalKind::Unavailable,
        _ => return None,
    })
}

/// Shortest wait after a code, whatever the headers say.
#[must_use]
pub fn shortest_wait(code: i64) -> Option<Duration> {
    (code == 131_057).then_some(MAINTENANCE)
}
