//! A run from its beginning to its seal: what the command line calls, and any other program can.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::engine::{Engine, LostOutcome, NextRound, Setup};
use super::feed::{Feed, FeedError, PlanSource};
use super::{Event, Progress, RunEnding, RunError, Shared, ShutdownRequest};
use crate::domain::campaign::Delivery;
use crate::domain::clock::Clock;
use crate::gateway::Gateway;
use crate::ledger::{Head, Ledger, LedgerError, RecordedEnding, RunCounts, RunStart, SendState, Snapshot};
use crate::plan::Approved;
use jiff::Timestamp;

/// A plan that was approved, and how its messages are read again.
pub struct ApprovedPlan {
    /// Every message that was approved: nothing else is sent.
    pub approved: Approved,
    /// How many of them are to be sent.
    pub sends: u64,
    /// How many sends were unknown when the plan was made.
    pub unknown: u64,
    /// The last instant at which a message may leave, if the offer ends at one.
    pub leave_by: Option<Timestamp>,
    /// What the ledger held when the plan was made.
    pub snapshot: Snapshot,
    /// Reads the messages again.
    pub source: Box<dyn PlanSource>,
}

/// Everything that a run works with.
pub struct Run {
    /// What is sent.
    pub plan: ApprovedPlan,
    /// How fast.
    pub delivery: Delivery,
    /// What the ledger records about the run.
    pub start: RunStart,
    /// The ledger, opened for a run.
    pub ledger: Box<dyn Ledger>,
    /// The provider.
    pub gateway: Arc<dyn Gateway>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether the user asks to stop.
    pub shutdown: watch::Receiver<ShutdownRequest>,
    /// Receives what happens. It closes when the run is over.
    pub events: mpsc::UnboundedSender<Event>,
    /// Receives the figures. Nobody is woken for each of them.
    pub progress: watch::Sender<Progress>,
    /// Keeps outcomes that the ledger has lost. Called at most once, before the run is sealed.
    pub keep_lost: KeepLost,
}

/// Receives a run's number, and the outcomes of it that the ledger has lost.
pub type KeepLost = Box<dyn FnOnce(i64, &[LostOutcome]) + Send>;

/// How a run is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunResult {
    /// Every recipient is accounted for.
    Complete,
    /// The run handled every message; some were rejected, are unknown or are still pending.
    Partial,
    /// The user asked to stop.
    Interrupted,
    /// The run stopped for a reason of its own.
    Stopped,
}

impl RunResult {
    /// The ending that the ledger keeps.
    pub fn recorded(self) -> RecordedEnding {
        match self {
            RunResult::Complete => RecordedEnding::Complete,
            RunResult::Partial => RecordedEnding::Partial,
            RunResult::Interrupted => RecordedEnding::Interrupted,
            RunResult::Stopped => RecordedEnding::Stopped,
        }
    }
}

/// What a run did.
#[derive(Debug)]
pub struct RunSummary {
    /// Its number in the ledger.
    pub run: i64,
    /// Why it ended.
    pub ending: RunEnding,
    /// How it is recorded.
    pub result: RunResult,
    /// The figures of this run.
    pub progress: Progress,
    /// How many messages the plan wanted to send.
    pub planned: u64,
    /// How many sends of the campaign are unknown, those of earlier runs and of other appliers included.
    pub unknown: u64,
    /// How many messages are still to be sent.
    pub pending: u64,
    /// How many messages other appliers have sent.
    pub by_others: u64,
    /// How many outcomes the ledger could not record, because somebody had settled those sends otherwise.
    pub overruled: u64,
    /// Outcomes that the ledger has lost, with their intents.
    pub lost: Vec<LostOutcome>,
    /// How long it took.
    pub elapsed: Duration,
    /// The ledger's head after the run was sealed, or why it could not be.
    pub sealed: Result<Head, LedgerError>,
}

/// Applies an approved plan: begins a run, sends what is still to be sent, and seals the run.
///
/// An error means that the run did not begin. Once it has begun, whatever happens is in the summary.
pub async fn run(run: Run) -> Result<RunSummary, RunError> {
    let Run { plan, delivery, start, ledger, gateway, clock, shutdown, events, progress, keep_lost } = run;
    let ApprovedPlan { approved, sends, unknown, leave_by, snapshot, source } = plan;
    let mut ledger = ledger.begin(&start, &snapshot).await?;
    let id = ledger.id();
    let shared = ledger.coordinator().is_some();
    let started = clock.instant();
    let _ = events.send(Event::Started { run: id, head: ledger.head(), warnings: ledger.warnings().to_vec() });

    let spent_codes = snapshot.spent_codes.len();
    let first = if shared { first_snapshot(ledger.snapshot().await, &start) } else { Ok(snapshot) };
    let mut engine = Engine::new(Setup {
        ledger,
        gateway,
        delivery,
        approved: Arc::new(approved),
        leave_by,
        clock: Arc::clone(&clock),
        shutdown,
        events,
        figures: progress,
    });
    let rounds = Rounds { source: source.as_ref(), spent_codes };
    let ending = match first {
        Ok(snapshot) => rounds.run(&mut engine, Arc::new(snapshot)).await,
        Err(ending) => ending,
    };
    // Others may have died, and left unknown sends behind.
    let unknown_of_all = if shared { engine.count_unknown().await.ok() } else { None };
    let (done, overruled, lost) = (engine.progress(), engine.overruled(), engine.lost().to_vec());
    let ledger = engine.into_ledger();
    if !lost.is_empty() {
        keep_lost(id, &lost);
    }

    let own = done.accepted + done.rejected + done.unknown;
    let left = sends.saturating_sub(own);
    // A shared run that finished has seen that nobody is left: others have sent the rest.
    let by_others = if shared && ending == RunEnding::Finished { left - done.not_sent.min(left) } else { 0 };
    let pending = left - by_others;
    let unknown = unknown_of_all.unwrap_or(unknown + done.unknown);
    let result = match &ending {
        RunEnding::Finished if pending == 0 && unknown == 0 && done.rejected == 0 && overruled == 0 => {
            RunResult::Complete
        }
        RunEnding::Finished => RunResult::Partial,
        RunEnding::Interrupted => RunResult::Interrupted,
        _ => RunResult::Stopped,
    };
    let counts = RunCounts {
        accepted: done.accepted,
        rejected: done.rejected,
        unknown: done.unknown,
        not_sent: done.attempts_not_sent,
    };
    let sealed = ledger.finish(result.recorded(), counts).await;
    Ok(RunSummary {
        run: id,
        ending,
        result,
        progress: done,
        planned: sends,
        unknown,
        pending,
        by_others,
        overruled,
        lost,
        elapsed: clock.instant().saturating_duration_since(started),
        sealed,
    })
}

/// What the first round of a run on a shared ledger goes by: others may have gone on while the plan was
/// made and approved.
fn first_snapshot(snapshot: Result<Snapshot, LedgerError>, start: &RunStart) -> Result<Snapshot, RunEnding> {
    let snapshot = snapshot.map_err(RunEnding::of_ledger)?;
    match snapshot.planned_at {
        Some(planned_at) if planned_at != start.planned_at => Err(RunEnding::PlanSuperseded),
        _ => Ok(snapshot),
    }
}

/// Rounds over the plan: one, unless other appliers may have left something.
struct Rounds<'a> {
    source: &'a dyn PlanSource,
    /// How many codes others had given away when the plan was made.
    spent_codes: usize,
}

impl Rounds<'_> {
    async fn run(&self, engine: &mut Engine, mut snapshot: Arc<Snapshot>) -> RunEnding {
        loop {
            let before = engine.progress();
            let open = snapshot.sends.count(SendState::Intent);
            match self.round(engine, &snapshot).await {
                RunEnding::Finished => {}
                // Others have given codes away since the plan: the files are the same, the codes are not.
                RunEnding::InputsChanged if snapshot.spent_codes.len() != self.spent_codes => {
                    return RunEnding::CodeTaken;
                }
                ending => return ending,
            }
            match engine.plan_next_round(before, open).await {
                Ok(NextRound::Over(now)) => snapshot = Arc::new(now),
                Ok(NextRound::NotNeeded) => return RunEnding::Finished,
                Ok(NextRound::Interrupted) => return RunEnding::Interrupted,
                Err(error) => return RunEnding::of_ledger(error),
            }
        }
    }

    async fn round(&self, engine: &mut Engine, snapshot: &Arc<Snapshot>) -> RunEnding {
        let (sender, mut feed) = Feed::new();
        self.source.start(Arc::clone(snapshot), sender);
        let ending = engine.run(&mut feed).await;
        match (ending, feed.outcome().await) {
            (RunEnding::Finished, Err(FeedError::Open(diagnostics))) => {
                RunEnding::InputsUnreadable(Shared::new(diagnostics))
            }
            // Files that cannot be read a second time have changed since the plan.
            (RunEnding::Finished, Err(FeedError::Read(_))) => RunEnding::InputsChanged,
            (RunEnding::Finished, Err(FeedError::Crashed)) => {
                RunEnding::Internal("the thread that reads the audience crashed".to_owned())
            }
            (ending, _) => ending,
        }
    }
}
