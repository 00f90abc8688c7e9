//! The messages of a round, as a stream.
//!
//! A [`PlanSource`] goes through the plan's inputs a second time and passes on each message that is
//! still to be sent. Messages travel in chunks, because each transfer may wake a thread; only this file
//! knows how many make a chunk.

#![expect(clippy::vec_box, reason = "each message stays in its box from the feed to its request")]

use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::domain::diagnostic::Diagnostics;
use crate::ledger::{LedgerKey, Snapshot};
use crate::plan::{Desired, Inputs, Pass, Prepared, ToSend};

/// How many messages make a chunk.
const CHUNK_LEN: usize = 64;

/// How many chunks may wait between the source and the engine.
const CHANNEL_CAPACITY: usize = 16;

/// Where the messages of a round come from.
pub trait PlanSource: Send + Sync {
    /// Starts to read every message that is still to be sent according to `snapshot`, in the order of
    /// the plan, and sends it to `feed`. Returns at once; whatever goes wrong later is reported with
    /// [`FeedSender::finish`].
    fn start(&self, snapshot: Arc<Snapshot>, feed: FeedSender);
}

/// Why a feed ended before its last message.
#[derive(Debug)]
pub enum FeedError {
    /// The input files cannot be opened.
    Open(Diagnostics),
    /// The input files were opened and cannot be read to their end.
    Read(Diagnostics),
    /// The source ended without a result: it panicked.
    Crashed,
}

/// The sending end of a feed.
pub struct FeedSender {
    chunk: Vec<Box<Desired>>,
    chunks: mpsc::Sender<Vec<Box<Desired>>>,
    outcome: oneshot::Sender<Result<(), FeedError>>,
}

/// The messages of one round.
pub struct Feed {
    chunks: mpsc::Receiver<Vec<Box<Desired>>>,
    outcome: oneshot::Receiver<Result<(), FeedError>>,
}

/// Messages that arrived together, in the order of the plan.
pub type Messages = std::vec::IntoIter<Box<Desired>>;

impl Feed {
    /// A feed and its sending end.
    pub fn new() -> (FeedSender, Self) {
        let (chunk_sender, chunks) = mpsc::channel(CHANNEL_CAPACITY);
        let (outcome_sender, outcome) = oneshot::channel();
        let sender = FeedSender { chunk: Vec::with_capacity(CHUNK_LEN), chunks: chunk_sender, outcome: outcome_sender };
        (sender, Self { chunks, outcome })
    }

    /// The next messages, once there are any; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Messages> {
        self.chunks.recv().await.map(Vec::into_iter)
    }

    /// The next messages, if there are any now.
    pub(super) fn try_next(&mut self) -> Result<Messages, mpsc::error::TryRecvError> {
        self.chunks.try_recv().map(Vec::into_iter)
    }

    /// Takes no more messages, and says whether all of them came.
    pub(super) async fn outcome(self) -> Result<(), FeedError> {
        // The source notices, and ends.
        drop(self.chunks);
        self.outcome.await.unwrap_or(Err(FeedError::Crashed))
    }
}

impl FeedSender {
    /// Sends a message, from a thread that may wait.
    pub fn send_blocking(&mut self, message: Box<Desired>) -> ControlFlow<()> {
        self.chunk.push(message);
        if self.chunk.len() < CHUNK_LEN {
            return if self.chunks.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_LEN));
        match self.chunks.blocking_send(chunk) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Sends a message, from a task.
    pub async fn send(&mut self, message: Box<Desired>) -> ControlFlow<()> {
        self.chunk.push(message);
        if self.chunk.len() < CHUNK_LEN {
            return ControlFlow::Continue(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_LEN));
        match self.chunks.send(chunk).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Whether the engine takes no more messages.
    pub fn is_closed(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Ends the feed, from a thread that may wait. Without this the engine takes the source for crashed.
    pub fn finish_blocking(self, outcome: Result<(), FeedError>) {
        if !self.chunk.is_empty() {
            let _ = self.chunks.blocking_send(self.chunk);
        }
        let _ = self.outcome.send(outcome);
    }

    /// The same, from a task.
    pub async fn finish(self, outcome: Result<(), FeedError>) {
        if !self.chunk.is_empty() {
            let _ = self.chunks.send(self.chunk).await;
        }
        let _ = self.outcome.send(outcome);
    }
}

/// Reads the campaign's files again, on a thread of its own.
pub struct FileSource {
    /// The campaign.
    pub campaign: Arc<Prepared>,
    /// The ledger's key.
    pub key: LedgerKey,
    /// The instant that the plan's expiry counts from.
    pub planned_at: Timestamp,
    /// Whether rejected sends are tried again.
    pub retry_rejected: bool,
}

impl PlanSource for FileSource {
    fn start(&self, snapshot: Arc<Snapshot>, feed: FeedSender) {
        let campaign = Arc::clone(&self.campaign);
        let (key, planned_at, retry_rejected) = (self.key.clone(), self.planned_at, self.retry_rejected);
        std::thread::spawn(move || read(&campaign, &snapshot, &key, planned_at, retry_rejected, feed));
    }
}

fn read(
    campaign: &Prepared,
    snapshot: &Snapshot,
    key: &LedgerKey,
    planned_at: Timestamp,
    retry_rejected: bool,
    mut feed: FeedSender,
) {
    let pass = match Pass::new(campaign, Inputs::open(campaign), snapshot, Some(key), planned_at, retry_rejected) {
        Ok(pass) => pass,
        Err(diagnostics) => return feed.finish_blocking(Err(FeedError::Open(diagnostics))),
    };
    let read = pass.run_to_send(|row| match row {
        ToSend::Message(desired) => feed.send_blocking(desired),
        ToSend::Nothing if feed.is_closed() => ControlFlow::Break(()),
        ToSend::Nothing => ControlFlow::Continue(()),
    });
    feed.finish_blocking(read.map(drop).map_err(FeedError::Read));
}
