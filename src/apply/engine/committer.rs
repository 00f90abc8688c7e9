//! One commit at a time: repeated while the ledger does not answer, given up when the run is to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{FINAL_PATIENCE, FIRST_PAUSE, LEDGER_PATIENCE, QueuedSend};
use crate::apply::ShutdownRequest;
use crate::ledger::{AttemptResult, Batch, Claim, Committed, LedgerError, Settlement};

/// The longest pause between two tries of one commit.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Why something is committed, and what follows.
pub(super) enum Purpose {
    /// Outcomes, and claims whose requests start once they are durable.
    Claims {
        sends: Vec<QueuedSend>,
        /// When the intents were written.
        at: Timestamp,
    },
    /// The last outcomes of a run that ends early.
    FinalOutcomes,
    /// What the run told the ledger lately, to see what it has lost. `then` was to happen before that.
    Comparison(Option<Answered>),
}

/// The answers to claims.
pub(super) struct Answered {
    pub(super) sends: Vec<QueuedSend>,
    pub(super) at: Timestamp,
    pub(super) claims: Vec<Claim>,
    /// Whether the claims were given up, because the run is to stop.
    pub(super) given_up: bool,
    /// When the commit started.
    pub(super) started: Instant,
}

/// A commit that is under way, or waits to be tried again.
pub(super) struct Pending {
    pub(super) purpose: Purpose,
    pub(super) batch: Arc<Batch>,
    /// When the last try started.
    pub(super) started: Instant,
    /// Whether the answer to a try was lost.
    pub(super) was_lost: bool,
    /// Whether the claims were turned into outcomes: not sent.
    pub(super) given_up: bool,
    pause: Duration,
    deadline: Instant,
    /// When it is tried again; nothing while a try is under way.
    retry_at: Option<Instant>,
    /// How urgently the run was asked to stop when the last try failed.
    shutdown: ShutdownRequest,
}

/// What follows from a try.
pub(super) enum Step {
    /// The batch is durable.
    Done(Pending, Committed),
    /// The batch is tried again after a pause.
    Retry { reason: String, pause: Duration },
    /// The batch is given up. The error is missing if the time was over.
    Failed(Pending, Option<LedgerError>),
}

/// What the committer waits for.
pub(super) enum Waits {
    /// Nothing is to be committed.
    Idle,
    /// The next try starts at this instant.
    Until(Instant),
    /// The next try starts now.
    Retry(Arc<Batch>, Option<Instant>),
}

/// The commit that is under way, if any.
#[derive(Default)]
pub(super) struct Committer {
    pending: Option<Pending>,
}

impl Committer {
    /// Starts to commit a batch. Returns what is committed, and until when its answer is waited for.
    pub(super) fn start(&mut self, now: Instant, purpose: Purpose, batch: Batch) -> (Arc<Batch>, Option<Instant>) {
        let patience = if matches!(purpose, Purpose::FinalOutcomes) { FINAL_PATIENCE } else { LEDGER_PATIENCE };
        let pending = self.pending.insert(Pending {
            purpose,
            batch: Arc::new(batch),
            started: now,
            was_lost: false,
            given_up: false,
            pause: FIRST_PAUSE,
            deadline: now + patience,
            retry_at: None,
            shutdown: ShutdownRequest::None,
        });
        (Arc::clone(&pending.batch), pending.answer_by())
    }

    /// What is waited for now, if no try is under way.
    pub(super) fn poll(&mut self, now: Instant, shutdown: ShutdownRequest) -> Waits {
        let Some(pending) = &mut self.pending else { return Waits::Idle };
        match pending.retry_at {
            // A run that is asked to stop wants to know soon.
            Some(at) if at > now && shutdown <= pending.shutdown => Waits::Until(at),
            _ => {
                pending.retry_at = None;
                pending.started = now;
                Waits::Retry(Arc::clone(&pending.batch), pending.answer_by())
            }
        }
    }

    /// Takes the result of a try; nothing if the time for it was over.
    pub(super) fn on_result(
        &mut self,
        now: Instant,
        shutdown: ShutdownRequest,
        result: Option<Result<Committed, LedgerError>>,
    ) -> Option<Step> {
        let mut pending = self.pending.take()?;
        let error = match result {
            Some(Ok(committed)) => return Some(Step::Done(pending, committed)),
            Some(Err(error)) => error,
            None => return Some(Step::Failed(pending, None)),
        };
        let lost = matches!(error, LedgerError::Lost { .. });
        let over = now + pending.pause > pending.deadline;
        let stopping = shutdown > ShutdownRequest::None;
        let give_up = match pending.purpose {
            Purpose::Claims { .. } => {
                pending.was_lost |= lost;
                if pending.was_lost && !pending.given_up && (stopping || over || !lost) {
                    pending.give_up_claims();
                    if stopping {
                        pending.deadline = now + FINAL_PATIENCE;
                    }
                }
                !lost || over || shutdown == ShutdownRequest::Immediate
            }
            Purpose::FinalOutcomes => !lost || over,
            // It is asked again after the next commit.
            Purpose::Comparison(_) => true,
        };
        if give_up {
            return Some(Step::Failed(pending, Some(error)));
        }
        let pause = pending.pause;
        pending.retry_at = Some(now + pause);
        pending.shutdown = shutdown;
        if matches!(pending.purpose, Purpose::Claims { .. }) {
            pending.pause = (pause * 2).min(MAX_RETRY_PAUSE);
        }
        self.pending = Some(pending);
        Some(Step::Retry { reason: error.to_string(), pause })
    }
}

impl Pending {
    /// Until when the answer to a try is waited for, if not as long as the ledger itself does.
    fn answer_by(&self) -> Option<Instant> {
        matches!(self.purpose, Purpose::FinalOutcomes).then_some(self.deadline)
    }

    /// Turns the claims into outcomes. Their requests never started, no matter which of them are durable.
    fn give_up_claims(&mut self) {
        self.given_up = true;
        let reason = "the run was stopped before the request could start";
        let batch = Arc::make_mut(&mut self.batch);
        batch.settle.extend(batch.claim.drain(..).map(|intent| Settlement {
            key: intent.key,
            attempt: intent.attempt,
            result: AttemptResult::NotSent { reason: reason.to_owned() },
        }));
    }
}
