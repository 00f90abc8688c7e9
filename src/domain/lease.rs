//! The lease of a run, as its own process knows it.
//!
//! Other appliers may fence a run off once its last sign of life is older than its lease. A request
//! whose bytes leave after that could be one whose outcome somebody has decided already. So a run
//! keeps the moment of its last sign of life that the ledger has confirmed, and lets bytes leave only
//! while most of the lease is still ahead of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::domain::clock::{Clock, SystemClock};

/// A moment by both clocks: a signal may pause this process, or its machine may sleep, and then one
/// of the two stands still.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    monotonic: Instant,
    wall: Timestamp,
}

impl Moment {
    /// This moment, by the clocks of this machine.
    pub fn now() -> Self {
        Self::of(&SystemClock)
    }

    /// This moment, by these clocks.
    pub fn of(clock: &dyn Clock) -> Self {
        Self { monotonic: clock.instant(), wall: clock.now() }
    }

    /// How much time has passed, by the clock that says more.
    pub fn elapsed(self, clock: &dyn Clock) -> Duration {
        let by_the_wall = Duration::try_from(clock.now().duration_since(self.wall)).unwrap_or_default();
        clock.instant().saturating_duration_since(self.monotonic).max(by_the_wall)
    }
}

/// Whether this run still holds its lease. All clones tell the same.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// How long after a sign of life bytes may leave.
    within: Duration,
    clock: Arc<dyn Clock>,
    last_sign: Mutex<Moment>,
}

impl Lease {
    /// A lease that was taken at `taken`; bytes may leave `within` this time of its last sign of life.
    pub fn new(within: Duration, taken: Moment) -> Self {
        Self::by(Arc::new(SystemClock), within, taken)
    }

    /// The same, by these clocks.
    pub fn by(clock: Arc<dyn Clock>, within: Duration, taken: Moment) -> Self {
        Self(Arc::new(Inner { within, clock, last_sign: Mutex::new(taken) }))
    }

    /// The ledger confirmed a sign of life. `asked` is the moment before this process gave it, since
    /// the answer may have come late.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_holds_until_the_last_confirmed_sign_of_life_is_too_old() {
        let lease = Lease::new(Duration::from_secs(24), Moment::now());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(lease.holds());
        let asked = Moment::now();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!lease.holds());
        // What counts is when this process asked, not when the answer came.
        lease.clone().confirmed(asked);
        assert!(lease.holds());
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(!lease.holds());
        // An answer that overtook a later one takes nothing back.
        lease.confirmed(Moment::now());
        lease.confirmed(asked);
        assert!(lease.holds());
    }

    #[test]
    fn a_machine_that_slept_has_lost_its_lease_although_its_clock_stood_still() {
        let now = Moment::now();
        let wall = now.wall - jiff::SignedDuration::from_secs(60);
        let lease = Lease::new(Duration::from_secs(24), Moment { wall, ..now });
        assert!(!lease.holds());
    }
}
