//! The tables of the file, and their migration.
//!
//! The file's `user_version` holds its format. The program refuses a newer format than it supports. It migrates an
//! older file in one transaction, while it holds the lease, because a run of an older version would not understand
//! the new tables.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior, params};

use super::{head, storage};
use crate::domain::send::SendKey;
use crate::ledger::chain::LinkKind;
use crate::ledger::error::LedgerError;
use crate::ledger::head::{Head, StartLink};
use crate::ledger::record::code;
use crate::util::hex;

/// The format that this version writes.
pub(super) const FORMAT: i64 = 3;

/// Format 1.
const SCHEMA: &str = "
CREATE TABLE property (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE run (
  id INTEGER PRIMARY KEY,
  campaign TEXT NOT NULL, edition INTEGER NOT NULL,
  plan_hash TEXT NOT NULL, planned_at INTEGER NOT NULL, pool INTEGER NOT NULL, recipients INTEGER NOT NULL,
  host TEXT NOT NULL, actor TEXT NOT NULL, pid INTEGER NOT NULL, version TEXT NOT NULL,
  started_at INTEGER NOT NULL, first_seq INTEGER NOT NULL,
  ended_at INTEGER, ending TEXT
) STRICT;
CREATE INDEX run_campaign ON run (campaign, edition);
-- kind: 1 intent, 2 accepted, 3 rejected, 4 unknown, 5 not sent. Times are epoch milliseconds.
CREATE TABLE journal (
  seq INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES run (id),
  at INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  send_key BLOB NOT NULL,
  attempt INTEGER NOT NULL,
  digest BLOB, address TEXT, coupon TEXT, expires INTEGER,
  message_id TEXT, reason TEXT
) STRICT;
";

/// Format 2: runs keep their figures and the campaign's name in the manifest, evidence has an author, intents have
/// a similarity digest (in the column `likeness`), and the runs are chained.
const MIGRATE_1_TO_2: &str = "
ALTER TABLE run ADD COLUMN name TEXT;
ALTER TABLE run ADD COLUMN accepted INTEGER;
ALTER TABLE run ADD COLUMN rejected INTEGER;
ALTER TABLE run ADD COLUMN unknown INTEGER;
ALTER TABLE run ADD COLUMN not_sent INTEGER;
ALTER TABLE run ADD COLUMN digest BLOB;
ALTER TABLE journal ADD COLUMN likeness INTEGER;
ALTER TABLE journal ADD COLUMN source TEXT;
ALTER TABLE journal ADD COLUMN actor TEXT;
CREATE TABLE link (number INTEGER PRIMARY KEY, hash BLOB NOT NULL, kind TEXT NOT NULL, run INTEGER REFERENCES run (id)) STRICT;
";

/// Format 3: runs record destination, manifest, account, sender, environment and the longest request; codes are
/// unique whether they come from a pool or are generated; a late answer that the record cannot follow is kept as a
/// contradiction. The columns `effective`, `summary`, `template`, `language`, `country`, `variant` and `parts` are
/// reserved, so that later versions need no further format for them: a compressed effective campaign and plan
/// summary for each run, and for each intent what was sent, with four bytes of digest for each part of the message.
const MIGRATE_2_TO_3: &str = "
ALTER TABLE run RENAME COLUMN pool TO unique_codes;
ALTER TABLE run ADD COLUMN manifest TEXT;
ALTER TABLE run ADD COLUMN destination TEXT;
ALTER TABLE run ADD COLUMN account TEXT;
ALTER TABLE run ADD COLUMN sender TEXT;
ALTER TABLE run ADD COLUMN environment TEXT;
ALTER TABLE run ADD COLUMN longest_request_ms INTEGER;
ALTER TABLE run ADD COLUMN effective BLOB;
ALTER TABLE run ADD COLUMN summary BLOB;
ALTER TABLE journal ADD COLUMN template TEXT;
ALTER TABLE journal ADD COLUMN language TEXT;
ALTER TABLE journal ADD COLUMN country TEXT;
ALTER TABLE journal ADD COLUMN variant TEXT;
ALTER TABLE journal ADD COLUMN parts BLOB;
ALTER TABLE link ADD COLUMN detail TEXT;
-- What a run said of an attempt of its own that the record could not follow. `kind` is what it said;
-- `stood` and `stood_attempt` are what the record held then.
CREATE TABLE contradiction (
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES run (id),
  at INTEGER NOT NULL,
  send_key BLOB NOT NULL,
  attempt INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  message_id TEXT, reason TEXT,
  stood INTEGER NOT NULL, stood_attempt INTEGER NOT NULL
) STRICT;
";

/// Creates the tables of a new ledger.
pub(super) fn create(connection: &Connection, fingerprint: &str) -> Result<(), rusqlite::Error> {
    connection.execute_batch(SCHEMA)?;
    connection.execute("INSERT INTO property (name, value) VALUES ('key_fingerprint', ?1)", [fingerprint])?;
    migrate_1_to_2(connection)?;
    migrate_2_to_3(connection)
}

/// Migrates an older file to this version's format, in one transaction.
pub(super) fn migrate(path: &Path, connection: &mut Connection, from: i64) -> Result<(), LedgerError> {
    if from == FORMAT {
        return Ok(());
    }
    let fail = |error: rusqlite::Error| storage(path, "migrated", error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
    // Another process may have migrated it while this one waited.
    let now: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fail)?;
    if now < 2 {
        migrate_1_to_2(&transaction).map_err(fail)?;
    }
    if now < 3 {
        migrate_2_to_3(&transaction).map_err(fail)?;
    }
    transaction.commit().map_err(fail)
}

fn migrate_1_to_2(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(MIGRATE_1_TO_2)?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let id = hex::encode(&id);
    connection.execute("INSERT INTO property (name, value) VALUES ('ledger_id', ?1)", [&id])?;
    chain(connection, Head::of_ledger(&id), LinkKind::Ledger, None)?;
    let mut runs = connection.prepare("SELECT id, campaign, edition, plan_hash, started_at FROM run ORDER BY id")?;
    let mut runs = runs.query([])?;
    while let Some(row) = runs.next()? {
        let (campaign, plan_hash): (String, String) = (row.get("campaign")?, row.get("plan_hash")?);
        let run = row.get("id")?;
        let start = StartLink {
            run,
            campaign: &campaign,
            edition: row.get("edition")?,
            plan_hash: &plan_hash,
            started_at: row.get("started_at")?,
        };
        chain(connection, head(connection)?.started(&start), LinkKind::Start, Some(run))?;
    }
    connection.pragma_update(None, "user_version", 2)
}

/// Adds a link to the chain of a file of format 2.
fn chain(connection: &Connection, head: Head, kind: LinkKind, run: Option<i64>) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO link (number, hash, kind, run) VALUES (?1, ?2, ?3, ?4)";
    connection.execute(sql, params![head.number.cast_signed(), head.hash, kind.as_str(), run]).map(drop)
}

fn migrate_2_to_3(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(MIGRATE_2_TO_3)?;
    for run in runs_with_generated_codes(connection)? {
        connection.execute("UPDATE run SET unique_codes = 1 WHERE id = ?1", [run])?;
    }
    connection.pragma_update(None, "user_version", 3)
}

/// Runs without a pool that gave no code to two recipients: their codes may be generated, which older versions did
/// not record. Such codes must stay spent. If a few codes of other campaigns are spent with them, that is harmless.
fn runs_with_generated_codes(connection: &Connection) -> Result<Vec<i64>, rusqlite::Error> {
    let mut open: HashMap<i64, HashMap<String, SendKey>> = HashMap::new();
    let mut runs = connection.prepare("SELECT id FROM run WHERE unique_codes = 0")?;
    for run in runs.query_map([], |row| row.get("id"))? {
        open.insert(run?, HashMap::new());
    }
    let mut intents = connection
        .prepare("SELECT run, send_key, coupon FROM journal WHERE kind = ?1 AND coupon IS NOT NULL ORDER BY seq")?;
    let mut intents = intents.query([code::INTENT])?;
    while let Some(row) = intents.next()? {
        let run = row.get("run")?;
        let Some(codes) = open.get_mut(&run) else { continue };
        let key: SendKey = row.get("send_key")?;
        if *codes.entry(row.get("coupon")?).or_insert(key) != key {
            // Two recipients have the same code, so the codes of this run are not generated.
            open.remove(&run);
        }
    }
    Ok(open.into_iter().filter(|(_, codes)| !codes.is_empty()).map(|(run, _)| run).collect())
}
