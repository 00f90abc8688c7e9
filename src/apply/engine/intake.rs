//! The queue: messages of the feed that wait for their turn.

use std::collections::VecDeque;

use super::QueuedSend;
use super::uploads::Uploads;
use crate::apply::feed::Messages;
use crate::apply::limiter::{Limiter, Owner};
use crate::plan::{Approved, Desired, SendStatus};

/// Messages on their way from the feed to a claim.
pub(super) struct Intake {
    /// What leaves next.
    pub(super) queue: VecDeque<QueuedSend>,
    /// What came from the feed and is not in the queue yet.
    buffered: Messages,
    /// The next message of the feed, while it is not known whether its chunk of the plan is ours.
    awaiting_chunk: Option<Box<Desired>>,
    feed_open: bool,
    /// How long the queue becomes.
    capacity: usize,
    pub(super) uploads: Uploads,
}

/// A message is not one of the approved plan's.
pub(super) struct NotApproved;

impl Intake {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            buffered: Vec::new().into_iter(),
            awaiting_chunk: None,
            feed_open: false,
            capacity,
            uploads: Uploads::default(),
        }
    }

    /// A feed begins.
    pub(super) fn open(&mut self) {
        self.feed_open = true;
    }

    /// The feed has given its last message.
    pub(super) fn close(&mut self) {
        self.feed_open = false;
    }

    /// Whatever is left of the feed is not wanted any more.
    pub(super) fn discard(&mut self) {
        self.awaiting_chunk = None;
        self.buffered = Vec::new().into_iter();
        self.feed_open = false;
    }

    /// Whether the feed should be asked for more: the queue has room, and nothing is at hand.
    pub(super) fn has_room(&self) -> bool {
        self.feed_open && self.awaiting_chunk.is_none() && self.buffered.len() == 0 && self.queue.len() < self.capacity
    }

    /// Whether the feed is waited for: nothing is at hand, and the queue does not fill a request.
    pub(super) fn needs_messages(&self, batch: usize) -> bool {
        self.feed_open && self.buffered.len() == 0 && self.queue.len() < batch
    }

    /// Whether messages of the feed may still join the queue.
    pub(super) fn more_may_come(&self) -> bool {
        self.feed_open || self.awaiting_chunk.is_some() || self.buffered.len() > 0
    }

    /// Whether the next message waits for its chunk of the plan.
    pub(super) fn awaits_chunk(&self) -> bool {
        self.awaiting_chunk.is_some()
    }

    /// Messages came from the feed.
    pub(super) fn add(&mut self, messages: Messages) {
        self.buffered = messages;
    }

    /// Moves messages into the queue while it has room and it is known whose they are.
    pub(super) fn fill(&mut self, limiter: &mut Limiter, approved: &Approved) -> Result<(), NotApproved> {
        while self.queue.len() < self.capacity {
            let Some(desired) = self.awaiting_chunk.take().or_else(|| self.buffered.next()) else { break };
            let SendStatus::Send(attempt) = desired.status else { continue };
            match limiter.owner_of(desired.ordinal) {
                Owner::ThisApplier => {}
                Owner::Another => continue,
                Owner::NotKnownYet => {
                    self.awaiting_chunk = Some(desired);
                    break;
                }
            }
            if !approved.holds(&desired.entry) {
                return Err(NotApproved);
            }
            self.uploads.queued(&desired.message);
            self.queue.push_back(QueuedSend { desired, attempt, tries: 0 });
        }
        Ok(())
    }
}
