//! What follows from a commit, and the last outcomes of a run that ends early.

use std::sync::Arc;

use super::committer::{Answered, Purpose, Step};
use super::recent::LostOutcome;
use super::state::{Action, Mode, Now, State};
use crate::apply::{Event, RunEnding};
use crate::gateway::Outcome;
use crate::ledger::{AttemptResult, Batch, BySend, Committed, LedgerError, SendKey, Settlement};

impl State {
    /// Takes the result of a commit.
    pub(super) fn committed(
        &mut self,
        now: Now<'_>,
        result: Option<Result<Committed, LedgerError>>,
        actions: &mut Vec<Action>,
    ) {
        let Some(step) = self.committer.on_result(now.instant, self.shutdown, result) else { return };
        match step {
            Step::Retry { reason, pause } => self.report(Event::Waiting { reason, pause }),
            Step::Done(pending, committed) => match pending.purpose {
                Purpose::Claims { sends, at } => {
                    self.limiter.committed(now.instant.saturating_duration_since(pending.started));
                    let compare = self.note(pending.batch, &committed, pending.was_lost);
                    let answered = Answered {
                        sends,
                        at,
                        claims: committed.claims,
                        given_up: pending.given_up,
                        started: pending.started,
                    };
                    if compare {
                        self.compare(now, Some(answered), actions);
                    } else {
                        self.start_granted(answered, actions);
                    }
                }
                Purpose::FinalOutcomes => {
                    if self.note(pending.batch, &committed, false) {
                        self.compare(now, None, actions);
                    }
                }
                Purpose::Comparison(then) => {
                    self.compare_again = false;
                    self.lose(committed.forgotten.into_iter());
                    if let Some(answered) = then {
                        self.start_granted(answered, actions);
                    }
                }
            },
            Step::Failed(pending, error) => match pending.purpose {
                Purpose::Claims { .. } => self.drain_after_ledger_error(pending.batch, error),
                Purpose::FinalOutcomes => {
                    // The record does not know these outcomes, so nobody does.
                    pending.batch.settle.iter().for_each(|outcome| self.count_as_unknown(outcome));
                }
                Purpose::Comparison(then) => {
                    self.compare_again = true;
                    if let Some(answered) = then {
                        self.start_granted(answered, actions);
                    }
                }
            },
        }
    }

    /// Takes note of what a commit came to. Whether the ledger is to be asked what else it has lost of this
    /// run: after a lost connection, and once it has lost anything.
    fn note(&mut self, batch: Arc<Batch>, committed: &Committed, was_lost: bool) -> bool {
        self.overruled += committed.not_taken;
        self.recent.add(batch);
        let nothing_lost = self.lost.is_empty();
        self.lose(committed.forgotten.iter().cloned());
        let reconnected = was_lost || committed.reconnected || self.compare_again;
        self.limiter.is_shared() && (reconnected || nothing_lost && !self.lost.is_empty())
    }

    /// Offers the ledger once more what this run told it lately.
    fn compare(&mut self, now: Now<'_>, then: Option<Answered>, actions: &mut Vec<Action>) {
        let batch = Batch { settle: self.recent.settlements(), claim: Vec::new() };
        let (batch, answer_by) = self.committer.start(now.instant, Purpose::Comparison(then), batch);
        actions.push(Action::Commit { batch, answer_by });
    }

    /// Keeps outcomes that the ledger holds no intent of, and brings the run to its end.
    fn lose(&mut self, forgotten: impl Iterator<Item = Settlement>) {
        for settlement in forgotten {
            let known = |other: &LostOutcome| {
                (other.settlement.key, other.settlement.attempt) == (settlement.key, settlement.attempt)
            };
            if self.lost.iter().any(known) {
                continue;
            }
            self.count_as_unknown(&settlement);
            self.lost.push(self.recent.lost(settlement));
        }
        if !self.lost.is_empty() {
            self.ending.get_or_insert(RunEnding::LedgerLostSends);
        }
    }

    /// The record does not hold this outcome, so it counts as unknown.
    fn count_as_unknown(&mut self, settlement: &Settlement) {
        let counted = match &settlement.result {
            AttemptResult::Outcome(Outcome::Accepted { .. }) => &mut self.progress.accepted,
            AttemptResult::Outcome(Outcome::Rejected { .. }) => &mut self.progress.rejected,
            AttemptResult::Outcome(Outcome::Unknown { .. }) | AttemptResult::NotSent { .. } => return,
        };
        *counted = counted.saturating_sub(1);
        self.progress.unknown += 1;
    }

    /// After the ledger failed nothing more starts. Requests in flight are waited for, and their outcomes
    /// are offered to the ledger once more.
    fn drain_after_ledger_error(&mut self, batch: Arc<Batch>, error: Option<LedgerError>) {
        self.unrecorded_outcomes = Arc::unwrap_or_clone(batch).settle;
        self.report(Event::Stopping);
        self.ending = Some(RunEnding::Interrupted);
        let ending = error.map_or(RunEnding::Interrupted, RunEnding::of_ledger);
        self.mode = Mode::Draining(ending);
    }

    /// Offers the ledger what it does not know yet, requests that are still in flight as unknown. What it
    /// does not take is unknown.
    pub(super) fn flush_final_outcomes(&mut self, now: Now<'_>, ending: RunEnding, actions: &mut Vec<Action>) {
        if self.requests > 0 {
            self.requests = 0;
            actions.push(Action::AbortRequests);
        }
        let unanswered = unknown(&mut self.in_flight, "the run was stopped before its answer came");
        self.progress.unknown += unanswered.len() as u64;
        let mut batch = Batch { settle: std::mem::take(&mut self.unrecorded_outcomes), claim: Vec::new() };
        batch.settle.extend(unanswered);
        self.mode = Mode::Flushing(ending);
        if batch.settle.is_empty() {
            return self.handle(now, super::state::Input::Tick, actions);
        }
        let (batch, answer_by) = self.committer.start(now.instant, Purpose::FinalOutcomes, batch);
        actions.push(Action::Commit { batch, answer_by });
    }

    /// Intents whose task crashed without a report are unknown. Whether there are any.
    pub(super) fn mark_crashed_tasks_unknown(&mut self) -> bool {
        let crashed = unknown(&mut self.in_flight, "the task of the request crashed");
        self.progress.unknown += crashed.len() as u64;
        self.unrecorded_outcomes.extend(crashed);
        !self.unrecorded_outcomes.is_empty()
    }
}

/// The outcome of intents whose requests will not report.
fn unknown(in_flight: &mut BySend<u32>, reason: &str) -> Vec<Settlement> {
    let mut open: Vec<(SendKey, u32)> = in_flight.drain().collect();
    open.sort_unstable();
    open.into_iter()
        .map(|(key, attempt)| Settlement {
            key,
            attempt,
            result: AttemptResult::Outcome(Outcome::Unknown { reason: reason.to_owned() }),
        })
        .collect()
}
