//! A cluster that was put back to a backup: what was sent since then is in no book, so nothing goes on by itself.
//!
//! In: when that was noticed, and Broadcasts. Out: which of them may have been sent to already.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::Broadcast;

/// Who put the cluster back, or a pipeline, also applies again what the backup does not have. A Broadcast that is made so soon
/// after may be one that was sent already.
const APPLIED_AGAIN_WITHIN: SignedDuration = SignedDuration::from_hours(1);

/// That the cluster was put back, and when this was noticed. As text: an id, a space and the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Tells it from an earlier one.
    pub id: String,
    /// When it was noticed.
    pub noticed: Timestamp,
}

impl Restored {
    /// Whether a Broadcast may have been sent to in a time of which nothing is known. `source` is when the Broadcast that it
    /// restarts was created.
    #[must_use]
    pub fn concerns(&self, broadcast: &Broadcast, source: Option<Timestamp>) -> bool {
        let completed = broadcast.status.as_ref().is_some_and(|status| status.completion_time.is_some());
        let limit = self.noticed.saturating_add(APPLIED_AGAIN_WITHIN).unwrap_or(Timestamp::MAX);
        let created = broadcast.metadata.creation_timestamp.as_ref().map(|Time(time)| *time);
        let is_before = |time: Option<Timestamp>| time.is_some_and(|time| time < limit);
        !completed && (is_before(created) || is_before(source))
    }
}

impl fmt::Display for Restored {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.id, self.noticed)
    }
}

/// The text is no note of a restore.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be an id, a space and a time")]
pub struct NotANote;

impl FromStr for Restored {
    type Err = NotANote;

    fn from_str(text: &str) -> Result<Self, NotANote> {
        let (id, noticed) = text.split_once(' ').ok_or(NotANote)?;
        Ok(Self { id: id.to_owned(), noticed: noticed.parse().map_err(|_| NotANote)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BroadcastSpec, BroadcastStatus};

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).expect("small")
    }

    fn broadcast(created: i64, completed: bool) -> Broadcast {
        let mut broadcast = Broadcast::new("sale", BroadcastSpec::default());
        broadcast.metadata.creation_timestamp = Some(Time(at(created)));
        let completion_time = completed.then(|| Time(at(created)));
        broadcast.status = Some(BroadcastStatus { completion_time, ..BroadcastStatus::default() });
        broadcast
    }

    #[test]
    fn it_concerns_what_was_not_complete_and_what_is_made_soon_after_or_of_something_older() {
        let restored = Restored { id: "a".into(), noticed: at(10) };
        for (created, completed, source, concerned) in [
            (9, false, None, true),
            (9, true, None, false),
            (10, false, None, true),
            (11, false, None, false),
            (12, false, Some(9), true),
            (12, false, Some(11), false),
        ] {
            let found = restored.concerns(&broadcast(created, completed), source.map(at));
            assert_eq!(found, concerned, "created at {created}, complete: {completed}, source: {source:?}");
        }
    }

    #[test]
    fn it_survives_its_text_form() {
        let restored = Restored { id: "x7k2".into(), noticed: at(10) };
        assert_eq!(restored.to_string().parse(), Ok(restored));
        for text in ["", "x7k2", "x7k2 yesterday"] {
            assert_eq!(text.parse::<Restored>(), Err(NotANote), "{text}");
        }
    }
}
