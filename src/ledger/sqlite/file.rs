//! The ledger's file: created whole or not at all, and leased to one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::file_checks::unfinished;
use super::migrate::{self, FORMAT};
use super::rows::{property, storage};
use crate::ledger::error::LedgerError;
use crate::ledger::key::LedgerKey;
use crate::ledger::location::{canonical_file, parent};
use crate::ledger::record::Operator;

/// `SNDF`: marks a SQLite file as a ledger.
const APPLICATION: i64 = 0x534e_4446;

/// The format of a ledger file. Refuses a file that is not a ledger, or that a newer version wrote.
pub(super) fn format(path: &Path, connection: &Connection) -> Result<i64, LedgerError> {
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(|error| storage(path, "read", error))
    };
    if pragma("application_id")? != APPLICATION {
        return Err(LedgerError::NotALedger(path.display().to_string()));
    }
    let found = pragma("user_version")?;
    if found > FORMAT { Err(LedgerError::Newer { found, known: FORMAT }) } else { Ok(found) }
}

/// Marks a file as a ledger, among other SQLite files.
pub(super) fn mark_as_ledger(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "application_id", APPLICATION)
}

/// Refuses a key other than the one that the ledger was created with.
pub(super) fn check_key(path: &Path, connection: &Connection, key: &LedgerKey) -> Result<(), LedgerError> {
    let ledger = property(connection, "key_fingerprint").map_err(|error| storage(path, "read", error))?;
    let (ledger, given) = (ledger.unwrap_or_default(), key.fingerprint());
    if ledger == given { Ok(()) } else { Err(LedgerError::WrongKey { ledger, given }) }
}

/// The property of a backup: when it was made.
pub(super) const BACKUP: &str = "backup_made_at";

/// Refuses to use a backup as a ledger: it lacks what was sent since.
pub(super) fn refuse_backup(path: &Path, connection: &Connection) -> Result<(), LedgerError> {
    match property(connection, BACKUP).map_err(|error| storage(path, "read", error))? {
        Some(made_at) => Err(LedgerError::Refused {
            problem: format!("`{}` is a backup of a ledger, made at {made_at}", path.display()),
            hint: "it lacks what was sent since; put it in the ledger's place with `sendform ledger restore FILE`",
        }),
        None => Ok(()),
    }
}

/// Creates a ledger. It appears under its name whole or not at all, whenever the process dies.
pub(super) fn create(path: &Path, key: &LedgerKey) -> Result<(), LedgerError> {
    let unfinished = unfinished(path);
    let fail = |error: rusqlite::Error| storage(path, "written", error);
    let not_created = |error: std::io::Error| LedgerError::io(path, "created", error);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(LedgerError::io(path, "written", error)),
        _ => {}
    }
    let mut private = OpenOptions::new();
    private.write(true).create(true).truncate(false).mode(0o600);
    private.open(&unfinished).map_err(not_created)?;
    let mut connection = Connection::open(&unfinished).map_err(fail)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    let transaction = connection.transaction().map_err(fail)?;
    mark_as_ledger(&transaction).map_err(fail)?;
    migrate::create(&transaction, &key.fingerprint()).map_err(fail)?;
    transaction.commit().map_err(fail)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
    connection.close().map_err(|(_, error)| fail(error))?;
    // A hard link, unlike a rename, never replaces a file that exists.
    std::fs::hard_link(&unfinished, path).map_err(not_created)?;
    std::fs::remove_file(&unfinished).map_err(not_created)?;
    File::open(parent(path)).and_then(|directory| directory.sync_all()).map_err(not_created)
}

fn lock_path(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Takes the lease; otherwise the error names its holder. The lease ends with this process, however that ends.
pub(super) fn take_lease(ledger: &Path, operator: &Operator) -> Result<File, LedgerError> {
    let path = lock_path(ledger);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(|error| LedgerError::io(ledger, "written", error))?;
    // A process that only checks whether the lease is taken holds the lock for a moment.
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
            let Operator { host, actor, clock } = operator;
            let holder = format!("process {} of {actor} on {host} since {:.0}", std::process::id(), clock.now());
            // The text is for people; the lease itself is the lock.
            let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(LedgerError::Held { holder: holder(&mut file) }),
        Err(TryLockError::Error(error)) => Err(LedgerError::io(ledger, "locked", error)),
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

/// The process that holds the lease now, if one does.
pub fn lease_holder(ledger: &Path) -> Option<String> {
    let mut file = File::open(lock_path(&canonical_file(ledger))).ok()?;
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)).then(|| holder(&mut file))
}
