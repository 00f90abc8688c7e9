//! The protocol, explored exhaustively: every interleaving of two appliers, with a crash, a pause
//! or a lost answer at every step, and a person who decides about what is unknown: truthfully, once
//! no answer can come any more, or (`--force`) at any time and wrongly.
//!
//! The ledger's side is made of the product's own functions ([`sendform::ledger::protocol`]), to
//! which the conformance suite holds both ledgers.

use std::collections::HashSet;

use sendform::domain::send::{Resolution, SendState};
use sendform::ledger::protocol::{self, Finding, LastAttempt, ReportContext, ReportEffect};

const APPLIERS: usize = 2;
const MOST_ATTEMPTS: u32 = 3;
const MOST_RUNS: i64 = 4;

/// How far an exploration goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Bounds {
    runs: i64,
    attempts: u32,
}

/// Where an applier stands with one send. All of it is lost in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// Nothing done in this run, or not ours.
    Idle,
    /// The claim was committed, and the answer was lost.
    Lost(u32),
    /// Granted; the request has not started.
    Granted(u32),
    /// The request is under way; whether the provider took it.
    Flying(u32, bool),
    /// The outcome is known, not recorded.
    Told(u32, SendState),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Applier<const SENDS: usize> {
    run: Option<i64>,
    /// Its process stands still: it does nothing, and its lease runs out.
    paused: bool,
    /// The next attempt of each send, as it was when the run began.
    planned: [Option<u32>; SENDS],
    phases: [Phase; SENDS],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World<const SENDS: usize> {
    sends: [Option<LastAttempt>; SENDS],
    /// Runs that are over, by number: ended, or fenced off.
    over: [bool; MOST_RUNS as usize + 1],
    runs: i64,
    bounds: Bounds,
    appliers: [Applier<SENDS>; APPLIERS],
    /// What the provider saw: requests started for each attempt, messages taken for each send.
    started: [[u8; MOST_ATTEMPTS as usize + 1]; SENDS],
    taken: [u8; SENDS],
    /// The run that claimed each attempt.
    claimed: [[i64; MOST_ATTEMPTS as usize + 1]; SENDS],
    /// Of which attempt its run itself said where a send stands.
    own_word: [Option<u32>; SENDS],
    /// Of which attempts a run was told that they were accepted, and whether the record tells.
    heard: [[bool; MOST_ATTEMPTS as usize + 1]; SENDS],
    recorded: [[bool; MOST_ATTEMPTS as usize + 1]; SENDS],
    contradicted: [[bool; MOST_ATTEMPTS as usize + 1]; SENDS],
    /// Whether an attempt was claimed after the record had heard that an earlier one was accepted.
    sent_after_all: bool,
}

/// Takes a change that makes the next world.
type Add<'a, World> = dyn FnMut(&dyn Fn(&mut World)) + 'a;

/// What is assumed about time: whether a request may start after its run was fenced off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pauses {
    /// No: the bytes of a request leave only while the lease holds ([`sendform::ledger::RunLedger::lease`]).
    AreNoticed,
    /// Yes: without that look.
    AreNot,
}

/// When a person decides about a send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decisions {
    /// Once no answer can come any more, by what is there at the provider.
    InTime,
    /// At any time, and in any way.
    Forced,
}

impl<const SENDS: usize> Applier<SENDS> {
    /// A process that is not there.
    fn gone() -> Self {
        Self { run: None, paused: false, planned: [None; SENDS], phases: [Phase::Idle; SENDS] }
    }
}

impl<const SENDS: usize> World<SENDS> {
    fn new(bounds: Bounds) -> Self {
        Self {
            sends: [None; SENDS],
            over: [false; MOST_RUNS as usize + 1],
            runs: 0,
            bounds,
            appliers: [Applier::gone(); APPLIERS],
            started: [[0; MOST_ATTEMPTS as usize + 1]; SENDS],
            taken: [0; SENDS],
            claimed: [[0; MOST_ATTEMPTS as usize + 1]; SENDS],
            own_word: [None; SENDS],
            heard: [[false; MOST_ATTEMPTS as usize + 1]; SENDS],
            recorded: [[false; MOST_ATTEMPTS as usize + 1]; SENDS],
            contradicted: [[false; MOST_ATTEMPTS as usize + 1]; SENDS],
            sent_after_all: false,
        }
    }

    fn is_over(&self, run: i64) -> bool {
        self.over[usize::try_from(run).unwrap()]
    }

    fn end(&mut self, run: i64) {
        self.over[usize::try_from(run).unwrap()] = true;
        for (stand, own_word) in self.sends.iter_mut().zip(&mut self.own_word) {
            if let Some(stand) = stand.as_mut().filter(|stand| stand.run == run && stand.state == SendState::Intent) {
                stand.state = SendState::Unknown;
                *own_word = None;
            }
        }
    }

    fn settle(&mut self, send: usize, attempt: u32, run: i64, to: SendState) {
        let place = attempt as usize;
        let held = self.sends[send].map(|stand| ReportContext {
            last: stand,
            claimed: self.claimed[send][place] == run,
            own_word: self.own_word[send] == Some(attempt),
            has_id: self.recorded[send][place],
        });
        let accepted = to == SendState::Accepted;
        self.heard[send][place] |= accepted;
        match protocol::evaluate_report(held, attempt, run, to) {
            ReportEffect::Moves => {
                if let Some(stand) = &mut self.sends[send] {
                    stand.state = to;
                }
                self.own_word[send] = Some(attempt);
                self.recorded[send][place] |= accepted;
            }
            ReportEffect::AddsId => self.recorded[send][place] = true,
            ReportEffect::Contradicts => self.contradicted[send][place] |= accepted,
            ReportEffect::Known | ReportEffect::Overruled => {}
            ReportEffect::NotRecorded => panic!("an attempt was settled that nobody had claimed"),
        }
    }

    fn decide(&mut self, send: usize, resolution: Resolution) {
        if let Some(stand) = &mut self.sends[send] {
            stand.state = resolution.state();
        }
        self.own_word[send] = None;
    }

    /// Every world that is one step away.
    fn next(&self, pauses: Pauses, decisions: Decisions) -> Vec<Self> {
        let mut worlds = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            worlds.push(world);
        };
        for (at, applier) in self.appliers.iter().enumerate() {
            let Some(run) = applier.run else {
                if self.runs < self.bounds.runs {
                    add(&|world| world.begin(at));
                }
                continue;
            };
            // A crash: memory and connections are gone; the record still takes the run for alive.
            add(&|world| world.appliers[at] = Applier::gone());
            add(&|world| world.appliers[at].paused = !applier.paused);
            if applier.paused {
                continue;
            }
            if applier.phases.iter().all(|phase| *phase == Phase::Idle) {
                add(&|world| {
                    world.end(run);
                    world.appliers[at] = Applier::gone();
                });
            }
            for send in 0..SENDS {
                self.applier(at, run, send, pauses, &mut add);
            }
        }
        // A lease runs out: of a run whose process is gone, or stands still.
        for run in 1..=self.runs {
            let holder = self.appliers.iter().find(|applier| applier.run == Some(run));
            if !self.is_over(run) && holder.is_none_or(|applier| applier.paused) {
                add(&|world| world.end(run));
            }
        }
        for send in 0..SENDS {
            let live = self.sends[send].is_some_and(|stand| !self.is_over(stand.run));
            if decisions == Decisions::Forced {
                for resolution in Resolution::ALL {
                    if protocol::evaluate(self.sends[send], live, None, resolution) == Finding::Settled {
                        add(&|world| world.decide(send, resolution));
                    }
                }
                continue;
            }
            // A person looks the send up at the provider and decides by what is there.
            let resolution = if self.taken[send] > 0 { Resolution::Accepted } else { Resolution::NotSent };
            let under_way = self.appliers.iter().any(|applier| matches!(applier.phases[send], Phase::Flying(..)));
            if !under_way && protocol::evaluate(self.sends[send], live, None, resolution) == Finding::Settled {
                add(&|world| world.decide(send, resolution));
            }
        }
        worlds
    }

    fn begin(&mut self, at: usize) {
        self.runs += 1;
        let planned = self.sends.map(|stand| match stand {
            None => Some(1),
            Some(stand) if stand.state == SendState::NotSent && stand.attempt < self.bounds.attempts => {
                Some(stand.attempt + 1)
            }
            Some(_) => None,
        });
        self.appliers[at] = Applier { run: Some(self.runs), paused: false, planned, phases: [Phase::Idle; SENDS] };
    }

    fn applier(&self, at: usize, run: i64, send: usize, pauses: Pauses, add: &mut Add<'_, Self>) {
        let set = |world: &mut Self, phase: Phase| world.appliers[at].phases[send] = phase;
        match self.appliers[at].phases[send] {
            Phase::Idle => {
                let Some(attempt) = self.appliers[at].planned[send] else { return };
                let claim = move |world: &mut Self, answer: bool| {
                    world.appliers[at].planned[send] = None;
                    let contradicted = world.contradicted[send].contains(&true);
                    if !world.is_over(run) && !contradicted && protocol::may_claim(world.sends[send], attempt, false) {
                        world.sent_after_all |= world.heard[send].contains(&true);
                        world.sends[send] = Some(LastAttempt { state: SendState::Intent, attempt, run });
                        world.claimed[send][attempt as usize] = run;
                        world.own_word[send] = Some(attempt);
                        world.appliers[at].phases[send] =
                            if answer { Phase::Granted(attempt) } else { Phase::Lost(attempt) };
                    }
                };
                add(&|world| claim(world, true));
                add(&|world| claim(world, false));
            }
            Phase::Lost(attempt) => {
                // Offered again: what is this run's own is granted; given up: settled as not sent.
                add(&|world| {
                    let mine = Some(LastAttempt { state: SendState::Intent, attempt, run });
                    let granted = !world.is_over(run) && world.sends[send] == mine;
                    set(world, if granted { Phase::Granted(attempt) } else { Phase::Idle });
                });
                add(&|world| {
                    world.settle(send, attempt, run, SendState::NotSent);
                    set(world, Phase::Idle);
                });
            }
            Phase::Granted(attempt) => {
                if pauses == Pauses::AreNot || !self.is_over(run) {
                    for taken in [false, true] {
                        add(&|world| {
                            world.started[send][attempt as usize] += 1;
                            world.taken[send] += u8::from(taken);
                            set(world, Phase::Flying(attempt, taken));
                        });
                    }
                } else {
                    add(&|world| set(world, Phase::Told(attempt, SendState::NotSent)));
                }
            }
            Phase::Flying(attempt, taken) => {
                // The answer comes, or does not. What was not taken may be known to be so.
                let answers: &[SendState] = if taken {
                    &[SendState::Accepted, SendState::Unknown]
                } else {
                    &[SendState::Rejected, SendState::NotSent, SendState::Unknown]
                };
                for state in answers {
                    add(&|world| set(world, Phase::Told(attempt, *state)));
                }
            }
            Phase::Told(attempt, state) => add(&|world| {
                world.settle(send, attempt, run, state);
                set(world, Phase::Idle);
                // In the same run, what was not sent may be tried again.
                if state == SendState::NotSent && attempt < world.bounds.attempts {
                    world.appliers[at].planned[send] = Some(attempt + 1);
                }
            }),
        }
    }

    /// What is wrong with this world, if anything is.
    fn broken(&self, decisions: Decisions) -> Option<&'static str> {
        if self.sent_after_all {
            return Some("a send was claimed although an acceptance of it had been heard");
        }
        for send in 0..SENDS {
            for attempt in 1..=MOST_ATTEMPTS as usize {
                let trace = self.recorded[send][attempt] || self.contradicted[send][attempt];
                if self.heard[send][attempt] && !trace {
                    return Some("an acceptance has left no trace");
                }
                if self.started[send][attempt] > 1 {
                    return Some("two requests were started for one attempt");
                }
            }
            let accepted = self.sends[send].is_some_and(|stand| stand.state == SendState::Accepted);
            if self.recorded[send].contains(&true) && !accepted {
                return Some("what was recorded as accepted is not accepted any more");
            }
            if decisions == Decisions::Forced {
                continue;
            }
            if self.taken[send] > 1 {
                return Some("the provider took a send twice");
            }
            let stand = self.sends[send];
            let flying = self.appliers.iter().any(|applier| matches!(applier.phases[send], Phase::Flying(..)));
            if (flying || self.taken[send] > 0) && stand.is_none() {
                return Some("something was sent without an intent");
            }
            if self.taken[send] > 0
                && stand.is_some_and(|stand| matches!(stand.state, SendState::NotSent | SendState::Rejected))
            {
                return Some("what the provider took is recorded as not sent");
            }
            let accepted = stand.is_some_and(|stand| stand.state == SendState::Accepted);
            if accepted && self.taken[send] == 0 {
                return Some("what the provider did not take is recorded as accepted");
            }
        }
        None
    }
}

/// Goes through every world that can be reached; what is wrong, and how many there are.
fn explore<const SENDS: usize>(bounds: Bounds, pauses: Pauses, decisions: Decisions) -> (Option<&'static str>, usize) {
    let mut seen: HashSet<World<SENDS>> = HashSet::new();
    let mut next = vec![World::new(bounds)];
    while let Some(world) = next.pop() {
        if let Some(problem) = world.broken(decisions) {
            return (Some(problem), seen.len());
        }
        for world in world.next(pauses, decisions) {
            if !seen.contains(&world) {
                seen.insert(world.clone());
                next.push(world);
            }
        }
    }
    (None, seen.len())
}

#[test]
fn no_interleaving_of_two_appliers_breaks_the_promise() {
    let (problem, worlds) = explore::<1>(Bounds { runs: 4, attempts: 2 }, Pauses::AreNoticed, Decisions::InTime);
    assert_eq!(problem, None);
    eprintln!("{worlds} worlds of one send");
    assert!(worlds > 10_000, "only {worlds} worlds: the exploration is cut short");
}

#[test]
fn no_interleaving_over_two_sends_breaks_the_promise() {
    let (problem, worlds) = explore::<2>(Bounds { runs: 2, attempts: 1 }, Pauses::AreNoticed, Decisions::InTime);
    assert_eq!(problem, None);
    eprintln!("{worlds} worlds of two sends");
    assert!(worlds > 10_000, "only {worlds} worlds: the exploration is cut short");
}

#[test]
fn the_exploration_finds_what_happens_if_a_pause_is_not_noticed() {
    let (problem, _) = explore::<1>(Bounds { runs: 3, attempts: 2 }, Pauses::AreNot, Decisions::InTime);
    let harm = ["the provider took a send twice", "what the provider took is recorded as not sent"];
    assert!(problem.is_some_and(|problem| harm.contains(&problem)), "{problem:?}");
}

/// The record is told that an attempt was not sent while its answer is under way, another attempt
/// follows, and a third may. Whatever the answers are, each acceptance is found in the record, and
/// nothing is claimed once one was heard.
#[test]
fn a_decision_while_the_answer_is_under_way_loses_no_acceptance() {
    let (problem, worlds) = explore::<1>(Bounds { runs: 3, attempts: 3 }, Pauses::AreNoticed, Decisions::Forced);
    assert_eq!(problem, None);
    eprintln!("{worlds} worlds of one send with decisions at any time");
    assert!(worlds > 10_000, "only {worlds} worlds: the exploration is cut short");
}
