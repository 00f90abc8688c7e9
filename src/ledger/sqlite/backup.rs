//! Backups of a ledger's file, and adopting a copied file.
//!
//! A file that is copied by itself may lack entries, because SQLite writes to a log beside it first.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::file::{self, BACKUP, take_lease};
use super::head_file::{HeadFile, HeadRecord};
use super::migrate::migrate;
use super::rows::set_property;
use super::{SqliteLedger, file_checks, head_file, storage};
use crate::ledger::error::LedgerError;
use crate::ledger::key::LedgerKey;
use crate::ledger::location::{canonical_file, exists, parent};
use crate::ledger::record::Operator;

/// Writes a copy of the ledger to `target`, which must not exist, and its key beside it if one is given.
pub fn backup(ledger: &Path, operator: &Operator, target: &Path, key: Option<&LedgerKey>) -> Result<(), LedgerError> {
    let source = SqliteLedger::open_existing(ledger, operator, None)?.ok_or_else(|| no_ledger(ledger))?;
    let written = |error: std::io::Error| LedgerError::io(target, "written", error);
    let failed = |error: rusqlite::Error| storage(target, "written", error);
    let key_path = target.with_extension("key");
    for path in [Some(target), key.map(|_| key_path.as_path())].into_iter().flatten() {
        if path.symlink_metadata().is_ok() {
            return Err(LedgerError::io(path, "written", std::io::ErrorKind::AlreadyExists.into()));
        }
    }
    let directory = parent(target);
    let temporary = tempfile::NamedTempFile::new_in(directory).map_err(written)?;
    let copied = copy_pages(&source.connection, temporary.path(), target)?;
    set_property(&copied, BACKUP, Some(&format!("{:.0}", operator.clock.now()))).map_err(failed)?;
    copied.close().map_err(|(_, error)| failed(error))?;
    temporary.as_file().sync_all().map_err(written)?;
    if let Some(key) = key {
        key.clone().write(&key_path)?;
    }
    temporary.persist_noclobber(target).map_err(|error| written(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(written)
}

/// Copies a ledger page by page, as of one moment, into a file that needs no log beside it.
pub(super) fn copy_pages(source: &Connection, target: &Path, shown: &Path) -> Result<Connection, LedgerError> {
    let failed = |error: rusqlite::Error| storage(shown, "written", error);
    let mut copied = Connection::open(target).map_err(failed)?;
    copied.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    {
        let backup = Backup::new(source, &mut copied).map_err(failed)?;
        let mut busy = 0;
        // All pages in one step, so that no other process writes in between.
        loop {
            match backup.step(-1).map_err(failed)? {
                StepResult::Done => break,
                _ if busy < 100 => {
                    busy += 1;
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
                _ => return Err(LedgerError::storage(shown.display().to_string(), "written", "the ledger is busy")),
            }
        }
    }
    copied.pragma_update(None, "journal_mode", "DELETE").map_err(failed)?;
    Ok(copied)
}

pub(super) fn no_ledger(ledger: &Path) -> LedgerError {
    LedgerError::no_ledger(ledger.display().to_string())
}

/// Makes a copied file the ledger: writes a head for this file. Refuses a copy that lacks sends.
pub fn adopt(ledger: &Path, operator: &Operator) -> Result<(), LedgerError> {
    let path = canonical_file(ledger);
    if !exists(&path)? {
        HeadRecord::refuse_a_missing_ledger(&path)?;
        return Err(no_ledger(&path));
    }
    let _lease = take_lease(&path, operator)?;
    file_checks::check(&path)?;
    // A damaged head shows nothing; this command writes it again.
    let recorded = HeadRecord::read(&path).unwrap_or_default();
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

/// Adopts a ledger if it is a copy: for the ledger of a sandbox, which holds no real sends.
pub fn adopt_copy(ledger: &Path, operator: &Operator) -> Result<(), LedgerError> {
    let path = canonical_file(ledger);
    let Ok(found) = super::Identity::of(&path) else { return Ok(()) };
    match HeadRecord::read(&path)? {
        Some(recorded) if recorded.is_for(&path, found) => Ok(()),
        None if head_file::refuse_a_missing_head(&path, &super::open(&path)?).is_ok() => Ok(()),
        _ => adopt(&path, operator),
    }
}
