//! What a seed stands for.

use std::time::Duration;

use super::rng::Rng;
use crate::domain::campaign::{Bound, Delivery, Rate, StopWhen};

/// How often each fault happens, in a thousand cases.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    /// The provider rejects.
    pub(super) reject: u64,
    /// The answer is lost, and the message was not taken.
    pub(super) unknown: u64,
    /// The answer is lost, and the message was taken.
    pub(super) unknown_taken: u64,
    /// The request times out, and the provider takes the message later.
    pub(super) taken_late: u64,
    pub(super) unreachable: u64,
    pub(super) throttle: u64,
    pub(super) account: u64,
    /// The account is refused, and what became of the request is not certain.
    pub(super) refused: u64,
    pub(super) expired: u64,
    /// The answer carries the id of an earlier one.
    pub(super) repeat_id: u64,
    /// The task of the request panics.
    pub(super) panic: u64,
    /// The answer leaves out the last recipient.
    pub(super) short_answer: u64,
    /// A commit's answer is lost, and nothing of it is durable.
    pub(super) lost_before: u64,
    /// A commit's answer is lost, and all of it is durable.
    pub(super) lost_after: u64,
    /// A commit fails for good.
    pub(super) storage: u64,
    /// A commit takes seconds.
    pub(super) slow_commit: u64,
}

/// What the source of the messages does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceFault {
    None,
    /// A message is not one of the approved plan's.
    Changed {
        at: u64,
    },
    /// The files cannot be opened from this round of a process on.
    Unreadable {
        from_round: u32,
    },
    /// The files cannot be read to their end.
    Truncated {
        at: u64,
    },
    /// The source panics.
    Crash {
        at: u64,
    },
}

/// Everything that is fixed before a scenario starts.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) people: u64,
    pub(super) appliers: usize,
    /// Whether the ledger is shared by several appliers, or locked by one.
    pub(super) shared: bool,
    pub(super) delivery: Delivery,
    pub(super) lease: Duration,
    pub(super) longest_request: Duration,
    pub(super) unique_codes: bool,
    pub(super) retry_rejected: bool,
    /// After this long nothing may leave.
    pub(super) leave_by: Option<Duration>,
    pub(super) faults: Faults,
    pub(super) source: SourceFault,
    /// The ledger does not answer from here to there.
    pub(super) outage: Option<(Duration, Duration)>,
    /// The ledger forgets what it had called durable, after so many commits.
    pub(super) failover_after: Option<u64>,
    /// One applier applies another plan of the same campaign.
    pub(super) other_plan: bool,
    /// Another campaign takes codes of this one.
    pub(super) codes_taken: u64,
    /// Runs are asked to stop.
    pub(super) shutdowns: u64,
    /// Processes crash, in a thousand cases.
    pub(super) crashes: u64,
    /// Processes are paused, in a thousand cases.
    pub(super) pauses: u64,
    /// People settle unknown sends meanwhile.
    pub(super) decisions: bool,
    pub(super) max_latency: u64,
}

impl Scenario {
    pub(super) fn of(rng: &mut Rng) -> Self {
        let people = match rng.below(20) {
            0..12 => rng.between(1, 10),
            12..19 => rng.between(10, 35),
            _ => rng.between(100, 200),
        };
        let concurrency = rng.between(1, 8) as usize;
        let batch = if rng.chance(200) { rng.between(2, 4) as usize } else { 1 }.min(concurrency);
        let shared = rng.chance(750);
        let rate = rng.pick(&["2000/s", "200/s", "50/s", "10/s", "60/m"]);
        let mut scenario = Self {
            people,
            shared,
            appliers: if shared { rng.between(1, 4) } else { rng.between(1, 2) } as usize,
            delivery: Delivery {
                rate: Rate::parse(rate).unwrap_or(Rate::DEFAULT),
                concurrency,
                batch,
                stop_when: None,
            },
            lease: Duration::from_secs(rng.between(2, 30)),
            longest_request: Duration::from_secs(40),
            unique_codes: batch == 1 && rng.chance(400),
            retry_rejected: rng.chance(100),
            leave_by: None,
            faults: Faults::of(rng),
            source: SourceFault::None,
            outage: None,
            failover_after: None,
            other_plan: false,
            codes_taken: 0,
            shutdowns: rng.pick(&[0, 0, 0, 100]),
            crashes: rng.pick(&[0, 300, 600]),
            pauses: rng.pick(&[0, 0, 300]),
            decisions: rng.chance(300),
            max_latency: rng.pick(&[20, 200, 2_000, 35_000]),
        };
        scenario.add_theme(rng);
        scenario
    }

    /// Half of all scenarios have a theme, so that every ending is reached often.
    fn add_theme(&mut self, rng: &mut Rng) {
        match rng.below(36) {
            0 => self.faults.reject = 1_000,
            1 => self.faults.unreachable = 1_000,
            2 => {
                self.faults.unknown = 350;
                self.people = self.people.max(60);
            }
            3 => {
                let rejected = Some(Bound::Count(3));
                self.delivery.stop_when = Some(StopWhen { within: 10, rejected, unknown: None });
                self.faults.reject = 400;
                self.people = self.people.max(12);
            }
            4 => self.leave_by = Some(rng.millis(0, 20_000)),
            5 => self.source = SourceFault::Changed { at: rng.below(self.people) },
            6 => self.source = SourceFault::Unreadable { from_round: rng.between(1, 2) as u32 },
            7 => self.source = SourceFault::Crash { at: rng.below(self.people) },
            8 => self.source = SourceFault::Truncated { at: rng.below(self.people) },
            9 => {
                self.unique_codes = true;
                self.delivery.batch = 1;
                self.codes_taken = rng.between(1, 3);
            }
            10 => {
                self.other_plan = true;
                self.shared = true;
                self.appliers = self.appliers.max(2);
            }
            11 => self.faults.storage = 50,
            12 => {
                let from = rng.millis(0, 5_000);
                self.outage = Some((from, from + rng.millis(1_000, 900_000)));
            }
            13 => {
                self.pauses = 1_000;
                self.shared = true;
                self.appliers = self.appliers.max(2);
            }
            14 => {
                self.failover_after = Some(rng.between(2, 12));
                self.shared = true;
            }
            15 => self.faults.repeat_id = 100,
            16 => self.shutdowns = 800,
            17 => self.faults.throttle = 400,
            18 => self.faults.account = 100,
            19 => self.faults.panic = 100,
            20 => self.faults.unknown_taken = 200,
            _ => {}
        }
    }
}

impl Faults {
    fn of(rng: &mut Rng) -> Self {
        let mut usual = || if rng.chance(250) { rng.pick(&[5, 30, 150]) } else { 0 };
        let (reject, unknown, unknown_taken, taken_late) = (usual(), usual(), usual(), usual());
        let (unreachable, throttle, short_answer) = (usual(), usual(), usual());
        let (lost_before, lost_after, slow_commit) = (usual(), usual(), usual());
        let mut rare = || if rng.chance(40) { rng.pick(&[3, 20]) } else { 0 };
        Self {
            reject,
            unknown,
            unknown_taken,
            taken_late,
            unreachable,
            throttle,
            account: rare(),
            refused: rare(),
            expired: rare(),
            repeat_id: rare(),
            panic: rare(),
            short_answer,
            lost_before,
            lost_after,
            storage: rare(),
            slow_commit,
        }
    }
}
