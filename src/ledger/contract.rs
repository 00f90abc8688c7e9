//! The contract that every ledger fulfils. The conformance suite holds each of them to it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::chain::Link;
use super::contradiction::Contradiction;
use super::error::LedgerError;
use super::head::Head;
use super::lost_send::LostSend;
use super::protocol::Finding;
use super::record::{JournalEntry, RecordedEnding, RunCounts, RunRecord, RunStart, Transition};
use super::send_table::SendTable;
use crate::domain::lease::Lease;
use crate::domain::send::{Evidence, Intent, SendState, Settlement};

/// A ledger: reads the record, takes evidence, and starts runs.
#[async_trait]
pub trait Ledger: Send {
    /// The file or the database, for people. Holds no password.
    fn place(&self) -> String;

    /// Reads the sends of one edition of a campaign, as of one moment.
    async fn snapshot(&mut self, scope: &Scope) -> Result<Snapshot, LedgerError>;

    /// Reads all runs, in the order of their numbers.
    async fn runs(&mut self) -> Result<Vec<RunRecord>, LedgerError>;

    /// Visits every entry of the journal in order; only those of one campaign's runs, if one is named.
    async fn journal(
        &mut self,
        campaign: Option<&str>,
        visit: &mut (dyn FnMut(JournalEntry) + Send),
    ) -> Result<(), LedgerError>;

    /// Visits the run and the similarity digest of every intent of these runs.
    async fn similarity_digests(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(i64, i64) + Send),
    ) -> Result<(), LedgerError>;

    /// Visits every state transition of the sends of these runs, in order.
    async fn transitions(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(Transition) + Send),
    ) -> Result<(), LedgerError>;

    /// Reads the chain of the runs, beginning with the ledger's own link.
    async fn chain(&mut self) -> Result<Vec<Link>, LedgerError>;

    /// Checks the store itself. Returns the problems that it found.
    async fn verify_storage(&mut self) -> Result<Vec<String>, LedgerError>;

    /// Reads the reports of runs that the record could not follow, in order.
    async fn contradictions(&mut self) -> Result<Vec<Contradiction>, LedgerError>;

    /// Evaluates evidence and records what it settles, all or nothing. Returns a finding for each piece
    /// of evidence, in order.
    async fn record_evidence(&mut self, evidence: &[Evidence]) -> Result<Vec<Finding>, LedgerError>;

    /// Records sends again that the ledger has lost, all or nothing. Returns a finding for each, in order.
    async fn restore_sends(&mut self, lost: &[LostSend]) -> Result<Vec<Finding>, LedgerError>;

    /// Reads the ledger's id: 32 hexadecimal digits, which a moved ledger keeps.
    async fn id(&mut self) -> Result<String, LedgerError> {
        self.property("ledger_id").await.map(Option::unwrap_or_default)
    }

    /// Reads a text that is kept with the ledger under a name.
    async fn property(&mut self, name: &str) -> Result<Option<String>, LedgerError>;

    /// Keeps a text with the ledger under a name, or removes it.
    async fn set_property(&mut self, name: &str, value: Option<&str>) -> Result<(), LedgerError>;

    /// Checks that a run of this plan could begin now; otherwise the error names the holder.
    async fn check_can_begin(&mut self, campaign: &str, plan_hash: &str) -> Result<(), LedgerError>;

    /// Lists the processes that hold the ledger now: one at most, unless it is shared.
    async fn lease_holders(&mut self) -> Result<Vec<LeaseHolder>, LedgerError>;

    /// Fences a run off before its lease is over, and records its open attempts as unknown. Returns
    /// false if the run is over already.
    ///
    /// Where the operating system releases the lease with the process, nothing can be unlocked: the
    /// error names the holder.
    async fn unlock(&mut self, run: i64) -> Result<bool, LedgerError>;

    /// Starts a run: takes the lease, and records the open attempts of dead runs as unknown.
    /// `snapshot` is what this ledger held when the plan was made. Where one process at a time may
    /// write, the error is [`LedgerError::Outdated`] if anything was written since.
    async fn begin(self: Box<Self>, start: &RunStart, snapshot: &Snapshot) -> Result<Box<dyn RunLedger>, LedgerError>;
}

/// The ledger during a run.
#[async_trait]
pub trait RunLedger: Send + 'static {
    /// The run's number.
    fn id(&self) -> i64;

    /// The head of the chain when this run started.
    fn head(&self) -> Head;

    /// Makes a batch durable, and answers each claim in order. After an error nothing of the batch is
    /// known to be durable, and no request of it may start. After [`LedgerError::Lost`] the same batch
    /// may be committed again, or its claims settled as not sent.
    async fn commit(&mut self, batch: &Arc<Batch>) -> Result<Committed, LedgerError>;

    /// What the user should know about the store, such as a setting that makes it less durable than it
    /// could be.
    fn warnings(&self) -> &[String] {
        &[]
    }

    /// Decides whether the bytes of a granted request may still leave. `None`: as long as this process
    /// lives, because nobody else can take the lease.
    fn lease(&self) -> Option<Lease>;

    /// What the appliers of a shared ledger coordinate. `None`: this run is alone.
    fn coordinator(&self) -> Option<Arc<dyn Coordinator>>;

    /// Reads the sends of this edition as of now, for a further round.
    async fn snapshot(&mut self) -> Result<Snapshot, LedgerError>;

    /// Counts the sends of this edition by state, as of now.
    async fn count_by_state(&mut self) -> Result<StateCounts, LedgerError> {
        Ok(self.snapshot().await?.sends.count_by_state())
    }

    /// Records how the run ended, and releases the lease.
    async fn finish(self: Box<Self>, ending: RecordedEnding, counts: RunCounts) -> Result<Head, LedgerError>;
}

/// What the appliers of a shared ledger coordinate during their runs: the rate of a sender number, and
/// who sends which chunk of the plan.
#[async_trait]
pub trait Coordinator: Send + Sync {
    /// Reserves the next `messages` slots of the sender number's rate. Returns the time until the first.
    /// `most` is the largest number of messages that this applier reserves at once.
    ///
    /// If the record of the number lies further in the future than [`MAX_SENDER_PAUSE`] and what live
    /// appliers can have reserved, it is wrong (a clock was wrong, or a copy was restored) and is ignored.
    async fn reserve(&self, messages: u32, most: u32) -> Result<Duration, LedgerError>;

    /// Lets nothing leave from the sender number for this long, [`MAX_SENDER_PAUSE`] at most.
    async fn pause_sender(&self, pause: Duration) -> Result<(), LedgerError>;

    /// Takes the next chunk of the plan that nobody has taken yet. Returns its number; numbers rise.
    async fn next_chunk(&self) -> Result<u64, LedgerError>;

    /// Counts the other live appliers of this plan, and their open attempts.
    async fn activity(&self) -> Result<Activity, LedgerError>;
}

/// The longest time for which a sender number can be paused.
pub const MAX_SENDER_PAUSE: Duration = Duration::from_secs(300);

/// The other live appliers of the same plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// How many there are.
    pub appliers: u64,
    /// How many attempts of theirs have no outcome yet.
    pub open: u64,
}

/// A process that holds the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHolder {
    /// The run, where the ledger knows which run holds it.
    pub run: Option<i64>,
    /// The process, its machine and its user.
    pub description: String,
    /// Whether `ledger unlock` can end the lease. Otherwise the operating system does, when the process
    /// ends.
    pub can_be_unlocked: bool,
}

/// What a commit makes durable, all or nothing.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Attempts that ended.
    pub settle: Vec<Settlement>,
    /// Attempts about to start, at most one for each send.
    pub claim: Vec<Intent>,
}

/// The result of a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The answer to each claim, in order.
    pub claims: Vec<Claim>,
    /// Whether this commit went through another connection than the one before, or to a server that was
    /// restarted since: commits that were durable may be gone.
    pub reconnected: bool,
    /// How many settlements were not recorded, because somebody had settled those sends otherwise.
    pub not_taken: u64,
    /// Settlements of attempts whose intents the ledger does not hold: it has lost commits that were
    /// durable. The run must stop, and keep these settlements.
    pub forgotten: Vec<Settlement>,
}

/// The answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The request may start.
    Granted,
    /// Another run has this send, or sent it before: the request must not start.
    Held,
    /// The code was given to somebody else after the plan was made: the plan is out of date.
    CodeTaken,
}

/// Which sends a snapshot reads.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The campaign, by the name that it is recorded under.
    pub campaign: String,
    /// The edition of the campaign.
    pub edition: u32,
    /// Whether a code belongs to one recipient for ever, as codes of a pool and generated codes do.
    /// Then the snapshot also holds the codes that other campaigns and editions gave away.
    pub unique_codes: bool,
}

/// The sends of one edition of a campaign, as of one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The number of the journal's last entry. Where one process at a time may write, a run begins only
    /// if this has not changed.
    pub position: i64,
    /// The sends. A run continues from this table, and holds no second copy of it.
    pub sends: Arc<SendTable>,
    /// The planning instant of the plan that the first messages were sent under.
    pub planned_at: Option<Timestamp>,
    /// The runs that are under way: their intents do not count as unknown yet.
    pub live: Vec<i64>,
    /// Codes that belong to recipients of other campaigns or editions.
    pub spent_codes: Vec<Box<str>>,
}

/// How many sends there are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateCounts([u64; SendState::ALL.len()]);

impl StateCounts {
    /// How many sends are in this state.
    pub fn get(&self, state: SendState) -> u64 {
        self.0[state as usize]
    }

    /// Adds sends in this state.
    pub fn add(&mut self, state: SendState, sends: u64) {
        self.0[state as usize] += sends;
    }
}
