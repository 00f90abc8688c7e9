//! A ledger's file as the source or the target of a move; see [`crate::ledger::copy`].

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ToSql, params_from_iter};

use super::file::{self, check_key, take_lease};
use super::head_file::{HeadFile, ledger_id};
use super::migrate;
use super::rows::{property, set_property};
use super::{SqliteLedger, storage};
use crate::ledger::MOVED_TO;
use crate::ledger::copy::{COPY_OF, Row, Source, Table, Target, Value, moved, unfinished};
use crate::ledger::error::LedgerError;
use crate::ledger::key::LedgerKey;
use crate::ledger::location::{canonical_file, exists, parent};
use crate::ledger::record::{Operator, code};

/// A file that no other process can write to: the lease is held, and a write transaction is open.
pub(crate) struct SqliteSource {
    ledger: SqliteLedger,
}

impl SqliteSource {
    pub(crate) fn open(path: &Path, operator: &Operator, key: &LedgerKey) -> Result<Self, LedgerError> {
        let opened = || {
            SqliteLedger::open_existing(path, operator, Some(key))?.ok_or_else(|| {
                LedgerError::refused(
                    format!("there is no ledger at `{}`", path.display()),
                    "give the location of the ledger to move",
                )
            })
        };
        // An older file is migrated to this version's format first, which takes the lease itself.
        drop(opened()?);
        let lease = take_lease(&canonical_file(path), operator)?;
        let ledger = opened()?;
        let ledger = SqliteLedger { lease: Some(lease), ..ledger };
        ledger.connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| storage(&ledger.path, "read", error))?;
        Ok(Self { ledger })
    }

    pub(crate) fn moved_to(&self) -> Result<Option<String>, LedgerError> {
        property(&self.ledger.connection, MOVED_TO).map_err(|error| self.ledger.unreadable(error))
    }
}

fn value(cell: ValueRef<'_>) -> Value {
    match cell {
        // No column holds a floating-point number.
        ValueRef::Null | ValueRef::Real(_) => Value::Null,
        ValueRef::Integer(number) => Value::Number(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_owned()),
    }
}

#[async_trait]
impl Source for SqliteSource {
    async fn page(&mut self, table: Table, after: i64, limit: usize) -> Result<Vec<Row>, LedgerError> {
        let columns = table.columns();
        let first = columns[0].0;
        let list = table.list().replace("campaign, edition, name,", "campaign, edition, coalesce(name, campaign),");
        let sql = match table {
            Table::Property => format!("SELECT {list} FROM property WHERE ?1 = ?1 AND ?2 = ?2 ORDER BY name"),
            _ => format!("SELECT {list} FROM {} WHERE {first} > ?1 ORDER BY {first} LIMIT ?2", table.name()),
        };
        let read = || -> Result<Vec<Row>, rusqlite::Error> {
            let mut statement = self.ledger.connection.prepare_cached(&sql)?;
            let rows = statement.query_map((after, limit as i64), |row| {
                (0..columns.len()).map(|column| row.get_ref(column).map(value)).collect()
            })?;
            rows.collect()
        };
        read().map_err(|error| self.ledger.unreadable(error))
    }

    async fn mark_moved(self: Box<Self>, to: &str) -> Result<(), LedgerError> {
        let ledger = self.ledger;
        set_property(&ledger.connection, MOVED_TO, Some(to))
            .and_then(|()| ledger.connection.execute_batch("COMMIT"))
            .map_err(|error| storage(&ledger.path, "written", error))
    }
}

/// A file that is being written under a temporary name.
pub(crate) struct SqliteTarget {
    path: PathBuf,
    temporary: tempfile::NamedTempFile,
    connection: Connection,
    from: String,
    _lease: File,
}

impl SqliteTarget {
    pub(crate) fn open(path: &Path, operator: &Operator, key: &LedgerKey, from: &str) -> Result<Self, LedgerError> {
        let path = canonical_file(path);
        let lease = take_lease(&path, operator)?;
        if exists(&path)? {
            // Replaces only the unusable copy that an earlier attempt left.
            let there = super::open(&path)?;
            file::format(&path, &there)?;
            let of = property(&there, COPY_OF).map_err(|error| storage(&path, "read", error))?;
            if of.as_deref() != Some(from) {
                return Err(LedgerError::refused(
                    format!("there is a ledger at `{}` already", path.display()),
                    "give a path where no file exists yet",
                ));
            }
            drop(there);
            for part in ["", "-wal", "-shm"] {
                let mut name = path.as_os_str().to_owned();
                name.push(part);
                match std::fs::remove_file(&name) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(LedgerError::io(&path, "written", error));
                    }
                    _ => {}
                }
            }
            let _ = std::fs::remove_file(super::head_path(&path));
        }
        super::HeadRecord::refuse_a_missing_ledger(&path)?;
        super::file_checks::refuse_a_log_without_its_ledger(&path)?;
        let temporary =
            tempfile::NamedTempFile::new_in(parent(&path)).map_err(|error| LedgerError::io(&path, "written", error))?;
        let fail = |error: rusqlite::Error| storage(&path, "written", error);
        let connection = Connection::open(temporary.path()).map_err(fail)?;
        let made = || -> Result<(), rusqlite::Error> {
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            file::mark_as_ledger(&connection)?;
            migrate::create(&connection, &key.fingerprint())?;
            connection.execute_batch("DELETE FROM link; DELETE FROM property;")
        };
        made().map_err(fail)?;
        Ok(Self { path, temporary, connection, from: from.to_owned(), _lease: lease })
    }

    /// Makes the copy usable, after the old ledger was marked as moved.
    pub(crate) fn finish(path: &Path, operator: &Operator, key: &LedgerKey) -> Result<(), LedgerError> {
        let path = canonical_file(path);
        let _lease = take_lease(&path, operator)?;
        if !exists(&path)? {
            return Err(LedgerError::refused(
                format!("the ledger was moved to `{}`, and it is not there", path.display()),
                "put it back there",
            ));
        }
        let connection = super::open(&path)?;
        file::format(&path, &connection)?;
        check_key(&path, &connection, key)?;
        // If the move was finished before, the copy has a head, and may have lost entries since.
        if property(&connection, COPY_OF).map_err(|error| storage(&path, "read", error))?.is_none() {
            return SqliteLedger::open_existing(&path, operator, Some(key)).map(drop);
        }
        // The head first: a copy that is usable and has none would be refused.
        HeadFile::write_now(&path, &connection)?;
        set_property(&connection, COPY_OF, None).map_err(|error| storage(&path, "written", error))
    }
}

#[async_trait]
impl Target for SqliteTarget {
    async fn insert(&mut self, table: Table, rows: &[Row]) -> Result<(), LedgerError> {
        let columns = table.columns();
        let marks = vec!["?"; columns.len()].join(", ");
        let (more, value) = if table == Table::Run { (", first_seq", ", 1") } else { ("", "") };
        let sql = format!("INSERT INTO {} ({}{more}) VALUES ({marks}{value})", table.name(), table.list());
        let written = || -> Result<(), rusqlite::Error> {
            let mut insert = self.connection.prepare_cached(&sql)?;
            for row in rows {
                let cells = row.iter().zip(columns).map(|(cell, (name, _))| -> Box<dyn ToSql> {
                    match cell {
                        // Older runs have no sender in a file, and an empty one in a database.
                        Value::Text(text) if text.is_empty() && *name == "sender" => Box::new(rusqlite::types::Null),
                        Value::Null => Box::new(rusqlite::types::Null),
                        Value::Number(number) => Box::new(*number),
                        Value::Text(text) => Box::new(text.clone()),
                        Value::Bytes(bytes) => Box::new(bytes.clone()),
                    }
                });
                insert.execute(params_from_iter(cells))?;
            }
            Ok(())
        };
        written().map_err(|error| storage(&self.path, "written", error))
    }

    async fn complete(self: Box<Self>) -> Result<[u64; 5], LedgerError> {
        let Self { path, temporary, connection, from, _lease } = *self;
        let fail = |error: rusqlite::Error| storage(&path, "written", error);
        let derived = || -> Result<[u64; 5], rusqlite::Error> {
            let overlapped = first_entries(&connection)?;
            let mut counts = [0; 5];
            for (table, count) in Table::ALL.into_iter().zip(&mut counts) {
                let sql = format!("SELECT count(*) FROM {}", table.name());
                *count = connection.query_row(&sql, [], |row| row.get::<_, i64>(0))?.cast_unsigned();
            }
            if overlapped {
                set_property(&connection, OVERLAPPED, Some("yes"))?;
            }
            set_property(&connection, COPY_OF, Some(&from))?;
            connection.execute_batch("COMMIT")?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            Ok(counts)
        };
        let counts = derived().map_err(fail)?;
        ledger_id(&path, &connection)?;
        connection.close().map_err(|(_, error)| fail(error))?;
        let written = |error: std::io::Error| LedgerError::io(&path, "written", error);
        temporary.as_file().sync_all().map_err(written)?;
        temporary.persist_noclobber(&path).map_err(|error| written(error.error))?;
        File::open(parent(&path)).and_then(|directory| directory.sync_all()).map_err(written)?;
        Ok(counts)
    }
}

/// The property of a ledger whose runs have overlapped, as the runs of a database can, or in which lost intents were
/// recorded again.
pub(super) const OVERLAPPED: &str = "runs_overlapped";

/// Finds the first entry of each run: no entry of the run or of a later one lies before it. Returns whether runs
/// have overlapped, as the runs of a database can.
fn first_entries(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let spans: HashMap<i64, (i64, i64)> = connection
        .prepare(&format!(
            "SELECT run, min(seq) AS first, max(seq) FILTER (WHERE kind = {}) AS last_intent FROM journal GROUP BY run",
            code::INTENT
        ))?
        .query_map([], |row| {
            let first = row.get("first")?;
            Ok((row.get("run")?, (first, row.get::<_, Option<i64>>("last_intent")?.unwrap_or(first))))
        })?
        .collect::<Result<_, _>>()?;
    let mut first: i64 = connection.query_row("SELECT coalesce(max(seq), 0) + 1 FROM journal", [], |row| row.get(0))?;
    let runs: Vec<i64> = connection
        .prepare("SELECT id FROM run ORDER BY id DESC")?
        .query_map([], |row| row.get("id"))?
        .collect::<Result<_, _>>()?;
    let mut overlapped = false;
    for run in runs {
        if let Some((from, to)) = spans.get(&run) {
            overlapped |= *to >= first;
            first = first.min(*from);
        }
        connection.execute("UPDATE run SET first_seq = ?1 WHERE id = ?2", [first, run])?;
    }
    Ok(overlapped)
}

/// Refuses a copy that is not finished.
pub(super) fn refuse_unfinished(path: &Path, connection: &Connection) -> Result<(), LedgerError> {
    match property(connection, COPY_OF).map_err(|error| storage(path, "read", error))? {
        Some(from) => Err(unfinished(&path.display().to_string(), &from)),
        None => Ok(()),
    }
}

/// Refuses to begin a run on a ledger that was moved.
pub(super) fn refuse_moved(path: &Path, connection: &Connection) -> Result<(), LedgerError> {
    match property(connection, MOVED_TO).map_err(|error| storage(path, "read", error))? {
        Some(to) => Err(moved(&path.display().to_string(), &to)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::restore::Restore;
    use super::*;
    use crate::ledger::record::operator;

    #[test]
    fn a_move_takes_every_column_along() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        drop(SqliteLedger::open_or_create(&path, &operator(), &LedgerKey::from_bytes([1; 32])).unwrap());
        let connection = super::super::open(&path).unwrap();
        let tables: Vec<String> = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let mut moved = Table::ALL.map(Table::name);
        moved.sort_unstable();
        assert_eq!(tables, moved);
        for table in Table::ALL {
            let mut columns: Vec<String> = connection
                .prepare("SELECT name FROM pragma_table_info(?1)")
                .unwrap()
                .query_map([table.name()], |row| row.get(0))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            // Where a run's entries start is found anew.
            columns.retain(|name| name != "first_seq");
            columns.sort_unstable();
            let mut moved: Vec<&str> = table.columns().iter().map(|(name, _)| *name).collect();
            moved.sort_unstable();
            assert_eq!(columns, moved, "{}", table.name());
        }
    }

    /// A ledger, its directory and its key.
    fn ledger() -> (tempfile::TempDir, PathBuf, Connection, LedgerKey) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("ledger.db");
        let key = LedgerKey::from_bytes([1; 32]);
        drop(SqliteLedger::open_or_create(&path, &operator(), &key).unwrap());
        let connection = super::super::open(&path).unwrap();
        (directory, path, connection, key)
    }

    fn run(connection: &Connection, id: i64, first: i64) {
        connection
            .execute(
                "INSERT INTO run (id, campaign, edition, plan_hash, planned_at, unique_codes, recipients, host, actor, pid, version, started_at, first_seq)
                 VALUES (?1, 'diwali', 1, '', 0, 0, 1, '', '', 1, '', 0, ?2)",
                [id, first],
            )
            .unwrap();
    }

    /// The rename guard reads both: what it does not see is sent again under another name.
    #[tokio::test]
    async fn a_moved_ledger_still_knows_what_runs_sent_that_overlapped_or_followed_an_empty_one() {
        use crate::ledger::{Ledger, LedgerLocation};
        let (directory, path, connection, key) = ledger();
        for id in [1, 2, 3] {
            run(&connection, id, 1);
        }
        // Run 1 wrote nothing. Run 3 wrote first, and between the entries of run 2.
        for (send, run) in [(1_i64, 3_i64), (2, 2), (3, 3), (4, 2)] {
            let mut send_key = [0; 16];
            send_key[..8].copy_from_slice(&send.to_le_bytes());
            connection
                .execute(
                    "INSERT INTO journal (run, at, kind, send_key, attempt, likeness) VALUES (?1, 0, 1, ?2, 1, ?3)",
                    rusqlite::params![run, send_key, send],
                )
                .unwrap();
        }
        drop(connection);
        let to = directory.path().canonicalize().unwrap().join("moved.db");
        let (from, place) = (LedgerLocation::File(path), LedgerLocation::File(to.clone()));
        crate::ledger::copy::copy(&from, &place, &operator(), &key).await.unwrap();
        let mut moved = SqliteLedger::open_existing(&to, &operator(), Some(&key)).unwrap().unwrap();
        for (runs, expected) in [(vec![1, 2, 3], vec![1, 2, 3, 4]), (vec![2], vec![2, 4]), (vec![3], vec![1, 3])] {
            let mut found = Vec::new();
            moved.similarity_digests(&runs, &mut |_, digest| found.push(digest)).await.unwrap();
            found.sort_unstable();
            assert_eq!(found, expected, "similarity_digests of {runs:?}");
            let mut found = Vec::new();
            moved.transitions(&runs, &mut |step| found.extend(step.similarity_digest)).await.unwrap();
            assert_eq!(found, expected, "moves of {runs:?}");
        }
        assert_eq!(moved.verify_storage().await.unwrap(), Vec::<String>::new());
        // The same command again does not make up for what the ledger has forgotten since.
        crate::ledger::copy::copy(&from, &place, &operator(), &key).await.unwrap();
        let connection = super::super::open(&to).unwrap();
        HeadFile::write_now(&to, &connection).unwrap().advance(99).unwrap();
        let error = crate::ledger::copy::copy(&from, &place, &operator(), &key).await.unwrap_err().to_string();
        assert!(error.contains("is behind"), "{error}");
    }

    #[test]
    fn a_copy_from_before_the_move_does_not_take_the_place_of_a_moved_ledger() {
        let (directory, path, connection, key) = ledger();
        let copy = directory.path().join("copy.db");
        super::super::backup(&path, &operator(), &copy, None).unwrap();
        set_property(&connection, MOVED_TO, Some("postgres://db.example.com/offers")).unwrap();
        let error = Restore::prepare(&path, &operator(), &copy, &key).err().unwrap().to_string();
        assert!(error.contains("was moved to `postgres://db.example.com/offers`"), "{error}");
    }

    #[test]
    fn what_one_restoring_has_forgotten_is_not_forgotten_by_the_next() {
        let (directory, path, connection, key) = ledger();
        let copy = directory.path().join("copy.db");
        super::super::backup(&path, &operator(), &copy, None).unwrap();
        run(&connection, 1, 1);
        connection
            .execute_batch(
                "INSERT INTO journal (run, at, kind, send_key, attempt) VALUES
                   (1, 0, 1, x'00112233445566778899aabbccddeeff', 1), (1, 0, 2, x'00112233445566778899aabbccddeeff', 1)",
            )
            .unwrap();
        drop(connection);
        for forgotten in [1, 0] {
            let restore = Restore::prepare(&path, &operator(), &copy, &key).unwrap();
            assert_eq!(restore.forgotten.sends, forgotten);
            restore.finish().unwrap();
            let connection = super::super::open(&path).unwrap();
            let told = property(&connection, &format!("{}diwali", crate::ledger::FORGOTTEN_SENDS)).unwrap();
            assert_eq!(told.as_deref(), Some("1"));
        }
    }

    #[test]
    fn a_copy_that_lacks_an_acceptance_that_came_late_has_forgotten_a_send() {
        let directory = tempfile::tempdir().unwrap();
        let (path, copy) = (directory.path().join("ledger.db"), directory.path().join("copy.db"));
        let key = LedgerKey::from_bytes([1; 32]);
        drop(SqliteLedger::open_or_create(&path, &operator(), &key).unwrap());
        let connection = super::super::open(&path).unwrap();
        connection
            .execute_batch(
                "INSERT INTO run (id, campaign, edition, plan_hash, planned_at, unique_codes, recipients, host, actor, pid, version, started_at, first_seq)
                 VALUES (1, 'diwali', 1, '', 0, 0, 1, '', '', 1, '', 0, 1);
                 INSERT INTO journal (run, at, kind, send_key, attempt) VALUES
                   (1, 0, 1, x'00112233445566778899aabbccddeeff', 1), (1, 0, 5, x'00112233445566778899aabbccddeeff', 1);",
            )
            .unwrap();
        super::super::backup(&path, &operator(), &copy, None).unwrap();
        let forgotten = || Restore::prepare(&path, &operator(), &copy, &key).unwrap().forgotten.sends;
        assert_eq!(forgotten(), 0);
        connection
            .execute_batch(
                "INSERT INTO contradiction (run, at, send_key, attempt, kind, stood, stood_attempt)
                 VALUES (1, 0, x'00112233445566778899aabbccddeeff', 1, 2, 5, 1)",
            )
            .unwrap();
        assert_eq!(forgotten(), 1);
    }
}
