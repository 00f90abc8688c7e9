//! What other appliers have left, after a round.

use std::time::Duration;

use super::LEDGER_PATIENCE;
use super::driver::{Engine, wait_for_stop};
use crate::apply::{Event, Progress, ShutdownRequest};
use crate::ledger::{LedgerError, Snapshot};

/// How often others are asked whether they are done.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// What follows a round.
pub enum NextRound {
    /// Nothing: everybody is accounted for.
    NotNeeded,
    /// A further round, over this.
    Over(Snapshot),
    /// The user asked to stop before that was known.
    Interrupted,
}

impl Engine {
    /// After a round that came to its end: plans a further one, because other appliers may have left
    /// something. Waits until they have nothing in flight. `before` is what had happened before that round,
    /// `open` how many intents of others the record held then.
    pub async fn plan_next_round(&mut self, before: Progress, open: u64) -> Result<NextRound, LedgerError> {
        let Some(coordinator) = self.coordinator.clone() else { return Ok(NextRound::NotNeeded) };
        // A round over everything that nobody else had a hand in leaves nothing; nor does one that
        // found nothing.
        let first = self.state.limiter.end_first_round();
        let progress = self.state.progress;
        let everything = first.unwrap_or(true) && progress.held == before.held && open == 0;
        let nothing_found = everything && progress.granted == before.granted;
        let alone = everything && first.is_some();
        let mut waited = false;
        let mut unreachable_since = None;
        let mut shutdown = self.shutdown.clone();
        loop {
            if *self.shutdown.borrow() > ShutdownRequest::None {
                return Ok(NextRound::Interrupted);
            }
            let error = match coordinator.activity().await {
                Ok(others) if others.open > 0 => {
                    waited = true;
                    self.report(Event::Others(others));
                    unreachable_since = None;
                    None
                }
                Ok(others) if !waited && (nothing_found || alone && others.appliers == 0) => {
                    return Ok(NextRound::NotNeeded);
                }
                Ok(_) => match self.ledger.snapshot().await {
                    Ok(snapshot) => return Ok(NextRound::Over(snapshot)),
                    Err(error) => Some(error),
                },
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                let now = self.clock.instant();
                let since = *unreachable_since.get_or_insert(now);
                if !matches!(error, LedgerError::Lost { .. }) || now - since > LEDGER_PATIENCE {
                    return Err(error);
                }
                self.report(Event::Waiting { reason: error.to_string(), pause: POLL_INTERVAL });
            }
            tokio::select! {
                biased;
                _ = wait_for_stop(&mut shutdown, |level| level > ShutdownRequest::None) => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }
}
