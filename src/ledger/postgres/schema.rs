//! The tables of the ledger, and their migration.

use std::sync::LazyLock;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::rows::read_head;
use crate::ledger::chain::LinkKind;
use crate::ledger::head::Head;
use crate::ledger::record::{RecordedEnding, code};

/// The format that this version writes.
pub(super) const FORMAT: i64 = 2;

/// How long the migration of older tables may take: it searches the whole journal for generated codes.
pub(super) const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);

/// The advisory lock that is taken before the tables are created or migrated.
const CREATE_LOCK_ID: i64 = 0x534e_4446;

/// Format 1.
///
/// Times are epoch milliseconds of the applier's clock, except for heartbeats and pacing, which use the database's
/// clock: which runs are alive must not depend on how well clocks agree.
const SCHEMA: &str = "
CREATE SCHEMA IF NOT EXISTS sendform;
CREATE TABLE sendform.property (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE sendform.campaign (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  next_share bigint NOT NULL DEFAULT 0
);
CREATE TABLE sendform.run (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  campaign int NOT NULL REFERENCES sendform.campaign (id),
  edition int NOT NULL, name text NOT NULL,
  plan_hash text NOT NULL, planned_at bigint NOT NULL, recipients bigint NOT NULL, sender text NOT NULL,
  host text NOT NULL, actor text NOT NULL, pid bigint NOT NULL, version text NOT NULL,
  started_at bigint NOT NULL, lease_ms bigint NOT NULL,
  heartbeat_at timestamptz NOT NULL, open bigint NOT NULL DEFAULT 0,
  fenced_at timestamptz, ended_at bigint, ending text,
  accepted bigint, rejected bigint, unknown bigint, not_sent bigint, digest bytea
) WITH (fillfactor = 50);
CREATE INDEX run_live ON sendform.run (campaign) WHERE ended_at IS NULL;
-- One row for each send: the gate. state: 1 intent, 2 accepted, 3 rejected, 4 unknown, 5 not sent.
CREATE TABLE sendform.send (
  send_key bytea PRIMARY KEY,
  campaign int NOT NULL, edition int NOT NULL,
  run bigint NOT NULL, attempt int NOT NULL, state smallint NOT NULL, coupon text NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX send_campaign ON sendform.send (campaign, edition);
-- One row for each move, never changed.
CREATE TABLE sendform.journal (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run bigint NOT NULL, at bigint NOT NULL, kind smallint NOT NULL,
  send_key bytea NOT NULL, attempt int NOT NULL,
  digest bytea, likeness bigint, address text, coupon text, expires bigint,
  message_id text, reason text, source text, actor text
);
-- A code of a pool goes to one send, whichever campaigns share the pool.
CREATE TABLE sendform.code (code text PRIMARY KEY, send_key bytea NOT NULL);
-- When the next message may leave from a sender number, for all appliers together.
CREATE TABLE sendform.number (sender text PRIMARY KEY, next_at timestamptz NOT NULL) WITH (fillfactor = 50);
CREATE TABLE sendform.link (number bigint PRIMARY KEY, hash bytea NOT NULL, kind text NOT NULL, run bigint);
";

/// Format 2: runs record destination, manifest, account, environment and the longest request; codes are unique
/// whether they come from a pool or are generated; a late answer that the record cannot follow is kept as a
/// contradiction. The columns `effective`, `summary`, `template`, `language`, `country`, `variant` and `parts` are
/// reserved, so that later versions need no further format for them.
///
/// `run.format` has no default. So an older program that read the format before the migration cannot begin a run
/// after it.
const MIGRATE_1_TO_2: &str = "
ALTER TABLE sendform.run
  ADD COLUMN format smallint NOT NULL DEFAULT 1,
  ADD COLUMN unique_codes boolean NOT NULL DEFAULT false,
  ADD COLUMN manifest text, ADD COLUMN destination text, ADD COLUMN account text, ADD COLUMN environment text,
  ADD COLUMN longest_request_ms bigint,
  ADD COLUMN effective bytea, ADD COLUMN summary bytea;
ALTER TABLE sendform.run ALTER COLUMN format DROP DEFAULT;
ALTER TABLE sendform.journal
  ADD COLUMN template text, ADD COLUMN language text, ADD COLUMN country text, ADD COLUMN variant text,
  ADD COLUMN parts bytea;
ALTER TABLE sendform.link ADD COLUMN detail text;
-- What a run said of an attempt of its own that the record could not follow. kind is what it said;
-- stood and stood_attempt are what the record held then.
CREATE TABLE sendform.contradiction (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run bigint NOT NULL, at bigint NOT NULL,
  send_key bytea NOT NULL, attempt int NOT NULL, kind smallint NOT NULL,
  message_id text, reason text,
  stood smallint NOT NULL, stood_attempt int NOT NULL
);
";

/// Older versions did not record that codes were generated. The codes of a run that gave no code to two recipients may
/// be generated, so they must stay spent. If a few other codes are spent with them, that is harmless. If two runs gave
/// one code to two recipients, one of them owns it from now on, and the other one keeps it in the recorded send.
static SPEND_GENERATED_CODES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
INSERT INTO sendform.code (code, send_key)
SELECT s.coupon, s.send_key FROM sendform.send s
WHERE s.run IN (
  SELECT run FROM sendform.journal WHERE kind = {} GROUP BY run HAVING count(DISTINCT send_key) = count(DISTINCT coupon))
ORDER BY s.coupon, s.send_key
ON CONFLICT (code) DO NOTHING;
UPDATE sendform.run r SET unique_codes = EXISTS (
  SELECT 1 FROM sendform.send s JOIN sendform.code c ON c.code = s.coupon AND c.send_key = s.send_key WHERE s.run = r.id);
",
        code::INTENT
    )
});

/// The result of a migration.
pub(super) enum Migrated {
    /// The tables have this version's format now.
    Done,
    /// A run is under way; the text describes it.
    Held(String),
}

/// Migrates older tables to this version's format, in one transaction, unless a run is under way.
pub(super) async fn migrate(client: &Client, now: i64) -> Result<Migrated, tokio_postgres::Error> {
    client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on").await?;
    client.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&CREATE_LOCK_ID, Type::INT8)]).await?;
    // Runs that begin hold this row until they have begun.
    client.query_typed("SELECT value FROM sendform.property WHERE name = 'format' FOR UPDATE", &[]).await?;
    // Another program may have migrated them while this one waited.
    if format(client).await? != Some(1) {
        client.batch_execute("ROLLBACK").await?;
        return Ok(Migrated::Done);
    }
    client.batch_execute("LOCK TABLE sendform.run IN ACCESS EXCLUSIVE MODE").await?;
    let live = client
        .query_typed(
            "SELECT r.id, c.name AS campaign, r.actor, r.host FROM sendform.run r JOIN sendform.campaign c ON c.id = r.campaign
             WHERE r.ended_at IS NULL AND r.heartbeat_at >= clock_timestamp() - r.lease_ms * interval '1 millisecond'
             ORDER BY r.id LIMIT 1",
            &[],
        )
        .await?;
    if let Some(row) = live.first() {
        let (run, campaign): (i64, &str) = (row.try_get("id")?, row.try_get("campaign")?);
        let (actor, host): (&str, &str) = (row.try_get("actor")?, row.try_get("host")?);
        let holder =
            format!("run {run} of `{campaign}` by {actor} on {host}, which an older version of sendform started");
        client.batch_execute("ROLLBACK").await?;
        return Ok(Migrated::Held(holder));
    }
    // A run of an older version that only seems dead must not continue on the new tables.
    client
        .execute_typed(
            "UPDATE sendform.run SET fenced_at = clock_timestamp(), ended_at = $1, ending = $2 WHERE ended_at IS NULL",
            &[(&now, Type::INT8), (&RecordedEnding::Lost.as_str(), Type::TEXT)],
        )
        .await?;
    client.batch_execute(MIGRATE_1_TO_2).await?;
    client.batch_execute(&SPEND_GENERATED_CODES).await?;
    client
        .execute_typed(
            "UPDATE sendform.property SET value = $1 WHERE name = 'format'",
            &[(&FORMAT.to_string(), Type::TEXT)],
        )
        .await?;
    client.batch_execute("COMMIT").await?;
    Ok(Migrated::Done)
}

/// The format of the tables. Nobody can change it before this transaction ends.
pub(super) async fn format_for_run(client: &Client) -> Result<i64, tokio_postgres::Error> {
    let row =
        client.query_typed_one("SELECT value FROM sendform.property WHERE name = 'format' FOR SHARE", &[]).await?;
    Ok(row.try_get::<_, &str>("value")?.parse().unwrap_or_default())
}

/// The format of the tables; nothing if there are none.
pub(super) async fn format(client: &Client) -> Result<Option<i64>, tokio_postgres::Error> {
    let there = client
        .query_typed("SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = 'sendform' AND tablename = 'property'", &[])
        .await?;
    if there.is_empty() {
        return Ok(None);
    }
    Ok(property(client, "format").await?.and_then(|format| format.parse().ok()))
}

pub(super) async fn property(client: &Client, name: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let rows =
        client.query_typed("SELECT value FROM sendform.property WHERE name = $1", &[(&name, Type::TEXT)]).await?;
    rows.first().map(|row| row.try_get("value")).transpose()
}

pub(super) async fn set_property(
    client: &Client,
    name: &str,
    value: Option<&str>,
) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(super::BEGIN_DURABLE).await?;
    client.execute_typed("DELETE FROM sendform.property WHERE name = $1", &[(&name, Type::TEXT)]).await?;
    if let Some(value) = value {
        client
            .execute_typed(
                "INSERT INTO sendform.property (name, value) VALUES ($1, $2)",
                &[(&name, Type::TEXT), (&value, Type::TEXT)],
            )
            .await?;
    }
    client.batch_execute("COMMIT").await
}

/// Creates the tables, unless another applier was faster.
pub(super) async fn create(client: &Client, fingerprint: &str, id: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("BEGIN").await?;
    client.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&CREATE_LOCK_ID, Type::INT8)]).await?;
    if format(client).await?.is_none() {
        create_tables(client, fingerprint, id).await?;
    }
    client.batch_execute("COMMIT").await
}

/// Creates the tables, within a transaction.
pub(super) async fn create_tables(client: &Client, fingerprint: &str, id: &str) -> Result<(), tokio_postgres::Error> {
    client.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&CREATE_LOCK_ID, Type::INT8)]).await?;
    client.batch_execute(SCHEMA).await?;
    client.batch_execute(MIGRATE_1_TO_2).await?;
    let head = Head::of_ledger(id);
    for (name, value) in [("format", FORMAT.to_string().as_str()), ("ledger_id", id), ("key_fingerprint", fingerprint)]
    {
        client
            .execute_typed(
                "INSERT INTO sendform.property (name, value) VALUES ($1, $2)",
                &[(&name, Type::TEXT), (&value, Type::TEXT)],
            )
            .await?;
    }
    add_link(client, head, LinkKind::Ledger, None, None).await
}

/// The last link of the chain. Nobody else can add a link before this transaction ends.
pub(super) async fn head_for_update(client: &Client) -> Result<Head, tokio_postgres::Error> {
    client.query_typed("SELECT value FROM sendform.property WHERE name = 'ledger_id' FOR UPDATE", &[]).await?;
    let row =
        client.query_typed_one("SELECT number, hash FROM sendform.link ORDER BY number DESC LIMIT 1", &[]).await?;
    read_head(&row)
}

pub(super) async fn add_link(
    client: &Client,
    head: Head,
    kind: LinkKind,
    run: Option<i64>,
    detail: Option<&str>,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute_typed(
            "INSERT INTO sendform.link (number, hash, kind, run, detail) VALUES ($1, $2, $3, $4, $5)",
            &[
                (&head.number.cast_signed(), Type::INT8),
                (&&head.hash[..], Type::BYTEA),
                (&kind.as_str(), Type::TEXT),
                (&run, Type::INT8),
                (&detail, Type::TEXT),
            ],
        )
        .await
        .map(drop)
}
