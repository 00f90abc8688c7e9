//! When a run stops by itself, or pauses: what its outcomes say about the rest.
//!
//! * Nothing was accepted yet and [`HOPELESS`] sends have ended: something is wrong with all of them.
//! * As many as may be under way together were refused in a row.
//! * [`DOUBTS`] in a row cannot be told: the connection breaks. The run pauses, and then tries one
//!   send at a time, with longer and longer pauses, before it widens again or gives up.
//! * `delivery.stop_when`: the manifest's own bounds.

use std::collections::VecDeque;

use crate::campaign::{Bound, StopWhen};
use crate::gateway::Outcome;

/// How many sends may end without one being accepted before the run is given up.
pub(super) const HOPELESS: u64 = 10;

/// How many unknown outcomes in a row open the breaker.
const DOUBTS: u64 = 5;

/// How many tries after the breaker has opened may end in doubt as well.
const PROBES: u32 = 6;

/// What follows from an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Fine,
    /// Pause, then try one.
    Pause,
    /// Give up: all of them fail.
    Hopeless(String),
    /// Stop: a bound of the manifest is reached.
    Limit(String),
}

/// Watches the outcomes of a run.
#[derive(Debug)]
pub(super) struct Breaker {
    stop_when: Option<StopWhen>,
    /// As many as may be under way together may fail together.
    together: u64,
    accepted: u64,
    /// Outcomes in a row without an acceptance.
    streak: u64,
    /// Refusals in a row.
    refused: u64,
    /// Unknown outcomes in a row.
    doubts: u64,
    /// The last outcomes: what of them counts.
    last: VecDeque<Kind>,
    rejected: u64,
    unknown: u64,
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
            together: HOPELESS.max(concurrency as u64),
            accepted: 0,
            streak: 0,
            refused: 0,
            doubts: 0,
            last: VecDeque::new(),
            rejected: 0,
            unknown: 0,
        }
    }

    /// Takes an outcome in. `setbacks` is how often in a row the run has paused.
    pub(super) fn judge(&mut self, outcome: &Outcome, setbacks: u32) -> Verdict {
        let kind = match outcome {
            Outcome::Accepted { .. } => Kind::Accepted,
            Outcome::Rejected { .. } => Kind::Rejected,
            Outcome::Unknown { .. } => Kind::Unknown,
        };
        self.streak += 1;
        match kind {
            Kind::Accepted => {
                self.accepted += 1;
                (self.streak, self.refused, self.doubts) = (0, 0, 0);
            }
            Kind::Rejected => {
                self.refused += 1;
                self.doubts = 0;
            }
            Kind::Unknown => {
                self.doubts += 1;
                self.refused = 0;
            }
        }
        if let Some(reached) = self.window(kind) {
            return Verdict::Limit(reached);
        }
        let all = |streak: u64| Verdict::Hopeless(format!("{streak} sends in a row were refused or cannot be told"));
        if self.accepted == 0 && self.streak >= HOPELESS || self.refused >= self.together {
            return all(self.streak);
        }
        if self.doubts >= DOUBTS {
            return if setbacks >= PROBES { all(self.streak) } else { Verdict::Pause };
        }
        Verdict::Fine
    }

    /// Whether a bound of the manifest is reached.
    fn window(&mut self, kind: Kind) -> Option<String> {
        let stop_when = self.stop_when?;
        let mut count = |kind: Kind, by: i64| match kind {
            Kind::Accepted => {}
            Kind::Rejected => self.rejected = self.rejected.saturating_add_signed(by),
            Kind::Unknown => self.unknown = self.unknown.saturating_add_signed(by),
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
        [("rejected", stop_when.rejected, self.rejected), ("unknown", stop_when.unknown, self.unknown)]
            .into_iter()
            .find_map(|(name, bound, found)| {
                let reached = match bound? {
                    Bound::Count(most) => found >= most,
                    // A share of a few says nothing.
                    Bound::Share(share) => full && found as f64 >= share * looked_at as f64,
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

    /// Judges letters until something other than `Fine` comes, and says after how many.
    fn run(stop_when: Option<StopWhen>, letters: &str) -> (usize, Verdict) {
        let mut breaker = Breaker::new(stop_when, 20);
        let verdicts = letters.chars().map(|letter| breaker.judge(&of(letter), 0)).enumerate();
        verdicts
            .map(|(at, verdict)| (at + 1, verdict))
            .find(|(_, verdict)| *verdict != Verdict::Fine)
            .unwrap_or((0, Verdict::Fine))
    }

    #[test]
    fn a_run_that_accepts_nothing_is_given_up_after_ten() {
        assert!(matches!(run(None, "rrrrrrrrrrrr"), (10, Verdict::Hopeless(_))));
        assert!(matches!(run(None, "rrrr?rrr?rrr"), (10, Verdict::Hopeless(_))));
    }

    #[test]
    fn refusals_in_a_row_end_it_later_and_doubts_in_a_row_pause_it() {
        assert!(matches!(run(None, &format!("a{}", "r".repeat(25))), (21, Verdict::Hopeless(_))));
        assert_eq!(run(None, "a????a????a"), (0, Verdict::Fine));
        assert_eq!(run(None, "a?????"), (6, Verdict::Pause));
        let mut breaker = Breaker::new(None, 20);
        breaker.judge(&of('a'), 0);
        (0..4).for_each(|_| drop(breaker.judge(&of('?'), 0)));
        assert!(matches!(breaker.judge(&of('?'), 6), Verdict::Hopeless(_)));
    }

    #[test]
    fn the_manifest_bounds_the_share_and_the_number_within_the_last() {
        let when = |rejected, unknown| Some(StopWhen { within: 10, rejected, unknown });
        let share = Some(Bound::Share(0.3));
        // A share counts once as many were looked at as it is about.
        assert!(matches!(run(when(share, None), "rrraaaaaaa"), (10, Verdict::Limit(_))));
        assert_eq!(run(when(share, None), "rraaaaaaaarraaaaaaaa"), (0, Verdict::Fine));
        assert!(matches!(run(when(None, Some(Bound::Count(2))), "a?aaa?aaa"), (6, Verdict::Limit(_))));
        assert_eq!(run(when(None, Some(Bound::Count(2))), "a?aaaaaaaaaa?aaaaaaaaaa?a"), (0, Verdict::Fine));
    }
}
