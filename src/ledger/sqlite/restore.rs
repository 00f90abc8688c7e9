//! Restores a backup of a ledger's file.
//!
//! An old backup lacks what was sent since. So [`Restore`] reports what that is, and records it in the chain and
//! for each campaign that it concerns.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::Connection;

use super::backup::{copy_pages, no_ledger};
use super::file::{self, BACKUP, check_key, take_lease};
use super::head_file::{HeadFile, HeadRecord, ledger_id};
use super::migrate::migrate;
use super::rows::{property, set_property};
use super::{add_link, head, late_outcomes, load_states, position, storage};
use crate::domain::send::{SendKey, SendState};
use crate::ledger::chain::LinkKind;
use crate::ledger::copy::moved;
use crate::ledger::error::LedgerError;
use crate::ledger::key::LedgerKey;
use crate::ledger::location::{canonical_file, exists, parent};
use crate::ledger::protocol::LastAttempt;
use crate::ledger::record::{Operator, instant};
use crate::ledger::{FORGOTTEN_SENDS, MOVED_TO};

/// A run that the backup lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgottenRun {
    /// The run's number.
    pub id: i64,
    /// The campaign, by the name that it is recorded under.
    pub campaign: String,
    /// The name in the manifest.
    pub name: String,
    /// When the run started.
    pub started_at: Timestamp,
}

/// What a backup lacks of its ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// The runs that it lacks, as far as they can be determined.
    pub runs: Vec<ForgottenRun>,
    /// How many sends it lacks; an upper bound unless `exact` is set.
    pub sends: u64,
    /// How many sends it lacks of each campaign, under each of the campaign's names.
    pub of_campaign: BTreeMap<String, u64>,
    /// How many sends the ledger itself lacks of each campaign since an earlier restore, which no `apply` has
    /// confirmed yet.
    pub earlier: BTreeMap<String, u64>,
    /// Whether the ledger itself could be compared. Otherwise the numbers come from its head, if there is one.
    pub exact: bool,
    /// Whether there is neither a readable ledger nor a head: then nothing shows what was sent since the backup.
    pub blind: bool,
}

/// A backup that is about to replace a ledger. Holds the ledger's lease.
pub struct Restore {
    ledger: PathBuf,
    temporary: tempfile::NamedTempFile,
    copy: Connection,
    operator: Operator,
    /// What the backup lacks.
    pub forgotten: Forgotten,
    _lease: File,
}

impl Restore {
    /// Reads a backup and compares it with the ledger, its head, or both. Changes nothing.
    pub fn prepare(ledger: &Path, operator: &Operator, copy: &Path, key: &LedgerKey) -> Result<Self, LedgerError> {
        let ledger = canonical_file(ledger);
        let lease = take_lease(&ledger, operator)?;
        if !exists(copy)? {
            return Err(no_ledger(copy));
        }
        let source = super::open(copy)?;
        file::format(copy, &source)?;
        let temporary = tempfile::NamedTempFile::new_in(parent(&ledger))
            .map_err(|error| LedgerError::io(&ledger, "written", error))?;
        let mut copied = copy_pages(&source, temporary.path(), &ledger)?;
        drop(source);
        let found = file::format(copy, &copied)?;
        migrate(copy, &mut copied, found)?;
        check_key(copy, &copied, key)?;
        let forgotten = compare(&ledger, copy, &copied)?;
        Ok(Self { ledger, temporary, copy: copied, operator: operator.clone(), forgotten, _lease: lease })
    }

    /// Puts the backup in the ledger's place. The file that was there is kept under another name. Returns that
    /// name.
    pub fn finish(self) -> Result<Option<PathBuf>, LedgerError> {
        let Self { ledger, temporary, copy, operator, forgotten, _lease } = self;
        let failed = |error: rusqlite::Error| storage(&ledger, "written", error);
        let written = |error: std::io::Error| LedgerError::io(&ledger, "written", error);
        let now = operator.clock.now();
        let transaction = copy.unchecked_transaction().map_err(failed)?;
        set_property(&transaction, BACKUP, None).map_err(failed)?;
        let detail = format!(
            "at {}, {} sends forgotten, from entry {}",
            now.as_millisecond(),
            forgotten.sends,
            position(&transaction).map_err(failed)?
        );
        let restored = head(&transaction).map_err(failed)?.noted(LinkKind::Restored, &detail);
        add_link(&transaction, restored, LinkKind::Restored, None, Some(&detail)).map_err(failed)?;
        let mut of_campaign = forgotten.earlier.clone();
        for (campaign, sends) in &forgotten.of_campaign {
            *of_campaign.entry(campaign.clone()).or_default() += sends;
        }
        for (campaign, sends) in of_campaign.iter().filter(|(_, sends)| **sends > 0) {
            let name = format!("{FORGOTTEN_SENDS}{campaign}");
            set_property(&transaction, &name, Some(&sends.to_string())).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        copy.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        copy.close().map_err(|(_, error)| failed(error))?;
        temporary.as_file().sync_all().map_err(written)?;

        let suffix = format!(".replaced-{}", now.strftime("%Y%m%dT%H%M%SZ"));
        let beside = |suffix: &str| {
            let mut name = ledger.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        // The former log is renamed first: SQLite would use it for the new file.
        let mut kept = None;
        for part in ["-wal", "-shm", ""] {
            let (from, to) = (beside(part), beside(&format!("{suffix}{part}")));
            if from.symlink_metadata().is_ok() {
                std::fs::rename(&from, &to).map_err(written)?;
                kept = Some(to).filter(|_| part.is_empty());
            }
        }
        temporary.persist_noclobber(&ledger).map_err(|error| written(error.error))?;
        File::open(parent(&ledger)).and_then(|directory| directory.sync_all()).map_err(written)?;
        HeadFile::write_now(&ledger, &super::open(&ledger)?)?;
        Ok(kept)
    }
}

/// What the backup lacks of what the ledger or its head shows.
fn compare(ledger: &Path, copy: &Path, copied: &Connection) -> Result<Forgotten, LedgerError> {
    let failed = |error: rusqlite::Error| storage(copy, "read", error);
    let id = ledger_id(copy, copied)?;
    // A damaged head shows nothing.
    let recorded = HeadRecord::read(ledger).unwrap_or_default();
    let another = || LedgerError::Refused {
        problem: format!("`{}` is not a backup of the ledger `{}`", copy.display(), ledger.display()),
        hint: "restore a backup of the same ledger, or use the backup's ledger in its own place",
    };
    if recorded.as_ref().is_some_and(|recorded| recorded.id != id) {
        return Err(another());
    }
    let mut forgotten = Forgotten::default();
    let current = current(ledger);
    if let Some(current) = &current {
        if ledger_id(ledger, current)? != id {
            return Err(another());
        }
        // A backup from before the move would become a second ledger.
        if let Some(to) = property(current, MOVED_TO).map_err(failed)? {
            return Err(moved(&ledger.display().to_string(), &to));
        }
        compare_exactly(current, copied, &mut forgotten).map_err(failed)?;
        forgotten.earlier = pending(current).map_err(failed)?;
        forgotten.exact = true;
    }
    let reached = match &current {
        Some(current) => position(current).map_err(failed)?,
        None => position(copied).map_err(failed)?,
    };
    let missing = recorded.as_ref().map_or(0, |recorded| (recorded.seq - reached).max(0)).cast_unsigned();
    if missing > 0 || current.is_none() {
        // The head shows how many entries are missing, and so the largest number of sends.
        forgotten.exact = false;
        forgotten.blind = recorded.is_none();
        forgotten.sends += missing;
        let names: Vec<String> = campaigns(copied).map_err(failed)?;
        for name in names.into_iter().chain([String::from("*")]) {
            *forgotten.of_campaign.entry(name).or_default() += missing;
        }
    }
    Ok(forgotten)
}

/// How many sends a ledger lacks of each campaign since it was restored, if no `apply` has confirmed it since.
fn pending(connection: &Connection) -> Result<BTreeMap<String, u64>, rusqlite::Error> {
    let mut properties = connection.prepare("SELECT name, value FROM property")?;
    let properties = properties.query_map([], |row| Ok((row.get("name")?, row.get("value")?)))?;
    let mut pending = BTreeMap::new();
    for property in properties {
        let (name, value): (String, String) = property?;
        if let (Some(campaign), Ok(sends)) = (name.strip_prefix(FORGOTTEN_SENDS), value.parse()) {
            pending.insert(campaign.to_owned(), sends);
        }
    }
    Ok(pending)
}

/// The present ledger, if it can be read.
fn current(ledger: &Path) -> Option<Connection> {
    if !ledger.exists() {
        return None;
    }
    let mut connection = super::open(ledger).ok()?;
    let found = file::format(ledger, &connection).ok()?;
    migrate(ledger, &mut connection, found).ok()?;
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).ok()?;
    (sound == "ok").then_some(connection)
}

/// All names of the campaigns of a ledger.
fn campaigns(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let sql = "SELECT campaign AS name FROM run UNION SELECT coalesce(name, campaign) FROM run";
    connection.prepare(sql)?.query_map([], |row| row.get("name"))?.collect()
}

/// A run as it is compared.
#[derive(PartialEq)]
struct ComparedRun {
    campaign: String,
    name: String,
    started_at: i64,
    plan_hash: String,
}

fn compared_runs(connection: &Connection) -> Result<BTreeMap<i64, ComparedRun>, rusqlite::Error> {
    connection
        .prepare("SELECT id, campaign, coalesce(name, campaign) AS name, started_at, plan_hash FROM run")?
        .query_map([], |row| {
            let run = ComparedRun {
                campaign: row.get("campaign")?,
                name: row.get("name")?,
                started_at: row.get("started_at")?,
                plan_hash: row.get("plan_hash")?,
            };
            Ok((row.get("id")?, run))
        })?
        .collect()
}

/// Compares run by run and send by send.
fn compare_exactly(
    current: &Connection,
    copied: &Connection,
    forgotten: &mut Forgotten,
) -> Result<(), rusqlite::Error> {
    let (now, then) = (compared_runs(current)?, compared_runs(copied)?);
    for (id, run) in now.iter().filter(|(id, run)| then.get(id) != Some(run)) {
        forgotten.runs.push(ForgottenRun {
            id: *id,
            campaign: run.campaign.clone(),
            name: run.name.clone(),
            started_at: instant(run.started_at),
        });
    }
    let known: HashMap<SendKey, LastAttempt> = load_states(copied, |_| true)?;
    let (accepted_now, accepted_then) = (late_outcomes::accepted(current)?, late_outcomes::accepted(copied)?);
    for (key, last) in load_states(current, |_| true)? {
        let accepted = accepted_now.contains(&key) && !accepted_then.contains(&key);
        if accepted || !knows(known.get(&key), last) {
            forgotten.sends += 1;
            if let Some(ComparedRun { campaign, name, .. }) = now.get(&last.run) {
                *forgotten.of_campaign.entry(campaign.clone()).or_default() += 1;
                if name != campaign {
                    *forgotten.of_campaign.entry(name.clone()).or_default() += 1;
                }
            }
        }
    }
    Ok(())
}

/// Whether the backup would send to nobody to whom the ledger would not send again.
fn knows(copied: Option<&LastAttempt>, now: LastAttempt) -> bool {
    let free = |state: SendState| matches!(state, SendState::NotSent | SendState::Rejected);
    match copied {
        // A send that provably was not sent may be sent again either way.
        None => now.state == SendState::NotSent && now.attempt == 1,
        Some(then) => then.attempt >= now.attempt && (!free(then.state) || then.state == now.state),
    }
}
