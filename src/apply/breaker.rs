//! When a run stops by itself, or pauses: what its outcomes say about the rest.
//!
//! * Nothing was accepted yet and [`MAX_FAILURES_AT_FIRST`] sends have ended: something is wrong with all of them.
//! * At least `concurrency` sends in a row were rejected.
//! * [`UNKNOWN_BEFORE_PAUSE`] in a row ended unknown: the connection breaks. The run pauses, and then tries one
//!   send at a time, with longer and longer pauses, until one gets through. After [`MAX_PROBES`] tries
//!   that failed as well it gives up.
//! * Too many ended unknown: more than [`MAX_UNKNOWN`], twice the concurrency and one in
//!   [`ENDED_PER_UNKNOWN`], whichever is most; or the run had to pause [`MAX_PAUSES`] times within
//!   [`PAUSES_WITHIN`]. A provider that loses a part of all answers would otherwise put that part of
//!   the audience in doubt. One cut of everything under way stays below both.
//! * `delivery.stop_when`: the manifest's own bounds. Its `unknown` replaces the rule before.
//!
//! Requests that were under way together fail together. So what was started before a pause counts,
//! but it neither makes that pause longer nor begins another, however late its outcome comes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::domain::campaign::{Bound, StopWhen};
use crate::gateway::Outcome;
use crate::util::human::grouped;

/// How many sends may end without one being accepted before the run is given up.
pub(super) const MAX_FAILURES_AT_FIRST: u64 = 10;

/// How many unknown outcomes in a row make the run pause.
const UNKNOWN_BEFORE_PAUSE: u64 = 5;

/// How many tries after such a pause may end unknown as well.
const MAX_PROBES: u32 = 6;

/// How many sends of a run may end unknown, whatever its size.
const MAX_UNKNOWN: u64 = 20;

/// In a large run one send of so many may end unknown: 0.2 %.
const ENDED_PER_UNKNOWN: u64 = 500;

/// How many pauses for unknown outcomes in a row stop the run, if they come within [`PAUSES_WITHIN`].
const MAX_PAUSES: usize = 3;

/// The time within which pauses are counted.
const PAUSES_WITHIN: Duration = Duration::from_secs(600);

/// What follows from an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BreakerAction {
    /// Go on.
    Continue,
    /// Pause, then try one.
    Pause,
    /// Give up: all of them fail.
    StopFailing(String),
    /// Stop: too many ended unknown.
    StopUnknown(String),
    /// Stop: a bound of the manifest is reached.
    StopAtLimit(String),
}

/// Watches the outcomes of a run.
#[derive(Debug)]
pub(super) struct Breaker {
    stop_when: Option<StopWhen>,
    concurrency: u64,
    accepted: u64,
    unknown: u64,
    ended: u64,
    /// Outcomes in a row without an acceptance.
    streak: u64,
    /// Rejections in a row.
    rejected_in_row: u64,
    /// Unknown outcomes in a row, of requests that were started after the last pause began.
    unknown_in_row: u64,
    /// When the last pause for unknown outcomes began, or was made longer.
    paused_at: Option<Instant>,
    /// How many tries have failed since the run paused; `None` once one got through.
    failed_probes: Option<u32>,
    /// When the last pauses began, within [`PAUSES_WITHIN`].
    pauses: VecDeque<Instant>,
    /// The last outcomes, for the manifest's bounds.
    last: VecDeque<Kind>,
    last_rejected: u64,
    last_unknown: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Accepted,
    Rejected,
    Unknown,
}

impl Breaker {
    pub(super) fn new(stop_when: Option<StopWhen>, concurrency: usize) -> Self {
        Self {
            stop_when,
            concurrency: concurrency as u64,
            accepted: 0,
            unknown: 0,
            ended: 0,
            streak: 0,
            rejected_in_row: 0,
            unknown_in_row: 0,
            paused_at: None,
            failed_probes: None,
            pauses: VecDeque::new(),
            last: VecDeque::new(),
            last_rejected: 0,
            last_unknown: 0,
        }
    }

    /// Takes in an outcome that came at `now`, of a request that was started at `started`.
    pub(super) fn judge(&mut self, outcome: &Outcome, started: Instant, now: Instant) -> BreakerAction {
        let kind = match outcome {
            Outcome::Accepted { .. } => Kind::Accepted,
            Outcome::Rejected { .. } => Kind::Rejected,
            Outcome::Unknown { .. } => Kind::Unknown,
        };
        self.ended += 1;
        self.streak += 1;
        let mut pause = false;
        match kind {
            Kind::Accepted => {
                self.accepted += 1;
                (self.streak, self.rejected_in_row, self.unknown_in_row) = (0, 0, 0);
                self.failed_probes = None;
            }
            Kind::Rejected => {
                self.rejected_in_row += 1;
                self.unknown_in_row = 0;
                self.failed_probes = None;
            }
            Kind::Unknown => {
                self.unknown += 1;
                self.rejected_in_row = 0;
                pause = self.must_pause(started, now);
            }
        }
        if let Some(reached) = self.window(kind) {
            return BreakerAction::StopAtLimit(reached);
        }
        let together = MAX_FAILURES_AT_FIRST.max(self.concurrency);
        if self.accepted == 0 && self.streak >= MAX_FAILURES_AT_FIRST || self.rejected_in_row >= together {
            return BreakerAction::StopFailing(format!("{} consecutive sends were rejected or unknown", self.streak));
        }
        if kind == Kind::Unknown
            && let Some(problem) = self.too_many_unknown()
        {
            return BreakerAction::StopUnknown(problem);
        }
        if pause { BreakerAction::Pause } else { BreakerAction::Continue }
    }

    /// Takes in an unknown outcome. Whether the run must pause for it.
    fn must_pause(&mut self, started: Instant, now: Instant) -> bool {
        if self.paused_at.is_some_and(|paused_at| started <= paused_at) {
            return false;
        }
        self.unknown_in_row += 1;
        match &mut self.failed_probes {
            Some(failed) => *failed += 1,
            None if self.unknown_in_row >= UNKNOWN_BEFORE_PAUSE => {
                self.failed_probes = Some(0);
                while self.pauses.front().is_some_and(|began| now - *began > PAUSES_WITHIN) {
                    self.pauses.pop_front();
                }
                self.pauses.push_back(now);
            }
            None => return false,
        }
        self.paused_at = Some(now);
        true
    }

    /// Why too many ended unknown, if they did.
    fn too_many_unknown(&self) -> Option<String> {
        let figures = || format!("{} of {} sends ended unknown", grouped(self.unknown), grouped(self.ended));
        if self.failed_probes.is_some_and(|failed| failed >= MAX_PROBES) {
            return Some(format!(
                "no request has got through since the run paused, and {MAX_PROBES} were tried; {}",
                figures()
            ));
        }
        if self.stop_when.is_some_and(|stop_when| stop_when.unknown.is_some()) {
            return None;
        }
        let most = MAX_UNKNOWN.max(2 * self.concurrency).max(self.ended / ENDED_PER_UNKNOWN);
        if self.unknown > most {
            return Some(format!("{}, and a run stops when more than {} did", figures(), grouped(most)));
        }
        (self.pauses.len() >= MAX_PAUSES).then(|| {
            format!(
                "the run had to pause for unknown outcomes {MAX_PAUSES} times within {} minutes; {}",
                PAUSES_WITHIN.as_secs() / 60,
                figures()
            )
        })
    }

    /// Whether a bound of the manifest is reached.
    fn window(&mut self, kind: Kind) -> Option<String> {
        let stop_when = self.stop_when?;
        let mut count = |kind: Kind, by: i64| match kind {
            Kind::Accepted => {}
            Kind::Rejected => self.last_rejected = self.last_rejected.saturating_add_signed(by),
            Kind::Unknown => self.last_unknown = self.last_unknown.saturating_add_signed(by),
        };
        count(kind, 1);
        self.last.push_back(kind);
        if self.last.len() > stop_when.within
            && let Some(oldest) = self.last.pop_front()
        {
            count(oldest, -1);
        }
        let full = self.last.len() == stop_when.within;
        let looked_at = self.last.len();
        // All of them may end unknown: that is how the rule is switched off.
        let unknown = stop_when.unknown.filter(|bound| *bound != Bound::Percent(100.0));
        [("rejected", stop_when.rejected, self.last_rejected), ("unknown", unknown, self.last_unknown)]
            .into_iter()
            .find_map(|(name, bound, found)| {
                let reached = match bound? {
                    Bound::Count(most) => found >= most,
                    // A share of a few says nothing.
                    Bound::Percent(percent) => full && found as f64 * 100.0 >= percent * looked_at as f64,
                };
                reached.then(|| {
                    format!(
                        "{found} of the last {looked_at} sends ended {name}, and `delivery.stop_when` stops at {}",
                        bound.map_or_else(String::new, |bound| bound.to_string())
                    )
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(letter: char) -> Outcome {
        match letter {
            'a' => Outcome::Accepted { message_id: "m".into() },
            'r' => Outcome::Rejected { reason: "no".into() },
            _ => Outcome::Unknown { reason: "?".into() },
        }
    }

    /// A breaker whose requests take no time, one a second.
    struct Paced {
        breaker: Breaker,
        now: Instant,
    }

    impl Paced {
        fn new(stop_when: Option<StopWhen>, concurrency: usize) -> Self {
            Self { breaker: Breaker::new(stop_when, concurrency), now: Instant::now() }
        }

        fn judge(&mut self, letter: char) -> BreakerAction {
            self.now += Duration::from_secs(1);
            self.breaker.judge(&of(letter), self.now, self.now)
        }

        /// Judges letters until something other than `Fine` comes, and says after how many.
        fn until(&mut self, letters: &str) -> (usize, BreakerAction) {
            let mut actions = letters.chars().map(|letter| self.judge(letter)).zip(1..);
            actions
                .find(|(action, _)| *action != BreakerAction::Continue)
                .map_or((0, BreakerAction::Continue), |(action, at)| (at, action))
        }
    }

    fn run(stop_when: Option<StopWhen>, letters: &str) -> (usize, BreakerAction) {
        Paced::new(stop_when, 20).until(letters)
    }

    fn when(rejected: Option<Bound>, unknown: Option<Bound>) -> Option<StopWhen> {
        Some(StopWhen { within: 10, rejected, unknown })
    }

    #[test]
    fn a_run_that_accepts_nothing_is_given_up_after_ten() {
        assert!(matches!(run(None, "rrrrrrrrrrrr"), (10, BreakerAction::StopFailing(_))));
        assert!(matches!(run(None, "rrrr?rrr?rrr"), (10, BreakerAction::StopFailing(_))));
    }

    #[test]
    fn rejections_in_a_row_end_it_later_and_unknown_outcomes_in_a_row_pause_it() {
        assert!(matches!(run(None, &format!("a{}", "r".repeat(25))), (21, BreakerAction::StopFailing(_))));
        assert_eq!(run(None, "a????a????a"), (0, BreakerAction::Continue));
        assert_eq!(run(None, "a?????"), (6, BreakerAction::Pause));
    }

    #[test]
    fn tries_that_fail_make_a_pause_longer_and_the_sixth_ends_the_run() {
        let mut paced = Paced::new(None, 20);
        assert_eq!(paced.until("a?????"), (6, BreakerAction::Pause));
        for _ in 0..5 {
            assert_eq!(paced.judge('?'), BreakerAction::Pause);
        }
        match paced.judge('?') {
            BreakerAction::StopUnknown(problem) => {
                assert!(problem.ends_with("11 of 12 sends ended unknown"), "{problem}")
            }
            other => panic!("{other:?}"),
        }
        // One that gets through ends the pause.
        let mut paced = Paced::new(None, 20);
        assert_eq!(paced.until("a?????"), (6, BreakerAction::Pause));
        paced.until("?????");
        assert_eq!(paced.until("a????"), (0, BreakerAction::Continue));
    }

    #[test]
    fn what_was_under_way_when_the_run_paused_makes_no_further_pause() {
        let mut breaker = Breaker::new(None, 50);
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        breaker.judge(&of('a'), start, at(1));
        // Fifty requests that started together, and whose answers fail to come one after the other.
        let actions: Vec<BreakerAction> =
            (0..50).map(|number| breaker.judge(&of('?'), at(2), at(30 + number))).collect();
        assert_eq!(actions.iter().filter(|action| **action == BreakerAction::Pause).count(), 1);
        assert!(
            actions.iter().all(|action| matches!(action, BreakerAction::Continue | BreakerAction::Pause)),
            "{actions:?}"
        );
        assert_eq!(breaker.judge(&of('?'), at(100), at(101)), BreakerAction::Pause, "the first try after it");
    }

    #[test]
    fn a_provider_that_loses_a_part_of_all_answers_is_not_tried_on_the_whole_audience() {
        for (concurrency, most) in [(1, 20), (8, 20), (20, 40), (50, 100)] {
            let mut paced = Paced::new(None, concurrency);
            // Three of ten, never five in a row.
            match paced.until(&"aa?aa?aaa?".repeat(1_000)) {
                (sends, BreakerAction::StopUnknown(problem)) => {
                    assert_eq!(paced.breaker.unknown, most + 1);
                    assert!(problem.contains(&format!("{} of {sends} sends", most + 1)), "{problem}");
                    assert!(problem.contains(&format!("more than {most} did")), "{problem}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn one_unknown_outcome_in_two_thousand_stops_no_run() {
        let mut paced = Paced::new(None, 1);
        let mut seed: u64 = 7;
        for number in 0..1_000_000_u64 {
            // At random, so that they come in clusters as well.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let letter = if (seed >> 33).is_multiple_of(2_000) { '?' } else { 'a' };
            assert_eq!(paced.judge(letter), BreakerAction::Continue, "after {number}");
        }
        assert!((400..600).contains(&paced.breaker.unknown), "{}", paced.breaker.unknown);
        // At three times the share it stops, but not before twenty.
        let mut paced = Paced::new(None, 1);
        let (sends, action) = paced.until(&format!("?{}", "a".repeat(332)).repeat(3_000));
        assert!(matches!(action, BreakerAction::StopUnknown(_)) && sends == 333 * 20 + 1, "{sends} {action:?}");
    }

    #[test]
    fn the_third_pause_within_ten_minutes_stops_the_run() {
        let cut = |paced: &mut Paced| paced.until("a?????").1;
        let mut paced = Paced::new(None, 20);
        assert_eq!((cut(&mut paced), cut(&mut paced)), (BreakerAction::Pause, BreakerAction::Pause));
        match cut(&mut paced) {
            BreakerAction::StopUnknown(problem) => {
                assert!(problem.contains("3 times within 10 minutes; 15 of 18 sends"), "{problem}");
            }
            other => panic!("{other:?}"),
        }
        // The same further apart.
        let mut paced = Paced::new(None, 20);
        for _ in 0..5 {
            assert_eq!(cut(&mut paced), BreakerAction::Pause);
            paced.now += Duration::from_secs(301);
        }
    }

    #[test]
    fn the_manifest_bounds_the_share_and_the_number_within_the_last() {
        let share = Some(Bound::Percent(30.0));
        // A share counts once as many were looked at as it is about.
        assert!(matches!(run(when(share, None), "rrraaaaaaa"), (10, BreakerAction::StopAtLimit(_))));
        assert_eq!(run(when(share, None), "rraaaaaaaarraaaaaaaa"), (0, BreakerAction::Continue));
        assert!(matches!(run(when(None, Some(Bound::Count(2))), "a?aaa?aaa"), (6, BreakerAction::StopAtLimit(_))));
        assert_eq!(run(when(None, Some(Bound::Count(2))), "a?aaaaaaaaaa?aaaaaaaaaa?a"), (0, BreakerAction::Continue));
    }

    #[test]
    fn a_bound_of_the_manifest_on_unknown_outcomes_replaces_the_one_that_every_run_has() {
        let half_fail = "a?".repeat(500);
        assert!(matches!(run(None, &half_fail), (82, BreakerAction::StopUnknown(_))));
        assert!(matches!(run(when(Some(Bound::Percent(90.0)), None), &half_fail), (82, BreakerAction::StopUnknown(_))));
        for bound in [Bound::Percent(70.0), Bound::Percent(100.0), Bound::Count(6)] {
            assert_eq!(run(when(None, Some(bound)), &half_fail), (0, BreakerAction::Continue), "{bound}");
        }
        // Not even if every send in the window ended unknown.
        let mut paced = Paced::new(when(None, Some(Bound::Percent(100.0))), 20);
        assert_eq!(paced.until("a?????"), (6, BreakerAction::Pause));
        for _ in 0..4 {
            assert_eq!(paced.until("a?????"), (6, BreakerAction::Pause), "three pauses stop nothing either");
        }
    }
}
