//! The ledger as one process reaches it: slow, failing, and losing answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::process::Process;
use crate::ledger::memory::{LostAnswers, MemoryRun};
use crate::ledger::protocol::Finding;
use crate::ledger::{
    Activity, Batch, Claim, Committed, Contradiction, Coordinator, Evidence, Head, JournalEntry, Lease, LeaseHolder,
    Ledger, LedgerError, Link, LostSend, Moment, RecordedEnding, RunCounts, RunLedger, RunRecord, RunStart, Scope,
    SendState, Snapshot, Transition,
};

fn lost() -> LedgerError {
    LedgerError::lost("memory", "simulated")
}

/// The ledger, opened by a process.
pub(super) struct SimLedger {
    pub(super) process: Arc<Process>,
    pub(super) inner: Box<dyn Ledger>,
}

impl SimLedger {
    async fn begin_run(self, start: &RunStart, snapshot: &Snapshot) -> Result<SimRun, LedgerError> {
        let Self { process, .. } = self;
        process.latency(30).await;
        let world = Arc::clone(&process.world);
        let shared = world.scenario.shared;
        if !shared && snapshot.position != world.store.position() {
            return Err(LedgerError::Outdated);
        }
        let asked = Moment::of(&process.clock);
        let inner = world.store.begin(start)?;
        let run = inner.id();
        process.has_run(run);
        world.note(format_args!("p{} begins run {run}", process.id));
        process.latency(30).await;
        let lease = Lease::by(Arc::new(process.clock.clone()), start.lease.mul_f32(0.8), asked);
        let heart = shared.then(|| tokio::spawn(beat(Arc::clone(&process), run, lease.clone(), start.lease / 5)));
        let seen_failover = world.seen(|seen| seen.failed_over);
        Ok(SimRun { process, inner, lease, heart, lost: LostAnswers::default(), seen_failover })
    }
}

/// Says that the run is alive, for as long as it is.
async fn beat(process: Arc<Process>, run: i64, lease: Lease, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        process.gate().await;
        let asked = Moment::of(&process.clock);
        process.latency(20).await;
        if !process.outage() && process.world.store.beat(run) {
            lease.confirmed(asked);
        }
    }
}

#[async_trait]
impl Ledger for SimLedger {
    fn place(&self) -> String {
        self.inner.place()
    }

    async fn snapshot(&mut self, scope: &Scope) -> Result<Snapshot, LedgerError> {
        self.inner.snapshot(scope).await
    }

    async fn runs(&mut self) -> Result<Vec<RunRecord>, LedgerError> {
        self.inner.runs().await
    }

    async fn journal(
        &mut self,
        campaign: Option<&str>,
        visit: &mut (dyn FnMut(JournalEntry) + Send),
    ) -> Result<(), LedgerError> {
        self.inner.journal(campaign, visit).await
    }

    async fn similarity_digests(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(i64, i64) + Send),
    ) -> Result<(), LedgerError> {
        self.inner.similarity_digests(runs, visit).await
    }

    async fn transitions(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(Transition) + Send),
    ) -> Result<(), LedgerError> {
        self.inner.transitions(runs, visit).await
    }

    async fn chain(&mut self) -> Result<Vec<Link>, LedgerError> {
        self.inner.chain().await
    }

    async fn verify_storage(&mut self) -> Result<Vec<String>, LedgerError> {
        self.inner.verify_storage().await
    }

    async fn contradictions(&mut self) -> Result<Vec<Contradiction>, LedgerError> {
        self.inner.contradictions().await
    }

    async fn record_evidence(&mut self, evidence: &[Evidence]) -> Result<Vec<Finding>, LedgerError> {
        self.inner.record_evidence(evidence).await
    }

    async fn restore_sends(&mut self, lost: &[LostSend]) -> Result<Vec<Finding>, LedgerError> {
        self.inner.restore_sends(lost).await
    }

    async fn property(&mut self, name: &str) -> Result<Option<String>, LedgerError> {
        self.inner.property(name).await
    }

    async fn set_property(&mut self, name: &str, value: Option<&str>) -> Result<(), LedgerError> {
        self.inner.set_property(name, value).await
    }

    async fn check_can_begin(&mut self, campaign: &str, plan_hash: &str) -> Result<(), LedgerError> {
        self.inner.check_can_begin(campaign, plan_hash).await
    }

    async fn lease_holders(&mut self) -> Result<Vec<LeaseHolder>, LedgerError> {
        self.inner.lease_holders().await
    }

    async fn unlock(&mut self, run: i64) -> Result<bool, LedgerError> {
        self.inner.unlock(run).await
    }

    async fn begin(self: Box<Self>, start: &RunStart, snapshot: &Snapshot) -> Result<Box<dyn RunLedger>, LedgerError> {
        Ok(Box::new(self.begin_run(start, snapshot).await?))
    }
}

/// A run of a process.
struct SimRun {
    process: Arc<Process>,
    inner: MemoryRun,
    lease: Lease,
    heart: Option<tokio::task::JoinHandle<()>>,
    lost: LostAnswers,
    seen_failover: bool,
}

impl Drop for SimRun {
    fn drop(&mut self) {
        if let Some(heart) = &self.heart {
            heart.abort();
        }
    }
}

impl SimRun {
    /// Every so often, a standby takes over that has not got the last commits.
    fn maybe_fail_over(&self) {
        let world = &self.process.world;
        let Some(after) = world.scenario.failover_after else { return };
        let key = world.seen(|seen| {
            let due = !seen.failed_over && seen.commits >= after && !seen.calm;
            let key = due.then(|| seen.started.keys().next_back().map(|(key, _)| *key)).flatten();
            seen.failed_over |= key.is_some();
            key
        });
        if let Some(key) = key {
            world.note(format_args!("the ledger forgets {key}"));
            world.store.forget(&key);
        }
    }
}

#[async_trait]
impl RunLedger for SimRun {
    fn id(&self) -> i64 {
        self.inner.id()
    }

    fn head(&self) -> Head {
        self.inner.head()
    }

    async fn commit(&mut self, batch: &Arc<Batch>) -> Result<Committed, LedgerError> {
        let (process, world) = (Arc::clone(&self.process), Arc::clone(&self.process.world));
        let (id, faults, shared) = (self.inner.id(), &world.scenario.faults, world.scenario.shared);
        let asked = Moment::of(&process.clock);
        process.latency(10).await;
        if world.fault(faults.slow_commit) {
            process.latency(20_000).await;
        }
        if process.outage() {
            process.latency(1_000).await;
            self.lost.lose(batch);
            return Err(lost());
        }
        if world.fault(faults.storage) {
            world.note(format_args!("run {id}: a commit fails"));
            return Err(LedgerError::storage("memory", "written", "simulated"));
        }
        if shared && world.fault(faults.lost_before) {
            world.note(format_args!("run {id}: a commit is lost"));
            self.lost.lose(batch);
            return Err(lost());
        }
        world.seen(|seen| seen.commits += 1);
        self.maybe_fail_over();
        let result = world.store.commit(id, batch, &mut self.lost);
        if process.is_gone() {
            world.problem(format!("run {id} commits after its process has crashed"));
        }
        world.note(format_args!("run {id}: {} settled, {} claimed: {result:?}", batch.settle.len(), batch.claim.len()));
        let open = world.store.open_intents(id);
        if open > world.scenario.delivery.concurrency {
            world.problem(format!("run {id} has {open} intents open"));
        }
        if shared && result.is_ok() && world.fault(faults.lost_after) {
            world.note(format_args!("run {id}: its answer is lost"));
            self.lost.lose(batch);
            process.latency(50).await;
            return Err(lost());
        }
        process.latency(10).await;
        let mut committed = result?;
        if committed.claims.contains(&Claim::Granted) || world.store.beat(id) {
            self.lease.confirmed(asked);
        }
        let failed_over = world.seen(|seen| seen.failed_over);
        committed.reconnected = failed_over && !self.seen_failover;
        self.seen_failover = failed_over;
        Ok(committed)
    }

    fn lease(&self) -> Option<Lease> {
        self.process.world.scenario.shared.then(|| self.lease.clone())
    }

    fn coordinator(&self) -> Option<Arc<dyn Coordinator>> {
        if !self.process.world.scenario.shared {
            return None;
        }
        let (process, inner) = (Arc::clone(&self.process), self.inner.coordinator()?);
        Some(Arc::new(SimCoordinator { process, run: self.inner.id(), inner, lease: self.lease.clone() }))
    }

    async fn snapshot(&mut self) -> Result<Snapshot, LedgerError> {
        self.process.latency(30).await;
        if self.process.outage() { Err(lost()) } else { self.inner.snapshot().await }
    }

    async fn finish(self: Box<Self>, ending: RecordedEnding, counts: RunCounts) -> Result<Head, LedgerError> {
        let process = Arc::clone(&self.process);
        process.latency(30).await;
        if process.outage() {
            return Err(lost());
        }
        let id = self.inner.id();
        let head = process.world.store.finish(id, ending.clone(), counts);
        process.world.note(format_args!("run {id} is sealed as {ending}, {counts:?}"));
        process.latency(30).await;
        Ok(head)
    }
}

/// What appliers share, as one process reaches it.
struct SimCoordinator {
    process: Arc<Process>,
    run: i64,
    inner: Arc<dyn Coordinator>,
    lease: Lease,
}

impl SimCoordinator {
    async fn reach(&self) -> Result<(), LedgerError> {
        self.process.latency(10).await;
        let faults = &self.process.world.scenario.faults;
        if self.process.outage() || self.process.world.fault(faults.lost_before / 4) { Err(lost()) } else { Ok(()) }
    }
}

#[async_trait]
impl Coordinator for SimCoordinator {
    async fn reserve(&self, messages: u32, most: u32) -> Result<Duration, LedgerError> {
        self.reach().await?;
        let delay = self.inner.reserve(messages, most).await;
        self.process.latency(10).await;
        delay
    }

    async fn pause_sender(&self, pause: Duration) -> Result<(), LedgerError> {
        self.reach().await?;
        self.inner.pause_sender(pause).await
    }

    async fn next_chunk(&self) -> Result<u64, LedgerError> {
        self.reach().await?;
        let chunk = self.inner.next_chunk().await;
        self.process.latency(10).await;
        chunk
    }

    async fn activity(&self) -> Result<Activity, LedgerError> {
        let asked = Moment::of(&self.process.clock);
        self.reach().await?;
        let activity = self.inner.activity().await;
        self.process.latency(10).await;
        if self.process.world.store.beat(self.run) {
            self.lease.confirmed(asked);
        }
        activity
    }
}

/// How many sends of a snapshot are in a state.
pub(super) fn count(snapshot: &Snapshot, state: SendState) -> u64 {
    snapshot.sends.count(state)
}
