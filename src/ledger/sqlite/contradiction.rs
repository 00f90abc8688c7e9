//! Outcomes that need the journal, and what it cannot follow.

use std::collections::HashSet;

use rusqlite::{Connection, Row, params};

use super::super::hearing::{Hearings, Step};
use super::super::{Committed, Contradiction, SendKey, SendState, Settlement, Source};
use super::super::{state_code, state_of};
use super::append;

/// Hears late, repeated and contradicting outcomes, and writes what follows from them.
/// Each of the run's own attempts began at or after the entry `first_seq`.
pub(super) fn hear(
    connection: &Connection,
    first_seq: i64,
    (run, at): (i64, i64),
    settlements: &[&Settlement],
    committed: &mut Committed,
) -> Result<Hearings, rusqlite::Error> {
    let mut hearings = Hearings::new(run, at);
    let wanted: HashSet<SendKey> = settlements.iter().map(|settlement| settlement.key).collect();
    let mut entries = connection.prepare_cached(
        "SELECT send_key, attempt, kind, run, source, message_id IS NOT NULL FROM journal WHERE seq >= ?1 ORDER BY seq",
    )?;
    let mut entries = entries.query([first_seq])?;
    while let Some(row) = entries.next()? {
        let key = SendKey(row.get(0)?);
        if wanted.contains(&key) {
            hearings.read(&Step {
                key,
                attempt: row.get(1)?,
                state: state_of(row.get(2)?).map_err(|_| rusqlite::Error::InvalidQuery)?,
                run: row.get(3)?,
                source: row.get::<_, Option<String>>(4)?.and_then(|source| Source::parse(&source)),
                has_id: row.get(5)?,
            });
        }
    }
    // Claims whose answer is lost do not exist here: the answer comes from this process.
    hearings.hear_all(settlements.iter().copied(), |_| false, committed);
    append(connection, &hearings.entries)?;
    for contradiction in &hearings.contradictions {
        write(connection, contradiction)?;
    }
    Ok(hearings)
}

/// Keeps a contradiction, once.
pub(super) fn write(connection: &Connection, found: &Contradiction) -> Result<(), rusqlite::Error> {
    connection
        .execute(
            "INSERT INTO contradiction (run, at, send_key, attempt, kind, message_id, reason, stood, stood_attempt)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9
             WHERE NOT EXISTS (SELECT 1 FROM contradiction
                               WHERE run = ?1 AND send_key = ?3 AND attempt = ?4 AND kind = ?5 AND message_id IS ?6)",
            params![
                found.run,
                found.at,
                found.key.0,
                found.attempt,
                state_code(found.said),
                found.message_id,
                found.reason,
                state_code(found.stood),
                found.stood_attempt
            ],
        )
        .map(drop)
}

/// Sends of which an earlier attempt was accepted, as its run reported too late.
pub(super) fn accepted(connection: &Connection) -> Result<HashSet<SendKey>, rusqlite::Error> {
    let mut keys = connection.prepare_cached("SELECT send_key FROM contradiction WHERE kind = ?1")?;
    let keys = keys.query_map([state_code(SendState::Accepted)], |row| row.get(0).map(SendKey))?;
    keys.collect()
}

/// All contradictions, in order.
pub(super) fn read(connection: &Connection) -> Result<Vec<Contradiction>, rusqlite::Error> {
    let mut rows = connection.prepare(
        "SELECT run, at, send_key, attempt, kind, message_id, reason, stood, stood_attempt FROM contradiction ORDER BY id",
    )?;
    let state = |row: &Row<'_>, column: &str| state_of(row.get(column)?).map_err(|_| rusqlite::Error::InvalidQuery);
    let rows = rows.query_map([], |row| {
        Ok(Contradiction {
            run: row.get("run")?,
            at: row.get("at")?,
            key: SendKey(row.get("send_key")?),
            attempt: row.get("attempt")?,
            said: state(row, "kind")?,
            message_id: row.get("message_id")?,
            reason: row.get("reason")?,
            stood: state(row, "stood")?,
            stood_attempt: row.get("stood_attempt")?,
        })
    })?;
    rows.collect()
}
