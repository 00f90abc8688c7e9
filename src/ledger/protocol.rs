//! The protocol as pure functions: which moves a send may make.
//!
//! A ledger asks these, or says the same in SQL; the conformance suite holds it to them.

use serde::Serialize;

use crate::domain::send::{Resolution, SendState};

/// Where a send stands: its last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stand {
    /// Where it stands.
    pub state: SendState,
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
                SendState::NotSent => true,
                SendState::Rejected => retry_rejected,
                SendState::Intent | SendState::Accepted | SendState::Unknown => false,
            };
            free && attempt == stand.attempt + 1
        }
    }
}

/// What the record holds of a send when one of its runs reports an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    /// Where the send stands: its last attempt.
    pub stand: Stand,
    /// Whether the record holds the intent that the outcome is about: this attempt, by this run.
    pub claimed: bool,
    /// Whether the send stands where it stands because the reporting run said so of this attempt.
    pub own_word: bool,
    /// Whether the provider's id is recorded for the attempt that the outcome is about.
    pub has_id: bool,
}

/// What an outcome comes to that a run reports for one of its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hearing {
    /// The send moves.
    Moves,
    /// The send stands at `accepted` already; the provider's id is added.
    AddsId,
    /// There is nothing to record: the record says the same, or knows more.
    Known,
    /// The record knows something else and stays. What the run saw is not recorded.
    Overruled,
    /// The record cannot follow, and a person may have got it twice or not at all: what the run saw
    /// is kept as a contradiction.
    Contradicts,
    /// The record holds no such intent: it has lost it.
    NotRecorded,
}

impl Hearing {
    /// Whether what the run saw is in the record, in one way or another.
    pub fn taken(self) -> bool {
        matches!(self, Hearing::Moves | Hearing::AddsId | Hearing::Known)
    }
}

/// Whether an outcome that `run` reports for `attempt` moves the send, as far as its last attempt
/// alone can tell: [`hear`] decides about everything else.
pub fn may_settle(before: Option<Stand>, attempt: u32, run: i64, to: SendState) -> bool {
    before.is_some_and(|stand| {
        stand.attempt == attempt
            && stand.run == run
            && to != SendState::Intent
            && to != stand.state
            && matches!(stand.state, SendState::Intent | SendState::Unknown)
    })
}

/// What an outcome comes to that `run` reports for `attempt`, however late.
///
/// An acceptance makes the send `accepted` wherever that only prevents a send: also where others
/// have called the attempt, or a later one, rejected or not sent. A run may take its own acceptance
/// back, since it may find that two answers carry one id.
pub fn hear(held: Option<Held>, attempt: u32, run: i64, to: SendState) -> Hearing {
    let Some(held) = held.filter(|held| held.claimed) else { return Hearing::NotRecorded };
    let stand = held.stand;
    let last = stand.attempt == attempt && stand.run == run;
    match (to, stand.state) {
        (SendState::Intent, _) => Hearing::Known,
        // Also of an attempt before the last: it is offered again after a lost answer.
        (SendState::Accepted, SendState::Accepted) if held.has_id => Hearing::Known,
        (SendState::Accepted, SendState::Accepted) if last => Hearing::AddsId,
        (SendState::Accepted, SendState::NotSent | SendState::Rejected) => Hearing::Moves,
        (SendState::Unknown, SendState::Accepted) if last && held.own_word => Hearing::Moves,
        _ if may_settle(Some(stand), attempt, run, to) => Hearing::Moves,
        // A later attempt is open, unknown or accepted.
        (SendState::Accepted, _) => Hearing::Contradicts,
        // A person called it accepted.
        (SendState::Rejected | SendState::NotSent, SendState::Accepted) if last => Hearing::Contradicts,
        (SendState::Rejected, SendState::NotSent) | (SendState::NotSent, SendState::Rejected) if last => {
            Hearing::Overruled
        }
        _ => Hearing::Known,
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
    Contradicts(SendState),
    /// Its run is under way: the outcome may still come.
    UnderWay,
    /// It is about another attempt than the last.
    OtherAttempt(u32),
    /// Nothing is recorded of this send.
    NotRecorded,
}

/// Weighs evidence. `live` says whether the run of the last attempt is under way.
pub fn weigh(before: Option<Stand>, live: bool, attempt: Option<u32>, resolution: Resolution) -> Finding {
    let Some(stand) = before else { return Finding::NotRecorded };
    if attempt.is_some_and(|attempt| attempt != stand.attempt) {
        return Finding::OtherAttempt(stand.attempt);
    }
    match stand.state {
        SendState::Intent if live => Finding::UnderWay,
        SendState::Intent | SendState::Unknown => Finding::Settled,
        state if state == resolution.state() => Finding::Already,
        state => Finding::Contradicts(state),
    }
}
