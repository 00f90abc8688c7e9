//! What a run saw and the record cannot follow.
//!
//! A run reports late that the provider took a message, and meanwhile somebody has decided that it
//! was not sent, and it was sent again. Or it reports that the provider refused what a person has
//! called accepted. The record stays as it is, since nothing may be sent because of it, and what the
//! run saw is kept beside it, for people.

use serde::Serialize;

use super::{SendKey, SendState, Settlement};
use crate::ledger::protocol::Stand;

/// A report of a run that the record could not follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The run that reported it, which is the run of the attempt.
    pub run: i64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Whose send.
    pub key: SendKey,
    /// Which attempt.
    pub attempt: u32,
    /// What the run saw.
    pub said: SendState,
    /// The provider's id.
    pub message_id: Option<String>,
    /// The provider's words.
    pub reason: Option<String>,
    /// Where the send stood then.
    pub stood: SendState,
    /// Its last attempt then.
    pub stood_attempt: u32,
}

impl Contradiction {
    /// What a settlement comes to that the record, where the send stands at `stand`, cannot follow.
    pub(super) fn of(run: i64, at: i64, settlement: &Settlement, stand: Stand) -> Self {
        Self {
            run,
            at,
            key: settlement.key,
            attempt: settlement.attempt,
            said: settlement.result.state(),
            message_id: settlement.result.message_id().map(ToOwned::to_owned),
            reason: settlement.result.reason().map(ToOwned::to_owned),
            stood: stand.state,
            stood_attempt: stand.attempt,
        }
    }

    /// One sentence for people.
    pub fn sentence(&self) -> String {
        let id = self.message_id.as_deref().map_or_else(String::new, |id| format!(" with the id {id}"));
        let reason = self.reason.as_deref().map_or_else(String::new, |reason| format!(" ({reason})"));
        let danger = match self.said {
            SendState::Accepted => "the person may have got it twice",
            _ => "the person may not have got it",
        };
        format!(
            "run {} reported attempt {} as {}{id}{reason}, when the record had attempt {} as {}: {danger}",
            self.run, self.attempt, self.said, self.stood_attempt, self.stood
        )
    }
}

/// A contradiction as it is printed in JSON.
#[derive(Debug, Serialize)]
pub struct ContradictionJson {
    send: String,
    run: i64,
    at: jiff::Timestamp,
    attempt: u32,
    said: SendState,
    message_id: Option<String>,
    reason: Option<String>,
    stood: SendState,
    stood_attempt: u32,
}

impl From<&Contradiction> for ContradictionJson {
    fn from(found: &Contradiction) -> Self {
        Self {
            send: found.key.to_string(),
            run: found.run,
            at: super::instant(found.at),
            attempt: found.attempt,
            said: found.said,
            message_id: found.message_id.clone(),
            reason: found.reason.clone(),
            stood: found.stood,
            stood_attempt: found.stood_attempt,
        }
    }
}
