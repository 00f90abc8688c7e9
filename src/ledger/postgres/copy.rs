//! A database as the source or the target of a move; see [`crate::ledger::copy`].

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::connection::{self, Connection};
use super::{PostgresLedger, schema};
use crate::ledger::MOVED_TO;
use crate::ledger::copy::{COPY_OF, Kind, Row, Source, Table, Target, Value};
use crate::ledger::error::LedgerError;
use crate::ledger::key::LedgerKey;
use crate::ledger::record::{Operator, RecordedEnding, code};

/// How long one step of a move may take: deriving the rows of the sends and the codes reads the whole journal.
const STEP_TIMEOUT: Duration = Duration::from_secs(600);

/// Begins a transaction that is on the disk when it is committed, whatever the database's defaults are. It may be idle
/// while the other store works.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on;
    SET LOCAL idle_in_transaction_session_timeout = 0";

fn connect(url: &str) -> Result<Connection, LedgerError> {
    Ok(Connection::with_timeout(connection::Target::parse(url)?, STEP_TIMEOUT))
}

/// A database whose tables are locked against writing until the transaction ends.
pub(crate) struct PostgresSource {
    connection: Connection,
}

impl PostgresSource {
    pub(crate) async fn open(url: &str, operator: &Operator, key: &LedgerKey) -> Result<Self, LedgerError> {
        if PostgresLedger::open_existing(url, operator, Some(key)).await?.is_none() {
            let place = connection::Target::parse(url)?.place;
            return Err(LedgerError::refused(
                format!("there is no ledger at `{place}`"),
                "give the location of the ledger to move",
            ));
        }
        let mut connection = connect(url)?;
        let now = operator.now_ms();
        let live = connection.with("read", async |client| lock(client, now).await).await?;
        match live {
            Some(holder) => Err(LedgerError::Held { holder }),
            None => {
                // On another connection a run could write entries that the copy would lack.
                connection.never_reconnect();
                Ok(Self { connection })
            }
        }
    }

    pub(crate) async fn moved_to(&mut self) -> Result<Option<String>, LedgerError> {
        self.connection.with("read", async |client| schema::property(client, MOVED_TO).await).await
    }
}

/// Locks the tables against writing. Returns a description of a live run, if there is one.
async fn lock(client: &Client, now: i64) -> Result<Option<String>, tokio_postgres::Error> {
    client.batch_execute(BEGIN).await?;
    client
        .batch_execute(
            "SET LOCAL lock_timeout = '30s';
             LOCK TABLE sendform.property, sendform.campaign, sendform.run, sendform.send, sendform.code,
               sendform.journal, sendform.contradiction, sendform.link IN EXCLUSIVE MODE",
        )
        .await?;
    let live = client
        .query_typed(
            "SELECT id, actor, host FROM sendform.run
             WHERE ended_at IS NULL AND heartbeat_at >= clock_timestamp() - lease_ms * interval '1 millisecond'
             ORDER BY id LIMIT 1",
            &[],
        )
        .await?;
    if let Some(row) = live.first() {
        let (run, actor, host): (i64, &str, &str) = (row.try_get("id")?, row.try_get("actor")?, row.try_get("host")?);
        let holder = format!("run {run} of {actor} on {host}");
        client.batch_execute("ROLLBACK").await?;
        return Ok(Some(holder));
    }
    // A run that only seems dead must not continue here.
    client
        .execute_typed(
            "UPDATE sendform.run SET fenced_at = clock_timestamp(), ended_at = $1, ending = $2 WHERE ended_at IS NULL",
            &[(&now, Type::INT8), (&RecordedEnding::Lost.as_str(), Type::TEXT)],
        )
        .await?;
    Ok(None)
}

/// The cell in a column of `Table::columns`, which the statement lists in the same order.
fn cell(row: &tokio_postgres::Row, column: usize, kind: Kind) -> Result<Value, tokio_postgres::Error> {
    let number = |number: Option<i64>| number.map_or(Value::Null, Value::Number);
    Ok(match kind {
        Kind::Bool => number(row.try_get::<_, Option<bool>>(column)?.map(i64::from)),
        Kind::Small => number(row.try_get::<_, Option<i16>>(column)?.map(i64::from)),
        Kind::Int => number(row.try_get::<_, Option<i32>>(column)?.map(i64::from)),
        Kind::Big => number(row.try_get(column)?),
        Kind::Text => row.try_get::<_, Option<String>>(column)?.map_or(Value::Null, Value::Text),
        Kind::Bytes => row.try_get::<_, Option<Vec<u8>>>(column)?.map_or(Value::Null, Value::Bytes),
    })
}

#[async_trait]
impl Source for PostgresSource {
    async fn page(&mut self, table: Table, after: i64, limit: usize) -> Result<Vec<Row>, LedgerError> {
        let columns = table.columns();
        let first = columns[0].0;
        let sql = match table {
            Table::Property => {
                // The format is the store's own.
                format!(
                    "SELECT {} FROM sendform.property WHERE $1 = $1 AND $2 = $2 AND name <> 'format' ORDER BY name",
                    table.list()
                )
            }
            Table::Run => format!(
                "SELECT {} FROM (SELECT r.*, c.name AS campaign_name FROM sendform.run r JOIN sendform.campaign c ON c.id = r.campaign) t
                 WHERE id > $1 ORDER BY id LIMIT $2",
                table.list().replace("campaign,", "campaign_name,")
            ),
            _ => format!(
                "SELECT {} FROM sendform.{} WHERE {first} > $1 ORDER BY {first} LIMIT $2",
                table.list(),
                table.name()
            ),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = |row: &tokio_postgres::Row| {
            columns.iter().enumerate().map(|(column, (_, kind))| cell(row, column, *kind)).collect()
        };
        self.connection
            .with("read", async |client| {
                let rows = client.query_typed(&sql, &[(&after, Type::INT8), (&limit, Type::INT8)]).await?;
                rows.iter().map(read).collect()
            })
            .await
    }

    async fn mark_moved(mut self: Box<Self>, to: &str) -> Result<(), LedgerError> {
        self.connection
            .with("written", async |client| {
                client
                    .execute_typed(
                        "INSERT INTO sendform.property (name, value) VALUES ($1, $2)",
                        &[(&MOVED_TO, Type::TEXT), (&to, Type::TEXT)],
                    )
                    .await?;
                client.batch_execute("COMMIT").await
            })
            .await
    }
}

/// A database that is being written: everything appears when the transaction is committed.
pub(crate) struct PostgresTarget {
    connection: Connection,
    from: String,
}

impl PostgresTarget {
    pub(crate) async fn open(url: &str, key: &LedgerKey, from: &str) -> Result<Self, LedgerError> {
        let mut connection = connect(url)?;
        let place = connection.target.place.clone();
        let fingerprint = key.fingerprint();
        let free = connection
            .with("created", async |client| {
                client.batch_execute(BEGIN).await?;
                if schema::format(client).await?.is_some() {
                    // Replaces only the unusable copy that an earlier attempt left.
                    if schema::property(client, COPY_OF).await?.as_deref() != Some(from) {
                        client.batch_execute("ROLLBACK").await?;
                        return Ok(false);
                    }
                    client.batch_execute("DROP SCHEMA sendform CASCADE").await?;
                }
                schema::create_tables(client, &fingerprint, &"0".repeat(32)).await?;
                client
                    .batch_execute("DELETE FROM sendform.link; DELETE FROM sendform.property WHERE name <> 'format'")
                    .await?;
                Ok(true)
            })
            .await?;
        if free {
            connection.never_reconnect();
            Ok(Self { connection, from: from.to_owned() })
        } else {
            Err(LedgerError::refused(
                format!("there is a ledger at `{place}` already"),
                "give a database without a ledger",
            ))
        }
    }

    /// Makes the copy usable, after the old ledger was marked as moved.
    pub(crate) async fn finish(url: &str, operator: &Operator, key: &LedgerKey) -> Result<(), LedgerError> {
        let mut connection = connect(url)?;
        connection.with("written", async |client| schema::set_property(client, COPY_OF, None).await).await?;
        PostgresLedger::open_existing(url, operator, Some(key)).await.map(drop)
    }
}

/// One column of many rows, as an array.
enum Column {
    Bool(Vec<Option<bool>>),
    Small(Vec<Option<i16>>),
    Int(Vec<Option<i32>>),
    Big(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Column {
    fn of(rows: &[&Row], column: usize, kind: Kind) -> Self {
        let number = |row: &&Row| match &row[column] {
            Value::Number(number) => Some(*number),
            _ => None,
        };
        let text = |row: &&Row| match &row[column] {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        };
        let bytes = |row: &&Row| match &row[column] {
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        };
        let rows = rows.iter();
        match kind {
            Kind::Bool => Column::Bool(rows.map(|row| number(row).map(|number| number != 0)).collect()),
            Kind::Small => {
                Column::Small(rows.map(|row| number(row).and_then(|number| number.try_into().ok())).collect())
            }
            Kind::Int => Column::Int(rows.map(|row| number(row).and_then(|number| number.try_into().ok())).collect()),
            Kind::Big => Column::Big(rows.map(number).collect()),
            Kind::Text => Column::Text(rows.map(text).collect()),
            Kind::Bytes => Column::Bytes(rows.map(bytes).collect()),
        }
    }

    fn parameter(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Column::Bool(values) => (values, Type::BOOL_ARRAY),
            Column::Small(values) => (values, Type::INT2_ARRAY),
            Column::Int(values) => (values, Type::INT4_ARRAY),
            Column::Big(values) => (values, Type::INT8_ARRAY),
            Column::Text(values) => (values, Type::TEXT_ARRAY),
            Column::Bytes(values) => (values, Type::BYTEA_ARRAY),
        }
    }
}

fn array(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "boolean[]",
        Kind::Small => "smallint[]",
        Kind::Int => "int[]",
        Kind::Big => "bigint[]",
        Kind::Text => "text[]",
        Kind::Bytes => "bytea[]",
    }
}

#[async_trait]
impl Target for PostgresTarget {
    async fn insert(&mut self, table: Table, rows: &[Row]) -> Result<(), LedgerError> {
        let columns = table.columns();
        let rows: Vec<&Row> = rows.iter().collect();
        let arrays: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(column, (_, kind))| format!("${}::{}", column + 1, array(*kind)))
            .collect();
        let (list, arrays) = (table.list(), arrays.join(", "));
        let sql = match table {
            // The columns that only matter to live runs are filled as for a run that ended long ago.
            Table::Run => format!(
                "WITH u AS (SELECT * FROM unnest({arrays}) AS u ({list})), named AS (
                   INSERT INTO sendform.campaign (name) SELECT DISTINCT campaign FROM u ON CONFLICT (name) DO NOTHING RETURNING id, name
                 ), campaigns AS (SELECT id, name FROM named UNION SELECT id, name FROM sendform.campaign)
                 INSERT INTO sendform.run ({list}, lease_ms, heartbeat_at, format) OVERRIDING SYSTEM VALUE
                 SELECT {}, 0, to_timestamp(u.started_at / 1000.0), {}
                 FROM u JOIN campaigns c ON c.name = u.campaign ORDER BY u.id",
                list.split(", ")
                    .map(|name| match name {
                        "campaign" => "c.id".to_owned(),
                        "sender" => "coalesce(u.sender, '')".to_owned(),
                        name => format!("u.{name}"),
                    })
                    .collect::<Vec<_>>()
                    .join(", "),
                schema::FORMAT
            ),
            _ => format!(
                "INSERT INTO sendform.{} ({list}) {} SELECT * FROM unnest({arrays})",
                table.name(),
                if matches!(table, Table::Journal | Table::Contradiction) { "OVERRIDING SYSTEM VALUE" } else { "" }
            ),
        };
        let values: Vec<Column> =
            columns.iter().enumerate().map(|(column, (_, kind))| Column::of(&rows, column, *kind)).collect();
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> = values.iter().map(Column::parameter).collect();
        self.connection.with("written", async |client| client.execute_typed(&sql, &parameters).await.map(drop)).await
    }

    async fn complete(mut self: Box<Self>) -> Result<[u64; 5], LedgerError> {
        let from = self.from.clone();
        self.connection
            .with("written", async |client| {
                client.batch_execute(&DERIVE).await?;
                let mut counts = [0; 5];
                for (table, count) in Table::ALL.into_iter().zip(&mut counts) {
                    let own = if table == Table::Property { " WHERE name <> 'format'" } else { "" };
                    let sql = format!("SELECT count(*) AS rows FROM sendform.{}{own}", table.name());
                    *count = client.query_typed_one(&sql, &[]).await?.try_get::<_, i64>("rows")?.cast_unsigned();
                }
                client
                    .execute_typed(
                        "INSERT INTO sendform.property (name, value) VALUES ($1, $2)",
                        &[(&COPY_OF, Type::TEXT), (&from, Type::TEXT)],
                    )
                    .await?;
                client.batch_execute("COMMIT").await?;
                Ok(counts)
            })
            .await
    }
}

/// Derives the rows of the sends from the journal, gives each unique code to the send that had it first, and continues the
/// numbers of rows after the largest ones.
static DERIVE: LazyLock<String> = LazyLock::new(|| {
    let intent = code::INTENT;
    format!(
        "
WITH last AS (
  SELECT DISTINCT ON (send_key) send_key, kind, attempt FROM sendform.journal ORDER BY send_key, seq DESC
), intent AS (
  SELECT DISTINCT ON (send_key) send_key, run, coupon FROM sendform.journal WHERE kind = {intent} ORDER BY send_key, seq DESC
)
INSERT INTO sendform.send (send_key, campaign, edition, run, attempt, state, coupon)
SELECT l.send_key, r.campaign, r.edition, i.run, l.attempt, l.kind, coalesce(i.coupon, '')
FROM last l JOIN intent i ON i.send_key = l.send_key JOIN sendform.run r ON r.id = i.run;
INSERT INTO sendform.code (code, send_key)
SELECT DISTINCT ON (j.coupon) j.coupon, j.send_key FROM sendform.journal j JOIN sendform.run r ON r.id = j.run
WHERE j.kind = {intent} AND j.coupon IS NOT NULL AND r.unique_codes ORDER BY j.coupon, j.seq;
SELECT setval(pg_get_serial_sequence('sendform.run', 'id'), coalesce((SELECT max(id) FROM sendform.run), 0) + 1, false);
SELECT setval(pg_get_serial_sequence('sendform.journal', 'seq'), coalesce((SELECT max(seq) FROM sendform.journal), 0) + 1, false);
SELECT setval(pg_get_serial_sequence('sendform.contradiction', 'id'), coalesce((SELECT max(id) FROM sendform.contradiction), 0) + 1, false);
"
    )
});
