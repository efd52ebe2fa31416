//! Which messages of one chat a gateway took, and which of them failed. Pure.
//!
//! A chat has one message as a rule, and then its row says all of this by itself. It has several when a try without an answer
//! was made again: each may have been taken, and each has its own receipts.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// What became of one message. Failed is the later word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Taken,
    Failed,
}

/// What became of the messages of one chat, by digests of their ids. Two of them are joined as sets are: in any order, as often
/// as one likes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fates(BTreeMap<Mark, Fate>);

/// Digest of a message id. A chat has very few messages, so 32 bits keep them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mark(u32);

impl Mark {
    fn of(id: &str) -> Self {
        let digest = Sha256::digest(id);
        Self(digest.iter().take(4).fold(0, |mark, byte| mark << 8 | u32::from(*byte)))
    }
}

/// The text is not as fates are written.
#[derive(Debug, PartialEq, Eq)]
pub struct NotFates;

impl Fates {
    /// The gateway took a message. Of one without an id nothing can be kept apart.
    pub(super) fn taken(id: &str) -> Self {
        if id.is_empty() { Self::default() } else { Self(BTreeMap::from([(Mark::of(id), Fate::Taken)])) }
    }

    /// A message failed. Without an id it may be any of them.
    pub(super) fn failed(id: &str) -> Self {
        Self(BTreeMap::from([(Mark::of(id), Fate::Failed)]))
    }

    /// Takes in others.
    pub(super) fn join(mut self, others: &Self) -> Self {
        for (mark, fate) in &others.0 {
            let known = self.0.entry(*mark).or_insert(*fate);
            *known = (*known).max(*fate);
        }
        self
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many messages failed.
    pub(super) fn failures(&self) -> usize {
        self.0.values().filter(|fate| **fate == Fate::Failed).count()
    }

    /// Whether any message failed.
    pub(super) fn has_failure(&self) -> bool {
        self.0.values().any(|fate| *fate == Fate::Failed)
    }

    /// Whether a message failed, and none that was taken is left. A failure that names no message counts for all of them.
    pub(super) fn is_failure(&self) -> bool {
        let is_left = self.0.values().any(|fate| *fate == Fate::Taken);
        let counts_for_all = self.0.get(&Mark::of("")) == Some(&Fate::Failed);
        self.has_failure() && (counts_for_all || !is_left)
    }
}

/// As a page has them: `3f2a91c0- 77aa01be+` is one that failed and one that was taken.
impl fmt::Display for Fates {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (Mark(mark), fate)) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            let sign = if *fate == Fate::Failed { '-' } else { '+' };
            write!(out, "{space}{mark:08x}{sign}")?;
        }
        Ok(())
    }
}

impl FromStr for Fates {
    type Err = NotFates;

    fn from_str(text: &str) -> Result<Self, NotFates> {
        let one = |word: &str| {
            let (mark, fate) = match (word.strip_suffix('-'), word.strip_suffix('+')) {
                (Some(mark), _) => (mark, Fate::Failed),
                (None, Some(mark)) => (mark, Fate::Taken),
                (None, None) => return Err(NotFates),
            };
            u32::from_str_radix(mark, 16).map(|mark| (Mark(mark), fate)).map_err(|_| NotFates)
        };
        text.split(' ').filter(|word| !word.is_empty()).map(one).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_survive_their_text_form() {
        let fates = Fates::taken("wamid.1").join(&Fates::failed("wamid.2")).join(&Fates::failed(""));
        assert_eq!(fates.to_string().parse(), Ok(fates));
        assert_eq!("".parse(), Ok(Fates::default()));
        for text in ["wamid.1", "12", "xyz+", "123456789-"] {
            assert_eq!(text.parse::<Fates>(), Err(NotFates), "{text}");
        }
    }

    #[test]
    fn a_failure_leaves_the_other_messages_as_they_are() {
        let both = Fates::taken("2").join(&Fates::failed("1"));
        assert!(both.has_failure() && !both.is_failure());
        assert!(both.clone().join(&Fates::failed("2")).is_failure());
        assert!(both.join(&Fates::failed("")).is_failure(), "one that names no message");
    }
}
