//! The ledger in one SQLite file: an append-only journal.
//!
//! Which keys are taken is known in memory, loaded from the journal under the lease, so a commit
//! only appends. Two things keep a second process out. A lock on a file beside the ledger, which
//! the operating system releases when its owner dies. And, whatever happens to locks, the numbers
//! of the journal: this process gives each row the number after the last one it knows of, so if
//! anybody else has written since, the commit fails on the primary key and nothing is sent.
//!
//! WAL with `synchronous=FULL`: a commit is on the disk when it returns.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::{Batch, Claim, Ending, LedgerError, LedgerKey, Recorded, RunLedger, RunStart, SendKey, Snapshot, State};
use crate::gateway::Outcome;

/// The format of the file. A newer one is refused; an older one would be migrated here.
const FORMAT: i64 = 1;

/// `SNDF`: tells a ledger from other SQLite files.
const APPLICATION: i64 = 0x534e_4446;

const SCHEMA: &str = "
CREATE TABLE property (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE run (
  id INTEGER PRIMARY KEY,
  campaign TEXT NOT NULL, edition INTEGER NOT NULL,
  plan_hash TEXT NOT NULL, planned_at INTEGER NOT NULL, pool INTEGER NOT NULL, recipients INTEGER NOT NULL,
  host TEXT NOT NULL, actor TEXT NOT NULL, pid INTEGER NOT NULL, version TEXT NOT NULL,
  started_at INTEGER NOT NULL, first_seq INTEGER NOT NULL,
  ended_at INTEGER, ending TEXT
) STRICT;
CREATE INDEX run_campaign ON run (campaign, edition);
-- kind: 1 intent, 2 accepted, 3 rejected, 4 unknown, 5 not sent. Times are epoch milliseconds.
CREATE TABLE journal (
  seq INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES run (id),
  at INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  send_key BLOB NOT NULL,
  attempt INTEGER NOT NULL,
  digest BLOB, address TEXT, coupon TEXT, expires INTEGER,
  message_id TEXT, reason TEXT
) STRICT;
";

/// A ledger file, open for reading, or for a run.
pub struct SqliteLedger {
    path: PathBuf,
    connection: Connection,
    /// Held for as long as this process may write.
    lease: Option<File>,
}

/// One campaign's figures, for `status`.
#[derive(Debug, Clone, Serialize)]
pub struct CampaignStatus {
    /// The campaign.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// How many people the last run was for.
    pub recipients: u64,
    /// By state.
    pub accepted: u64,
    /// By state.
    pub rejected: u64,
    /// By state.
    pub unknown: u64,
    /// Being sent by a run that is under way now.
    pub in_flight: u64,
    /// The last run.
    pub last_run: RunRecord,
}

/// One run, for `status`.
#[derive(Debug, Clone, Serialize)]
pub struct RunRecord {
    /// Its number in this ledger.
    pub id: i64,
    /// The plan that was approved.
    pub plan_hash: String,
    /// Where.
    pub host: String,
    /// Who.
    pub actor: String,
    /// The version of this program.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended; nothing if it did not get to say so.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub ending: Option<String>,
}

impl SqliteLedger {
    /// Opens a ledger for reading. `None` if there is none yet.
    pub fn open_existing(path: &Path, key: Option<&LedgerKey>) -> Result<Option<Self>, LedgerError> {
        if !super::exists(path)? {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| storage(path, "read", &error))?;
        let ledger = Self { path: path.to_owned(), connection, lease: None };
        ledger.check(key)?;
        Ok(Some(ledger))
    }

    /// Opens a ledger for a run, and makes it if there is none: takes the lease, or tells who has it.
    pub fn open_for_run(path: &Path, key: &LedgerKey) -> Result<Self, LedgerError> {
        let lease = take_lease(path)?;
        if !super::exists(path)? {
            create(path, key)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| storage(path, "opened", &error))?;
        let fail = |error: rusqlite::Error| storage(path, "written", &error);
        connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(fail)?;
        let ledger = Self { path: path.to_owned(), connection, lease: Some(lease) };
        ledger.check(Some(key))?;
        ledger.connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
        Ok(ledger)
    }

    /// Whether this file is a ledger, of a format that is known, made with this key.
    fn check(&self, key: Option<&LedgerKey>) -> Result<(), LedgerError> {
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let application = pragma("application_id").map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => LedgerError::NotALedger(self.path.display().to_string()),
            _ => storage(&self.path, "read", &error),
        })?;
        if application != APPLICATION {
            return Err(LedgerError::NotALedger(self.path.display().to_string()));
        }
        let found = pragma("user_version").map_err(|error| self.unreadable(&error))?;
        if found > FORMAT {
            return Err(LedgerError::Newer { found, known: FORMAT });
        }
        if let Some(key) = key {
            let ledger: Option<String> = self
                .connection
                .query_row("SELECT value FROM property WHERE name = 'key_fingerprint'", [], |row| row.get(0))
                .optional()
                .map_err(|error| self.unreadable(&error))?;
            let (ledger, given) = (ledger.unwrap_or_default(), key.fingerprint());
            if ledger != given {
                return Err(LedgerError::WrongKey { ledger, given });
            }
        }
        Ok(())
    }

    fn unreadable(&self, error: &rusqlite::Error) -> LedgerError {
        storage(&self.path, "read", error)
    }

    /// Everything that is recorded of one edition of a campaign.
    pub fn snapshot(&self, campaign: &str, edition: u32, pool: bool) -> Result<Snapshot, LedgerError> {
        let fail = |error: rusqlite::Error| self.unreadable(&error);
        // One read transaction: all of it is as of one moment.
        let _moment = self.connection.unchecked_transaction().map_err(fail)?;
        let position = position(&self.connection).map_err(fail)?;
        let mut snapshot = Snapshot { position, ..Snapshot::default() };
        let mut rows = self
            .connection
            .prepare(
                "SELECT j.kind, j.send_key, j.attempt, j.coupon, j.run FROM journal j JOIN run r ON r.id = j.run
                 WHERE r.campaign = ?1 AND r.edition = ?2 ORDER BY j.seq",
            )
            .map_err(fail)?;
        let mut rows = rows.query(params![campaign, edition]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let kind: i64 = row.get(0).map_err(fail)?;
            let key = SendKey(row.get(1).map_err(fail)?);
            let attempt: u32 = row.get(2).map_err(fail)?;
            let state = state(kind).ok_or(LedgerError::Newer { found: kind, known: FORMAT })?;
            let coupon: Option<String> = row.get(3).map_err(fail)?;
            let entry = snapshot.sends.entry(key).or_insert_with(|| Recorded {
                state,
                attempt,
                run: 0,
                coupon: Box::default(),
            });
            if state == State::Intent {
                entry.run = row.get(4).map_err(fail)?;
            }
            entry.state = state;
            entry.attempt = attempt;
            if let Some(coupon) = coupon {
                entry.coupon = coupon.into();
            }
        }
        snapshot.planned_at = self.planned_at(&snapshot.sends)?;
        if pool {
            let mut rows = self
                .connection
                .prepare(
                    "SELECT j.coupon FROM run r JOIN journal j ON j.run = r.id
                     WHERE r.pool = 1 AND j.kind = 1 AND NOT (r.campaign = ?1 AND r.edition = ?2)",
                )
                .map_err(fail)?;
            let codes = rows.query_map(params![campaign, edition], |row| row.get::<_, String>(0)).map_err(fail)?;
            snapshot.spent_codes = codes.map(|code| code.map(Into::into)).collect::<Result<_, _>>().map_err(fail)?;
        }
        Ok(snapshot)
    }

    /// The instant of the plan that the first messages went out under. A run that sent nothing does not count.
    fn planned_at(&self, sends: &HashMap<SendKey, Recorded>) -> Result<Option<Timestamp>, LedgerError> {
        let first = sends.values().filter(|send| send.state != State::NotSent).map(|send| send.run).min();
        let milliseconds: Option<i64> = self
            .connection
            .query_row("SELECT planned_at FROM run WHERE id = ?1", [first], |row| row.get(0))
            .optional()
            .map_err(|error| self.unreadable(&error))?;
        Ok(milliseconds.map(instant))
    }

    /// The figures of all campaigns, or of one, the latest first.
    pub fn status(&self, campaign: Option<&str>) -> Result<Vec<CampaignStatus>, LedgerError> {
        let fail = |error: rusqlite::Error| self.unreadable(&error);
        let live = lease_is_taken(&self.path);
        let mut statement = self
            .connection
            .prepare(
                "SELECT id, campaign, edition, plan_hash, recipients, host, actor, version, started_at, ended_at, ending FROM run
                 WHERE id IN (SELECT max(id) FROM run WHERE ?1 IS NULL OR campaign = ?1 GROUP BY campaign, edition) ORDER BY id DESC",
            )
            .map_err(fail)?;
        let mut rows = statement.query([campaign]).map_err(fail)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(fail)? {
            let last_run = RunRecord {
                id: row.get(0).map_err(fail)?,
                plan_hash: row.get(3).map_err(fail)?,
                host: row.get(5).map_err(fail)?,
                actor: row.get(6).map_err(fail)?,
                version: row.get(7).map_err(fail)?,
                started_at: instant(row.get(8).map_err(fail)?),
                ended_at: row.get::<_, Option<i64>>(9).map_err(fail)?.map(instant),
                ending: row.get(10).map_err(fail)?,
            };
            let campaign: String = row.get(1).map_err(fail)?;
            let edition: u32 = row.get(2).map_err(fail)?;
            let snapshot = self.snapshot(&campaign, edition, false)?;
            let count = |wanted: State| snapshot.sends.values().filter(|send| send.state == wanted).count() as u64;
            let open = count(State::Intent);
            let under_way = live && last_run.ended_at.is_none();
            found.push(CampaignStatus {
                recipients: row.get::<_, i64>(4).map_err(fail)?.cast_unsigned(),
                accepted: count(State::Accepted),
                rejected: count(State::Rejected),
                unknown: count(State::Unknown) + if under_way { 0 } else { open },
                in_flight: if under_way { open } else { 0 },
                campaign,
                edition,
                last_run,
            });
        }
        Ok(found)
    }

    /// Starts a run: writes down as `unknown` what earlier runs left open, and returns the writer.
    /// `snapshot` is what this ledger held when the lease was taken.
    pub fn begin(self, start: &RunStart, snapshot: &Snapshot) -> Result<SqliteRun, LedgerError> {
        let path = self.path.clone();
        let fail = |error: rusqlite::Error| storage(&path, "written", &error);
        let lease =
            self.lease.ok_or_else(|| LedgerError::Held { holder: "nobody: it was opened for reading".to_owned() })?;
        let mut connection = self.connection;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        // What is known in memory is what was read then. If anybody has written since, whatever
        // became of the lease, it would be incomplete, and somebody could get an offer twice.
        let mut seq = snapshot.position;
        if position(&transaction).map_err(fail)? != seq {
            return Err(LedgerError::Fenced);
        }
        transaction
            .execute(
                "INSERT INTO run (campaign, edition, plan_hash, planned_at, pool, recipients, host, actor, pid, version, started_at, first_seq)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                params![
                    start.campaign,
                    start.edition,
                    start.plan_hash,
                    start.planned_at.as_millisecond(),
                    start.pool,
                    start.recipients.cast_signed(),
                    host(),
                    actor(),
                    std::process::id(),
                    env!("CARGO_PKG_VERSION"),
                    Timestamp::now().as_millisecond(),
                    seq + 1
                ],
            )
            .map_err(fail)?;
        let run = transaction.last_insert_rowid();
        let mut states = HashMap::with_capacity(snapshot.sends.len());
        for (key, recorded) in &snapshot.sends {
            let mut state = recorded.state;
            if state == State::Intent {
                state = State::Unknown;
                seq += 1;
                transaction
                    .execute(
                        "INSERT INTO journal (seq, run, at, kind, send_key, attempt, reason) VALUES (?1, ?2, ?3, 4, ?4, ?5, ?6)",
                        params![
                            seq,
                            run,
                            Timestamp::now().as_millisecond(),
                            key.0,
                            recorded.attempt,
                            "the run that started it ended without recording an outcome"
                        ],
                    )
                    .map_err(fail)?;
            }
            states.insert(*key, (state, recorded.attempt));
        }
        transaction.commit().map_err(fail)?;
        let writer = Writer {
            path: path.clone(),
            connection,
            _lease: lease,
            run,
            seq,
            states,
            retry_rejected: start.retry_rejected,
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.serve(receiver))
            .map_err(|error| io(&path, "written", &error))?;
        Ok(SqliteRun { sender: Some(sender), thread: Some(thread), run })
    }
}

/// The writing end of a run: one thread that owns the file.
pub struct SqliteRun {
    sender: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
    run: i64,
}

enum Job {
    Commit(Batch, oneshot::Sender<Result<Vec<Claim>, LedgerError>>),
    Finish(String, oneshot::Sender<Result<(), LedgerError>>),
}

impl SqliteRun {
    /// The run's number in this ledger.
    pub fn id(&self) -> i64 {
        self.run
    }

    /// Writes down how the run ended, and lets go of the lease.
    pub async fn finish(mut self, ending: &str) -> Result<(), LedgerError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.sender.take().is_some_and(|sender| sender.send(Job::Finish(ending.to_owned(), answer)).is_ok());
        let result = if sent { answered.await.unwrap_or(Err(LedgerError::Fenced)) } else { Err(LedgerError::Fenced) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        result
    }
}

impl RunLedger for SqliteRun {
    async fn commit(&mut self, batch: Batch) -> Result<Vec<Claim>, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send(Job::Commit(batch, answer)).is_ok());
        if sent { answered.await.unwrap_or(Err(LedgerError::Fenced)) } else { Err(LedgerError::Fenced) }
    }
}

struct Writer {
    path: PathBuf,
    connection: Connection,
    _lease: File,
    run: i64,
    /// The number of the last row that this process knows of.
    seq: i64,
    states: HashMap<SendKey, (State, u32)>,
    retry_rejected: bool,
}

impl Writer {
    fn serve(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            match job {
                Job::Commit(batch, answer) => drop(answer.send(self.commit(&batch))),
                Job::Finish(ending, answer) => {
                    let ended = self.connection.execute(
                        "UPDATE run SET ended_at = ?1, ending = ?2 WHERE id = ?3",
                        params![Timestamp::now().as_millisecond(), ending, self.run],
                    );
                    let result = ended.map(drop).map_err(|error| storage(&self.path, "written", &error));
                    // The lease goes with `self`, before the answer is acted on.
                    drop(self);
                    drop(answer.send(result));
                    return;
                }
            }
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<Vec<Claim>, LedgerError> {
        let mut claimed: HashMap<SendKey, u32> = HashMap::with_capacity(batch.claim.len());
        let settled: HashMap<SendKey, (State, u32)> = batch
            .settle
            .iter()
            .map(|settlement| (settlement.key, (state_of(&settlement.ending), settlement.attempt)))
            .collect();
        let answers: Vec<Claim> = batch
            .claim
            .iter()
            .map(|intent| {
                let before = settled.get(&intent.key).or_else(|| self.states.get(&intent.key));
                let free = match before {
                    None => intent.attempt == 1,
                    Some((State::NotSent, attempt)) => intent.attempt == attempt + 1,
                    Some((State::Rejected, attempt)) => self.retry_rejected && intent.attempt == attempt + 1,
                    Some(_) => false,
                };
                if free && claimed.insert(intent.key, intent.attempt).is_none() { Claim::Granted } else { Claim::Held }
            })
            .collect();

        let seq = self.append(batch, &answers).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => LedgerError::Fenced,
            _ => storage(&self.path, "written", &error),
        })?;
        self.seq = seq;
        self.states.extend(settled);
        self.states.extend(claimed.into_iter().map(|(key, attempt)| (key, (State::Intent, attempt))));
        Ok(answers)
    }

    fn append(&mut self, batch: &Batch, answers: &[Claim]) -> Result<i64, rusqlite::Error> {
        let now = Timestamp::now().as_millisecond();
        let mut seq = self.seq;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare(
                "INSERT INTO journal (seq, run, at, kind, send_key, attempt, digest, address, coupon, expires, message_id, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?;
            for settlement in &batch.settle {
                seq += 1;
                let (message_id, reason) = match &settlement.ending {
                    Ending::Outcome(Outcome::Accepted { message_id }) => (Some(message_id), None),
                    Ending::Outcome(Outcome::Rejected { reason } | Outcome::Unknown { reason })
                    | Ending::NotSent { reason } => (None, Some(reason)),
                };
                let kind = kind(state_of(&settlement.ending));
                insert.execute(params![
                    seq,
                    self.run,
                    now,
                    kind,
                    settlement.key.0,
                    settlement.attempt,
                    None::<Vec<u8>>,
                    None::<String>,
                    None::<String>,
                    None::<i64>,
                    message_id,
                    reason
                ])?;
            }
            for (intent, answer) in batch.claim.iter().zip(answers) {
                if *answer == Claim::Granted {
                    seq += 1;
                    insert.execute(params![
                        seq,
                        self.run,
                        now,
                        kind(State::Intent),
                        intent.key.0,
                        intent.attempt,
                        intent.digest.0,
                        intent.masked,
                        intent.coupon.expose(),
                        intent.expires.map(crate::offer::ExpiresAt::as_millisecond),
                        None::<String>,
                        None::<String>
                    ])?;
                }
            }
        }
        transaction.commit()?;
        Ok(seq)
    }
}

/// The number of the last row of the journal.
fn position(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.query_row("SELECT coalesce(max(seq), 0) FROM journal", [], |row| row.get(0))
}

fn state_of(ending: &Ending) -> State {
    match ending {
        Ending::Outcome(Outcome::Accepted { .. }) => State::Accepted,
        Ending::Outcome(Outcome::Rejected { .. }) => State::Rejected,
        Ending::Outcome(Outcome::Unknown { .. }) => State::Unknown,
        Ending::NotSent { .. } => State::NotSent,
    }
}

fn kind(state: State) -> i64 {
    match state {
        State::Intent => 1,
        State::Accepted => 2,
        State::Rejected => 3,
        State::Unknown => 4,
        State::NotSent => 5,
    }
}

fn state(kind: i64) -> Option<State> {
    [State::Intent, State::Accepted, State::Rejected, State::Unknown, State::NotSent]
        .into_iter()
        .find(|state| self::kind(*state) == kind)
}

fn instant(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn lock_path(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Takes the lease, or tells who has it. It ends with this process, however that ends.
fn take_lease(ledger: &Path) -> Result<File, LedgerError> {
    let path = lock_path(ledger);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).map_err(|error| io(ledger, "written", &error))?;
    match file.try_lock() {
        Ok(()) => {
            let holder =
                format!("process {} of {} on {} since {:.0}", std::process::id(), actor(), host(), Timestamp::now());
            // Who holds the lease is told for people; the lease itself is the lock.
            let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            Err(LedgerError::Held { holder: if holder.is_empty() { "another process".to_owned() } else { holder } })
        }
        Err(TryLockError::Error(error)) => Err(io(ledger, "locked", &error)),
    }
}

fn lease_is_taken(ledger: &Path) -> bool {
    File::open(lock_path(ledger)).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Makes a ledger. It appears under its name whole or not at all, whenever the process dies.
fn create(path: &Path, key: &LedgerKey) -> Result<(), LedgerError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let unfinished = PathBuf::from(name);
    let fail = |error: rusqlite::Error| storage(path, "written", &error);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(path, "written", &error)),
        _ => {}
    }
    private(&unfinished).map_err(|error| io(path, "created", &error))?;
    let mut connection = Connection::open(&unfinished).map_err(fail)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    let transaction = connection.transaction().map_err(fail)?;
    transaction.execute_batch(SCHEMA).map_err(fail)?;
    transaction.execute("INSERT INTO property VALUES ('key_fingerprint', ?1)", [key.fingerprint()]).map_err(fail)?;
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(fail)?;
    transaction.pragma_update(None, "user_version", FORMAT).map_err(fail)?;
    transaction.commit().map_err(fail)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
    connection.close().map_err(|(_, error)| fail(error))?;
    // A link, unlike a renaming, never takes the place of a file that is there.
    std::fs::hard_link(&unfinished, path).map_err(|error| io(path, "created", &error))?;
    std::fs::remove_file(&unfinished).map_err(|error| io(path, "created", &error))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| io(path, "created", &error))
}

/// Makes an empty file that only its owner can read.
fn private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// Who runs this: the pipeline's user, else the machine's.
fn actor() -> String {
    ["GITHUB_ACTOR", "GITLAB_USER_LOGIN", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "an unnamed user".to_owned())
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
