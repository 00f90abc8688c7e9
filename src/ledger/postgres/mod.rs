//! The ledger in a PostgreSQL database: several appliers of one plan, on several machines.
//!
//! The gate is a primary key: one row for each send, updated only under the conditions of [`super::protocol`], which
//! are stated in SQL. A run proves in each transaction that it was not fenced off, and refreshes its heartbeat with
//! it. A process that finds a run silent for longer than its lease fences the run off and records its open attempts
//! as `unknown`. Both take the run's row first, so one of them sees the other. Only the database's clock decides
//! which runs are alive.
//!
//! Nothing depends on a session: each step is one statement or one transaction, without prepared statements, session
//! locks or settings, so a connection pooler in transaction mode can be used.
//!
//! Locks are taken in one order, so that appliers wait for each other and never in a circle: campaign, run, sends by
//! key, codes by code, chain.

mod begin;
mod connection;
mod coordinator;
mod copy;
mod durability;
mod late_outcomes;
mod restore_sends;
mod rows;
mod run;
mod schema;
mod snapshot;
mod statements;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::chain::Link;
use super::contract::{LeaseHolder, Ledger, RunLedger, Scope, Snapshot};
use super::contradiction::Contradiction;
use super::copy::{COPY_OF, moved, unfinished};
use super::error::LedgerError;
use super::key::LedgerKey;
use super::lost_send::LostSend;
use super::protocol::{self, Finding, LastAttempt};
use super::record::{JournalEntry, Operator, RecordedEnding, RunRecord, RunStart, Transition, code, state_code};
use super::send_table::content_prefix;
use crate::domain::lease::Moment;
use crate::domain::send::{Evidence, SendKey, SendState};
use crate::ledger::columns::columns;
use crate::util::hex;
use begin::{Begun, abandon, begin, holder_of_another_plan};
use connection::{Connection, Target};
pub(super) use copy::{PostgresSource, PostgresTarget};
use rows::{read_head, read_last_attempt, write_entry};
pub use run::PostgresRun;

/// How many rows are read at a time.
const PAGE_LEN: i64 = 50_000;

/// How often the start of a run is tried again after a lost answer.
const MAX_BEGIN_RETRIES: u32 = 3;

/// Begins a transaction that reads everything as of one moment.
const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Begins a transaction that is on the disk when its commit returns, whatever the database's defaults are. If its
/// applier is cut off in the middle, it holds its locks only for a short time, and it never waits for ever.
const BEGIN_DURABLE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL synchronous_commit = on;
    SET LOCAL idle_in_transaction_session_timeout = '15s';
    SET LOCAL lock_timeout = '10s'";

/// A ledger in a database.
pub struct PostgresLedger {
    connection: Connection,
    operator: Operator,
}

impl PostgresLedger {
    fn new(url: &str, operator: &Operator) -> Result<Self, LedgerError> {
        Ok(Self { connection: Connection::new(Target::parse(url)?), operator: operator.clone() })
    }

    /// Opens a ledger for reading and for evidence. `None` if there is none yet.
    pub async fn open_existing(
        url: &str,
        operator: &Operator,
        key: Option<&LedgerKey>,
    ) -> Result<Option<Self>, LedgerError> {
        let mut ledger = Self::new(url, operator)?;
        match ledger.connection.with("read", schema::format).await? {
            None => Ok(None),
            Some(found) => {
                ledger.check_usable(found, key).await?;
                ledger.migrate(found).await?;
                Ok(Some(ledger))
            }
        }
    }

    /// Opens a ledger for a run, and creates it if there is none.
    pub async fn open_or_create(url: &str, operator: &Operator, key: &LedgerKey) -> Result<Self, LedgerError> {
        let mut ledger = Self::new(url, operator)?;
        let found = match ledger.connection.with("read", schema::format).await? {
            Some(found) => found,
            None => {
                let mut id = [0; 16];
                getrandom::fill(&mut id).map_err(|error| LedgerError::key(format!("cannot be created: {error}")))?;
                let (fingerprint, id) = (key.fingerprint(), hex::encode(&id));
                let creating = async |client: &Client| schema::create(client, &fingerprint, &id).await;
                ledger.connection.with("created", creating).await?;
                ledger.connection.with("read", schema::format).await?.unwrap_or_default()
            }
        };
        ledger.check_usable(found, Some(key)).await?;
        ledger.migrate(found).await?;
        Ok(ledger)
    }

    /// Migrates older tables to this version's format.
    async fn migrate(&mut self, found: i64) -> Result<(), LedgerError> {
        if found == schema::FORMAT {
            return Ok(());
        }
        let mut connection = Connection::with_timeout(self.connection.target.clone(), schema::MIGRATION_TIMEOUT);
        let now = self.operator.now_ms();
        match connection.with("migrated", async |client| schema::migrate(client, now).await).await? {
            schema::Migrated::Done => Ok(()),
            schema::Migrated::Held(holder) => Err(LedgerError::Held { holder }),
        }
    }

    /// Refuses tables of a newer version, an unfinished copy, or another key.
    async fn check_usable(&mut self, found: i64, key: Option<&LedgerKey>) -> Result<(), LedgerError> {
        if found > schema::FORMAT {
            return Err(LedgerError::Newer { found, known: schema::FORMAT });
        }
        if let Some(from) = self.property(COPY_OF).await? {
            return Err(unfinished(&self.place(), &from));
        }
        let Some(key) = key else { return Ok(()) };
        let ledger = self.property("key_fingerprint").await?.unwrap_or_default();
        let given = key.fingerprint();
        if ledger == given { Ok(()) } else { Err(LedgerError::WrongKey { ledger, given }) }
    }

    /// Reads the journal page by page. `sql` takes the number of the last entry that was read, the runs, and the
    /// size of a page, and returns the number of an entry in the column `seq`.
    async fn pages(
        &mut self,
        sql: &str,
        runs: &[i64],
        visit: &mut (dyn FnMut(&Row) -> Result<(), tokio_postgres::Error> + Send),
    ) -> Result<(), LedgerError> {
        let target = self.connection.target.clone();
        let fail = |error| target.failed("read", error);
        let client = self.connection.client().await?;
        let mut after = i64::MIN;
        loop {
            let rows = client
                .query_typed(sql, &[(&after, Type::INT8), (&runs, Type::INT8_ARRAY), (&PAGE_LEN, Type::INT8)])
                .await
                .map_err(fail)?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.try_get("seq").map_err(fail)?;
            rows.iter().try_for_each(&mut *visit).map_err(fail)?;
        }
    }

    /// Reads the beginnings of the digests of an edition's messages.
    async fn read_contents(&mut self, scope: &Scope, snapshot: &mut Snapshot) -> Result<(), LedgerError> {
        let Some(sends) = Arc::get_mut(&mut snapshot.sends).filter(|sends| !sends.is_empty()) else { return Ok(()) };
        let runs: Vec<i64> = self
            .connection
            .with("read", async |client| {
                let rows = client
                    .query_typed(
                        "SELECT r.id FROM sendform.run r JOIN sendform.campaign c ON c.id = r.campaign
                         WHERE c.name = $1 AND r.edition = $2",
                        &[(&scope.campaign, Type::TEXT), (&scope.edition.cast_signed(), Type::INT4)],
                    )
                    .await?;
                rows.iter().map(|row| row.try_get("id")).collect()
            })
            .await?;
        self.pages(&CONTENTS, &runs, &mut |row| {
            sends.set_content(&row.try_get(content::SEND_KEY)?, content_prefix(row.try_get(content::DIGEST)?));
            Ok(())
        })
        .await
    }
}

columns!(content: SEQ = "seq", SEND_KEY = "send_key", DIGEST = "substring(digest FOR 6)");

static CONTENTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM sendform.journal
         WHERE seq > $1 AND run = ANY($2) AND kind = {} AND digest IS NOT NULL ORDER BY seq LIMIT $3",
        content::LIST,
        code::INTENT
    )
});

columns!(digest: SEQ = "seq", RUN = "run", SIMILARITY_DIGEST = "likeness");

static SIMILARITY_DIGESTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM sendform.journal
         WHERE seq > $1 AND run = ANY($2) AND kind = {} AND likeness IS NOT NULL ORDER BY seq LIMIT $3",
        digest::LIST,
        code::INTENT
    )
});

columns!(
    transition: SEQ = "seq", RUN = "run", KIND = "kind", SEND_KEY = "send_key", SIMILARITY_DIGEST = "likeness",
);

static TRANSITIONS: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM sendform.journal WHERE seq > $1 AND run = ANY($2) ORDER BY seq LIMIT $3", transition::LIST)
});

static JOURNAL: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM sendform.journal
         WHERE seq > $1 AND ($2::text IS NULL OR run IN (
           SELECT r.id FROM sendform.run r JOIN sendform.campaign c ON c.id = r.campaign WHERE c.name = $2))
         ORDER BY seq LIMIT $3",
        rows::ENTRY_COLUMNS
    )
});

/// Counts the sends whose row differs from what the journal says. A late acceptance may be about an attempt before
/// the last.
static DIFFERENCES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH last AS (
           SELECT DISTINCT ON (send_key) send_key, kind, attempt FROM sendform.journal ORDER BY send_key, seq DESC
         )
         SELECT count(*) AS sends FROM sendform.send s FULL JOIN last j ON j.send_key = s.send_key
         WHERE j.kind IS DISTINCT FROM s.state
            OR j.attempt IS DISTINCT FROM s.attempt AND NOT (j.attempt < s.attempt AND j.kind IN ({}, {}))",
        code::ACCEPTED,
        code::UNKNOWN
    )
});

#[async_trait]
impl Ledger for PostgresLedger {
    fn place(&self) -> String {
        self.connection.target.place.clone()
    }

    async fn snapshot(&mut self, scope: &Scope) -> Result<Snapshot, LedgerError> {
        let mut snapshot = snapshot::read(&mut self.connection, scope).await?;
        self.read_contents(scope, &mut snapshot).await?;
        Ok(snapshot)
    }

    async fn runs(&mut self) -> Result<Vec<RunRecord>, LedgerError> {
        self.connection
            .with("read", async |client| {
                client.query_typed(rows::RUNS, &[]).await?.iter().map(rows::read_run).collect()
            })
            .await
    }

    async fn journal(
        &mut self,
        campaign: Option<&str>,
        visit: &mut (dyn FnMut(JournalEntry) + Send),
    ) -> Result<(), LedgerError> {
        let target = self.connection.target.clone();
        let fail = |error| target.failed("read", error);
        let client = self.connection.client().await?;
        client.batch_execute(BEGIN_SNAPSHOT).await.map_err(fail)?;
        let mut after = i64::MIN;
        loop {
            let page = client
                .query_typed(&JOURNAL, &[(&after, Type::INT8), (&campaign, Type::TEXT), (&PAGE_LEN, Type::INT8)])
                .await
                .map_err(fail)?;
            if page.is_empty() {
                break;
            }
            for row in &page {
                let entry = rows::read_entry(row).map_err(fail)?;
                after = entry.seq;
                visit(entry);
            }
        }
        client.batch_execute("COMMIT").await.map_err(fail)
    }

    async fn similarity_digests(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(i64, i64) + Send),
    ) -> Result<(), LedgerError> {
        self.pages(&SIMILARITY_DIGESTS, runs, &mut |row| {
            visit(row.try_get(digest::RUN)?, row.try_get(digest::SIMILARITY_DIGEST)?);
            Ok(())
        })
        .await
    }

    async fn transitions(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(Transition) + Send),
    ) -> Result<(), LedgerError> {
        self.pages(&TRANSITIONS, runs, &mut |row| {
            visit(Transition {
                run: row.try_get(transition::RUN)?,
                key: row.try_get(transition::SEND_KEY)?,
                state: row.try_get(transition::KIND)?,
                similarity_digest: row.try_get(transition::SIMILARITY_DIGEST)?,
            });
            Ok(())
        })
        .await
    }

    async fn chain(&mut self) -> Result<Vec<Link>, LedgerError> {
        let sql = "SELECT number, hash, kind, run, detail FROM sendform.link ORDER BY number";
        let link = |row: &Row| {
            let (kind, run, detail) = (row.try_get("kind")?, row.try_get("run")?, row.try_get("detail")?);
            Ok(Link { head: read_head(row)?, kind, run, detail })
        };
        self.connection
            .with("read", async |client| client.query_typed(sql, &[]).await?.iter().map(link).collect())
            .await
    }

    async fn verify_storage(&mut self) -> Result<Vec<String>, LedgerError> {
        // The rows of the sends must agree with the journal; the database verifies its pages itself.
        let target = self.connection.target.clone();
        let client = self.connection.client().await?;
        let row = client.query_typed_one(&DIFFERENCES, &[]).await;
        let differ: i64 = row.and_then(|row| row.try_get("sends")).map_err(|error| target.failed("read", error))?;
        Ok(if differ == 0 { Vec::new() } else { vec![format!("{differ} sends differ from what the journal says")] })
    }

    async fn contradictions(&mut self) -> Result<Vec<Contradiction>, LedgerError> {
        self.connection.with("read", late_outcomes::contradictions).await
    }

    async fn record_evidence(&mut self, evidence: &[Evidence]) -> Result<Vec<Finding>, LedgerError> {
        let now = self.operator.now_ms();
        self.connection.with("written", async |client| record_evidence(client, evidence, now).await).await
    }

    async fn restore_sends(&mut self, lost: &[LostSend]) -> Result<Vec<Finding>, LedgerError> {
        let operator = &self.operator;
        self.connection.with("written", async |client| restore_sends::restore(client, lost, operator).await).await
    }

    async fn property(&mut self, name: &str) -> Result<Option<String>, LedgerError> {
        self.connection.with("read", async |client| schema::property(client, name).await).await
    }

    async fn set_property(&mut self, name: &str, value: Option<&str>) -> Result<(), LedgerError> {
        self.connection.with("written", async |client| schema::set_property(client, name, value).await).await
    }

    async fn check_can_begin(&mut self, campaign: &str, plan_hash: &str) -> Result<(), LedgerError> {
        let found = self
            .connection
            .with("read", async |client| {
                let sql = "SELECT id FROM sendform.campaign WHERE name = $1";
                let rows = client.query_typed(sql, &[(&campaign, Type::TEXT)]).await?;
                match rows.first() {
                    Some(row) => holder_of_another_plan(client, row.try_get("id")?, plan_hash).await,
                    None => Ok(None),
                }
            })
            .await?;
        found.map_or(Ok(()), |holder| Err(LedgerError::Held { holder }))
    }

    async fn lease_holders(&mut self) -> Result<Vec<LeaseHolder>, LedgerError> {
        let holder = |run: RunRecord| {
            let heartbeat = run.heartbeat_at.map_or_else(String::new, |at| format!(", last heartbeat {at:.0}"));
            let description = format!(
                "run {} of {}: process {} of {} on {} since {:.0}{heartbeat}",
                run.id, run.name, run.pid, run.actor, run.host, run.started_at
            );
            LeaseHolder { run: Some(run.id), description, can_be_unlocked: true }
        };
        Ok(self.runs().await?.into_iter().filter(|run| run.live).map(holder).collect())
    }

    async fn unlock(&mut self, run: i64) -> Result<bool, LedgerError> {
        let now = self.operator.now_ms();
        self.connection.with("written", async |client| unlock(client, run, now).await).await
    }

    async fn begin(
        mut self: Box<Self>,
        start: &RunStart,
        _snapshot: &Snapshot,
    ) -> Result<Box<dyn RunLedger>, LedgerError> {
        let mut retries = 0;
        let clock = Arc::clone(&self.operator.clock);
        let (asked, begun) = loop {
            let (asked, now) = (Moment::of(clock.as_ref()), self.operator.now_ms());
            match self.connection.with("written", async |client| begin(client, start, now).await).await {
                // If an earlier attempt was durable after all, it is a run that never claims anything.
                Err(LedgerError::Lost { .. }) if retries < MAX_BEGIN_RETRIES => retries += 1,
                other => break (asked, other?),
            }
        };
        match begun {
            Begun::Held(holder) => Err(LedgerError::Held { holder }),
            Begun::Moved(to) => Err(moved(&self.place(), &to)),
            Begun::OtherFormat(found) => Err(LedgerError::Newer { found, known: schema::FORMAT }),
            Begun::NotDurable(problem) => Err(LedgerError::NotDurable { place: self.place(), problem }),
            Begun::Run(beginning) => Ok(Box::new(PostgresRun::new(self.connection, clock, start, asked, beginning))),
        }
    }
}

/// Fences a run off, whatever its heartbeat says. Returns false if it is over.
async fn unlock(client: &Client, run: i64, now: i64) -> Result<bool, tokio_postgres::Error> {
    client.batch_execute(BEGIN_DURABLE).await?;
    let fenced = client
        .query_typed(
            "UPDATE sendform.run SET fenced_at = clock_timestamp(), ended_at = $2, ending = $3
             WHERE id = $1 AND ended_at IS NULL RETURNING campaign",
            &[(&run, Type::INT8), (&now, Type::INT8), (&RecordedEnding::Unlocked.as_str(), Type::TEXT)],
        )
        .await?;
    if let Some(row) = fenced.first() {
        abandon(client, row.try_get("campaign")?, run, now).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(!fenced.is_empty())
}

static FENCE_SILENT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE sendform.run SET fenced_at = clock_timestamp(), ended_at = $2, ending = $3
         WHERE id IN (SELECT run FROM sendform.send WHERE send_key = ANY($1) AND state = {})
           AND ended_at IS NULL AND heartbeat_at < clock_timestamp() - lease_ms * interval '1 millisecond'",
        code::INTENT
    )
});

/// Evaluates evidence and records what it settles.
async fn record_evidence(
    client: &Client,
    evidence: &[Evidence],
    now: i64,
) -> Result<Vec<Finding>, tokio_postgres::Error> {
    client.batch_execute(BEGIN_DURABLE).await?;
    let mut keys: Vec<&[u8]> = evidence.iter().map(|piece| &piece.key.0[..]).collect();
    keys.sort_unstable();
    // A decision about a send of a silent run must hold even if that run continues. So it is fenced off first.
    let lost = RecordedEnding::Lost;
    client
        .execute_typed(&FENCE_SILENT, &[(&keys, Type::BYTEA_ARRAY), (&now, Type::INT8), (&lost.as_str(), Type::TEXT)])
        .await?;
    let lock = "SELECT 1 FROM sendform.send WHERE send_key = ANY($1) ORDER BY send_key FOR UPDATE";
    client.execute_typed(lock, &[(&keys, Type::BYTEA_ARRAY)]).await?;
    let rows = client
        .query_typed(
            "SELECT s.send_key, s.state, s.attempt, s.run, r.ended_at IS NULL AS live
             FROM sendform.send s JOIN sendform.run r ON r.id = s.run WHERE s.send_key = ANY($1)",
            &[(&keys, Type::BYTEA_ARRAY)],
        )
        .await?;
    let mut known: HashMap<SendKey, (LastAttempt, bool)> = HashMap::new();
    for row in &rows {
        known.insert(row.try_get("send_key")?, (read_last_attempt(row)?, row.try_get("live")?));
    }
    let mut entries = Vec::new();
    let mut findings = Vec::with_capacity(evidence.len());
    for piece in evidence {
        let before = known.get(&piece.key).copied();
        let live = before.is_some_and(|(_, live)| live);
        let last = before.map(|(last, _)| last);
        let finding = protocol::evaluate(last, live, piece.attempt, piece.resolution);
        if let (Finding::Settled, Some(last)) = (finding, last) {
            if last.state == SendState::Intent {
                entries.push(JournalEntry::of_abandoned(last.run, now, piece.key, last.attempt));
            }
            entries.push(JournalEntry::of_evidence(last, now, piece));
            let state = piece.resolution.state();
            known.insert(piece.key, (LastAttempt { state, ..last }, live));
            client
                .execute_typed(
                    "UPDATE sendform.send SET state = $2 WHERE send_key = $1",
                    &[(&&piece.key.0[..], Type::BYTEA), (&state_code(state), Type::INT2)],
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
}
