//! The ledger: the durable record of sends, and the gate that each passes once.
//!
//! # The protocol
//!
//! A send is in one of these states. Only the applier that holds the lease moves it, by appending
//! to a journal; nothing is ever changed or removed.
//!
//! ```text
//!             claim                 settle
//! (nothing) ────────▶ intent ──────────────▶ accepted
//!                       │  ──────────────▶ rejected ──claim, only if asked──▶ intent (attempt + 1)
//!                       │  ──────────────▶ not sent ──claim────────────────▶ intent (attempt + 1)
//!                       └─ ──────────────▶ unknown
//! ```
//!
//! * A claim is durable before the first byte of its request leaves. It carries the content digest,
//!   the coupon and the expiry instant, so that a code is bound in the same transaction.
//! * A claim is granted only from *(nothing)*, from *not sent*, and from *rejected* if the user
//!   asked for it. So at most one request is ever started per attempt, and a further attempt exists
//!   only where the one before provably sent nothing.
//! * An intent without an outcome whose run is over is `unknown`; the next run writes that down.
//! * Settlements and claims are committed together: a slot is free for a new claim only once the
//!   outcome that freed it is durable. So the intents without an outcome are never more than the
//!   concurrency, whenever the process dies.

pub mod key;
pub mod sqlite;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;

use jiff::Timestamp;

use crate::gateway::Outcome;
use crate::message::ContentDigest;
use crate::offer::{CouponCode, ExpiresAt};
pub use key::{LedgerKey, SendKey, SendKeys};

/// What the ledger is told before a request starts.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Whose send.
    pub key: SendKey,
    /// 1, or one more than an attempt that provably sent nothing.
    pub attempt: u32,
    /// What they would see.
    pub digest: ContentDigest,
    /// The code, which is theirs from now on.
    pub coupon: CouponCode,
    /// When the offer ends.
    pub expires: Option<ExpiresAt>,
    /// The number with its middle hidden.
    pub masked: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// As the gateway says.
    Outcome(Outcome),
    /// Provably nothing was sent: the send may be claimed again.
    NotSent {
        /// Why.
        reason: String,
    },
}

/// An attempt and how it ended.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Whose send.
    pub key: SendKey,
    /// Which attempt.
    pub attempt: u32,
    /// How it ended.
    pub ending: Ending,
}

/// What a commit makes durable, all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Attempts that ended.
    pub settle: Vec<Settlement>,
    /// Attempts about to start.
    pub claim: Vec<Intent>,
}

/// The answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The request may start.
    Granted,
    /// Somebody else has this send, or had it before: the request must not start.
    Held,
}

/// Where a send stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// About to be sent, or being sent.
    Intent,
    /// The provider took it.
    Accepted,
    /// The provider refused it.
    Rejected,
    /// It cannot be told.
    Unknown,
    /// Provably not sent: pending.
    NotSent,
}

/// What the ledger holds of one send.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Where it stands.
    pub state: State,
    /// The last attempt.
    pub attempt: u32,
    /// The run of the last attempt.
    pub run: i64,
    /// The code that is bound to it.
    pub coupon: Box<str>,
}

/// What the ledger holds of one edition of a campaign.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// How far the ledger went when this was read: a run may only begin where nothing was written since.
    pub position: i64,
    /// Its sends.
    pub sends: HashMap<SendKey, Recorded>,
    /// The instant of the plan that its first messages were sent under.
    pub planned_at: Option<Timestamp>,
    /// Codes that other campaigns or editions gave away out of a pool.
    pub spent_codes: Vec<Box<str>>,
}

/// What a run says of itself when it starts.
#[derive(Debug, Clone)]
pub struct RunStart {
    /// The campaign.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// The approved plan.
    pub plan_hash: String,
    /// The instant that the plan's expiry counts from.
    pub planned_at: Timestamp,
    /// Whether codes come out of a pool.
    pub pool: bool,
    /// How many people the campaign is for.
    pub recipients: u64,
    /// Whether sends that the provider refused may be claimed again.
    pub retry_rejected: bool,
}

/// Why the ledger cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another applier has the lease.
    #[error("the ledger is held by {holder}")]
    Held {
        /// Who, and since when.
        holder: String,
    },
    /// Another process wrote although this one has the lease: stop before anything else happens.
    #[error("another process wrote to the ledger during this run")]
    Fenced,
    /// The ledger was made with another key, so nobody could be told apart.
    #[error("the ledger was made with another key (its fingerprint is {ledger}, the given one's {given})")]
    WrongKey {
        /// The ledger's key.
        ledger: String,
        /// The key at hand.
        given: String,
    },
    /// The ledger was written by a newer version of this program.
    #[error("the ledger has format {found}; this version knows formats up to {known}")]
    Newer {
        /// Its format.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// The file is something else.
    #[error("`{0}` is not a Sendform ledger")]
    NotALedger(String),
    /// The disk or the database says no.
    #[error("the ledger `{path}` cannot be {doing}: {problem}")]
    Storage {
        /// Which file.
        path: String,
        /// Read or written.
        doing: &'static str,
        /// What it says.
        problem: String,
    },
    /// The key cannot be read or made.
    #[error("the ledger's key {0}")]
    Key(String),
}

/// Whether there is a ledger file. Only a name that nothing stands under is absent: a link that
/// leads nowhere or a disk that does not answer is an error, since a new ledger in its place would
/// have forgotten everybody.
pub fn exists(path: &std::path::Path) -> Result<bool, LedgerError> {
    let unclear = |error: std::io::Error| LedgerError::Storage {
        path: path.display().to_string(),
        doing: "found",
        problem: error.to_string(),
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unclear(error)),
        Ok(_) => std::fs::metadata(path).map(|_| true).map_err(unclear),
    }
}

/// The ledger as the engine sees it during a run: it holds the lease.
pub trait RunLedger: Send + 'static {
    /// Makes a batch durable, and answers each claim in order. An error means that nothing of the
    /// batch is known to be durable: no request of it may start.
    fn commit(&mut self, batch: Batch) -> impl Future<Output = Result<Vec<Claim>, LedgerError>> + Send;
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Intent => "intent",
            State::Accepted => "accepted",
            State::Rejected => "rejected",
            State::Unknown => "unknown",
            State::NotSent => "not sent",
        })
    }
}
