//! The ledger's tables: made on first use, and brought up to this version's format.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::super::chain::{Head, LinkKind};

/// The format that this program writes.
pub(super) const FORMAT: i64 = 2;

/// How long older tables may take to be brought up to this version's format: generated codes are
/// looked for in the whole journal.
pub(super) const MIGRATION_PATIENCE: Duration = Duration::from_secs(600);

/// Whoever makes the tables or changes their format takes this lock first.
const MAKING: i64 = 0x534e_4446;

/// Times are epoch milliseconds of the applier's clock, but for heartbeats and pacing, which are the
/// database's: who is alive must not depend on how well clocks agree.
///
/// This is format 1.
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

/// Format 2: runs say where they sent, for which manifest, and how long a request of theirs can
/// live; codes are unique whether they come from a pool or are generated; a late answer that the
/// record can no longer follow is kept as a contradiction. The columns `effective`, `summary`,
/// `template`, `language`, `country`, `variant` and `parts` are for later versions, which need no
/// further format for them.
///
/// `run.format` has no default. So a program that looked at the format before it was changed, and
/// knows the older one alone, cannot begin a run afterwards.
const TO_2: &str = "
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

/// Older versions did not record that codes were generated. A run that gave nobody a code that
/// somebody else has gave away codes that must stay spent; if a few others are spent with them, no
/// harm is done. Of two people who were given one code by two runs, one holds it from now on, and
/// the other keeps it with what was sent.
const SPEND_GENERATED_CODES: &str = "
INSERT INTO sendform.code (code, send_key)
SELECT s.coupon, s.send_key FROM sendform.send s
WHERE s.run IN (
  SELECT run FROM sendform.journal WHERE kind = 1 GROUP BY run HAVING count(DISTINCT send_key) = count(DISTINCT coupon))
ORDER BY s.coupon, s.send_key
ON CONFLICT (code) DO NOTHING;
UPDATE sendform.run r SET unique_codes = EXISTS (
  SELECT 1 FROM sendform.send s JOIN sendform.code c ON c.code = s.coupon AND c.send_key = s.send_key WHERE s.run = r.id);
";

/// What became of tables of an older format.
pub(super) enum Migrated {
    /// They have this version's format now.
    Done,
    /// A run is under way: who.
    Held(String),
}

/// Brings older tables up to this version's format, in one transaction, unless a run is under way.
pub(super) async fn migrate(client: &Client) -> Result<Migrated, tokio_postgres::Error> {
    client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on").await?;
    client.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&MAKING, Type::INT8)]).await?;
    // Runs that begin hold this row until they have begun.
    client.query_typed("SELECT value FROM sendform.property WHERE name = 'format' FOR UPDATE", &[]).await?;
    // Another program may have done it while this one waited.
    if format(client).await? != Some(1) {
        client.batch_execute("ROLLBACK").await?;
        return Ok(Migrated::Done);
    }
    client.batch_execute("LOCK TABLE sendform.run IN ACCESS EXCLUSIVE MODE").await?;
    let live = client
        .query_typed(
            "SELECT r.id, c.name, r.actor, r.host FROM sendform.run r JOIN sendform.campaign c ON c.id = r.campaign
             WHERE r.ended_at IS NULL AND r.heartbeat_at >= clock_timestamp() - r.lease_ms * interval '1 millisecond'
             ORDER BY r.id LIMIT 1",
            &[],
        )
        .await?;
    if let Some(row) = live.first() {
        let (run, campaign, actor, host): (i64, &str, &str, &str) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let holder =
            format!("run {run} of `{campaign}` by {actor} on {host}, which an older version of sendform started");
        client.batch_execute("ROLLBACK").await?;
        return Ok(Migrated::Held(holder));
    }
    // A run of an older version that only seems dead must not wake up on the new tables.
    let now = Timestamp::now().as_millisecond();
    client
        .execute_typed(
            "UPDATE sendform.run SET fenced_at = clock_timestamp(), ended_at = $1, ending = 'lost' WHERE ended_at IS NULL",
            &[(&now, Type::INT8)],
        )
        .await?;
    client.batch_execute(TO_2).await?;
    client.batch_execute(SPEND_GENERATED_CODES).await?;
    client
        .execute_typed(
            "UPDATE sendform.property SET value = $1 WHERE name = 'format'",
            &[(&FORMAT.to_string(), Type::TEXT)],
        )
        .await?;
    client.batch_execute("COMMIT").await?;
    Ok(Migrated::Done)
}

/// The format of the tables, which nobody changes before this transaction ends.
pub(super) async fn format_for_run(client: &Client) -> Result<i64, tokio_postgres::Error> {
    let row =
        client.query_typed_one("SELECT value FROM sendform.property WHERE name = 'format' FOR SHARE", &[]).await?;
    Ok(row.get::<_, &str>(0).parse().unwrap_or_default())
}

/// Whether there are tables, and of which format.
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
    Ok(rows.first().map(|row| row.get(0)))
}

pub(super) async fn set_property(
    client: &Client,
    name: &str,
    value: Option<&str>,
) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(super::DURABLE).await?;
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

/// Makes the tables, unless another applier was faster.
pub(super) async fn create(client: &Client, fingerprint: &str, id: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("BEGIN").await?;
    client.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&MAKING, Type::INT8)]).await?;
    if format(client).await?.is_none() {
        make(client, fingerprint, id).await?;
    }
    client.batch_execute("COMMIT").await
}

/// Makes the tables, within a transaction.
pub(super) async fn make(client: &Client, fingerprint: &str, id: &str) -> Result<(), tokio_postgres::Error> {
    client.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&MAKING, Type::INT8)]).await?;
    client.batch_execute(SCHEMA).await?;
    client.batch_execute(TO_2).await?;
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

/// The last link of the chain, which nobody else may add to before this transaction ends.
pub(super) async fn head_for_update(client: &Client) -> Result<Head, tokio_postgres::Error> {
    client.query_typed("SELECT value FROM sendform.property WHERE name = 'ledger_id' FOR UPDATE", &[]).await?;
    let row =
        client.query_typed_one("SELECT number, hash FROM sendform.link ORDER BY number DESC LIMIT 1", &[]).await?;
    Ok(super::head_of(&row))
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
