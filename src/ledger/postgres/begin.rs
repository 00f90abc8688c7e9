//! Begins runs, and fences off the runs of a campaign that are silent for longer than their lease.

use std::sync::LazyLock;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{BEGIN_DURABLE, durability, schema};
use crate::ledger::MOVED_TO;
use crate::ledger::chain::LinkKind;
use crate::ledger::head::{Head, StartLink};
use crate::ledger::record::{
    ABANDONED_REASON, ABANDONED_SOURCE, RecordedEnding, RunStart, code, instant, milliseconds,
};

pub(super) enum Begun {
    /// Another process holds the campaign.
    Held(String),
    /// Another program has changed the format since this one read it.
    OtherFormat(i64),
    /// Another program has moved the ledger since this one opened it: the new location.
    Moved(String),
    /// A commit would not survive a crash.
    NotDurable(String),
    Run(Beginning),
}

/// A run that has begun.
pub(super) struct Beginning {
    pub(super) run: i64,
    pub(super) campaign: i32,
    pub(super) head: Head,
    /// The last entry of the journal before anything of this run.
    pub(super) after: i64,
    pub(super) warnings: Vec<String>,
}

pub(super) async fn begin(client: &Client, start: &RunStart, now: i64) -> Result<Begun, tokio_postgres::Error> {
    let durability = durability::check(client).await?;
    if let Some(problem) = durability.refusal {
        return Ok(Begun::NotDurable(problem));
    }
    client.batch_execute(BEGIN_DURABLE).await?;
    let format = schema::format_for_run(client).await?;
    if format != schema::FORMAT {
        client.batch_execute("ROLLBACK").await?;
        return Ok(Begun::OtherFormat(format));
    }
    if let Some(place) = schema::property(client, MOVED_TO).await? {
        client.batch_execute("ROLLBACK").await?;
        return Ok(Begun::Moved(place));
    }
    // Runs of one campaign begin one after another.
    let campaign = lock_campaign(client, &start.campaign).await?;
    fence_dead(client, campaign, 0, now).await?;
    if let Some(holder) = holder_of_another_plan(client, campaign, &start.plan_hash).await? {
        client.batch_execute("ROLLBACK").await?;
        return Ok(Begun::Held(holder));
    }
    client
        .execute_typed(
            "UPDATE sendform.campaign SET next_share = 0
             WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM sendform.run WHERE campaign = $1 AND ended_at IS NULL)",
            &[(&campaign, Type::INT4)],
        )
        .await?;
    client
        .execute_typed(
            "INSERT INTO sendform.number (sender, next_at) VALUES ($1, clock_timestamp()) ON CONFLICT (sender) DO NOTHING",
            &[(&start.sender, Type::TEXT)],
        )
        .await?;
    let run = insert_run(client, campaign, start, now).await?;
    let row = client.query_typed_one("SELECT coalesce(max(seq), 0) AS last FROM sendform.journal", &[]).await?;
    let after: i64 = row.try_get("last")?;
    abandon(client, campaign, run, now).await?;
    let head = schema::head_for_update(client).await?.started(&StartLink {
        run,
        campaign: &start.campaign,
        edition: start.edition,
        plan_hash: &start.plan_hash,
        started_at: now,
    });
    schema::add_link(client, head, LinkKind::Start, Some(run), None).await?;
    client.batch_execute("COMMIT").await?;
    Ok(Begun::Run(Beginning { run, campaign, head, after, warnings: durability.warnings }))
}

/// Locks the row of a campaign, which it inserts if there is none. Returns the campaign's number.
pub(super) async fn lock_campaign(client: &Client, name: &str) -> Result<i32, tokio_postgres::Error> {
    client
        .execute_typed(
            "INSERT INTO sendform.campaign (name) VALUES ($1) ON CONFLICT (name) DO NOTHING",
            &[(&name, Type::TEXT)],
        )
        .await?;
    let row = client
        .query_typed_one("SELECT id FROM sendform.campaign WHERE name = $1 FOR UPDATE", &[(&name, Type::TEXT)])
        .await?;
    row.try_get("id")
}

/// Records a run that starts. Returns its number.
async fn insert_run(
    client: &Client,
    campaign: i32,
    start: &RunStart,
    started_at: i64,
) -> Result<i64, tokio_postgres::Error> {
    let row = client
        .query_typed_one(
            "INSERT INTO sendform.run (campaign, edition, name, plan_hash, planned_at, recipients, sender,
                                       host, actor, pid, version, started_at, lease_ms, heartbeat_at,
                                       format, unique_codes, manifest, destination, account, environment, longest_request_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, clock_timestamp(),
                     $14::bigint, $15, $16, $17, $18, $19, $20) RETURNING id",
            &[
                (&campaign, Type::INT4),
                (&start.edition.cast_signed(), Type::INT4),
                (&start.name, Type::TEXT),
                (&start.plan_hash, Type::TEXT),
                (&start.planned_at.as_millisecond(), Type::INT8),
                (&start.recipients.cast_signed(), Type::INT8),
                (&start.sender, Type::TEXT),
                (&start.host, Type::TEXT),
                (&start.actor, Type::TEXT),
                (&i64::from(std::process::id()), Type::INT8),
                (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                (&started_at, Type::INT8),
                (&milliseconds(start.lease), Type::INT8),
                (&schema::FORMAT, Type::INT8),
                (&start.unique_codes, Type::BOOL),
                (&start.manifest, Type::TEXT),
                (&start.destination, Type::TEXT),
                (&start.account, Type::TEXT),
                (&start.environment, Type::TEXT),
                (&milliseconds(start.longest_request), Type::INT8),
            ],
        )
        .await?;
    row.try_get("id")
}

/// The live run of another plan of this campaign, if there is one.
pub(super) async fn holder_of_another_plan(
    client: &Client,
    campaign: i32,
    plan_hash: &str,
) -> Result<Option<String>, tokio_postgres::Error> {
    let rows = client
        .query_typed(
            "SELECT id, actor, host, pid, started_at,
                    extract(epoch FROM clock_timestamp() - heartbeat_at)::double precision AS silent
             FROM sendform.run
             WHERE campaign = $1 AND plan_hash <> $2 AND ended_at IS NULL
               AND heartbeat_at >= clock_timestamp() - lease_ms * interval '1 millisecond' ORDER BY id LIMIT 1",
            &[(&campaign, Type::INT4), (&plan_hash, Type::TEXT)],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (run, pid): (i64, i64) = (row.try_get("id")?, row.try_get("pid")?);
    let (actor, host): (&str, &str) = (row.try_get("actor")?, row.try_get("host")?);
    let (since, silent): (i64, f64) = (row.try_get("started_at")?, row.try_get("silent")?);
    Ok(Some(format!(
        "run {run} of another plan: process {pid} of {actor} on {host} since {:.0}, last heartbeat {silent:.0} s ago",
        instant(since)
    )))
}

/// Fences off the runs of a campaign, other than `not`, that were silent for longer than their lease.
pub(super) async fn fence_dead(
    client: &Client,
    campaign: i32,
    not: i64,
    now: i64,
) -> Result<u64, tokio_postgres::Error> {
    client
        .execute_typed(
            "UPDATE sendform.run SET fenced_at = clock_timestamp(), ended_at = $3, ending = $4
             WHERE campaign = $1 AND id <> $2 AND ended_at IS NULL
               AND heartbeat_at < clock_timestamp() - lease_ms * interval '1 millisecond'",
            &[
                (&campaign, Type::INT4),
                (&not, Type::INT8),
                (&now, Type::INT8),
                (&RecordedEnding::Lost.as_str(), Type::TEXT),
            ],
        )
        .await
}

static ABANDON: LazyLock<String> = LazyLock::new(|| {
    let (intent, unknown) = (code::INTENT, code::UNKNOWN);
    format!(
        "WITH open AS (
           SELECT s.send_key FROM sendform.send s JOIN sendform.run r ON r.id = s.run
           WHERE s.campaign = $1 AND s.state = {intent} AND r.ended_at IS NOT NULL ORDER BY s.send_key FOR UPDATE OF s
         ), lost AS (
           UPDATE sendform.send s SET state = {unknown} FROM open
           WHERE s.send_key = open.send_key AND s.state = {intent} RETURNING s.send_key, s.attempt
         )
         INSERT INTO sendform.journal (run, at, kind, send_key, attempt, reason, source)
         SELECT $2, $3, {unknown}, send_key, attempt, $4, $5 FROM lost"
    )
});

/// Records the open attempts of runs that are over as unknown. `run` is the run that records it.
pub(super) async fn abandon(client: &Client, campaign: i32, run: i64, now: i64) -> Result<u64, tokio_postgres::Error> {
    client
        .execute_typed(
            &ABANDON,
            &[
                (&campaign, Type::INT4),
                (&run, Type::INT8),
                (&now, Type::INT8),
                (&ABANDONED_REASON, Type::TEXT),
                (&ABANDONED_SOURCE, Type::TEXT),
            ],
        )
        .await
}
