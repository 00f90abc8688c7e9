//! A ledger in memory: the contract and nothing else. Simulations run on it, and it is the shortest
//! complete description of what a ledger does.
//!
//! It is shared like the one in a database: several appliers may have a run of one plan, each with a lease,
//! and they share the sender number's rate. Time comes from a clock that is passed in.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use super::chain::{JournalDigest, Link, LinkKind};
use super::contract::{
    Activity, Batch, Claim, Committed, Coordinator, LeaseHolder, Ledger, MAX_SENDER_PAUSE, RunLedger, Scope, Snapshot,
};
use super::contradiction::Contradiction;
use super::error::LedgerError;
use super::head::{EndLink, Head, StartLink};
use super::key::LedgerKey;
use super::late_outcomes::{JournalStep, LateOutcomes};
use super::lost_send::LostSend;
use super::protocol::{self, Finding, LastAttempt};
use super::record::{JournalEntry, RecordedEnding, RunCounts, RunRecord, RunStart, Transition};
use super::send_table::{SendTable, content_prefix};
use crate::domain::clock::Clock;
use crate::domain::lease::{Lease, Moment};
use crate::domain::send::{Evidence, SendKey, SendState, Settlement};

const FENCED: &str = "it was silent for longer than its lease, so another applier fenced it off";

/// What bytes leave within, as a part of the lease.
const SAFE_PART_OF_LEASE: f32 = 0.8;

/// The record. All clones are the same one.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
    clock: Arc<dyn Clock>,
}

struct Inner {
    key: String,
    links: Vec<Link>,
    runs: Vec<Run>,
    journal: Vec<JournalEntry>,
    /// The number of the journal's last entry.
    last_seq: i64,
    sends: BTreeMap<SendKey, Row>,
    codes: BTreeMap<String, SendKey>,
    contradictions: Vec<Contradiction>,
    properties: BTreeMap<String, String>,
    /// The next chunk of each campaign's plan.
    chunks: BTreeMap<String, u64>,
    /// When the next message of each sender number may leave.
    senders: BTreeMap<String, Instant>,
}

struct Run {
    start: RunStart,
    started_at: Timestamp,
    heartbeat: Instant,
    heartbeat_at: Timestamp,
    /// The last entry of the journal before it.
    after: i64,
    ended: Option<Ended>,
}

struct Ended {
    at: Timestamp,
    ending: RecordedEnding,
    counts: Option<RunCounts>,
    digest: Option<[u8; 32]>,
}

#[derive(Clone)]
struct Row {
    campaign: String,
    edition: u32,
    last: LastAttempt,
    coupon: String,
}

/// What a run remembers of commits whose answer was lost.
#[derive(Debug, Default)]
pub struct LostAnswers {
    /// What the batch that was offered last claims, if its answer was lost.
    claimed: HashSet<(SendKey, u32)>,
    /// Everything that was claimed by such a commit: it may not be recorded.
    doubtful: HashSet<(SendKey, u32)>,
}

impl LostAnswers {
    /// The answer to this batch was lost.
    pub fn lose(&mut self, batch: &Batch) {
        let claims = batch.claim.iter().map(|intent| (intent.key, intent.attempt));
        self.doubtful.extend(claims.clone());
        self.claimed.extend(claims);
    }
}

impl MemoryStore {
    /// An empty record.
    pub fn new(key: &LedgerKey, clock: Arc<dyn Clock>) -> Self {
        let id = "0".repeat(32);
        let first = Link { head: Head::of_ledger(&id), kind: LinkKind::Ledger, run: None, detail: Some(id.clone()) };
        let inner = Inner {
            key: key.fingerprint(),
            links: vec![first],
            runs: Vec::new(),
            journal: Vec::new(),
            last_seq: 0,
            sends: BTreeMap::new(),
            codes: BTreeMap::new(),
            contradictions: Vec::new(),
            properties: BTreeMap::from([("ledger_id".to_owned(), id)]),
            chunks: BTreeMap::new(),
            senders: BTreeMap::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), clock }
    }

    /// Opens the record.
    pub fn open(&self, key: Option<&LedgerKey>) -> Result<Box<dyn Ledger>, LedgerError> {
        let given = key.map(LedgerKey::fingerprint);
        let ledger = self.lock().key.clone();
        match given {
            Some(given) if given != ledger => Err(LedgerError::WrongKey { ledger, given }),
            _ => Ok(Box::new(MemoryLedger(self.clone()))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a run.
    pub fn begin(&self, start: &RunStart) -> Result<MemoryRun, LedgerError> {
        let taken = Moment::of(self.clock.as_ref());
        let (run, head) = self.lock().begin(start, self.clock.as_ref())?;
        let lease = Lease::by(Arc::clone(&self.clock), start.lease.mul_f32(SAFE_PART_OF_LEASE), taken);
        Ok(MemoryRun { store: self.clone(), run, head, start: start.clone(), lease, lost: LostAnswers::default() })
    }

    /// Makes a batch of a run durable.
    pub fn commit(&self, run: i64, batch: &Batch, lost: &mut LostAnswers) -> Result<Committed, LedgerError> {
        self.lock().commit(run, batch, lost, self.clock.as_ref())
    }

    /// Takes a run for dead: it is granted nothing more. Whether it was under way.
    pub fn unlock(&self, run: i64) -> bool {
        let now = self.clock.now();
        let mut inner = self.lock();
        let Some(found) = inner.run_mut(run).filter(|found| found.ended.is_none()) else { return false };
        found.ended = Some(Ended { at: now, ending: RecordedEnding::Unlocked, counts: None, digest: None });
        let campaign = found.start.campaign.clone();
        inner.abandon(&campaign, run, now);
        true
    }

    /// Takes every run for dead.
    pub fn unlock_all(&self) {
        let runs = self.lock().runs.len() as i64;
        for run in 1..=runs {
            self.unlock(run);
        }
    }

    /// Says that a run is alive, and fences off those that are not. Whether it is still a run.
    pub fn beat(&self, run: i64) -> bool {
        let mut inner = self.lock();
        let alive = inner.beat(run, self.clock.as_ref());
        if let Some(campaign) = inner.run_mut(run).map(|found| found.start.campaign.clone()) {
            if inner.fence_dead(&campaign, run, self.clock.as_ref()) {
                inner.abandon(&campaign, run, self.clock.now());
            }
        }
        alive
    }

    /// Ends a run.
    pub fn finish(&self, run: i64, ending: RecordedEnding, counts: RunCounts) -> Head {
        self.lock().finish(run, ending, counts, self.clock.now())
    }

    /// Everything that is recorded of one edition.
    pub fn snapshot(&self, scope: &Scope) -> Snapshot {
        self.lock().snapshot(scope, self.clock.as_ref())
    }

    /// The state and the last attempt of a send, and its run.
    pub fn last_attempt(&self, key: &SendKey) -> Option<LastAttempt> {
        self.lock().sends.get(key).map(|row| row.last)
    }

    /// How many entries the journal holds.
    pub fn position(&self) -> i64 {
        self.lock().last_seq
    }

    /// How many intents of a run have no outcome.
    pub fn open_intents(&self, run: i64) -> usize {
        let inner = self.lock();
        inner.sends.values().filter(|row| row.last.run == run && row.last.state == SendState::Intent).count()
    }

    /// Lets a recipient of another campaign have a code.
    pub fn give_code_away(&self, code: &str) {
        let key = SendKey([0xff; 16]);
        let mut inner = self.lock();
        if !inner.codes.contains_key(code) {
            inner.codes.insert(code.to_owned(), key);
        }
    }

    /// Forgets what was written last of a send, as a failover to a standby may.
    pub fn forget(&self, key: &SendKey) {
        let mut inner = self.lock();
        inner.journal.retain(|entry| entry.key != *key);
        inner.sends.remove(key);
    }
}

impl Inner {
    fn run(&self, id: i64) -> Option<&Run> {
        self.runs.get(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    fn run_mut(&mut self, id: i64) -> Option<&mut Run> {
        self.runs.get_mut(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    fn is_over(&self, id: i64) -> bool {
        self.run(id).is_none_or(|run| run.ended.is_some())
    }

    fn numbered(&self) -> impl Iterator<Item = (i64, &Run)> {
        (1..).zip(&self.runs)
    }

    fn head(&self) -> Head {
        self.links.last().map_or_else(|| Head::of_ledger(""), |link| link.head)
    }

    fn write(&mut self, mut entry: JournalEntry) {
        self.last_seq += 1;
        entry.seq = self.last_seq;
        self.journal.push(entry);
    }

    fn contradict(&mut self, found: Contradiction) {
        let same = |other: &Contradiction| {
            (other.run, other.key, other.attempt, other.said, &other.message_id)
                == (found.run, found.key, found.attempt, found.said, &found.message_id)
        };
        if !self.contradictions.iter().any(same) {
            self.contradictions.push(found);
        }
    }

    /// Whether an earlier attempt of a send was accepted, as its run reported too late.
    fn accepted_before(&self, key: &SendKey) -> bool {
        self.contradictions.iter().any(|found| found.key == *key && found.said == SendState::Accepted)
    }

    fn beat(&mut self, run: i64, clock: &dyn Clock) -> bool {
        let (now, wall) = (clock.instant(), clock.now());
        let Some(found) = self.run_mut(run).filter(|found| found.ended.is_none()) else { return false };
        (found.heartbeat, found.heartbeat_at) = (now, wall);
        true
    }

    /// Fences off the runs that were silent for longer than their lease. Whether there were any.
    fn fence_dead(&mut self, campaign: &str, but: i64, clock: &dyn Clock) -> bool {
        let now = clock.now();
        let dead: Vec<i64> = self
            .numbered()
            .filter(|(id, run)| *id != but && run.start.campaign == campaign && run.ended.is_none())
            .filter(|(_, run)| !run.is_heard_of(clock))
            .map(|(id, _)| id)
            .collect();
        for id in &dead {
            if let Some(run) = self.run_mut(*id) {
                run.ended = Some(Ended { at: now, ending: RecordedEnding::Lost, counts: None, digest: None });
            }
        }
        !dead.is_empty()
    }

    /// Records as unknown what runs that are over left open.
    fn abandon(&mut self, campaign: &str, by: i64, now: Timestamp) {
        let open: Vec<(SendKey, u32)> = self
            .sends
            .iter()
            .filter(|(_, row)| row.campaign == campaign && row.last.state == SendState::Intent)
            .filter(|(_, row)| self.is_over(row.last.run))
            .map(|(key, row)| (*key, row.last.attempt))
            .collect();
        for (key, attempt) in open {
            self.write(JournalEntry::of_abandoned(by, now.as_millisecond(), key, attempt));
            self.move_to(&key, SendState::Unknown);
        }
    }

    fn move_to(&mut self, key: &SendKey, state: SendState) {
        if let Some(row) = self.sends.get_mut(key) {
            row.last.state = state;
        }
    }

    fn refuse_another_plan(&self, campaign: &str, plan_hash: &str, clock: &dyn Clock) -> Result<(), LedgerError> {
        let other = self.numbered().find(|(_, run)| {
            run.start.campaign == campaign
                && run.start.plan_hash != plan_hash
                && run.ended.is_none()
                && run.is_heard_of(clock)
        });
        match other {
            Some((id, _)) => Err(LedgerError::Held { holder: format!("run {id} of another plan") }),
            None => Ok(()),
        }
    }

    fn begin(&mut self, start: &RunStart, clock: &dyn Clock) -> Result<(i64, Head), LedgerError> {
        let (now, wall) = (clock.instant(), clock.now());
        self.fence_dead(&start.campaign, 0, clock);
        self.refuse_another_plan(&start.campaign, &start.plan_hash, clock)?;
        let alone = !self.runs.iter().any(|run| run.start.campaign == start.campaign && run.ended.is_none());
        if alone {
            self.chunks.insert(start.campaign.clone(), 0);
        }
        self.senders.entry(start.sender.clone()).or_insert(now);
        let id = self.add_run(start, now, wall);
        self.abandon(&start.campaign, id, wall);
        Ok((id, self.head()))
    }

    fn add_run(&mut self, start: &RunStart, now: Instant, wall: Timestamp) -> i64 {
        self.runs.push(Run {
            start: start.clone(),
            started_at: wall,
            heartbeat: now,
            heartbeat_at: wall,
            after: self.last_seq,
            ended: None,
        });
        let id = self.runs.len() as i64;
        let head = self.head().started(&StartLink {
            run: id,
            campaign: &start.campaign,
            edition: start.edition,
            plan_hash: &start.plan_hash,
            started_at: wall.as_millisecond(),
        });
        self.links.push(Link { head, kind: LinkKind::Start, run: Some(id), detail: None });
        id
    }

    fn commit(
        &mut self,
        id: i64,
        batch: &Batch,
        lost: &mut LostAnswers,
        clock: &dyn Clock,
    ) -> Result<Committed, LedgerError> {
        let fenced = !self.beat(id, clock);
        if fenced && !batch.claim.is_empty() {
            return Err(LedgerError::Fenced(FENCED));
        }
        let at = clock.now().as_millisecond();
        let Some(start) = self.run(id).map(|run| run.start.clone()) else { return Err(LedgerError::Fenced(FENCED)) };
        let mut committed = Committed::default();
        let mut moved = BTreeSet::new();
        let mut others = Vec::new();
        for settlement in &batch.settle {
            let state = settlement.result.state();
            let before = self.sends.get(&settlement.key).map(|row| row.last);
            let open = before.filter(|stand| stand.state == SendState::Intent);
            if protocol::may_settle(open, settlement.attempt, id, state) && moved.insert(settlement.key) {
                self.move_to(&settlement.key, state);
                self.write(JournalEntry::of_settlement(id, at, settlement));
            } else {
                others.push(settlement);
            }
        }
        for intent in &batch.claim {
            let before = self.sends.get(&intent.key).map(|row| row.last);
            let again = before == Some(LastAttempt { state: SendState::Intent, attempt: intent.attempt, run: id })
                && lost.claimed.contains(&(intent.key, intent.attempt));
            if again {
                committed.claims.push(Claim::Granted);
                continue;
            }
            let late = intent.attempt > 1 && self.accepted_before(&intent.key);
            if late || !protocol::may_claim(before, intent.attempt, start.retry_rejected) {
                committed.claims.push(Claim::Held);
                continue;
            }
            let code = intent.coupon.expose();
            if start.unique_codes {
                let owner = *self.codes.entry(code.to_owned()).or_insert(intent.key);
                if owner != intent.key {
                    committed.claims.push(Claim::CodeTaken);
                    continue;
                }
            }
            let last = LastAttempt { state: SendState::Intent, attempt: intent.attempt, run: id };
            let row = Row { campaign: start.campaign.clone(), edition: start.edition, last, coupon: code.to_owned() };
            self.sends.insert(intent.key, row);
            self.write(JournalEntry::of_claim(id, at, intent));
            committed.claims.push(Claim::Granted);
        }
        lost.claimed.clear();
        self.hear(id, at, &others, lost, &mut committed);
        Ok(committed)
    }

    /// Outcomes that do not simply follow from an intent that is open.
    fn hear(&mut self, id: i64, at: i64, others: &[&Settlement], lost: &LostAnswers, committed: &mut Committed) {
        if others.is_empty() {
            return;
        }
        let after = self.run(id).map_or(0, |run| run.after);
        let mut outcomes = LateOutcomes::new(id, at);
        for entry in self.journal.iter().filter(|entry| entry.seq > after) {
            if others.iter().any(|settlement| settlement.key == entry.key) {
                outcomes.add_entry(&JournalStep {
                    key: entry.key,
                    attempt: entry.attempt,
                    state: entry.state(),
                    run: entry.run,
                    source: entry.entry_source(),
                    has_id: entry.message_id().is_some(),
                });
            }
        }
        let doubtful = |settlement: &Settlement| {
            settlement.result.state() == SendState::NotSent
                && lost.doubtful.contains(&(settlement.key, settlement.attempt))
        };
        outcomes.evaluate_all(others.iter().copied(), doubtful, committed);
        for entry in outcomes.entries {
            self.write(entry);
        }
        for (key, state) in outcomes.moved {
            self.move_to(&key, state);
        }
        for found in outcomes.contradictions {
            self.contradict(found);
        }
    }

    fn finish(&mut self, id: i64, ending: RecordedEnding, counts: RunCounts, now: Timestamp) -> Head {
        if self.is_over(id) {
            return self.head();
        }
        let Some(run) = self.run_mut(id) else { return self.head() };
        run.ended = Some(Ended { at: now, ending: ending.clone(), counts: Some(counts), digest: None });
        let campaign = run.start.campaign.clone();
        self.abandon(&campaign, id, now);
        let mut digest = JournalDigest::default();
        self.journal.iter().filter(|entry| entry.run == id).for_each(|entry| digest.add(entry));
        let digest = digest.bytes();
        if let Some(ended) = self.run_mut(id).and_then(|run| run.ended.as_mut()) {
            ended.digest = Some(digest);
        }
        let ending = ending.as_str();
        let head = self.head().ended(&EndLink { run: id, ending, ended_at: now.as_millisecond(), counts, digest });
        self.links.push(Link { head, kind: LinkKind::End, run: Some(id), detail: None });
        head
    }

    fn snapshot(&self, scope: &Scope, clock: &dyn Clock) -> Snapshot {
        let mut sends = SendTable::default();
        let ours = |row: &Row| row.campaign == scope.campaign && row.edition == scope.edition;
        for (key, row) in self.sends.iter().filter(|(_, row)| ours(row)) {
            let LastAttempt { state, attempt, run } = row.last;
            sends.record(*key, state, attempt, Some((run, &row.coupon)));
        }
        for entry in &self.journal {
            if let Some(digest) = entry.intent().and_then(|intent| intent.digest) {
                sends.set_content(&entry.key, content_prefix(&digest));
            }
        }
        for found in self.contradictions.iter().filter(|found| found.said == SendState::Accepted) {
            sends.record_earlier_acceptance(&found.key);
        }
        let planned_at = sends.first_run().and_then(|run| self.run(run)).map(|run| run.start.planned_at);
        let live = self
            .numbered()
            .filter(|(_, run)| run.start.campaign == scope.campaign && run.ended.is_none() && run.is_heard_of(clock))
            .map(|(id, _)| id)
            .collect();
        let spent = self.codes.iter().filter(|(_, key)| !self.sends.get(*key).is_some_and(ours));
        let spent_codes =
            if scope.unique_codes { spent.map(|(code, _)| code.as_str().into()).collect() } else { Vec::new() };
        Snapshot { position: self.last_seq, sends: Arc::new(sends), planned_at, live, spent_codes }
    }

    fn evidence(&mut self, piece: &Evidence, clock: &dyn Clock) -> Finding {
        let before = self.sends.get(&piece.key).map(|row| row.last);
        let live = before
            .and_then(|stand| self.run(stand.run))
            .is_some_and(|run| run.ended.is_none() && run.is_heard_of(clock));
        let finding = protocol::evaluate(before, live, piece.attempt, piece.resolution);
        if let (Finding::Settled, Some(stand)) = (finding, before) {
            let at = clock.now().as_millisecond();
            if stand.state == SendState::Intent {
                self.write(JournalEntry::of_abandoned(stand.run, at, piece.key, stand.attempt));
            }
            self.write(JournalEntry::of_evidence(stand, at, piece));
            self.move_to(&piece.key, piece.resolution.state());
        }
        finding
    }

    fn restore(&mut self, send: &LostSend, clock: &dyn Clock) -> Finding {
        let wall = clock.now();
        let of_edition = |run: &Run| run.start.campaign == send.campaign && run.start.edition == send.edition;
        let found = self.run(send.run).filter(|run| of_edition(run)).map(|_| send.run);
        let last = || self.numbered().filter(|(_, run)| of_edition(run)).map(|(id, _)| id).last();
        let id = found.or_else(last).unwrap_or_else(|| {
            let start = RunStart {
                campaign: send.campaign.clone(),
                edition: send.edition,
                name: send.campaign.clone(),
                manifest: String::new(),
                destination: String::new(),
                account: None,
                environment: None,
                plan_hash: String::new(),
                planned_at: send.planned_at,
                unique_codes: send.unique_code,
                recipients: 0,
                sender: String::new(),
                interval: Duration::ZERO,
                retry_rejected: false,
                lease: Duration::ZERO,
                longest_request: Duration::ZERO,
                host: String::new(),
                actor: send.actor.clone(),
            };
            let id = self.add_run(&start, clock.instant(), wall);
            if let Some(run) = self.run_mut(id) {
                run.ended = Some(Ended { at: wall, ending: RecordedEnding::Restored, counts: None, digest: None });
            }
            id
        });
        let key = send.intent.key;
        let before = self.sends.get(&key).map(|row| row.last);
        let (finding, repair) = send.repair(before, id, wall.as_millisecond());
        let coupon = send.intent.coupon.expose().to_owned();
        if send.unique_code {
            self.codes.entry(coupon.clone()).or_insert(key);
        }
        if let Some(last) = repair.last {
            let row = Row { campaign: send.campaign.clone(), edition: send.edition, last, coupon };
            self.sends.entry(key).and_modify(|row| row.last = last).or_insert(row);
        }
        repair.entries.into_iter().for_each(|entry| self.write(entry));
        if let Some(found) = repair.contradiction {
            self.contradict(found);
        }
        finding
    }
}

impl Run {
    fn is_heard_of(&self, clock: &dyn Clock) -> bool {
        clock.instant().saturating_duration_since(self.heartbeat) <= self.start.lease
    }

    fn record(&self, id: i64, clock: &dyn Clock) -> RunRecord {
        let RunStart { campaign, name, plan_hash, manifest, destination, sender, .. } = self.start.clone();
        let ended = self.ended.as_ref();
        RunRecord {
            id,
            campaign,
            edition: self.start.edition,
            name,
            plan_hash,
            planned_at: self.start.planned_at,
            recipients: self.start.recipients,
            manifest: Some(manifest),
            destination: Some(destination),
            account: self.start.account.clone(),
            sender: Some(sender),
            environment: self.start.environment.clone(),
            longest_request: Some(self.start.longest_request),
            lease: self.start.lease,
            silent: clock.instant().saturating_duration_since(self.heartbeat),
            host: self.start.host.clone(),
            actor: self.start.actor.clone(),
            pid: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            heartbeat_at: Some(self.heartbeat_at),
            ended_at: ended.map(|ended| ended.at),
            ending: ended.map(|ended| ended.ending.clone()),
            counts: ended.and_then(|ended| ended.counts),
            live: ended.is_none() && self.is_heard_of(clock),
            digest: ended.and_then(|ended| ended.digest),
        }
    }
}

/// The record, opened.
struct MemoryLedger(MemoryStore);

#[async_trait]
impl Ledger for MemoryLedger {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    async fn snapshot(&mut self, scope: &Scope) -> Result<Snapshot, LedgerError> {
        Ok(self.0.snapshot(scope))
    }

    async fn runs(&mut self) -> Result<Vec<RunRecord>, LedgerError> {
        let clock = self.0.clock.as_ref();
        Ok(self.0.lock().numbered().map(|(id, run)| run.record(id, clock)).collect())
    }

    async fn journal(
        &mut self,
        campaign: Option<&str>,
        visit: &mut (dyn FnMut(JournalEntry) + Send),
    ) -> Result<(), LedgerError> {
        let inner = self.0.lock();
        let wanted = |entry: &&JournalEntry| {
            campaign.is_none_or(|name| inner.run(entry.run).is_some_and(|run| run.start.campaign == name))
        };
        inner.journal.iter().filter(wanted).cloned().for_each(visit);
        Ok(())
    }

    async fn similarity_digests(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(i64, i64) + Send),
    ) -> Result<(), LedgerError> {
        let inner = self.0.lock();
        for entry in inner.journal.iter().filter(|entry| runs.contains(&entry.run)) {
            if let Some(digest) = entry.intent().and_then(|intent| intent.similarity_digest) {
                visit(entry.run, digest);
            }
        }
        Ok(())
    }

    async fn transitions(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(Transition) + Send),
    ) -> Result<(), LedgerError> {
        let inner = self.0.lock();
        for entry in inner.journal.iter().filter(|entry| runs.contains(&entry.run)) {
            visit(Transition {
                run: entry.run,
                key: entry.key,
                state: entry.state(),
                similarity_digest: entry.intent().and_then(|intent| intent.similarity_digest),
            });
        }
        Ok(())
    }

    async fn chain(&mut self) -> Result<Vec<Link>, LedgerError> {
        Ok(self.0.lock().links.clone())
    }

    async fn verify_storage(&mut self) -> Result<Vec<String>, LedgerError> {
        Ok(Vec::new())
    }

    async fn contradictions(&mut self) -> Result<Vec<Contradiction>, LedgerError> {
        Ok(self.0.lock().contradictions.clone())
    }

    async fn record_evidence(&mut self, evidence: &[Evidence]) -> Result<Vec<Finding>, LedgerError> {
        let mut inner = self.0.lock();
        Ok(evidence.iter().map(|piece| inner.evidence(piece, self.0.clock.as_ref())).collect())
    }

    async fn restore_sends(&mut self, lost: &[LostSend]) -> Result<Vec<Finding>, LedgerError> {
        let mut inner = self.0.lock();
        Ok(lost.iter().map(|send| inner.restore(send, self.0.clock.as_ref())).collect())
    }

    async fn property(&mut self, name: &str) -> Result<Option<String>, LedgerError> {
        Ok(self.0.lock().properties.get(name).cloned())
    }

    async fn set_property(&mut self, name: &str, value: Option<&str>) -> Result<(), LedgerError> {
        let mut inner = self.0.lock();
        match value {
            Some(value) => drop(inner.properties.insert(name.to_owned(), value.to_owned())),
            None => drop(inner.properties.remove(name)),
        }
        Ok(())
    }

    async fn check_can_begin(&mut self, campaign: &str, plan_hash: &str) -> Result<(), LedgerError> {
        self.0.lock().refuse_another_plan(campaign, plan_hash, self.0.clock.as_ref())
    }

    async fn lease_holders(&mut self) -> Result<Vec<LeaseHolder>, LedgerError> {
        let clock = self.0.clock.as_ref();
        let inner = self.0.lock();
        let live = inner.numbered().filter(|(_, run)| run.ended.is_none() && run.is_heard_of(clock));
        let holder = |(id, run): (i64, &Run)| LeaseHolder {
            run: Some(id),
            description: format!("run {id} of {}", run.start.name),
            can_be_unlocked: true,
        };
        Ok(live.map(holder).collect())
    }

    async fn unlock(&mut self, run: i64) -> Result<bool, LedgerError> {
        Ok(self.0.unlock(run))
    }

    async fn begin(self: Box<Self>, start: &RunStart, _snapshot: &Snapshot) -> Result<Box<dyn RunLedger>, LedgerError> {
        Ok(Box::new(self.0.begin(start)?))
    }
}

/// A run on the record.
pub struct MemoryRun {
    store: MemoryStore,
    run: i64,
    head: Head,
    start: RunStart,
    lease: Lease,
    /// Commits whose answer was lost, where a simulation loses some.
    pub lost: LostAnswers,
}

#[async_trait]
impl RunLedger for MemoryRun {
    fn id(&self) -> i64 {
        self.run
    }

    fn head(&self) -> Head {
        self.head
    }

    async fn commit(&mut self, batch: &Arc<Batch>) -> Result<Committed, LedgerError> {
        let asked = Moment::of(self.store.clock.as_ref());
        let committed = self.store.commit(self.run, batch, &mut self.lost)?;
        if !self.store.lock().is_over(self.run) {
            self.lease.confirmed(asked);
        }
        Ok(committed)
    }

    fn lease(&self) -> Option<Lease> {
        Some(self.lease.clone())
    }

    fn coordinator(&self) -> Option<Arc<dyn Coordinator>> {
        let (store, lease) = (self.store.clone(), self.lease.clone());
        Some(Arc::new(MemoryCoordinator { store, run: self.run, start: self.start.clone(), lease }))
    }

    async fn snapshot(&mut self) -> Result<Snapshot, LedgerError> {
        let RunStart { campaign, edition, unique_codes, .. } = self.start.clone();
        Ok(self.store.snapshot(&Scope { campaign, edition, unique_codes }))
    }

    async fn finish(self: Box<Self>, ending: RecordedEnding, counts: RunCounts) -> Result<Head, LedgerError> {
        Ok(self.store.finish(self.run, ending, counts))
    }
}

/// What appliers share.
struct MemoryCoordinator {
    store: MemoryStore,
    run: i64,
    start: RunStart,
    lease: Lease,
}

#[async_trait]
impl Coordinator for MemoryCoordinator {
    async fn reserve(&self, messages: u32, most: u32) -> Result<Duration, LedgerError> {
        let now = self.store.clock.instant();
        let mut inner = self.store.lock();
        let live = inner
            .runs
            .iter()
            .filter(|run| run.start.sender == self.start.sender && run.ended.is_none())
            .filter(|run| run.is_heard_of(self.store.clock.as_ref()))
            .count();
        // An applier uses one slot and has the next one reserved.
        let of_one = self.start.interval * most * 2;
        let believed = now + MAX_SENDER_PAUSE + of_one * u32::try_from(live).unwrap_or(u32::MAX);
        let next = inner.senders.entry(self.start.sender.clone()).or_insert(now);
        let from = if *next > believed { now + MAX_SENDER_PAUSE } else { (*next).max(now) };
        *next = from + self.start.interval * messages;
        Ok(from - now)
    }

    async fn pause_sender(&self, pause: Duration) -> Result<(), LedgerError> {
        let until = self.store.clock.instant() + pause;
        let mut inner = self.store.lock();
        let next = inner.senders.entry(self.start.sender.clone()).or_insert(until);
        *next = (*next).max(until);
        Ok(())
    }

    async fn next_chunk(&self) -> Result<u64, LedgerError> {
        let mut inner = self.store.lock();
        let next = inner.chunks.entry(self.start.campaign.clone()).or_default();
        *next += 1;
        Ok(*next - 1)
    }

    async fn activity(&self) -> Result<Activity, LedgerError> {
        let asked = Moment::of(self.store.clock.as_ref());
        if self.store.beat(self.run) {
            self.lease.confirmed(asked);
        }
        let inner = self.store.lock();
        let others: Vec<i64> = inner
            .numbered()
            .filter(|(id, run)| *id != self.run && run.start.campaign == self.start.campaign && run.ended.is_none())
            .map(|(id, _)| id)
            .collect();
        let open = inner
            .sends
            .values()
            .filter(|row| row.last.state == SendState::Intent && others.contains(&row.last.run))
            .count();
        Ok(Activity { appliers: others.len() as u64, open: open as u64 })
    }
}
