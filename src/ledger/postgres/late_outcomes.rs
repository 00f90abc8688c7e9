//! Outcomes that need the journal, and reports that it cannot follow.

use std::sync::LazyLock;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::BEGIN_DURABLE;
use super::rows::{read_attempt, write_entry};
use crate::domain::send::Settlement;
use crate::ledger::columns::columns;
use crate::ledger::contract::Committed;
use crate::ledger::contradiction::Contradiction;
use crate::ledger::late_outcomes::{JournalStep, LateOutcomes};
use crate::ledger::record::state_code;

/// How many outcomes are evaluated in one transaction. Each of these reads the run's part of the journal once.
pub(super) const CHUNK_LEN: usize = 25_000;

/// The run that reports outcomes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reporting {
    pub(super) run: i64,
    /// The time of the entries that are written.
    pub(super) at: i64,
    /// All attempts of the run began after this entry.
    pub(super) after: i64,
}

columns!(
    step: SEND_KEY = "send_key", ATTEMPT = "attempt", KIND = "kind", RUN = "run", SOURCE = "source",
    HAS_ID = "message_id IS NOT NULL",
);

static STEPS: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM sendform.journal WHERE seq > $1 AND send_key = ANY($2) ORDER BY seq", step::LIST)
});

fn read_step(row: &Row) -> Result<JournalStep, tokio_postgres::Error> {
    Ok(JournalStep {
        key: row.try_get(step::SEND_KEY)?,
        attempt: row.try_get::<_, i32>(step::ATTEMPT)?.cast_unsigned(),
        state: row.try_get(step::KIND)?,
        run: row.try_get(step::RUN)?,
        source: row.try_get(step::SOURCE)?,
        has_id: row.try_get(step::HAS_ID)?,
    })
}

/// Evaluates late, repeated and contradicting outcomes, and makes durable what follows from them. At most
/// [`CHUNK_LEN`] at a time. `may_be_unclaimed` returns whether an attempt may never have been claimed.
pub(super) async fn record(
    client: &Client,
    reporting: Reporting,
    settlements: &[&Settlement],
    may_be_unclaimed: impl Fn(&Settlement) -> bool,
    committed: &mut Committed,
) -> Result<(), tokio_postgres::Error> {
    let mut keys: Vec<&[u8]> = settlements.iter().map(|settlement| &settlement.key.0[..]).collect();
    keys.sort_unstable();
    keys.dedup();
    client.batch_execute(BEGIN_DURABLE).await?;
    let lock = "SELECT send_key FROM sendform.send WHERE send_key = ANY($1) ORDER BY send_key FOR UPDATE";
    client.execute_typed(lock, &[(&keys, Type::BYTEA_ARRAY)]).await?;
    let entries = client.query_typed(&STEPS, &[(&reporting.after, Type::INT8), (&keys, Type::BYTEA_ARRAY)]).await?;
    let mut outcomes = LateOutcomes::new(reporting.run, reporting.at);
    for row in &entries {
        outcomes.add_entry(&read_step(row)?);
    }
    let mut result = Committed::default();
    outcomes.evaluate_all(settlements.iter().copied(), &may_be_unclaimed, &mut result);
    for entry in &outcomes.entries {
        write_entry(client, entry).await?;
    }
    for (key, state) in &outcomes.moved {
        client
            .execute_typed(
                "UPDATE sendform.send SET state = $2 WHERE send_key = $1",
                &[(&&key.0[..], Type::BYTEA), (&state_code(*state), Type::INT2)],
            )
            .await?;
    }
    for contradiction in &outcomes.contradictions {
        write(client, contradiction).await?;
    }
    client.batch_execute("COMMIT").await?;
    committed.not_taken += result.not_taken;
    committed.forgotten.extend(result.forgotten);
    Ok(())
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
pub(super) async fn contradictions(client: &Client) -> Result<Vec<Contradiction>, tokio_postgres::Error> {
    let sql = "SELECT run, at, send_key, attempt, kind, message_id, reason, stood, stood_attempt
               FROM sendform.contradiction ORDER BY id";
    client.query_typed(sql, &[]).await?.iter().map(read_contradiction).collect()
}

fn read_contradiction(row: &Row) -> Result<Contradiction, tokio_postgres::Error> {
    Ok(Contradiction {
        run: row.try_get("run")?,
        at: row.try_get("at")?,
        key: row.try_get("send_key")?,
        attempt: read_attempt(row, "attempt")?,
        said: row.try_get("kind")?,
        message_id: row.try_get("message_id")?,
        reason: row.try_get("reason")?,
        stood: row.try_get("stood")?,
        stood_attempt: read_attempt(row, "stood_attempt")?,
    })
}
