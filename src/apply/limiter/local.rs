//! The rate of one applier: how many messages may leave now.

use std::time::{Duration, Instant};

use crate::domain::campaign::Rate;

/// The shortest time that the limiter tells apart. At high rates a few messages leave together, at
/// most one tick's worth. Where commits take long, messages leave in groups of a commit's worth,
/// and the tick is twice as long as a commit.
const MIN_TICK: Duration = Duration::from_millis(10);

/// The longest tick: commits that take longer slow the run down.
pub(super) const MAX_TICK: Duration = Duration::from_millis(250);

/// Lets messages leave at a constant rate. Time that was not used is lost, but for one tick, so that
/// nothing ever bursts to catch up.
#[derive(Debug)]
pub(super) struct LocalLimiter {
    pub(super) interval: Duration,
    /// When the next message may leave.
    pub(super) next: Instant,
    /// How long a commit of the ledger takes, smoothed: one that is slow for once is no reason to
    /// catch up.
    commit: Duration,
}

impl LocalLimiter {
    /// A limiter whose first message may leave at once.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { interval: rate.interval(), next: now, commit: Duration::ZERO }
    }

    /// Takes into account how long a commit took.
    pub(super) fn committed(&mut self, took: Duration) {
        self.commit = match self.commit {
            Duration::ZERO => took,
            before => (before * 7 + took.min(before * 2 + MIN_TICK)) / 8,
        };
    }

    pub(super) fn tick(&self) -> Duration {
        (self.commit * 2).clamp(MIN_TICK, MAX_TICK)
    }

    /// How many messages may leave at `now`, if the first was due at `next`.
    pub(super) fn due_since(&self, next: Instant, now: Instant) -> usize {
        let late = now.saturating_duration_since(next).min(self.tick());
        let more = late.as_nanos() / self.interval.as_nanos().max(1);
        usize::try_from(more).unwrap_or(usize::MAX - 1).saturating_add(1)
    }

    /// When the message after these is due, if the first of them was due at `next` and leaves at `now`.
    pub(super) fn after(&self, next: Instant, messages: usize, now: Instant) -> Instant {
        let earliest = now.checked_sub(self.tick()).unwrap_or(now);
        next.max(earliest) + self.span(messages)
    }

    /// How long these messages take at the rate.
    pub(super) fn span(&self, messages: usize) -> Duration {
        self.interval * u32::try_from(messages).unwrap_or(u32::MAX)
    }
}
