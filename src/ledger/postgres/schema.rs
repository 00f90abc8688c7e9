//! The ledger's tables, made on first use.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::super::chain::{Head, LinkKind};

/// The format of the tables. A newer one is refused; an older one would be brought up to it here.
pub(super) const FORMAT: i64 = 1;

/// All appliers that find no ledger take this lock before they make one.
const MAKING: i64 = 0x534e_4446;

/// Times are epoch milliseconds of the applier's clock, but for heartbeats and pacing, which are the
/// database's: who is alive must not depend on how well clocks agree.
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

/// Makes the tables, unless another applier was faster.
pub(super) async fn create(client: &Client, fingerprint: &str, id: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("BEGIN").await?;
    client.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&MAKING, Type::INT8)]).await?;
    if format(client).await?.is_none() {
        client.batch_execute(SCHEMA).await?;
        let head = Head::of_ledger(id);
        for (name, value) in
            [("format", FORMAT.to_string().as_str()), ("ledger_id", id), ("key_fingerprint", fingerprint)]
        {
            client
                .execute_typed(
                    "INSERT INTO sendform.property (name, value) VALUES ($1, $2)",
                    &[(&name, Type::TEXT), (&value, Type::TEXT)],
                )
                .await?;
        }
        add_link(client, head, LinkKind::Ledger, None).await?;
    }
    client.batch_execute("COMMIT").await
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
) -> Result<(), tokio_postgres::Error> {
    client
        .execute_typed(
            "INSERT INTO sendform.link (number, hash, kind, run) VALUES ($1, $2, $3, $4)",
            &[
                (&head.number.cast_signed(), Type::INT8),
                (&&head.hash[..], Type::BYTEA),
                (&kind.as_str(), Type::TEXT),
                (&run, Type::INT8),
            ],
        )
        .await
        .map(drop)
}
