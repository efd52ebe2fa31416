//! Which participants of a group have its message, and which of them have read it, as far as a provider tells. Pure.
//!
//! In: what became of the message for one participant. Out: how many have it. No id of a participant is kept, only as much as shows
//! whether a receipt is of one who was counted before.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::api::ParticipantCounts;

/// Participants of one group that are counted at most. Meta's Groups API lets eight people into a group; twice as many are still few
/// bytes of a page.
pub const MAX_PARTICIPANTS: usize = 16;
/// Bytes of one participant in the text.
pub(super) const MARK_BYTES: usize = 4;
/// Bits of one participant: what four letters of base64 hold. The last one says that it was read.
const MARK_BITS: u32 = 24;

/// A digest of the participant and the group, and whether the participant has read the message. Of one participant, the greater one
/// is the further one. 23 bits keep eight people apart but for three groups in a million, and fit too many numbers to
/// name anybody. With the group in it the same person has another one in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mark(u32);

impl Mark {
    fn of(group: &str, participant: &str, is_read: bool) -> Self {
        let digest = Sha256::new().chain_update(group).chain_update([0]).chain_update(participant).finalize();
        let bits = digest.iter().take(3).fold(0, |mark, byte| mark << 8 | u32::from(*byte));
        Self(bits & !1 | u32::from(is_read))
    }

    fn is_read(self) -> bool {
        self.0 & 1 == 1
    }

    /// The same participant, whatever it has read.
    fn who(self) -> u32 {
        self.0 >> 1
    }
}

/// The participants of one group that have its message. Two of them are joined as sets are, in any order and as often as one likes:
/// of each participant the further word counts, and of more than [`MAX_PARTICIPANTS`] those with the smallest digests stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Participants(Box<[Mark]>);

/// The text is not as participants are written.
#[derive(Debug, PartialEq, Eq)]
pub struct NotParticipants;

impl Participants {
    /// One participant has the message of this group.
    pub(super) fn one(group: &str, participant: &str, is_read: bool) -> Self {
        Self([Mark::of(group, participant, is_read)].into())
    }

    /// Those of both.
    pub(super) fn join(&self, others: &Self) -> Self {
        if others.is_empty() || self == others {
            return self.clone();
        }
        Self::of(self.0.iter().chain(&others.0).copied().collect())
    }

    fn of(mut marks: Vec<Mark>) -> Self {
        marks.sort_unstable();
        // The later of two is the one that has read it, and the earlier one is kept.
        marks.reverse();
        marks.dedup_by_key(|mark| mark.who());
        marks.reverse();
        marks.truncate(MAX_PARTICIPANTS);
        Self(marks.into())
    }

    /// Reads what was written, and is all there.
    pub(super) fn parse_whole(text: &str) -> Result<Self, NotParticipants> {
        let is_whole = !text.is_empty() && text.len().is_multiple_of(MARK_BYTES);
        if is_whole { text.parse() } else { Err(NotParticipants) }
    }

    /// Whether none is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of the text.
    pub(super) fn text_bytes(&self) -> usize {
        self.0.len() * MARK_BYTES
    }

    /// How many have it, and how many of these have read it. `None` where none is known.
    pub(super) fn counts(&self) -> Option<ParticipantCounts> {
        let number = |marks: usize| i32::try_from(marks).unwrap_or(i32::MAX);
        let read = self.0.iter().filter(|mark| mark.is_read()).count();
        (!self.is_empty()).then(|| ParticipantCounts { delivered: number(self.0.len()), read: number(read) })
    }
}

/// Four letters each, in order: as many as fit can be cut off at the end.
impl fmt::Display for Participants {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.iter().flat_map(|Mark(bits)| bits.to_be_bytes().into_iter().skip(1));
        out.write_str(&URL_SAFE_NO_PAD.encode(bytes.collect::<Vec<u8>>()))
    }
}

impl FromStr for Participants {
    type Err = NotParticipants;

    /// Reads what was written, be it cut within a participant: that one is left out.
    fn from_str(text: &str) -> Result<Self, NotParticipants> {
        let whole = text.get(..text.len() / MARK_BYTES * MARK_BYTES).ok_or(NotParticipants)?;
        let bytes = URL_SAFE_NO_PAD.decode(whole).map_err(|_| NotParticipants)?;
        let mark = |bytes: &[u8]| Mark(bytes.iter().fold(0, |mark, byte| mark << 8 | u32::from(*byte)));
        Ok(Self::of(bytes.chunks_exact(MARK_BITS as usize / 8).map(mark).collect()))
    }
}

#[cfg(test)]
mod tests {
    use allocation_counter::measure;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::any;

    fn counts(participants: &Participants) -> Option<(i32, i32)> {
        participants.counts().map(|ParticipantCounts { delivered, read }| (delivered, read))
    }

    fn all(people: usize) -> Participants {
        let one = |person: usize| Participants::one("group", &person.to_string(), false);
        (0..people).map(one).fold(Participants::default(), |all, one| all.join(&one))
    }

    #[test]
    fn each_participant_is_counted_once_and_as_far_as_it_came() {
        let told = [("a", false), ("b", true), ("a", false), ("c", false), ("b", false), ("a", true)];
        let one = |(person, is_read): (&str, bool)| Participants::one("group", person, is_read);
        let join = |told: &[(&str, bool)]| {
            told.iter().fold(Participants::default(), |all, told| all.join(&one(*told)))
        };
        let mut reversed = told;
        reversed.reverse();
        assert_eq!(counts(&join(&told)), Some((3, 2)));
        assert_eq!(join(&told), join(&reversed));
        assert_eq!(counts(&Participants::default()), None);
    }

    #[test]
    fn one_person_is_somebody_else_in_another_group() {
        let one = |group| Participants::one(group, "15550100", false);
        assert_ne!(one("group"), one("other"));
    }

    #[test]
    fn a_row_without_participants_takes_no_memory_for_them() {
        let taken = measure(|| assert!(Participants::default().join(&Participants::default()).is_empty()));
        assert_eq!(taken.count_total, 0);
    }

    #[test]
    fn so_many_are_counted_and_no_more() {
        assert_eq!(counts(&all(MAX_PARTICIPANTS)), Some((16, 0)));
        let many = all(1024);
        assert_eq!(counts(&many), Some((16, 0)));
        assert_eq!(many.join(&all(500)), many);
    }

    #[test]
    fn other_texts_are_no_participants_and_the_end_may_be_cut_off() {
        for text in ["what it said", "abcé", "ab=="] {
            assert_eq!(text.parse::<Participants>(), Err(NotParticipants), "{text}");
        }
        let text = all(3).to_string();
        assert_eq!(counts(&text[..11].parse().expect("participants")), Some((2, 0)));
    }

    proptest! {
        #[test]
        fn participants_are_joined_as_sets_are_and_survive_their_text(sets in any::participants(3)) {
            let [a, b, c] = &sets[..] else { panic!("three") };
            prop_assert_eq!(a.join(b), b.join(a));
            prop_assert_eq!(a.join(b).join(c), a.join(&b.join(c)));
            prop_assert_eq!(&a.join(a), a);
            prop_assert_eq!(&a.join(b).join(a), &a.join(b));
            let text = a.to_string();
            prop_assert_eq!(text.len(), a.0.len() * MARK_BYTES);
            prop_assert_eq!(text.parse(), Ok(a.clone()));
        }
    }
}
