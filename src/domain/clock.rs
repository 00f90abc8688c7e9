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
    #[expect(clippy::disallowed_methods, reason = "this is the system's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn instant(&self) -> Instant {
        // The same clock, and one that stands still where a test has paused it.
        tokio::time::Instant::now().into_std()
    }
}
