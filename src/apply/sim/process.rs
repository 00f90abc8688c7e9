//! Processes: they run the engine, are suspended, crash at any await, and start again.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::gateway::SimGateway;
use super::ledger::{SimLedger, count};
use super::source::{SimSource, messages};
use super::world::{EndingKind, START, SimClock, World};
use super::{Failure, Report, check};
use crate::apply::{self, ApprovedPlan, Progress, Run, RunError, RunSummary, ShutdownRequest};
use crate::domain::send::{EvidenceSource, Resolution};
use crate::ledger::{Evidence, LedgerError, RunStart, Scope, SendState, Snapshot};
use crate::plan::{Approved, SendStatus};

/// How many processes an applier has, one after the other.
const MAX_PROCESSES: u64 = 4;

/// How long a scenario may go on, in simulated time.
const MAX_TIME: Duration = Duration::from_secs(12 * 3_600);

/// How often a process may be polled: beyond that it runs in a circle.
const MAX_POLLS: u64 = 500_000;

/// A process on a machine of its own.
pub(super) struct Process {
    pub(super) world: Arc<World>,
    pub(super) id: u64,
    pub(super) clock: SimClock,
    gone: AtomicBool,
    run: AtomicI64,
    /// When it does nothing.
    pauses: Vec<(Instant, Instant)>,
    /// It crashes when it is polled for this time.
    crash_at_poll: Option<u64>,
    crash_at: Option<Instant>,
}

impl Process {
    /// A process with a fate.
    fn new(world: &Arc<World>, id: u64) -> Arc<Self> {
        let calm = world.seen(|seen| seen.calm);
        let now = Instant::now();
        let scenario = &world.scenario;
        let lease = scenario.lease.as_millis() as u64;
        let mut process = Self {
            world: Arc::clone(world),
            id,
            clock: SimClock { origin: world.origin, jumps: Vec::new(), sleeps: Vec::new() },
            gone: AtomicBool::new(false),
            run: AtomicI64::new(0),
            pauses: Vec::new(),
            crash_at_poll: None,
            crash_at: None,
        };
        if calm {
            return Arc::new(process);
        }
        world.roll(|rng| {
            if rng.chance(scenario.crashes) {
                match rng.below(3) {
                    0 => process.crash_at = Some(now + rng.millis(0, 10_000)),
                    _ => process.crash_at_poll = Some(rng.between(1, 8 + 4 * scenario.people)),
                }
            }
            let mut at = now;
            while rng.chance(scenario.pauses) && process.pauses.len() < 3 {
                let from = at + rng.millis(0, 5_000);
                let length = if rng.chance(500) { rng.millis(1, lease / 2) } else { rng.millis(lease, 3 * lease) };
                process.pauses.push((from, from + length));
                // The machine sleeps, or the process alone stands still.
                if rng.chance(500) {
                    process.clock.sleeps.push((from, from + length));
                }
                at = from + length;
            }
            if rng.chance(200) {
                // No clock of a machine that sleeps is set back meanwhile: then nobody could notice.
                let back = if process.clock.sleeps.is_empty() { 600_000 } else { 0 };
                let by = rng.between(0, 600_000) as i64 - back;
                process.clock.jumps.push((now + rng.millis(0, 10_000), by));
            }
        });
        Arc::new(process)
    }

    /// The run that this process has begun.
    pub(super) fn run(&self) -> Option<i64> {
        Some(self.run.load(Ordering::SeqCst)).filter(|run| *run > 0)
    }

    pub(super) fn has_run(&self, run: i64) {
        self.run.store(run, Ordering::SeqCst);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    fn paused_until(&self) -> Option<Instant> {
        let now = Instant::now();
        self.pauses.iter().find(|(from, to)| *from <= now && now < *to).map(|(_, to)| *to)
    }

    /// Goes on once this process does; never, if it has crashed.
    pub(super) async fn gate(&self) {
        loop {
            if self.is_gone() {
                return std::future::pending().await;
            }
            match self.paused_until() {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }

    /// Lets up to this many milliseconds pass.
    pub(super) async fn latency(&self, max: u64) {
        self.gate().await;
        let length = self.world.roll(|rng| if rng.chance(300) { Duration::ZERO } else { rng.millis(0, max) });
        if !length.is_zero() {
            tokio::time::sleep(length).await;
            self.gate().await;
        }
    }

    /// Whether the ledger cannot be reached now.
    pub(super) fn outage(&self) -> bool {
        let now = self.world.elapsed();
        let calm = self.world.seen(|seen| seen.calm);
        !calm && self.world.scenario.outage.is_some_and(|(from, to)| (from..to).contains(&now))
    }

    fn crash(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.world.note(format_args!("p{} crashes", self.id));
        self.world.seen(|seen| seen.crashes += 1);
        if let Some(run) = self.run() {
            self.world.troubled(run, 1);
        }
    }

    /// Polls `work` as this process would: not while it is paused, and not after it has crashed.
    async fn carry<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut polls = 0;
        let mut timer: Option<Pin<Box<tokio::time::Sleep>>> =
            self.crash_at.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let mut pause: Option<Pin<Box<tokio::time::Sleep>>> = None;
        poll_fn(move |context| {
            polls += 1;
            if polls > MAX_POLLS {
                self.world.problem(format!("process {} runs in a circle", self.id));
                self.crash();
                return Poll::Ready(None);
            }
            let timed = timer.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready());
            if timed || self.crash_at_poll == Some(polls) {
                self.crash();
                return Poll::Ready(None);
            }
            if let Some(until) = self.paused_until() {
                let pause = pause.insert(Box::pin(tokio::time::sleep_until(until)));
                if pause.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// Plans and applies. Nothing if there is nothing to send.
    async fn apply(self: &Arc<Self>, other_plan: bool) -> Option<Result<RunSummary, RunError>> {
        let world = &self.world;
        let scenario = &world.scenario;
        self.latency(50).await;
        let scope = scope(world);
        let snapshot = world.store.snapshot(&scope);
        let planned = messages(world, &snapshot);
        let sends = planned.iter().filter(|message| matches!(message.status, SendStatus::Send(_))).count() as u64;
        if sends == 0 {
            return None;
        }
        // Somebody reads the plan, and approves it; meanwhile another plan may be applied.
        self.latency(if scenario.other_plan { 60_000 } else { 200 }).await;
        let start = start(world, other_plan, &snapshot);
        let (events_sender, mut events) = mpsc::unbounded_channel();
        let shutdown = self.shutdowns();
        let ledger = match world.store.open(None) {
            Ok(inner) => Box::new(SimLedger { process: Arc::clone(self), inner }),
            Err(error) => return Some(Err(error.into())),
        };
        let lost = Arc::clone(world);
        let run = Run {
            plan: ApprovedPlan {
                approved: Approved::of(planned.iter().map(|message| message.entry).collect()),
                sends,
                unknown: count(&snapshot, SendState::Unknown),
                leave_by: scenario.leave_by.map(|after| START + SignedDuration::try_from(after).unwrap_or_default()),
                snapshot,
                source: Box::new(SimSource { world: Arc::clone(world), rounds: AtomicU32::new(0) }),
            },
            delivery: scenario.delivery,
            start,
            ledger,
            gateway: Arc::new(SimGateway { process: Arc::clone(self) }),
            clock: Arc::new(self.clock.clone()),
            shutdown,
            events: events_sender,
            progress: watch::Sender::new(Progress::default()),
            keep_lost: Box::new(move |_, outcomes| lost.seen(|seen| seen.reported_lost += outcomes.len() as u64)),
        };
        let result = apply::run(run).await;
        while let Ok(event) = events.try_recv() {
            world.note(format_args!("p{}: {event:?}", self.id));
        }
        Some(result)
    }

    /// Asks this process to stop, in some scenarios.
    fn shutdowns(self: &Arc<Self>) -> watch::Receiver<ShutdownRequest> {
        let (sender, receiver) = watch::channel(ShutdownRequest::None);
        if self.world.fault(self.world.scenario.shutdowns) {
            let (first, second) =
                self.world.roll(|rng| (rng.millis(0, 10_000), rng.chance(500).then(|| rng.millis(0, 5_000))));
            let process = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(first).await;
                let _ = sender.send(ShutdownRequest::Graceful);
                let Some(second) = second else { return std::future::pending().await };
                tokio::time::sleep(second).await;
                if let Some(run) = process.run() {
                    process.world.troubled(run, 1);
                }
                let _ = sender.send(ShutdownRequest::Immediate);
            });
        }
        receiver
    }
}

fn scope(world: &World) -> Scope {
    Scope { campaign: "sim".into(), edition: 1, unique_codes: world.scenario.unique_codes }
}

fn start(world: &World, other_plan: bool, snapshot: &Snapshot) -> RunStart {
    let scenario = &world.scenario;
    RunStart {
        campaign: "sim".into(),
        edition: 1,
        name: "sim".into(),
        manifest: "sim.yaml".into(),
        destination: "simulated".into(),
        account: None,
        environment: None,
        plan_hash: if other_plan { "v2:other" } else { "v2:sim" }.into(),
        // The first plan that sent anything stays.
        planned_at: snapshot.planned_at.unwrap_or(START - SignedDuration::from_secs(if other_plan { 60 } else { 0 })),
        unique_codes: scenario.unique_codes,
        recipients: scenario.people,
        sender: "+919900112233".into(),
        interval: scenario.delivery.rate.interval(),
        retry_rejected: scenario.retry_rejected,
        // What is not shared is locked, and a lock goes with its process alone.
        lease: if scenario.shared { scenario.lease } else { MAX_TIME },
        longest_request: scenario.longest_request,
        host: "simulation".into(),
        actor: "simulation".into(),
    }
}

/// What became of a process.
enum Fate {
    Crashed,
    NothingToSend,
    NotBegun,
    Ended(EndingKind),
}

/// Runs one process to its end.
async fn process(world: &Arc<World>, id: u64, other_plan: bool) -> Fate {
    let process = Process::new(world, id);
    if !world.scenario.shared {
        // The lock of a dead process is free, and what it left open is unknown.
        let free = world.seen(|seen| {
            let free = seen.lock.is_none();
            seen.lock.get_or_insert(id);
            free
        });
        if !free {
            return Fate::NotBegun;
        }
        world.store.unlock_all();
    }
    let result = process.carry(process.apply(other_plan)).await;
    // Whatever is left of it does nothing more.
    process.gone.store(true, Ordering::SeqCst);
    world.seen(|seen| seen.lock = seen.lock.filter(|holder| *holder != id));
    match result {
        None => Fate::Crashed,
        Some(None) => Fate::NothingToSend,
        Some(Some(Err(error))) => {
            world.note(format_args!("p{id} does not begin: {error}"));
            let RunError::Ledger(error) = error;
            if !matches!(error, LedgerError::Held { .. } | LedgerError::Outdated) {
                world.problem(format!("process {id} cannot begin: {error}"));
            }
            Fate::NotBegun
        }
        Some(Some(Ok(summary))) => {
            let ending = EndingKind::of(&summary.ending);
            world.note(format_args!("p{id} ends: {:?}, {:?}", summary.ending, summary.progress));
            world.seen(|seen| seen.endings.insert(ending));
            match ending {
                EndingKind::LedgerFailed | EndingKind::Fenced | EndingKind::LedgerLostSends => {
                    world.troubled(summary.run, 1);
                }
                // Everything that was in flight, not durable, or just coming in.
                EndingKind::MixedAnswers => world.troubled(summary.run, 4),
                _ => {}
            }
            check::summary(world, &summary);
            Fate::Ended(ending)
        }
    }
}

/// One applier: a process, and after it another, until there is nothing left or it gives up.
async fn applier(world: Arc<World>, index: u64) {
    let lease = world.scenario.lease.as_millis() as u64;
    tokio::time::sleep(world.roll(|rng| rng.millis(0, 3_000))).await;
    for number in 0..MAX_PROCESSES {
        let other_plan = world.scenario.other_plan && index == 1;
        match process(&world, 10 * index + number, other_plan).await {
            Fate::NothingToSend => return,
            Fate::Ended(_) if world.roll(|rng| rng.chance(300)) => return,
            Fate::Crashed | Fate::NotBegun | Fate::Ended(_) => {}
        }
        tokio::time::sleep(world.roll(|rng| rng.millis(0, lease + lease / 2))).await;
    }
}

/// A person who settles unknown sends by what the provider has, once no answer can come any more.
async fn person(world: Arc<World>) {
    loop {
        tokio::time::sleep(world.roll(|rng| rng.millis(500, 20_000))).await;
        let Ok(mut ledger) = world.store.open(None) else { return };
        let runs = ledger.runs().await.unwrap_or_default();
        let snapshot = world.store.snapshot(&scope(&world));
        let unknown = snapshot.sends.iter().filter(|(_, recorded)| recorded.state == SendState::Unknown);
        let mut evidence = Vec::new();
        for (key, recorded) in unknown {
            let run = runs.iter().find(|run| run.id == recorded.run);
            let settled = run.is_some_and(|run| run.ended_at.is_some() && run.may_live_for().is_zero());
            if !settled || !world.roll(|rng| rng.chance(500)) {
                continue;
            }
            let taken = world.seen(|seen| seen.taken.get(&key).is_some_and(|taken| taken.contains(&recorded.attempt)));
            evidence.push(Evidence {
                key,
                attempt: Some(recorded.attempt),
                resolution: if taken { Resolution::Accepted } else { Resolution::NotSent },
                message_id: None,
                source: EvidenceSource::Decision,
                actor: "asha".into(),
                reason: "seen in the console".into(),
            });
        }
        if !evidence.is_empty() {
            let findings = ledger.record_evidence(&evidence).await;
            world.note(format_args!("a person settles {}: {findings:?}", evidence.len()));
        }
    }
}

/// Another campaign, which gives codes of this one's pool away.
async fn other_campaign(world: Arc<World>) {
    for _ in 0..world.scenario.codes_taken {
        tokio::time::sleep(world.roll(|rng| rng.millis(0, 4_000))).await;
        let person = world.roll(|rng| rng.below(world.scenario.people));
        world.note(format_args!("another campaign gives C{person} away"));
        world.store.give_code_away(&format!("C{person}"));
    }
}

/// Plays the scenario of a seed.
pub(super) async fn play(seed: u64, keep_trace: bool) -> Result<Report, Failure> {
    let world = World::new(seed, keep_trace);
    if tokio::time::timeout(MAX_TIME, scenario(Arc::clone(&world))).await.is_err() {
        world.problem("it does not end".to_owned());
    }
    let runs = match world.store.open(None) {
        Ok(mut ledger) => ledger.runs().await.map_or(0, |runs| runs.len() as u64),
        Err(_) => 0,
    };
    let (problems, endings, requests, crashes) =
        world.seen(|seen| (seen.problems.clone(), seen.endings.clone(), seen.requests, seen.crashes));
    let trace = world.take_trace();
    if problems.is_empty() {
        Ok(Report { endings, requests, crashes, runs, trace })
    } else {
        Err(Failure { seed, problems, trace })
    }
}

async fn scenario(world: Arc<World>) {
    let appliers: Vec<_> =
        (0..world.scenario.appliers as u64).map(|index| tokio::spawn(applier(Arc::clone(&world), index))).collect();
    let decisions =
        (world.scenario.decisions && world.scenario.shared).then(|| tokio::spawn(person(Arc::clone(&world))));
    let codes = tokio::spawn(other_campaign(Arc::clone(&world)));
    for applier in appliers {
        if let Err(error) = applier.await {
            world.problem(format!("an applier panicked: {error}"));
        }
    }
    if let Some(decisions) = decisions {
        decisions.abort();
    }
    codes.abort();
    // Once every lease is over and every request is answered, a last applier finishes.
    world.seen(|seen| seen.calm = true);
    tokio::time::sleep(world.scenario.lease * 2 + Duration::from_secs(120)).await;
    world.note(format_args!("all is calm"));
    let mut finished = false;
    for number in 0..4 {
        match process(&world, 1_000 + number, false).await {
            Fate::NothingToSend | Fate::Ended(EndingKind::Finished) => {
                finished = true;
                break;
            }
            _ => tokio::time::sleep(world.scenario.lease * 2).await,
        }
    }
    check::world(&world, finished).await;
}
