//! The state of the model's world: what the API server stores, what each process knows, what the gateway really did.
//!
//! Versions, incarnations and claim numbers are real here: they count up and never come back. Two states are the same when
//! they differ in such names only; see the `Hash` at the end.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use broadcast_operator::api::Claim;
use broadcast_operator::domain::ids::Incarnation;
use broadcast_operator::domain::outcome::Row;
use broadcast_operator::domain::page::Page;

/// Processes of the operator. Two are enough for every conflict of a writer with another one.
pub const REPLICAS: usize = 2;

/// The world.
#[derive(Clone, Debug)]
pub struct State {
    /// Pages as they are stored: those of the source, and then the one of its restart.
    pub stored: Vec<Stored>,
    pub replicas: [Replica; REPLICAS],
    /// Writes whose process has heard an error, and which still may land.
    pub late: Vec<Late>,
    /// What really became of each chat.
    pub chats: Vec<Chat>,
    /// How far the user's restart is.
    pub restart: Restart,
    /// Processes so far: the next one's name.
    pub processes: u64,
    /// Some write took evidence back.
    pub has_regressed: bool,
    /// Some request left without a claim that was stored first.
    pub has_sent_unclaimed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    NotAsked,
    Asked,
    Planned,
}

/// A page, shared by all states that have the same one.
#[derive(Clone, Debug)]
pub struct Sheet(Arc<(Page, Vec<usize>)>);

/// A page in the API server, with its resourceVersion.
#[derive(Clone, Debug)]
pub struct Stored {
    pub sheet: Sheet,
    pub version: u64,
}

/// A write on its way. The API server looks at the version when it arrives, unless a mutant left it out.
#[derive(Clone, Debug)]
pub struct Late {
    pub page: usize,
    pub next: Sheet,
    pub version: Option<u64>,
}

/// One process.
#[derive(Clone, Debug)]
pub struct Replica {
    pub incarnation: Arc<Incarnation>,
    /// Claims that it has numbered.
    pub attempts: u64,
    /// Each page as it last read or stored it; it may be older than what is stored now.
    pub views: Vec<Stored>,
    /// The window in its hands. The real one has several, on different pages.
    pub window: Option<Window>,
}

/// A window that a process answers for.
#[derive(Clone, Debug)]
pub struct Window {
    pub page: usize,
    pub attempt: u64,
    /// Whether its claim was ever stored. Only the properties ask; the process does not know.
    pub has_landed: bool,
    pub step: Step,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// The answer to the claim's write was lost.
    Claiming(Range<usize>),
    /// The claim is recorded: rows that may be sent, each with what was known of it, and results that are in memory only.
    Open { todo: Vec<(usize, Row)>, results: Vec<(usize, Row)> },
}

/// What really became of one chat.
#[derive(Clone, Debug, Default)]
pub struct Chat {
    /// Whether the gateway took a message of the source, and one of its restart.
    pub accepted: [bool; 2],
    /// Whether it took a second one.
    pub is_twice: bool,
    /// Whether it was Unknown and sent again, as the user wants.
    pub is_resent: bool,
    /// The living process that has a definite answer, until it is stored.
    pub owed_by: Option<usize>,
}

impl Sheet {
    pub fn new(page: Page) -> Self {
        let chat = |chat: &str| chat.parse().expect("should be the number of a chat");
        let chats = page.recipients().iter().map(|recipient| chat(&recipient.chat)).collect();
        Self(Arc::new((page, chats)))
    }

    pub fn page(&self) -> &Page {
        &self.0.0
    }

    /// Chats of its rows.
    pub fn chats(&self) -> &[usize] {
        &self.0.1
    }
}

impl Window {
    pub fn results(&self) -> &[(usize, Row)] {
        match &self.step {
            Step::Claiming(_) => &[],
            Step::Open { results, .. } => results,
        }
    }
}

impl Replica {
    /// `Ledger::answers_for`.
    pub fn answers_for(&self, claim: &Claim) -> bool {
        claim.incarnation == self.incarnation.as_str()
            && self.window.as_ref().is_some_and(|window| i64::try_from(window.attempt) == Ok(claim.attempt))
    }
}

impl State {
    /// Whether a replica's view of a page is what is stored.
    pub fn is_fresh(&self, replica: usize, page: usize) -> bool {
        self.replicas[replica].views[page].version == self.stored[page].version
    }

    /// All that tells this state from others, with the replicas in this order.
    fn image(&self, order: [usize; REPLICAS]) -> Vec<u8> {
        let mut image = Vec::with_capacity(128);
        for stored in &self.stored {
            self.image_of_sheet(&stored.sheet, order, &mut image);
        }
        for replica in order {
            self.image_of_replica(replica, order, &mut image);
        }
        for late in &self.late {
            image.extend([
                small(late.page),
                late.version.map_or(2, |it| u8::from(it == self.stored[late.page].version)),
            ]);
            self.image_of_sheet(&late.next, order, &mut image);
        }
        for chat in &self.chats {
            let owed = chat.owed_by.map_or(0, |by| 1 + u8::from(by == order[1]));
            let flags = [chat.accepted[0], chat.accepted[1], chat.is_twice, chat.is_resent];
            image.push(flags.iter().fold(owed, |bits, flag| bits << 1 | u8::from(*flag)));
        }
        image.extend([self.restart as u8, u8::from(self.has_regressed), u8::from(self.has_sent_unclaimed)]);
        image
    }

    fn image_of_replica(&self, replica: usize, order: [usize; REPLICAS], image: &mut Vec<u8>) {
        for (page, view) in self.replicas[replica].views.iter().enumerate() {
            let is_fresh = self.is_fresh(replica, page);
            image.push(u8::from(is_fresh));
            if !is_fresh {
                self.image_of_sheet(&view.sheet, order, image);
            }
        }
        let Some(window) = &self.replicas[replica].window else {
            image.push(0);
            return;
        };
        image.extend([1 + small(window.page), u8::from(window.has_landed)]);
        match &window.step {
            Step::Claiming(rows) => image.extend([0, small(rows.start), small(rows.end)]),
            Step::Open { todo, results } => {
                image.extend([1, small(todo.len()), small(results.len())]);
                for (row, known) in todo.iter().chain(results) {
                    image.push(small(*row));
                    image_of_row(known, image);
                }
            }
        }
    }

    /// The owner of a claim is all that counts of its name: one of the replicas, or nobody any more.
    fn image_of_sheet(&self, sheet: &Sheet, order: [usize; REPLICAS], image: &mut Vec<u8>) {
        let page = sheet.page();
        image.push(u8::from(page.is_sealed()));
        for (chat, row) in sheet.chats().iter().zip(page.rows()) {
            image.push(small(*chat));
            image_of_row(row, image);
        }
        match page.claim() {
            None => image.push(0xff),
            Some(claim) => {
                let owner = order.iter().position(|replica| self.replicas[*replica].answers_for(claim));
                let bounds =
                    [claim.from, claim.to].map(|row| u8::try_from(row).expect("should be a small page"));
                image.extend([small(owner.unwrap_or(REPLICAS)), bounds[0], bounds[1]]);
            }
        }
    }
}

fn image_of_row(row: &Row, image: &mut Vec<u8>) {
    image.extend([row.outcome as u8, small(row.attempts)]);
}

fn small(number: impl TryInto<u8>) -> u8 {
    number.try_into().ok().expect("should count to a handful in a model")
}

impl Hash for State {
    /// States that differ only in numbers that are never compared again, or in which replica is called the first, are one.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.image([0, 1]).min(self.image([1, 0])).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.image([0, 1]) == other.image([0, 1])
    }
}
