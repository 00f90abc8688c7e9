//! Answers that belong to other requests.
//!
//! A provider, or a proxy before it, may send one answer twice. Then each later request on that
//! connection gets the answer of the one before it: people are recorded accepted that were refused,
//! and the other way round. Such a shift shows as a message id that comes a second time.
//!
//! From then on no answer of this run is believed. The send that had the id first and the one that
//! has it now are unknown, and so is every outcome that is not durable yet or still to come: it may
//! be somebody else's. The run ends, and its connections with it.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::QueuedSend;
use super::state::State;
use crate::apply::{Event, RunEnding};
use crate::domain::phone::E164;
use crate::gateway::{NotSent, Outcome, Reply};
use crate::ledger::{AttemptResult, SendKey, Settlement};

/// How many acceptances are remembered.
const REMEMBERED: usize = 1_024;

/// An acceptance, by its id.
struct Acceptance {
    id: String,
    /// The hash of the id.
    hash: u64,
    key: SendKey,
    attempt: u32,
    address: E164,
}

/// The last acceptances of a run. The oldest makes room for the next.
#[derive(Default)]
pub(super) struct RecentIds {
    ring: Vec<Acceptance>,
    oldest: usize,
    /// Positions in the ring, by the hash of the id.
    index: HashTable<usize>,
    hasher: DefaultHashBuilder,
    /// Whether an id came twice.
    pub(super) mixed_up: bool,
}

impl RecentIds {
    fn get(&self, id: &str) -> Option<&Acceptance> {
        let found = self.index.find(self.hasher.hash_one(id), |position| self.ring[*position].id == id)?;
        self.ring.get(*found)
    }

    fn add(&mut self, id: &str, key: SendKey, attempt: u32, address: E164) {
        let Self { ring, oldest, index, hasher, .. } = self;
        let hash = hasher.hash_one(id);
        let position = if ring.len() < REMEMBERED {
            ring.push(Acceptance { id: id.to_owned(), hash, key, attempt, address });
            ring.len() - 1
        } else {
            let position = *oldest;
            *oldest = (position + 1) % REMEMBERED;
            let slot = &mut ring[position];
            if let Ok(entry) = index.find_entry(slot.hash, |other| *other == position) {
                entry.remove();
            }
            // Takes the room of the id that it replaces.
            slot.id.clear();
            slot.id.push_str(id);
            *slot = Acceptance { id: std::mem::take(&mut slot.id), hash, key, attempt, address };
            position
        };
        index.insert_unique(hash, position, |position| ring[*position].hash);
    }
}

impl State {
    /// The reply as far as it can be believed: as it is, unless an id came twice in this run.
    pub(super) fn believed(&mut self, carried: &[QueuedSend], reply: Reply) -> Reply {
        if self.recent_ids.mixed_up {
            return distrusted(carried.len(), reply);
        }
        let (Reply::Settled(outcomes) | Reply::Refused { outcomes, .. }) = &reply else { return reply };
        let repeated = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Accepted { message_id } => self.recent_ids.get(message_id),
            _ => None,
        });
        if let Some(earlier) = repeated {
            let (id, key, attempt, address) = (earlier.id.clone(), earlier.key, earlier.attempt, earlier.address);
            self.answers_are_mixed_up(&id, key, attempt, address);
            return distrusted(carried.len(), reply);
        }
        for (send, outcome) in carried.iter().zip(outcomes) {
            if let Outcome::Accepted { message_id } = outcome {
                let desired = &send.desired;
                self.recent_ids.add(message_id, desired.key, send.attempt, desired.address);
            }
        }
        reply
    }

    /// Takes back what cannot be believed any more, and ends the run.
    fn answers_are_mixed_up(&mut self, id: &str, key: SendKey, attempt: u32, address: E164) {
        self.recent_ids.mixed_up = true;
        let account_refused = matches!(self.ending, Some(RunEnding::AccountRefused(_)));
        self.ending = Some(RunEnding::MixedAnswers(format!(
            "the provider gave two messages the id `{id}`, so answers may have reached the wrong requests"
        )));
        let unknown = || AttemptResult::Outcome(Outcome::Unknown { reason: distrust() });
        let mut earlier_is_durable = true;
        for settlement in &mut self.unrecorded_outcomes {
            let counted = match &settlement.result {
                AttemptResult::Outcome(Outcome::Accepted { .. }) => &mut self.progress.accepted,
                AttemptResult::Outcome(Outcome::Rejected { .. }) => &mut self.progress.rejected,
                AttemptResult::Outcome(Outcome::Unknown { .. }) => continue,
                AttemptResult::NotSent { .. } => {
                    let queued = self.intake.queue.len();
                    self.intake.queue.retain(|send| send.desired.key != settlement.key);
                    let other_attempt = self.intake.queue.len() < queued;
                    let given_up = match (other_attempt, account_refused) {
                        (true, _) => &mut self.progress.retries,
                        (false, true) => &mut self.progress.not_sent,
                        // It never left this program.
                        (false, false) => continue,
                    };
                    *given_up = given_up.saturating_sub(1);
                    &mut self.progress.attempts_not_sent
                }
            };
            *counted = counted.saturating_sub(1);
            self.progress.unknown += 1;
            settlement.result = unknown();
            earlier_is_durable &= (settlement.key, settlement.attempt) != (key, attempt);
        }
        if earlier_is_durable {
            self.unrecorded_outcomes.push(Settlement { key, attempt, result: unknown() });
            self.progress.accepted = self.progress.accepted.saturating_sub(1);
            self.progress.unknown += 1;
        }
        self.report(Event::Trouble { to: address.masked(), outcome: "unknown", reason: distrust() });
        self.report(Event::Stopping);
    }
}

fn distrust() -> String {
    "the provider gave two messages one id, so this answer may have been another's".to_owned()
}

/// What an answer is worth that may be another's: nothing. What never left this program stays unsent.
fn distrusted(recipients: usize, reply: Reply) -> Reply {
    match reply {
        Reply::NotSent(NotSent::Unreachable { .. } | NotSent::Expired { .. }) => reply,
        _ => Reply::Settled(vec![Outcome::Unknown { reason: distrust() }; recipients]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_acceptances_are_remembered_and_no_others() {
        let mut recent = RecentIds::default();
        let address = E164::parse_exact("+919876543210").unwrap();
        for number in 0..5_000_u32 {
            let id = format!("r{number}:0");
            assert!(recent.get(&id).is_none());
            let mut key = [0; 16];
            key[..4].copy_from_slice(&number.to_le_bytes());
            recent.add(&id, SendKey(key), number, address);
            for (back, known) in [(0, true), (1, true), (1_023, true), (1_024, false), (2_000, false)] {
                let Some(earlier) = number.checked_sub(back) else { continue };
                let found = recent.get(&format!("r{earlier}:0")).map(|acceptance| acceptance.attempt);
                assert_eq!(found, known.then_some(earlier));
            }
        }
        assert_eq!((recent.ring.len(), recent.index.len()), (REMEMBERED, REMEMBERED));
    }
}
