//! Copies of a ledger: a backup that is whole whatever runs meanwhile, putting one back, and making a
//! copied file the ledger.
//!
//! A copied file alone may hold nothing: SQLite writes to a log beside it first. And whoever puts an old
//! copy back has forgotten what was sent since, so [`Restore`] tells what that is, and writes it into the
//! chain and beside the campaigns that it concerns.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::super::chain::LinkKind;
use super::super::copy::moved;
use super::super::location::canonical_file;
use super::super::protocol::Stand;
use super::super::state_code;
use super::super::{FORGOTTEN_SENDS, LedgerError, LedgerKey, MOVED_TO, SendKey, SendState, instant};
use super::file::{self, BACKUP, set_property, take_lease};
use super::head_file::{HeadFile, Recorded, ledger_id};
use super::migrate::migrate;
use super::{SqliteLedger, check_key, head, io, link, place, position, stands, storage};

/// Writes a copy of the ledger to `target`, which must not exist, and its key beside it if one is given.
pub fn backup(ledger: &Path, target: &Path, key: Option<&LedgerKey>) -> Result<(), LedgerError> {
    let source = SqliteLedger::open_existing(ledger, None)?.ok_or_else(|| no_ledger(ledger))?;
    let written = |error: std::io::Error| io(target, "written", &error);
    let failed = |error: rusqlite::Error| storage(target, "written", &error);
    let key_path = target.with_extension("key");
    for path in [Some(target), key.map(|_| key_path.as_path())].into_iter().flatten() {
        if path.symlink_metadata().is_ok() {
            return Err(io(path, "written", &std::io::Error::from(std::io::ErrorKind::AlreadyExists)));
        }
    }
    let directory = directory(target);
    let temporary = tempfile::NamedTempFile::new_in(directory).map_err(written)?;
    let copied = copy_pages(&source.connection, temporary.path(), target)?;
    set_property(&copied, BACKUP, Some(&format!("{:.0}", Timestamp::now()))).map_err(failed)?;
    copied.close().map_err(|(_, error)| failed(error))?;
    temporary.as_file().sync_all().map_err(written)?;
    if let Some(key) = key {
        key.clone().write(&key_path)?;
    }
    temporary.persist_noclobber(target).map_err(|error| written(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(written)
}

/// Copies a ledger page by page, as of one moment, into a file that needs no log beside it.
fn copy_pages(source: &Connection, target: &Path, shown: &Path) -> Result<Connection, LedgerError> {
    let failed = |error: rusqlite::Error| storage(shown, "written", &error);
    let mut copied = Connection::open(target).map_err(failed)?;
    copied.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    {
        let backup = Backup::new(source, &mut copied).map_err(failed)?;
        let mut busy = 0;
        // All pages in one step, so that no writer comes between.
        loop {
            match backup.step(-1).map_err(failed)? {
                StepResult::Done => break,
                _ if busy < 100 => {
                    busy += 1;
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
                _ => return Err(io(shown, "written", &std::io::Error::other("the ledger is busy"))),
            }
        }
    }
    copied.pragma_update(None, "journal_mode", "DELETE").map_err(failed)?;
    Ok(copied)
}

fn no_ledger(ledger: &Path) -> LedgerError {
    LedgerError::Storage {
        path: ledger.display().to_string(),
        doing: "opened",
        problem: "there is no ledger".to_owned(),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a copied file the ledger: its head says from now on that this is the file. A copy that has
/// forgotten sends is refused.
pub fn adopt(ledger: &Path) -> Result<(), LedgerError> {
    let path = canonical_file(ledger);
    if !super::super::exists(&path)? {
        Recorded::refuse_a_missing_ledger(&path)?;
        return Err(no_ledger(&path));
    }
    let _lease = take_lease(&path)?;
    place::check(&path)?;
    // A damaged head cannot tell anything; writing it anew is what this is for.
    let recorded = Recorded::read(&path).unwrap_or_default();
    let mut connection = super::open(&path)?;
    let found = file::format(&path, &connection)?;
    migrate(&path, &mut connection, found)?;
    file::refuse_backup(&path, &connection)?;
    if let Some(recorded) = recorded {
        recorded.check_id(&path, &connection)?;
        recorded.check_progress(&path, &connection)?;
    }
    HeadFile::write_now(&path, &connection).map(drop)
}

/// Adopts a ledger if it is a copy: for the sandbox's, which holds no real sends.
pub fn adopt_copy(ledger: &Path) -> Result<(), LedgerError> {
    let path = canonical_file(ledger);
    let Ok(found) = super::Identity::of(&path) else { return Ok(()) };
    match Recorded::read(&path)? {
        Some(recorded) if !recorded.is_for(&path, found) => adopt(&path),
        _ => Ok(()),
    }
}

/// A run that a copy does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgottenRun {
    /// Its number.
    pub id: i64,
    /// Its campaign, by the name that it is recorded under.
    pub campaign: String,
    /// The name that its manifest had.
    pub name: String,
    /// When it started.
    pub started_at: Timestamp,
}

/// What a copy has forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// The runs that it does not know, as far as that can be told.
    pub runs: Vec<ForgottenRun>,
    /// How many sends it has forgotten; at most this many, if it cannot be told exactly.
    pub sends: u64,
    /// The sends of each campaign, by all its names.
    pub of_campaign: BTreeMap<String, u64>,
    /// What the ledger has forgotten since an earlier restoring, of which nobody was told yet: by the name
    /// of the campaign.
    pub earlier: BTreeMap<String, u64>,
    /// Whether the ledger itself could be compared. Else the head tells, or nothing does.
    pub exact: bool,
    /// Whether nothing tells what was sent since the copy was made.
    pub blind: bool,
}

/// A copy that is about to take the place of a ledger. Holds the ledger's lease.
pub struct Restore {
    ledger: PathBuf,
    temporary: tempfile::NamedTempFile,
    copy: Connection,
    /// What the copy has forgotten.
    pub forgotten: Forgotten,
    _lease: File,
}

impl Restore {
    /// Reads a copy and compares it with the ledger, its head, or both. Changes nothing.
    pub fn prepare(ledger: &Path, copy: &Path, key: &LedgerKey) -> Result<Self, LedgerError> {
        let ledger = canonical_file(ledger);
        let lease = take_lease(&ledger)?;
        if !super::super::exists(copy)? {
            return Err(no_ledger(copy));
        }
        let source = super::open(copy)?;
        file::format(copy, &source)?;
        let temporary =
            tempfile::NamedTempFile::new_in(directory(&ledger)).map_err(|error| io(&ledger, "written", &error))?;
        let mut copied = copy_pages(&source, temporary.path(), &ledger)?;
        drop(source);
        let found = file::format(copy, &copied)?;
        migrate(copy, &mut copied, found)?;
        check_key(copy, &copied, key)?;
        let forgotten = compare(&ledger, copy, &copied)?;
        Ok(Self { ledger, temporary, copy: copied, forgotten, _lease: lease })
    }

    /// Puts the copy in the ledger's place. The file that was there keeps its content under another name,
    /// which is returned.
    pub fn finish(self) -> Result<Option<PathBuf>, LedgerError> {
        let Self { ledger, temporary, copy, forgotten, _lease } = self;
        let failed = |error: rusqlite::Error| storage(&ledger, "written", &error);
        let written = |error: std::io::Error| io(&ledger, "written", &error);
        let now = Timestamp::now();
        let transaction = copy.unchecked_transaction().map_err(failed)?;
        set_property(&transaction, BACKUP, None).map_err(failed)?;
        let detail = format!(
            "at {}, {} sends forgotten, from entry {}",
            now.as_millisecond(),
            forgotten.sends,
            position(&transaction).map_err(failed)?
        );
        let restored = head(&transaction).map_err(failed)?.noted(LinkKind::Restored, &detail);
        link(&transaction, restored, LinkKind::Restored, None, Some(&detail)).map_err(failed)?;
        let mut of_campaign = forgotten.earlier.clone();
        for (campaign, sends) in &forgotten.of_campaign {
            *of_campaign.entry(campaign.clone()).or_default() += sends;
        }
        for (campaign, sends) in of_campaign.iter().filter(|(_, sends)| **sends > 0) {
            let name = format!("{FORGOTTEN_SENDS}{campaign}");
            set_property(&transaction, &name, Some(&sends.to_string())).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        copy.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        copy.close().map_err(|(_, error)| failed(error))?;
        temporary.as_file().sync_all().map_err(written)?;

        let suffix = format!(".replaced-{}", now.strftime("%Y%m%dT%H%M%SZ"));
        let beside = |suffix: &str| {
            let mut name = ledger.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        // The former log goes first: SQLite would take it for the new file's.
        let mut kept = None;
        for part in ["-wal", "-shm", ""] {
            let (from, to) = (beside(part), beside(&format!("{suffix}{part}")));
            if from.symlink_metadata().is_ok() {
                std::fs::rename(&from, &to).map_err(written)?;
                kept = Some(to).filter(|_| part.is_empty());
            }
        }
        temporary.persist_noclobber(&ledger).map_err(|error| written(error.error))?;
        File::open(directory(&ledger)).and_then(|directory| directory.sync_all()).map_err(written)?;
        HeadFile::write_now(&ledger, &super::open(&ledger)?)?;
        Ok(kept)
    }
}

/// What the copy has forgotten of what the ledger or its head knows.
fn compare(ledger: &Path, copy: &Path, copied: &Connection) -> Result<Forgotten, LedgerError> {
    let failed = |error: rusqlite::Error| storage(copy, "read", &error);
    let id = ledger_id(copy, copied)?;
    // A damaged head tells nothing.
    let recorded = Recorded::read(ledger).unwrap_or_default();
    let another = || LedgerError::Refused {
        problem: format!("`{}` is a copy of another ledger than `{}`", copy.display(), ledger.display()),
        hint: "put back a copy of the same ledger, or use the copy's ledger in its own place",
    };
    if recorded.as_ref().is_some_and(|recorded| recorded.id != id) {
        return Err(another());
    }
    let mut forgotten = Forgotten::default();
    let current = current(ledger);
    if let Some(current) = &current {
        if ledger_id(ledger, current)? != id {
            return Err(another());
        }
        // A copy from before the move would be a second ledger that can be used.
        if let Some(to) = file::property(current, MOVED_TO).map_err(failed)? {
            return Err(moved(&ledger.display().to_string(), &to));
        }
        exactly(current, copied, &mut forgotten).map_err(failed)?;
        forgotten.earlier = pending(current).map_err(failed)?;
        forgotten.exact = true;
    }
    let reached = match &current {
        Some(current) => position(current).map_err(failed)?,
        None => position(copied).map_err(failed)?,
    };
    let missing = recorded.as_ref().map_or(0, |recorded| (recorded.seq - reached).max(0)).cast_unsigned();
    if missing > 0 || current.is_none() {
        // The head tells how many entries are missing: no more sends than that.
        forgotten.exact = false;
        forgotten.blind = recorded.is_none();
        forgotten.sends += missing;
        let names: Vec<String> = campaigns(copied).map_err(failed)?;
        for name in names.into_iter().chain([String::from("*")]) {
            *forgotten.of_campaign.entry(name).or_default() += missing;
        }
    }
    Ok(forgotten)
}

/// What a ledger has forgotten since it was restored, of each campaign that was not sent since.
fn pending(connection: &Connection) -> Result<BTreeMap<String, u64>, rusqlite::Error> {
    let mut properties = connection.prepare("SELECT name, value FROM property")?;
    let properties = properties.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut pending = BTreeMap::new();
    for property in properties {
        let (name, value): (String, String) = property?;
        if let (Some(campaign), Ok(sends)) = (name.strip_prefix(FORGOTTEN_SENDS), value.parse()) {
            pending.insert(campaign.to_owned(), sends);
        }
    }
    Ok(pending)
}

/// The ledger that is there now, if it can be read.
fn current(ledger: &Path) -> Option<Connection> {
    if !ledger.exists() {
        return None;
    }
    let mut connection = super::open(ledger).ok()?;
    let found = file::format(ledger, &connection).ok()?;
    migrate(ledger, &mut connection, found).ok()?;
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).ok()?;
    (sound == "ok").then_some(connection)
}

/// All names of the campaigns of a ledger.
fn campaigns(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let sql = "SELECT campaign FROM run UNION SELECT coalesce(name, campaign) FROM run";
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// Compares run by run and send by send.
fn exactly(current: &Connection, copied: &Connection, forgotten: &mut Forgotten) -> Result<(), rusqlite::Error> {
    type Known = BTreeMap<i64, (String, String, i64, String)>;
    let runs = |connection: &Connection| -> Result<Known, rusqlite::Error> {
        connection
            .prepare("SELECT id, campaign, coalesce(name, campaign), started_at, plan_hash FROM run")?
            .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))))?
            .collect()
    };
    let (now, then) = (runs(current)?, runs(copied)?);
    for (id, run) in now.iter().filter(|(id, run)| then.get(id) != Some(run)) {
        forgotten.runs.push(ForgottenRun {
            id: *id,
            campaign: run.0.clone(),
            name: run.1.clone(),
            started_at: instant(run.2),
        });
    }
    let known: HashMap<SendKey, Stand> = stands(copied, |_| true)?;
    let (accepted_now, accepted_then) = (accepted_after_all(current)?, accepted_after_all(copied)?);
    for (key, stand) in stands(current, |_| true)? {
        let accepted = accepted_now.contains(&key) && !accepted_then.contains(&key);
        if accepted || !knows(known.get(&key), stand) {
            forgotten.sends += 1;
            if let Some((campaign, name, ..)) = now.get(&stand.run) {
                *forgotten.of_campaign.entry(campaign.clone()).or_default() += 1;
                if name != campaign {
                    *forgotten.of_campaign.entry(name.clone()).or_default() += 1;
                }
            }
        }
    }
    Ok(())
}

/// Sends of which an acceptance is kept that contradicts the journal: they are not sent again.
fn accepted_after_all(connection: &Connection) -> Result<HashSet<SendKey>, rusqlite::Error> {
    connection
        .prepare("SELECT send_key FROM contradiction WHERE kind = ?1")?
        .query_map([state_code(SendState::Accepted)], |row| row.get(0).map(SendKey))?
        .collect()
}

/// Whether the copy would send nobody again whom the ledger would not send to again.
fn knows(copied: Option<&Stand>, now: Stand) -> bool {
    let free = |state: SendState| matches!(state, SendState::NotSent | SendState::Rejected);
    match copied {
        // What was provably not sent may be sent again either way.
        None => now.state == SendState::NotSent && now.attempt == 1,
        Some(then) => then.attempt >= now.attempt && (!free(then.state) || then.state == now.state),
    }
}
