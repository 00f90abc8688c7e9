//! A run on the database: its commits and its end.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::begin::{Beginning, abandon};
use super::connection::{Connection, QUERY_TIMEOUT};
use super::coordinator::{Shared, send_heartbeats};
use super::late_outcomes::{self, Reporting};
use super::rows::{read_attempt, read_entry, read_head};
use super::statements::{
    ASSERT_NOT_FENCED, COUNT_OPEN, ClaimParameters, LOCK_SENDS, OWN_CLAIMS, OWN_ENTRIES, SettleParameters,
};
use super::{BEGIN_DURABLE, PAGE_LEN, schema, snapshot};
use crate::domain::clock::Clock;
use crate::domain::lease::{Lease, Moment};
use crate::domain::send::{AttemptResult, Intent, SendKey, Settlement};
use crate::ledger::chain::{JournalDigest, LinkKind};
use crate::ledger::contract::{Batch, Claim, Committed, Coordinator, RunLedger, Scope, Snapshot, StateCounts};
use crate::ledger::error::LedgerError;
use crate::ledger::head::{EndLink, Head};
use crate::ledger::record::{JournalEntry, RecordedEnding, RunCounts, RunStart};

/// How often recording the end of a run is tried again after a lost answer.
const MAX_FINISH_RETRIES: u32 = 3;

const FENCED: &str = "it was silent for longer than its lease, so another applier fenced it off";

/// The writing end of a run.
pub struct PostgresRun {
    connection: Connection,
    shared: Arc<Shared>,
    heart: tokio::task::JoinHandle<()>,
    head: Head,
    scope: Scope,
    retry_rejected: bool,
    /// Each of this run's attempts began after this entry of the journal.
    after: i64,
    warnings: Vec<String>,
    /// The connection of the commit before: how many connections were made until then, and when the server started.
    server: (u64, Option<f64>),
    /// The last commit, if its answer was lost.
    lost: Option<LostCommit>,
    /// The claims of commits whose answers were lost: they may not be recorded.
    doubtful: HashSet<(SendKey, u32)>,
}

/// A commit whose answer was lost.
struct LostCommit {
    at: i64,
    claimed: HashSet<(SendKey, u32)>,
}

impl PostgresRun {
    pub(super) fn new(
        connection: Connection,
        clock: Arc<dyn Clock>,
        start: &RunStart,
        asked: Moment,
        begun: Beginning,
    ) -> Self {
        let Beginning { run, campaign, head, after, warnings } = begun;
        let server = (connection.made, None);
        let shared = Arc::new(Shared {
            connection: tokio::sync::Mutex::new(Connection::new(connection.target.clone())),
            clock: Arc::clone(&clock),
            run,
            campaign,
            sender: start.sender.clone(),
            interval: start.interval,
            open: AtomicU64::new(0),
            digest: Mutex::new(JournalDigest::default()),
            lease: Lease::by(clock, start.lease.mul_f32(0.8), asked),
            certain: AtomicBool::new(true),
        });
        let every = start.lease / 5;
        let own = Connection::with_shorter_timeout(connection.target.clone(), every);
        let heart = tokio::spawn(send_heartbeats(Arc::clone(&shared), own, every));
        Self {
            connection,
            shared,
            heart,
            head,
            scope: Scope { campaign: start.campaign.clone(), edition: start.edition, unique_codes: start.unique_codes },
            retry_rejected: start.retry_rejected,
            after,
            warnings,
            server,
            lost: None,
            doubtful: HashSet::new(),
        }
    }

    async fn try_commit(&mut self, batch: &Batch, at: i64) -> Result<Committed, LedgerError> {
        let asked = Moment::of(self.shared.clock.as_ref());
        let run = self.shared.run;
        // The figures are uncertain until the answer is here; if it never comes, they stay so.
        let was_certain = self.shared.certain.swap(false, Ordering::SeqCst);
        let settle = SettleParameters::of(batch);
        let claim = ClaimParameters::of(batch);
        // The number if everything is granted, so that nobody considers this run idle.
        let open = self.shared.open.load(Ordering::SeqCst) + batch.claim.len() as u64;
        let open = open.saturating_sub(batch.settle.len() as u64).cast_signed();
        let (campaign, edition) = (self.shared.campaign, self.scope.edition.cast_signed());
        let (unique_codes, retry_rejected) = (self.scope.unique_codes, self.retry_rejected);
        let target = self.connection.target.clone();
        let client = self.connection.client().await?;
        let mut keys: Vec<&[u8]> = settle.keys.iter().chain(&claim.keys).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        let lock: [(&(dyn ToSql + Sync), Type); 1] = [(&keys, Type::BYTEA_ARRAY)];
        // Everything is sent at once: one round trip.
        let alive: [(&(dyn ToSql + Sync), Type); 2] = [(&run, Type::INT8), (&open, Type::INT8)];
        let work = async {
            tokio::join!(
                biased;
                client.batch_execute(BEGIN_DURABLE),
                client.query_typed(ASSERT_NOT_FENCED, &alive),
                client.execute_typed(LOCK_SENDS, &lock),
                settle.run(client, run, at),
                claim.run(client, run, at, campaign, edition, unique_codes, retry_rejected),
                client.batch_execute("COMMIT"),
            )
        };
        let answered = tokio::time::timeout(QUERY_TIMEOUT, work).await;
        let answers = match answered {
            Ok((Ok(()), Ok(alive), Ok(_), Ok(settled), Ok(claimed), Ok(()))) => Ok((alive, settled, claimed)),
            Ok((begin, alive, lock, settled, claimed, commit)) => {
                let problem = [begin.err(), alive.err(), lock.err(), settled.err(), claimed.err(), commit.err()]
                    .into_iter()
                    .flatten()
                    .next();
                Err(problem.map_or_else(|| target.lost("no answer"), |problem| target.failed("written", problem)))
            }
            Err(_) => Err(target.lost(format!("no answer within {} seconds", QUERY_TIMEOUT.as_secs()))),
        };
        let (alive, settled, claimed) = match answers {
            Ok(answers) => answers,
            Err(error) => {
                self.connection.forget();
                return Err(error);
            }
        };
        if !alive.is_empty() {
            self.shared.lease.confirmed(asked);
        }
        let decode = |error| target.failed("written", error);
        let settled = settled.iter().map(read_settled).collect::<Result<HashSet<_>, _>>().map_err(decode)?;
        let (mut granted, mut taken) = (HashSet::new(), HashSet::new());
        for row in &claimed {
            let key: SendKey = row.try_get("send_key").map_err(decode)?;
            if row.try_get("granted").map_err(decode)? {
                granted.insert(key);
            }
            if row.try_get("code_taken").map_err(decode)? {
                taken.insert(key);
            }
        }
        if let Some(lost) = &self.lost {
            // What an earlier attempt of this commit has done counts.
            let ours = |intent: &&Intent| lost.claimed.contains(&(intent.key, intent.attempt));
            let doubtful: Vec<_> = batch.claim.iter().filter(ours).collect();
            if !alive.is_empty() && !doubtful.is_empty() {
                let keys: Vec<&[u8]> = doubtful.iter().map(|intent| &intent.key.0[..]).collect();
                let attempts: Vec<i32> = doubtful.iter().map(|intent| intent.attempt.cast_signed()).collect();
                let held: Vec<SendKey> = self
                    .connection
                    .with("read", async |client| {
                        let rows = client
                            .query_typed(
                                &OWN_CLAIMS,
                                &[(&run, Type::INT8), (&keys, Type::BYTEA_ARRAY), (&attempts, Type::INT4_ARRAY)],
                            )
                            .await?;
                        rows.iter().map(|row| row.try_get("send_key")).collect()
                    })
                    .await?;
                granted.extend(held);
            }
        }
        self.count(batch, at, &settled, &granted);
        if self.lost.take().is_none() {
            self.shared.certain.store(was_certain, Ordering::SeqCst);
        } else {
            self.recount().await?;
        }
        let made = self.connection.made;
        let started: Option<f64> =
            alive.first().map(|row| row.try_get("server_started")).transpose().map_err(decode)?;
        let (made_before, started_before) = self.server;
        let other_server = started_before.is_some() && started.is_some() && started != started_before;
        let mut committed = Committed { reconnected: made != made_before || other_server, ..Committed::default() };
        self.server = (made, started.or(started_before));
        if committed.reconnected {
            // What was counted may be gone, and is committed again.
            self.shared.certain.store(false, Ordering::SeqCst);
            self.recount().await?;
        }
        let mut seen = HashSet::new();
        let others: Vec<&Settlement> = batch
            .settle
            .iter()
            .filter(|settlement| {
                !(seen.insert(settlement.key) && settled.contains(&(settlement.key, settlement.attempt)))
            })
            .collect();
        if !others.is_empty() {
            self.record_late(&others, at, &mut committed).await?;
        }
        if alive.is_empty() && !batch.claim.is_empty() {
            return Err(LedgerError::Fenced(FENCED));
        }
        let answers = batch.claim.iter().map(|intent| {
            if granted.contains(&intent.key) {
                Claim::Granted
            } else if taken.contains(&intent.key) {
                Claim::CodeTaken
            } else {
                Claim::Held
            }
        });
        committed.claims = answers.collect();
        Ok(committed)
    }

    /// Records outcomes that do not simply follow from an open intent.
    async fn record_late(
        &mut self,
        others: &[&Settlement],
        at: i64,
        committed: &mut Committed,
    ) -> Result<(), LedgerError> {
        let reporting = Reporting { run: self.shared.run, at, after: self.after };
        // What this writes is not counted here, so the database is queried in the end.
        self.shared.certain.store(false, Ordering::SeqCst);
        let doubtful = &self.doubtful;
        let may_be_unclaimed = |settlement: &Settlement| {
            matches!(settlement.result, AttemptResult::NotSent { .. })
                && doubtful.contains(&(settlement.key, settlement.attempt))
        };
        // The timeout applies to each transaction: after a lost connection there may be very many outcomes, and each
        // transaction reads a long journal.
        for some in others.chunks(late_outcomes::CHUNK_LEN) {
            let (unclaimed, committed) = (&may_be_unclaimed, &mut *committed);
            self.connection
                .with("written", async |client| {
                    late_outcomes::record(client, reporting, some, unclaimed, committed).await
                })
                .await?;
        }
        self.recount().await
    }

    /// Updates the figures with what is durable now.
    fn count(&self, batch: &Batch, at: i64, settled: &HashSet<(SendKey, u32)>, granted: &HashSet<SendKey>) {
        let mut digest = self.shared.digest.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = batch.settle.iter().filter(|settlement| settled.contains(&(settlement.key, settlement.attempt)));
        moved.for_each(|settlement| digest.add(&JournalEntry::of_settlement(self.shared.run, at, settlement)));
        let claimed = batch.claim.iter().filter(|intent| granted.contains(&intent.key));
        claimed.for_each(|intent| digest.add(&JournalEntry::of_claim(self.shared.run, at, intent)));
        let open = self.shared.open.load(Ordering::SeqCst) + granted.len() as u64;
        self.shared.open.store(open.saturating_sub(settled.len() as u64), Ordering::SeqCst);
    }

    /// Reads the number of open attempts from the database, because after a lost answer this process does not know it.
    async fn recount(&mut self) -> Result<(), LedgerError> {
        let run = self.shared.run;
        let open: i64 = self
            .connection
            .with("read", async |client| {
                client.query_typed_one(&COUNT_OPEN, &[(&run, Type::INT8)]).await?.try_get("open")
            })
            .await?;
        self.shared.open.store(open.cast_unsigned(), Ordering::SeqCst);
        Ok(())
    }
}

#[async_trait]
impl RunLedger for PostgresRun {
    fn id(&self) -> i64 {
        self.shared.run
    }

    fn head(&self) -> Head {
        self.head
    }

    async fn commit(&mut self, batch: &Arc<Batch>) -> Result<Committed, LedgerError> {
        // All attempts to commit a batch carry the same time, whichever of them the database recorded.
        let at = self.lost.as_ref().map_or_else(|| self.shared.clock.now().as_millisecond(), |lost| lost.at);
        let result = self.try_commit(batch, at).await;
        if let Err(LedgerError::Lost { .. }) = &result {
            let lost = self.lost.get_or_insert_with(|| LostCommit { at, claimed: HashSet::new() });
            lost.claimed.extend(batch.claim.iter().map(|intent| (intent.key, intent.attempt)));
            self.doubtful.extend(batch.claim.iter().map(|intent| (intent.key, intent.attempt)));
        }
        result
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn lease(&self) -> Option<Lease> {
        Some(self.shared.lease.clone())
    }

    fn coordinator(&self) -> Option<Arc<dyn Coordinator>> {
        Some(Arc::clone(&self.shared) as Arc<dyn Coordinator>)
    }

    async fn snapshot(&mut self) -> Result<Snapshot, LedgerError> {
        let snapshot = snapshot::read(&mut self.connection, &self.scope).await;
        if snapshot.is_err() {
            self.connection.forget();
        }
        snapshot
    }

    async fn count_by_state(&mut self) -> Result<StateCounts, LedgerError> {
        let (campaign, edition) = (self.shared.campaign, self.scope.edition);
        self.connection.with("read", async |client| snapshot::count_by_state(client, campaign, edition).await).await
    }

    async fn finish(mut self: Box<Self>, ending: RecordedEnding, counts: RunCounts) -> Result<Head, LedgerError> {
        let mut retries = 0;
        loop {
            let shared = Arc::clone(&self.shared);
            let finished = self
                .connection
                .with("written", async |client| finish(client, &shared, ending.as_str(), counts).await)
                .await;
            match finished {
                Err(LedgerError::Lost { .. }) if retries < MAX_FINISH_RETRIES => {
                    retries += 1;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                other => return other,
            }
        }
    }
}

impl Drop for PostgresRun {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

async fn finish(
    client: &Client,
    shared: &Shared,
    ending: &str,
    counts: RunCounts,
) -> Result<Head, tokio_postgres::Error> {
    client.batch_execute(BEGIN_DURABLE).await?;
    let ended_at = shared.clock.now().as_millisecond();
    let ended = client
        .execute_typed(
            "UPDATE sendform.run SET ended_at = $2, ending = $3, open = 0, heartbeat_at = clock_timestamp(),
                    accepted = $4, rejected = $5, unknown = $6, not_sent = $7
             WHERE id = $1 AND ended_at IS NULL",
            &[
                (&shared.run, Type::INT8),
                (&ended_at, Type::INT8),
                (&ending, Type::TEXT),
                (&counts.accepted.cast_signed(), Type::INT8),
                (&counts.rejected.cast_signed(), Type::INT8),
                (&counts.unknown.cast_signed(), Type::INT8),
                (&counts.not_sent.cast_signed(), Type::INT8),
            ],
        )
        .await?;
    if ended == 0 {
        // The run was fenced off, or an earlier attempt recorded its end.
        client.batch_execute("ROLLBACK").await?;
        let row =
            client.query_typed_one("SELECT number, hash FROM sendform.link ORDER BY number DESC LIMIT 1", &[]).await?;
        return read_head(&row);
    }
    abandon(client, shared.campaign, shared.run, ended_at).await?;
    let digest = if shared.certain.load(Ordering::SeqCst) {
        shared.digest.lock().unwrap_or_else(PoisonError::into_inner).bytes()
    } else {
        digest_of(client, shared.run).await?.bytes()
    };
    let head =
        schema::head_for_update(client).await?.ended(&EndLink { run: shared.run, ending, ended_at, counts, digest });
    schema::add_link(client, head, LinkKind::End, Some(shared.run), None).await?;
    client
        .execute_typed(
            "UPDATE sendform.run SET digest = $2 WHERE id = $1",
            &[(&shared.run, Type::INT8), (&&digest[..], Type::BYTEA)],
        )
        .await?;
    client.batch_execute("COMMIT").await?;
    Ok(head)
}

/// Computes the digest of a run's part of the journal from the database.
async fn digest_of(client: &Client, run: i64) -> Result<JournalDigest, tokio_postgres::Error> {
    let mut digest = JournalDigest::default();
    let mut after = i64::MIN;
    loop {
        let page = client
            .query_typed(&OWN_ENTRIES, &[(&run, Type::INT8), (&after, Type::INT8), (&PAGE_LEN, Type::INT8)])
            .await?;
        if page.is_empty() {
            return Ok(digest);
        }
        for row in &page {
            let entry = read_entry(row)?;
            after = entry.seq;
            digest.add(&entry);
        }
    }
}

fn read_settled(row: &Row) -> Result<(SendKey, u32), tokio_postgres::Error> {
    Ok((row.try_get("send_key")?, read_attempt(row, "attempt")?))
}
