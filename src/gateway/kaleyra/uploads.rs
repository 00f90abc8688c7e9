//! Limits how many bytes of files are in flight together.
//!
//! Fifty uploads of a large video at once share the connection to the internet, and none of them ends before the
//! provider or this program times out. So the bytes in flight are at most what the last uploads transferred in a third
//! of `timeout`, and the first upload goes alone.
//!
//! An upload is measured from its first byte to its response, because the kernel takes megabytes at once that leave
//! much later. While several are in flight, each is charged its part of the time, so that the charges add up to the time
//! in which the line was busy.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The weight of earlier uploads after each further one: about the last four count.
const KEEP: f64 = 0.75;

/// The uploads of one gateway.
#[derive(Debug)]
pub(super) struct Uploads {
    /// A third of `timeout`.
    window: Duration,
    measured: Mutex<Measured>,
}

#[derive(Debug)]
struct Measured {
    under_way: u32,
    /// The time that an upload would have been charged if it had always been in flight.
    charged: f64,
    /// Until when `charged` counts.
    counted: Instant,
    /// The bytes that the last uploads transferred, and the seconds that they were charged.
    bytes: f64,
    seconds: f64,
}

/// What the end of an upload says about the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// All of it arrived: the provider responded.
    All,
    /// It took too long.
    TooLittle,
    /// Nothing: the connection broke, or the provider refused it before its end.
    Unmeasured,
}

impl Uploads {
    pub(super) fn new(timeout: Duration) -> Self {
        let measured = Measured { under_way: 0, charged: 0.0, counted: Instant::now(), bytes: 0.0, seconds: 0.0 };
        Self { window: timeout / 3, measured: Mutex::new(measured) }
    }

    /// How many bytes of files may be in flight together. 0 before the first upload has ended: it goes alone.
    pub(super) fn budget(&self) -> u64 {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if measured.seconds > 0.0 { (measured.bytes / measured.seconds * self.window.as_secs_f64()) as u64 } else { 0 }
    }

    /// The first byte of an upload leaves. Returns the argument for [`Uploads::ended`].
    pub(super) fn started(&self) -> f64 {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.count();
        measured.under_way += 1;
        measured.charged
    }

    /// An upload of `bytes` bytes, which began at `started`, is over.
    pub(super) fn ended(&self, started: f64, bytes: u64, moved: Moved) {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.count();
        measured.under_way = measured.under_way.saturating_sub(1);
        let bytes = match moved {
            Moved::All => bytes as f64,
            Moved::TooLittle => 0.0,
            Moved::Unmeasured => return,
        };
        measured.bytes = measured.bytes * KEEP + bytes;
        // Avoids a division by zero if the upload took less than a tick of the clock.
        measured.seconds = measured.seconds * KEEP + (measured.charged - started).max(1e-4);
    }
}

impl Measured {
    fn count(&mut self) {
        let now = Instant::now();
        if self.under_way > 0 {
            self.charged += (now - self.counted).as_secs_f64() / f64::from(self.under_way);
        }
        self.counted = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// Uploads of `size` over a line of `rate` bytes a second, as many at once as the budget allows,
    /// until 40 are through. The most that were under way together, and the longest that one took.
    async fn upload(size: u64, rate: u64, latency: Duration) -> (usize, Duration) {
        let uploads = Uploads::new(Duration::from_secs(30));
        let (mut under_way, mut through) = (Vec::new(), 0);
        let (mut most, mut longest) = (0, Duration::ZERO);
        while through < 40 {
            while under_way.is_empty() || (under_way.len() as u64 + 1) * size <= uploads.budget() {
                under_way.push((uploads.started(), Instant::now(), size as f64, None));
            }
            most = most.max(under_way.len());
            tokio::time::advance(Duration::from_millis(10)).await;
            // The line is shared by those that are not through it.
            let sharing = under_way.iter().filter(|(_, _, left, _)| *left > 0.0).count().max(1) as f64;
            for (_, _, left, arrived) in &mut under_way {
                *left -= rate as f64 * 0.01 / sharing;
                if *left <= 0.0 && arrived.is_none() {
                    *arrived = Some(Instant::now());
                }
            }
            under_way.retain(|(started, since, _, arrived)| {
                let answered = arrived.is_some_and(|arrived| arrived.elapsed() >= latency);
                if answered {
                    uploads.ended(*started, size, Moved::All);
                    longest = longest.max(since.elapsed());
                    through += 1;
                }
                !answered
            });
        }
        (most, longest)
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_go_at_once_as_are_through_in_a_third_of_the_timeout() {
        for (size, rate, latency, at_most) in [
            // 5, 20 and 100 Mbit/s.
            (15 * MB, 625_000, 50, 1),
            (4 * MB, 625_000, 50, 1),
            (15 * MB, 2_500_000, 50, 1),
            (4 * MB, 2_500_000, 50, 6),
            (15 * MB, 12_500_000, 50, 8),
            (4 * MB, 12_500_000, 50, 31),
            (15 * MB, 12_500_000, 2_000, 8),
        ] {
            let (most, longest) = upload(size, rate, Duration::from_millis(latency)).await;
            assert!(most <= at_most, "{size} at {rate}: {most} at once");
            assert!(most * 2 > at_most, "{size} at {rate}: only {most} at once");
            let alone = Duration::from_secs_f64(size as f64 / rate as f64) + Duration::from_millis(latency + 20);
            assert!(longest <= alone.max(Duration::from_secs(11)), "{size} at {rate}: one took {longest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn uploads_that_time_out_make_it_fewer_and_broken_ones_say_nothing() {
        let uploads = Uploads::new(Duration::from_secs(30));
        assert_eq!(uploads.budget(), 0);
        let started = uploads.started();
        tokio::time::advance(Duration::from_secs(1)).await;
        uploads.ended(started, 10 * MB, Moved::All);
        assert_eq!(uploads.budget(), 100 * MB);
        let (first, second) = (uploads.started(), uploads.started());
        tokio::time::advance(Duration::from_secs(2)).await;
        uploads.ended(first, 10 * MB, Moved::Unmeasured);
        assert_eq!(uploads.budget(), 100 * MB);
        uploads.ended(second, 10 * MB, Moved::TooLittle);
        assert!(uploads.budget() < 50 * MB, "{}", uploads.budget());
        // Time in which nothing is under way is not charged.
        tokio::time::advance(Duration::from_secs(1_000)).await;
        let started = uploads.started();
        tokio::time::advance(Duration::from_secs(1)).await;
        uploads.ended(started, 10 * MB, Moved::All);
        assert!(uploads.budget() > 60 * MB, "{}", uploads.budget());
    }
}
