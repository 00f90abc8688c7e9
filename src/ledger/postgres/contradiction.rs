//! Outcomes that need the journal, and what it cannot follow.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::super::hearing::{Hearings, Step};
use super::super::{Committed, Contradiction, LedgerError, Settlement, Source};
use super::super::{state_code, state_of};
use super::{DURABLE, key_of, write_entry};

/// How many outcomes are heard in one transaction. Each of these reads the run's part of the journal once.
pub(super) const TOGETHER: usize = 25_000;

/// What the outcomes of a run are held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reporting {
    pub(super) run: i64,
    /// The time that is written.
    pub(super) at: i64,
    /// Each of the run's own attempts began after this entry.
    pub(super) after: i64,
}

/// Hears late, repeated and contradicting outcomes, and makes durable what follows from them.
/// `doubtful` tells which attempts may never have been claimed. At most [`TOGETHER`] at once.
pub(super) async fn hear(
    client: &Client,
    reporting: Reporting,
    settlements: &[&Settlement],
    doubtful: impl Fn(&Settlement) -> bool,
    committed: &mut Committed,
) -> Result<(), tokio_postgres::Error> {
    let mut keys: Vec<&[u8]> = settlements.iter().map(|settlement| &settlement.key.0[..]).collect();
    keys.sort_unstable();
    keys.dedup();
    client.batch_execute(DURABLE).await?;
    let lock = "SELECT send_key FROM sendform.send WHERE send_key = ANY($1) ORDER BY send_key FOR UPDATE";
    client.execute_typed(lock, &[(&keys, Type::BYTEA_ARRAY)]).await?;
    let entries = client
        .query_typed(
            "SELECT send_key, attempt, kind, run, source, message_id IS NOT NULL FROM sendform.journal
                 WHERE seq > $1 AND send_key = ANY($2) ORDER BY seq",
            &[(&reporting.after, Type::INT8), (&keys, Type::BYTEA_ARRAY)],
        )
        .await?;
    let mut hearings = Hearings::new(reporting.run, reporting.at);
    entries.iter().filter_map(step).for_each(|step| hearings.read(&step));
    let mut heard = Committed::default();
    hearings.hear_all(settlements.iter().copied(), &doubtful, &mut heard);
    for entry in &hearings.entries {
        write_entry(client, entry).await?;
    }
    for (key, state) in &hearings.moved {
        client
            .execute_typed(
                "UPDATE sendform.send SET state = $2 WHERE send_key = $1",
                &[(&&key.0[..], Type::BYTEA), (&state_code(*state), Type::INT2)],
            )
            .await?;
    }
    for contradiction in &hearings.contradictions {
        write(client, contradiction).await?;
    }
    client.batch_execute("COMMIT").await?;
    committed.not_taken += heard.not_taken;
    committed.forgotten.extend(heard.forgotten);
    Ok(())
}

fn step(row: &Row) -> Option<Step> {
    Some(Step {
        key: key_of(row, 0),
        attempt: row.get::<_, i32>(1).cast_unsigned(),
        state: state_of(row.get::<_, i16>(2).into()).ok()?,
        run: row.get(3),
        source: row.get::<_, Option<&str>>(4).and_then(Source::parse),
        has_id: row.get(5),
    })
}

/// Keeps a contradiction, once.
pub(super) async fn write(client: &Client, found: &Contradiction) -> Result<(), tokio_postgres::Error> {
    client
        .execute_typed(
            "INSERT INTO sendform.contradiction (run, at, send_key, attempt, kind, message_id, reason, stood, stood_attempt)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
             WHERE NOT EXISTS (SELECT 1 FROM sendform.contradiction
                               WHERE run = $1 AND send_key = $3 AND attempt = $4 AND kind = $5
                                 AND message_id IS NOT DISTINCT FROM $6)",
            &[
                (&found.run, Type::INT8),
                (&found.at, Type::INT8),
                (&&found.key.0[..], Type::BYTEA),
                (&found.attempt.cast_signed(), Type::INT4),
                (&state_code(found.said), Type::INT2),
                (&found.message_id, Type::TEXT),
                (&found.reason, Type::TEXT),
                (&state_code(found.stood), Type::INT2),
                (&found.stood_attempt.cast_signed(), Type::INT4),
            ],
        )
        .await
        .map(drop)
}

/// All contradictions, in order.
pub(super) async fn read(client: &Client) -> Result<Vec<Row>, tokio_postgres::Error> {
    let sql = "SELECT run, at, send_key, attempt, kind, message_id, reason, stood, stood_attempt
               FROM sendform.contradiction ORDER BY id";
    client.query_typed(sql, &[]).await
}

pub(super) fn of(row: &Row) -> Result<Contradiction, LedgerError> {
    Ok(Contradiction {
        run: row.get("run"),
        at: row.get("at"),
        key: key_of(row, 2),
        attempt: row.get::<_, i32>("attempt").cast_unsigned(),
        said: state_of(row.get::<_, i16>("kind").into())?,
        message_id: row.get("message_id"),
        reason: row.get("reason"),
        stood: state_of(row.get::<_, i16>("stood").into())?,
        stood_attempt: row.get::<_, i32>("stood_attempt").cast_unsigned(),
    })
}
