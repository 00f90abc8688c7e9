//! Pauses after the provider could not be reached or asked to slow down.

use std::time::{Duration, Instant};

use super::{FIRST_PAUSE, MAX_PAUSE, MAX_RETRY_AFTER, MIN_REPORTED_PAUSE};

/// How many failures there were in a row, and until when the run pauses for them.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    consecutive_failures: u32,
    paused_until: Option<Instant>,
}

/// A pause that begins, or becomes longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) length: Duration,
    pub(super) until: Instant,
    /// Whether it is worth a report: a pause that becomes a little longer is not.
    pub(super) reported: bool,
}

impl Backoff {
    /// A request was answered: the next failure is the first again.
    pub(super) fn succeeded(&mut self) {
        self.consecutive_failures = 0;
    }

    /// Whether the next request leaves alone, because the one before failed.
    pub(super) fn one_at_a_time(&self) -> bool {
        self.consecutive_failures > 0
    }

    /// The end of the last pause.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// A request failed at `now`. Requests that were in flight together fail together, so only the first
    /// of them begins a pause, unless the provider asks for a longer one.
    pub(super) fn failed(&mut self, now: Instant, retry_after: Option<Duration>) -> Option<Pause> {
        let asked = retry_after.map(|asked| asked.min(MAX_RETRY_AFTER));
        let before = self.paused_until.filter(|until| *until > now);
        let length = match before {
            Some(until) => {
                // The next request leaves alone, even if a reply from before the pause was a success.
                self.consecutive_failures = self.consecutive_failures.max(1);
                asked.filter(|asked| now + *asked > until)?
            }
            None => {
                let chosen = FIRST_PAUSE.saturating_mul(1 << self.consecutive_failures.min(8)).min(MAX_PAUSE);
                self.consecutive_failures += 1;
                asked.map_or(chosen, |asked| asked.max(chosen))
            }
        };
        let until = now + length;
        self.paused_until = Some(until);
        let reported = before.is_none_or(|before| until - before >= MIN_REPORTED_PAUSE);
        Some(Pause { length, until, reported })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_a_request_succeeds() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut lengths = Vec::new();
        for _ in 0..9 {
            let pause = backoff.failed(now, None).unwrap();
            // What was in flight with it fails as well, and makes the pause no longer.
            assert_eq!(backoff.failed(now + Duration::from_millis(1), None), None);
            lengths.push(pause.length.as_millis());
            now = pause.until;
        }
        assert_eq!(lengths, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        backoff.succeeded();
        assert!(!backoff.one_at_a_time());
        assert_eq!(backoff.failed(now, None).unwrap().length, FIRST_PAUSE);
    }

    #[test]
    fn a_provider_may_ask_for_a_longer_pause_up_to_a_bound() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        assert_eq!(backoff.failed(now, Some(Duration::from_secs(9))).unwrap().length, Duration::from_secs(9));
        let longer = backoff.failed(now, Some(Duration::from_secs(10))).unwrap();
        assert_eq!((longer.length, longer.reported), (Duration::from_secs(10), false));
        let longest = backoff.failed(now, Some(Duration::from_secs(9_999))).unwrap();
        assert_eq!((longest.length, longest.reported), (MAX_RETRY_AFTER, true));
    }
}
