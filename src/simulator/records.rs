//! What arrived and what was done: requests go in, entries and counts come out. Every count is kept as requests come, so
//! that asking costs nothing, however many there are. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use jiff::Timestamp;

use super::entry::{Done, Entry, RequestCounts, SendQuery};
use super::text::Text;
use super::wire::Format;

/// The window of the highest rate.
const SECOND: u64 = 1_000_000;

/// A request, read as far as it could be.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrived<'a> {
    pub(super) format: Format,
    pub(super) token: &'a str,
    pub(super) account: &'a str,
    pub(super) broadcast: &'a str,
    pub(super) chat: &'a str,
    pub(super) text: &'a str,
    pub(super) template: &'a str,
    pub(super) media: &'a str,
}

#[derive(Debug, Default)]
struct TokenRecord {
    accepted: u64,
    message_id: Option<Text>,
}

#[derive(Debug, Default)]
struct ChatRecord {
    accepted: u64,
    sequences: Vec<u64>,
}

type ChatKey = (Text, Text);

/// All entries and their counts.
#[derive(Debug, Default)]
pub(super) struct Records {
    entries: Vec<Entry>,
    /// Requests before the first entry: those that were deleted.
    deleted: u64,
    /// Messages accepted since the start. Message ids are made of it, so it outlives the entries.
    messages: u64,
    counts: RequestCounts,
    tokens: HashMap<Text, TokenRecord>,
    chats: HashMap<ChatKey, ChatRecord>,
    /// Arrivals within the last second, in micros.
    window: VecDeque<u64>,
    /// One copy of each text: a bulk message has few texts and few names.
    texts: HashSet<Text>,
}

impl Records {
    /// Id of the message that was accepted with this token first.
    pub(super) fn message_id(&self, token: &str) -> Option<Text> {
        self.tokens.get(token).and_then(|record| record.message_id.clone())
    }

    /// Writes down a request and what is done with it. This is the point in time at which it is accepted or not.
    pub(super) fn push(
        &mut self,
        arrived: &Arrived<'_>,
        accepts: bool,
        done: Done,
        at: (Timestamp, u64),
    ) -> &Entry {
        let sequence = self.deleted + self.entries.len() as u64 + 1;
        let token = self.text(arrived.token);
        let broadcast = self.text(arrived.broadcast);
        let chat = self.text(arrived.chat);
        self.count_arrival(&done, at);
        let message_id =
            if accepts { Some(self.accept(arrived.format, &token)) } else { self.message_id(&token) };
        if !token.is_empty() {
            self.tokens.entry(token.clone()).or_default();
        }
        self.count_chat((broadcast.clone(), chat.clone()), sequence, accepts);
        let entry = Entry {
            sequence,
            arrived: at.0,
            arrived_micros: at.1,
            format: arrived.format,
            token,
            account: self.text(arrived.account),
            broadcast,
            chat,
            text: self.text(arrived.text),
            template: self.text(arrived.template),
            media: self.text(arrived.media),
            accepted: accepts,
            done,
            message_id,
            completed: None,
            client_left: false,
        };
        self.entries.push(entry);
        self.entries.last().expect("should have the entry just pushed")
    }

    /// A request is over: it was answered, cut off, or its client left. One that was deleted meanwhile still was in flight.
    pub(super) fn complete(&mut self, sequence: u64, client_left: bool, now: Timestamp) {
        self.counts.in_flight -= 1;
        let Some(index) = self.index(sequence) else { return };
        self.counts.clients_left += u64::from(client_left);
        let entry = &mut self.entries[index];
        entry.completed = Some(now);
        entry.client_left = client_left;
    }

    pub(super) fn counts(&self) -> RequestCounts {
        RequestCounts { distinct_tokens: self.tokens.len() as u64, ..self.counts.clone() }
    }

    /// How often a chat was accepted for a Broadcast.
    pub(super) fn accepted(&self, broadcast: &str, chat: &str) -> u64 {
        self.chats.get(&(broadcast.into(), chat.into())).map_or(0, |record| record.accepted)
    }

    /// Entries in the order of their arrival. Asked for one chat of one Broadcast it looks at no other entry.
    pub(super) fn sends(&self, query: &SendQuery) -> Vec<Entry> {
        if let (Some(broadcast), Some(chat)) = (&query.broadcast, &query.chat) {
            let record = self.chats.get(&(broadcast.as_str().into(), chat.as_str().into()));
            let sequences = record.map_or(&[][..], |record| &record.sequences);
            let entries = sequences.iter().filter_map(|sequence| self.entries.get(self.index(*sequence)?));
            return entries.filter(|entry| query.fits(entry)).cloned().collect();
        }
        self.entries.iter().filter(|entry| query.fits(entry)).cloned().collect()
    }

    /// Forgets all requests, and with them which keys were used. What is in flight stays in flight.
    pub(super) fn delete(&mut self) {
        let in_flight = self.counts.in_flight;
        *self = Self {
            deleted: self.deleted + self.entries.len() as u64,
            messages: self.messages,
            counts: RequestCounts { in_flight, highest_in_flight: in_flight, ..RequestCounts::default() },
            ..Self::default()
        };
    }

    fn index(&self, sequence: u64) -> Option<usize> {
        usize::try_from(sequence.checked_sub(self.deleted + 1)?).ok()
    }

    fn text(&mut self, text: &str) -> Text {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let text: Text = text.into();
        self.texts.insert(text.clone());
        text
    }

    fn accept(&mut self, format: Format, token: &Text) -> Text {
        self.messages += 1;
        let id: Text = format.message_id(self.messages).into();
        self.counts.accepted += 1;
        // Where the format has no place for a token, there is nothing to tell two messages by.
        if token.is_empty() {
            return id;
        }
        let record = self.tokens.entry(token.clone()).or_default();
        record.accepted += 1;
        record.message_id.get_or_insert_with(|| id.clone());
        self.counts.twice.tokens += u64::from(record.accepted == 2);
        self.counts.max_accepted_per_token = self.counts.max_accepted_per_token.max(record.accepted);
        id
    }

    fn count_chat(&mut self, key: ChatKey, sequence: u64, accepts: bool) {
        let record = self.chats.entry(key).or_default();
        record.sequences.push(sequence);
        if accepts {
            record.accepted += 1;
            self.counts.distinct_chats += u64::from(record.accepted == 1);
            self.counts.twice.chats += u64::from(record.accepted == 2);
        }
    }

    fn count_arrival(&mut self, done: &Done, (wall, micros): (Timestamp, u64)) {
        let counts = &mut self.counts;
        counts.requests += 1;
        counts.in_flight += 1;
        counts.highest_in_flight = counts.highest_in_flight.max(counts.in_flight);
        counts.last_arrival = Some(wall);
        while self.window.front().is_some_and(|first| micros.saturating_sub(*first) >= SECOND) {
            self.window.pop_front();
        }
        self.window.push_back(micros);
        counts.highest_arrivals_per_second = counts.highest_arrivals_per_second.max(self.window.len() as u64);
        match done {
            Done::Accepted => {}
            Done::Repeated => counts.repeated += 1,
            Done::Refused { .. } => counts.refused += 1,
            Done::RateLimited => counts.rate_limited += 1,
            Done::Redirected { .. } => counts.redirected += 1,
            Done::Failed { .. } => counts.failed += 1,
            Done::Reset => counts.reset += 1,
            Done::Hung => counts.hung += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::Twice;

    fn push(records: &mut Records, chat: &str, token: &str, accepts: bool, micros: u64) -> u64 {
        let arrived = Arrived { token, broadcast: "shop/sale", chat, ..Arrived::default() };
        let done = if accepts { Done::Accepted } else { Done::Reset };
        records.push(&arrived, accepts, done, (Timestamp::UNIX_EPOCH, micros)).sequence
    }

    #[test]
    fn what_was_accepted_more_than_once_is_counted_once() {
        let mut records = Records::default();
        for (chat, token) in [("1", "a"), ("1", "b"), ("1", "c"), ("2", "d"), ("3", "d"), ("4", "e")] {
            push(&mut records, chat, token, true, 0);
        }
        push(&mut records, "4", "e", false, 0);
        let counts = records.counts();
        assert_eq!(counts.twice, Twice { chats: 1, tokens: 1 });
        assert_eq!((counts.requests, counts.accepted, counts.reset), (7, 6, 1));
        assert_eq!((counts.distinct_tokens, counts.distinct_chats), (5, 4));
        assert_eq!(counts.max_accepted_per_token, 2);
        assert_eq!((records.accepted("shop/sale", "1"), records.accepted("shop/other", "1")), (3, 0));
    }

    #[test]
    fn the_highest_rate_is_that_of_any_second() {
        let mut records = Records::default();
        for micros in [0, 900_000, 1_100_000, 1_200_000, 1_899_999, 1_900_000, 5_000_000] {
            push(&mut records, "1", "a", true, micros);
        }
        assert_eq!(records.counts().highest_arrivals_per_second, 4);
    }

    #[test]
    fn deleting_forgets_everything_but_numbers_and_what_is_in_flight() {
        let mut records = Records::default();
        let open = push(&mut records, "1", "a", true, 0);
        let done = push(&mut records, "2", "b", true, 0);
        records.complete(done, false, Timestamp::UNIX_EPOCH);
        records.delete();
        assert_eq!(records.counts().in_flight, 1);
        assert_eq!((records.counts().requests, records.message_id("a")), (0, None));
        assert_eq!(push(&mut records, "1", "a", true, 0), 3);
        records.complete(open, true, Timestamp::UNIX_EPOCH);
        let sends = records.sends(&SendQuery::default());
        assert_eq!(sends.len(), 1);
        assert_eq!((sends[0].message_id.as_deref(), sends[0].completed), (Some("sim-3"), None));
        assert_eq!((records.counts().in_flight, records.counts().clients_left), (1, 0));
    }

    #[test]
    fn entries_are_found_by_chat_token_and_acceptance() {
        let mut records = Records::default();
        for (chat, token, accepts) in [("1", "a", false), ("1", "a", true), ("2", "b", true)] {
            push(&mut records, chat, token, accepts, 0);
        }
        let found = |query: SendQuery| -> Vec<u64> {
            records.sends(&query).iter().map(|entry| entry.sequence).collect()
        };
        let broadcast = Some("shop/sale".to_owned());
        let chat = Some("1".to_owned());
        assert_eq!(found(SendQuery::default()), [1, 2, 3]);
        assert_eq!(found(SendQuery { chat: chat.clone(), ..SendQuery::default() }), [1, 2]);
        assert_eq!(found(SendQuery { broadcast, chat, accepted: Some(true), ..SendQuery::default() }), [2]);
        assert_eq!(found(SendQuery { token: Some("b".into()), ..SendQuery::default() }), [3]);
    }

    #[test]
    fn two_hundred_thousand_requests_are_no_burden() {
        let mut records = Records::default();
        for number in 0..200_000 {
            push(&mut records, &number.to_string(), &format!("t{number}"), true, number);
        }
        assert_eq!(records.counts().accepted, 200_000);
        for number in 0..200_000 {
            assert_eq!(records.accepted("shop/sale", &number.to_string()), 1);
        }
    }
}
