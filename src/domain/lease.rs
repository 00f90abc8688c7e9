//! The lease of a run, as its own process knows it.
//!
//! Other appliers may fence a run off when its last sign of life is older than its lease. If bytes of a
//! request left after that, somebody could have decided about its outcome already. So a run remembers its
//! last sign of life that the ledger confirmed, and lets bytes leave only during the first part of the lease
//! after it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::clock::Clock;

/// A moment by both clocks. A signal may pause this process, or its machine may sleep: then one of the two
/// clocks stands still.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    monotonic: Instant,
    wall: Timestamp,
}

impl Moment {
    /// This moment.
    pub fn now(clock: &dyn Clock) -> Self {
        Self { monotonic: clock.instant(), wall: clock.now() }
    }

    /// The time since then, by the clock that shows more.
    pub fn elapsed(self, clock: &dyn Clock) -> Duration {
        let by_the_wall_clock = Duration::try_from(clock.now().duration_since(self.wall)).unwrap_or_default();
        clock.instant().saturating_duration_since(self.monotonic).max(by_the_wall_clock)
    }
}

/// Whether this run still holds its lease. All clones share one state.
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    /// How long after a sign of life bytes may leave.
    within: Duration,
    last_sign: Mutex<Moment>,
}

impl Lease {
    /// A lease that was taken at `taken`. Bytes may leave within this time after its last sign of life.
    pub fn new(clock: Arc<dyn Clock>, within: Duration, taken: Moment) -> Self {
        Self(Arc::new(Inner { clock, within, last_sign: Mutex::new(taken) }))
    }

    /// Records that the ledger confirmed a sign of life. `asked` is the moment before this process gave it,
    /// because the answer may have come late.
    pub fn confirmed(&self, asked: Moment) {
        let mut last = self.0.last_sign.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.monotonic > last.monotonic {
            *last = asked;
        }
    }

    /// Whether bytes may leave now.
    pub fn holds(&self) -> bool {
        let last = *self.0.last_sign.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed(self.0.clock.as_ref()) <= self.0.within
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("within", &self.0.within).field("last_sign", &self.0.last_sign).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::ManualClock;

    #[test]
    fn a_lease_holds_until_the_last_confirmed_sign_of_life_is_too_old() {
        let clock = Arc::new(ManualClock::default());
        let moment = || Moment::now(clock.as_ref());
        let lease = Lease::new(clock.clone(), Duration::from_secs(24), moment());
        clock.advance(Duration::from_secs(20));
        assert!(lease.holds());
        let asked = moment();
        clock.advance(Duration::from_secs(10));
        assert!(!lease.holds());
        // What counts is when this process asked, not when the answer came.
        lease.clone().confirmed(asked);
        assert!(lease.holds());
        clock.advance(Duration::from_secs(15));
        assert!(!lease.holds());
        // An answer that overtook a later one takes nothing back.
        lease.confirmed(moment());
        lease.confirmed(asked);
        assert!(lease.holds());
    }

    #[test]
    fn a_machine_that_slept_has_lost_its_lease_although_its_monotonic_clock_stood_still() {
        let clock = Arc::new(ManualClock::default());
        let lease = Lease::new(clock.clone(), Duration::from_secs(24), Moment::now(clock.as_ref()));
        clock.advance_wall(Duration::from_secs(60));
        assert!(!lease.holds());
        // A wall clock that was set back must not hide that time has passed.
        let lease = Lease::new(clock.clone(), Duration::from_secs(24), Moment::now(clock.as_ref()));
        clock.set_back(Duration::from_secs(3_600));
        clock.advance(Duration::from_secs(25));
        assert!(!lease.holds());
    }
}
