//! Records sends again that the database has lost.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::begin::lock_campaign;
use super::rows::{read_last_attempt, write_entry};
use super::{BEGIN_DURABLE, late_outcomes, schema};
use crate::ledger::chain::LinkKind;
use crate::ledger::head::StartLink;
use crate::ledger::lost_send::LostSend;
use crate::ledger::protocol::Finding;
use crate::ledger::record::{Operator, RecordedEnding, state_code};

pub(super) async fn restore(
    client: &Client,
    lost: &[LostSend],
    operator: &Operator,
) -> Result<Vec<Finding>, tokio_postgres::Error> {
    client.batch_execute(BEGIN_DURABLE).await?;
    // Whoever locks several sends locks them in this order, so that no two wait for each other.
    let mut order: Vec<usize> = (0..lost.len()).collect();
    order.sort_by_key(|index| (lost[*index].intent.key, lost[*index].intent.attempt));
    let mut findings = vec![Finding::Already; lost.len()];
    let now = operator.now_ms();
    for index in order {
        findings[index] = restore_one(client, &lost[index], &operator.host, now).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(findings)
}

async fn restore_one(client: &Client, send: &LostSend, host: &str, now: i64) -> Result<Finding, tokio_postgres::Error> {
    let (campaign, run) = run_for(client, send, host, now).await?;
    let key = &send.intent.key.0[..];
    let coupon = send.intent.coupon.expose();
    let rows = client
        .query_typed(
            "SELECT state, attempt, run FROM sendform.send WHERE send_key = $1 FOR UPDATE",
            &[(&key, Type::BYTEA)],
        )
        .await?;
    let before = rows.first().map(read_last_attempt).transpose()?;
    let (finding, repair) = send.repair(before, run, now);
    if let Some(last) = repair.last {
        client
            .execute_typed(
                "INSERT INTO sendform.send (send_key, campaign, edition, run, attempt, state, coupon)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (send_key) DO UPDATE SET run = excluded.run, attempt = excluded.attempt, state = excluded.state",
                &[
                    (&key, Type::BYTEA),
                    (&campaign, Type::INT4),
                    (&send.edition.cast_signed(), Type::INT4),
                    (&last.run, Type::INT8),
                    (&last.attempt.cast_signed(), Type::INT4),
                    (&state_code(last.state), Type::INT2),
                    (&coupon, Type::TEXT),
                ],
            )
            .await?;
    }
    if send.unique_code {
        client
            .execute_typed(
                "INSERT INTO sendform.code (code, send_key) VALUES ($1, $2) ON CONFLICT (code) DO NOTHING",
                &[(&coupon, Type::TEXT), (&key, Type::BYTEA)],
            )
            .await?;
    }
    for entry in &repair.entries {
        write_entry(client, entry).await?;
    }
    if let Some(found) = &repair.contradiction {
        late_outcomes::write(client, found).await?;
    }
    Ok(finding)
}

/// The campaign and the run that a lost send is recorded under.
async fn run_for(client: &Client, send: &LostSend, host: &str, now: i64) -> Result<(i32, i64), tokio_postgres::Error> {
    let campaign = lock_campaign(client, &send.campaign).await?;
    let rows = client
        .query_typed(
            "SELECT id FROM sendform.run WHERE campaign = $1 AND edition = $2 ORDER BY id <> $3, id DESC LIMIT 1",
            &[(&campaign, Type::INT4), (&send.edition.cast_signed(), Type::INT4), (&send.run, Type::INT8)],
        )
        .await?;
    if let Some(row) = rows.first() {
        return Ok((campaign, row.try_get("id")?));
    }
    let row = client
        .query_typed_one(
            "INSERT INTO sendform.run (campaign, edition, name, plan_hash, planned_at, recipients, sender, host, actor, pid,
                                       version, started_at, lease_ms, heartbeat_at, ended_at, ending, format, unique_codes)
             VALUES ($1, $2, $3, '', $11, 0, '', $5, $6, $7, $8, $4, 0, clock_timestamp(), $4, $12, $9, $10)
             RETURNING id",
            &[
                (&campaign, Type::INT4),
                (&send.edition.cast_signed(), Type::INT4),
                (&send.campaign, Type::TEXT),
                (&now, Type::INT8),
                (&host, Type::TEXT),
                (&send.actor, Type::TEXT),
                (&i64::from(std::process::id()), Type::INT8),
                (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                (&schema::FORMAT, Type::INT8),
                (&send.unique_code, Type::BOOL),
                (&send.planned_at.as_millisecond(), Type::INT8),
                (&RecordedEnding::Restored.as_str(), Type::TEXT),
            ],
        )
        .await?;
    let run: i64 = row.try_get("id")?;
    let start = StartLink { run, campaign: &send.campaign, edition: send.edition, plan_hash: "", started_at: now };
    let head = schema::head_for_update(client).await?.started(&start);
    schema::add_link(client, head, LinkKind::Start, Some(run), None).await?;
    Ok((campaign, run))
}
