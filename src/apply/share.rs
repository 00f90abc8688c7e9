//! Sharing the work with other appliers of the same plan.
//!
//! The plan is cut into shares of consecutive sends. Each applier streams the whole plan and sends
//! the shares that it was given, so that they do not get in each other's way; what keeps them apart
//! for certain is the ledger's gate. What a dead applier leaves of its share is found in a further
//! round.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::ledger::{Coordinator, LedgerError};

/// How many consecutive sends are one share.
const SHARE: u64 = 128;

/// Whether a send is this applier's in the first round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Its own.
    Ours,
    /// Another applier's.
    Theirs,
    /// Not known yet.
    Open,
}

/// The shares that this applier was given so far.
pub(super) struct Shares {
    numbers: mpsc::Receiver<Result<u64, LedgerError>>,
    current: Option<u64>,
    /// Why there was none the last time.
    failed: Option<LedgerError>,
    /// Whether a share went to somebody else.
    pub(super) skipped: bool,
}

impl Shares {
    /// Asks for shares, one ahead.
    pub(super) fn of(peers: Arc<dyn Coordinator>) -> Self {
        let (sender, numbers) = mpsc::channel(1);
        tokio::spawn(async move { while sender.send(peers.next_chunk().await).await.is_ok() {} });
        Self { numbers, current: None, failed: None, skipped: false }
    }

    /// Whose the send with this ordinal is. Ordinals rise.
    pub(super) fn whose(&mut self, ordinal: u64) -> Whose {
        let wanted = ordinal / SHARE;
        while self.current.is_none_or(|current| current < wanted) {
            match self.numbers.try_recv() {
                Ok(Ok(number)) => self.current = Some(number),
                Ok(Err(error)) => {
                    self.failed = Some(error);
                    return Whose::Open;
                }
                Err(_) => return Whose::Open,
            }
        }
        if self.current == Some(wanted) {
            Whose::Ours
        } else {
            self.skipped = true;
            Whose::Theirs
        }
    }

    /// Waits for the next share, or tells why there is none yet.
    pub(super) async fn next(&mut self) -> Result<(), LedgerError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match self.numbers.recv().await {
            Some(Ok(number)) => {
                self.current = Some(number);
                Ok(())
            }
            Some(Err(error)) => Err(error),
            None => Err(LedgerError::Internal("the task that asks for chunks of the plan crashed")),
        }
    }
}
