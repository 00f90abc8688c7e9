//! The rate and the work of several appliers that share a sender number and a plan.
//!
//! Each applier reserves slots of time: during its slot an applier sends at the whole rate, and nobody
//! else does. And each takes chunks of the plan: it streams the whole plan and sends the chunks that it was
//! given, so that appliers do not get in each other's way. What keeps them apart for certain is the ledger;
//! what a dead applier leaves of its chunks is found in a further round.
//!
//! This part asks for slots and chunks by way of the engine's actions, and is given the answers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Owner;
use crate::ledger::LedgerError;

/// How many consecutive sends make a chunk of the plan.
const SENDS_PER_CHUNK: u64 = 128;

/// How far ahead an applier reserves: long enough that asking costs little, short enough that little is
/// lost when an applier dies or has nothing to send.
const RESERVED_AHEAD: Duration = Duration::from_millis(100);

/// How long the ledger is left alone after it did not answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Slots of time, and chunks of the plan.
#[derive(Debug, Default)]
pub(super) struct SharedLimiter {
    pub(super) slots: VecDeque<Slot>,
    /// Whether the last slot was used up: then the next is asked for ahead of time.
    pub(super) used_up: bool,
    /// A slot that was asked for, and how many messages it is for.
    pub(super) pending_reservation: Option<u32>,
    /// Missing after the first round, in which every send is handled by whoever comes first.
    chunks: Option<Chunks>,
    /// When the ledger is asked again, after it did not answer.
    pub(super) ask_again_at: Option<Instant>,
    /// Since when the ledger answers none of these questions.
    unreachable_since: Option<Instant>,
    /// Until when the number is reserved for others, as was reported.
    pub(super) reported_until: Option<Instant>,
}

/// A time in which the sender number is this applier's alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) next: Instant,
    pub(super) left: u32,
    pub(super) end: Instant,
}

/// The chunks of the plan that this applier was given.
#[derive(Debug, Default)]
struct Chunks {
    current: Option<u64>,
    /// The one after it: asked for ahead of time.
    next: Option<u64>,
    requested: bool,
    failed: Option<LedgerError>,
    /// Whether a chunk was given to another applier.
    skipped: bool,
}

impl SharedLimiter {
    pub(super) fn new() -> Self {
        Self { chunks: Some(Chunks::default()), ..Self::default() }
    }

    /// Drops slots whose time has passed: the next may be another applier's.
    pub(super) fn drop_unused(&mut self, now: Instant, tick: Duration) {
        while self.slots.front().is_some_and(|slot| slot.end + tick < now) {
            self.slots.pop_front();
            self.used_up = false;
        }
    }

    /// The largest number of messages that a slot is asked for.
    pub(super) fn max_messages(interval: Duration, batch: usize) -> u32 {
        let within = (RESERVED_AHEAD.as_nanos() / interval.as_nanos().max(1)).clamp(1, 10_000).max(batch as u128);
        u32::try_from(within).unwrap_or(u32::MAX)
    }

    /// For how many messages a slot should be asked for now, if `waiting` wait, and requests carry `batch`
    /// of them.
    pub(super) fn wants_slot(&self, interval: Duration, waiting: usize, batch: usize) -> Option<u32> {
        let max = u128::from(Self::max_messages(interval, batch));
        let (ahead, covered) = match (self.slots.len(), self.slots.front()) {
            (0, _) => (true, 0),
            (1, Some(slot)) => (self.used_up, slot.left as usize),
            _ => (false, 0),
        };
        let messages = u128::try_from(waiting.saturating_sub(covered)).unwrap_or(u128::MAX).min(max);
        // Beside others a slot is for whole requests: a smaller one would cut the next in two.
        let messages = if covered > 0 { messages - messages % batch as u128 } else { messages };
        (ahead && messages > 0).then(|| u32::try_from(messages).unwrap_or(u32::MAX))
    }

    pub(super) fn grant(&mut self, messages: u32, start: Instant, interval: Duration) {
        self.slots.push_back(Slot { next: start, left: messages, end: start + interval * messages });
    }

    /// Whose the send with this ordinal is. Ordinals rise.
    pub(super) fn owner_of(&mut self, ordinal: u64) -> Owner {
        let Some(chunks) = &mut self.chunks else { return Owner::ThisApplier };
        let wanted = ordinal / SENDS_PER_CHUNK;
        while chunks.current.is_none_or(|current| current < wanted) {
            match chunks.next.take() {
                Some(next) => chunks.current = Some(next),
                None => return Owner::NotKnownYet,
            }
        }
        if chunks.current == Some(wanted) {
            Owner::ThisApplier
        } else {
            chunks.skipped = true;
            Owner::Another
        }
    }

    /// Whether the next chunk should be asked for now. If so, it counts as asked for.
    pub(super) fn request_chunk(&mut self, now: Instant) -> bool {
        if self.ask_again_at.is_some_and(|at| now < at) {
            return false;
        }
        let Some(chunks) = &mut self.chunks else { return false };
        let request = !chunks.requested && chunks.next.is_none() && chunks.failed.is_none();
        chunks.requested |= request;
        request
    }

    /// Takes the answer to a question for the next chunk.
    pub(super) fn chunk_granted(&mut self, answer: Result<u64, LedgerError>) {
        let Some(chunks) = &mut self.chunks else { return };
        chunks.requested = false;
        match answer {
            Ok(number) => {
                chunks.next = Some(number);
                self.unreachable_since = None;
            }
            Err(error) => chunks.failed = Some(error),
        }
    }

    /// Why the next chunk could not be had, if that is so. It is asked for again afterwards.
    pub(super) fn take_chunk_failure(&mut self) -> Option<LedgerError> {
        self.chunks.as_mut()?.failed.take()
    }

    /// Ends the first round. Whether no chunk of the plan was given to another applier; nothing after
    /// the first round.
    pub(super) fn end_first_round(&mut self) -> Option<bool> {
        self.chunks.take().map(|chunks| !chunks.skipped)
    }

    pub(super) fn reachable(&mut self) {
        self.unreachable_since = None;
    }

    /// The ledger did not answer. Returns for how long it is left alone, or that it did not answer for
    /// longer than `patience`.
    pub(super) fn unreachable(&mut self, now: Instant, patience: Duration) -> Option<Duration> {
        let since = *self.unreachable_since.get_or_insert(now);
        if now.saturating_duration_since(since) > patience {
            return None;
        }
        self.ask_again_at = Some(now + ASK_AGAIN_AFTER);
        Some(ASK_AGAIN_AFTER)
    }
}
