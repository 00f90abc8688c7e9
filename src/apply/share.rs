//! Sharing the work with other appliers of the same plan.
//!
//! The plan is cut into shares of consecutive sends. Each applier streams the whole plan and sends
//! the shares that it was given, so that they do not get in each other's way; what keeps them apart
//! for certain is the ledger's gate. What a dead applier leaves of its share is found in a further
//! round.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::ledger::{LedgerError, Peers};

/// How many consecutive sends are one share.
const SHARE: u64 = 128;

/// How long to wait before a share is asked for again.
const AGAIN: Duration = Duration::from_millis(500);

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
    numbers: mpsc::Receiver<u64>,
    current: Option<u64>,
    /// Whether a share went to somebody else.
    pub(super) skipped: bool,
}

impl Shares {
    /// Asks for shares, one ahead.
    pub(super) fn of(peers: Arc<dyn Peers>) -> Self {
        let (sender, numbers) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                match peers.next_share().await {
                    Ok(number) => {
                        if sender.send(number).await.is_err() {
                            return;
                        }
                    }
                    Err(LedgerError::Lost { .. }) => tokio::time::sleep(AGAIN).await,
                    Err(_) => return,
                }
            }
        });
        Self { numbers, current: None, skipped: false }
    }

    /// Whose the send with this ordinal is. Ordinals rise.
    pub(super) fn whose(&mut self, ordinal: u64) -> Whose {
        let wanted = ordinal / SHARE;
        while self.current.is_none_or(|current| current < wanted) {
            match self.numbers.try_recv() {
                Ok(number) => self.current = Some(number),
                Err(mpsc::error::TryRecvError::Empty) => return Whose::Open,
                // Nobody gives shares out any more: the gate alone decides.
                Err(mpsc::error::TryRecvError::Disconnected) => return Whose::Ours,
            }
        }
        if self.current == Some(wanted) {
            Whose::Ours
        } else {
            self.skipped = true;
            Whose::Theirs
        }
    }

    /// Waits for the next share.
    pub(super) async fn next(&mut self) {
        match self.numbers.recv().await {
            Some(number) => self.current = Some(number),
            None => self.current = Some(u64::MAX),
        }
    }
}
