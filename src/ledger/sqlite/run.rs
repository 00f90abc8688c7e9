//! A run on the file: one thread writes; the engine decides what is committed together.

use std::collections::HashSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::code_owners::CodeOwners;
use super::head_file::HeadFile;
use super::{Identity, SqliteLedger, add_link, append, head, late_outcomes, position, storage};
use crate::domain::clock::Clock;
use crate::domain::lease::Lease;
use crate::domain::send::{BySend, SendKey, SendState};
use crate::ledger::chain::{JournalDigest, LinkKind};
use crate::ledger::contract::{Batch, Claim, Committed, Coordinator, RunLedger, Scope, Snapshot};
use crate::ledger::error::LedgerError;
use crate::ledger::head::{EndLink, Head};
use crate::ledger::protocol::{self, LastAttempt};
use crate::ledger::record::{JournalEntry, Operator, RecordedEnding, RunCounts};
use crate::ledger::send_table::SendTable;

const STOPPED: &str = "the thread that writes the ledger crashed";
const OVERTAKEN: &str = "another process wrote to the ledger during this run";
const REPLACED: &str = "the ledger's file was removed or replaced during this run";

/// The writing end of a run: one thread that owns the file.
pub struct SqliteRun {
    pub(super) sender: Option<mpsc::UnboundedSender<Job>>,
    pub(super) thread: Option<std::thread::JoinHandle<()>>,
    pub(super) run: i64,
    pub(super) head: Head,
    pub(super) path: PathBuf,
    pub(super) operator: Operator,
    pub(super) scope: Scope,
}

pub(super) enum Job {
    Commit(Arc<Batch>, oneshot::Sender<Result<Committed, LedgerError>>),
    Finish(RecordedEnding, RunCounts, oneshot::Sender<Result<Head, LedgerError>>),
}

#[async_trait]
impl RunLedger for SqliteRun {
    fn id(&self) -> i64 {
        self.run
    }

    fn head(&self) -> Head {
        self.head
    }

    async fn commit(&mut self, batch: &Arc<Batch>) -> Result<Committed, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let sent =
            self.sender.as_ref().is_some_and(|sender| sender.send(Job::Commit(Arc::clone(batch), answer)).is_ok());
        if sent {
            answered.await.unwrap_or(Err(LedgerError::Internal(STOPPED)))
        } else {
            Err(LedgerError::Internal(STOPPED))
        }
    }

    fn lease(&self) -> Option<Lease> {
        None
    }

    fn coordinator(&self) -> Option<Arc<dyn Coordinator>> {
        None
    }

    async fn snapshot(&mut self) -> Result<Snapshot, LedgerError> {
        match SqliteLedger::open_existing(&self.path, &self.operator, None)? {
            Some(ledger) => ledger.read_snapshot(&self.scope),
            None => Err(LedgerError::Fenced(REPLACED)),
        }
    }

    async fn finish(mut self: Box<Self>, ending: RecordedEnding, counts: RunCounts) -> Result<Head, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Finish(ending, counts, answer);
        let sent = self.sender.take().is_some_and(|sender| sender.send(job).is_ok());
        let stopped = Err(LedgerError::Internal(STOPPED));
        let result = if sent { answered.await.unwrap_or(stopped) } else { stopped };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        result
    }
}

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) _lease: File,
    pub(super) head_file: HeadFile,
    pub(super) identity: Identity,
    pub(super) run: i64,
    /// The sends before this run.
    pub(super) before: Arc<SendTable>,
    /// The states and attempts of the sends that changed since. An intent in here is this run's own.
    pub(super) changed: BySend<(SendState, u32)>,
    pub(super) retry_rejected: bool,
    /// The number of the first entry that this run may have written.
    pub(super) first_seq: i64,
    /// The last entry that `changed` takes into account.
    pub(super) seen: i64,
    /// The owners of the codes, if each code belongs to one recipient for ever.
    pub(super) codes: Option<CodeOwners>,
    pub(super) digest: JournalDigest,
}

impl Writer {
    pub(super) fn serve(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            match job {
                Job::Commit(batch, answer) => drop(answer.send(self.commit(&batch))),
                Job::Finish(ending, counts, answer) => {
                    let result = self.finish(ending.as_str(), counts);
                    // Releases the lease before the answer is sent.
                    drop(self);
                    drop(answer.send(result));
                    return;
                }
            }
        }
    }

    /// Checks that the ledger's path still leads to the file that is open here. If somebody removed or replaced the
    /// file, what is written here would be lost.
    fn check_in_place(&self) -> Result<(), LedgerError> {
        match Identity::of(&self.path) {
            Ok(found) if found == self.identity => Ok(()),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(LedgerError::io(&self.path, "found", error)),
            Ok(_) | Err(_) => Err(LedgerError::Fenced(REPLACED)),
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, LedgerError> {
        self.check_in_place()?;
        let fail = |error: rusqlite::Error| storage(&self.path, "written", error);
        // Only this thread uses the connection, so no transaction is open on it.
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(fail)?;
        let (last_run, at_start) = last_run_and_position(&transaction).map_err(fail)?;
        let overtaken = last_run != self.run;
        if overtaken && !batch.claim.is_empty() {
            return Err(LedgerError::Fenced(OVERTAKEN));
        }
        // Evidence, and the late acceptance of a run that was overtaken, can be written during this run.
        if at_start != self.seen {
            for (key, state, attempt) in written_since(&transaction, self.seen).map_err(fail)? {
                let known = self.changed.get(&key).map_or(0, |(_, attempt)| *attempt);
                let before = self.before.get(&key).map_or(0, |recorded| recorded.attempt);
                self.changed.insert(key, (state, attempt.max(known).max(before)));
            }
        }
        // The last attempt of a send, as this run knows it. An intent is its own.
        let last_of = |key: &SendKey| {
            let before = || self.before.get(key).map(|recorded| (recorded.state, recorded.attempt));
            let (state, attempt) = self.changed.get(key).copied().or_else(before)?;
            Some(LastAttempt { state, attempt, run: self.run })
        };
        let mut changed: BySend<(SendState, u32)> = BySend::default();
        let mut entries = Vec::with_capacity(batch.claim.len() + batch.settle.len());
        let mut others = Vec::new();
        let now = self.clock.now().as_millisecond();
        for settlement in &batch.settle {
            let state = settlement.result.state();
            let before = last_of(&settlement.key).filter(|last| last.state == SendState::Intent);
            if !overtaken
                && protocol::may_settle(before, settlement.attempt, self.run, state)
                && !changed.contains_key(&settlement.key)
            {
                changed.insert(settlement.key, (state, settlement.attempt));
                entries.push(JournalEntry::of_settlement(self.run, now, settlement));
            } else {
                others.push(settlement);
            }
        }
        // The provider may have accepted an earlier attempt after all.
        let accepted = if batch.claim.iter().any(|intent| intent.attempt > 1) {
            late_outcomes::accepted(&transaction).map_err(fail)?
        } else {
            HashSet::new()
        };
        let mut committed = Committed { claims: Vec::with_capacity(batch.claim.len()), ..Committed::default() };
        for intent in &batch.claim {
            let before = match changed.get(&intent.key) {
                Some((state, attempt)) => Some(LastAttempt { state: *state, attempt: *attempt, run: self.run }),
                None => last_of(&intent.key),
            };
            if !protocol::may_claim(before, intent.attempt, self.retry_rejected) || accepted.contains(&intent.key) {
                committed.claims.push(Claim::Held);
                continue;
            }
            // If this transaction fails, the run ends, so the code need not be given back.
            if let Some(codes) = &mut self.codes
                && !codes.take(intent.coupon.expose(), &intent.key, &self.before)
            {
                committed.claims.push(Claim::CodeTaken);
                continue;
            }
            changed.insert(intent.key, (SendState::Intent, intent.attempt));
            entries.push(JournalEntry::of_claim(self.run, now, intent));
            committed.claims.push(Claim::Granted);
        }
        append(&transaction, &entries).map_err(fail)?;
        // The number of the journal's last entry, if this commit adds any.
        let mut last = (!entries.is_empty()).then(|| transaction.last_insert_rowid());
        if !others.is_empty() {
            let outcomes =
                late_outcomes::record(&transaction, self.first_seq, (self.run, now), &others, &mut committed)
                    .map_err(fail)?;
            for (key, state) in outcomes.moved {
                let attempt = changed.get(&key).copied().or_else(|| self.changed.get(&key).copied());
                changed.insert(key, (state, attempt.map_or(1, |(_, attempt)| attempt)));
            }
            entries.extend(outcomes.entries);
            last = Some(position(&transaction).map_err(fail)?);
        }
        transaction.commit().map_err(fail)?;
        self.seen = at_start + i64::try_from(entries.len()).unwrap_or(i64::MAX);
        entries.iter().for_each(|entry| self.digest.add(entry));
        self.changed.extend(changed);
        if let Some(last) = last.filter(|_| !overtaken) {
            self.head_file.advance(last)?;
        }
        Ok(committed)
    }

    fn finish(&mut self, ending: &str, counts: RunCounts) -> Result<Head, LedgerError> {
        self.check_in_place()?;
        let fail = |error: rusqlite::Error| storage(&self.path, "written", error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        let ended_at = self.clock.now().as_millisecond();
        let before = head(&transaction).map_err(fail)?;
        if latest_run(&transaction).map_err(fail)? != self.run {
            return Ok(before);
        }
        let digest = self.digest.bytes();
        let after = before.ended(&EndLink { run: self.run, ending, ended_at, counts, digest });
        transaction
            .execute(
                "UPDATE run SET ended_at = ?1, ending = ?2, accepted = ?3, rejected = ?4, unknown = ?5, not_sent = ?6, digest = ?7
                 WHERE id = ?8",
                params![
                    ended_at,
                    ending,
                    counts.accepted.cast_signed(),
                    counts.rejected.cast_signed(),
                    counts.unknown.cast_signed(),
                    counts.not_sent.cast_signed(),
                    digest,
                    self.run
                ],
            )
            .map_err(fail)?;
        add_link(&transaction, after, LinkKind::End, Some(self.run), None).map_err(fail)?;
        transaction.commit().map_err(fail)?;
        self.head_file.end(after)?;
        Ok(after)
    }
}

/// The transitions after the entry `seq`.
fn written_since(connection: &Connection, seq: i64) -> Result<Vec<(SendKey, SendState, u32)>, rusqlite::Error> {
    let mut entries =
        connection.prepare_cached("SELECT send_key, kind, attempt FROM journal WHERE seq > ?1 ORDER BY seq")?;
    let entries = entries.query_map([seq], |row| Ok((row.get("send_key")?, row.get("kind")?, row.get("attempt")?)))?;
    entries.collect()
}

/// The numbers of the last run and of the journal's last entry. One statement, because each commit reads both.
fn last_run_and_position(connection: &Connection) -> Result<(i64, i64), rusqlite::Error> {
    let mut last = connection
        .prepare_cached("SELECT (SELECT coalesce(max(id), 0) FROM run), (SELECT coalesce(max(seq), 0) FROM journal)")?;
    last.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The number of the last run. A run that is not the last was overtaken.
fn latest_run(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.prepare_cached("SELECT coalesce(max(id), 0) FROM run")?.query_row([], |row| row.get(0))
}
