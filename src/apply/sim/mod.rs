//! A seeded simulation of the engine.
//!
//! [`run`] plays one scenario: one to four appliers run the real [`apply::run`](crate::apply::run) with its
//! rounds, its feed, its chunks and its limiter. Only what is outside of it is simulated: the ledger
//! ([`MemoryStore`](crate::ledger::memory::MemoryStore), which passes the tests of every ledger), the provider,
//! the clocks, the source of the messages, and the people who stop runs and settle unknown sends. Processes
//! crash at any await, are suspended for longer than their lease, and start again; commits are slow, fail, or
//! lose their answer before or after they are durable; the provider does everything that a provider may do.
//!
//! Everything happens on one thread with a paused clock, and every choice comes from the seed, so one seed is
//! one run, byte for byte. After each run [`check`] holds the record and the provider against each other:
//!
//! * at most one request is started for each attempt, and only with a durable intent;
//! * nobody gets a message twice, and nobody is lost: once a last applier has finished, each recipient is
//!   accepted, rejected or unknown, as the provider has it;
//! * there are at most as many unknown sends without a fault of their own as the concurrency, for each run
//!   that did not end as it should;
//! * no run has more intents open than its concurrency;
//! * `ledger check` finds nothing.

mod check;
mod gateway;
mod ledger;
mod process;
mod rng;
mod scenario;
mod source;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeSet;

pub use self::world::EndingKind;

/// What a scenario came to.
#[derive(Debug)]
pub struct Report {
    /// A hash of everything that happened, in order.
    pub digest: u64,
    /// How the runs of the scenario ended.
    pub endings: BTreeSet<EndingKind>,
    /// How many requests were started.
    pub requests: u64,
    /// How many processes crashed.
    pub crashes: u64,
    /// How many runs began.
    pub runs: u64,
    /// Everything that happened, if it was to be kept.
    pub trace: String,
}

/// A scenario in which the promise was broken.
#[derive(Debug)]
pub struct Failure {
    /// The seed, which plays it again.
    pub seed: u64,
    /// What went wrong.
    pub problems: Vec<String>,
    /// Everything that happened, if it was to be kept.
    pub trace: String,
}

/// Plays the scenario of a seed. `keep_trace` keeps a text of everything that happens.
pub fn run(seed: u64, keep_trace: bool) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(process::play(seed, keep_trace)),
        Err(error) => Err(Failure { seed, problems: vec![error.to_string()], trace: String::new() }),
    }
}
