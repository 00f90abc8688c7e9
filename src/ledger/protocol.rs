//! The protocol as pure functions: which transitions a send may make.
//!
//! A ledger calls these functions, or states the same rules in SQL; the conformance suite compares the two.

use serde::Serialize;

use crate::domain::send::{Resolution, SendState};

/// The state of a send, and its last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LastAttempt {
    /// The state of the send.
    pub state: SendState,
    /// The number of the last attempt.
    pub attempt: u32,
    /// The run that claimed it.
    pub run: i64,
}

/// Whether a claim for `attempt` may be granted.
pub fn may_claim(before: Option<LastAttempt>, attempt: u32, retry_rejected: bool) -> bool {
    match before {
        None => attempt == 1,
        Some(last) => {
            let free = match last.state {
                SendState::NotSent => true,
                SendState::Rejected => retry_rejected,
                SendState::Intent | SendState::Accepted | SendState::Unknown => false,
            };
            free && attempt == last.attempt + 1
        }
    }
}

/// What the record holds of a send when one of its runs reports an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReportContext {
    /// The state of the send, and its last attempt.
    pub last: LastAttempt,
    /// Whether the record holds the intent that the report is about: this attempt, by this run.
    pub claimed: bool,
    /// Whether the send has its state because the reporting run reported it for this attempt.
    pub own_word: bool,
    /// Whether the provider's message id is recorded for the attempt that the report is about.
    pub has_id: bool,
}

/// The effect of a run's report about one of its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReportEffect {
    /// The send moves to the reported state.
    Moves,
    /// The send is `accepted` already; the provider's message id is added.
    AddsId,
    /// None: the record says the same, or knows more.
    Known,
    /// None: the record says something else and stays as it is. The report is not recorded.
    Overruled,
    /// The record cannot follow, and the recipient may have got the message twice or not at all: the report
    /// is kept as a contradiction.
    Contradicts,
    /// The record holds no such intent: it has lost it.
    NotRecorded,
}

impl ReportEffect {
    /// Whether the record contains what the run reported.
    pub fn taken(self) -> bool {
        matches!(self, ReportEffect::Moves | ReportEffect::AddsId | ReportEffect::Known)
    }
}

/// Whether `run`'s report that `attempt` ended in the state `to` moves the send, judged by the last attempt
/// alone. [`evaluate_report`] decides about everything else.
pub fn may_settle(before: Option<LastAttempt>, attempt: u32, run: i64, to: SendState) -> bool {
    before.is_some_and(|last| {
        last.attempt == attempt
            && last.run == run
            && to != SendState::Intent
            && to != last.state
            && matches!(last.state, SendState::Intent | SendState::Unknown)
    })
}

/// The effect of `run`'s report that `attempt` ended in the state `to`, however late the report comes.
///
/// An acceptance makes the send `accepted` wherever that can only prevent a send: also where somebody
/// called the attempt, or a later one, rejected or not sent. A run may take its own acceptance back,
/// because it may find that two answers carry one id.
pub fn evaluate_report(context: Option<ReportContext>, attempt: u32, run: i64, to: SendState) -> ReportEffect {
    let Some(context) = context.filter(|context| context.claimed) else { return ReportEffect::NotRecorded };
    let before = context.last;
    let is_last = before.attempt == attempt && before.run == run;
    match (to, before.state) {
        (SendState::Intent, _) => ReportEffect::Known,
        // Also for an attempt before the last: the report is repeated after a lost answer.
        (SendState::Accepted, SendState::Accepted) if context.has_id => ReportEffect::Known,
        (SendState::Accepted, SendState::Accepted) if is_last => ReportEffect::AddsId,
        (SendState::Accepted, SendState::NotSent | SendState::Rejected) => ReportEffect::Moves,
        (SendState::Unknown, SendState::Accepted) if is_last && context.own_word => ReportEffect::Moves,
        _ if may_settle(Some(before), attempt, run, to) => ReportEffect::Moves,
        // A later attempt is open, unknown or accepted.
        (SendState::Accepted, _) => ReportEffect::Contradicts,
        // A person called it accepted.
        (SendState::Rejected | SendState::NotSent, SendState::Accepted) if is_last => ReportEffect::Contradicts,
        (SendState::Rejected, SendState::NotSent) | (SendState::NotSent, SendState::Rejected) if is_last => {
            ReportEffect::Overruled
        }
        _ => ReportEffect::Known,
    }
}

/// The effect of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It settled an unknown outcome.
    Settled,
    /// The record says the same already.
    Already,
    /// The record says otherwise and stays as it is: evidence settles unknown outcomes, it overrules none.
    Contradicts(SendState),
    /// The run of the attempt is under way: its outcome may still come.
    UnderWay,
    /// The evidence is about another attempt than the last.
    OtherAttempt(u32),
    /// The record does not hold the send.
    NotRecorded,
}

/// Evaluates evidence about a send. `live` says whether the run of the last attempt is under way.
pub fn evaluate(before: Option<LastAttempt>, live: bool, attempt: Option<u32>, resolution: Resolution) -> Finding {
    let Some(last) = before else { return Finding::NotRecorded };
    if attempt.is_some_and(|attempt| attempt != last.attempt) {
        return Finding::OtherAttempt(last.attempt);
    }
    match last.state {
        SendState::Intent if live => Finding::UnderWay,
        SendState::Intent | SendState::Unknown => Finding::Settled,
        state if state == resolution.state() => Finding::Already,
        state => Finding::Contradicts(state),
    }
}
