//! What a run reports while it works, and how it is asked to stop.

use std::time::Duration;

use jiff::Timestamp;

use crate::ledger::{Activity, Head};

/// How urgently a run is asked to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShutdownRequest {
    /// Not at all.
    #[default]
    None,
    /// Claim nothing more, and wait for the requests in flight.
    Graceful,
    /// Wait for nothing: requests in flight are recorded as unknown.
    Immediate,
}

/// The figures of a run so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Accepted by the provider.
    pub accepted: u64,
    /// Rejected by the provider.
    pub rejected: u64,
    /// Sent, with an outcome that nobody knows.
    pub unknown: u64,
    /// Provably not sent, and given up for this run.
    pub not_sent: u64,
    /// Attempts that provably sent nothing and were made again.
    pub retries: u64,
    /// Claims that the ledger refused, because somebody else has that send or had it before.
    pub held: u64,
    /// Claims that the ledger granted, retries included.
    pub granted: u64,
    /// Attempts that provably sent nothing.
    pub attempts_not_sent: u64,
    /// Requests in flight.
    pub in_flight: u64,
}

/// Something that whoever started the run may want to show.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run has begun.
    Started {
        /// Its number in the ledger.
        run: i64,
        /// The ledger's head as of its start.
        head: Head,
        /// Settings of the store that make it less durable than it could be.
        warnings: Vec<String>,
    },
    /// The run pauses, because the provider cannot be reached or asks to slow down, or because the
    /// ledger does not answer.
    Waiting {
        /// The reason.
        reason: String,
        /// The length of the pause.
        pause: Duration,
    },
    /// The run pauses, because other appliers have reserved the sender number's rate.
    Reserved {
        /// The end of the pause.
        until: Timestamp,
        /// The length of the pause.
        pause: Duration,
    },
    /// The outcome of one send was rejected or unknown.
    Trouble {
        /// The number with its middle hidden.
        to: String,
        /// `rejected` or `unknown`.
        outcome: &'static str,
        /// The reason.
        reason: String,
    },
    /// This applier is done, and waits for the sends that others have in flight.
    Others(Activity),
    /// Something that the gateway noticed about the provider.
    Notice(String),
    /// The run was asked to stop: it claims nothing more, and waits for the requests in flight.
    Stopping,
    /// The run stops for a reason of its own, and waits for the requests in flight.
    StoppingItself {
        /// How many requests are in flight.
        in_flight: u64,
    },
}
