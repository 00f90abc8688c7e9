//! Outcomes that need the journal, and reports that it cannot follow.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::append;
use crate::domain::send::{SendKey, SendState, Settlement};
use crate::ledger::columns::columns;
use crate::ledger::contract::Committed;
use crate::ledger::contradiction::Contradiction;
use crate::ledger::late_outcomes::{JournalStep, LateOutcomes};
use crate::ledger::record::state_code;

columns!(
    step: SEND_KEY = "send_key", ATTEMPT = "attempt", KIND = "kind", RUN = "run", SOURCE = "source",
    HAS_ID = "message_id IS NOT NULL",
);

/// Evaluates late, repeated and contradicting outcomes of a run, and writes what follows from them.
/// All attempts of the run began at or after the entry `first_seq`.
pub(super) fn record(
    connection: &Connection,
    first_seq: i64,
    (run, at): (i64, i64),
    settlements: &[&Settlement],
    committed: &mut Committed,
) -> Result<LateOutcomes, rusqlite::Error> {
    let mut outcomes = LateOutcomes::new(run, at);
    let wanted: HashSet<SendKey> = settlements.iter().map(|settlement| settlement.key).collect();
    let sql = format!("SELECT {} FROM journal WHERE seq >= ?1 ORDER BY seq", step::LIST);
    let mut entries = connection.prepare_cached(&sql)?;
    let mut entries = entries.query([first_seq])?;
    while let Some(row) = entries.next()? {
        let key = row.get(step::SEND_KEY)?;
        if wanted.contains(&key) {
            outcomes.add_entry(&JournalStep {
                key,
                attempt: row.get(step::ATTEMPT)?,
                state: row.get(step::KIND)?,
                run: row.get(step::RUN)?,
                source: row.get(step::SOURCE)?,
                has_id: row.get(step::HAS_ID)?,
            });
        }
    }
    // No answer to a claim can be lost here, because it comes from this process.
    outcomes.evaluate_all(settlements.iter().copied(), |_| false, committed);
    append(connection, &outcomes.entries)?;
    for contradiction in &outcomes.contradictions {
        write(connection, contradiction)?;
    }
    Ok(outcomes)
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

/// Sends of which the provider accepted an earlier attempt, which its run reported too late for the record to
/// follow: they are not sent again.
pub(super) fn accepted(connection: &Connection) -> Result<HashSet<SendKey>, rusqlite::Error> {
    let mut keys = connection.prepare_cached("SELECT send_key FROM contradiction WHERE kind = ?1")?;
    let keys = keys.query_map([state_code(SendState::Accepted)], |row| row.get("send_key"))?;
    keys.collect()
}

/// All contradictions, in order.
pub(super) fn contradictions(connection: &Connection) -> Result<Vec<Contradiction>, rusqlite::Error> {
    let mut rows = connection.prepare(
        "SELECT run, at, send_key, attempt, kind, message_id, reason, stood, stood_attempt FROM contradiction ORDER BY id",
    )?;
    let rows = rows.query_map([], |row| {
        Ok(Contradiction {
            run: row.get("run")?,
            at: row.get("at")?,
            key: row.get("send_key")?,
            attempt: row.get("attempt")?,
            said: row.get("kind")?,
            message_id: row.get("message_id")?,
            reason: row.get("reason")?,
            stood: row.get("stood")?,
            stood_attempt: row.get("stood_attempt")?,
        })
    })?;
    rows.collect()
}
