//! Pacing: how many messages may leave now.

use std::time::Duration;

use tokio::time::Instant;

use crate::campaign::Rate;

/// The shortest time that the pacer tells apart. At high rates a few messages leave together, at
/// most one tick's worth.
const TICK: Duration = Duration::from_millis(10);

/// Hands out leave for messages at a constant rate. Time that was not used is lost, but for one
/// tick, so that nothing ever bursts to catch up.
#[derive(Debug)]
pub struct Pacer {
    interval: Duration,
    /// When the next message may leave.
    next: Instant,
}

impl Pacer {
    /// A pacer whose first message may leave at once.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { interval: rate.interval(), next: now }
    }

    /// How many messages may leave at `now`.
    pub fn due(&self, now: Instant) -> usize {
        if self.next > now {
            return 0;
        }
        let late = (now - self.next).min(TICK);
        let more = late.as_nanos() / self.interval.as_nanos().max(1);
        1 + usize::try_from(more).unwrap_or(usize::MAX - 1)
    }

    /// Takes leave for `messages`.
    pub fn take(&mut self, messages: usize, now: Instant) {
        let start = self.next.max(now.checked_sub(TICK).unwrap_or(now));
        self.next = start + self.interval * u32::try_from(messages).unwrap_or(u32::MAX);
    }

    /// When the next message may leave.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Lets nothing leave before `until`.
    pub fn hold(&mut self, until: Instant) {
        self.next = self.next.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_holds_and_never_bursts_to_catch_up() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Rate::parse("1000/s").unwrap(), start);
        let mut sent = 0;
        while start.elapsed() < Duration::from_secs(10) {
            let now = Instant::now();
            let due = pacer.due(now);
            assert!(due <= 11, "{due} at once");
            pacer.take(due, now);
            sent += due;
            tokio::time::sleep_until(pacer.next().max(now + Duration::from_millis(1))).await;
        }
        assert!((9_900..=10_100).contains(&sent), "{sent}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(pacer.due(Instant::now()) <= 11);
    }
}
