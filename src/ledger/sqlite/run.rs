//! A run on the file: one thread that writes, and group commit by whoever feeds it.

use std::collections::HashSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::super::chain::{EndLink, JournalDigest, LinkKind};
use super::super::protocol::{self, Stand};
use super::super::state_of;
use super::super::{
    Batch, BySend, Claim, Committed, Coordinator, Entry, Head, Lease, LedgerError, RunCounts, RunLedger, Scope,
    SendKey, SendState, Sends, Snapshot,
};
use super::codes::Codes;
use super::head_file::HeadFile;
use super::{Identity, SqliteLedger, append, contradiction, file, head, io, position, storage};

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
    pub(super) scope: Scope,
}

pub(super) enum Job {
    Commit(Arc<Batch>, oneshot::Sender<Result<Committed, LedgerError>>),
    Finish(String, RunCounts, oneshot::Sender<Result<Head, LedgerError>>),
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
        match SqliteLedger::open_existing(&self.path, None)? {
            Some(ledger) => ledger.read_snapshot(&self.scope),
            None => Err(LedgerError::Fenced(REPLACED)),
        }
    }

    async fn finish(mut self: Box<Self>, ending: &str, counts: RunCounts) -> Result<Head, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Finish(ending.to_owned(), counts, answer);
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
    pub(super) _lease: File,
    pub(super) head_file: HeadFile,
    pub(super) identity: Identity,
    pub(super) run: i64,
    /// Where each send stood before this run.
    pub(super) before: Arc<Sends>,
    /// Where those stand that changed since. An intent in here is this run's own.
    pub(super) changed: BySend<(SendState, u32)>,
    pub(super) retry_rejected: bool,
    /// The number of the first entry that this run may have written.
    pub(super) first_seq: i64,
    /// The last entry that `changed` takes into account.
    pub(super) seen: i64,
    /// Whose codes are, if each belongs to one recipient for ever.
    pub(super) codes: Option<Codes>,
    pub(super) digest: JournalDigest,
}

impl Writer {
    pub(super) fn serve(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            match job {
                Job::Commit(batch, answer) => drop(answer.send(self.commit(&batch))),
                Job::Finish(ending, counts, answer) => {
                    let result = self.finish(&ending, counts);
                    // The lease goes with `self`, before the answer is acted on.
                    drop(self);
                    drop(answer.send(result));
                    return;
                }
            }
        }
    }

    /// Whether the file under the ledger's name is still the one that is open here. If somebody took
    /// it away or put another in its place, what is written here would be lost.
    fn in_its_place(&self) -> Result<(), LedgerError> {
        match Identity::of(&self.path) {
            Ok(found) if found == self.identity => Ok(()),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io(&self.path, "found", &error)),
            Ok(_) | Err(_) => Err(LedgerError::Fenced(REPLACED)),
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, LedgerError> {
        self.in_its_place()?;
        let fail = |error: rusqlite::Error| storage(&self.path, "written", &error);
        // The connection is this thread's alone, so there is no transaction inside another.
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(fail)?;
        let (last_run, at_start) = last_run_and_position(&transaction).map_err(fail)?;
        let overtaken = last_run != self.run;
        if overtaken && !batch.claim.is_empty() {
            return Err(LedgerError::Fenced(OVERTAKEN));
        }
        // Evidence, and the late acceptance of a run that was overtaken, are written beside this run.
        if at_start != self.seen {
            for (key, state, attempt) in written_since(&transaction, self.seen).map_err(fail)? {
                let known = self.changed.get(&key).map_or(0, |(_, attempt)| *attempt);
                let before = self.before.get(&key).map_or(0, |recorded| recorded.attempt);
                self.changed.insert(key, (state, attempt.max(known).max(before)));
            }
        }
        // Where a send stands, as this run knows it. An intent is its own.
        let stand = |key: &SendKey| {
            let before = || self.before.get(key).map(|recorded| (recorded.state, recorded.attempt));
            let (state, attempt) = self.changed.get(key).copied().or_else(before)?;
            Some(Stand { state, attempt, run: self.run })
        };
        let mut changed: BySend<(SendState, u32)> = BySend::default();
        let mut entries = Vec::with_capacity(batch.claim.len() + batch.settle.len());
        let mut others = Vec::new();
        let now = Timestamp::now().as_millisecond();
        for settlement in &batch.settle {
            let state = settlement.result.state();
            let before = stand(&settlement.key).filter(|stand| stand.state == SendState::Intent);
            if !overtaken
                && protocol::may_settle(before, settlement.attempt, self.run, state)
                && !changed.contains_key(&settlement.key)
            {
                changed.insert(settlement.key, (state, settlement.attempt));
                entries.push(Entry::settled(self.run, now, settlement));
            } else {
                others.push(settlement);
            }
        }
        // The message of an earlier attempt may have been accepted after all.
        let accepted = if batch.claim.iter().any(|intent| intent.attempt > 1) {
            contradiction::accepted(&transaction).map_err(fail)?
        } else {
            HashSet::new()
        };
        let mut committed = Committed { claims: Vec::with_capacity(batch.claim.len()), ..Committed::default() };
        for intent in &batch.claim {
            let before = match changed.get(&intent.key) {
                Some((state, attempt)) => Some(Stand { state: *state, attempt: *attempt, run: self.run }),
                None => stand(&intent.key),
            };
            if !protocol::may_claim(before, intent.attempt, self.retry_rejected) || accepted.contains(&intent.key) {
                committed.claims.push(Claim::Held);
                continue;
            }
            // If this transaction fails, the run is over: nobody misses the code.
            if let Some(codes) = &mut self.codes
                && !codes.take(intent.coupon.expose(), &intent.key, &self.before)
            {
                committed.claims.push(Claim::CodeTaken);
                continue;
            }
            changed.insert(intent.key, (SendState::Intent, intent.attempt));
            entries.push(Entry::claimed(self.run, now, intent));
            committed.claims.push(Claim::Granted);
        }
        append(&transaction, &entries).map_err(fail)?;
        // The number of the journal's last entry, if this commit adds any.
        let mut last = (!entries.is_empty()).then(|| transaction.last_insert_rowid());
        if !others.is_empty() {
            let heard = contradiction::hear(&transaction, self.first_seq, (self.run, now), &others, &mut committed)
                .map_err(fail)?;
            for (key, state) in heard.moved {
                let attempt = changed.get(&key).copied().or_else(|| self.changed.get(&key).copied());
                changed.insert(key, (state, attempt.map_or(1, |(_, attempt)| attempt)));
            }
            entries.extend(heard.entries);
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
        self.in_its_place()?;
        let fail = |error: rusqlite::Error| storage(&self.path, "written", &error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        let ended_at = Timestamp::now().as_millisecond();
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
        file::link(&transaction, after, LinkKind::End, Some(self.run), None).map_err(fail)?;
        transaction.commit().map_err(fail)?;
        self.head_file.end(after)?;
        Ok(after)
    }
}

/// Where sends stand according to the entries after this one.
fn written_since(connection: &Connection, seq: i64) -> Result<Vec<(SendKey, SendState, u32)>, rusqlite::Error> {
    let mut entries =
        connection.prepare_cached("SELECT send_key, kind, attempt FROM journal WHERE seq > ?1 ORDER BY seq")?;
    let entries = entries.query_map([seq], |row| {
        let state = state_of(row.get(1)?).map_err(|_| rusqlite::Error::InvalidQuery)?;
        Ok((SendKey(row.get(0)?), state, row.get(2)?))
    })?;
    entries.collect()
}

/// The number of the last run and that of the journal's last entry, for each commit: in one statement.
fn last_run_and_position(connection: &Connection) -> Result<(i64, i64), rusqlite::Error> {
    let mut last = connection
        .prepare_cached("SELECT (SELECT coalesce(max(id), 0) FROM run), (SELECT coalesce(max(seq), 0) FROM journal)")?;
    last.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The number of the last run: a run that is not the last was overtaken.
fn latest_run(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.prepare_cached("SELECT coalesce(max(id), 0) FROM run")?.query_row([], |row| row.get(0))
}
