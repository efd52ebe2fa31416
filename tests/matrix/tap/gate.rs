//! A gate that something waits at until a test opens it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::watch;

/// Closed at first. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reached: watch::Sender<bool>,
    open: watch::Sender<bool>,
    /// The same for a thread that must stand still.
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Gate {}

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            reached: watch::Sender::new(false),
            open: watch::Sender::new(false),
            is_open: Mutex::new(false),
            opened: Condvar::new(),
        }))
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        *self.0.is_open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.opened.notify_all();
        self.0.open.send_replace(true);
    }

    /// Waits until somebody has come to it.
    pub async fn reached(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.0.reached.subscribe().wait_for(|reached| *reached).await;
    }

    /// Comes to the gate, and waits until it is open.
    pub async fn pass(&self) {
        self.0.reached.send_replace(true);
        let _ = self.0.open.subscribe().wait_for(|open| *open).await;
    }

    /// Comes to the gate, and stops the whole thread until it is open.
    pub fn freeze(&self) {
        self.0.reached.send_replace(true);
        let mut is_open = self.0.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_open {
            is_open = self.0.opened.wait(is_open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
