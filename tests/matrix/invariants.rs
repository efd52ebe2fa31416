//! I1 to I6: what must hold at every moment, whatever went wrong. I7 is in `ending`, I8 in `play` and `holders`, I9 in `poster`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use broadcast_operator::api::{Broadcast, BroadcastBatch, OutcomeName as Outcome};
use broadcast_operator::clock;
use broadcast_operator::domain::outcome::Row;
use broadcast_operator::domain::page::{Page, Recipient};
use broadcast_operator::domain::token::MessageToken;
use broadcast_operator::simulator::{Entry, SendQuery};
use kube::ResourceExt;
use kube::api::ListParams;

use crate::common::stage::{by_outcome, counts, is_complete};
use crate::process::Process;
use crate::scene::{Failure, Scene};
use crate::tap::{AskedClaim, LATE};

/// One chat of a page.
pub struct Chat {
    pub recipient: Recipient,
    pub row: Row,
    pub page: usize,
    pub number: usize,
}

/// Everything stored that the invariants speak of, read one after the other: what the gateway had accepted already, the
/// Broadcasts, the pages, and then the books of the gateway, so that what is recorded must be in them.
pub struct Books {
    /// Tokens of what had been accepted before anything else was read.
    accepted_before: HashSet<String>,
    pub broadcasts: Vec<Broadcast>,
    pub pages: Vec<BroadcastBatch>,
    sends: Vec<(MessageToken, Entry)>,
}

impl Books {
    pub async fn read(scene: &Scene) -> Result<Self, Failure> {
        let failed = |error: kube::Error| format!("failed to list: {error}");
        let accepted = SendQuery { accepted: Some(true), ..SendQuery::default() };
        let before = scene.gateway.ledger().sends(&accepted).into_iter().map(|entry| entry.token.to_string());
        let accepted_before = before.collect();
        let broadcasts = scene.api::<Broadcast>().list(&ListParams::default()).await.map_err(failed)?.items;
        let pages = scene.api::<BroadcastBatch>().list(&ListParams::default()).await.map_err(failed)?.items;
        let sends = scene.gateway.ledger().sends(&SendQuery::default());
        let sends = sends.into_iter().filter_map(|entry| Some((entry.token.parse().ok()?, entry)));
        Ok(Self { accepted_before, broadcasts, pages, sends: sends.collect() })
    }

    /// Whether somebody answers for a row that is Pending.
    fn is_claimed(&self, uid: &str, page: usize, row: usize) -> bool {
        self.pages.iter().any(|batch| {
            let is_it = batch.spec.broadcast.uid == uid && usize::try_from(batch.spec.index) == Ok(page);
            let content = Page::parse(batch).ok().filter(|_| is_it);
            content.is_some_and(|content| content.claimed_rows().contains(&row))
        })
    }

    /// The chats of a Broadcast, page by page. A page that cannot be read yet has none.
    pub fn chats(&self, uid: &str) -> Vec<Chat> {
        let mut pages: Vec<&BroadcastBatch> =
            self.pages.iter().filter(|page| page.spec.broadcast.uid == uid).collect();
        pages.sort_by_key(|page| page.spec.index);
        let rows = pages.into_iter().filter_map(|page| {
            let content = Page::parse(page).ok()?;
            let index = usize::try_from(page.spec.index).ok()?;
            let both = content.recipients().to_vec().into_iter().zip(content.rows().to_vec());
            Some(both.enumerate().map(move |(number, (recipient, row))| Chat {
                recipient,
                row,
                page: index,
                number,
            }))
        });
        rows.flatten().collect()
    }
}

/// Checks I1 to I6. What a Broadcast counts follows its pages a second later, so what is wrong there must stay wrong.
pub async fn check(scene: &Scene, when: &str) -> Result<(), Failure> {
    let deadline = clock::monotonic() + 5 * LATE;
    loop {
        let mut changes = scene.view.changes();
        let books = Books::read(scene).await?;
        let mut broken = Vec::new();
        never_twice(&books, &mut broken);
        truth(scene, &books, &mut broken);
        claim_first(scene, &mut broken);
        bound(scene, &books, &mut broken);
        broken.extend(scene.view.seen().untrue.iter().map(|line| format!("I3 truth: {line}")));
        broken.extend(scene.view.seen().went_back.iter().map(|line| format!("I4 no regress: {line}")));
        let is_certain = !broken.is_empty();
        // With nobody alive, nobody counts.
        let is_counted = scene.processes.iter().any(Process::is_alive);
        never_lost(&books, is_counted, &mut broken);
        if broken.is_empty() {
            return Ok(());
        }
        if is_certain || clock::monotonic() >= deadline {
            return Err(format!("{when}:\n  {}", broken.join("\n  ")));
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = clock::wait(LATE) => {}
        }
    }
}

/// I1: no chat got the message of a Broadcast twice. In one case nobody asks for a second message, so neither does a chat
/// get it from a Broadcast and from its restart.
fn never_twice(books: &Books, broken: &mut Vec<String>) {
    let mut accepted: HashMap<&str, Vec<String>> = HashMap::new();
    for (token, entry) in books.sends.iter().filter(|(_, entry)| entry.accepted) {
        accepted.entry(&entry.chat).or_default().push(token.to_string());
    }
    let twice = accepted.into_iter().filter(|(_, tokens)| tokens.len() > 1);
    broken.extend(twice.map(|(chat, tokens)| format!("I1 never twice: {chat} got it as {tokens:?}")));
}

/// I3: what is recorded as sent was accepted, what is recorded as failed was not. `observer` looks at the same at each event of
/// a page.
fn truth(scene: &Scene, books: &Books, broken: &mut Vec<String>) {
    let accepted: HashMap<String, &Entry> = books
        .sends
        .iter()
        .filter(|(_, entry)| entry.accepted)
        .map(|(token, entry)| (token.to_string(), entry))
        .collect();
    for broadcast in &books.broadcasts {
        let uid = broadcast.uid().unwrap_or_default();
        for Chat { recipient, row, page, number } in books.chats(&uid) {
            let token = format!("{uid}.{page}.{number}");
            let chat = &recipient.chat;
            let line = match (row.outcome, accepted.get(&token)) {
                (Outcome::Sent | Outcome::Delivered | Outcome::Read, None) => {
                    format!("{chat} is recorded as {:?} and was not accepted", row.outcome)
                }
                (Outcome::Failed | Outcome::Cancelled | Outcome::Skipped, Some(_)) => {
                    format!("{chat} is recorded as {:?} and was accepted", row.outcome)
                }
                (Outcome::Pending, Some(_))
                    if books.accepted_before.contains(&token) && !books.is_claimed(&uid, page, number) =>
                {
                    format!("{chat} was accepted, and stands as never sent without a claim on it")
                }
                (Outcome::Sent, Some(entry))
                    if entry.message_id.as_deref() != Some(&row.message_id)
                        && !scene.doubtful.contains(chat) =>
                {
                    format!("{chat} is recorded with id {:?}, not {:?}", row.message_id, entry.message_id)
                }
                _ => continue,
            };
            broken.push(format!("I3 truth: {line}"));
        }
    }
}

/// I2: a sealed Broadcast has a row for each chat, and a complete one an outcome for each, and its counts are those of the
/// rows.
fn never_lost(books: &Books, is_counted: bool, broken: &mut Vec<String>) {
    for broadcast in &books.broadcasts {
        let name = broadcast.name_any();
        let Some(status) = &broadcast.status else { continue };
        let (Some(total), true) = (status.total, status.audience_digest.is_some()) else { continue };
        let uid = broadcast.uid().unwrap_or_default();
        if books.pages.iter().any(|page| page.spec.broadcast.uid == uid && Page::parse(page).is_err()) {
            // Somebody has spoilt it; what is in it then, nobody knows.
            continue;
        }
        let chats = books.chats(&uid);
        if usize::try_from(total) != Ok(chats.len()) && broadcast.metadata.deletion_timestamp.is_none() {
            broken.push(format!("I2 never lost: {name} has {} rows for {total} chats", chats.len()));
        }
        if !is_complete(broadcast) {
            continue;
        }
        let mut of: BTreeMap<Outcome, i32> = BTreeMap::new();
        for chat in &chats {
            *of.entry(chat.row.outcome).or_default() += 1;
        }
        for (number, outcome) in by_outcome(&counts(broadcast)) {
            let rows = of.get(&outcome).copied().unwrap_or_default();
            if is_counted && number != rows {
                broken.push(format!("I2 never lost: {name} counts {number} {outcome:?}, and has {rows}"));
            }
        }
        if of.contains_key(&Outcome::Pending) {
            broken.push(format!("I2 never lost: {name} is complete and has chats that are Pending"));
        }
    }
}

/// I5: the n-th request for a chat was preceded by the n-th stored claim on its row. A claim allows one request per row.
fn claim_first(scene: &Scene, broken: &mut Vec<String>) {
    let claims = scene.tap.claims();
    let mut arrivals: HashMap<String, Vec<Instant>> = HashMap::new();
    for (token, at) in scene.line.arrivals() {
        arrivals.entry(token).or_default().push(at);
    }
    for (token, times) in arrivals {
        let Ok(token) = token.parse::<MessageToken>() else {
            broken.push(format!("a request without a token of ours: {token:?}"));
            continue;
        };
        for (number, arrived) in times.iter().enumerate() {
            let before = claims
                .iter()
                .filter(|claim| covers(claim, &token) && claim.landed.is_some_and(|at| at <= *arrived));
            if before.count() <= number {
                broken.push(format!("I5 claim first: request {number} of {token} had no claim of its own"));
            }
        }
    }
}

fn covers(claim: &AskedClaim, token: &MessageToken) -> bool {
    claim.broadcast == token.broadcast.as_str() && claim.page == token.page && claim.rows.contains(&token.row)
}

/// I6: a chat is Unknown only when a process died that had a claim on it, or when its gateway went wrong.
fn bound(scene: &Scene, books: &Books, broken: &mut Vec<String>) {
    let claims = scene.tap.claims();
    for broadcast in &books.broadcasts {
        let uid = broadcast.uid().unwrap_or_default();
        for chat in books.chats(&uid).into_iter().filter(|chat| chat.row.outcome == Outcome::Unknown) {
            let of_the_dead = claims.iter().any(|claim| {
                let is_on_it =
                    claim.broadcast == uid && claim.page == chat.page && claim.rows.contains(&chat.number);
                is_on_it && scene.dead.contains(&claim.process)
            });
            if !of_the_dead && !scene.doubtful.contains(&chat.recipient.chat) {
                let name = &chat.recipient.chat;
                let Row { code, detail, .. } = &chat.row;
                broken.push(format!(
                    "I6 bound: {name} is Unknown ({code}: {detail}), and nothing happened to its request"
                ));
            }
        }
    }
}
