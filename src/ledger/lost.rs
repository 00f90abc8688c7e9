//! Sends that the ledger has lost, and how they come back into the record.
//!
//! A failover to a standby can lose commits that the database had called durable. The run that
//! notices keeps what it knows in a file, and a person puts it back with `resolve --file`. Whatever
//! the record says meanwhile, a send that may have arrived must not be pending afterwards.

use jiff::Timestamp;

use super::protocol::{Finding, Stand};
use super::{ABANDONED, Contradiction, Entry, Intent, SendState, Source};

/// A send as its run remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSend {
    /// The campaign, by the name that it is recorded under.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// The run that claimed the attempt. If the ledger has lost it as well, or has given its number to
    /// another, the latest run of the edition stands for it, or a run that is made for it.
    pub run: i64,
    /// The instant of the run's plan.
    pub planned_at: Timestamp,
    /// What the run told the ledger.
    pub intent: Intent,
    /// Whether the code belongs to this recipient for ever.
    pub unique_code: bool,
    /// What the run saw: accepted, rejected, not sent or unknown.
    pub outcome: SendState,
    /// The provider's id.
    pub message_id: Option<String>,
    /// Who puts it back.
    pub actor: String,
    /// What that rests on.
    pub reason: String,
}

/// What putting a send back comes to.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// What is written, in order.
    pub(super) entries: Vec<Entry>,
    /// Where the send stands then.
    pub(super) stand: Option<Stand>,
    /// What the record cannot follow.
    pub(super) contradiction: Option<Contradiction>,
}

impl LostSend {
    /// What to write into a record where the send stands at `before`. `run` stands for the send's run.
    pub(super) fn repair(&self, before: Option<Stand>, run: i64, at: i64) -> (Finding, Repair) {
        let (key, attempt) = (self.intent.key, self.intent.attempt);
        let mut repair = Repair::default();
        let outcome = Entry {
            message_id: self.message_id.clone(),
            reason: Some(self.reason.clone()),
            source: Some(Source::Decision),
            actor: Some(self.actor.clone()),
            ..Entry::bare(run, at, key, attempt, self.outcome)
        };
        let Some(stand) = before.filter(|stand| stand.attempt >= attempt) else {
            let intent = Entry {
                reason: Some(self.reason.clone()),
                source: Some(Source::Decision),
                actor: Some(self.actor.clone()),
                ..Entry::claimed(run, at, &self.intent)
            };
            let unknown = Entry { reason: Some(ABANDONED.to_owned()), ..Entry::abandoned(run, at, key, attempt) };
            repair.entries = vec![intent, unknown];
            if self.outcome != SendState::Unknown {
                repair.entries.push(outcome);
            }
            repair.stand = Some(Stand { state: self.outcome, attempt, run });
            return (Finding::Settled, repair);
        };
        let ours = stand.attempt == attempt && stand.run == run;
        let finding = match (self.outcome, stand.state) {
            (outcome, state) if outcome == state && ours => Finding::Already,
            (SendState::Accepted | SendState::Unknown, SendState::NotSent | SendState::Rejected) => Finding::Settled,
            (SendState::Accepted | SendState::Rejected | SendState::NotSent, SendState::Unknown) if ours => {
                Finding::Settled
            }
            (SendState::Accepted, _) => Finding::Contradicts(stand.state),
            // Nothing was sent, or the record is as careful as it can be.
            _ => Finding::Already,
        };
        match finding {
            Finding::Settled => {
                repair.stand = Some(Stand { state: self.outcome, ..stand });
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
                    stood: stand.state,
                    stood_attempt: stand.attempt,
                });
            }
            _ => {}
        }
        (finding, repair)
    }
}
