//! Outcomes that do not simply follow from an open intent: late ones, repeated ones, and ones that contradict
//! a decision. They are rare, so the journal is read for them.

use std::collections::{HashMap, HashSet};

use super::contract::Committed;
use super::contradiction::Contradiction;
use super::protocol::{self, LastAttempt, ReportContext, ReportEffect};
use super::record::{EntrySource, JournalEntry};
use crate::domain::send::{SendKey, SendState, Settlement};

/// What the journal holds of some sends since the start of a run, and what the run's reports about them write.
#[derive(Debug)]
pub(super) struct LateOutcomes {
    run: i64,
    at: i64,
    sends: HashMap<SendKey, KnownSend>,
    /// The run's own intents.
    claimed: HashSet<(SendKey, u32)>,
    /// Attempts whose message id is recorded.
    ids: HashSet<(SendKey, u32)>,
    /// The entries to write.
    pub(super) entries: Vec<JournalEntry>,
    /// The contradictions to write.
    pub(super) contradictions: Vec<Contradiction>,
    /// Sends that change their state, and the new state. Their last attempt stays the same.
    pub(super) moved: Vec<(SendKey, SendState)>,
}

#[derive(Debug, Clone, Copy)]
struct KnownSend {
    last: LastAttempt,
    /// The attempt for which the reporting run itself reported this state.
    own_word: Option<u32>,
}

/// The part of a journal entry that matters here.
pub(super) struct JournalStep {
    pub(super) key: SendKey,
    pub(super) attempt: u32,
    pub(super) state: SendState,
    pub(super) run: i64,
    pub(super) source: EntrySource,
    pub(super) has_id: bool,
}

impl LateOutcomes {
    /// For the reports of `run` at this time.
    pub(super) fn new(run: i64, at: i64) -> Self {
        Self {
            run,
            at,
            sends: HashMap::new(),
            claimed: HashSet::new(),
            ids: HashSet::new(),
            entries: Vec::new(),
            contradictions: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// Adds an entry of the journal. Entries must be added in the journal's order.
    pub(super) fn add_entry(&mut self, step: &JournalStep) {
        let JournalStep { key, attempt, state, run, source, has_id } = *step;
        let own_word = (run == self.run && source == EntrySource::Run).then_some(attempt);
        if has_id {
            self.ids.insert((key, attempt));
        }
        let last = LastAttempt { state, attempt, run };
        if state == SendState::Intent {
            if run == self.run {
                self.claimed.insert((key, attempt));
            }
            self.sends.insert(key, KnownSend { last, own_word });
            return;
        }
        let known = self.sends.entry(key).or_insert(KnownSend { last, own_word });
        known.last.state = state;
        known.own_word = own_word;
    }

    /// Decides about one report, and notes what it writes.
    pub(super) fn evaluate(&mut self, settlement: &Settlement) -> ReportEffect {
        let (key, attempt) = (settlement.key, settlement.attempt);
        let to = settlement.result.state();
        let context = self.sends.get(&key).map(|known| ReportContext {
            last: known.last,
            claimed: self.claimed.contains(&(key, attempt)),
            own_word: known.own_word == Some(attempt),
            has_id: self.ids.contains(&(key, attempt)),
        });
        let effect = protocol::evaluate_report(context, attempt, self.run, to);
        let Some(context) = context else { return effect };
        match effect {
            ReportEffect::Moves | ReportEffect::AddsId => {
                self.entries.push(JournalEntry::of_settlement(self.run, self.at, settlement));
                // The provider accepted two attempts: the recipient got the message twice.
                if to == SendState::Accepted && self.ids.iter().any(|(other, of)| *other == key && *of != attempt) {
                    self.contradictions.push(Contradiction::of(self.run, self.at, settlement, context.last));
                }
                if settlement.result.message_id().is_some() {
                    self.ids.insert((key, attempt));
                }
                if let Some(known) = self.sends.get_mut(&key) {
                    known.own_word = Some(attempt);
                    known.last.state = to;
                }
                if effect == ReportEffect::Moves {
                    self.moved.push((key, to));
                }
            }
            ReportEffect::Contradicts => {
                self.contradictions.push(Contradiction::of(self.run, self.at, settlement, context.last));
            }
            ReportEffect::Known | ReportEffect::Overruled | ReportEffect::NotRecorded => {}
        }
        effect
    }

    /// Decides about several reports in order, and adds the results to `committed`.
    ///
    /// `may_be_unclaimed` returns whether an attempt may never have been claimed, because the answer to its
    /// claim was lost and the run gave it up. That such an attempt sent nothing needs no record.
    pub(super) fn evaluate_all<'a>(
        &mut self,
        settlements: impl Iterator<Item = &'a Settlement>,
        may_be_unclaimed: impl Fn(&Settlement) -> bool,
        committed: &mut Committed,
    ) {
        for settlement in settlements {
            match self.evaluate(settlement) {
                ReportEffect::NotRecorded if may_be_unclaimed(settlement) => {}
                ReportEffect::NotRecorded => committed.forgotten.push(settlement.clone()),
                effect => committed.not_taken += u64::from(!effect.taken()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::send::{AttemptResult, EvidenceSource, Outcome};

    #[test]
    fn an_acceptance_that_overruled_a_later_refusal_contradicts_nothing_when_it_is_offered_again() {
        let key = SendKey([7; 16]);
        let mut reports = LateOutcomes::new(1, 0);
        for (attempt, state, run, source) in [
            (1, SendState::Intent, 1, EntrySource::Run),
            (1, SendState::Unknown, 2, EntrySource::Abandoned),
            (1, SendState::NotSent, 1, EntrySource::Evidence(EvidenceSource::Decision)),
            (2, SendState::Intent, 2, EntrySource::Run),
            (2, SendState::NotSent, 2, EntrySource::Run),
        ] {
            reports.add_entry(&JournalStep { key, attempt, state, run, source, has_id: false });
        }
        let message_id = "a:0".to_owned();
        let ending = AttemptResult::Outcome(Outcome::Accepted { message_id });
        let settlement = Settlement { key, attempt: 1, result: ending };
        // A lost answer, or a look after a lost connection, offers it again.
        for expected in [ReportEffect::Moves, ReportEffect::Known, ReportEffect::Known] {
            assert_eq!(reports.evaluate(&settlement), expected);
        }
        assert!(reports.contradictions.is_empty());
        assert_eq!(reports.entries.len(), 1);
    }

    #[test]
    fn two_attempts_that_were_both_accepted_are_a_contradiction_once() {
        let key = SendKey([7; 16]);
        let mut reports = LateOutcomes::new(2, 0);
        for (attempt, state, run, source, has_id) in [
            (1, SendState::Intent, 1, EntrySource::Run, false),
            (1, SendState::NotSent, 1, EntrySource::Evidence(EvidenceSource::Decision), false),
            (2, SendState::Intent, 2, EntrySource::Run, false),
            (2, SendState::NotSent, 2, EntrySource::Evidence(EvidenceSource::Decision), false),
            (1, SendState::Accepted, 1, EntrySource::Run, true),
        ] {
            reports.add_entry(&JournalStep { key, attempt, state, run, source, has_id });
        }
        let ending = AttemptResult::Outcome(Outcome::Accepted { message_id: "b:0".to_owned() });
        let settlement = Settlement { key, attempt: 2, result: ending };
        for expected in [ReportEffect::AddsId, ReportEffect::Known] {
            assert_eq!(reports.evaluate(&settlement), expected);
        }
        assert_eq!(reports.contradictions.len(), 1);
    }
}
