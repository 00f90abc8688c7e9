//! Pacing: how many messages may leave now.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::campaign::Rate;

/// The shortest time that the pacer tells apart. At high rates a few messages leave together, at
/// most one tick's worth. Where commits take long, messages leave in groups of a commit's worth,
/// and the tick is twice as long as a commit.
const TICK: Duration = Duration::from_millis(10);

/// The longest tick: commits that take longer slow the run down.
const LONGEST_TICK: Duration = Duration::from_millis(250);

/// How far ahead leave is asked for where the rate is shared: long enough that asking costs little,
/// short enough that little is lost when an applier dies or has nothing to send.
const AHEAD: Duration = Duration::from_millis(100);

/// Hands out leave for messages at a constant rate. Time that was not used is lost, but for one
/// tick, so that nothing ever bursts to catch up.
///
/// Where several appliers share the rate, each asks for slots of time: during its slot an applier
/// sends at the whole rate, and nobody else does.
#[derive(Debug)]
pub struct Pacer {
    interval: Duration,
    /// When the next message may leave.
    next: Instant,
    /// How long a commit of the ledger takes, smoothed: one that is slow for once is no reason to
    /// catch up.
    commit: Duration,
    slots: Option<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    granted: VecDeque<Slot>,
    /// Whether the last slot was used up: then the next is asked for ahead of time.
    used_up: bool,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    next: Instant,
    left: u32,
    end: Instant,
}

impl Pacer {
    /// A pacer whose first message may leave at once.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { interval: rate.interval(), next: now, commit: Duration::ZERO, slots: None }
    }

    /// A pacer that needs slots granted.
    pub fn shared(rate: Rate, now: Instant) -> Self {
        Self { slots: Some(Slots::default()), ..Self::new(rate, now) }
    }

    /// Hears how long a commit took.
    pub fn committed(&mut self, took: Duration) {
        self.commit = match self.commit {
            Duration::ZERO => took,
            before => (before * 7 + took.min(before * 2 + TICK)) / 8,
        };
    }

    fn tick(&self) -> Duration {
        (self.commit * 2).clamp(TICK, LONGEST_TICK)
    }

    /// How many messages may leave at `now`.
    pub fn due(&mut self, now: Instant) -> usize {
        if self.next > now {
            return 0;
        }
        let tick = self.tick();
        let (next, most) = match &mut self.slots {
            None => (self.next, usize::MAX),
            Some(slots) => {
                // What was not used in its time is lost: the next slot may be another applier's.
                while slots.granted.front().is_some_and(|slot| slot.end + tick < now) {
                    slots.granted.pop_front();
                    slots.used_up = false;
                }
                match slots.granted.front() {
                    Some(slot) if slot.next <= now => (slot.next, slot.left as usize),
                    _ => return 0,
                }
            }
        };
        let late = (now - next).min(tick);
        let more = late.as_nanos() / self.interval.as_nanos().max(1);
        usize::try_from(more).unwrap_or(usize::MAX - 1).saturating_add(1).min(most)
    }

    /// Takes leave for `messages`.
    pub fn take(&mut self, messages: usize, now: Instant) {
        let earliest = now.checked_sub(self.tick()).unwrap_or(now);
        let span = self.interval * u32::try_from(messages).unwrap_or(u32::MAX);
        match &mut self.slots {
            None => self.next = self.next.max(earliest) + span,
            Some(slots) => {
                if let Some(slot) = slots.granted.front_mut() {
                    slot.next = slot.next.max(earliest) + span;
                    slot.left = slot.left.saturating_sub(u32::try_from(messages).unwrap_or(u32::MAX));
                    if slot.left == 0 {
                        slots.granted.pop_front();
                        slots.used_up = true;
                    }
                }
            }
        }
    }

    /// Gives leave back for messages that did not leave after all.
    pub fn give_back(&mut self, messages: usize) {
        let span = self.interval * u32::try_from(messages).unwrap_or(u32::MAX);
        match &mut self.slots {
            None => self.next = self.next.checked_sub(span).unwrap_or(self.next),
            Some(slots) => {
                if let Some(slot) = slots.granted.front_mut() {
                    slot.next = slot.next.checked_sub(span).unwrap_or(slot.next);
                    slot.left = slot.left.saturating_add(u32::try_from(messages).unwrap_or(u32::MAX));
                }
            }
        }
    }

    /// How many messages the slot under way has left.
    pub fn most(&self) -> usize {
        match &self.slots {
            None => usize::MAX,
            Some(slots) => slots.granted.front().map_or(0, |slot| slot.left as usize),
        }
    }

    /// The largest number of messages that a slot is asked for, if requests carry `batch` of them.
    pub fn block(&self, batch: usize) -> u32 {
        let within = (AHEAD.as_nanos() / self.interval.as_nanos().max(1)).clamp(1, 10_000).max(batch as u128);
        u32::try_from(within).unwrap_or(u32::MAX)
    }

    /// How long `messages` take at the rate.
    pub fn time_for(&self, messages: u32) -> Duration {
        self.interval.saturating_mul(messages)
    }

    /// For how many messages a slot should be asked for now, if `waiting` wait, and requests carry
    /// `batch` of them.
    pub fn wants(&self, waiting: usize, batch: usize) -> Option<u32> {
        let slots = self.slots.as_ref()?;
        let block = u128::from(self.block(batch));
        let (ahead, covered) = match (slots.granted.len(), slots.granted.front()) {
            (0, _) => (true, 0),
            (1, Some(slot)) => (slots.used_up, slot.left as usize),
            _ => (false, 0),
        };
        let many = u128::try_from(waiting.saturating_sub(covered)).unwrap_or(u128::MAX).min(block);
        // Beside others a slot is for whole requests: a smaller one would cut the next in two.
        let many = if covered > 0 { many - many % batch as u128 } else { many };
        (ahead && many > 0).then(|| u32::try_from(many).unwrap_or(u32::MAX))
    }

    /// A slot for `messages` that starts at `start`.
    pub fn grant(&mut self, messages: u32, start: Instant) {
        if let Some(slots) = &mut self.slots {
            let end = start + self.interval * messages;
            slots.granted.push_back(Slot { next: start, left: messages, end });
        }
    }

    /// When the next message may leave; `None` while no slot is granted.
    pub fn next(&self) -> Option<Instant> {
        match &self.slots {
            None => Some(self.next),
            Some(slots) => slots.granted.front().map(|slot| slot.next.max(self.next)),
        }
    }

    /// Lets nothing leave before `until`.
    pub fn hold(&mut self, until: Instant) {
        self.next = self.next.max(until);
        if let Some(slots) = &mut self.slots {
            slots.granted.clear();
        }
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
            tokio::time::sleep_until(pacer.next().unwrap().max(now + Duration::from_millis(1))).await;
        }
        assert!((9_900..=10_100).contains(&sent), "{sent}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(pacer.due(Instant::now()) <= 11);
    }

    #[tokio::test(start_paused = true)]
    async fn appliers_that_take_turns_hold_the_rate_together() {
        let start = Instant::now();
        let rate = Rate::parse("500/s").unwrap();
        let mut pacers: Vec<Pacer> = (0..3).map(|_| Pacer::shared(rate, start)).collect();
        let mut next_at = start;
        let mut sent = Vec::new();
        while start.elapsed() < Duration::from_secs(10) {
            let now = Instant::now();
            for pacer in &mut pacers {
                if let Some(many) = pacer.wants(1_000, 1) {
                    let from = next_at.max(now);
                    next_at = from + rate.interval() * many;
                    pacer.grant(many, from);
                }
                let due = pacer.due(now);
                pacer.take(due, now);
                sent.extend(std::iter::repeat_n(now, due));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!((4_900..=5_100).contains(&sent.len()), "{}", sent.len());
        for window in sent.windows(60) {
            assert!(window[59] - window[0] >= Duration::from_millis(100), "60 within {:?}", window[59] - window[0]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_for_whole_requests_and_no_more_leave_than_it_is_for() {
        let start = Instant::now();
        let mut pacer = Pacer::shared(Rate::parse("20/s").unwrap(), start);
        assert_eq!(pacer.wants(500, 50), Some(50));
        pacer.grant(50, start);
        assert_eq!(pacer.most(), 50);
        pacer.take(50, start);
        assert_eq!((pacer.most(), pacer.due(start)), (0, 0));
        // Ahead of time, while one is being used: only for whole requests beyond it.
        pacer.grant(50, start);
        assert_eq!((pacer.wants(60, 50), pacer.wants(99, 50), pacer.wants(100, 50)), (None, None, Some(50)));
    }

    #[test]
    fn one_slow_commit_is_no_reason_to_catch_up_and_slow_commits_are() {
        let now = Instant::now();
        let mut pacer = Pacer::new(Rate::parse("1000/s").unwrap(), now);
        (0..100).for_each(|_| pacer.committed(Duration::from_millis(5)));
        pacer.committed(Duration::from_secs(600));
        assert!(pacer.tick() < Duration::from_millis(15), "{:?}", pacer.tick());
        (0..50).for_each(|_| pacer.committed(Duration::from_millis(40)));
        assert!(pacer.tick() > Duration::from_millis(75), "{:?}", pacer.tick());
        (0..50).for_each(|_| pacer.committed(Duration::from_secs(2)));
        assert_eq!(pacer.tick(), LONGEST_TICK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_is_not_used_is_lost() {
        let start = Instant::now();
        let mut pacer = Pacer::shared(Rate::parse("100/s").unwrap(), start);
        pacer.grant(10, start);
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(pacer.due(Instant::now()), 0);
        assert_eq!(pacer.next(), None);
        assert_eq!(pacer.wants(3, 1), Some(3));
    }
}
