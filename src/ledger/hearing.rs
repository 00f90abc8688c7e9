//! Outcomes that do not simply follow from an intent that is open: late ones, repeated ones, ones
//! that contradict a decision. They are rare, so the journal is read for them.

use std::collections::{HashMap, HashSet};

use super::protocol::{self, Hearing, Held, Stand};
use super::{Committed, Contradiction, Entry, SendKey, SendState, Settlement, Source};

/// What the journal holds of some sends, from the start of a run on.
#[derive(Debug)]
pub(super) struct Hearings {
    run: i64,
    at: i64,
    stands: HashMap<SendKey, Where>,
    /// The run's own intents.
    claimed: HashSet<(SendKey, u32)>,
    /// Attempts whose id is recorded.
    ids: HashSet<(SendKey, u32)>,
    /// What is to be written.
    pub(super) entries: Vec<Entry>,
    /// What the record cannot follow.
    pub(super) contradictions: Vec<Contradiction>,
    /// Sends that move, and where to: the state changes, and the last attempt stays what it is.
    pub(super) moved: Vec<(SendKey, SendState)>,
}

#[derive(Debug, Clone, Copy)]
struct Where {
    stand: Stand,
    /// Of which attempt the reporting run itself said so.
    own_word: Option<u32>,
}

/// What matters of an entry of the journal.
pub(super) struct Step {
    pub(super) key: SendKey,
    pub(super) attempt: u32,
    pub(super) state: SendState,
    pub(super) run: i64,
    pub(super) source: Option<Source>,
    pub(super) has_id: bool,
}

impl Hearings {
    /// For outcomes that `run` reports at this time.
    pub(super) fn new(run: i64, at: i64) -> Self {
        Self {
            run,
            at,
            stands: HashMap::new(),
            claimed: HashSet::new(),
            ids: HashSet::new(),
            entries: Vec::new(),
            contradictions: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// Takes in an entry; they come in the order of the journal.
    pub(super) fn read(&mut self, step: &Step) {
        let Step { key, attempt, state, run, source, has_id } = *step;
        let own_word = (run == self.run && source.is_none()).then_some(attempt);
        if has_id {
            self.ids.insert((key, attempt));
        }
        if state == SendState::Intent {
            if run == self.run {
                self.claimed.insert((key, attempt));
            }
            self.stands.insert(key, Where { stand: Stand { state, attempt, run }, own_word });
            return;
        }
        let known = self.stands.entry(key).or_insert(Where { stand: Stand { state, attempt, run }, own_word });
        known.stand.state = state;
        known.own_word = own_word;
    }

    /// Decides about an outcome, and notes what is to be written.
    pub(super) fn hear(&mut self, settlement: &Settlement) -> Hearing {
        let (key, attempt) = (settlement.key, settlement.attempt);
        let to = settlement.result.state();
        let held = self.stands.get(&key).map(|known| Held {
            stand: known.stand,
            claimed: self.claimed.contains(&(key, attempt)),
            own_word: known.own_word == Some(attempt),
            has_id: self.ids.contains(&(key, attempt)),
        });
        let hearing = protocol::hear(held, attempt, self.run, to);
        let Some(held) = held else { return hearing };
        match hearing {
            Hearing::Moves | Hearing::AddsId => {
                self.entries.push(Entry::settled(self.run, self.at, settlement));
                // Two attempts were accepted: the person got the message twice.
                if to == SendState::Accepted && self.ids.iter().any(|(other, of)| *other == key && *of != attempt) {
                    self.contradictions.push(Contradiction::of(self.run, self.at, settlement, held.stand));
                }
                if settlement.result.message_id().is_some() {
                    self.ids.insert((key, attempt));
                }
                if let Some(known) = self.stands.get_mut(&key) {
                    known.own_word = Some(attempt);
                    known.stand.state = to;
                }
                if hearing == Hearing::Moves {
                    self.moved.push((key, to));
                }
            }
            Hearing::Contradicts => {
                self.contradictions.push(Contradiction::of(self.run, self.at, settlement, held.stand));
            }
            Hearing::Known | Hearing::Overruled | Hearing::NotRecorded => {}
        }
        hearing
    }

    /// Decides about several outcomes, in order, and adds what they come to. `doubtful` tells which
    /// attempts may never have been claimed, because the answer to their claim was lost and they were
    /// given up: that they were not sent needs no record.
    pub(super) fn hear_all<'a>(
        &mut self,
        settlements: impl Iterator<Item = &'a Settlement>,
        doubtful: impl Fn(&Settlement) -> bool,
        committed: &mut Committed,
    ) {
        for settlement in settlements {
            match self.hear(settlement) {
                Hearing::NotRecorded if doubtful(settlement) => {}
                Hearing::NotRecorded => committed.forgotten.push(settlement.clone()),
                hearing => committed.not_taken += u64::from(!hearing.taken()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::send::Outcome;
    use crate::ledger::AttemptResult;

    #[test]
    fn an_acceptance_that_overruled_a_later_refusal_contradicts_nothing_when_it_is_offered_again() {
        let key = SendKey([7; 16]);
        let mut hearings = Hearings::new(1, 0);
        for (attempt, state, run, source) in [
            (1, SendState::Intent, 1, None),
            (1, SendState::Unknown, 2, Some(Source::Abandoned)),
            (1, SendState::NotSent, 1, Some(Source::Decision)),
            (2, SendState::Intent, 2, None),
            (2, SendState::NotSent, 2, None),
        ] {
            hearings.read(&Step { key, attempt, state, run, source, has_id: false });
        }
        let message_id = "a:0".to_owned();
        let ending = AttemptResult::Outcome(Outcome::Accepted { message_id });
        let settlement = Settlement { key, attempt: 1, result: ending };
        // A lost answer, or a look after a lost connection, offers it again.
        for expected in [Hearing::Moves, Hearing::Known, Hearing::Known] {
            assert_eq!(hearings.hear(&settlement), expected);
        }
        assert!(hearings.contradictions.is_empty());
        assert_eq!(hearings.entries.len(), 1);
    }

    #[test]
    fn two_attempts_that_were_both_accepted_are_a_contradiction_once() {
        let key = SendKey([7; 16]);
        let mut hearings = Hearings::new(2, 0);
        for (attempt, state, run, source, has_id) in [
            (1, SendState::Intent, 1, None, false),
            (1, SendState::NotSent, 1, Some(Source::Decision), false),
            (2, SendState::Intent, 2, None, false),
            (2, SendState::NotSent, 2, Some(Source::Decision), false),
            (1, SendState::Accepted, 1, None, true),
        ] {
            hearings.read(&Step { key, attempt, state, run, source, has_id });
        }
        let ending = AttemptResult::Outcome(Outcome::Accepted { message_id: "b:0".to_owned() });
        let settlement = Settlement { key, attempt: 2, result: ending };
        for expected in [Hearing::AddsId, Hearing::Known] {
            assert_eq!(hearings.hear(&settlement), expected);
        }
        assert_eq!(hearings.contradictions.len(), 1);
    }
}
