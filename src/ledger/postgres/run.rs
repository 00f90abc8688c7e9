//! A run on the database: commits, the heartbeat, and what appliers share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::super::chain::{EndLink, JournalDigest, LinkKind};
use super::super::state_code;
use super::super::{
    Activity, Batch, Claim, Committed, Coordinator, Entry, Head, Lease, LedgerError, MAX_SENDER_PAUSE, Moment,
    RunCounts, RunLedger, RunStart, Scope, SendKey, Settlement, Snapshot,
};
use super::connection::{Connection, PATIENCE};
use super::contradiction::{self, Reporting};
use super::{Beginning, DURABLE, abandon, fence_dead, head_of, key_of, schema};

const FENCED: &str = "it was silent for longer than its lease, so others took it for dead";

/// Proves that the run was not fenced off, and refreshes its heartbeat. Takes the run's row, so
/// that whoever would fence it off waits for this transaction, and sees its intents.
const GATE: &str = "UPDATE sendform.run SET heartbeat_at = clock_timestamp(), open = $2
                    WHERE id = $1 AND ended_at IS NULL
                    RETURNING id, extract(epoch FROM pg_postmaster_start_time())::double precision";

/// Says that the run is alive.
const BEAT: &str = "UPDATE sendform.run SET heartbeat_at = clock_timestamp() WHERE id = $1 AND ended_at IS NULL";

/// What a run wrote itself, as [`super::entry_of`] reads it.
const OWN_ENTRIES: &str = "
SELECT seq, run, at, kind, send_key, attempt, digest, likeness, address, coupon, expires, message_id, reason, source, actor
FROM sendform.journal WHERE run = $1 AND source IS NULL AND seq > $2 ORDER BY seq LIMIT $3";

/// Locks what the commit touches and is there already, in one order for all appliers.
const LOCK: &str = "SELECT 1 FROM sendform.send WHERE send_key = ANY($1) ORDER BY send_key FOR UPDATE";

/// See [`crate::ledger::protocol::may_settle`]. What it does not move is heard one by one.
const SETTLE: &str = "
WITH s AS (
  SELECT * FROM unnest($2::bytea[], $3::int[], $4::smallint[], $5::text[], $6::text[]) AS s (send_key, attempt, kind, message_id, reason)
), moved AS (
  UPDATE sendform.send t SET state = s.kind FROM s
  WHERE t.send_key = s.send_key AND t.attempt = s.attempt AND t.run = $1
    AND t.state IN (1, 4) AND t.state <> s.kind
  RETURNING s.*
), written AS (
  INSERT INTO sendform.journal (run, at, kind, send_key, attempt, message_id, reason)
  SELECT $1, $7, kind, send_key, attempt, message_id, reason FROM moved
)
SELECT send_key, attempt FROM moved";

/// See [`crate::ledger::protocol::may_claim`]. `again` marks what an earlier try, whose answer was
/// lost, may have claimed for this run.
const CLAIM: &str = "
WITH c AS (
  SELECT * FROM unnest($2::bytea[], $3::int[], $4::bytea[], $5::bigint[], $6::text[], $7::text[], $8::bigint[])
    AS c (send_key, attempt, digest, likeness, address, coupon, expires)
  WHERE EXISTS (SELECT 1 FROM sendform.run WHERE id = $1 AND ended_at IS NULL)
), code AS (
  INSERT INTO sendform.code AS t (code, send_key) SELECT coupon, send_key FROM c WHERE $9 ORDER BY coupon
  ON CONFLICT (code) DO UPDATE SET send_key = t.send_key RETURNING t.code, t.send_key
), free AS (
  SELECT c.* FROM c
  WHERE NOT $9 OR EXISTS (SELECT 1 FROM code WHERE code.code = c.coupon AND code.send_key = c.send_key)
    -- Older versions gave one code to people of two editions; each of them keeps it.
    OR EXISTS (SELECT 1 FROM sendform.send o WHERE o.send_key = c.send_key AND o.coupon = c.coupon)
), granted AS (
  INSERT INTO sendform.send AS t (send_key, campaign, edition, run, attempt, state, coupon)
  SELECT send_key, $10, $11, $1, attempt, 1, coupon FROM free
  WHERE attempt = 1 OR EXISTS (SELECT 1 FROM sendform.send o WHERE o.send_key = free.send_key)
  ORDER BY send_key
  ON CONFLICT (send_key) DO UPDATE SET run = excluded.run, attempt = excluded.attempt, state = 1
    WHERE t.attempt = excluded.attempt - 1 AND (t.state = 5 OR t.state = 3 AND $12)
      -- The message of an earlier attempt was accepted after all.
      AND NOT EXISTS (SELECT 1 FROM sendform.contradiction x WHERE x.send_key = excluded.send_key AND x.kind = 2)
  RETURNING t.send_key
), written AS (
  INSERT INTO sendform.journal (run, at, kind, send_key, attempt, digest, likeness, address, coupon, expires)
  SELECT $1, $13, 1, send_key, attempt, digest, likeness, address, coupon, expires FROM free
  WHERE send_key IN (SELECT send_key FROM granted)
)
SELECT c.send_key, c.send_key IN (SELECT send_key FROM granted), c.send_key NOT IN (SELECT send_key FROM free) FROM c";

/// What this run holds already of what it asks for.
const MINE: &str = "SELECT t.send_key FROM sendform.send t
                    JOIN unnest($2::bytea[], $3::int[]) AS c (send_key, attempt) ON t.send_key = c.send_key
                    WHERE t.run = $1 AND t.attempt = c.attempt AND t.state = 1";

/// Reserves time of a sender number. Where its record lies further ahead than the longest hold ($3)
/// and what its live appliers can have reserved ($4 each), only the hold is believed.
const RESERVE: &str = "
WITH live AS (
  SELECT count(*) AS appliers FROM sendform.run
  WHERE sender = $1 AND ended_at IS NULL AND heartbeat_at >= clock_timestamp() - lease_ms * interval '1 millisecond'
)
UPDATE sendform.number SET next_at = $2 * interval '1 second' + greatest(
  clock_timestamp(),
  CASE WHEN next_at > clock_timestamp() + ($3 + $4 * live.appliers) * interval '1 second'
       THEN clock_timestamp() + $3 * interval '1 second' ELSE next_at END)
FROM live WHERE sender = $1
RETURNING extract(epoch FROM next_at - $2 * interval '1 second' - clock_timestamp())::double precision";

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
    /// Which connection to which server the commit before went through: how many were made, and when
    /// the server started.
    server: (u64, Option<f64>),
    /// The batch that was offered last, if its answer was lost.
    lost: Option<Lost>,
    /// Everything that was claimed by a commit whose answer was lost: it may not be recorded.
    doubtful: HashSet<(SendKey, u32)>,
}

struct Lost {
    at: i64,
    claimed: HashSet<(SendKey, u32)>,
}

/// What the commits and the heartbeat share. The heartbeat has a connection of its own, so that it
/// does not wait for a commit.
struct Shared {
    connection: tokio::sync::Mutex<Connection>,
    run: i64,
    campaign: i32,
    sender: String,
    interval: Duration,
    /// Intents without a durable outcome.
    open: AtomicU64,
    digest: Mutex<JournalDigest>,
    /// Commits and heartbeats keep it. What leaves within most of the lease leaves before anybody may
    /// call its outcome unknown.
    lease: Lease,
    /// Whether `open` and `digest` are as the database has it. Once an answer was lost they are not:
    /// then the database is asked.
    certain: AtomicBool,
}

impl PostgresRun {
    pub(super) fn new(connection: Connection, start: &RunStart, asked: Moment, begun: Beginning) -> Self {
        let Beginning { run, campaign, head, after, warnings } = begun;
        let server = (connection.made, None);
        let shared = Arc::new(Shared {
            connection: tokio::sync::Mutex::new(Connection::new(connection.target.clone())),
            run,
            campaign,
            sender: start.sender.clone(),
            interval: start.interval,
            open: AtomicU64::new(0),
            digest: Mutex::new(JournalDigest::default()),
            lease: Lease::new(start.lease.mul_f32(0.8), asked),
            certain: AtomicBool::new(true),
        });
        let every = start.lease / 5;
        // A connection of its own: nothing that others wait for holds the heartbeat up.
        let own = Connection::with_patience(connection.target.clone(), every);
        let heart = tokio::spawn(beat(Arc::clone(&shared), own, every));
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

    async fn offer(&mut self, batch: &Batch, at: i64) -> Result<Committed, LedgerError> {
        let asked = Moment::now();
        let run = self.shared.run;
        // Until the answer is here; if it never comes, for ever.
        let was_certain = self.shared.certain.swap(false, Ordering::SeqCst);
        let settle = Settle::of(batch);
        let claim = Claims::of(batch);
        // As many as there are if everything is granted, so that nobody takes this run for idle.
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
        // All of it leaves in one go: one way to the database and back.
        let gate: [(&(dyn ToSql + Sync), Type); 2] = [(&run, Type::INT8), (&open, Type::INT8)];
        let work = async {
            tokio::join!(
                biased;
                client.batch_execute(DURABLE),
                client.query_typed(GATE, &gate),
                client.execute_typed(LOCK, &lock),
                settle.run(client, run, at),
                claim.run(client, run, at, campaign, edition, unique_codes, retry_rejected),
                client.batch_execute("COMMIT"),
            )
        };
        let answered = tokio::time::timeout(PATIENCE, work).await;
        let answers = match answered {
            Ok((Ok(()), Ok(gate), Ok(_), Ok(settled), Ok(claimed), Ok(()))) => Ok((gate, settled, claimed)),
            Ok((begin, gate, lock, settled, claimed, commit)) => {
                let problem = [begin.err(), gate.err(), lock.err(), settled.err(), claimed.err(), commit.err()]
                    .into_iter()
                    .flatten()
                    .next();
                Err(problem.map_or_else(|| target.lost("no answer"), |problem| target.failed("written", &problem)))
            }
            Err(_) => Err(target.lost(format!("no answer within {} seconds", PATIENCE.as_secs()))),
        };
        let (gate, settled, claimed) = match answers {
            Ok(answers) => answers,
            Err(error) => {
                self.connection.forget();
                return Err(error);
            }
        };
        if !gate.is_empty() {
            self.shared.lease.confirmed(asked);
        }
        let settled: HashSet<(SendKey, u32)> =
            settled.iter().map(|row| (key_of(row, 0), row.get::<_, i32>(1).cast_unsigned())).collect();
        let mut granted: HashSet<SendKey> = claimed.iter().filter(|row| row.get(1)).map(|row| key_of(row, 0)).collect();
        let taken: HashSet<SendKey> = claimed.iter().filter(|row| row.get(2)).map(|row| key_of(row, 0)).collect();
        if let Some(lost) = &self.lost {
            // What an earlier try has done counts as done by this one.
            let ours = |intent: &&super::super::Intent| lost.claimed.contains(&(intent.key, intent.attempt));
            let doubtful: Vec<_> = batch.claim.iter().filter(ours).collect();
            if !gate.is_empty() && !doubtful.is_empty() {
                let keys: Vec<&[u8]> = doubtful.iter().map(|intent| &intent.key.0[..]).collect();
                let attempts: Vec<i32> = doubtful.iter().map(|intent| intent.attempt.cast_signed()).collect();
                let rows = self
                    .connection
                    .with("read", async |client| {
                        client
                            .query_typed(
                                MINE,
                                &[(&run, Type::INT8), (&keys, Type::BYTEA_ARRAY), (&attempts, Type::INT4_ARRAY)],
                            )
                            .await
                    })
                    .await?;
                granted.extend(rows.iter().map(|row| key_of(row, 0)));
            }
        }
        self.count(batch, at, &settled, &granted);
        if self.lost.take().is_none() {
            self.shared.certain.store(was_certain, Ordering::SeqCst);
        } else {
            self.recount().await?;
        }
        let made = self.connection.made;
        let started: Option<f64> = gate.first().map(|row| row.get(1));
        let (made_before, started_before) = self.server;
        let other_server = started_before.is_some() && started.is_some() && started != started_before;
        let mut committed = Committed { reconnected: made != made_before || other_server, ..Committed::default() };
        self.server = (made, started.or(started_before));
        if committed.reconnected {
            // What was counted may be gone, and is offered again.
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
            self.hear(&others, at, &mut committed).await?;
        }
        if gate.is_empty() && !batch.claim.is_empty() {
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

    /// Hears outcomes that do not simply follow from an intent that is open.
    async fn hear(&mut self, others: &[&Settlement], at: i64, committed: &mut Committed) -> Result<(), LedgerError> {
        let reporting = Reporting { run: self.shared.run, at, after: self.after };
        // What is written now is not counted here, so the database is asked in the end.
        self.shared.certain.store(false, Ordering::SeqCst);
        let doubtful = &self.doubtful;
        let doubtful = |settlement: &Settlement| {
            matches!(settlement.result, super::super::AttemptResult::NotSent { .. })
                && doubtful.contains(&(settlement.key, settlement.attempt))
        };
        // Each transaction has the connection's patience to itself: after a lost connection there may be
        // very many outcomes to hear, and a long journal to read for each.
        for some in others.chunks(contradiction::TOGETHER) {
            let (doubtful, committed) = (&doubtful, &mut *committed);
            self.connection
                .with("written", async |client| contradiction::hear(client, reporting, some, doubtful, committed).await)
                .await?;
        }
        self.recount().await
    }

    /// Keeps the figures of what is durable now.
    fn count(&self, batch: &Batch, at: i64, settled: &HashSet<(SendKey, u32)>, granted: &HashSet<SendKey>) {
        let mut digest = self.shared.digest.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = batch.settle.iter().filter(|settlement| settled.contains(&(settlement.key, settlement.attempt)));
        moved.for_each(|settlement| digest.add(&Entry::settled(self.shared.run, at, settlement)));
        let claimed = batch.claim.iter().filter(|intent| granted.contains(&intent.key));
        claimed.for_each(|intent| digest.add(&Entry::claimed(self.shared.run, at, intent)));
        let open = self.shared.open.load(Ordering::SeqCst) + granted.len() as u64;
        self.shared.open.store(open.saturating_sub(settled.len() as u64), Ordering::SeqCst);
    }

    /// Asks the database what is open: after a lost answer this process cannot tell.
    async fn recount(&mut self) -> Result<(), LedgerError> {
        let run = self.shared.run;
        let row = self
            .connection
            .with("read", async |client| {
                let sql = "SELECT count(*) FROM sendform.send WHERE run = $1 AND state = 1";
                client.query_typed_one(sql, &[(&run, Type::INT8)]).await
            })
            .await?;
        self.shared.open.store(row.get::<_, i64>(0).cast_unsigned(), Ordering::SeqCst);
        Ok(())
    }
}

/// The columns of a batch's settlements.
struct Settle<'a> {
    keys: Vec<&'a [u8]>,
    attempts: Vec<i32>,
    kinds: Vec<i16>,
    ids: Vec<Option<&'a str>>,
    reasons: Vec<Option<&'a str>>,
}

impl<'a> Settle<'a> {
    fn of(batch: &'a Batch) -> Self {
        // One statement moves a send once: what else is said of it comes after.
        let mut seen = HashSet::new();
        let settle: Vec<&Settlement> = batch.settle.iter().filter(|settlement| seen.insert(settlement.key)).collect();
        Self {
            keys: settle.iter().map(|settlement| &settlement.key.0[..]).collect(),
            attempts: settle.iter().map(|settlement| settlement.attempt.cast_signed()).collect(),
            kinds: settle.iter().map(|settlement| state_code(settlement.result.state())).collect(),
            ids: settle.iter().map(|settlement| settlement.result.message_id()).collect(),
            reasons: settle.iter().map(|settlement| settlement.result.reason()).collect(),
        }
    }

    async fn run(&self, client: &Client, run: i64, at: i64) -> Result<Vec<Row>, tokio_postgres::Error> {
        if self.keys.is_empty() {
            return Ok(Vec::new());
        }
        client
            .query_typed(
                SETTLE,
                &[
                    (&run, Type::INT8),
                    (&self.keys, Type::BYTEA_ARRAY),
                    (&self.attempts, Type::INT4_ARRAY),
                    (&self.kinds, Type::INT2_ARRAY),
                    (&self.ids, Type::TEXT_ARRAY),
                    (&self.reasons, Type::TEXT_ARRAY),
                    (&at, Type::INT8),
                ],
            )
            .await
    }
}

/// The columns of a batch's claims.
struct Claims<'a> {
    keys: Vec<&'a [u8]>,
    attempts: Vec<i32>,
    digests: Vec<&'a [u8]>,
    similarity_digests: Vec<i64>,
    addresses: Vec<&'a str>,
    coupons: Vec<&'a str>,
    expiries: Vec<Option<i64>>,
}

impl<'a> Claims<'a> {
    fn of(batch: &'a Batch) -> Self {
        let claim = &batch.claim;
        Self {
            keys: claim.iter().map(|intent| &intent.key.0[..]).collect(),
            attempts: claim.iter().map(|intent| intent.attempt.cast_signed()).collect(),
            digests: claim.iter().map(|intent| &intent.digest.0[..]).collect(),
            similarity_digests: claim.iter().map(|intent| intent.similarity_digest).collect(),
            addresses: claim.iter().map(|intent| intent.masked.as_str()).collect(),
            coupons: claim.iter().map(|intent| intent.coupon.expose()).collect(),
            expiries: claim
                .iter()
                .map(|intent| intent.expires.map(crate::domain::expiry::ExpiresAt::as_millisecond))
                .collect(),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they are the statement's own")]
    async fn run(
        &self,
        client: &Client,
        run: i64,
        at: i64,
        campaign: i32,
        edition: i32,
        unique_codes: bool,
        retry_rejected: bool,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if self.keys.is_empty() {
            return Ok(Vec::new());
        }
        client
            .query_typed(
                CLAIM,
                &[
                    (&run, Type::INT8),
                    (&self.keys, Type::BYTEA_ARRAY),
                    (&self.attempts, Type::INT4_ARRAY),
                    (&self.digests, Type::BYTEA_ARRAY),
                    (&self.similarity_digests, Type::INT8_ARRAY),
                    (&self.addresses, Type::TEXT_ARRAY),
                    (&self.coupons, Type::TEXT_ARRAY),
                    (&self.expiries, Type::INT8_ARRAY),
                    (&unique_codes, Type::BOOL),
                    (&campaign, Type::INT4),
                    (&edition, Type::INT4),
                    (&retry_rejected, Type::BOOL),
                    (&at, Type::INT8),
                ],
            )
            .await
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
        // Tries of one batch carry one time, whichever of them the database took.
        let at = self.lost.as_ref().map_or_else(|| Timestamp::now().as_millisecond(), |lost| lost.at);
        let result = self.offer(batch, at).await;
        if let Err(LedgerError::Lost { .. }) = &result {
            let lost = self.lost.get_or_insert_with(|| Lost { at, claimed: HashSet::new() });
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
        let snapshot = super::snapshot(&mut self.connection, &self.scope).await;
        if snapshot.is_err() {
            self.connection.forget();
        }
        snapshot
    }

    async fn finish(mut self: Box<Self>, ending: &str, counts: RunCounts) -> Result<Head, LedgerError> {
        let mut tries = 0;
        loop {
            let shared = Arc::clone(&self.shared);
            let finished =
                self.connection.with("written", async |client| finish(client, &shared, ending, counts).await).await;
            tries += 1;
            match finished {
                Err(LedgerError::Lost { .. }) if tries < 4 => tokio::time::sleep(Duration::from_millis(500)).await,
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
    client.batch_execute(DURABLE).await?;
    let ended_at = Timestamp::now().as_millisecond();
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
        // Fenced off, or an earlier try has done it.
        client.batch_execute("ROLLBACK").await?;
        let row =
            client.query_typed_one("SELECT number, hash FROM sendform.link ORDER BY number DESC LIMIT 1", &[]).await?;
        return Ok(head_of(&row));
    }
    abandon(client, shared.campaign, shared.run).await?;
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

/// The digest of a run's part of the journal, as the database has it.
async fn digest_of(client: &Client, run: i64) -> Result<JournalDigest, tokio_postgres::Error> {
    let mut digest = JournalDigest::default();
    let mut after = i64::MIN;
    loop {
        let rows = client
            .query_typed(OWN_ENTRIES, &[(&run, Type::INT8), (&after, Type::INT8), (&super::PAGE, Type::INT8)])
            .await?;
        let Some(last) = rows.last() else { return Ok(digest) };
        after = last.get(0);
        rows.iter().filter_map(|row| super::entry_of(row).ok()).for_each(|entry| digest.add(&entry));
    }
}

/// Says that this run is alive, and looks after those that are not.
async fn beat(shared: Arc<Shared>, mut connection: Connection, every: Duration) {
    loop {
        let heard = connection.with("written", async |client| shared.beat(client).await).await;
        // A connection that is lost is made again, soon.
        tokio::time::sleep(if heard.is_ok() { every } else { every / 10 }).await;
    }
}

#[async_trait]
impl Coordinator for Shared {
    async fn reserve(&self, messages: u32, most: u32) -> Result<Duration, LedgerError> {
        let mut connection = self.connection.lock().await;
        let span = self.interval.as_secs_f64() * f64::from(messages);
        // An applier uses one slot and has the next one reserved.
        let of_one = 2.0 * self.interval.as_secs_f64() * f64::from(most);
        let hold = MAX_SENDER_PAUSE.as_secs_f64();
        let rows = connection
            .with("written", async |client| {
                client
                    .query_typed(
                        RESERVE,
                        &[
                            (&self.sender, Type::TEXT),
                            (&span, Type::FLOAT8),
                            (&hold, Type::FLOAT8),
                            (&of_one, Type::FLOAT8),
                        ],
                    )
                    .await
            })
            .await?;
        let delay: f64 = rows.first().map_or(0.0, |row| row.get(0));
        Ok(Duration::try_from_secs_f64(delay.max(0.0)).unwrap_or_default())
    }

    async fn pause_sender(&self, pause: Duration) -> Result<(), LedgerError> {
        let mut connection = self.connection.lock().await;
        connection
            .with("written", async |client| {
                client
                    .execute_typed(
                        "UPDATE sendform.number SET next_at = greatest(next_at, clock_timestamp() + $2 * interval '1 second') WHERE sender = $1",
                        &[(&self.sender, Type::TEXT), (&pause.as_secs_f64(), Type::FLOAT8)],
                    )
                    .await
            })
            .await
            .map(drop)
    }

    async fn next_chunk(&self) -> Result<u64, LedgerError> {
        let mut connection = self.connection.lock().await;
        let row = connection
            .with("written", async |client| {
                client
                    .query_typed_one(
                        "UPDATE sendform.campaign SET next_share = next_share + 1 WHERE id = $1 RETURNING next_share - 1",
                        &[(&self.campaign, Type::INT4)],
                    )
                    .await
            })
            .await?;
        Ok(row.get::<_, i64>(0).cast_unsigned())
    }

    async fn activity(&self) -> Result<Activity, LedgerError> {
        let open = self.open.load(Ordering::SeqCst).cast_signed();
        let mut connection = self.connection.lock().await;
        let rows = connection
            .with("written", async |client| {
                self.beat(client).await?;
                client.execute_typed(GATE, &[(&self.run, Type::INT8), (&open, Type::INT8)]).await?;
                client
                    .query_typed(
                        "SELECT open FROM sendform.run WHERE campaign = $1 AND id <> $2 AND ended_at IS NULL",
                        &[(&self.campaign, Type::INT4), (&self.run, Type::INT8)],
                    )
                    .await
            })
            .await?;
        let open = rows.iter().map(|row| row.get::<_, i64>(0).cast_unsigned()).sum();
        Ok(Activity { appliers: rows.len() as u64, open })
    }
}

impl Shared {
    /// Refreshes the heartbeat, and fences off those whose own is too old.
    async fn beat(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let asked = Moment::now();
        if client.execute_typed(BEAT, &[(&self.run, Type::INT8)]).await? == 1 {
            self.lease.confirmed(asked);
        }
        let dead = client
            .query_typed(
                "SELECT id FROM sendform.run WHERE campaign = $1 AND id <> $2 AND ended_at IS NULL
                   AND heartbeat_at < clock_timestamp() - lease_ms * interval '1 millisecond' LIMIT 1",
                &[(&self.campaign, Type::INT4), (&self.run, Type::INT8)],
            )
            .await?;
        if dead.is_empty() { Ok(()) } else { self.fence(client).await }
    }

    /// Fences off the dead, and writes down as unknown what they left open.
    async fn fence(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        client.batch_execute(DURABLE).await?;
        client
            .query_typed("SELECT id FROM sendform.campaign WHERE id = $1 FOR UPDATE", &[(&self.campaign, Type::INT4)])
            .await?;
        fence_dead(client, self.campaign, self.run).await?;
        abandon(client, self.campaign, self.run).await?;
        client.batch_execute("COMMIT").await
    }
}
