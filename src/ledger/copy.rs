//! Moving a ledger from one place to another, between files and databases, with everything in it.
//!
//! If two copies of a ledger were both used, everything would be sent twice. So the copy is complete, and cannot be
//! used, before the old ledger is marked as moved; from then on the old one can only be read. Whenever the process
//! dies, at most one of the two can be used, and the same command finishes the move.

use async_trait::async_trait;

use super::error::LedgerError;
use super::key::LedgerKey;
use super::location::LedgerLocation;
use super::postgres::{PostgresSource, PostgresTarget};
use super::record::Operator;
use super::sqlite::{SqliteSource, SqliteTarget};

/// The property of an unfinished copy: the location of the ledger that it is copied from, without credentials.
pub(crate) const COPY_OF: &str = "unfinished_copy_of";

/// How many rows are moved at a time.
const PAGE_LEN: usize = 10_000;

/// A table that is moved. A store computes again whatever it derives from these tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Property,
    Run,
    Link,
    Journal,
    Contradiction,
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Small,
    Int,
    Big,
    Text,
    Bytes,
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

pub(super) type Row = Vec<Value>;

impl Table {
    /// All tables in the order in which they are written: runs before the rows that refer to them.
    pub(super) const ALL: [Table; 5] = [Table::Property, Table::Run, Table::Link, Table::Journal, Table::Contradiction];

    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Property => "property",
            Table::Run => "run",
            Table::Link => "link",
            Table::Journal => "journal",
            Table::Contradiction => "contradiction",
        }
    }

    /// The columns that both stores have. The first one numbers the rows, except for properties.
    pub(super) fn columns(self) -> &'static [(&'static str, Kind)] {
        use Kind::{Big, Bool, Bytes, Int, Small, Text};
        match self {
            Table::Property => &[("name", Text), ("value", Text)],
            Table::Run => &[
                ("id", Big),
                ("campaign", Text),
                ("edition", Int),
                ("name", Text),
                ("plan_hash", Text),
                ("planned_at", Big),
                ("unique_codes", Bool),
                ("recipients", Big),
                ("manifest", Text),
                ("destination", Text),
                ("account", Text),
                ("sender", Text),
                ("environment", Text),
                ("longest_request_ms", Big),
                ("host", Text),
                ("actor", Text),
                ("pid", Big),
                ("version", Text),
                ("started_at", Big),
                ("ended_at", Big),
                ("ending", Text),
                ("accepted", Big),
                ("rejected", Big),
                ("unknown", Big),
                ("not_sent", Big),
                ("digest", Bytes),
                ("effective", Bytes),
                ("summary", Bytes),
            ],
            Table::Link => &[("number", Big), ("hash", Bytes), ("kind", Text), ("run", Big), ("detail", Text)],
            Table::Journal => &[
                ("seq", Big),
                ("run", Big),
                ("at", Big),
                ("kind", Small),
                ("send_key", Bytes),
                ("attempt", Int),
                ("digest", Bytes),
                ("likeness", Big),
                ("address", Text),
                ("coupon", Text),
                ("expires", Big),
                ("message_id", Text),
                ("reason", Text),
                ("source", Text),
                ("actor", Text),
                ("template", Text),
                ("language", Text),
                ("country", Text),
                ("variant", Text),
                ("parts", Bytes),
            ],
            Table::Contradiction => &[
                ("id", Big),
                ("run", Big),
                ("at", Big),
                ("send_key", Bytes),
                ("attempt", Int),
                ("kind", Small),
                ("message_id", Text),
                ("reason", Text),
                ("stood", Small),
                ("stood_attempt", Int),
            ],
        }
    }

    /// The names of the columns, for a statement.
    pub(super) fn list(self) -> String {
        self.columns().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// A ledger that no other process can write to until it is marked as moved, or released.
#[async_trait]
pub(super) trait Source: Send {
    /// Reads up to `limit` rows after the row with the number `after`, in order. Returns all properties at once.
    async fn page(&mut self, table: Table, after: i64, limit: usize) -> Result<Vec<Row>, LedgerError>;

    /// Marks the ledger as moved, and releases it.
    async fn mark_moved(self: Box<Self>, to: &str) -> Result<(), LedgerError>;
}

/// A ledger that is being written, and cannot be used yet.
#[async_trait]
pub(super) trait Target: Send {
    async fn insert(&mut self, table: Table, rows: &[Row]) -> Result<(), LedgerError>;

    /// Computes what the store derives, and makes the copy durable; it still cannot be used. Returns the number of
    /// rows of each table.
    async fn complete(self: Box<Self>) -> Result<[u64; 5], LedgerError>;
}

/// Moves a ledger. `key` is its key.
pub async fn copy(
    from: &LedgerLocation,
    to: &LedgerLocation,
    operator: &Operator,
    key: &LedgerKey,
) -> Result<(), LedgerError> {
    let to_url = to.url();
    if from.url() == to_url {
        return Err(LedgerError::refused(
            format!("`{from}` and `{to}` are the same ledger"),
            "give another location to move it to",
        ));
    }
    let (moved, mut source): (Option<String>, Box<dyn Source>) = match from {
        LedgerLocation::File(path) => {
            let source = SqliteSource::open(path, operator, key)?;
            (source.moved_to()?, Box::new(source))
        }
        LedgerLocation::Database(url) => {
            let mut source = PostgresSource::open(url.expose(), operator, key).await?;
            (source.moved_to().await?, Box::new(source))
        }
    };
    match moved {
        // An earlier attempt died after it had marked the old ledger.
        Some(place) if place == to_url => return finish(to, operator, key).await,
        Some(place) => {
            return Err(LedgerError::refused(
                format!("the ledger `{from}` was moved to `{place}`"),
                "move it from there",
            ));
        }
        None => {}
    }
    let mut target: Box<dyn Target> = match to {
        LedgerLocation::File(path) => Box::new(SqliteTarget::open(path, operator, key, &from.url())?),
        LedgerLocation::Database(url) => Box::new(PostgresTarget::open(url.expose(), key, &from.url()).await?),
    };
    let mut read = [0; 5];
    for (table, read) in Table::ALL.into_iter().zip(&mut read) {
        let mut after = i64::MIN;
        loop {
            let rows = source.page(table, after, PAGE_LEN).await?;
            let Some(last) = rows.last() else { break };
            *read += rows.len() as u64;
            target.insert(table, &rows).await?;
            match last.first() {
                Some(Value::Number(number)) => after = *number,
                _ => break,
            }
        }
    }
    let written = target.complete().await?;
    if written != read {
        return Err(LedgerError::refused(
            format!("the copy `{to}` has {written:?} rows, and the ledger `{from}` has {read:?}"),
            "the ledger was not moved; use it at its old location",
        ));
    }
    source.mark_moved(&to_url).await?;
    finish(to, operator, key).await
}

/// Makes the copy usable, after the old ledger was marked as moved.
async fn finish(to: &LedgerLocation, operator: &Operator, key: &LedgerKey) -> Result<(), LedgerError> {
    match to {
        LedgerLocation::File(path) => SqliteTarget::finish(path, operator, key),
        LedgerLocation::Database(url) => PostgresTarget::finish(url.expose(), operator, key).await,
    }
}

/// The error of a run that would begin on a ledger that was moved.
pub(super) fn moved(place: &str, to: &str) -> LedgerError {
    LedgerError::refused(
        format!("the ledger `{place}` was moved to `{to}`"),
        "use it there; this one can only be read, and does not know what was sent since",
    )
}

/// The error of opening an unfinished copy.
pub(super) fn unfinished(place: &str, from: &str) -> LedgerError {
    LedgerError::refused(
        format!("`{place}` is an unfinished copy of the ledger `{from}`"),
        "run the same `sendform ledger copy` again; until then the ledger stays at its old location",
    )
}
