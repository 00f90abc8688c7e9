//! The ledger in one SQLite file: an append-only journal.
//!
//! The process knows in memory which sends are claimed, loaded from the journal under the lease, so a commit
//! only appends; `docs/internals/performance.md` compares this with a unique index. Two things keep a second
//! process out. First, a lock on a file beside the ledger, which the operating system releases when its owner
//! dies. Second, even if locks do not work, the run's number: each commit checks in its own transaction that
//! no other run began since, and a run begins only if nothing was written since its snapshot was read. So a
//! process whose memory is out of date can claim nothing.
//!
//! Evidence, and a late acceptance of a run that was overtaken, may be recorded during a run. Each commit
//! checks whether another process has written since the last commit, and reads what it wrote.
//!
//! WAL with `synchronous=FULL`: a commit is on the disk when it returns.

mod backup;
mod code_owners;
mod copy;
mod file;
mod file_checks;
mod head_file;
mod late_outcomes;
mod migrate;
mod restore;
mod restore_sends;
mod rows;
mod run;
mod snapshot;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, named_params};
use tokio::sync::mpsc;

use super::chain::{JournalDigest, Link, LinkKind};
use super::columns::columns;
use super::contract::{LeaseHolder, Ledger, RunLedger, Scope, Snapshot};
use super::contradiction::Contradiction;
use super::error::LedgerError;
use super::head::StartLink;
use super::key::LedgerKey;
use super::location::{canonical_file, exists};
use super::lost_send::LostSend;
use super::protocol::{self, Finding, LastAttempt};
use super::record::{JournalEntry, Operator, RunCounts, RunRecord, RunStart, Transition, code, instant, milliseconds};
use crate::domain::send::{BySend, Evidence, SendKey, SendState};
pub use backup::{adopt, adopt_copy, backup};
pub(super) use copy::{SqliteSource, SqliteTarget};
pub use file::lease_holder;
use file::{check_key, create, lease_is_taken, take_lease};
pub use head_file::head_path;
use head_file::{HeadFile, HeadRecord};
use migrate::{FORMAT, migrate};
pub use restore::{Forgotten, ForgottenRun, Restore};
use rows::{add_link, append, head, load_states, position, read_count, read_head, storage};
pub use run::SqliteRun;
use run::Writer;

/// How long to wait for another process's short transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A ledger file, open for reading and for evidence, or for a run.
pub struct SqliteLedger {
    path: PathBuf,
    connection: Connection,
    operator: Operator,
    /// Held for as long as this process may claim.
    lease: Option<File>,
}

impl SqliteLedger {
    /// Opens a ledger without the lease. `None` if there is none yet.
    pub fn open_existing(
        path: &Path,
        operator: &Operator,
        key: Option<&LedgerKey>,
    ) -> Result<Option<Self>, LedgerError> {
        let path = canonical_file(path);
        if !exists(&path)? {
            HeadRecord::refuse_a_missing_ledger(&path)?;
            return Ok(None);
        }
        file_checks::check(&path)?;
        let recorded = HeadRecord::read(&path)?;
        let mut connection = open(&path)?;
        let found = file::format(&path, &connection)?;
        if found < FORMAT {
            // A run of an older version may be under way, and it would not understand the new format.
            let _lease = take_lease(&path, operator)?;
            migrate(&path, &mut connection, found)?;
        }
        check_usable(&path, &connection, recorded)?;
        if let Some(key) = key {
            check_key(&path, &connection, key)?;
        }
        Ok(Some(Self { path, connection, operator: operator.clone(), lease: None }))
    }

    /// Opens a ledger for a run, and creates it if there is none. Takes the lease; otherwise the error names
    /// its holder.
    pub fn open_or_create(path: &Path, operator: &Operator, key: &LedgerKey) -> Result<Self, LedgerError> {
        let path = canonical_file(path);
        let lease = take_lease(&path, operator)?;
        if !exists(&path)? {
            HeadRecord::refuse_a_missing_ledger(&path)?;
            file_checks::refuse_a_log_without_its_ledger(&path)?;
            create(&path, key)?;
            HeadFile::write_now(&path, &open(&path)?)?;
        }
        Self::leased(path, operator, key, lease)
    }

    /// Opens a ledger for a run. Takes the lease; otherwise the error names its holder. `None` if there is no
    /// ledger.
    pub fn open_leased(path: &Path, operator: &Operator, key: &LedgerKey) -> Result<Option<Self>, LedgerError> {
        let path = canonical_file(path);
        let gone = || HeadRecord::refuse_a_missing_ledger(&path).map(|()| None);
        if !exists(&path)? {
            return gone();
        }
        let lease = take_lease(&path, operator)?;
        if exists(&path)? { Self::leased(path, operator, key, lease).map(Some) } else { gone() }
    }

    fn leased(path: PathBuf, operator: &Operator, key: &LedgerKey, lease: File) -> Result<Self, LedgerError> {
        file_checks::finish_creation(&path)?;
        file_checks::check(&path)?;
        let recorded = HeadRecord::read(&path)?;
        let mut connection = open(&path)?;
        let found = file::format(&path, &connection)?;
        check_key(&path, &connection, key)?;
        migrate(&path, &mut connection, found)?;
        copy::refuse_moved(&path, &connection)?;
        check_usable(&path, &connection, recorded)?;
        Ok(Self { path, connection, operator: operator.clone(), lease: Some(lease) })
    }

    fn unreadable(&self, error: rusqlite::Error) -> LedgerError {
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
        let now = self.operator.clock.now();
        let runs = statement.query_map([], |row| {
            let ended_at: Option<i64> = row.get("ended_at")?;
            let figures = (
                read_count(row, "accepted")?,
                read_count(row, "rejected")?,
                read_count(row, "unknown")?,
                read_count(row, "not_sent")?,
            );
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
                longest_request: read_count(row, "longest_request_ms")?.map(Duration::from_millis),
                host: row.get("host")?,
                actor: row.get("actor")?,
                pid: row.get("pid")?,
                version: row.get("version")?,
                started_at: instant(row.get("started_at")?),
                heartbeat_at: None,
                // The operating system releases the lock when the process ends.
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
        let Self { path, mut connection, operator, lease } = self;
        let fail = |error: rusqlite::Error| storage(&path, "written", error);
        let lease = lease.ok_or(LedgerError::Internal("a run was started on a ledger that was opened for reading"))?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        // The snapshot is what this process knows. If anybody has written since, it is incomplete, whatever
        // the lease says, and somebody could get an offer twice.
        if position(&transaction).map_err(fail)? != snapshot.position {
            return Err(LedgerError::Outdated);
        }
        let started_at = operator.now_ms();
        let run = insert_run(&transaction, start, started_at, snapshot.position + 1).map_err(fail)?;
        let head = head(&transaction).map_err(fail)?.started(&StartLink {
            run,
            campaign: &start.campaign,
            edition: start.edition,
            plan_hash: &start.plan_hash,
            started_at,
        });
        add_link(&transaction, head, LinkKind::Start, Some(run), None).map_err(fail)?;
        let mut orphans = Vec::new();
        let mut changed = BySend::default();
        for (key, recorded) in snapshot.sends.iter().filter(|(_, recorded)| recorded.state == SendState::Intent) {
            orphans.push(JournalEntry::of_abandoned(run, started_at, key, recorded.attempt));
            changed.insert(key, (SendState::Unknown, recorded.attempt));
        }
        append(&transaction, &orphans).map_err(fail)?;
        if HeadRecord::read(&path)?.is_some() {
            head_file::require(&transaction).map_err(fail)?;
        }
        transaction.commit().map_err(fail)?;
        // Flushed before the first claim.
        let head_file = HeadFile::write_now(&path, &connection)?;

        let identity = Identity::of(&path).map_err(|error| LedgerError::io(&path, "found", error))?;
        let writer = Writer {
            path: path.clone(),
            connection,
            clock: Arc::clone(&operator.clock),
            _lease: lease,
            head_file,
            identity,
            run,
            before: Arc::clone(&snapshot.sends),
            changed,
            retry_rejected: start.retry_rejected,
            first_seq: snapshot.position + 1,
            seen: snapshot.position + i64::try_from(orphans.len()).unwrap_or(i64::MAX),
            codes: start.unique_codes.then(|| code_owners::CodeOwners::of(snapshot)),
            digest: JournalDigest::default(),
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.serve(receiver))
            .map_err(|error| LedgerError::io(&path, "written", error))?;
        let scope =
            Scope { campaign: start.campaign.clone(), edition: start.edition, unique_codes: start.unique_codes };
        Ok(SqliteRun { sender: Some(sender), thread: Some(thread), run, head, path, operator, scope })
    }
}

/// Records a run that starts. Returns its number.
fn insert_run(
    connection: &Connection,
    start: &RunStart,
    started_at: i64,
    first_seq: i64,
) -> Result<i64, rusqlite::Error> {
    connection.execute(
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
            ":host": start.host,
            ":actor": start.actor,
            ":pid": std::process::id(),
            ":version": env!("CARGO_PKG_VERSION"),
            ":started_at": started_at,
            ":first_seq": first_seq,
        },
    )?;
    Ok(connection.last_insert_rowid())
}

/// Refuses a file that is a ledger and must not be used as one.
fn check_usable(path: &Path, connection: &Connection, recorded: Option<HeadRecord>) -> Result<(), LedgerError> {
    file::refuse_backup(path, connection)?;
    copy::refuse_unfinished(path, connection)?;
    match recorded {
        Some(recorded) => recorded.check(path, connection),
        None => head_file::refuse_a_missing_head(path, connection),
    }
}

columns!(digest: RUN = "run", SIMILARITY_DIGEST = "likeness");

columns!(transition: RUN = "run", KIND = "kind", SEND_KEY = "send_key", SIMILARITY_DIGEST = "likeness");

#[async_trait]
impl Ledger for SqliteLedger {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn snapshot(&mut self, scope: &Scope) -> Result<Snapshot, LedgerError> {
        self.read_snapshot(scope)
    }

    async fn runs(&mut self) -> Result<Vec<RunRecord>, LedgerError> {
        self.read_runs().map_err(|error| self.unreadable(error))
    }

    async fn journal(
        &mut self,
        campaign: Option<&str>,
        visit: &mut (dyn FnMut(JournalEntry) + Send),
    ) -> Result<(), LedgerError> {
        rows::visit_journal(&self.connection, campaign, visit).map_err(|error| self.unreadable(error))
    }

    async fn similarity_digests(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(i64, i64) + Send),
    ) -> Result<(), LedgerError> {
        let mut read = || -> Result<(), rusqlite::Error> {
            // The intents of a run lie between its start and the start of the next run: no two runs have
            // overlapped, unless the ledger comes from a database.
            let overlapped = rows::property(&self.connection, copy::OVERLAPPED)?.is_some();
            let mut starts = self.connection.prepare("SELECT id, first_seq FROM run ORDER BY id")?;
            let starts: Vec<(i64, i64)> =
                starts.query_map([], |row| Ok((row.get("id")?, row.get("first_seq")?)))?.collect::<Result<_, _>>()?;
            let mut statement = self.connection.prepare(&format!(
                "SELECT {} FROM journal WHERE seq >= ?1 AND seq < ?2 AND run = ?3 AND kind = {} AND likeness IS NOT NULL",
                digest::LIST,
                code::INTENT
            ))?;
            for (index, (run, first)) in starts.iter().enumerate().filter(|(_, (run, _))| runs.contains(run)) {
                let next = starts.get(index + 1).filter(|_| !overlapped).map_or(i64::MAX, |(_, first)| *first);
                let mut rows = statement.query([*first, next, *run])?;
                while let Some(row) = rows.next()? {
                    visit(*run, row.get(digest::SIMILARITY_DIGEST)?);
                }
            }
            Ok(())
        };
        read().map_err(|error| self.unreadable(error))
    }

    async fn transitions(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(Transition) + Send),
    ) -> Result<(), LedgerError> {
        let wanted: BTreeSet<i64> = runs.iter().copied().collect();
        let mut read = || -> Result<(), rusqlite::Error> {
            let sql = "SELECT min(first_seq) AS first FROM run WHERE id = ?1";
            let first: Option<i64> = self.connection.query_row(sql, [runs.iter().min()], |row| row.get("first"))?;
            let sql = format!("SELECT {} FROM journal WHERE seq >= ?1 ORDER BY seq", transition::LIST);
            let mut statement = self.connection.prepare(&sql)?;
            let mut rows = statement.query([first.unwrap_or(i64::MAX)])?;
            while let Some(row) = rows.next()? {
                let run = row.get(transition::RUN)?;
                if wanted.contains(&run) {
                    visit(Transition {
                        run,
                        key: row.get(transition::SEND_KEY)?,
                        state: row.get(transition::KIND)?,
                        similarity_digest: row.get(transition::SIMILARITY_DIGEST)?,
                    });
                }
            }
            Ok(())
        };
        read().map_err(|error| self.unreadable(error))
    }

    async fn chain(&mut self) -> Result<Vec<Link>, LedgerError> {
        let read = || -> Result<Vec<Link>, rusqlite::Error> {
            let mut statement =
                self.connection.prepare("SELECT number, hash, kind, run, detail FROM link ORDER BY number")?;
            let links = statement.query_map([], |row| {
                Ok(Link {
                    head: read_head(row)?,
                    kind: row.get("kind")?,
                    run: row.get("run")?,
                    detail: row.get("detail")?,
                })
            })?;
            links.collect()
        };
        read().map_err(|error| self.unreadable(error))
    }

    async fn verify_storage(&mut self) -> Result<Vec<String>, LedgerError> {
        let read = || -> Result<Vec<String>, rusqlite::Error> {
            let mut statement = self.connection.prepare("PRAGMA integrity_check(20)")?;
            let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
            let mut found: Vec<String> = lines.collect::<Result<_, _>>()?;
            found.retain(|line| line != "ok");
            // A snapshot reads a run's entries from `first_seq` on.
            let sql = "SELECT count(*) FROM journal j JOIN run r ON r.id = j.run WHERE j.seq < r.first_seq";
            let early: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
            if early > 0 {
                found.push(format!("{early} entries lie before the start of their run"));
            }
            Ok(found)
        };
        match read() {
            Ok(found) => Ok(found),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => Ok(vec![error.to_string()]),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    async fn contradictions(&mut self) -> Result<Vec<Contradiction>, LedgerError> {
        late_outcomes::contradictions(&self.connection).map_err(|error| self.unreadable(error))
    }

    async fn record_evidence(&mut self, evidence: &[Evidence]) -> Result<Vec<Finding>, LedgerError> {
        let leased = self.lease.is_none() && lease_is_taken(&self.path);
        let now = self.operator.now_ms();
        record_evidence(&mut self.connection, evidence, leased, now)
            .map_err(|error| storage(&self.path, "written", error))
    }

    async fn restore_sends(&mut self, lost: &[LostSend]) -> Result<Vec<Finding>, LedgerError> {
        restore_sends::restore(&mut self.connection, lost, &self.operator)
            .map_err(|error| storage(&self.path, "written", error))
    }

    async fn property(&mut self, name: &str) -> Result<Option<String>, LedgerError> {
        rows::property(&self.connection, name).map_err(|error| self.unreadable(error))
    }

    async fn set_property(&mut self, name: &str, value: Option<&str>) -> Result<(), LedgerError> {
        rows::set_property(&self.connection, name, value).map_err(|error| storage(&self.path, "written", error))
    }

    async fn check_can_begin(&mut self, _campaign: &str, _plan_hash: &str) -> Result<(), LedgerError> {
        match self.lease {
            Some(_) => Ok(()),
            None => self.holder().map_or(Ok(()), |holder| Err(LedgerError::Held { holder })),
        }
    }

    async fn lease_holders(&mut self) -> Result<Vec<LeaseHolder>, LedgerError> {
        let holder = |description| LeaseHolder { run: None, description, can_be_unlocked: false };
        Ok(self.holder().map(holder).into_iter().collect())
    }

    async fn unlock(&mut self, _run: i64) -> Result<bool, LedgerError> {
        self.holder().map_or(Ok(false), |holder| Err(LedgerError::Held { holder }))
    }

    async fn begin(self: Box<Self>, start: &RunStart, snapshot: &Snapshot) -> Result<Box<dyn RunLedger>, LedgerError> {
        Ok(Box::new(self.start(start, snapshot)?))
    }
}

impl SqliteLedger {
    /// Another process that holds the lease.
    fn holder(&self) -> Option<String> {
        if self.lease.is_some() { None } else { lease_holder(&self.path) }
    }
}

/// Evaluates evidence and records what it settles. `leased` says whether another process holds the lease.
fn record_evidence(
    connection: &mut Connection,
    evidence: &[Evidence],
    leased: bool,
    now: i64,
) -> Result<Vec<Finding>, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Ordered, not hashed: somebody may choose the keys so that their first halves collide.
    let wanted: BTreeSet<SendKey> = evidence.iter().map(|piece| piece.key).collect();
    let mut known = load_states(&transaction, |key| wanted.contains(key))?;
    let sql = "SELECT id, ended_at IS NULL AS open FROM run ORDER BY id DESC LIMIT 1";
    let last_run: Option<(i64, bool)> =
        transaction.query_row(sql, [], |row| Ok((row.get("id")?, row.get("open")?))).optional()?;
    let live_run = last_run.filter(|(_, open)| leased && *open).map(|(run, _)| run);
    let mut entries = Vec::new();
    let mut findings = Vec::with_capacity(evidence.len());
    for piece in evidence {
        let before = known.get(&piece.key).copied();
        let live = before.is_some_and(|last| live_run == Some(last.run));
        let finding = protocol::evaluate(before, live, piece.attempt, piece.resolution);
        if let (Finding::Settled, Some(last)) = (finding, before) {
            if last.state == SendState::Intent {
                entries.push(JournalEntry::of_abandoned(last.run, now, piece.key, last.attempt));
            }
            entries.push(JournalEntry::of_evidence(last, now, piece));
            known.insert(piece.key, LastAttempt { state: piece.resolution.state(), ..last });
        }
        findings.push(finding);
    }
    append(&transaction, &entries)?;
    transaction.commit()?;
    Ok(findings)
}

fn open(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let fail = |error: rusqlite::Error| storage(path, "opened", error);
    let connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    // A setting of this connection; it changes no file.
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    Ok(connection)
}

/// Device and inode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path)?;
        Ok(Self(metadata.dev(), metadata.ino()))
    }
}
