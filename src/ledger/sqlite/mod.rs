//! The ledger in one SQLite file: an append-only journal.
//!
//! Which keys are taken is known in memory, loaded from the journal under the lease, so a commit
//! only appends; `benches/README.md` has the figures beside a unique index. Two things keep a second
//! process out. A lock on a file beside the ledger, which the operating system releases when its
//! owner dies. And, whatever happens to locks, the run's number: each commit checks, in its own
//! transaction, that no run began since, and a run begins only where nothing was written since its
//! snapshot was read. So a process with an outdated memory can claim nothing.
//!
//! Evidence, and a late acceptance of a run that was overtaken, may be recorded beside a run. Each
//! commit looks whether anybody else has written since the one before, and takes that in.
//!
//! WAL with `synchronous=FULL`: a commit is on the disk when it returns.

mod backup;
mod codes;
mod contradiction;
mod copy;
mod file;
mod head_file;
mod migrate;
mod place;
mod restore;
mod run;
mod snapshot;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, TransactionBehavior, named_params, params};
use tokio::sync::mpsc;

use super::chain::{JournalDigest, LinkKind, StartLink};
use super::location::canonical_file;
use super::protocol::{self, Finding, Stand};
use super::{
    BySend, Contradiction, Entry, Evidence, Head, Ledger, LedgerError, LedgerKey, Link, LostSend, Move, RunCounts,
    RunLedger, RunRecord, RunStart, Scope, SendKey, SendState, Snapshot, Source, actor, host, instant, milliseconds,
};
use super::{state_code, state_of};
pub use backup::{Forgotten, ForgottenRun, Restore, adopt, adopt_copy, backup};
pub(super) use copy::{SqliteSource, SqliteTarget};
pub use file::lease_holder;
use file::{check_key, create, lease_is_taken, link, take_lease};
pub use head_file::head_path;
use head_file::{HeadFile, Recorded};
use migrate::{FORMAT, migrate};
pub use run::SqliteRun;
use run::Writer;

const COLUMNS: &str = "seq, run, at, kind, send_key, attempt, digest, likeness, address, coupon, expires, message_id, reason, source, actor";

/// How long to wait for another process's short transaction.
const PATIENCE: Duration = Duration::from_secs(10);

/// A ledger file, open for reading and for evidence, or for a run.
pub struct SqliteLedger {
    path: PathBuf,
    connection: Connection,
    /// Held for as long as this process may claim.
    lease: Option<File>,
}

impl SqliteLedger {
    /// Opens a ledger without the lease. `None` if there is none yet.
    pub fn open_existing(path: &Path, key: Option<&LedgerKey>) -> Result<Option<Self>, LedgerError> {
        let path = canonical_file(path);
        if !super::exists(&path)? {
            Recorded::refuse_a_missing_ledger(&path)?;
            return Ok(None);
        }
        place::check(&path)?;
        let recorded = Recorded::read(&path)?;
        let mut connection = open(&path)?;
        let found = file::format(&path, &connection)?;
        if found < FORMAT {
            // A run of an older version may be under way: it would not know what to make of a new format.
            let _lease = take_lease(&path)?;
            migrate(&path, &mut connection, found)?;
        }
        file::refuse_backup(&path, &connection)?;
        copy::refuse_unfinished(&path, &connection)?;
        if let Some(recorded) = recorded {
            recorded.check(&path, &connection)?;
        }
        if let Some(key) = key {
            check_key(&path, &connection, key)?;
        }
        Ok(Some(Self { path, connection, lease: None }))
    }

    /// Opens a ledger for a run, and makes it if there is none: takes the lease, or tells who has it.
    pub fn open_for_run(path: &Path, key: &LedgerKey) -> Result<Self, LedgerError> {
        let path = canonical_file(path);
        let lease = take_lease(&path)?;
        if !super::exists(&path)? {
            Recorded::refuse_a_missing_ledger(&path)?;
            place::refuse_a_log_without_its_ledger(&path)?;
            create(&path, key)?;
            HeadFile::write_now(&path, &open(&path)?)?;
        }
        Self::leased(path, key, lease)
    }

    /// Opens a ledger for a run: takes the lease, or tells who has it. `None` if there is no ledger.
    pub fn open_leased(path: &Path, key: &LedgerKey) -> Result<Option<Self>, LedgerError> {
        let path = canonical_file(path);
        let gone = || Recorded::refuse_a_missing_ledger(&path).map(|()| None);
        if !super::exists(&path)? {
            return gone();
        }
        let lease = take_lease(&path)?;
        if super::exists(&path)? { Self::leased(path, key, lease).map(Some) } else { gone() }
    }

    fn leased(path: PathBuf, key: &LedgerKey, lease: File) -> Result<Self, LedgerError> {
        place::finish_creation(&path)?;
        place::check(&path)?;
        let recorded = Recorded::read(&path)?;
        let mut connection = open(&path)?;
        let found = file::format(&path, &connection)?;
        check_key(&path, &connection, key)?;
        migrate(&path, &mut connection, found)?;
        file::refuse_backup(&path, &connection)?;
        copy::refuse_unfinished(&path, &connection)?;
        copy::refuse_moved(&path, &connection)?;
        if let Some(recorded) = recorded {
            recorded.check(&path, &connection)?;
        }
        Ok(Self { path, connection, lease: Some(lease) })
    }

    fn unreadable(&self, error: &rusqlite::Error) -> LedgerError {
        storage(&self.path, "read", error)
    }

    fn read_runs(&self) -> Result<Vec<RunRecord>, rusqlite::Error> {
        let leased = self.lease.is_none() && lease_is_taken(&self.path);
        let mut statement = self.connection.prepare(
            "SELECT id, campaign, edition, coalesce(name, campaign) AS name, plan_hash, planned_at, recipients,
                    manifest, destination, account, sender, environment, longest_request_ms,
                    host, actor, pid, version, started_at, ended_at, ending,
                    accepted, rejected, unknown, not_sent, digest, id = (SELECT max(id) FROM run) AS latest,
                    CASE WHEN ended_at IS NULL THEN max(started_at, coalesce((
                      SELECT at FROM journal
                      WHERE source IS NULL
                        AND seq < coalesce((SELECT min(first_seq) FROM run later WHERE later.id > run.id), 9223372036854775807)
                      ORDER BY seq DESC LIMIT 1), 0)) ELSE ended_at END AS last_sign
             FROM run ORDER BY id",
        )?;
        let now = Timestamp::now();
        let count = |row: &Row<'_>, column: &str| -> Result<Option<u64>, rusqlite::Error> {
            Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
        };
        let runs = statement.query_map([], |row| {
            let ended_at: Option<i64> = row.get("ended_at")?;
            let figures =
                (count(row, "accepted")?, count(row, "rejected")?, count(row, "unknown")?, count(row, "not_sent")?);
            let counts = match figures {
                (Some(accepted), Some(rejected), Some(unknown), Some(not_sent)) => {
                    Some(RunCounts { accepted, rejected, unknown, not_sent })
                }
                _ => None,
            };
            Ok(RunRecord {
                id: row.get("id")?,
                campaign: row.get("campaign")?,
                edition: row.get("edition")?,
                name: row.get("name")?,
                plan_hash: row.get("plan_hash")?,
                planned_at: instant(row.get("planned_at")?),
                recipients: row.get::<_, i64>("recipients")?.cast_unsigned(),
                manifest: row.get("manifest")?,
                destination: row.get("destination")?,
                account: row.get("account")?,
                sender: row.get("sender")?,
                environment: row.get("environment")?,
                longest_request: count(row, "longest_request_ms")?.map(Duration::from_millis),
                host: row.get("host")?,
                actor: row.get("actor")?,
                pid: row.get("pid")?,
                version: row.get("version")?,
                started_at: instant(row.get("started_at")?),
                heartbeat_at: None,
                // The lock goes with the process.
                lease: Duration::ZERO,
                silent: Duration::try_from(now.duration_since(instant(row.get("last_sign")?))).unwrap_or_default(),
                ended_at: ended_at.map(instant),
                ending: row.get("ending")?,
                counts,
                live: leased && ended_at.is_none() && row.get("latest")?,
                digest: row.get("digest")?,
            })
        })?;
        runs.collect()
    }

    /// Starts a run; see [`Ledger::begin`].
    fn start(self, start: &RunStart, snapshot: &Snapshot) -> Result<SqliteRun, LedgerError> {
        let path = self.path.clone();
        let fail = |error: rusqlite::Error| storage(&path, "written", &error);
        let lease =
            self.lease.ok_or_else(|| LedgerError::Held { holder: "nobody: it was opened for reading".to_owned() })?;
        let mut connection = self.connection;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        // What is known in memory is what was read then. If anybody has written since, whatever
        // became of the lease, it would be incomplete, and somebody could get an offer twice.
        if position(&transaction).map_err(fail)? != snapshot.position {
            return Err(LedgerError::Outdated);
        }
        let started_at = Timestamp::now().as_millisecond();
        transaction
            .execute(
                "INSERT INTO run (campaign, edition, name, plan_hash, planned_at, unique_codes, recipients,
                                  manifest, destination, account, sender, environment, longest_request_ms,
                                  host, actor, pid, version, started_at, first_seq)
                 VALUES (:campaign, :edition, :name, :plan_hash, :planned_at, :unique_codes, :recipients,
                         :manifest, :destination, :account, :sender, :environment, :longest_request_ms,
                         :host, :actor, :pid, :version, :started_at, :first_seq)",
                named_params! {
                    ":campaign": start.campaign,
                    ":edition": start.edition,
                    ":name": start.name,
                    ":plan_hash": start.plan_hash,
                    ":planned_at": start.planned_at.as_millisecond(),
                    ":unique_codes": start.unique_codes,
                    ":recipients": start.recipients.cast_signed(),
                    ":manifest": start.manifest,
                    ":destination": start.destination,
                    ":account": start.account,
                    ":sender": start.sender,
                    ":environment": start.environment,
                    ":longest_request_ms": milliseconds(start.longest_request),
                    ":host": host(),
                    ":actor": actor(),
                    ":pid": std::process::id(),
                    ":version": env!("CARGO_PKG_VERSION"),
                    ":started_at": started_at,
                    ":first_seq": snapshot.position + 1,
                },
            )
            .map_err(fail)?;
        let run = transaction.last_insert_rowid();
        let head = head(&transaction).map_err(fail)?.started(&StartLink {
            run,
            campaign: &start.campaign,
            edition: start.edition,
            plan_hash: &start.plan_hash,
            started_at,
        });
        link(&transaction, head, LinkKind::Start, Some(run), None).map_err(fail)?;
        let mut orphans = Vec::new();
        let mut changed = BySend::default();
        for (key, recorded) in snapshot.sends.iter().filter(|(_, recorded)| recorded.state == SendState::Intent) {
            orphans.push(Entry::abandoned(run, started_at, key, recorded.attempt));
            changed.insert(key, (SendState::Unknown, recorded.attempt));
        }
        append(&transaction, &orphans).map_err(fail)?;
        transaction.commit().map_err(fail)?;
        // Flushed before the first claim.
        let head_file = HeadFile::write_now(&path, &connection)?;

        let identity = Identity::of(&path).map_err(|error| io(&path, "found", &error))?;
        let retry_rejected = start.retry_rejected;
        let writer = Writer {
            path: path.clone(),
            connection,
            _lease: lease,
            head_file,
            identity,
            run,
            before: Arc::clone(&snapshot.sends),
            changed,
            retry_rejected,
            first_seq: snapshot.position + 1,
            seen: snapshot.position + i64::try_from(orphans.len()).unwrap_or(i64::MAX),
            codes: start.unique_codes.then(|| codes::Codes::of(snapshot)),
            digest: JournalDigest::default(),
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.serve(receiver))
            .map_err(|error| io(&path, "written", &error))?;
        let scope =
            Scope { campaign: start.campaign.clone(), edition: start.edition, unique_codes: start.unique_codes };
        Ok(SqliteRun { sender: Some(sender), thread: Some(thread), run, head, path, scope })
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn snapshot(&mut self, scope: &Scope) -> Result<Snapshot, LedgerError> {
        self.read_snapshot(scope)
    }

    async fn runs(&mut self) -> Result<Vec<RunRecord>, LedgerError> {
        self.read_runs().map_err(|error| self.unreadable(&error))
    }

    async fn journal(
        &mut self,
        campaign: Option<&str>,
        visit: &mut (dyn FnMut(Entry) + Send),
    ) -> Result<(), LedgerError> {
        let fail = |error: rusqlite::Error| self.unreadable(&error);
        let sql = format!(
            "SELECT {COLUMNS} FROM journal WHERE ?1 IS NULL OR run IN (SELECT id FROM run WHERE campaign = ?1) ORDER BY seq"
        );
        let mut statement = self.connection.prepare(&sql).map_err(fail)?;
        let mut rows = statement.query([campaign]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let state = state_of(row.get(3).map_err(fail)?)?;
            visit(entry(row, state).map_err(fail)?);
        }
        Ok(())
    }

    async fn similarity_digests(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(i64, i64) + Send),
    ) -> Result<(), LedgerError> {
        let mut read = || -> Result<(), rusqlite::Error> {
            // An intent stands between the start of its run and the start of the next: no two runs have
            // overlapped, unless the ledger comes from a database.
            let overlapped = file::property(&self.connection, copy::OVERLAPPED)?.is_some();
            let mut starts = self.connection.prepare("SELECT id, first_seq FROM run ORDER BY id")?;
            let starts: Vec<(i64, i64)> =
                starts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
            let mut statement = self.connection.prepare(
                "SELECT likeness FROM journal WHERE seq >= ?1 AND seq < ?2 AND run = ?3 AND kind = 1 AND likeness IS NOT NULL",
            )?;
            for (index, (run, first)) in starts.iter().enumerate().filter(|(_, (run, _))| runs.contains(run)) {
                let next = starts.get(index + 1).filter(|_| !overlapped).map_or(i64::MAX, |(_, first)| *first);
                let mut rows = statement.query([*first, next, *run])?;
                while let Some(row) = rows.next()? {
                    visit(*run, row.get(0)?);
                }
            }
            Ok(())
        };
        read().map_err(|error| self.unreadable(&error))
    }

    async fn moves(&mut self, runs: &[i64], visit: &mut (dyn FnMut(Move) + Send)) -> Result<(), LedgerError> {
        let fail = |error: rusqlite::Error| self.unreadable(&error);
        let wanted: std::collections::HashSet<i64> = runs.iter().copied().collect();
        let first: Option<i64> = self
            .connection
            .query_row("SELECT min(first_seq) FROM run WHERE id = ?1", [runs.iter().min()], |row| row.get(0))
            .map_err(fail)?;
        let mut statement = self
            .connection
            .prepare("SELECT run, kind, send_key, likeness FROM journal WHERE seq >= ?1 ORDER BY seq")
            .map_err(fail)?;
        let mut rows = statement.query([first.unwrap_or(i64::MAX)]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let run = row.get(0).map_err(fail)?;
            if wanted.contains(&run) {
                let state = state_of(row.get(1).map_err(fail)?)?;
                let key = SendKey(row.get(2).map_err(fail)?);
                visit(Move { run, key, state, similarity_digest: row.get(3).map_err(fail)? });
            }
        }
        Ok(())
    }

    async fn chain(&mut self) -> Result<Vec<Link>, LedgerError> {
        let read = || -> Result<Vec<Link>, rusqlite::Error> {
            let mut statement =
                self.connection.prepare("SELECT number, hash, kind, run, detail FROM link ORDER BY number")?;
            let links = statement.query_map([], |row| {
                let kind: String = row.get(2)?;
                Ok(Link {
                    head: Head { number: row.get::<_, i64>(0)?.cast_unsigned(), hash: row.get(1)? },
                    kind: LinkKind::parse(&kind).ok_or(rusqlite::Error::InvalidQuery)?,
                    run: row.get(3)?,
                    detail: row.get(4)?,
                })
            })?;
            links.collect()
        };
        read().map_err(|error| self.unreadable(&error))
    }

    async fn sound(&mut self) -> Result<Vec<String>, LedgerError> {
        let read = || -> Result<Vec<String>, rusqlite::Error> {
            let mut statement = self.connection.prepare("PRAGMA integrity_check(20)")?;
            let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
            let mut found: Vec<String> = lines.collect::<Result<_, _>>()?;
            found.retain(|line| line != "ok");
            // A snapshot reads the journal from there on.
            let sql = "SELECT count(*) FROM journal j JOIN run r ON r.id = j.run WHERE j.seq < r.first_seq";
            let early: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
            if early > 0 {
                found.push(format!("{early} entries stand before the start of their run"));
            }
            Ok(found)
        };
        match read() {
            Ok(found) => Ok(found),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => Ok(vec![error.to_string()]),
            Err(error) => Err(self.unreadable(&error)),
        }
    }

    async fn contradictions(&mut self) -> Result<Vec<Contradiction>, LedgerError> {
        contradiction::read(&self.connection).map_err(|error| self.unreadable(&error))
    }

    async fn evidence(&mut self, evidence: &[Evidence]) -> Result<Vec<Finding>, LedgerError> {
        let fail = |error: rusqlite::Error| storage(&self.path, "written", &error);
        let leased = self.lease.is_none() && lease_is_taken(&self.path);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        // Ordered, not hashed: the keys may be anybody's, and equal halves of them would collide.
        let wanted: std::collections::BTreeSet<SendKey> = evidence.iter().map(|piece| piece.key).collect();
        let mut known = stands(&transaction, |key| wanted.contains(key)).map_err(fail)?;
        let last: (i64, bool) = transaction
            .query_row("SELECT id, ended_at IS NULL FROM run ORDER BY id DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .map_err(fail)?
            .unwrap_or((0, false));
        let now = Timestamp::now().as_millisecond();
        let mut entries = Vec::new();
        let mut findings = Vec::with_capacity(evidence.len());
        for piece in evidence {
            let before = known.get(&piece.key).copied();
            let live = leased && last.1 && before.is_some_and(|stand| stand.run == last.0);
            let finding = protocol::weigh(before, live, piece.attempt, piece.resolution);
            if let (Finding::Settled, Some(stand)) = (finding, before) {
                if stand.state == SendState::Intent {
                    entries.push(Entry::abandoned(stand.run, now, piece.key, stand.attempt));
                }
                entries.push(Entry::evidence(stand, now, piece));
                known.insert(piece.key, Stand { state: piece.resolution.state(), ..stand });
            }
            findings.push(finding);
        }
        append(&transaction, &entries).map_err(fail)?;
        transaction.commit().map_err(fail)?;
        Ok(findings)
    }

    async fn restore_sends(&mut self, lost: &[LostSend]) -> Result<Vec<Finding>, LedgerError> {
        let path = self.path.clone();
        restore::restore(&mut self.connection, lost).map_err(|error| storage(&path, "written", &error))
    }

    async fn property(&mut self, name: &str) -> Result<Option<String>, LedgerError> {
        file::property(&self.connection, name).map_err(|error| self.unreadable(&error))
    }

    async fn set_property(&mut self, name: &str, value: Option<&str>) -> Result<(), LedgerError> {
        file::set_property(&self.connection, name, value).map_err(|error| storage(&self.path, "written", &error))
    }

    async fn admits(&mut self, _campaign: &str, _plan_hash: &str) -> Result<(), LedgerError> {
        match self.lease {
            Some(_) => Ok(()),
            None => lease_holder(&self.path).map_or(Ok(()), |holder| Err(LedgerError::Held { holder })),
        }
    }

    async fn begin(self: Box<Self>, start: &RunStart, snapshot: &Snapshot) -> Result<Box<dyn RunLedger>, LedgerError> {
        Ok(Box::new(self.start(start, snapshot)?))
    }
}

fn open(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let fail = |error: rusqlite::Error| storage(path, "opened", &error);
    let connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    connection.busy_timeout(PATIENCE).map_err(fail)?;
    // A connection's own setting; it touches no file.
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    Ok(connection)
}

/// Which file a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path)?;
        Ok(Self(metadata.dev(), metadata.ino()))
    }
}

/// The number of the last entry of the journal.
fn position(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.prepare_cached("SELECT coalesce(max(seq), 0) FROM journal")?.query_row([], |row| row.get(0))
}

/// The last link of the chain.
fn head(connection: &Connection) -> Result<Head, rusqlite::Error> {
    connection.query_row("SELECT number, hash FROM link ORDER BY number DESC LIMIT 1", [], |row| {
        Ok(Head { number: row.get::<_, i64>(0)?.cast_unsigned(), hash: row.get(1)? })
    })
}

/// Where the wanted sends stand, from the journal.
fn stands(
    connection: &Connection,
    wanted: impl Fn(&SendKey) -> bool,
) -> Result<HashMap<SendKey, Stand>, rusqlite::Error> {
    let mut found: HashMap<SendKey, Stand> = HashMap::new();
    let mut statement = connection.prepare("SELECT send_key, kind, attempt, run FROM journal ORDER BY seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = SendKey(row.get(0)?);
        if !wanted(&key) {
            continue;
        }
        let state = state_of(row.get(1)?).map_err(|_| rusqlite::Error::InvalidQuery)?;
        let (attempt, run) = (row.get(2)?, row.get(3)?);
        let stand = found.entry(key).or_insert(Stand { state, attempt, run });
        stand.state = state;
        // A late acceptance may be about an attempt before the last.
        stand.attempt = stand.attempt.max(attempt);
        if state == SendState::Intent {
            stand.run = run;
        }
    }
    Ok(found)
}

fn append(connection: &Connection, entries: &[Entry]) -> Result<(), rusqlite::Error> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO journal (run, at, kind, send_key, attempt, digest, likeness, address, coupon, expires, message_id, reason, source, actor)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    for entry in entries {
        insert.execute(params![
            entry.run,
            entry.at,
            state_code(entry.state),
            entry.key.0,
            entry.attempt,
            entry.digest,
            entry.similarity_digest,
            entry.masked,
            entry.coupon,
            entry.expires,
            entry.message_id,
            entry.reason,
            entry.source.map(Source::as_str),
            entry.actor
        ])?;
    }
    Ok(())
}

fn entry(row: &Row<'_>, state: SendState) -> Result<Entry, rusqlite::Error> {
    Ok(Entry {
        seq: row.get(0)?,
        run: row.get(1)?,
        at: row.get(2)?,
        state,
        key: SendKey(row.get(4)?),
        attempt: row.get(5)?,
        digest: row.get(6)?,
        similarity_digest: row.get(7)?,
        masked: row.get(8)?,
        coupon: row.get(9)?,
        expires: row.get(10)?,
        message_id: row.get(11)?,
        reason: row.get(12)?,
        source: row.get::<_, Option<String>>(13)?.and_then(|source| Source::parse(&source)),
        actor: row.get(14)?,
    })
}

fn storage(path: &Path, doing: &'static str, error: &rusqlite::Error) -> LedgerError {
    let problem = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
        Some(ErrorCode::ReadOnly) => "it is read-only".to_owned(),
        Some(ErrorCode::NotADatabase) => return LedgerError::NotALedger(path.display().to_string()),
        _ => error.to_string(),
    };
    LedgerError::Storage { path: path.display().to_string(), doing, problem }
}

fn io(path: &Path, doing: &'static str, error: &std::io::Error) -> LedgerError {
    LedgerError::Storage { path: path.display().to_string(), doing, problem: error.to_string() }
}
