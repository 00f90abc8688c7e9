//! The statements of a run, and their parameters.

use std::collections::HashSet;
use std::sync::LazyLock;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::rows::ENTRY_COLUMNS;
use crate::domain::expiry::ExpiresAt;
use crate::domain::send::Settlement;
use crate::ledger::contract::Batch;
use crate::ledger::record::{code, state_code};

/// Proves that the run was not fenced off, and refreshes its heartbeat. Locks the run's row, so that a process that
/// wants to fence the run off waits for this transaction, and sees its intents.
pub(super) const ASSERT_NOT_FENCED: &str = "
UPDATE sendform.run SET heartbeat_at = clock_timestamp(), open = $2 WHERE id = $1 AND ended_at IS NULL
RETURNING id, extract(epoch FROM pg_postmaster_start_time())::double precision AS server_started";

/// Gives a sign of life.
pub(super) const HEARTBEAT: &str =
    "UPDATE sendform.run SET heartbeat_at = clock_timestamp() WHERE id = $1 AND ended_at IS NULL";

/// The entries that a run wrote about its own attempts.
pub(super) static OWN_ENTRIES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {ENTRY_COLUMNS} FROM sendform.journal WHERE run = $1 AND source IS NULL AND seq > $2 ORDER BY seq LIMIT $3"
    )
});

/// Locks the existing rows of a commit's sends, in the same order for all appliers.
pub(super) const LOCK_SENDS: &str = "SELECT 1 FROM sendform.send WHERE send_key = ANY($1) ORDER BY send_key FOR UPDATE";

/// Counts the intents of a run.
pub(super) static COUNT_OPEN: LazyLock<String> =
    LazyLock::new(|| format!("SELECT count(*) AS open FROM sendform.send WHERE run = $1 AND state = {}", code::INTENT));

/// See [`crate::ledger::protocol::may_settle`]. Settlements that it does not move are evaluated one by one.
static SETTLE: LazyLock<String> = LazyLock::new(|| {
    let (intent, unknown) = (code::INTENT, code::UNKNOWN);
    format!(
        "WITH s AS (
           SELECT * FROM unnest($2::bytea[], $3::int[], $4::smallint[], $5::text[], $6::text[])
             AS s (send_key, attempt, kind, message_id, reason)
         ), moved AS (
           UPDATE sendform.send t SET state = s.kind FROM s
           WHERE t.send_key = s.send_key AND t.attempt = s.attempt AND t.run = $1
             AND t.state IN ({intent}, {unknown}) AND t.state <> s.kind
           RETURNING s.*
         ), written AS (
           INSERT INTO sendform.journal (run, at, kind, send_key, attempt, message_id, reason)
           SELECT $1, $7, kind, send_key, attempt, message_id, reason FROM moved
         )
         SELECT send_key, attempt FROM moved"
    )
});

/// See [`crate::ledger::protocol::may_claim`].
static CLAIM: LazyLock<String> = LazyLock::new(|| {
    let (intent, accepted, rejected, not_sent) = (code::INTENT, code::ACCEPTED, code::REJECTED, code::NOT_SENT);
    format!(
        "WITH c AS (
           SELECT * FROM unnest($2::bytea[], $3::int[], $4::bytea[], $5::bigint[], $6::text[], $7::text[], $8::bigint[])
             AS c (send_key, attempt, digest, likeness, address, coupon, expires)
           WHERE EXISTS (SELECT 1 FROM sendform.run WHERE id = $1 AND ended_at IS NULL)
         ), code AS (
           INSERT INTO sendform.code AS t (code, send_key) SELECT coupon, send_key FROM c WHERE $9 ORDER BY coupon
           ON CONFLICT (code) DO UPDATE SET send_key = t.send_key RETURNING t.code, t.send_key
         ), free AS (
           SELECT c.* FROM c
           WHERE NOT $9 OR EXISTS (SELECT 1 FROM code WHERE code.code = c.coupon AND code.send_key = c.send_key)
             -- Older versions gave one code to recipients of two editions; each of them keeps it.
             OR EXISTS (SELECT 1 FROM sendform.send o WHERE o.send_key = c.send_key AND o.coupon = c.coupon)
         ), granted AS (
           INSERT INTO sendform.send AS t (send_key, campaign, edition, run, attempt, state, coupon)
           SELECT send_key, $10, $11, $1, attempt, {intent}, coupon FROM free
           WHERE attempt = 1 OR EXISTS (SELECT 1 FROM sendform.send o WHERE o.send_key = free.send_key)
           ORDER BY send_key
           ON CONFLICT (send_key) DO UPDATE SET run = excluded.run, attempt = excluded.attempt, state = {intent}
             WHERE t.attempt = excluded.attempt - 1 AND (t.state = {not_sent} OR t.state = {rejected} AND $12)
               -- The provider accepted an earlier attempt after all.
               AND NOT EXISTS (
                 SELECT 1 FROM sendform.contradiction x WHERE x.send_key = excluded.send_key AND x.kind = {accepted})
           RETURNING t.send_key
         ), written AS (
           INSERT INTO sendform.journal (run, at, kind, send_key, attempt, digest, likeness, address, coupon, expires)
           SELECT $1, $13, {intent}, send_key, attempt, digest, likeness, address, coupon, expires FROM free
           WHERE send_key IN (SELECT send_key FROM granted)
         )
         SELECT c.send_key, c.send_key IN (SELECT send_key FROM granted) AS granted,
                c.send_key NOT IN (SELECT send_key FROM free) AS code_taken
         FROM c"
    )
});

/// The claims among these that this run holds already.
pub(super) static OWN_CLAIMS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT t.send_key FROM sendform.send t
         JOIN unnest($2::bytea[], $3::int[]) AS c (send_key, attempt) ON t.send_key = c.send_key
         WHERE t.run = $1 AND t.attempt = c.attempt AND t.state = {}",
        code::INTENT
    )
});

/// Reserves time of a sender number. If its record lies further in the future than the longest pause ($3) and what
/// the live appliers can have reserved ($4 each), only the longest pause counts.
pub(super) const RESERVE: &str = "
WITH live AS (
  SELECT count(*) AS appliers FROM sendform.run
  WHERE sender = $1 AND ended_at IS NULL AND heartbeat_at >= clock_timestamp() - lease_ms * interval '1 millisecond'
)
UPDATE sendform.number SET next_at = $2 * interval '1 second' + greatest(
  clock_timestamp(),
  CASE WHEN next_at > clock_timestamp() + ($3 + $4 * live.appliers) * interval '1 second'
       THEN clock_timestamp() + $3 * interval '1 second' ELSE next_at END)
FROM live WHERE sender = $1
RETURNING extract(epoch FROM next_at - $2 * interval '1 second' - clock_timestamp())::double precision AS delay";

/// The settlements of a batch, column by column.
pub(super) struct SettleParameters<'a> {
    pub(super) keys: Vec<&'a [u8]>,
    attempts: Vec<i32>,
    kinds: Vec<i16>,
    ids: Vec<Option<&'a str>>,
    reasons: Vec<Option<&'a str>>,
}

impl<'a> SettleParameters<'a> {
    pub(super) fn of(batch: &'a Batch) -> Self {
        // One statement moves a send once; further settlements of it are evaluated one by one.
        let mut seen = HashSet::new();
        let settle: Vec<&Settlement> = batch.settle.iter().filter(|settlement| seen.insert(settlement.key)).collect();
        Self {
            keys: settle.iter().map(|settlement| &settlement.key.0[..]).collect(),
            attempts: settle.iter().map(|settlement| settlement.attempt.cast_signed()).collect(),
            kinds: settle.iter().map(|settlement| state_code(settlement.result.state())).collect(),
            ids: settle.iter().map(|settlement| settlement.result.message_id()).collect(),
            reasons: settle.iter().map(|settlement| settlement.result.reason()).collect(),
        }
    }

    pub(super) async fn run(&self, client: &Client, run: i64, at: i64) -> Result<Vec<Row>, tokio_postgres::Error> {
        if self.keys.is_empty() {
            return Ok(Vec::new());
        }
        client
            .query_typed(
                &SETTLE,
                &[
                    (&run, Type::INT8),
                    (&self.keys, Type::BYTEA_ARRAY),
                    (&self.attempts, Type::INT4_ARRAY),
                    (&self.kinds, Type::INT2_ARRAY),
                    (&self.ids, Type::TEXT_ARRAY),
                    (&self.reasons, Type::TEXT_ARRAY),
                    (&at, Type::INT8),
                ],
            )
            .await
    }
}

/// The claims of a batch, column by column.
pub(super) struct ClaimParameters<'a> {
    pub(super) keys: Vec<&'a [u8]>,
    attempts: Vec<i32>,
    digests: Vec<&'a [u8]>,
    similarity_digests: Vec<i64>,
    addresses: Vec<&'a str>,
    coupons: Vec<&'a str>,
    expiries: Vec<Option<i64>>,
}

impl<'a> ClaimParameters<'a> {
    pub(super) fn of(batch: &'a Batch) -> Self {
        let claim = &batch.claim;
        Self {
            keys: claim.iter().map(|intent| &intent.key.0[..]).collect(),
            attempts: claim.iter().map(|intent| intent.attempt.cast_signed()).collect(),
            digests: claim.iter().map(|intent| &intent.digest.0[..]).collect(),
            similarity_digests: claim.iter().map(|intent| intent.similarity_digest).collect(),
            addresses: claim.iter().map(|intent| intent.masked.as_str()).collect(),
            coupons: claim.iter().map(|intent| intent.coupon.expose()).collect(),
            expiries: claim.iter().map(|intent| intent.expires.map(ExpiresAt::as_millisecond)).collect(),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the statement has as many parameters")]
    pub(super) async fn run(
        &self,
        client: &Client,
        run: i64,
        at: i64,
        campaign: i32,
        edition: i32,
        unique_codes: bool,
        retry_rejected: bool,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if self.keys.is_empty() {
            return Ok(Vec::new());
        }
        client
            .query_typed(
                &CLAIM,
                &[
                    (&run, Type::INT8),
                    (&self.keys, Type::BYTEA_ARRAY),
                    (&self.attempts, Type::INT4_ARRAY),
                    (&self.digests, Type::BYTEA_ARRAY),
                    (&self.similarity_digests, Type::INT8_ARRAY),
                    (&self.addresses, Type::TEXT_ARRAY),
                    (&self.coupons, Type::TEXT_ARRAY),
                    (&self.expiries, Type::INT8_ARRAY),
                    (&unique_codes, Type::BOOL),
                    (&campaign, Type::INT4),
                    (&edition, Type::INT4),
                    (&retry_rejected, Type::BOOL),
                    (&at, Type::INT8),
                ],
            )
            .await
    }
}
