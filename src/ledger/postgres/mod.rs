//! The ledger in a PostgreSQL database: several appliers of one plan, on several machines.
//!
//! The gate is a primary key: one row for each send, moved only under the conditions of
//! [`super::protocol`], said in SQL. A run proves in each transaction that it was not fenced off,
//! and refreshes its heartbeat by doing so; whoever finds a run silent for longer than its lease
//! fences it off and writes down as `unknown` what it left open. Both take the run's row first, so
//! one of them sees the other. Who is alive is told by the database's clock alone.
//!
//! Nothing relies on a session: each step is one statement or one transaction, without prepared
//! statements, session locks or settings, so a pooler in transaction mode may stand between.
//!
//! Locks are taken in one order, so that appliers wait for each other and never in a circle:
//! campaign, run, sends by key, codes by code, chain.

mod connection;
mod contradiction;
mod copy;
mod durability;
mod restore;
mod run;
mod schema;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::chain::{LinkKind, StartLink};
use super::copy::{COPY_OF, moved, unfinished};
use super::protocol::{self, Finding, Stand};
use super::{
    ABANDONED, Contradiction, Entry, Evidence, Head, Ledger, LedgerError, LedgerKey, Link, LostSend, MOVED_TO, Moment,
    Move, RunCounts, RunLedger, RunRecord, RunStart, Scope, SendKey, SendState, Sends, Snapshot, Source, actor,
    content_prefix, host, instant, milliseconds,
};
use super::{state_code, state_of};
use connection::{Connection, Target};
pub(super) use copy::{PostgresSource, PostgresTarget};
pub use run::PostgresRun;

/// How many rows are read at once.
const PAGE: i64 = 50_000;

/// A ledger in a database.
pub struct PostgresLedger {
    connection: Connection,
}

impl PostgresLedger {
    /// Opens a ledger for reading and for evidence. `None` if there is none yet.
    pub async fn open_existing(url: &str, key: Option<&LedgerKey>) -> Result<Option<Self>, LedgerError> {
        let mut ledger = Self { connection: Connection::new(Target::parse(url)?) };
        match ledger.connection.with("read", schema::format).await? {
            None => Ok(None),
            Some(found) => {
                ledger.check(found, key).await?;
                ledger.migrate(found).await?;
                Ok(Some(ledger))
            }
        }
    }

    /// Brings older tables up to this version's format.
    async fn migrate(&mut self, found: i64) -> Result<(), LedgerError> {
        if found == schema::FORMAT {
            return Ok(());
        }
        let target = self.connection.target.clone();
        let mut connection = Connection::waiting(target, schema::MIGRATION_PATIENCE);
        match connection.with("brought up to this version's format", schema::migrate).await? {
            schema::Migrated::Done => Ok(()),
            schema::Migrated::Held(holder) => Err(LedgerError::Held { holder }),
        }
    }

    /// Opens a ledger for a run, and makes it if there is none.
    pub async fn open_for_run(url: &str, key: &LedgerKey) -> Result<Self, LedgerError> {
        let mut ledger = Self { connection: Connection::new(Target::parse(url)?) };
        let found = match ledger.connection.with("read", schema::format).await? {
            Some(found) => found,
            None => {
                let mut id = [0; 16];
                getrandom::fill(&mut id).map_err(|error| LedgerError::Key(format!("cannot be made: {error}")))?;
                let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                let fingerprint = key.fingerprint();
                ledger.connection.with("made", async |client| schema::create(client, &fingerprint, &id).await).await?;
                ledger.connection.with("read", schema::format).await?.unwrap_or_default()
            }
        };
        ledger.check(found, Some(key)).await?;
        ledger.migrate(found).await?;
        Ok(ledger)
    }

    async fn check(&mut self, found: i64, key: Option<&LedgerKey>) -> Result<(), LedgerError> {
        if found > schema::FORMAT {
            return Err(LedgerError::Newer { found, known: schema::FORMAT });
        }
        let copy_of = self.connection.with("read", async |client| schema::property(client, COPY_OF).await).await?;
        if let Some(from) = copy_of {
            return Err(unfinished(&self.place(), &from));
        }
        let Some(key) = key else { return Ok(()) };
        let ledger = self
            .connection
            .with("read", async |client| schema::property(client, "key_fingerprint").await)
            .await?
            .unwrap_or_default();
        let given = key.fingerprint();
        if ledger == given { Ok(()) } else { Err(LedgerError::WrongKey { ledger, given }) }
    }

    /// Calls a run dead, whatever its heartbeat says: it is granted nothing more, and what it left
    /// open is unknown.
    pub async fn unlock(&mut self, run: i64) -> Result<bool, LedgerError> {
        self.connection
            .with("written", async |client| {
                client.batch_execute(DURABLE).await?;
                let fenced = client
                    .query_typed(
                        "UPDATE sendform.run SET fenced_at = clock_timestamp(), ended_at = $2, ending = 'unlocked'
                         WHERE id = $1 AND ended_at IS NULL RETURNING campaign",
                        &[(&run, Type::INT8), (&Timestamp::now().as_millisecond(), Type::INT8)],
                    )
                    .await?;
                if let Some(row) = fenced.first() {
                    abandon(client, row.get(0), run).await?;
                }
                client.batch_execute("COMMIT").await?;
                Ok(!fenced.is_empty())
            })
            .await
    }
}

impl PostgresLedger {
    /// Reads the journal page by page: `sql` takes the last number seen, the runs and the size of a page.
    async fn pages(
        &mut self,
        sql: &str,
        runs: &[i64],
        visit: &mut (dyn FnMut(&Row) -> Result<(), LedgerError> + Send),
    ) -> Result<(), LedgerError> {
        let target = self.connection.target.clone();
        let client = self.connection.client().await?;
        let mut after = i64::MIN;
        loop {
            let rows = client
                .query_typed(sql, &[(&after, Type::INT8), (&runs, Type::INT8_ARRAY), (&PAGE, Type::INT8)])
                .await
                .map_err(|error| target.failed("read", &error))?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.get(0);
            rows.iter().try_for_each(&mut *visit)?;
        }
    }

    /// Reads what the sends of an edition held.
    async fn read_contents(&mut self, scope: &Scope, snapshot: &mut Snapshot) -> Result<(), LedgerError> {
        let Some(sends) = Arc::get_mut(&mut snapshot.sends).filter(|sends| !sends.is_empty()) else { return Ok(()) };
        let runs = self
            .connection
            .with("read", async |client| {
                client
                    .query_typed(
                        "SELECT r.id FROM sendform.run r JOIN sendform.campaign c ON c.id = r.campaign
                         WHERE c.name = $1 AND r.edition = $2",
                        &[(&scope.campaign, Type::TEXT), (&scope.edition.cast_signed(), Type::INT4)],
                    )
                    .await
            })
            .await?;
        let runs: Vec<i64> = runs.iter().map(|row| row.get(0)).collect();
        let sql = "SELECT seq, send_key, substring(digest FOR 6) FROM sendform.journal
                   WHERE seq > $1 AND run = ANY($2) AND kind = 1 AND digest IS NOT NULL ORDER BY seq LIMIT $3";
        self.pages(sql, &runs, &mut |row| {
            sends.set_content(&key_of(row, 1), content_prefix(row.get(2)));
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    fn place(&self) -> String {
        self.connection.target.place.clone()
    }

    async fn snapshot(&mut self, scope: &Scope) -> Result<Snapshot, LedgerError> {
        let mut snapshot = snapshot(&mut self.connection, scope).await?;
        self.read_contents(scope, &mut snapshot).await?;
        Ok(snapshot)
    }

    async fn runs(&mut self) -> Result<Vec<RunRecord>, LedgerError> {
        let sql = "SELECT r.id, c.name AS campaign, r.edition, r.name, r.plan_hash, r.planned_at, r.recipients,
                          r.manifest, r.destination, r.account, r.sender, r.environment, r.longest_request_ms,
                          r.host, r.actor, r.pid, r.version,
                          r.started_at, (extract(epoch FROM r.heartbeat_at) * 1000)::bigint AS heartbeat_at, r.ended_at, r.ending,
                          r.accepted, r.rejected, r.unknown, r.not_sent, r.digest,
                          r.ended_at IS NULL AND r.heartbeat_at >= clock_timestamp() - r.lease_ms * interval '1 millisecond' AS live,
                          r.lease_ms, (extract(epoch FROM clock_timestamp() - r.heartbeat_at) * 1000)::bigint AS silent_ms
                   FROM sendform.run r JOIN sendform.campaign c ON c.id = r.campaign ORDER BY r.id";
        let rows = self.connection.with("read", async |client| client.query_typed(sql, &[]).await).await?;
        Ok(rows.iter().map(run_of).collect())
    }

    async fn journal(
        &mut self,
        campaign: Option<&str>,
        visit: &mut (dyn FnMut(Entry) + Send),
    ) -> Result<(), LedgerError> {
        let target = self.connection.target.clone();
        let fail = |error: tokio_postgres::Error| target.failed("read", &error);
        let client = self.connection.client().await?;
        client.batch_execute(MOMENT).await.map_err(fail)?;
        let mut after = i64::MIN;
        loop {
            let rows = client
                .query_typed(
                    "SELECT seq, run, at, kind, send_key, attempt, digest, likeness, address, coupon, expires, message_id, reason, source, actor
                     FROM sendform.journal
                     WHERE seq > $1 AND ($2::text IS NULL OR run IN (
                       SELECT r.id FROM sendform.run r JOIN sendform.campaign c ON c.id = r.campaign WHERE c.name = $2))
                     ORDER BY seq LIMIT $3",
                    &[(&after, Type::INT8), (&campaign, Type::TEXT), (&PAGE, Type::INT8)],
                )
                .await
                .map_err(fail)?;
            let Some(last) = rows.last() else { break };
            after = last.get(0);
            for row in &rows {
                visit(entry_of(row)?);
            }
        }
        client.batch_execute("COMMIT").await.map_err(fail)
    }

    async fn similarity_digests(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(i64, i64) + Send),
    ) -> Result<(), LedgerError> {
        let sql = "SELECT seq, run, likeness FROM sendform.journal
                   WHERE seq > $1 AND run = ANY($2) AND kind = 1 AND likeness IS NOT NULL ORDER BY seq LIMIT $3";
        self.pages(sql, runs, &mut |row| {
            visit(row.get(1), row.get(2));
            Ok(())
        })
        .await
    }

    async fn moves(&mut self, runs: &[i64], visit: &mut (dyn FnMut(Move) + Send)) -> Result<(), LedgerError> {
        let sql = "SELECT seq, run, kind, send_key, likeness FROM sendform.journal
                   WHERE seq > $1 AND run = ANY($2) ORDER BY seq LIMIT $3";
        self.pages(sql, runs, &mut |row| {
            let state = state_of(row.get::<_, i16>(2).into())?;
            visit(Move { run: row.get(1), key: key_of(row, 3), state, similarity_digest: row.get(4) });
            Ok(())
        })
        .await
    }

    async fn chain(&mut self) -> Result<Vec<Link>, LedgerError> {
        let sql = "SELECT number, hash, kind, run, detail FROM sendform.link ORDER BY number";
        let rows = self.connection.with("read", async |client| client.query_typed(sql, &[]).await).await?;
        let link = |row: &Row| {
            let kind = LinkKind::parse(row.get(2)).ok_or(LedgerError::Newer { found: 0, known: schema::FORMAT })?;
            Ok(Link { head: head_of(row), kind, run: row.get(3), detail: row.get(4) })
        };
        rows.iter().map(link).collect()
    }

    async fn sound(&mut self) -> Result<Vec<String>, LedgerError> {
        // The gate must say what the journal says; the database looks after its pages itself.
        let sql = "WITH last AS (SELECT DISTINCT ON (send_key) send_key, kind, attempt FROM sendform.journal ORDER BY send_key, seq DESC)
                   SELECT count(*) FROM sendform.send s FULL JOIN last j ON j.send_key = s.send_key
                   -- A late acceptance may be about an attempt before the last.
                   WHERE j.kind IS DISTINCT FROM s.state
                      OR j.attempt IS DISTINCT FROM s.attempt AND NOT (j.attempt < s.attempt AND j.kind IN (2, 4))";
        let target = self.connection.target.clone();
        let client = self.connection.client().await?;
        let row = client.query_typed_one(sql, &[]).await.map_err(|error| target.failed("read", &error))?;
        let differ: i64 = row.get(0);
        Ok(if differ == 0 { Vec::new() } else { vec![format!("{differ} sends stand otherwise than the journal says")] })
    }

    async fn contradictions(&mut self) -> Result<Vec<Contradiction>, LedgerError> {
        let rows = self.connection.with("read", contradiction::read).await?;
        rows.iter().map(contradiction::of).collect()
    }

    async fn evidence(&mut self, evidence: &[Evidence]) -> Result<Vec<Finding>, LedgerError> {
        self.connection
            .with("written", async |client| {
                client.batch_execute(DURABLE).await?;
                let mut keys: Vec<&[u8]> = evidence.iter().map(|piece| &piece.key.0[..]).collect();
                keys.sort_unstable();
                // What is said of a send whose run is silent must hold against that run, should it
                // come back: so it is fenced off first.
                let now = Timestamp::now().as_millisecond();
                client
                    .execute_typed(
                        "UPDATE sendform.run SET fenced_at = clock_timestamp(), ended_at = $2, ending = 'lost'
                         WHERE id IN (SELECT run FROM sendform.send WHERE send_key = ANY($1) AND state = 1)
                           AND ended_at IS NULL AND heartbeat_at < clock_timestamp() - lease_ms * interval '1 millisecond'",
                        &[(&keys, Type::BYTEA_ARRAY), (&now, Type::INT8)],
                    )
                    .await?;
                client
                    .execute_typed(
                        "SELECT 1 FROM sendform.send WHERE send_key = ANY($1) ORDER BY send_key FOR UPDATE",
                        &[(&keys, Type::BYTEA_ARRAY)],
                    )
                    .await?;
                let rows = client
                    .query_typed(
                        "SELECT s.send_key, s.state, s.attempt, s.run, r.ended_at IS NULL
                         FROM sendform.send s JOIN sendform.run r ON r.id = s.run WHERE s.send_key = ANY($1)",
                        &[(&keys, Type::BYTEA_ARRAY)],
                    )
                    .await?;
                let mut known: std::collections::HashMap<SendKey, (Stand, bool)> = rows
                    .iter()
                    .filter_map(|row| {
                        let state = state_of(row.get::<_, i16>(1).into()).ok()?;
                        let stand = Stand { state, attempt: row.get::<_, i32>(2).cast_unsigned(), run: row.get(3) };
                        Some((key_of(row, 0), (stand, row.get(4))))
                    })
                    .collect();
                let mut entries = Vec::new();
                let mut findings = Vec::with_capacity(evidence.len());
                for piece in evidence {
                    let before = known.get(&piece.key).copied();
                    let live = before.is_some_and(|(_, live)| live);
                    let stand = before.map(|(stand, _)| stand);
                    let finding = protocol::weigh(stand, live, piece.attempt, piece.resolution);
                    if let (Finding::Settled, Some(stand)) = (finding, stand) {
                        if stand.state == SendState::Intent {
                            entries.push(Entry::abandoned(stand.run, now, piece.key, stand.attempt));
                        }
                        entries.push(Entry::evidence(stand, now, piece));
                        known.insert(piece.key, (Stand { state: piece.resolution.state(), ..stand }, live));
                        client
                            .execute_typed(
                                "UPDATE sendform.send SET state = $2 WHERE send_key = $1",
                                &[(&&piece.key.0[..], Type::BYTEA), (&state_code(piece.resolution.state()), Type::INT2)],
                            )
                            .await?;
                    }
                    findings.push(finding);
                }
                for entry in &entries {
                    write_entry(client, entry).await?;
                }
                client.batch_execute("COMMIT").await?;
                Ok(findings)
            })
            .await
    }

    async fn restore_sends(&mut self, lost: &[LostSend]) -> Result<Vec<Finding>, LedgerError> {
        self.connection.with("written", async |client| restore::restore(client, lost).await).await
    }

    async fn property(&mut self, name: &str) -> Result<Option<String>, LedgerError> {
        self.connection.with("read", async |client| schema::property(client, name).await).await
    }

    async fn set_property(&mut self, name: &str, value: Option<&str>) -> Result<(), LedgerError> {
        self.connection.with("written", async |client| schema::set_property(client, name, value).await).await
    }

    async fn admits(&mut self, campaign: &str, plan_hash: &str) -> Result<(), LedgerError> {
        let found = self
            .connection
            .with("read", async |client| {
                let id = client
                    .query_typed("SELECT id FROM sendform.campaign WHERE name = $1", &[(&campaign, Type::TEXT)])
                    .await?;
                match id.first() {
                    Some(row) => in_the_way(client, row.get(0), plan_hash).await,
                    None => Ok(None),
                }
            })
            .await?;
        found.map_or(Ok(()), |holder| Err(LedgerError::Held { holder }))
    }

    async fn begin(
        mut self: Box<Self>,
        start: &RunStart,
        _snapshot: &Snapshot,
    ) -> Result<Box<dyn RunLedger>, LedgerError> {
        let mut tries = 0;
        let (asked, begun) = loop {
            let asked = Moment::now();
            match self.connection.with("written", async |client| begin(client, start).await).await {
                // If an earlier try was durable after all, it is a run that never claims anything.
                Err(LedgerError::Lost { .. }) if tries < 3 => tries += 1,
                other => break (asked, other?),
            }
        };
        match begun {
            Begun::Held(holder) => Err(LedgerError::Held { holder }),
            Begun::Moved(to) => Err(moved(&self.place(), &to)),
            Begun::OtherFormat(found) => Err(LedgerError::Newer { found, known: schema::FORMAT }),
            Begun::NotDurable(problem) => {
                Err(LedgerError::NotDurable { place: self.connection.target.place.clone(), problem })
            }
            Begun::Run(beginning) => Ok(Box::new(PostgresRun::new(self.connection, start, asked, beginning))),
        }
    }
}

/// A transaction that reads everything as of one moment.
const MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A transaction that is on the disk when it returns, whatever the database's defaults are. One whose
/// applier is cut off in the middle does not hold its locks for long, and none waits for ever.
const DURABLE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL synchronous_commit = on;
    SET LOCAL idle_in_transaction_session_timeout = '15s';
    SET LOCAL lock_timeout = '10s'";

enum Begun {
    Held(String),
    /// Another program has changed the format since this one looked.
    OtherFormat(i64),
    /// Another program has moved the ledger since this one looked: where to.
    Moved(String),
    /// A commit would not survive a crash.
    NotDurable(String),
    Run(Beginning),
}

/// A run that has begun.
struct Beginning {
    run: i64,
    campaign: i32,
    head: Head,
    /// The last entry of the journal before anything of this run.
    after: i64,
    warnings: Vec<String>,
}

async fn begin(client: &Client, start: &RunStart) -> Result<Begun, tokio_postgres::Error> {
    let durability = durability::look(client).await?;
    if let Some(problem) = durability.refusal {
        return Ok(Begun::NotDurable(problem));
    }
    client.batch_execute(DURABLE).await?;
    let format = schema::format_for_run(client).await?;
    if format != schema::FORMAT {
        client.batch_execute("ROLLBACK").await?;
        return Ok(Begun::OtherFormat(format));
    }
    if let Some(place) = schema::property(client, MOVED_TO).await? {
        client.batch_execute("ROLLBACK").await?;
        return Ok(Begun::Moved(place));
    }
    client
        .execute_typed(
            "INSERT INTO sendform.campaign (name) VALUES ($1) ON CONFLICT (name) DO NOTHING",
            &[(&start.campaign, Type::TEXT)],
        )
        .await?;
    // Runs of one campaign begin one after another.
    let row = client
        .query_typed_one(
            "SELECT id FROM sendform.campaign WHERE name = $1 FOR UPDATE",
            &[(&start.campaign, Type::TEXT)],
        )
        .await?;
    let campaign: i32 = row.get(0);
    fence_dead(client, campaign, 0).await?;
    if let Some(holder) = in_the_way(client, campaign, &start.plan_hash).await? {
        client.batch_execute("ROLLBACK").await?;
        return Ok(Begun::Held(holder));
    }
    client
        .execute_typed(
            "UPDATE sendform.campaign SET next_share = 0
             WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM sendform.run WHERE campaign = $1 AND ended_at IS NULL)",
            &[(&campaign, Type::INT4)],
        )
        .await?;
    client
        .execute_typed(
            "INSERT INTO sendform.number (sender, next_at) VALUES ($1, clock_timestamp()) ON CONFLICT (sender) DO NOTHING",
            &[(&start.sender, Type::TEXT)],
        )
        .await?;
    let started_at = Timestamp::now().as_millisecond();
    let row = client
        .query_typed_one(
            "INSERT INTO sendform.run (campaign, edition, name, plan_hash, planned_at, recipients, sender,
                                       host, actor, pid, version, started_at, lease_ms, heartbeat_at,
                                       format, unique_codes, manifest, destination, account, environment, longest_request_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, clock_timestamp(),
                     $14::bigint, $15, $16, $17, $18, $19, $20) RETURNING id",
            &[
                (&campaign, Type::INT4),
                (&start.edition.cast_signed(), Type::INT4),
                (&start.name, Type::TEXT),
                (&start.plan_hash, Type::TEXT),
                (&start.planned_at.as_millisecond(), Type::INT8),
                (&start.recipients.cast_signed(), Type::INT8),
                (&start.sender, Type::TEXT),
                (&host(), Type::TEXT),
                (&actor(), Type::TEXT),
                (&i64::from(std::process::id()), Type::INT8),
                (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                (&started_at, Type::INT8),
                (&milliseconds(start.lease), Type::INT8),
                (&schema::FORMAT, Type::INT8),
                (&start.unique_codes, Type::BOOL),
                (&start.manifest, Type::TEXT),
                (&start.destination, Type::TEXT),
                (&start.account, Type::TEXT),
                (&start.environment, Type::TEXT),
                (&milliseconds(start.longest_request), Type::INT8),
            ],
        )
        .await?;
    let run: i64 = row.get(0);
    let row = client.query_typed_one("SELECT coalesce(max(seq), 0) FROM sendform.journal", &[]).await?;
    let after: i64 = row.get(0);
    abandon(client, campaign, run).await?;
    let head = schema::head_for_update(client).await?.started(&StartLink {
        run,
        campaign: &start.campaign,
        edition: start.edition,
        plan_hash: &start.plan_hash,
        started_at,
    });
    schema::add_link(client, head, LinkKind::Start, Some(run), None).await?;
    client.batch_execute("COMMIT").await?;
    Ok(Begun::Run(Beginning { run, campaign, head, after, warnings: durability.warnings }))
}

/// Who runs another plan of this campaign now.
async fn in_the_way(client: &Client, campaign: i32, plan_hash: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let rows = client
        .query_typed(
            "SELECT id, actor, host, pid, started_at, extract(epoch FROM clock_timestamp() - heartbeat_at)::double precision
             FROM sendform.run
             WHERE campaign = $1 AND plan_hash <> $2 AND ended_at IS NULL
               AND heartbeat_at >= clock_timestamp() - lease_ms * interval '1 millisecond' ORDER BY id LIMIT 1",
            &[(&campaign, Type::INT4), (&plan_hash, Type::TEXT)],
        )
        .await?;
    Ok(rows.first().map(|row| {
        let (run, actor, host, pid): (i64, String, String, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let since = instant(row.get(4));
        let silent: f64 = row.get(5);
        format!(
            "run {run} of another plan: process {pid} of {actor} on {host} since {since:.0}, last heartbeat {silent:.0} s ago"
        )
    }))
}

/// Fences off the runs of a campaign that were silent for longer than their lease. How many.
async fn fence_dead(client: &Client, campaign: i32, not: i64) -> Result<u64, tokio_postgres::Error> {
    client
        .execute_typed(
            "UPDATE sendform.run SET fenced_at = clock_timestamp(), ended_at = $3, ending = 'lost'
             WHERE campaign = $1 AND id <> $2 AND ended_at IS NULL
               AND heartbeat_at < clock_timestamp() - lease_ms * interval '1 millisecond'",
            &[(&campaign, Type::INT4), (&not, Type::INT8), (&Timestamp::now().as_millisecond(), Type::INT8)],
        )
        .await
}

/// Writes down as unknown what runs that are over left open. `run` is who writes it.
async fn abandon(client: &Client, campaign: i32, run: i64) -> Result<u64, tokio_postgres::Error> {
    client
        .execute_typed(
            "WITH open AS (
               SELECT s.send_key FROM sendform.send s JOIN sendform.run r ON r.id = s.run
               WHERE s.campaign = $1 AND s.state = 1 AND r.ended_at IS NOT NULL ORDER BY s.send_key FOR UPDATE OF s
             ), lost AS (
               UPDATE sendform.send s SET state = 4 FROM open
               WHERE s.send_key = open.send_key AND s.state = 1 RETURNING s.send_key, s.attempt
             )
             INSERT INTO sendform.journal (run, at, kind, send_key, attempt, reason, source)
             SELECT $2, $3, 4, send_key, attempt, $4, $5 FROM lost",
            &[
                (&campaign, Type::INT4),
                (&run, Type::INT8),
                (&Timestamp::now().as_millisecond(), Type::INT8),
                (&ABANDONED, Type::TEXT),
                (&Source::Abandoned.as_str(), Type::TEXT),
            ],
        )
        .await
}

async fn snapshot(connection: &mut Connection, scope: &Scope) -> Result<Snapshot, LedgerError> {
    let target = connection.target.clone();
    let fail = |error: tokio_postgres::Error| target.failed("read", &error);
    let edition = scope.edition.cast_signed();
    let client = connection.client().await?;
    client.batch_execute(MOMENT).await.map_err(fail)?;
    let mut snapshot = Snapshot::default();
    let mut sends = Sends::default();
    let campaign: Option<i32> = client
        .query_typed("SELECT id FROM sendform.campaign WHERE name = $1", &[(&scope.campaign, Type::TEXT)])
        .await
        .map_err(fail)?
        .first()
        .map(|row| row.get(0));
    let mut after: Vec<u8> = Vec::new();
    while let Some(campaign) = campaign {
        let rows = client
            .query_typed(
                "SELECT send_key, state, attempt, run, coupon FROM sendform.send
                 WHERE campaign = $1 AND edition = $2 AND send_key > $3 ORDER BY send_key LIMIT $4",
                &[(&campaign, Type::INT4), (&edition, Type::INT4), (&after, Type::BYTEA), (&PAGE, Type::INT8)],
            )
            .await
            .map_err(fail)?;
        let Some(last) = rows.last() else { break };
        after = last.get(0);
        for row in &rows {
            let state = state_of(row.get::<_, i16>(1).into())?;
            let attempt = row.get::<_, i32>(2).cast_unsigned();
            sends.record(key_of(row, 0), state, attempt, Some((row.get(3), row.get(4))));
        }
    }
    let rows = client
        .query_typed("SELECT planned_at FROM sendform.run WHERE id = $1", &[(&sends.first_run(), Type::INT8)])
        .await
        .map_err(fail)?;
    // The message of an earlier attempt was accepted after all: nothing more is sent.
    let accepted =
        client.query_typed("SELECT send_key FROM sendform.contradiction WHERE kind = 2", &[]).await.map_err(fail)?;
    accepted.iter().for_each(|row| sends.accepted_before(&key_of(row, 0)));
    snapshot.sends = Arc::new(sends);
    snapshot.planned_at = rows.first().map(|row| instant(row.get(0)));
    let rows = client
        .query_typed(
            "SELECT id FROM sendform.run WHERE campaign = $1 AND ended_at IS NULL
               AND heartbeat_at >= clock_timestamp() - lease_ms * interval '1 millisecond'",
            &[(&campaign, Type::INT4)],
        )
        .await
        .map_err(fail)?;
    snapshot.live = rows.iter().map(|row| row.get(0)).collect();
    let mut after = String::new();
    // Where codes may repeat, nobody else's matter.
    let mut more = scope.unique_codes;
    while more {
        let rows = client
            .query_typed(
                "SELECT c.code FROM sendform.code c JOIN sendform.send s ON s.send_key = c.send_key
                 WHERE NOT (s.campaign = $1 AND s.edition = $2) AND c.code > $3 ORDER BY c.code LIMIT $4",
                &[
                    (&campaign.unwrap_or(0), Type::INT4),
                    (&edition, Type::INT4),
                    (&after, Type::TEXT),
                    (&PAGE, Type::INT8),
                ],
            )
            .await
            .map_err(fail)?;
        more = !rows.is_empty();
        if let Some(last) = rows.last() {
            after = last.get(0);
        }
        snapshot.spent_codes.extend(rows.iter().map(|row| Box::<str>::from(row.get::<_, &str>(0))));
    }
    client.batch_execute("COMMIT").await.map_err(fail)?;
    Ok(snapshot)
}

async fn write_entry(client: &Client, entry: &Entry) -> Result<(), tokio_postgres::Error> {
    let digest = entry.digest.as_ref().map(|digest| &digest[..]);
    client
        .execute_typed(
            "INSERT INTO sendform.journal (run, at, kind, send_key, attempt, digest, likeness, address, coupon, expires,
                                           message_id, reason, source, actor)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            &[
                (&entry.run, Type::INT8),
                (&entry.at, Type::INT8),
                (&state_code(entry.state), Type::INT2),
                (&&entry.key.0[..], Type::BYTEA),
                (&entry.attempt.cast_signed(), Type::INT4),
                (&digest, Type::BYTEA),
                (&entry.similarity_digest, Type::INT8),
                (&entry.masked, Type::TEXT),
                (&entry.coupon, Type::TEXT),
                (&entry.expires, Type::INT8),
                (&entry.message_id, Type::TEXT),
                (&entry.reason, Type::TEXT),
                (&entry.source.map(Source::as_str), Type::TEXT),
                (&entry.actor, Type::TEXT),
            ],
        )
        .await
        .map(drop)
}

/// Sixteen bytes, as the tables hold them; the protocol writes no others.
fn bytes<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut fixed = [0; N];
    let length = bytes.len().min(N);
    fixed[..length].copy_from_slice(&bytes[..length]);
    fixed
}

fn key_of(row: &Row, column: usize) -> SendKey {
    SendKey(bytes(row.get(column)))
}

fn head_of(row: &Row) -> Head {
    Head { number: row.get::<_, i64>(0).cast_unsigned(), hash: bytes(row.get(1)) }
}

fn run_of(row: &Row) -> RunRecord {
    let count = |column: &str| row.get::<_, Option<i64>>(column).map(i64::cast_unsigned);
    let counts = match (count("accepted"), count("rejected"), count("unknown"), count("not_sent")) {
        (Some(accepted), Some(rejected), Some(unknown), Some(not_sent)) => {
            Some(RunCounts { accepted, rejected, unknown, not_sent })
        }
        _ => None,
    };
    RunRecord {
        id: row.get("id"),
        campaign: row.get("campaign"),
        edition: row.get::<_, i32>("edition").cast_unsigned(),
        name: row.get("name"),
        plan_hash: row.get("plan_hash"),
        planned_at: instant(row.get("planned_at")),
        recipients: row.get::<_, i64>("recipients").cast_unsigned(),
        manifest: row.get("manifest"),
        destination: row.get("destination"),
        account: row.get("account"),
        sender: row.get("sender"),
        environment: row.get("environment"),
        longest_request: count("longest_request_ms").map(Duration::from_millis),
        host: row.get("host"),
        actor: row.get("actor"),
        pid: u32::try_from(row.get::<_, i64>("pid")).unwrap_or_default(),
        version: row.get("version"),
        started_at: instant(row.get("started_at")),
        heartbeat_at: Some(instant(row.get("heartbeat_at"))),
        lease: Duration::from_millis(u64::try_from(row.get::<_, i64>("lease_ms")).unwrap_or_default()),
        silent: Duration::from_millis(u64::try_from(row.get::<_, i64>("silent_ms")).unwrap_or_default()),
        ended_at: row.get::<_, Option<i64>>("ended_at").map(instant),
        ending: row.get("ending"),
        counts,
        live: row.get("live"),
        digest: row.get::<_, Option<&[u8]>>("digest").map(bytes),
    }
}

fn entry_of(row: &Row) -> Result<Entry, LedgerError> {
    Ok(Entry {
        seq: row.get(0),
        run: row.get(1),
        at: row.get(2),
        state: state_of(row.get::<_, i16>(3).into())?,
        key: key_of(row, 4),
        attempt: row.get::<_, i32>(5).cast_unsigned(),
        digest: row.get::<_, Option<&[u8]>>(6).map(bytes),
        similarity_digest: row.get(7),
        masked: row.get(8),
        coupon: row.get(9),
        expires: row.get(10),
        message_id: row.get(11),
        reason: row.get(12),
        source: row.get::<_, Option<&str>>(13).and_then(Source::parse),
        actor: row.get(14),
    })
}
