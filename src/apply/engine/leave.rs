//! What the engine needs leave for, where other appliers are about: slots of time, in which the
//! number is this applier's alone, and shares of the plan.

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::record::LEDGER_PATIENCE;
use super::{Engine, FIRST_PAUSE, WORTH_TELLING, told};
use crate::apply::share::Shares;
use crate::apply::{Event, RunEnding, ShutdownRequest};
use crate::ledger::LedgerError;

impl Engine {
    /// Where the rate is shared: takes the slot of time that was granted meanwhile, and asks for the
    /// next in good time, however busy this run is.
    pub(super) async fn reserve(&mut self) {
        if self.asked.as_ref().is_some_and(|(_, asked)| asked.is_finished()) {
            let slot = slot(&mut self.asked).await;
            self.granted(slot).await;
        }
        if self.asked.is_none()
            && self.ready() > 0
            && let Some(many) = self.pacer.wants(self.queue.len(), self.batch())
            && let Some(peers) = self.peers.clone()
        {
            // From the answer on: when it is looked at does not matter.
            let most = self.pacer.block(self.delivery.batch);
            let asked = async move { peers.reserve(many, most).await.map(|delay| Instant::now() + delay) };
            self.asked = Some((many, tokio::spawn(asked)));
        }
    }

    pub(super) async fn granted(&mut self, slot: Result<Instant, LedgerError>) {
        let many = self.asked.take().map_or(0, |(many, _)| many);
        match slot {
            Ok(start) => {
                self.silent_since = None;
                self.pacer.grant(many, start);
                self.explain_wait(many, start);
            }
            Err(error) => self.unanswered(error).await,
        }
    }

    /// Tells why nothing leaves, if the slot of time starts much later than a few appliers that take
    /// turns would have it: another applier was asked to slow down, or the record's clock is ahead.
    fn explain_wait(&mut self, many: u32, start: Instant) {
        let now = Instant::now();
        let wait = start.saturating_duration_since(now);
        let known = self.known_to_wait.is_some_and(|until| now < until)
            || self.held_until.is_some_and(|until| start < until + WORTH_TELLING);
        if known || self.ending.is_some() || wait < WORTH_TELLING.max(self.pacer.time_for(many) * 3) {
            return;
        }
        self.known_to_wait = Some(start);
        let until = Timestamp::now().saturating_add(SignedDuration::try_from(wait).unwrap_or_default());
        if let Ok(until) = until {
            let _ = self.events.send(Event::Reserved { until, pause: wait });
        }
    }

    /// The ledger gives no leave, or no share: it is waited for, as for a commit.
    pub(super) async fn unanswered(&mut self, error: LedgerError) {
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        if !matches!(error, LedgerError::Lost { .. }) || since.elapsed() > LEDGER_PATIENCE {
            self.ending.get_or_insert(RunEnding::of_ledger(error));
            return;
        }
        let pause = FIRST_PAUSE;
        let _ = self.events.send(Event::Waiting { reason: error.to_string(), pause });
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = told(&mut stop, |level| level > ShutdownRequest::None) => {}
        }
    }
}

/// A slot of time that was asked for: for how many messages, and from when on.
pub(super) type Asked = (u32, JoinHandle<Result<Instant, LedgerError>>);

/// The next share, if shares are given out.
pub(super) async fn share(shares: &mut Option<Shares>) -> Result<(), LedgerError> {
    match shares {
        Some(shares) => shares.next().await,
        None => std::future::pending().await,
    }
}

/// The slot that was asked for.
pub(super) async fn slot(asked: &mut Option<Asked>) -> Result<Instant, LedgerError> {
    match asked {
        Some((_, handle)) => match handle.await {
            Ok(answer) => answer,
            Err(_) => Err(LedgerError::Internal("the task that reserves the sender number crashed")),
        },
        None => std::future::pending().await,
    }
}
