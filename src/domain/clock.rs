//! Time, passed in.
//!
//! Code below the command line reads no clock of its own: it is given a [`Clock`], so that a test or a
//! simulation decides what time it is.

use std::fmt;
use std::time::Instant;

use jiff::Timestamp;

/// The two clocks of a machine.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The wall clock: what records and expiry instants carry. It may jump in either direction.
    fn now(&self) -> Timestamp;

    /// The monotonic clock: what pauses, rates and timeouts are measured with. It never goes back, and may
    /// stand still while the machine sleeps.
    fn instant(&self) -> Instant;
}

/// The clocks of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn instant(&self) -> Instant {
        // The same clock, and one that stands still where a test has paused it.
        tokio::time::Instant::now().into_std()
    }
}

/// Clocks that a test sets by hand.
#[cfg(test)]
#[derive(Debug)]
pub struct ManualClock {
    started: Instant,
    /// How far the wall clock and the monotonic clock have gone.
    gone: std::sync::Mutex<(jiff::SignedDuration, std::time::Duration)>,
}

#[cfg(test)]
impl Default for ManualClock {
    fn default() -> Self {
        Self { started: Instant::now(), gone: std::sync::Mutex::default() }
    }
}

#[cfg(test)]
impl ManualClock {
    /// Both clocks go on.
    pub fn advance(&self, duration: std::time::Duration) {
        self.advance_wall(duration);
        self.gone.lock().unwrap().1 += duration;
    }

    /// The wall clock alone goes on.
    pub fn advance_wall(&self, duration: std::time::Duration) {
        self.gone.lock().unwrap().0 += jiff::SignedDuration::try_from(duration).unwrap();
    }

    /// The wall clock jumps back.
    pub fn set_back(&self, duration: std::time::Duration) {
        self.gone.lock().unwrap().0 -= jiff::SignedDuration::try_from(duration).unwrap();
    }
}

#[cfg(test)]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + self.gone.lock().unwrap().0
    }

    fn instant(&self) -> Instant {
        self.started + self.gone.lock().unwrap().1
    }
}
