//! Moving a ledger from one place to another, between files and databases, with everything in it.
//!
//! Two ledgers that both go on send everything twice. So the copy is complete and cannot be used before
//! the old ledger is marked as moved; from then on the old one is for reading alone. Whenever the process
//! dies, at most one of the two can be used, and the same command finishes the move.

use async_trait::async_trait;

use super::location::LedgerLocation;
use super::postgres::{PostgresSource, PostgresTarget};
use super::sqlite::{SqliteSource, SqliteTarget};
use super::{LedgerError, LedgerKey};

/// The property of a copy that is not finished: where it comes from, without credentials.
pub(crate) const COPY_OF: &str = "unfinished_copy_of";

/// How many rows are moved at once.
const PAGE: usize = 10_000;

/// A table that is moved. What a store derives from these tables it makes anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Property,
    Run,
    Link,
    Journal,
    Contradiction,
}

/// What a column holds.
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
    /// In the order in which they are written: runs before what names them.
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

    /// The columns that both stores have. The first one numbers the rows, but for properties.
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

    /// Names of the columns, for a statement.
    pub(super) fn list(self) -> String {
        self.columns().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// A ledger that nobody can write to until it is marked as moved, or given back.
#[async_trait]
pub(super) trait Source: Send {
    /// Up to so many rows behind the one of this number, in order. All properties at once.
    async fn page(&mut self, table: Table, after: i64, limit: usize) -> Result<Vec<Row>, LedgerError>;

    /// Marks the ledger as moved, and gives it back.
    async fn mark_moved(self: Box<Self>, to: &str) -> Result<(), LedgerError>;
}

/// A ledger that is being written, and cannot be used yet.
#[async_trait]
pub(super) trait Target: Send {
    async fn insert(&mut self, table: Table, rows: &[Row]) -> Result<(), LedgerError>;

    /// Makes what the store derives, tells how many rows each table has, and makes the copy durable. It
    /// still cannot be used.
    async fn complete(self: Box<Self>) -> Result<[u64; 5], LedgerError>;
}

/// Moves a ledger. `key` is its key.
pub async fn copy(from: &LedgerLocation, to: &LedgerLocation, key: &LedgerKey) -> Result<(), LedgerError> {
    let to_url = to.url();
    if from.url() == to_url {
        return Err(refused(format!("`{from}` and `{to}` are one ledger"), "name another place to move it to"));
    }
    let (moved, mut source): (Option<String>, Box<dyn Source>) = match from {
        LedgerLocation::File(path) => {
            let source = SqliteSource::open(path, key)?;
            (source.moved_to()?, Box::new(source))
        }
        LedgerLocation::Database(url) => {
            let mut source = PostgresSource::open(url.expose(), key).await?;
            (source.moved_to().await?, Box::new(source))
        }
    };
    match moved {
        // An earlier try died after this one was marked.
        Some(place) if place == to_url => return finish(to, key).await,
        Some(place) => {
            return Err(refused(format!("the ledger `{from}` was moved to `{place}`"), "move it on from there"));
        }
        None => {}
    }
    let mut target: Box<dyn Target> = match to {
        LedgerLocation::File(path) => Box::new(SqliteTarget::open(path, key, &from.url())?),
        LedgerLocation::Database(url) => Box::new(PostgresTarget::open(url.expose(), key, &from.url()).await?),
    };
    let mut read = [0; 5];
    for (table, read) in Table::ALL.into_iter().zip(&mut read) {
        let mut after = i64::MIN;
        loop {
            let rows = source.page(table, after, PAGE).await?;
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
        return Err(refused(
            format!("the copy `{to}` has {written:?} rows, and the ledger `{from}` has {read:?}"),
            "the ledger was not moved; use it where it is",
        ));
    }
    source.mark_moved(&to_url).await?;
    finish(to, key).await
}

/// The old ledger is marked: the copy may be used.
async fn finish(to: &LedgerLocation, key: &LedgerKey) -> Result<(), LedgerError> {
    match to {
        LedgerLocation::File(path) => SqliteTarget::finish(path, key),
        LedgerLocation::Database(url) => PostgresTarget::finish(url.expose(), key).await,
    }
}

pub(super) fn refused(problem: String, hint: &'static str) -> LedgerError {
    LedgerError::Refused { problem, hint }
}

/// What a run is told that would begin on a ledger that was moved.
pub(super) fn moved(place: &str, to: &str) -> LedgerError {
    refused(
        format!("the ledger `{place}` was moved to `{to}`"),
        "use it there; this one is kept for reading, and does not know what the other has sent since",
    )
}

/// What opening an unfinished copy says.
pub(super) fn unfinished(place: &str, from: &str) -> LedgerError {
    refused(
        format!("`{place}` is an unfinished copy of the ledger `{from}`"),
        "run the same `sendform ledger copy` again; until then the ledger is where it was",
    )
}
