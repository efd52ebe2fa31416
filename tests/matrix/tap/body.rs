//! The stream of a watch, line by line: each event is named and remembered, and some do not come as they were sent.

use std::collections::VecDeque;
use std::io;

use axum::body::{Body as Answer, BodyDataStream, Bytes};
use broadcast_operator::clock;
use futures::future::{Either, pending, select};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::name::named_in;
use super::{EventFault, Gate, LATE, LATER, TapLayer};

/// A stream that goes through the tap. A late one brings nothing for a while.
pub fn watched(stream: Answer, line: TapLayer, kind: String, is_late: bool) -> Answer {
    let watch = Watch {
        inner: stream.into_data_stream(),
        line,
        kind,
        is_late,
        cut: Vec::new(),
        ready: VecDeque::new(),
        held: None,
        again: None,
        end: End::Open,
    };
    Answer::from_stream(stream::unfold(watch, Watch::next))
}

struct Watch {
    inner: BodyDataStream,
    /// Of the process that watches.
    line: TapLayer,
    kind: String,
    is_late: bool,
    /// The beginning of a line.
    cut: Vec<u8>,
    ready: VecDeque<Bytes>,
    held: Option<Held>,
    /// An event that comes again after the next one of its object.
    again: Option<Line>,
    end: End,
}

/// How the stream ends, once everything that is ready has come.
enum End {
    Open,
    Over,
    Broken,
    Silent,
}

/// Events that come late.
struct Held {
    lines: Vec<Line>,
    fault: EventFault,
    until: Until,
}

/// How long they are held back.
enum Until {
    Time(std::time::Instant),
    Open(Gate),
}

impl Until {
    async fn is_over(&self) {
        match self {
            Self::Time(time) => {
                clock::wait(time.saturating_duration_since(clock::monotonic())).await;
            }
            Self::Open(gate) => gate.pass().await,
        }
    }
}

#[derive(Clone)]
struct Line {
    object: String,
    bytes: Bytes,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<Bytes, io::Error>, Self)> {
        if std::mem::take(&mut self.is_late) {
            let _hanging = self.line.tap.hang();
            clock::wait(LATE).await;
        }
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some((Ok(bytes), self));
            }
            match self.end {
                End::Open => {}
                End::Over => return None,
                End::Silent => pending().await,
                End::Broken => {
                    self.end = End::Over;
                    return Some((Err(io::ErrorKind::ConnectionReset.into()), self));
                }
            }
            match self.more().await {
                Some(Ok(bytes)) => self.split(&bytes),
                Some(Err(error)) => return Some((Err(io::Error::other(error)), self)),
                None => {
                    self.let_go();
                    self.end = End::Over;
                }
            }
        }
    }

    /// Bytes of the API server; none when events that were held back are due first.
    async fn more(&mut self) -> Option<Result<Bytes, axum::Error>> {
        let Some(held) = &self.held else { return self.inner.next().await };
        let bytes = match select(self.inner.next(), Box::pin(held.until.is_over())).await {
            Either::Left((bytes, _)) => return bytes,
            Either::Right(_) => Bytes::new(),
        };
        self.let_go();
        Some(Ok(bytes))
    }

    fn split(&mut self, bytes: &[u8]) {
        self.cut.extend_from_slice(bytes);
        while let Some(end) = self.cut.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.cut.drain(..=end).collect();
            if matches!(self.end, End::Open) {
                self.take(&line);
            }
        }
    }

    fn take(&mut self, line: &[u8]) {
        let event: Value = serde_json::from_slice(line).unwrap_or_default();
        let kind = event["type"].as_str().unwrap_or_default();
        let object = named_in(&self.kind, &event["object"]).unwrap_or_default();
        let line = Line { object: object.clone(), bytes: self.line.tap.garbled(&event["object"], line) };
        if object.is_empty() {
            // A bookmark would tell that everything before it has come.
            if self.held.is_none() {
                self.ready.push_back(line.bytes);
            }
            return;
        }
        let fault = self.line.tap.event(&format!("EVENT-{}-{kind}-{object}", self.kind), self.line.process);
        if let Some(fault) = &fault {
            tracing::info!(target: "matrix", event = kind, object, ?fault, "fault");
        }
        match fault {
            None => self.pass(line),
            Some(EventFault::Double) => {
                self.pass(line.clone());
                self.pass(line);
            }
            Some(EventFault::Again) => {
                self.pass(line.clone());
                self.again = Some(line);
            }
            Some(
                fault @ (EventFault::Drop | EventFault::Compact | EventFault::Delay | EventFault::LongDelay),
            ) => {
                let late = if fault == EventFault::LongDelay { LATER } else { LATE };
                let until = Until::Time(clock::monotonic() + late);
                self.held = Some(Held { lines: vec![line], fault, until });
            }
            Some(EventFault::Held(gate)) => {
                let fault = EventFault::Compact;
                self.held = Some(Held { lines: vec![line], fault, until: Until::Open(gate) });
            }
            Some(EventFault::Cut) => {
                self.ready.push_back(line.bytes.slice(..line.bytes.len() / 2));
                self.end = End::Broken;
            }
            Some(EventFault::Gone) => self.fail(410, "Expired"),
            Some(EventFault::Error) => self.fail(500, "InternalError"),
            Some(EventFault::Silence) => self.end = End::Silent,
        }
    }

    fn pass(&mut self, line: Line) {
        if let Some(held) = &mut self.held {
            let is_same = held.lines.iter().any(|earlier| earlier.object == line.object);
            match held.fault {
                // What was dropped is never missed: a later state of the object has come.
                EventFault::Drop if is_same => self.held = None,
                // Other objects are not held up by an event that never comes.
                EventFault::Drop => {}
                _ => {
                    held.lines.push(line);
                    return;
                }
            }
        }
        let again =
            self.again.take_if(|earlier| earlier.object == line.object && earlier.bytes != line.bytes);
        self.ready.push_back(line.bytes);
        self.ready.extend(again.map(|line| line.bytes));
    }

    /// Lets go what was held back.
    fn let_go(&mut self) {
        let Some(Held { lines, fault, .. }) = self.held.take() else { return };
        for (number, line) in lines.iter().enumerate() {
            let is_last = lines[number + 1..].iter().all(|later| later.object != line.object);
            if is_last || fault != EventFault::Compact {
                self.ready.push_back(line.bytes.clone());
            }
        }
    }

    fn fail(&mut self, code: u16, reason: &str) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "a fault of the matrix", "reason": reason, "code": code,
        });
        self.ready.push_back(format!("{}\n", json!({"type": "ERROR", "object": status})).into());
        self.end = End::Over;
    }
}
