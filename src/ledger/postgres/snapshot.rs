//! Reads the sends of one edition, as of one moment.

use std::sync::{Arc, LazyLock};

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::connection::Connection;
use super::{BEGIN_SNAPSHOT, PAGE_LEN};
use crate::ledger::columns::columns;
use crate::ledger::contract::{Scope, Snapshot, StateCounts};
use crate::ledger::error::LedgerError;
use crate::ledger::record::{code, instant};
use crate::ledger::send_table::SendTable;

columns!(send: SEND_KEY = "send_key", STATE = "state", ATTEMPT = "attempt", RUN = "run", COUPON = "coupon");

static SENDS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM sendform.send
         WHERE campaign = $1 AND edition = $2 AND send_key > $3 ORDER BY send_key LIMIT $4",
        send::LIST
    )
});

static ACCEPTED: LazyLock<String> =
    LazyLock::new(|| format!("SELECT send_key FROM sendform.contradiction WHERE kind = {}", code::ACCEPTED));

/// Reads a snapshot.
pub(super) async fn read(connection: &mut Connection, scope: &Scope) -> Result<Snapshot, LedgerError> {
    let target = connection.target.clone();
    let client = connection.client().await?;
    let snapshot = read_transaction(client, scope).await;
    snapshot.map_err(|error| target.failed("read", error))
}

async fn read_transaction(client: &Client, scope: &Scope) -> Result<Snapshot, tokio_postgres::Error> {
    client.batch_execute(BEGIN_SNAPSHOT).await?;
    let rows = client
        .query_typed("SELECT id FROM sendform.campaign WHERE name = $1", &[(&scope.campaign, Type::TEXT)])
        .await?;
    let campaign: Option<i32> = rows.first().map(|row| row.try_get("id")).transpose()?;
    let sends = read_sends(client, campaign, scope.edition).await?;
    let mut snapshot = Snapshot::default();
    let rows = client
        .query_typed("SELECT planned_at FROM sendform.run WHERE id = $1", &[(&sends.first_run(), Type::INT8)])
        .await?;
    snapshot.planned_at = rows.first().map(|row| row.try_get("planned_at")).transpose()?.map(instant);
    snapshot.sends = Arc::new(sends);
    let rows = client
        .query_typed(
            "SELECT id FROM sendform.run WHERE campaign = $1 AND ended_at IS NULL
               AND heartbeat_at >= clock_timestamp() - lease_ms * interval '1 millisecond'",
            &[(&campaign, Type::INT4)],
        )
        .await?;
    snapshot.live = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    // Where codes may repeat, the codes of others do not matter.
    if scope.unique_codes {
        snapshot.spent_codes = read_spent_codes(client, campaign, scope.edition).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(snapshot)
}

async fn read_sends(client: &Client, campaign: Option<i32>, edition: u32) -> Result<SendTable, tokio_postgres::Error> {
    let mut sends = SendTable::default();
    let mut after: Vec<u8> = Vec::new();
    while let Some(campaign) = campaign {
        let rows = client
            .query_typed(
                &SENDS,
                &[
                    (&campaign, Type::INT4),
                    (&edition.cast_signed(), Type::INT4),
                    (&after, Type::BYTEA),
                    (&PAGE_LEN, Type::INT8),
                ],
            )
            .await?;
        let Some(last) = rows.last() else { break };
        after = last.try_get(send::SEND_KEY)?;
        for row in &rows {
            let intent = (row.try_get(send::RUN)?, row.try_get(send::COUPON)?);
            let attempt = row.try_get::<_, i32>(send::ATTEMPT)?.cast_unsigned();
            sends.record(row.try_get(send::SEND_KEY)?, row.try_get(send::STATE)?, attempt, Some(intent));
        }
    }
    // The provider accepted an earlier attempt after all, so nothing more is sent.
    for row in client.query_typed(&ACCEPTED, &[]).await? {
        sends.record_earlier_acceptance(&row.try_get("send_key")?);
    }
    Ok(sends)
}

async fn read_spent_codes(
    client: &Client,
    campaign: Option<i32>,
    edition: u32,
) -> Result<Vec<Box<str>>, tokio_postgres::Error> {
    let mut codes: Vec<Box<str>> = Vec::new();
    let mut after = String::new();
    loop {
        let rows = client
            .query_typed(
                "SELECT c.code FROM sendform.code c JOIN sendform.send s ON s.send_key = c.send_key
                 WHERE NOT (s.campaign = $1 AND s.edition = $2) AND c.code > $3 ORDER BY c.code LIMIT $4",
                &[
                    (&campaign.unwrap_or(0), Type::INT4),
                    (&edition.cast_signed(), Type::INT4),
                    (&after, Type::TEXT),
                    (&PAGE_LEN, Type::INT8),
                ],
            )
            .await?;
        let Some(last) = rows.last() else { return Ok(codes) };
        after = last.try_get("code")?;
        for row in &rows {
            codes.push(row.try_get::<_, &str>("code")?.into());
        }
    }
}

static COUNTS: LazyLock<String> = LazyLock::new(|| {
    let (accepted, rejected, not_sent) = (code::ACCEPTED, code::REJECTED, code::NOT_SENT);
    // As in a snapshot: a send of which the provider accepted an earlier attempt counts as accepted.
    format!(
        "SELECT state, count(*) AS sends FROM (
           SELECT CASE WHEN s.state IN ({rejected}, {not_sent})
                         AND EXISTS (SELECT 1 FROM sendform.contradiction x WHERE x.send_key = s.send_key AND x.kind = {accepted})
                       THEN {accepted}::smallint ELSE s.state END AS state
           FROM sendform.send s WHERE s.campaign = $1 AND s.edition = $2) counted
         GROUP BY state"
    )
});

/// Counts the sends of one edition by state.
pub(super) async fn count_by_state(
    client: &Client,
    campaign: i32,
    edition: u32,
) -> Result<StateCounts, tokio_postgres::Error> {
    let rows = client.query_typed(&COUNTS, &[(&campaign, Type::INT4), (&edition.cast_signed(), Type::INT4)]).await?;
    let mut counts = StateCounts::default();
    for row in &rows {
        counts.add(row.try_get("state")?, row.try_get::<_, i64>("sends")?.cast_unsigned());
    }
    Ok(counts)
}
