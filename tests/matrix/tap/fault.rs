//! What goes wrong, and where.

use std::ops::Range;

use super::Gate;

/// A request or a watch event, by name and by how many of that name came before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    pub name: String,
    pub occurrence: usize,
}

impl std::fmt::Display for Point {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}#{}", self.name, self.occurrence)
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The process dies, and the request never leaves.
    DieBefore,
    /// The request is done, and the process dies before it hears of it.
    DieAfter,
    /// The request is not forwarded; this is the answer.
    Answer(u16),
    /// The request is done; the answer is 504.
    LandsThenTimeout,
    /// The request is done; the connection breaks.
    LandsThenReset,
    /// The request is done; no answer ever comes.
    LandsThenNothing,
    /// The task that asks panics.
    Panic,
    /// The request is done; the answer waits for the gate.
    HoldAfter(Gate),
    /// The request waits for the gate.
    HoldBefore(Gate),
    /// The request is done, and the whole process stands still until the gate opens.
    FreezeAfter(Gate),
    /// The request is about to leave, and the whole process stands still until the gate opens.
    FreezeBefore(Gate),
    /// The request does not leave, and no answer ever comes.
    Unsent,
    /// A list shows what was there after this write.
    ListAt(Point),
    /// Everything of this stream comes late.
    LateStream,
    /// What happens to one event of a stream.
    Event(EventFault),
}

/// What goes wrong with one event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventFault {
    /// It never comes, if a later one of the same object does; else it comes late.
    Drop,
    /// It and what follows come late, and only the last event of each object does.
    Compact,
    /// It comes twice.
    Double,
    /// It comes again after a later one.
    Again,
    /// It comes late, with everything behind it.
    Delay,
    /// The same, and so late that whatever is to happen before has happened.
    LongDelay,
    /// It and what follows wait for the gate, and only the last event of each object comes then.
    Held(Gate),
    /// The connection breaks in the middle of it.
    Cut,
    /// 410 comes in its place, and the stream ends.
    Gone,
    /// 500 comes in its place, and the stream ends.
    Error,
    /// The stream says nothing any more, and does not end.
    Silence,
}

/// A fault, and where it is.
#[derive(Clone, Debug)]
pub struct Planned {
    name: String,
    occurrences: Range<usize>,
    pub fault: Fault,
    /// Number of the process in whose line it is, if it is in that of one alone. Occurrences are counted there then.
    process: Option<usize>,
}

impl Planned {
    /// A fault at one point.
    pub fn at(point: &Point, fault: Fault) -> Self {
        Self::from(point, 1, fault)
    }

    /// A fault at a point, and at so many in all of its name.
    pub fn from(point: &Point, times: usize, fault: Fault) -> Self {
        let end = point.occurrence.saturating_add(times);
        Self { name: point.name.clone(), occurrences: point.occurrence..end, fault, process: None }
    }

    /// The same in the line of one process.
    pub fn of(self, process: usize) -> Self {
        Self { process: Some(process), ..self }
    }

    /// Whether it is at what a process comes by, which is so often before in all lines and in its own.
    pub(super) fn is_at(&self, name: &str, process: usize, in_all: usize, in_own: usize) -> bool {
        let occurrence = if self.process.is_some() { in_own } else { in_all };
        self.name == name
            && self.process.is_none_or(|of| of == process)
            && self.occurrences.contains(&occurrence)
    }
}
