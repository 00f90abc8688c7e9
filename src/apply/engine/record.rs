//! The engine and its ledger: a batch made durable whatever it takes, the last words of a run that
//! ends otherwise than it should, and what other appliers have left.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::recent::Forgotten;
use super::{Engine, FIRST_PAUSE, Leftover, told};
use crate::apply::{Event, Progress, RunEnding, ShutdownRequest};
use crate::gateway::Outcome;
use crate::ledger::{AttemptResult, Batch, Claim, Committed, LedgerError, SendKey, Settlement};

/// How long a ledger that does not answer is waited for.
pub(super) const LEDGER_PATIENCE: Duration = Duration::from_secs(600);

/// The same once the run is to stop, or has failed otherwise.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// How often others are asked whether they are done.
const ASK_OTHERS: Duration = Duration::from_millis(300);

impl Engine {
    /// Has the ledger take a batch, and waits for it while it does not answer. Answers for the
    /// claims, and the moment at which the commit that took them started; no answers if the claims
    /// were given up because the run is to stop. On failure the settlements are unsettled again.
    pub(super) async fn persist(&mut self, mut batch: Arc<Batch>) -> Result<(Vec<Claim>, Instant), RunEnding> {
        let mut stop = self.stop.clone();
        let mut was_lost = false;
        let mut pause = FIRST_PAUSE;
        let mut deadline = Instant::now() + LEDGER_PATIENCE;
        let mut gave_up = false;
        loop {
            let asked = Instant::now();
            let error = match self.ledger.commit(&batch).await {
                Ok(committed) => {
                    let Committed { claims, .. } = self.note(batch, committed, was_lost).await;
                    return Ok((if gave_up { Vec::new() } else { claims }, asked));
                }
                Err(error) => error,
            };
            let stopping = *self.stop.borrow() > ShutdownRequest::None;
            let lost = matches!(error, LedgerError::Lost { .. });
            let over = Instant::now() + pause > deadline;
            was_lost |= lost;
            if was_lost && !gave_up && (stopping || over || !lost) {
                // Their requests never started, whatever became of the claims.
                gave_up = true;
                if stopping {
                    deadline = Instant::now() + LAST_PATIENCE;
                }
                let reason = "the run was stopped before the request could start";
                let batch = Arc::make_mut(&mut batch);
                batch.settle.extend(batch.claim.drain(..).map(|intent| Settlement {
                    key: intent.key,
                    attempt: intent.attempt,
                    result: AttemptResult::NotSent { reason: reason.to_owned() },
                }));
            }
            if !lost || over || *self.stop.borrow() == ShutdownRequest::Immediate {
                self.unsettled = Arc::unwrap_or_clone(batch).settle;
                return Err(RunEnding::of_ledger(error));
            }
            let _ = self.events.send(Event::Waiting { reason: error.to_string(), pause });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = told(&mut stop, |level| level > ShutdownRequest::None), if !stopping => {}
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Takes note of what a commit came to. After a lost connection, and once the ledger has forgotten
    /// anything, it is asked what else it has forgotten of this run.
    async fn note(&mut self, batch: Arc<Batch>, committed: Committed, was_lost: bool) -> Committed {
        self.not_taken += committed.not_taken;
        self.recent.add(batch);
        let first = self.forgotten.is_empty();
        self.forget(committed.forgotten.iter().cloned());
        let reconnected = was_lost || committed.reconnected || self.compare_again;
        if self.peers.is_some() && (reconnected || first && !self.forgotten.is_empty()) {
            let again = Batch { settle: self.recent.settlements(), claim: Vec::new() };
            // A ledger that does not answer now is asked again after the next commit.
            let compared = self.ledger.commit(&Arc::new(again)).await;
            self.compare_again = compared.is_err();
            if let Ok(compared) = compared {
                self.forget(compared.forgotten.into_iter());
            }
        }
        committed
    }

    /// Keeps outcomes that the ledger holds no intent of, and brings the run to its end.
    fn forget(&mut self, forgotten: impl Iterator<Item = Settlement>) {
        for settlement in forgotten {
            let known = |other: &Forgotten| {
                (other.settlement.key, other.settlement.attempt) == (settlement.key, settlement.attempt)
            };
            if self.forgotten.iter().any(known) {
                continue;
            }
            self.uncount(&settlement);
            self.forgotten.push(self.recent.forgotten(settlement));
        }
        if !self.forgotten.is_empty() {
            self.ending.get_or_insert(RunEnding::LedgerLostSends);
        }
    }

    /// The record does not know this outcome, so it counts as unknown.
    fn uncount(&mut self, settlement: &Settlement) {
        let counted = match &settlement.result {
            AttemptResult::Outcome(Outcome::Accepted { .. }) => &mut self.progress.accepted,
            AttemptResult::Outcome(Outcome::Rejected { .. }) => &mut self.progress.rejected,
            AttemptResult::Outcome(Outcome::Unknown { .. }) | AttemptResult::NotSent { .. } => return,
        };
        *counted = counted.saturating_sub(1);
        self.progress.unknown += 1;
    }

    /// After the ledger failed nothing more starts. What is under way is waited for, and its
    /// outcomes are offered to the ledger once more; what it does not take is in doubt.
    pub(super) async fn salvage(&mut self) {
        let _ = self.events.send(Event::Stopping);
        self.ending = Some(RunEnding::Interrupted);
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                joined = self.requests.join_next() => match joined {
                    Some(Ok(report)) => self.settle(report),
                    Some(Err(_)) => {}
                    None => break,
                },
                _ = told(&mut stop, |level| level == ShutdownRequest::Immediate) => break,
            }
        }
        self.last_words().await;
    }

    /// Stops at once: what has reported is recorded, the rest is unknown.
    pub(super) async fn abandon(&mut self) {
        self.ending = Some(RunEnding::Interrupted);
        while let Some(joined) = self.requests.try_join_next() {
            if let Ok(report) = joined {
                self.settle(report);
            }
        }
        self.requests.abort_all();
        self.last_words().await;
    }

    /// Offers the ledger what it does not know yet. What it does not take is in doubt.
    async fn last_words(&mut self) {
        let reason = "the run was stopped before its answer came";
        let broken: Vec<Settlement> = self
            .flying
            .drain()
            .map(|(key, attempt)| Settlement {
                key,
                attempt,
                result: AttemptResult::Outcome(Outcome::Unknown { reason: reason.to_owned() }),
            })
            .collect();
        self.progress.unknown += broken.len() as u64;
        let mut batch = Batch { settle: std::mem::take(&mut self.unsettled), claim: Vec::new() };
        batch.settle.extend(broken);
        if batch.settle.is_empty() {
            return;
        }
        let batch = Arc::new(batch);
        let deadline = Instant::now() + LAST_PATIENCE;
        loop {
            match tokio::time::timeout_at(deadline, self.ledger.commit(&batch)).await {
                Ok(Ok(committed)) => {
                    self.note(batch, committed, false).await;
                    return;
                }
                Ok(Err(LedgerError::Lost { .. })) if Instant::now() + FIRST_PAUSE < deadline => {
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
                _ => break,
            }
        }
        // The record does not know these outcomes, so nobody does.
        for lost in &batch.settle {
            self.uncount(lost);
        }
    }

    /// Intents whose task broke off without a report: unknown.
    pub(super) fn lay_down_broken(&mut self) -> bool {
        let reason = "the request broke off inside this program";
        let broken: Vec<(SendKey, u32)> = self.flying.drain().collect();
        for (key, attempt) in &broken {
            let ending = AttemptResult::Outcome(Outcome::Unknown { reason: reason.to_owned() });
            self.unsettled.push(Settlement { key: *key, attempt: *attempt, result: ending });
            self.progress.unknown += 1;
        }
        !broken.is_empty()
    }

    /// After a round that came to its end: what there is for a further one, because other appliers may
    /// have left something. Waits until they have nothing under way. `before` is what had happened
    /// before that round, `open` how many intents of others the record held then.
    pub async fn leftover(&mut self, before: Progress, open: u64) -> Result<Leftover, LedgerError> {
        let Some(peers) = self.peers.clone() else { return Ok(Leftover::Nothing) };
        // A round over everything that nobody else had a hand in leaves nothing; nor does one that
        // found nothing.
        let first = self.shares.take();
        let everything =
            first.as_ref().is_none_or(|shares| !shares.skipped) && self.progress.held == before.held && open == 0;
        let nothing_found = everything && self.progress.granted == before.granted;
        let alone = everything && first.is_some();
        let mut waited = false;
        let mut silent_since = None;
        let mut stop = self.stop.clone();
        loop {
            if *self.stop.borrow() > ShutdownRequest::None {
                return Ok(Leftover::Interrupted);
            }
            let answer = match peers.activity().await {
                Ok(others) if others.open > 0 => {
                    waited = true;
                    let _ = self.events.send(Event::Others(others));
                    silent_since = None;
                    None
                }
                Ok(others) if !waited && (nothing_found || alone && others.appliers == 0) => {
                    return Ok(Leftover::Nothing);
                }
                Ok(_) => match self.ledger.snapshot().await {
                    Ok(snapshot) => return Ok(Leftover::Round(snapshot)),
                    Err(error) => Some(error),
                },
                Err(error) => Some(error),
            };
            if let Some(error) = answer {
                let since = *silent_since.get_or_insert_with(Instant::now);
                if !matches!(error, LedgerError::Lost { .. }) || since.elapsed() > LEDGER_PATIENCE {
                    return Err(error);
                }
                let _ = self.events.send(Event::Waiting { reason: error.to_string(), pause: ASK_OTHERS });
            }
            tokio::select! {
                () = tokio::time::sleep(ASK_OTHERS) => {}
                _ = told(&mut stop, |level| level > ShutdownRequest::None) => {}
            }
        }
    }
}
