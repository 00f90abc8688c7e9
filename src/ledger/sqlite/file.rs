//! The ledger's file: made whole or not at all, and leased to one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::super::chain::{Head, LinkKind};
use super::super::location::canonical_file;
use super::super::{LedgerError, LedgerKey, actor, host};
use super::migrate::{self, FORMAT};
use super::place::unfinished;
use super::{io, storage};

/// `SNDF`: tells a ledger from other SQLite files.
const APPLICATION: i64 = 0x534e_4446;

/// Whether this file is a ledger, and of which format.
pub(super) fn format(path: &Path, connection: &Connection) -> Result<i64, LedgerError> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => LedgerError::NotALedger(path.display().to_string()),
        _ => storage(path, "read", &error),
    })?;
    if application != APPLICATION {
        return Err(LedgerError::NotALedger(path.display().to_string()));
    }
    let found = pragma("user_version").map_err(|error| storage(path, "read", &error))?;
    if found > FORMAT { Err(LedgerError::Newer { found, known: FORMAT }) } else { Ok(found) }
}

/// Tells a ledger from other SQLite files.
pub(super) fn mark_as_ledger(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "application_id", APPLICATION)
}

/// Refuses another key than the one that the ledger was made with.
pub(super) fn check_key(path: &Path, connection: &Connection, key: &LedgerKey) -> Result<(), LedgerError> {
    let ledger = property(connection, "key_fingerprint").map_err(|error| storage(path, "read", &error))?;
    let (ledger, given) = (ledger.unwrap_or_default(), key.fingerprint());
    if ledger == given { Ok(()) } else { Err(LedgerError::WrongKey { ledger, given }) }
}

pub(super) fn property(connection: &Connection, name: &str) -> Result<Option<String>, rusqlite::Error> {
    connection.query_row("SELECT value FROM property WHERE name = ?1", [name], |row| row.get(0)).optional()
}

pub(super) fn set_property(connection: &Connection, name: &str, value: Option<&str>) -> Result<(), rusqlite::Error> {
    match value {
        Some(value) => connection.execute("INSERT OR REPLACE INTO property VALUES (?1, ?2)", [name, value]),
        None => connection.execute("DELETE FROM property WHERE name = ?1", [name]),
    }
    .map(drop)
}

/// The property of a backup: when it was made.
pub(super) const BACKUP: &str = "backup_made_at";

/// Refuses to use a backup as a ledger: what was sent since is not in it.
pub(super) fn refuse_backup(path: &Path, connection: &Connection) -> Result<(), LedgerError> {
    match property(connection, BACKUP).map_err(|error| storage(path, "read", &error))? {
        Some(made_at) => Err(LedgerError::Refused {
            problem: format!("`{}` is a backup of a ledger, made at {made_at}", path.display()),
            hint: "what was sent since is not in it; `sendform ledger restore FILE` puts it in the place of the ledger",
        }),
        None => Ok(()),
    }
}

/// Adds a link to the chain.
pub(super) fn link(
    connection: &Connection,
    head: Head,
    kind: LinkKind,
    run: Option<i64>,
    detail: Option<&str>,
) -> Result<(), rusqlite::Error> {
    connection
        .execute(
            "INSERT INTO link (number, hash, kind, run, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![head.number.cast_signed(), head.hash, kind.as_str(), run, detail],
        )
        .map(drop)
}

/// Makes a ledger. It appears under its name whole or not at all, whenever the process dies.
pub(super) fn create(path: &Path, key: &LedgerKey) -> Result<(), LedgerError> {
    let unfinished = unfinished(path);
    let fail = |error: rusqlite::Error| storage(path, "written", &error);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(path, "written", &error)),
        _ => {}
    }
    private(&unfinished).map_err(|error| io(path, "created", &error))?;
    let mut connection = Connection::open(&unfinished).map_err(fail)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    let transaction = connection.transaction().map_err(fail)?;
    mark_as_ledger(&transaction).map_err(fail)?;
    migrate::create(&transaction, &key.fingerprint()).map_err(fail)?;
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
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn lock_path(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Takes the lease, or tells who has it. It ends with this process, however that ends.
pub(super) fn take_lease(ledger: &Path) -> Result<File, LedgerError> {
    let path = lock_path(ledger);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).map_err(|error| io(ledger, "written", &error))?;
    // Whoever asks whether it is taken holds it for a moment.
    let mut locked = file.try_lock();
    for _ in 0..5 {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => {
            let holder =
                format!("process {} of {} on {} since {:.0}", std::process::id(), actor(), host(), Timestamp::now());
            // Who holds the lease is told for people; the lease itself is the lock.
            let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(LedgerError::Held { holder: holder(&mut file) }),
        Err(TryLockError::Error(error)) => Err(io(ledger, "locked", &error)),
    }
}

fn holder(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    if holder.is_empty() { "another process".to_owned() } else { holder }
}

/// Whether a process holds the lease now.
pub(super) fn lease_is_taken(ledger: &Path) -> bool {
    File::open(lock_path(ledger)).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Who holds the lease now, if anybody does.
pub fn lease_holder(ledger: &Path) -> Option<String> {
    let mut file = File::open(lock_path(&canonical_file(ledger))).ok()?;
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)).then(|| holder(&mut file))
}
