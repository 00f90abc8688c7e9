//! Applying a plan: claim, pace, send, settle.
//!
//! One dispatcher owns the truth. It takes messages as they become due, makes their intents
//! durable, starts their requests, and makes their outcomes durable; requests run in tasks that
//! report to it alone. A slot is taken by an intent and freed by its *durable* outcome, so at most
//! `concurrency` sends are ever in doubt, whenever the process dies.
//!
//! The engine knows no terminal, no database and no HTTP: the ledger, the gateway and the listener
//! are passed in, and time is tokio's, so that a test runs it all on a paused clock.
//!
//! * A run starts with one send alone and widens when one is accepted: wrong credentials cost one
//!   request, not one for each recipient.
//! * What is provably not sent is tried again after a pause, as a new attempt with a new intent. A
//!   429 pauses the whole number. What cannot be told is never tried again.
//! * After a failed connection, a 429, or several doubts in a row, one send alone is tried after each
//!   pause, and the pauses grow, until one gets through.
//! * An id that comes a second time shows that answers reach the wrong requests: the run takes back
//!   what it cannot believe any more, and ends.
//! * While the ledger does not answer nothing is claimed; outcomes are kept and recorded once it does.
//! * Where the ledger is shared with other appliers, they share the rate and the work: each takes the
//!   next share of the plan, and at the end looks for what others have left.

mod breaker;
mod engine;
mod pace;
mod share;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

use crate::ledger::Activity;

pub use engine::{Engine, Feed, Forgotten, Leftover, Setup};
pub use pace::Pacer;

/// How urgently a run is asked to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    #[default]
    No,
    /// No further claims; wait for what is under way.
    Soon,
    /// Wait for nothing: what is under way is unknown.
    Now,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Every message was taken up.
    Finished,
    /// The user asked to stop.
    Interrupted,
    /// The provider refuses the account, or every request alike.
    Account(String),
    /// The offer would not run long enough any more.
    Late(String),
    /// Nothing was accepted, again and again.
    Hopeless(String),
    /// Two messages had one id: answers may have reached the wrong requests.
    MixedAnswers(String),
    /// Too many sends ended unknown.
    TooManyUnknown(String),
    /// A bound of `delivery.stop_when` was reached.
    Limit(String),
    /// The provider could not be reached, or asked to slow down, for too long.
    Unreachable(String),
    /// The ledger failed: nothing more may be sent.
    Ledger(String),
    /// Others took this run for dead: it is granted nothing more.
    Fenced(String),
    /// The ledger has lost commits of this run that were durable.
    Forgotten,
    /// A message was none of the approved plan's: the files changed during the run.
    Changed,
    /// A code of the plan went to somebody else since the plan was made.
    Outdated,
}

/// What happened in a run so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Taken by the provider.
    pub accepted: u64,
    /// Refused by the provider.
    pub rejected: u64,
    /// Cannot be told.
    pub unknown: u64,
    /// Provably not sent, and given up for this run.
    pub not_sent: u64,
    /// Attempts that provably sent nothing and were made again.
    pub retries: u64,
    /// Held by somebody else, or sent before.
    pub held: u64,
    /// Granted to this run, retries included.
    pub granted: u64,
    /// Attempts that provably sent nothing.
    pub attempts_not_sent: u64,
    /// Under way.
    pub in_flight: u64,
}

/// What the engine tells while it works.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run waits: the provider is out of reach, or asks to slow down.
    Waiting {
        /// Why.
        reason: String,
        /// For how long.
        pause: Duration,
    },
    /// The run waits because other appliers have the sender number's rate reserved.
    Reserved {
        /// Until when.
        until: Timestamp,
        /// How long that is from now.
        pause: Duration,
    },
    /// One send was refused or cannot be told.
    Trouble {
        /// The number with its middle hidden.
        to: String,
        /// `rejected` or `unknown`.
        outcome: &'static str,
        /// Why.
        reason: String,
    },
    /// This applier is done, and waits for what others have under way.
    Others(Activity),
    /// Something that the gateway found out about the provider.
    Notice(String),
    /// The user asked to stop: no further claims; what is under way is waited for.
    Stopping,
    /// The same, for a reason that the run found itself.
    StoppingItself {
        /// How many sends are under way.
        under_way: u64,
    },
}
