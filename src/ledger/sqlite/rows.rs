//! Rows of the file's tables, and the values in them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, Null, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Statement, params};

use crate::domain::send::{SendKey, SendState};
use crate::ledger::chain::LinkKind;
use crate::ledger::columns::columns;
use crate::ledger::error::UnknownValue;
use crate::ledger::protocol::LastAttempt;
use crate::ledger::record::{EntrySource, JournalEntry, JournalRow, RecordedIntent, state_code, state_of};
use crate::ledger::{Head, LedgerError, RecordedEnding};

fn unknown(value: UnknownValue) -> FromSqlError {
    FromSqlError::Other(Box::new(value))
}

impl FromSql for SendKey {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        FromSql::column_result(value).map(SendKey)
    }
}

impl FromSql for SendState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        state_of(value.as_i64()?).map_err(unknown)
    }
}

impl FromSql for EntrySource {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        EntrySource::parse(value.as_str_or_null()?).map_err(unknown)
    }
}

impl FromSql for LinkKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        LinkKind::parse(value.as_str()?).map_err(unknown)
    }
}

impl FromSql for RecordedEnding {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str().map(RecordedEnding::from)
    }
}

/// The error that an error of SQLite stands for.
pub(super) fn storage(path: &Path, action: &'static str, error: rusqlite::Error) -> LedgerError {
    let place = path.display().to_string();
    if let rusqlite::Error::FromSqlConversionFailure(_, _, source) = &error
        && let Some(value) = source.downcast_ref::<UnknownValue>()
    {
        return LedgerError::UnknownValue { place, value: value.clone() };
    }
    let problem = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
        Some(ErrorCode::ReadOnly) => "it is read-only".to_owned(),
        Some(ErrorCode::NotADatabase) => return LedgerError::NotALedger(place),
        _ => error.to_string(),
    };
    LedgerError::Storage { place, action, problem, source: Some(Box::new(error)) }
}

columns!(
    /// A whole row of the journal.
    entry: SEQ = "seq", RUN = "run", AT = "at", KIND = "kind", SEND_KEY = "send_key", ATTEMPT = "attempt",
    DIGEST = "digest", SIMILARITY_DIGEST = "likeness", MASKED = "address", COUPON = "coupon", EXPIRES = "expires",
    MESSAGE_ID = "message_id", REASON = "reason", SOURCE = "source", ACTOR = "actor",
);

/// Visits the entries of the journal in order; only those of one campaign's runs, if one is named.
pub(super) fn visit_journal(
    connection: &Connection,
    campaign: Option<&str>,
    visit: &mut dyn FnMut(JournalEntry),
) -> Result<(), rusqlite::Error> {
    let sql = format!(
        "SELECT {} FROM journal WHERE ?1 IS NULL OR run IN (SELECT id FROM run WHERE campaign = ?1) ORDER BY seq",
        entry::LIST
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([campaign])?;
    while let Some(row) = rows.next()? {
        visit(read_entry(row)?);
    }
    Ok(())
}

fn read_entry(row: &Row<'_>) -> Result<JournalEntry, rusqlite::Error> {
    Ok(JournalEntry::from(JournalRow {
        seq: row.get(entry::SEQ)?,
        run: row.get(entry::RUN)?,
        at: row.get(entry::AT)?,
        state: row.get(entry::KIND)?,
        key: row.get(entry::SEND_KEY)?,
        attempt: row.get(entry::ATTEMPT)?,
        digest: row.get(entry::DIGEST)?,
        similarity_digest: row.get(entry::SIMILARITY_DIGEST)?,
        masked: row.get(entry::MASKED)?,
        coupon: row.get(entry::COUPON)?,
        expires: row.get(entry::EXPIRES)?,
        message_id: row.get(entry::MESSAGE_ID)?,
        reason: row.get(entry::REASON)?,
        source: row.get(entry::SOURCE)?,
        actor: row.get(entry::ACTOR)?,
    }))
}

columns!(
    /// What is written of an entry. Its number is given by the file.
    appended: RUN = "run", AT = "at", KIND = "kind", SEND_KEY = "send_key", ATTEMPT = "attempt", DIGEST = "digest",
    SIMILARITY_DIGEST = "likeness", MASKED = "address", COUPON = "coupon", EXPIRES = "expires",
    MESSAGE_ID = "message_id", REASON = "reason", SOURCE = "source", ACTOR = "actor",
);

static APPEND: LazyLock<String> = LazyLock::new(|| {
    let marks = vec!["?"; appended::ACTOR + 1].join(", ");
    format!("INSERT INTO journal ({}) VALUES ({marks})", appended::LIST)
});

/// Appends entries to the journal.
pub(super) fn append(connection: &Connection, entries: &[JournalEntry]) -> Result<(), rusqlite::Error> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut insert = connection.prepare_cached(&APPEND)?;
    entries.iter().try_for_each(|entry| append_one(&mut insert, entry))
}

fn append_one(insert: &mut Statement<'_>, entry: &JournalEntry) -> Result<(), rusqlite::Error> {
    // SQLite counts parameters from 1.
    insert.raw_bind_parameter(appended::RUN + 1, entry.run)?;
    insert.raw_bind_parameter(appended::AT + 1, entry.at)?;
    insert.raw_bind_parameter(appended::KIND + 1, state_code(entry.state()))?;
    insert.raw_bind_parameter(appended::SEND_KEY + 1, entry.key.0)?;
    insert.raw_bind_parameter(appended::ATTEMPT + 1, entry.attempt)?;
    match entry.intent() {
        Some(RecordedIntent { digest, similarity_digest, masked, coupon, expires, .. }) => {
            insert.raw_bind_parameter(appended::DIGEST + 1, digest)?;
            insert.raw_bind_parameter(appended::SIMILARITY_DIGEST + 1, similarity_digest)?;
            insert.raw_bind_parameter(appended::MASKED + 1, masked.as_deref())?;
            insert.raw_bind_parameter(appended::COUPON + 1, coupon.as_deref())?;
            insert.raw_bind_parameter(appended::EXPIRES + 1, expires)?;
        }
        None => {
            for column in appended::DIGEST..=appended::EXPIRES {
                insert.raw_bind_parameter(column + 1, Null)?;
            }
        }
    }
    insert.raw_bind_parameter(appended::MESSAGE_ID + 1, entry.message_id())?;
    insert.raw_bind_parameter(appended::REASON + 1, entry.reason())?;
    insert.raw_bind_parameter(appended::SOURCE + 1, entry.source())?;
    insert.raw_bind_parameter(appended::ACTOR + 1, entry.actor())?;
    insert.raw_execute().map(drop)
}

/// The number of the last entry of the journal.
pub(super) fn position(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.prepare_cached("SELECT coalesce(max(seq), 0) FROM journal")?.query_row([], |row| row.get(0))
}

/// The last link of the chain.
pub(super) fn head(connection: &Connection) -> Result<Head, rusqlite::Error> {
    connection.query_row("SELECT number, hash FROM link ORDER BY number DESC LIMIT 1", [], read_head)
}

/// The head in the columns `number` and `hash`.
pub(super) fn read_head(row: &Row<'_>) -> Result<Head, rusqlite::Error> {
    Ok(Head { number: row.get::<_, i64>("number")?.cast_unsigned(), hash: row.get("hash")? })
}

/// Adds a link to the chain.
pub(super) fn add_link(
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

columns!(step: SEND_KEY = "send_key", KIND = "kind", ATTEMPT = "attempt", RUN = "run");

/// Reads the states and last attempts of the wanted sends from the journal.
pub(super) fn load_states(
    connection: &Connection,
    wanted: impl Fn(&SendKey) -> bool,
) -> Result<HashMap<SendKey, LastAttempt>, rusqlite::Error> {
    let mut found: HashMap<SendKey, LastAttempt> = HashMap::new();
    let mut statement = connection.prepare(&format!("SELECT {} FROM journal ORDER BY seq", step::LIST))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = row.get(step::SEND_KEY)?;
        if !wanted(&key) {
            continue;
        }
        let state = row.get(step::KIND)?;
        let (attempt, run) = (row.get(step::ATTEMPT)?, row.get(step::RUN)?);
        let last = found.entry(key).or_insert(LastAttempt { state, attempt, run });
        last.state = state;
        // A late acceptance may be about an attempt before the last.
        last.attempt = last.attempt.max(attempt);
        if state == SendState::Intent {
            last.run = run;
        }
    }
    Ok(found)
}

/// Reads a property of the ledger.
pub(super) fn property(connection: &Connection, name: &str) -> Result<Option<String>, rusqlite::Error> {
    connection.query_row("SELECT value FROM property WHERE name = ?1", [name], |row| row.get("value")).optional()
}

/// Sets a property of the ledger, or removes it.
pub(super) fn set_property(connection: &Connection, name: &str, value: Option<&str>) -> Result<(), rusqlite::Error> {
    match value {
        Some(value) => {
            connection.execute("INSERT OR REPLACE INTO property (name, value) VALUES (?1, ?2)", [name, value])
        }
        None => connection.execute("DELETE FROM property WHERE name = ?1", [name]),
    }
    .map(drop)
}

/// A count in a column; nothing if it was not recorded.
pub(super) fn read_count(row: &Row<'_>, column: &str) -> Result<Option<u64>, rusqlite::Error> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
}
