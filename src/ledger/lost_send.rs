//! Sends that the ledger has lost, and how they are recorded again.
//!
//! A failover to a standby can lose commits that the database had called durable. The run that notices this
//! keeps its outcomes in a file, and a person records them again with `resolve --file`. Whatever the record
//! holds by then, a send that may have arrived must not be pending afterwards.

use jiff::Timestamp;

use super::contradiction::Contradiction;
use super::protocol::{Finding, LastAttempt};
use super::record::JournalEntry;
use crate::domain::send::{Intent, SendState};

/// A send as its run remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSend {
    /// The campaign, by the name that it is recorded under.
    pub campaign: String,
    /// The edition of the campaign.
    pub edition: u32,
    /// The run that claimed the attempt. If the ledger has lost the run as well, or has given its number to
    /// another one, the send is recorded under the latest run of the edition, or under a new one.
    pub run: i64,
    /// The planning instant of the run's plan.
    pub planned_at: Timestamp,
    /// The intent that the run recorded.
    pub intent: Intent,
    /// Whether the code belongs to this recipient for ever.
    pub unique_code: bool,
    /// The outcome that the run saw: accepted, rejected, not sent or unknown.
    pub outcome: SendState,
    /// The provider's id of the message.
    pub message_id: Option<String>,
    /// The person who records it again.
    pub actor: String,
    /// The reason to believe it.
    pub reason: String,
}

/// What recording a lost send again writes.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// The entries of the journal, in order.
    pub(super) entries: Vec<JournalEntry>,
    /// The send's last attempt afterwards, if it changes.
    pub(super) last: Option<LastAttempt>,
    /// The report, if the record cannot follow it.
    pub(super) contradiction: Option<Contradiction>,
}

impl LostSend {
    /// Decides what to write into a record that holds `before` of the send. `run` is the run that the send is
    /// recorded under.
    pub(super) fn repair(&self, before: Option<LastAttempt>, run: i64, at: i64) -> (Finding, Repair) {
        let (key, attempt) = (self.intent.key, self.intent.attempt);
        let mut repair = Repair::default();
        let outcome = JournalEntry::of_restored_outcome(
            run,
            at,
            &self.intent,
            self.outcome,
            self.message_id.clone(),
            &self.actor,
            &self.reason,
        );
        let Some(last) = before.filter(|last| last.attempt >= attempt) else {
            let intent = JournalEntry::of_restored_claim(run, at, &self.intent, &self.actor, &self.reason);
            repair.entries = vec![intent, JournalEntry::of_abandoned(run, at, key, attempt)];
            if self.outcome != SendState::Unknown {
                repair.entries.push(outcome);
            }
            repair.last = Some(LastAttempt { state: self.outcome, attempt, run });
            return (Finding::Settled, repair);
        };
        let ours = last.attempt == attempt && last.run == run;
        let finding = match (self.outcome, last.state) {
            (outcome, state) if outcome == state && ours => Finding::Already,
            (SendState::Accepted | SendState::Unknown, SendState::NotSent | SendState::Rejected) => Finding::Settled,
            (SendState::Accepted | SendState::Rejected | SendState::NotSent, SendState::Unknown) if ours => {
                Finding::Settled
            }
            (SendState::Accepted, _) => Finding::Contradicts(last.state),
            // Nothing was sent, or the record prevents a second message already.
            _ => Finding::Already,
        };
        match finding {
            Finding::Settled => {
                repair.last = Some(LastAttempt { state: self.outcome, ..last });
                repair.entries.push(outcome);
            }
            Finding::Contradicts(_) => {
                repair.contradiction = Some(Contradiction {
                    run,
                    at,
                    key,
                    attempt,
                    said: self.outcome,
                    message_id: self.message_id.clone(),
                    reason: Some(self.reason.clone()),
                    stood: last.state,
                    stood_attempt: last.attempt,
                });
            }
            _ => {}
        }
        (finding, repair)
    }
}
