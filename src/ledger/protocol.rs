//! The protocol as pure functions: which moves a send may make.
//!
//! A ledger asks these, or says the same in SQL; the conformance suite holds it to them.

use serde::{Deserialize, Serialize};

use super::State;

/// Where a send stands: its last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stand {
    /// Where it stands.
    pub state: State,
    /// The last attempt.
    pub attempt: u32,
    /// The run that claimed it.
    pub run: i64,
}

/// Whether a claim for `attempt` may be granted.
pub fn may_claim(before: Option<Stand>, attempt: u32, retry_rejected: bool) -> bool {
    match before {
        None => attempt == 1,
        Some(stand) => {
            let free = match stand.state {
                State::NotSent => true,
                State::Rejected => retry_rejected,
                State::Intent | State::Accepted | State::Unknown => false,
            };
            free && attempt == stand.attempt + 1
        }
    }
}

/// Whether an outcome that `run` reports for `attempt` moves the send. Only the run that claimed
/// the attempt is heard; it is heard late as well, as long as nothing but doubt was recorded. It may
/// take back an acceptance of its own when it learns that the answer may have been another's.
pub fn may_settle(before: Option<Stand>, attempt: u32, run: i64, to: State) -> bool {
    before.is_some_and(|stand| {
        stand.attempt == attempt
            && stand.run == run
            && to != State::Intent
            && to != stand.state
            && (matches!(stand.state, State::Intent | State::Unknown)
                || (stand.state, to) == (State::Accepted, State::Unknown))
    })
}

/// What evidence shows of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The provider took it: it is never sent again.
    Accepted,
    /// The provider refused it: it is never sent again, unless `--retry-rejected` asks for it.
    Rejected,
    /// It was not sent: it is pending again, under a new attempt.
    NotSent,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 3] = [Verdict::Accepted, Verdict::Rejected, Verdict::NotSent];

    /// The state that it leads to.
    pub fn state(self) -> State {
        match self {
            Verdict::Accepted => State::Accepted,
            Verdict::Rejected => State::Rejected,
            Verdict::NotSent => State::NotSent,
        }
    }
}

/// What evidence comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It settled a doubt.
    Settled,
    /// The record says the same already.
    Already,
    /// The record says otherwise, and stays: evidence settles doubt, it does not overrule an outcome.
    Contradicts(State),
    /// Its run is under way: the outcome may still come.
    UnderWay,
    /// It is about another attempt than the last.
    OtherAttempt(u32),
    /// Nothing is recorded of this send.
    NotRecorded,
}

/// Weighs evidence. `live` says whether the run of the last attempt is under way.
pub fn weigh(before: Option<Stand>, live: bool, attempt: Option<u32>, verdict: Verdict) -> Finding {
    let Some(stand) = before else { return Finding::NotRecorded };
    if attempt.is_some_and(|attempt| attempt != stand.attempt) {
        return Finding::OtherAttempt(stand.attempt);
    }
    match stand.state {
        State::Intent if live => Finding::UnderWay,
        State::Intent | State::Unknown => Finding::Settled,
        state if state == verdict.state() => Finding::Already,
        state => Finding::Contradicts(state),
    }
}
