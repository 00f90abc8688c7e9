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
mod ending;
mod engine;
mod event;
pub mod feed;
mod limiter;
mod run;
#[cfg(any(test, feature = "simulation"))]
pub mod sim;
#[cfg(test)]
mod tests;

pub use ending::{RunEnding, RunError, Shared};
pub use engine::{Engine, LostOutcome, NextRound, Setup};
pub use event::{Event, Progress, ShutdownRequest};
pub use feed::PlanSource;
pub use run::{ApprovedPlan, KeepLost, Run, RunResult, RunSummary, run};
