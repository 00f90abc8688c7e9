//! What all processes of a scenario share: the provider, the dice, and the record of what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::rng::Rng;
use super::scenario::Scenario;
use crate::apply::RunEnding;
use crate::domain::clock::Clock;
use crate::ledger::memory::MemoryStore;
use crate::ledger::{LedgerKey, SendKey};

/// How a run ended, without the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of RunEnding")]
pub enum EndingKind {
    Finished,
    Interrupted,
    AccountRefused,
    ExpiryTooClose,
    TooManyFailures,
    MixedAnswers,
    TooManyUnknown,
    LimitReached,
    Unreachable,
    LedgerFailed,
    Fenced,
    LedgerLostSends,
    InputsChanged,
    InputsUnreadable,
    CodeTaken,
    PlanSuperseded,
    Internal,
}

impl EndingKind {
    /// All of them.
    pub const ALL: [EndingKind; 17] = [
        EndingKind::Finished,
        EndingKind::Interrupted,
        EndingKind::AccountRefused,
        EndingKind::ExpiryTooClose,
        EndingKind::TooManyFailures,
        EndingKind::MixedAnswers,
        EndingKind::TooManyUnknown,
        EndingKind::LimitReached,
        EndingKind::Unreachable,
        EndingKind::LedgerFailed,
        EndingKind::Fenced,
        EndingKind::LedgerLostSends,
        EndingKind::InputsChanged,
        EndingKind::InputsUnreadable,
        EndingKind::CodeTaken,
        EndingKind::PlanSuperseded,
        EndingKind::Internal,
    ];

    pub(super) fn of(ending: &RunEnding) -> Self {
        match ending {
            RunEnding::Finished => EndingKind::Finished,
            RunEnding::Interrupted => EndingKind::Interrupted,
            RunEnding::AccountRefused(_) => EndingKind::AccountRefused,
            RunEnding::ExpiryTooClose(_) => EndingKind::ExpiryTooClose,
            RunEnding::TooManyFailures(_) => EndingKind::TooManyFailures,
            RunEnding::MixedAnswers(_) => EndingKind::MixedAnswers,
            RunEnding::TooManyUnknown(_) => EndingKind::TooManyUnknown,
            RunEnding::LimitReached(_) => EndingKind::LimitReached,
            RunEnding::Unreachable(_) => EndingKind::Unreachable,
            RunEnding::LedgerFailed(_) => EndingKind::LedgerFailed,
            RunEnding::Fenced(_) => EndingKind::Fenced,
            RunEnding::LedgerLostSends => EndingKind::LedgerLostSends,
            RunEnding::InputsChanged => EndingKind::InputsChanged,
            RunEnding::InputsUnreadable(_) => EndingKind::InputsUnreadable,
            RunEnding::CodeTaken => EndingKind::CodeTaken,
            RunEnding::PlanSuperseded => EndingKind::PlanSuperseded,
            RunEnding::Internal(_) => EndingKind::Internal,
        }
    }
}

/// The clocks of one machine.
#[derive(Debug, Clone)]
pub(super) struct SimClock {
    pub(super) origin: Instant,
    /// When the wall clock jumps, and by how many milliseconds.
    pub(super) jumps: Vec<(Instant, i64)>,
    /// When the machine sleeps, so that its monotonic clock stands still.
    pub(super) sleeps: Vec<(Instant, Instant)>,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let now = Instant::now();
        let passed = i64::try_from((now - self.origin).as_millis()).unwrap_or(i64::MAX);
        let jumped: i64 = self.jumps.iter().filter(|(at, _)| *at <= now).map(|(_, by)| by).sum();
        START + SignedDuration::from_millis(passed + jumped)
    }

    fn instant(&self) -> std::time::Instant {
        let now = Instant::now();
        let slept: Duration =
            self.sleeps.iter().map(|(from, to)| (*to).min(now).saturating_duration_since(*from)).sum();
        (now - slept).into_std()
    }
}

/// When every scenario begins.
pub(super) const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// What the provider and the observer know.
#[derive(Default)]
pub(super) struct Seen {
    /// How many requests were started for each attempt.
    pub(super) started: BTreeMap<(SendKey, u32), u32>,
    /// The attempts whose message the provider took.
    pub(super) taken: BTreeMap<SendKey, Vec<u32>>,
    /// Attempts that are unknown for a fault of their own.
    pub(super) own_fault: BTreeSet<(SendKey, u32)>,
    /// The ids of messages, in order.
    pub(super) ids: Vec<String>,
    /// Runs that did not end as they should, and how many times the concurrency they may leave unknown.
    pub(super) troubled_runs: BTreeMap<i64, u64>,
    pub(super) endings: BTreeSet<EndingKind>,
    pub(super) crashes: u64,
    pub(super) requests: u64,
    pub(super) commits: u64,
    pub(super) problems: Vec<String>,
    /// Outcomes that runs reported as lost by the ledger.
    pub(super) reported_lost: u64,
    /// Whether the ledger has forgotten something.
    pub(super) failed_over: bool,
    /// The applier that has the lock of a ledger that is not shared.
    pub(super) lock: Option<u64>,
    /// No more faults: the last applier is to finish.
    pub(super) calm: bool,
}

struct Inner {
    rng: Rng,
    seen: Seen,
    digest: u64,
    trace: Option<String>,
}

/// A scenario under way.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) store: MemoryStore,
    pub(super) origin: Instant,
    inner: Mutex<Inner>,
}

impl World {
    pub(super) fn new(seed: u64, keep_trace: bool) -> Arc<Self> {
        let mut rng = Rng::new(seed);
        let scenario = Scenario::of(&mut rng);
        let origin = Instant::now();
        let clock = SimClock { origin, jumps: Vec::new(), sleeps: Vec::new() };
        let store = MemoryStore::new(&LedgerKey::from_bytes([7; 32]), Arc::new(clock));
        let trace = keep_trace.then(|| format!("{scenario:?}\n"));
        let inner = Mutex::new(Inner { rng, seen: Seen::default(), digest: seed, trace });
        Arc::new(Self { scenario, store, origin, inner })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Throws dice.
    pub(super) fn roll<T>(&self, roll: impl FnOnce(&mut Rng) -> T) -> T {
        roll(&mut self.lock().rng)
    }

    /// True in so many of a thousand cases, while faults happen.
    pub(super) fn fault(&self, per_mille: u64) -> bool {
        let mut inner = self.lock();
        !inner.seen.calm && inner.rng.chance(per_mille)
    }

    pub(super) fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.lock().seen)
    }

    /// The promise is broken, or something else that must not be.
    pub(super) fn problem(&self, problem: String) {
        self.note(format_args!("PROBLEM {problem}"));
        self.seen(|seen| seen.problems.push(problem));
    }

    /// Adds a line to what happened.
    pub(super) fn note(&self, line: fmt::Arguments<'_>) {
        let at = (Instant::now() - self.origin).as_micros() as u64;
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut hasher = Fnv(inner.digest ^ at);
        let _ = hasher.write_fmt(line);
        inner.digest = hasher.0.wrapping_mul(0x0000_0100_0000_01b3);
        if let Some(trace) = &mut inner.trace {
            let _ = writeln!(trace, "{:>14.3} {line}", at as f64 / 1e3);
        }
    }

    /// How long it has been going on.
    pub(super) fn elapsed(&self) -> Duration {
        Instant::now() - self.origin
    }

    pub(super) fn take_trace(&self) -> (u64, String) {
        let mut inner = self.lock();
        (inner.digest, inner.trace.take().unwrap_or_default())
    }

    /// A run did not end as it should: it may leave this many times its concurrency unknown.
    pub(super) fn troubled(&self, run: i64, times: u64) {
        self.seen(|seen| {
            let known = seen.troubled_runs.entry(run).or_default();
            *known = (*known).max(times);
        });
    }
}

/// FNV-1a over text.
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}
