//! Reads the sends of one edition: one scan of the journal, decoded on one thread and put into the table on another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::IntoIter;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::{SqliteLedger, late_outcomes, lease_is_taken, position};
use crate::domain::send::{SendKey, SendState};
use crate::ledger::columns::columns;
use crate::ledger::contract::{Scope, Snapshot};
use crate::ledger::error::LedgerError;
use crate::ledger::record::instant;
use crate::ledger::send_table::{ContentPrefix, SendTable, content_prefix};
use crate::util::pipeline::{Sender, run_pipeline};

/// How many entries go from thread to thread together.
const CHUNK_LEN: usize = 1_024;

/// A run that a snapshot reads.
struct RelevantRun {
    /// Whether it is a run of the edition itself; of other runs only the codes matter.
    own: bool,
    /// How many recipients its campaign had.
    recipients: i64,
    /// The number of the first entry that it may have written.
    first_seq: i64,
}

/// Some entries of the journal.
struct Chunk {
    steps: Vec<Step>,
    /// The codes of the intents among them, one after the other.
    codes: String,
}

/// The part of an entry that matters.
struct Step {
    /// The transition, if it belongs to the edition's own runs; of others only the code matters.
    own: Option<Own>,
    code_bytes: usize,
}

/// The state that a send has after an entry.
struct Own {
    key: SendKey,
    attempt: u32,
    run: i64,
    content: Option<ContentPrefix>,
    state: SendState,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { steps: Vec::with_capacity(CHUNK_LEN), codes: String::with_capacity(CHUNK_LEN * 8) }
    }
}

impl Chunk {
    /// Adds an entry of `run`, unless nothing of it matters.
    fn add(&mut self, row: &Row<'_>, run: i64, own: bool) -> Result<(), rusqlite::Error> {
        let state = row.get(step::KIND)?;
        let mut code_bytes = 0;
        if state == SendState::Intent {
            let code = row.get_ref(step::COUPON)?.as_str_or_null()?.unwrap_or_default();
            self.codes.push_str(code);
            code_bytes = code.len();
        } else if !own {
            return Ok(());
        }
        let own = match own {
            true => {
                let digest = row.get_ref(step::DIGEST)?.as_blob_or_null()?;
                let content = digest.and_then(content_prefix);
                Some(Own { key: row.get(step::SEND_KEY)?, attempt: row.get(step::ATTEMPT)?, run, content, state })
            }
            false => None,
        };
        self.steps.push(Step { own, code_bytes });
        Ok(())
    }
}

/// Puts decoded entries into the table of the edition's own sends, and into the list of codes that others gave away.
fn gather(chunks: IntoIter<Chunk>, mut sends: SendTable) -> (SendTable, Vec<Box<str>>) {
    let mut spent = Vec::new();
    for chunk in chunks {
        let mut codes = chunk.codes.as_str();
        for step in chunk.steps {
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

columns!(
    step: RUN = "run", KIND = "kind", SEND_KEY = "send_key", ATTEMPT = "attempt", COUPON = "coupon", DIGEST = "digest",
);

impl SqliteLedger {
    pub(super) fn read_snapshot(&self, scope: &Scope) -> Result<Snapshot, LedgerError> {
        let fail = |error: rusqlite::Error| self.unreadable(error);
        // One read transaction, so that everything is read as of one moment.
        let _moment = self.connection.unchecked_transaction().map_err(fail)?;
        let mut snapshot = Snapshot { position: position(&self.connection).map_err(fail)?, ..Snapshot::default() };
        let runs = self.relevant_runs(scope).map_err(fail)?;
        let recipients = runs.values().filter(|run| run.own).map(|run| run.recipients).max().unwrap_or(0);
        // A send takes far more than 64 bytes in the file.
        let most = std::fs::metadata(&self.path).map_or(0, |file| file.len() / 64);
        let most = recipients.try_into().unwrap_or(0).min(most);
        let (read, (mut sends, spent_codes)) = run_pipeline(
            |sender| self.decode(&runs, sender),
            |chunks| gather(chunks, SendTable::with_capacity(most.try_into().unwrap_or(0))),
        );
        read.map_err(fail)?;
        snapshot.planned_at = self.planned_at(&sends)?;
        // The provider accepted an earlier attempt after all, so nothing more is sent.
        let accepted = late_outcomes::accepted(&self.connection).map_err(fail)?;
        accepted.iter().for_each(|key| sends.record_earlier_acceptance(key));
        snapshot.sends = Arc::new(sends);
        snapshot.spent_codes = spent_codes;
        if self.lease.is_none() && lease_is_taken(&self.path) {
            let sql = "SELECT id FROM run WHERE ended_at IS NULL AND id = (SELECT max(id) FROM run)";
            snapshot
                .live
                .extend(self.connection.query_row(sql, [], |row| row.get::<_, i64>("id")).optional().map_err(fail)?);
        }
        Ok(snapshot)
    }

    /// Reads the entries of these runs.
    fn decode(&self, runs: &HashMap<i64, RelevantRun>, sender: &Sender<Chunk>) -> Result<(), rusqlite::Error> {
        let first = runs.values().map(|run| run.first_seq).min().unwrap_or(i64::MAX);
        let mut rows =
            self.connection.prepare(&format!("SELECT {} FROM journal WHERE seq >= ?1 ORDER BY seq", step::LIST))?;
        let mut rows = rows.query([first])?;
        let mut chunk = Chunk::default();
        while let Some(row) = rows.next()? {
            let run = row.get(step::RUN)?;
            let Some(relevant) = runs.get(&run) else { continue };
            chunk.add(row, run, relevant.own)?;
            if chunk.steps.len() == CHUNK_LEN {
                sender.send(std::mem::take(&mut chunk));
            }
        }
        // The other thread takes everything, or its panic becomes this thread's as well.
        sender.send(chunk);
        Ok(())
    }

    /// The runs of one edition, and those that gave away codes which the edition could use. A lookup here is faster
    /// than a join for each entry.
    fn relevant_runs(&self, scope: &Scope) -> Result<HashMap<i64, RelevantRun>, rusqlite::Error> {
        let mut runs = self.connection.prepare(
            "SELECT id, campaign = ?1 AND edition = ?2 AS own, recipients, first_seq,
                    (SELECT run FROM journal WHERE seq < first_seq ORDER BY seq DESC LIMIT 1) AS run_before
             FROM run WHERE own OR (unique_codes = 1 AND ?3)",
        )?;
        let runs = runs.query_map(params![scope.campaign, scope.edition, scope.unique_codes], |row| {
            let (id, before): (i64, Option<i64>) = (row.get("id")?, row.get("run_before")?);
            // The entries before the start of a run belong to older runs. Otherwise somebody has changed the record
            // by hand, and all of it is read.
            let first_seq = if before.is_none_or(|run| run < id) { row.get("first_seq")? } else { i64::MIN };
            Ok((id, RelevantRun { own: row.get("own")?, recipients: row.get("recipients")?, first_seq }))
        })?;
        runs.collect()
    }

    /// The planning instant of the plan that the first messages were sent under. A run that sent nothing does not
    /// count.
    fn planned_at(&self, sends: &SendTable) -> Result<Option<Timestamp>, LedgerError> {
        let milliseconds: Option<i64> = self
            .connection
            .query_row("SELECT planned_at FROM run WHERE id = ?1", [sends.first_run()], |row| row.get("planned_at"))
            .optional()
            .map_err(|error| self.unreadable(error))?;
        Ok(milliseconds.map(instant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::LedgerKey;
    use crate::ledger::record::{operator, state_code};

    /// Two runs of this campaign and one of another that used the same pool, over several chunks.
    #[test]
    fn a_snapshot_is_what_a_plain_reading_of_the_journal_gives() {
        for entries in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN + 7] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("ledger.db");
            let ledger = SqliteLedger::open_or_create(&path, &operator(), &LedgerKey::from_bytes([1; 32])).unwrap();
            let sql = "INSERT INTO run (id, campaign, edition, plan_hash, planned_at, unique_codes, recipients, host, actor, pid, version, started_at, first_seq)
                       VALUES (?1, ?2, 1, '', 0, 1, ?3, '', '', 1, '', 0, 1)";
            for (run, campaign) in [(1, "ours"), (2, "theirs"), (3, "ours")] {
                ledger.connection.execute(sql, params![run, campaign, entries as i64]).unwrap();
            }
            let mut expected = SendTable::default();
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
