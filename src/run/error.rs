//! Why a process of the operator ends.

use std::net::SocketAddr;

use tokio::task::JoinError;

use crate::dispatcher;
use crate::lease::{InvalidTimes, WentBack};
use crate::shutdown::DRAIN_DEADLINE;

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No threads.
    #[error("failed to start the runtime")]
    Runtime(#[source] std::io::Error),
    /// Signals cannot be listened to.
    #[error("failed to listen to signals")]
    Signals(#[source] std::io::Error),
    /// No cluster to connect to.
    #[error("failed to find a cluster: set KUBECONFIG, or run in a pod with a service account")]
    Config(#[source] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("failed to set up the client of the cluster")]
    Client(#[source] kube::Error),
    /// The lease times cannot work together.
    #[error("--lease-duration, --lease-renew-deadline and --lease-retry-period do not fit together")]
    LeaseTimes(#[source] InvalidTimes),
    /// A port is taken.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Sending stopped.
    #[error("the dispatcher ended")]
    Dispatcher(#[source] dispatcher::SenderDied),
    /// What this process knows is of another history.
    #[error("starting anew")]
    WentBack(#[source] WentBack),
    /// Nothing comes by the watches, although the API server takes what is written.
    #[error("this process has seen nothing for too long, although its renewals succeed: {reason}")]
    Blind {
        /// Which watch, and how it fails.
        reason: String,
    },
    /// A part panicked.
    #[error("the {part} died")]
    Died {
        /// Which one.
        part: &'static str,
        /// How.
        #[source]
        source: JoinError,
    },
    /// A part ended without being told to.
    #[error("the {part} ended by itself")]
    Ended {
        /// Which one.
        part: &'static str,
    },
    /// The requests in flight did not come to an end.
    #[error(
        "requests in flight were not recorded within {} s: they will be Unknown", DRAIN_DEADLINE.as_secs()
    )]
    NotDrained,
}
