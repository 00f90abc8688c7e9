//! Rows of the database's tables, and the values in them.

use std::error::Error;
use std::sync::LazyLock;
use std::time::Duration;

use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Row};

use crate::domain::send::{SendKey, SendState};
use crate::ledger::chain::LinkKind;
use crate::ledger::columns::columns;
use crate::ledger::head::Head;
use crate::ledger::protocol::LastAttempt;
use crate::ledger::record::{
    EntrySource, JournalEntry, JournalRow, RecordedEnding, RunCounts, RunRecord, instant, state_code, state_of,
};

type BoxError = Box<dyn Error + Sync + Send>;

/// A fixed number of bytes.
pub(super) struct Bytes<const N: usize>(pub(super) [u8; N]);

impl<'a, const N: usize> FromSql<'a> for Bytes<N> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        let bytes = <&[u8]>::from_sql(ty, raw)?;
        let length = bytes.len();
        bytes.try_into().map(Bytes).map_err(|_| format!("{length} bytes instead of {N}").into())
    }

    fn accepts(ty: &Type) -> bool {
        <&[u8]>::accepts(ty)
    }
}

impl<'a> FromSql<'a> for SendKey {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        Bytes::from_sql(ty, raw).map(|Bytes(key)| SendKey(key))
    }

    fn accepts(ty: &Type) -> bool {
        <&[u8]>::accepts(ty)
    }
}

impl<'a> FromSql<'a> for SendState {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        Ok(state_of(i16::from_sql(ty, raw)?.into())?)
    }

    fn accepts(ty: &Type) -> bool {
        <i16 as FromSql>::accepts(ty)
    }
}

impl<'a> FromSql<'a> for EntrySource {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        Ok(EntrySource::parse(Some(<&str>::from_sql(ty, raw)?))?)
    }

    fn from_sql_null(_: &Type) -> Result<Self, BoxError> {
        Ok(EntrySource::Run)
    }

    fn accepts(ty: &Type) -> bool {
        <&str>::accepts(ty)
    }
}

impl<'a> FromSql<'a> for LinkKind {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        Ok(LinkKind::parse(<&str>::from_sql(ty, raw)?)?)
    }

    fn accepts(ty: &Type) -> bool {
        <&str>::accepts(ty)
    }
}

impl<'a> FromSql<'a> for RecordedEnding {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        <&str>::from_sql(ty, raw).map(RecordedEnding::from)
    }

    fn accepts(ty: &Type) -> bool {
        <&str>::accepts(ty)
    }
}

/// A number of attempts, which the tables hold with a sign.
pub(super) fn read_attempt(row: &Row, column: &str) -> Result<u32, tokio_postgres::Error> {
    Ok(row.try_get::<_, i32>(column)?.cast_unsigned())
}

/// The last attempt in the columns `state`, `attempt` and `run`.
pub(super) fn read_last_attempt(row: &Row) -> Result<LastAttempt, tokio_postgres::Error> {
    Ok(LastAttempt { state: row.try_get("state")?, attempt: read_attempt(row, "attempt")?, run: row.try_get("run")? })
}

/// The head in the columns `number` and `hash`.
pub(super) fn read_head(row: &Row) -> Result<Head, tokio_postgres::Error> {
    let Bytes(hash) = row.try_get("hash")?;
    Ok(Head { number: row.try_get::<_, i64>("number")?.cast_unsigned(), hash })
}

columns!(
    /// A whole row of the journal.
    entry: SEQ = "seq", RUN = "run", AT = "at", KIND = "kind", SEND_KEY = "send_key", ATTEMPT = "attempt",
    DIGEST = "digest", SIMILARITY_DIGEST = "likeness", MASKED = "address", COUPON = "coupon", EXPIRES = "expires",
    MESSAGE_ID = "message_id", REASON = "reason", SOURCE = "source", ACTOR = "actor",
);

/// The columns that [`read_entry`] reads, for a statement.
pub(super) const ENTRY_COLUMNS: &str = entry::LIST;

pub(super) fn read_entry(row: &Row) -> Result<JournalEntry, tokio_postgres::Error> {
    Ok(JournalEntry::from(JournalRow {
        seq: row.try_get(entry::SEQ)?,
        run: row.try_get(entry::RUN)?,
        at: row.try_get(entry::AT)?,
        state: row.try_get(entry::KIND)?,
        key: row.try_get(entry::SEND_KEY)?,
        attempt: row.try_get::<_, i32>(entry::ATTEMPT)?.cast_unsigned(),
        digest: row.try_get::<_, Option<Bytes<32>>>(entry::DIGEST)?.map(|Bytes(digest)| digest),
        similarity_digest: row.try_get(entry::SIMILARITY_DIGEST)?,
        masked: row.try_get(entry::MASKED)?,
        coupon: row.try_get(entry::COUPON)?,
        expires: row.try_get(entry::EXPIRES)?,
        message_id: row.try_get(entry::MESSAGE_ID)?,
        reason: row.try_get(entry::REASON)?,
        source: row.try_get(entry::SOURCE)?,
        actor: row.try_get(entry::ACTOR)?,
    }))
}

static APPEND: LazyLock<String> = LazyLock::new(|| {
    // The database gives each entry its number.
    let columns = entry::LIST.trim_start_matches("seq, ");
    format!(
        "INSERT INTO sendform.journal ({columns}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
    )
});

/// Appends an entry to the journal.
pub(super) async fn write_entry(client: &Client, entry: &JournalEntry) -> Result<(), tokio_postgres::Error> {
    let intent = entry.intent().cloned().unwrap_or_default();
    let digest = intent.digest.as_ref().map(|digest| &digest[..]);
    client
        .execute_typed(
            &APPEND,
            &[
                (&entry.run, Type::INT8),
                (&entry.at, Type::INT8),
                (&state_code(entry.state()), Type::INT2),
                (&&entry.key.0[..], Type::BYTEA),
                (&entry.attempt.cast_signed(), Type::INT4),
                (&digest, Type::BYTEA),
                (&intent.similarity_digest, Type::INT8),
                (&intent.masked, Type::TEXT),
                (&intent.coupon, Type::TEXT),
                (&intent.expires, Type::INT8),
                (&entry.message_id(), Type::TEXT),
                (&entry.reason(), Type::TEXT),
                (&entry.source(), Type::TEXT),
                (&entry.actor(), Type::TEXT),
            ],
        )
        .await
        .map(drop)
}

/// The statement that reads all runs, for [`read_run`].
pub(super) const RUNS: &str = "
SELECT r.id, c.name AS campaign, r.edition, r.name, r.plan_hash, r.planned_at, r.recipients,
       r.manifest, r.destination, r.account, r.sender, r.environment, r.longest_request_ms,
       r.host, r.actor, r.pid, r.version,
       r.started_at, (extract(epoch FROM r.heartbeat_at) * 1000)::bigint AS heartbeat_at, r.ended_at, r.ending,
       r.accepted, r.rejected, r.unknown, r.not_sent, r.digest,
       r.ended_at IS NULL AND r.heartbeat_at >= clock_timestamp() - r.lease_ms * interval '1 millisecond' AS live,
       r.lease_ms, (extract(epoch FROM clock_timestamp() - r.heartbeat_at) * 1000)::bigint AS silent_ms
FROM sendform.run r JOIN sendform.campaign c ON c.id = r.campaign ORDER BY r.id";

pub(super) fn read_run(row: &Row) -> Result<RunRecord, tokio_postgres::Error> {
    let count = |column: &str| Ok(row.try_get::<_, Option<i64>>(column)?.map(i64::cast_unsigned));
    let counts = match (count("accepted")?, count("rejected")?, count("unknown")?, count("not_sent")?) {
        (Some(accepted), Some(rejected), Some(unknown), Some(not_sent)) => {
            Some(RunCounts { accepted, rejected, unknown, not_sent })
        }
        _ => None,
    };
    let duration = |column: &str| -> Result<Duration, tokio_postgres::Error> {
        Ok(Duration::from_millis(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or_default()))
    };
    Ok(RunRecord {
        id: row.try_get("id")?,
        campaign: row.try_get("campaign")?,
        edition: row.try_get::<_, i32>("edition")?.cast_unsigned(),
        name: row.try_get("name")?,
        plan_hash: row.try_get("plan_hash")?,
        planned_at: instant(row.try_get("planned_at")?),
        recipients: row.try_get::<_, i64>("recipients")?.cast_unsigned(),
        manifest: row.try_get("manifest")?,
        destination: row.try_get("destination")?,
        account: row.try_get("account")?,
        sender: row.try_get("sender")?,
        environment: row.try_get("environment")?,
        longest_request: count("longest_request_ms")?.map(Duration::from_millis),
        host: row.try_get("host")?,
        actor: row.try_get("actor")?,
        pid: u32::try_from(row.try_get::<_, i64>("pid")?).unwrap_or_default(),
        version: row.try_get("version")?,
        started_at: instant(row.try_get("started_at")?),
        heartbeat_at: Some(instant(row.try_get("heartbeat_at")?)),
        lease: duration("lease_ms")?,
        silent: duration("silent_ms")?,
        ended_at: row.try_get::<_, Option<i64>>("ended_at")?.map(instant),
        ending: row.try_get("ending")?,
        counts,
        live: row.try_get("live")?,
        digest: row.try_get::<_, Option<Bytes<32>>>("digest")?.map(|Bytes(digest)| digest),
    })
}
