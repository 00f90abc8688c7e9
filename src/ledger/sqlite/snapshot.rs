//! What the file holds of one edition: one scan of the journal, decoded on one thread and put into its
//! table on another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::IntoIter;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::super::state_of;
use super::super::{ContentPrefix, LedgerError, Scope, SendKey, SendState, Sends, Snapshot, content_prefix, instant};
use super::{SqliteLedger, contradiction, lease_is_taken, position};
use crate::util::pipeline::{Sender, run_pipeline};

/// How many entries go from thread to thread together.
const TOGETHER: usize = 1_024;

/// A run that a snapshot looks at.
struct Concerned {
    /// Whether it is one of the edition's own; else its codes alone matter.
    own: bool,
    /// How many people its campaign was for.
    recipients: i64,
    /// The number of the first entry that it may have written.
    first_seq: i64,
}

/// Some entries of the journal.
struct Piece {
    steps: Vec<Step>,
    /// The codes of the intents among them, one behind the other.
    codes: String,
}

/// What matters of an entry.
struct Step {
    /// If it is of the edition's own runs; else its code alone matters.
    own: Option<Own>,
    code_bytes: usize,
}

/// Where a send stands from an entry on.
struct Own {
    key: SendKey,
    attempt: u32,
    run: i64,
    content: Option<ContentPrefix>,
    state: SendState,
}

impl Default for Piece {
    fn default() -> Self {
        Self { steps: Vec::with_capacity(TOGETHER), codes: String::with_capacity(TOGETHER * 8) }
    }
}

impl Piece {
    /// Adds an entry of `run`, unless nothing of it matters.
    fn add(&mut self, row: &Row<'_>, run: i64, own: bool) -> Result<(), Unread> {
        let state = state_of(row.get(1)?).map_err(Unread::Kind)?;
        let mut code_bytes = 0;
        if state == SendState::Intent {
            let code = row.get_ref(4)?.as_str_or_null().map_err(rusqlite::Error::from)?.unwrap_or_default();
            self.codes.push_str(code);
            code_bytes = code.len();
        } else if !own {
            return Ok(());
        }
        let own = match own {
            true => {
                let digest = row.get_ref(5)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
                let content = digest.and_then(content_prefix);
                Some(Own { key: SendKey(row.get(2)?), attempt: row.get(3)?, run, content, state })
            }
            false => None,
        };
        self.steps.push(Step { own, code_bytes });
        Ok(())
    }
}

/// Why an entry is not read.
enum Unread {
    /// The file cannot be read.
    File(rusqlite::Error),
    /// Its kind is of a newer version.
    Kind(LedgerError),
}

impl From<rusqlite::Error> for Unread {
    fn from(error: rusqlite::Error) -> Self {
        Unread::File(error)
    }
}

/// Puts what was decoded where it belongs: the edition's own sends, and the codes that others gave away.
fn gather(pieces: IntoIter<Piece>, mut sends: Sends) -> (Sends, Vec<Box<str>>) {
    let mut spent = Vec::new();
    for piece in pieces {
        let mut codes = piece.codes.as_str();
        for step in piece.steps {
            let (code, rest) = codes.split_at(step.code_bytes);
            codes = rest;
            match step.own {
                Some(Own { key, attempt, run, content, state }) => {
                    let intent = (state == SendState::Intent).then_some((run, code));
                    sends.record_with_content(key, state, attempt, intent, content);
                }
                None => spent.push(code.into()),
            }
        }
    }
    (sends, spent)
}

impl SqliteLedger {
    pub(super) fn read_snapshot(&self, scope: &Scope) -> Result<Snapshot, LedgerError> {
        let fail = |error: rusqlite::Error| self.unreadable(&error);
        // One read transaction: all of it is as of one moment.
        let _moment = self.connection.unchecked_transaction().map_err(fail)?;
        let mut snapshot = Snapshot { position: position(&self.connection).map_err(fail)?, ..Snapshot::default() };
        let runs = self.concerned(scope).map_err(fail)?;
        let recipients = runs.values().filter(|run| run.own).map(|run| run.recipients).max().unwrap_or(0);
        // In the file a send takes far more.
        let most = std::fs::metadata(&self.path).map_or(0, |file| file.len() / 64);
        let most = recipients.try_into().unwrap_or(0).min(most);
        let (read, (mut sends, spent_codes)) = run_pipeline(
            |sender| self.decode(&runs, sender),
            |pieces| gather(pieces, Sends::with_room_for(most.try_into().unwrap_or(0))),
        );
        read.map_err(|unread| match unread {
            Unread::File(error) => fail(error),
            Unread::Kind(error) => error,
        })?;
        snapshot.planned_at = self.planned_at(&sends)?;
        // The message of an earlier attempt was accepted after all: nothing more is sent.
        let accepted = contradiction::accepted(&self.connection).map_err(fail)?;
        accepted.iter().for_each(|key| sends.accepted_before(key));
        snapshot.sends = Arc::new(sends);
        snapshot.spent_codes = spent_codes;
        if self.lease.is_none() && lease_is_taken(&self.path) {
            let sql = "SELECT id FROM run WHERE ended_at IS NULL AND id = (SELECT max(id) FROM run)";
            snapshot
                .live
                .extend(self.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).optional().map_err(fail)?);
        }
        Ok(snapshot)
    }

    /// Reads the entries of these runs.
    fn decode(&self, runs: &HashMap<i64, Concerned>, sender: &Sender<Piece>) -> Result<(), Unread> {
        let first = runs.values().map(|run| run.first_seq).min().unwrap_or(i64::MAX);
        let mut rows = self
            .connection
            .prepare("SELECT run, kind, send_key, attempt, coupon, digest FROM journal WHERE seq >= ?1 ORDER BY seq")?;
        let mut rows = rows.query([first])?;
        let mut piece = Piece::default();
        while let Some(row) = rows.next()? {
            let run = row.get(0)?;
            let Some(concerned) = runs.get(&run) else { continue };
            piece.add(row, run, concerned.own)?;
            if piece.steps.len() == TOGETHER {
                sender.send(std::mem::take(&mut piece));
            }
        }
        // All of it is taken, or the other thread's panic is this one's too.
        sender.send(piece);
        Ok(())
    }

    /// The runs of one edition, and those that gave away codes which it could have. Looking a run up
    /// here is faster than a join for each entry.
    fn concerned(&self, scope: &Scope) -> Result<HashMap<i64, Concerned>, rusqlite::Error> {
        let mut runs = self.connection.prepare(
            "SELECT id, campaign = ?1 AND edition = ?2 AS own, recipients, first_seq,
                    (SELECT run FROM journal WHERE seq < first_seq ORDER BY seq DESC LIMIT 1)
             FROM run WHERE own OR (unique_codes = 1 AND ?3)",
        )?;
        let runs = runs.query_map(params![scope.campaign, scope.edition, scope.unique_codes], |row| {
            let (id, before): (i64, Option<i64>) = (row.get(0)?, row.get(4)?);
            // What stands before the start of a run is of older ones. If it is not, somebody has changed
            // the record by hand, and all of it is read.
            let first_seq = if before.is_none_or(|run| run < id) { row.get(3)? } else { i64::MIN };
            Ok((id, Concerned { own: row.get(1)?, recipients: row.get(2)?, first_seq }))
        })?;
        runs.collect()
    }

    /// The instant of the plan that the first messages went out under. A run that sent nothing does not count.
    fn planned_at(&self, sends: &Sends) -> Result<Option<Timestamp>, LedgerError> {
        let milliseconds: Option<i64> = self
            .connection
            .query_row("SELECT planned_at FROM run WHERE id = ?1", [sends.first_run()], |row| row.get(0))
            .optional()
            .map_err(|error| self.unreadable(&error))?;
        Ok(milliseconds.map(instant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{LedgerKey, state_code};

    /// Two runs of this campaign and one of another that used the same pool, over several pieces.
    #[test]
    fn a_snapshot_is_what_a_plain_reading_of_the_journal_gives() {
        for entries in [0, 1, TOGETHER - 1, TOGETHER, TOGETHER + 1, 3 * TOGETHER + 7] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("ledger.db");
            let ledger = SqliteLedger::open_for_run(&path, &LedgerKey::from_bytes([1; 32])).unwrap();
            let sql = "INSERT INTO run (id, campaign, edition, plan_hash, planned_at, unique_codes, recipients, host, actor, pid, version, started_at, first_seq)
                       VALUES (?1, ?2, 1, '', 0, 1, ?3, '', '', 1, '', 0, 1)";
            for (run, campaign) in [(1, "ours"), (2, "theirs"), (3, "ours")] {
                ledger.connection.execute(sql, params![run, campaign, entries as i64]).unwrap();
            }
            let mut expected = Sends::default();
            let mut spent = Vec::new();
            let sql = "INSERT INTO journal (run, at, kind, send_key, attempt, coupon, digest) VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6)";
            let transaction = ledger.connection.unchecked_transaction().unwrap();
            for entry in 0..entries {
                // Each send has an intent and an outcome, later another intent; codes of several lengths.
                let mut key = [0; 16];
                key[..8].copy_from_slice(&(entry as u64 / 2 % 900).to_le_bytes());
                let (key, run) = (SendKey(key), [1, 2, 3][entry / 2 % 3]);
                let state = if entry % 2 == 0 {
                    SendState::Intent
                } else {
                    [SendState::Accepted, SendState::NotSent][entry / 2 % 2]
                };
                let code = (state == SendState::Intent).then(|| format!("{}{entry}", ["A", "दी", ""][entry % 3]));
                let attempt = 1 + entry as u32 / 1_800;
                let digest = (state == SendState::Intent).then(|| *blake3::hash(&entry.to_le_bytes()).as_bytes());
                transaction.execute(sql, params![run, state_code(state), key.0, attempt, code, digest]).unwrap();
                if run == 2 {
                    spent.extend(code.map(String::into_boxed_str));
                } else {
                    let content = digest.as_ref().and_then(|digest| content_prefix(digest));
                    expected.record_with_content(key, state, attempt, code.as_deref().map(|code| (run, code)), content);
                }
            }
            transaction.commit().unwrap();
            let scope = Scope { campaign: "ours".to_owned(), edition: 1, unique_codes: true };
            let found = ledger.read_snapshot(&scope).unwrap();
            assert_eq!(found.spent_codes, spent);
            assert!(found.sends.iter().eq(expected.iter()), "{entries}");
        }
    }
}
