//! The rate: how many messages may leave now.

mod local;
mod shared;

use std::time::{Duration, Instant};

use self::local::LocalLimiter;
use self::shared::SharedLimiter;
use crate::domain::campaign::Rate;
use crate::ledger::LedgerError;

/// Whether a send is this applier's in the first round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    ThisApplier,
    Another,
    NotKnownYet,
}

/// Decides how many messages may leave: at a constant rate, and where other appliers share it, within the
/// slots of time that this one was given.
#[derive(Debug)]
pub(super) struct Limiter {
    local: LocalLimiter,
    shared: Option<SharedLimiter>,
}

impl Limiter {
    /// A limiter whose first message may leave at once.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { local: LocalLimiter::new(rate, now), shared: None }
    }

    /// A limiter that needs slots granted.
    pub(super) fn shared(rate: Rate, now: Instant) -> Self {
        Self { shared: Some(SharedLimiter::new()), ..Self::new(rate, now) }
    }

    /// Whether other appliers share the rate and the plan.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Takes into account how long a commit took.
    pub(super) fn committed(&mut self, took: Duration) {
        self.local.committed(took);
    }

    /// How many messages may leave at `now`.
    pub(super) fn due(&mut self, now: Instant) -> usize {
        if self.local.next > now {
            return 0;
        }
        let Some(shared) = &mut self.shared else { return self.local.due_since(self.local.next, now) };
        shared.drop_unused(now, self.local.tick());
        match shared.slots.front() {
            Some(slot) if slot.next <= now => self.local.due_since(slot.next, now).min(slot.left as usize),
            _ => 0,
        }
    }

    /// Messages leave at `now`.
    pub(super) fn take(&mut self, messages: usize, now: Instant) {
        match &mut self.shared {
            None => self.local.next = self.local.after(self.local.next, messages, now),
            Some(shared) => {
                let Some(slot) = shared.slots.front_mut() else { return };
                slot.next = self.local.after(slot.next, messages, now);
                slot.left = slot.left.saturating_sub(u32::try_from(messages).unwrap_or(u32::MAX));
                if slot.left == 0 {
                    shared.slots.pop_front();
                    shared.used_up = true;
                }
            }
        }
    }

    /// Messages that were to leave do not leave after all.
    pub(super) fn give_back(&mut self, messages: usize) {
        let span = self.local.span(messages);
        match &mut self.shared {
            None => self.local.next = self.local.next.checked_sub(span).unwrap_or(self.local.next),
            Some(shared) => {
                if let Some(slot) = shared.slots.front_mut() {
                    slot.next = slot.next.checked_sub(span).unwrap_or(slot.next);
                    slot.left = slot.left.saturating_add(u32::try_from(messages).unwrap_or(u32::MAX));
                }
            }
        }
    }

    /// How many messages may leave at once at most: what is left of the slot.
    pub(super) fn max_now(&self) -> usize {
        match &self.shared {
            None => usize::MAX,
            Some(shared) => shared.slots.front().map_or(0, |slot| slot.left as usize),
        }
    }

    /// How long `messages` take at the rate.
    pub(super) fn time_for(&self, messages: u32) -> Duration {
        self.local.interval.saturating_mul(messages)
    }

    /// When the next message may leave; nothing while no slot is granted.
    pub(super) fn next(&self) -> Option<Instant> {
        match &self.shared {
            None => Some(self.local.next),
            Some(shared) => shared.slots.front().map(|slot| slot.next.max(self.local.next)),
        }
    }

    /// Lets nothing leave before `until`.
    pub(super) fn pause(&mut self, until: Instant) {
        self.local.next = self.local.next.max(until);
        if let Some(shared) = &mut self.shared {
            shared.slots.clear();
        }
    }

    /// The slot to ask for now, if `waiting` messages wait and requests carry `batch` of them: for how many
    /// messages, and how many this applier asks for at most. It counts as asked for.
    pub(super) fn reserve(
        &mut self,
        now: Instant,
        waiting: usize,
        batch: usize,
        max_batch: usize,
    ) -> Option<(u32, u32)> {
        let interval = self.local.interval;
        let shared = self.shared.as_mut()?;
        if shared.pending_reservation.is_some() || shared.ask_again_at.is_some_and(|at| now < at) {
            return None;
        }
        let messages = shared.wants_slot(interval, waiting, batch)?;
        shared.pending_reservation = Some(messages);
        Some((messages, SharedLimiter::max_messages(interval, max_batch)))
    }

    /// The slot that was asked for starts at `start`. Returns how many messages it is for.
    pub(super) fn slot_granted(&mut self, start: Instant) -> u32 {
        let interval = self.local.interval;
        let Some(shared) = &mut self.shared else { return 0 };
        let messages = shared.pending_reservation.take().unwrap_or(0);
        shared.reachable();
        if messages > 0 {
            shared.grant(messages, start, interval);
        }
        messages
    }

    /// The ledger did not grant the slot.
    pub(super) fn slot_failed(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.pending_reservation = None;
        }
    }

    /// Whose the send with this ordinal is. Ordinals rise.
    pub(super) fn owner_of(&mut self, ordinal: u64) -> Owner {
        self.shared.as_mut().map_or(Owner::ThisApplier, |shared| shared.owner_of(ordinal))
    }

    /// Whether the next chunk of the plan should be asked for now. If so, it counts as asked for.
    pub(super) fn request_chunk(&mut self, now: Instant) -> bool {
        self.shared.as_mut().is_some_and(|shared| shared.request_chunk(now))
    }

    /// The answer to a question for the next chunk.
    pub(super) fn chunk_granted(&mut self, answer: Result<u64, LedgerError>) {
        if let Some(shared) = &mut self.shared {
            shared.chunk_granted(answer);
        }
    }

    /// Why the next chunk could not be had, if that is so.
    pub(super) fn take_chunk_failure(&mut self) -> Option<LedgerError> {
        self.shared.as_mut()?.take_chunk_failure()
    }

    /// Ends the first round: from now on every send is handled by whoever comes first. Whether no chunk was
    /// given to another applier; nothing after the first round, or where nothing is shared.
    pub(super) fn end_first_round(&mut self) -> Option<bool> {
        self.shared.as_mut()?.end_first_round()
    }

    /// The ledger did not answer a question. Returns for how long it is left alone, or nothing if it has not
    /// answered for longer than `patience`.
    pub(super) fn unreachable(&mut self, now: Instant, patience: Duration) -> Option<Duration> {
        self.shared.as_mut()?.unreachable(now, patience)
    }

    /// When the ledger is asked again after it did not answer.
    pub(super) fn ask_again_at(&self) -> Option<Instant> {
        self.shared.as_ref()?.ask_again_at
    }

    /// Whether it was reported already that the number is reserved for others at `now`. If not, it counts as
    /// reported until `start`.
    pub(super) fn report_reserved(&mut self, now: Instant, start: Instant) -> bool {
        let Some(shared) = &mut self.shared else { return false };
        if shared.reported_until.is_some_and(|until| now < until) {
            return false;
        }
        shared.reported_until = Some(start);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wants(limiter: &Limiter, waiting: usize, batch: usize) -> Option<u32> {
        limiter.shared.as_ref()?.wants_slot(limiter.local.interval, waiting, batch)
    }

    fn grant(limiter: &mut Limiter, messages: u32, start: Instant) {
        let interval = limiter.local.interval;
        limiter.shared.as_mut().unwrap().grant(messages, start, interval);
    }

    async fn sleep_until(instant: Instant) {
        tokio::time::sleep_until(tokio::time::Instant::from_std(instant)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_holds_and_never_bursts_to_catch_up() {
        let start = now();
        let mut limiter = Limiter::new(Rate::parse("1000/s").unwrap(), start);
        let mut sent = 0;
        while now().duration_since(start) < Duration::from_secs(10) {
            let now = self::now();
            let due = limiter.due(now);
            assert!(due <= 11, "{due} at once");
            limiter.take(due, now);
            sent += due;
            sleep_until(limiter.next().unwrap().max(now + Duration::from_millis(1))).await;
        }
        assert!((9_900..=10_100).contains(&sent), "{sent}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(limiter.due(now()) <= 11);
    }

    #[tokio::test(start_paused = true)]
    async fn appliers_that_take_turns_hold_the_rate_together() {
        let start = now();
        let rate = Rate::parse("500/s").unwrap();
        let mut limiters: Vec<Limiter> = (0..3).map(|_| Limiter::shared(rate, start)).collect();
        let mut next_at = start;
        let mut sent = Vec::new();
        while now().duration_since(start) < Duration::from_secs(10) {
            let now = self::now();
            for limiter in &mut limiters {
                if let Some(many) = wants(limiter, 1_000, 1) {
                    let from = next_at.max(now);
                    next_at = from + rate.interval() * many;
                    grant(limiter, many, from);
                }
                let due = limiter.due(now);
                limiter.take(due, now);
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
        let start = now();
        let mut limiter = Limiter::shared(Rate::parse("20/s").unwrap(), start);
        assert_eq!(wants(&limiter, 500, 50), Some(50));
        grant(&mut limiter, 50, start);
        assert_eq!(limiter.max_now(), 50);
        limiter.take(50, start);
        assert_eq!((limiter.max_now(), limiter.due(start)), (0, 0));
        // Ahead of time, while one is being used: only for whole requests beyond it.
        grant(&mut limiter, 50, start);
        assert_eq!(
            (wants(&limiter, 60, 50), wants(&limiter, 99, 50), wants(&limiter, 100, 50)),
            (None, None, Some(50))
        );
    }

    #[test]
    fn one_slow_commit_is_no_reason_to_catch_up_and_slow_commits_are() {
        let now = self::now();
        let mut limiter = Limiter::new(Rate::parse("1000/s").unwrap(), now);
        (0..100).for_each(|_| limiter.committed(Duration::from_millis(5)));
        limiter.committed(Duration::from_secs(600));
        assert!(limiter.local.tick() < Duration::from_millis(15), "{:?}", limiter.local.tick());
        (0..50).for_each(|_| limiter.committed(Duration::from_millis(40)));
        assert!(limiter.local.tick() > Duration::from_millis(75), "{:?}", limiter.local.tick());
        (0..50).for_each(|_| limiter.committed(Duration::from_secs(2)));
        assert_eq!(limiter.local.tick(), local::MAX_TICK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_is_not_used_is_lost() {
        let start = now();
        let mut limiter = Limiter::shared(Rate::parse("100/s").unwrap(), start);
        grant(&mut limiter, 10, start);
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(limiter.due(now()), 0);
        assert_eq!(limiter.next(), None);
        assert_eq!(wants(&limiter, 3, 1), Some(3));
    }
}
