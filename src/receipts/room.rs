//! Room for requests: bytes for bodies that are read, and for each channel a number of receipts that are stored.
//!
//! Whose a body is shows only when it is there whole and its signature is checked. So a body takes room as its bytes come,
//! and a request that sends slowly, or nothing, takes none. What takes longer, the wait for a send and the API server, comes
//! after the signature and takes room of its own channel alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::early::RefusedIds;
use super::refusal::Refusal;
use super::refused_log::RefusedLog;
use crate::domain::ids::ObjectKey;
use crate::domain::receipt::{MAX_NOTICES, NoticeError};

/// Largest body that is read: Meta sends up to 3 MB at once, as its documentation of webhooks says.
pub const MAX_BODY: usize = 4 * 1024 * 1024;
/// Longest time for a body to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are read of a body that was refused, and the longest time for it.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;
const DISCARDED_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of all bodies that are read or checked at the same time.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Receipts of a channel that are stored, or wait for the answers of their sends, at the same time: as many as one body may have.
const MAX_RECEIPTS: usize = MAX_NOTICES;

/// Room for bodies.
pub struct BodyRoom {
    bytes: Arc<Semaphore>,
}

/// A body, and the room that it takes until it is dropped.
#[derive(Debug)]
pub struct Received {
    /// The body as it came.
    pub bytes: Vec<u8>,
    room: OwnedSemaphorePermit,
}

impl Default for BodyRoom {
    fn default() -> Self {
        Self::of(MAX_BYTES)
    }
}

impl BodyRoom {
    fn of(bytes: usize) -> Self {
        Self { bytes: Arc::new(Semaphore::new(bytes)) }
    }

    /// Reads a body of this many bytes at most.
    pub async fn read(&self, body: Body, largest: usize) -> Result<Received, Refusal> {
        match tokio::time::timeout(BODY_TIMEOUT, self.collect(body, largest)).await {
            Ok(read) => read,
            Err(_) => Err(Refusal::Incomplete),
        }
    }

    async fn collect(&self, body: Body, largest: usize) -> Result<Received, Refusal> {
        // It may say so in its head: nothing of it is kept.
        let is_too_large = body.size_hint().lower() > largest as u64;
        let mut chunks = body.into_data_stream();
        if is_too_large {
            tokio::spawn(discard(chunks));
            return Err(Refusal::TooLarge(largest));
        }
        let mut received = Received { bytes: Vec::new(), room: self.take(0)? };
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Refusal::Incomplete)?;
            if received.bytes.len() + chunk.len() > largest {
                tokio::spawn(discard(chunks));
                return Err(Refusal::TooLarge(largest));
            }
            received.room.merge(self.take(chunk.len())?);
            received.bytes.extend_from_slice(&chunk);
        }
        Ok(received)
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let bytes = u32::try_from(bytes).map_err(|_| Refusal::TooLarge(MAX_BODY))?;
        self.bytes.clone().try_acquire_many_owned(bytes).map_err(|_| Refusal::Busy)
    }
}

/// Reads the rest of a body that was refused, and keeps nothing of it: a connection that is closed while its peer still writes is
/// reset, and the peer never sees why.
async fn discard(mut chunks: BodyDataStream) {
    let reading = async {
        let mut left = MAX_DISCARDED;
        while let Some(Ok(chunk)) = chunks.next().await
            && let Some(rest) = left.checked_sub(chunk.len())
        {
            left = rest;
        }
    };
    // Whoever takes longer has had the answer for long.
    let _ = tokio::time::timeout(DISCARDED_WITHIN, reading).await;
}

/// Room for the receipts of one channel.
pub struct ChannelRoom {
    receipts: Arc<Semaphore>,
    /// Ids that no message had when they came.
    pub refused: RefusedIds,
    /// What the log tells of requests that were not trusted.
    pub refusals: RefusedLog,
    /// A receipt named the token of a message of the channel.
    echoes: AtomicBool,
}

impl Default for ChannelRoom {
    fn default() -> Self {
        Self {
            receipts: Arc::new(Semaphore::new(MAX_RECEIPTS)),
            refused: RefusedIds::default(),
            refusals: RefusedLog::default(),
            echoes: AtomicBool::new(false),
        }
    }
}

impl ChannelRoom {
    /// Takes in that receipts of the channel name tokens.
    pub fn note_echo(&self) {
        self.echoes.store(true, Ordering::Relaxed);
    }

    /// Whether receipts of the channel name tokens, as far as some have come: one without is of somebody else's message.
    pub fn echoes(&self) -> bool {
        self.echoes.load(Ordering::Relaxed)
    }

    /// Takes room for so many receipts, until it is dropped.
    pub fn take(&self, receipts: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        // More than fit even when nobody else is there.
        let receipts = u32::try_from(receipts).ok().filter(|number| *number as usize <= MAX_RECEIPTS);
        let receipts = receipts.ok_or(Refusal::Malformed(NoticeError::TooMany))?;
        self.receipts.clone().try_acquire_many_owned(receipts).map_err(|_| Refusal::Busy)
    }
}

/// Room for each channel.
#[derive(Default)]
pub struct ChannelRooms {
    rooms: Mutex<HashMap<ObjectKey, Arc<ChannelRoom>>>,
}

impl ChannelRooms {
    /// The room of a channel. Rooms of channels that do not exist any more are given up.
    pub fn of(&self, channel: &ObjectKey, exists: impl Fn(&ObjectKey) -> bool) -> Arc<ChannelRoom> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(channel) {
            return room.clone();
        }
        rooms.retain(|channel, _| exists(channel));
        rooms.entry(channel.clone()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of which nothing comes.
    fn stalled() -> Body {
        Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>())
    }

    #[tokio::test]
    async fn bodies_of_which_nothing_comes_take_no_room_from_others() {
        let room = Arc::new(BodyRoom::default());
        let stalled: Vec<_> = (0..1000)
            .map(|_| {
                let room = room.clone();
                tokio::spawn(async move { room.read(stalled(), MAX_BODY).await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        for _ in 0..200 {
            assert_eq!(room.read(Body::from("[]"), MAX_BODY).await.expect("room").bytes, b"[]");
        }
        stalled.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn bodies_that_are_held_fill_the_room_and_give_it_back() {
        let room = BodyRoom::of(100);
        let held = room.read(Body::from(vec![b'x'; 80]), MAX_BODY).await.expect("room");
        let refused = room.read(Body::from(vec![b'x'; 80]), MAX_BODY).await;
        assert!(matches!(refused, Err(Refusal::Busy)), "{refused:?}");
        drop(held);
        assert_eq!(room.read(Body::from(vec![b'x'; 80]), MAX_BODY).await.expect("room").bytes.len(), 80);
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused_and_takes_no_room_any_more() {
        let room = BodyRoom::of(2 * MAX_BODY);
        for _ in 0..4 {
            let refused = room.read(Body::from(vec![b'x'; MAX_BODY + 1]), MAX_BODY).await;
            assert!(matches!(refused, Err(Refusal::TooLarge(MAX_BODY))), "{refused:?}");
        }
        assert!(room.read(Body::from(vec![b'x'; MAX_BODY]), MAX_BODY).await.is_ok());
    }

    #[test]
    fn a_channel_without_room_leaves_room_for_others_and_gives_it_back() {
        let rooms = ChannelRooms::default();
        let (busy, idle) = (ObjectKey::new("shop", "busy"), ObjectKey::new("shop", "idle"));
        let held = rooms.of(&busy, |_| true).take(MAX_RECEIPTS).expect("room");
        assert!(matches!(rooms.of(&busy, |_| true).take(1), Err(Refusal::Busy)));
        assert!(rooms.of(&idle, |_| true).take(1).is_ok());
        drop(held);
        assert!(rooms.of(&busy, |_| true).take(1).is_ok());
    }

    #[test]
    fn rooms_of_deleted_channels_are_given_up() {
        let rooms = ChannelRooms::default();
        let (gone, there) = (ObjectKey::new("shop", "gone"), ObjectKey::new("shop", "there"));
        drop(rooms.of(&gone, |_| true));
        drop(rooms.of(&there, |channel| channel == &there));
        assert_eq!(rooms.rooms.lock().expect("unpoisoned").len(), 1);
    }
}
