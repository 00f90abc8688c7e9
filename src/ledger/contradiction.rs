//! Reports of runs that the record could not follow.
//!
//! A run reports late that the provider accepted a message, after somebody decided that the message was not
//! sent and it was sent again. Or it reports that the provider rejected a message that a person has called
//! accepted. The record stays as it is, because nothing may be sent because of the report, and the report is
//! kept beside it for people to read.

use super::protocol::LastAttempt;
use crate::domain::send::{SendKey, SendState, Settlement};

/// A report of a run that the record could not follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The run that reported it, which is the run of the attempt.
    pub run: i64,
    /// When it was reported, in milliseconds since 1970.
    pub at: i64,
    /// The send.
    pub key: SendKey,
    /// The attempt.
    pub attempt: u32,
    /// The state that the run reported.
    pub said: SendState,
    /// The provider's id of the message.
    pub message_id: Option<String>,
    /// The provider's reason.
    pub reason: Option<String>,
    /// The state that the record held.
    pub stood: SendState,
    /// The last attempt that the record held.
    pub stood_attempt: u32,
}

impl Contradiction {
    /// The contradiction between a settlement and a record whose last attempt is `last`.
    pub(super) fn of(run: i64, at: i64, settlement: &Settlement, last: LastAttempt) -> Self {
        Self {
            run,
            at,
            key: settlement.key,
            attempt: settlement.attempt,
            said: settlement.result.state(),
            message_id: settlement.result.message_id().map(ToOwned::to_owned),
            reason: settlement.result.reason().map(ToOwned::to_owned),
            stood: last.state,
            stood_attempt: last.attempt,
        }
    }

    /// The contradiction in one sentence.
    pub fn sentence(&self) -> String {
        let id = self.message_id.as_deref().map_or_else(String::new, |id| format!(" with the id {id}"));
        let reason = self.reason.as_deref().map_or_else(String::new, |reason| format!(" ({reason})"));
        let danger = match self.said {
            SendState::Accepted => "the recipient may have got the message twice",
            _ => "the recipient may not have got the message",
        };
        format!(
            "run {} reported attempt {} as {}{id}{reason}, when the record had attempt {} as {}: {danger}",
            self.run, self.attempt, self.said, self.stood_attempt, self.stood
        )
    }
}
