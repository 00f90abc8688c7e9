//! The ledger: the durable record of sends, and the gate that each passes once.
//!
//! # The protocol
//!
//! A send is in one of these states. Each move appends to a journal; nothing is changed or removed.
//!
//! ```text
//!              claim               settle
//!  (nothing) ────────▶ intent ───────────────▶ accepted
//!                        ├───────────────────▶ rejected ───claim, if asked───▶ intent, next attempt
//!                        ├───────────────────▶ not sent ───claim─────────────▶ intent, next attempt
//!                        ├───────────────────▶ unknown
//!                        │ its run is over       │  evidence, or the late outcome of its own run
//!                        └───────────────────────┼──▶ accepted
//!                                                ├──▶ rejected
//!                                                └──▶ not sent
//!
//!  not sent or rejected, whoever said so ───the late acceptance of an attempt, by its own run───▶ accepted
//!  accepted ───its own run takes it back───▶ unknown
//! ```
//!
//! | move | who may make it | durable before |
//! |---|---|---|
//! | claim | a run that holds the lease and is not fenced off | the first byte of its request |
//! | settle | the run that claimed this attempt | its place in the concurrency is given to another claim |
//! | accepted → unknown | the run that settled it, when it learns that the answer may have been another's | it ends |
//! | settle, late | the same run, after it was fenced off: nobody knows better what it saw | – |
//! | not sent or rejected → accepted | the run that claimed that attempt, or an earlier one | – |
//! | intent → unknown | whoever finds that the run is over: the next run, another applier, `resolve` | anything else is said of that send |
//! | evidence | a person's decision, the provider's report, a receipt; never a timer | – |
//!
//! * A claim carries the content digest, the coupon and the expiry instant. The code is bound in
//!   the same transaction, to this send, for ever.
//! * A claim is granted only from *(nothing)*, from *not sent*, and from *rejected* if the user
//!   asked for it, and always for the next attempt. So at most one request is ever started per
//!   attempt, and a further attempt exists only where the one before provably sent nothing or
//!   somebody has decided so.
//! * Settlements and claims are committed together: a slot is free for a new claim only once the
//!   outcome that freed it is durable. So the intents without an outcome are never more than the
//!   concurrency, whenever the process dies.
//! * Each run has a number that rises: its epoch. A run that was fenced off is granted nothing more.
//!   The bytes of a request leave only while [`RunLedger::lease`] holds, so that no request is complete
//!   after others may have called its outcome unknown.
//! * An acceptance only ever prevents a send, so it is taken however late it comes. If a later attempt
//!   is open, unknown or accepted, the record cannot follow. Then it stays, what the run saw is kept
//!   beside it as a [`Contradiction`], and no further attempt is granted. So is a late refusal of what
//!   a person has called accepted. An id that comes after such a decision is added to it.
//! * A code that belongs to one recipient for ever, of a pool or generated, is unique in the ledger:
//!   a claim with a code that somebody else holds is answered with [`Claim::CodeTaken`].
//! * If the record holds no intent for an outcome, it has lost commits that were durable. The run
//!   stops, keeps its outcomes ([`Committed::forgotten`]), and a person puts them back
//!   ([`Ledger::restore_sends`]).
//! * After [`LedgerError::Lost`] it is not known whether the batch is durable. The same run may offer
//!   it again: what is durable of it already is recognised, and its claims are granted again, since
//!   no request of theirs can have started.
//!
//! * Nobody can know that a send was not sent while a request of its run may live
//!   ([`RunRecord::may_live_for`]). `resolve` and `unlock` wait for that, unless they are forced.
//!
//! [`protocol`] is this machine as pure functions; every ledger follows it, and `ledger check` holds
//! a journal against it.

#![warn(missing_docs)]

pub mod chain;
pub mod contradiction;
pub mod copy;
mod hearing;
pub mod key;
pub mod location;
pub mod lost;
pub mod memory;
pub mod postgres;
pub mod protocol;
pub mod report;
pub mod sends;
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::expiry::ExpiresAt;
pub use crate::domain::lease::{Lease, Moment};
pub use crate::domain::send::{
    AttemptResult, BySend, Evidence, EvidenceSource, Intent, Resolution, SendKey, SendState, Settlement,
};
pub use chain::{Head, Link};
pub use contradiction::Contradiction;
pub use key::{LedgerKey, SendKeys};
pub use location::LedgerLocation;
pub use lost::LostSend;
pub use sends::{ContentPrefix, Cursor, Recorded, Sends, content_prefix};

/// What a commit makes durable, all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Attempts that ended.
    pub settle: Vec<Settlement>,
    /// Attempts about to start. No two are of one send.
    pub claim: Vec<Intent>,
}

/// What a commit came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The answer to each claim, in order.
    pub claims: Vec<Claim>,
    /// Whether this commit went through another connection than the one before, or to a server that was
    /// started meanwhile: it may not hold what was durable before.
    pub reconnected: bool,
    /// How many settlements the record could not take: others had settled those sends otherwise.
    pub not_taken: u64,
    /// Outcomes of which the record holds no intent. The ledger has lost commits that were durable:
    /// the run must stop, and keep these outcomes.
    pub forgotten: Vec<Settlement>,
}

/// The answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The request may start.
    Granted,
    /// Somebody else has this send, or had it before: the request must not start.
    Held,
    /// The code went to somebody else since the plan was made: the plan is out of date.
    CodeTaken,
}

/// What is asked of the record before a plan.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The campaign, by the name that it is recorded under.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// Whether a code belongs to one recipient for ever, as codes of a pool and generated codes do.
    /// Then the codes that other campaigns and editions gave away are wanted, too.
    pub unique_codes: bool,
}

/// What the ledger holds of one edition of a campaign.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// How far the ledger went when this was read. Where one process at a time may write, a run may
    /// only begin where nothing was written since.
    pub position: i64,
    /// Its sends. A run goes on from them, and need not hold them a second time.
    pub sends: Arc<Sends>,
    /// The instant of the plan that its first messages were sent under.
    pub planned_at: Option<Timestamp>,
    /// The runs that are under way: an intent of theirs is no doubt yet.
    pub live: Vec<i64>,
    /// Codes that belong to recipients of other campaigns or editions.
    pub spent_codes: Vec<Box<str>>,
}

/// What a run says of itself when it starts.
#[derive(Debug, Clone)]
pub struct RunStart {
    /// The campaign, by the name that it is recorded under.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// The name that its manifest has today.
    pub name: String,
    /// The manifest's path below the project's root, with `/`.
    pub manifest: String,
    /// Where messages go: `sandbox`, `loopback`, or the provider's host name.
    pub destination: String,
    /// Which account they are sent from: a fingerprint of the SID, made with the ledger's key. None
    /// in the sandbox.
    pub account: Option<String>,
    /// The environment that the manifest was read for, if it knows any.
    pub environment: Option<String>,
    /// The approved plan.
    pub plan_hash: String,
    /// The instant that the plan's expiry counts from.
    pub planned_at: Timestamp,
    /// Whether a code belongs to one recipient for ever, as codes of a pool and generated codes do.
    pub unique_codes: bool,
    /// How many people the campaign is for.
    pub recipients: u64,
    /// The number that messages leave from: its rate is shared by all appliers.
    pub sender: String,
    /// The time between two messages of that number.
    pub interval: Duration,
    /// Whether sends that the provider refused may be claimed again.
    pub retry_rejected: bool,
    /// How long this run may be silent before others call it dead.
    pub lease: Duration,
    /// How long a request of this run can live, from the first attempt to connect to the last byte
    /// of the answer. The gateway enforces it.
    pub longest_request: Duration,
}

/// What became of the sends of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCounts {
    /// The provider took it.
    pub accepted: u64,
    /// The provider refused it.
    pub rejected: u64,
    /// It cannot be told.
    pub unknown: u64,
    /// Attempts that provably sent nothing.
    pub not_sent: u64,
}

/// One run, as recorded.
#[derive(Debug, Clone, Serialize)]
pub struct RunRecord {
    /// Its number in this ledger, which rises: its epoch.
    pub id: i64,
    /// The campaign, by the name that it is recorded under.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// The name that its manifest had.
    pub name: String,
    /// The plan that was approved.
    pub plan_hash: String,
    /// The instant that the plan's expiry counts from.
    pub planned_at: Timestamp,
    /// How many people the campaign was for.
    pub recipients: u64,
    /// The manifest's path below the project's root. Older versions did not record it, nor the next
    /// four.
    pub manifest: Option<String>,
    /// Where messages went: `sandbox`, `loopback`, or the provider's host name.
    pub destination: Option<String>,
    /// The fingerprint of the account.
    pub account: Option<String>,
    /// The number that messages left from.
    pub sender: Option<String>,
    /// The environment that the manifest was read for.
    pub environment: Option<String>,
    /// How long a request of this run could live.
    #[serde(skip)]
    pub longest_request: Option<Duration>,
    /// How long the run may be silent before others call it dead; nothing where a lock tells.
    #[serde(skip)]
    pub lease: Duration,
    /// How long ago the run gave its last sign, by the clock of the store.
    #[serde(skip)]
    pub silent: Duration,
    /// Where.
    pub host: String,
    /// Who.
    pub actor: String,
    /// The process.
    pub pid: u32,
    /// The version of this program.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was last heard of, where that is recorded.
    pub heartbeat_at: Option<Timestamp>,
    /// When it ended; nothing if it did not get to say so.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub ending: Option<String>,
    /// What became of its sends; nothing if it did not get to say so.
    pub counts: Option<RunCounts>,
    /// Whether it is under way.
    pub live: bool,
    /// The digest of its part of the journal, written when it ended.
    #[serde(skip)]
    pub digest: Option<[u8; 32]>,
}

/// How long a request could live in a run of a version that did not record it.
const LONGEST_OF_OLD_RUNS: Duration = Duration::from_secs(120);

/// How runs end that others have ended.
const ENDED_BY_OTHERS: [&str; 2] = ["lost", "unlocked"];

impl RunRecord {
    /// How long a request of this run may still live, and its answer come. Until then nobody can know
    /// that a send of it without an outcome was not sent.
    pub fn may_live_for(&self) -> Duration {
        let request = self.longest_request.unwrap_or(LONGEST_OF_OLD_RUNS);
        let ended_itself =
            self.ended_at.is_some() && self.ending.as_deref().is_some_and(|ending| !ENDED_BY_OTHERS.contains(&ending));
        let whole = if ended_itself { request } else { self.lease + request };
        whole.saturating_sub(self.silent)
    }
}

/// One entry of the journal.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number, which rises for each send.
    pub seq: i64,
    /// The run that wrote it; for evidence, the run of the attempt.
    pub run: i64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Whose send.
    pub key: SendKey,
    /// Which attempt.
    pub attempt: u32,
    /// Where it stands from now on.
    pub state: SendState,
    /// Of an intent: what they would see.
    pub digest: Option<[u8; 32]>,
    /// Of an intent: what they would see but for code and expiry.
    pub similarity_digest: Option<i64>,
    /// Of an intent: the number with its middle hidden.
    pub masked: Option<String>,
    /// Of an intent: the code.
    pub coupon: Option<String>,
    /// Of an intent: when the offer ends, in milliseconds since 1970.
    pub expires: Option<i64>,
    /// The provider's id.
    pub message_id: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Unless it is the word of its own run: where it comes from.
    pub source: Option<Source>,
    /// Of evidence: whose it is.
    pub actor: Option<String>,
}

impl Entry {
    fn bare(run: i64, at: i64, key: SendKey, attempt: u32, state: SendState) -> Self {
        Self {
            seq: 0,
            run,
            at,
            key,
            attempt,
            state,
            digest: None,
            similarity_digest: None,
            masked: None,
            coupon: None,
            expires: None,
            message_id: None,
            reason: None,
            source: None,
            actor: None,
        }
    }

    /// What a granted claim writes.
    fn claimed(run: i64, at: i64, intent: &Intent) -> Self {
        Self {
            digest: Some(intent.digest.0),
            similarity_digest: Some(intent.similarity_digest),
            masked: Some(intent.masked.clone()),
            coupon: Some(intent.coupon.expose().to_owned()),
            expires: intent.expires.map(ExpiresAt::as_millisecond),
            ..Self::bare(run, at, intent.key, intent.attempt, SendState::Intent)
        }
    }

    /// What a settlement writes.
    fn settled(run: i64, at: i64, settlement: &Settlement) -> Self {
        Self {
            message_id: settlement.result.message_id().map(ToOwned::to_owned),
            reason: settlement.result.reason().map(ToOwned::to_owned),
            ..Self::bare(run, at, settlement.key, settlement.attempt, settlement.result.state())
        }
    }

    /// What is written of an intent whose run is over.
    fn abandoned(run: i64, at: i64, key: SendKey, attempt: u32) -> Self {
        let reason = Some(ABANDONED.to_owned());
        Self { reason, source: Some(Source::Abandoned), ..Self::bare(run, at, key, attempt, SendState::Unknown) }
    }

    /// What evidence writes.
    fn evidence(stand: protocol::Stand, at: i64, piece: &Evidence) -> Self {
        Self {
            message_id: piece.message_id.clone(),
            reason: Some(piece.reason.clone()),
            source: Some(piece.source.into()),
            actor: Some(piece.actor.clone()),
            ..Self::bare(stand.run, at, piece.key, stand.attempt, piece.resolution.state())
        }
    }
}

/// What recognising a repeat needs of an entry of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The run of the attempt.
    pub run: i64,
    /// Whose send.
    pub key: SendKey,
    /// Where it stands from now on.
    pub state: SendState,
    /// Of an intent: what they would see but for the URL's parameter, code and expiry.
    pub similarity_digest: Option<i64>,
}

/// Where an entry comes from that is not the word of its own run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Its run is over, and left no outcome. This is no evidence; it only says so.
    Abandoned,
    /// A person decided.
    Decision,
    /// The provider reported it later, for this message.
    Receipt,
    /// The provider's report lists it.
    Report,
}

impl From<EvidenceSource> for Source {
    fn from(source: EvidenceSource) -> Self {
        match source {
            EvidenceSource::Decision => Source::Decision,
            EvidenceSource::Receipt => Source::Receipt,
            EvidenceSource::Report => Source::Report,
        }
    }
}

impl Source {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Abandoned => "abandoned",
            Source::Decision => "decision",
            Source::Receipt => "receipt",
            Source::Report => "report",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Source::Abandoned, Source::Decision, Source::Receipt, Source::Report]
            .into_iter()
            .find(|source| source.as_str() == text)
    }
}

/// Why the ledger cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another applier has the lease.
    #[error("the ledger is held by {holder}")]
    Held {
        /// Who, and since when.
        holder: String,
    },
    /// Activity have taken this run for dead, or another process wrote where one alone may: stop
    /// before anything else happens.
    #[error("this run was fenced off: {0}")]
    Fenced(&'static str),
    /// A part of this program that works for the ledger failed. This is a defect of ours.
    #[error("internal error: {0}")]
    Internal(&'static str),
    /// The ledger was made with another key, so nobody could be told apart.
    #[error("the ledger was made with another key (its fingerprint is {ledger}, the given one's {given})")]
    WrongKey {
        /// The ledger's key.
        ledger: String,
        /// The key at hand.
        given: String,
    },
    /// The ledger was written by a newer version of this program.
    #[error("the ledger has format {found}; this version knows formats up to {known}")]
    Newer {
        /// Its format.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// The file is something else.
    #[error("`{0}` is not a Sendform ledger")]
    NotALedger(String),
    /// The disk or the database says no.
    #[error("the ledger `{path}` cannot be {doing}: {problem}")]
    Storage {
        /// Which file or database.
        path: String,
        /// Read or written.
        doing: &'static str,
        /// What it says.
        problem: String,
    },
    /// The connection is lost, or the database asks to try again: the same may be tried again.
    #[error("the ledger `{place}` does not answer: {problem}")]
    Lost {
        /// Which database.
        place: String,
        /// What happened.
        problem: String,
    },
    /// A commit would not survive a crash.
    #[error("the ledger `{place}` does not keep what it commits: {problem}")]
    NotDurable {
        /// Which database.
        place: String,
        /// Which setting, and what follows.
        problem: String,
    },
    /// Activity wrote to the ledger after the plan was made: what it would send may have changed.
    #[error("the ledger was written to after the plan was made")]
    Outdated,
    /// The ledger is there and must not be used: it has forgotten sends, or is not the one that it
    /// seems to be.
    #[error("{problem}")]
    Refused {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// The ledger's URL cannot be used.
    #[error("{0}")]
    Location(location::LocationError),
    /// The key cannot be read or made.
    #[error("the ledger's key {0}")]
    Key(String),
}

/// Whether there is a ledger file. Only a name that nothing stands under is absent: a link that
/// leads nowhere or a disk that does not answer is an error, since a new ledger in its place would
/// have forgotten everybody.
pub fn exists(path: &std::path::Path) -> Result<bool, LedgerError> {
    let unclear = |error: std::io::Error| LedgerError::Storage {
        path: path.display().to_string(),
        doing: "found",
        problem: error.to_string(),
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unclear(error)),
        Ok(_) => std::fs::metadata(path).map(|_| true).map_err(unclear),
    }
}

/// The property of a ledger that was moved: where to, without credentials.
pub const MOVED_TO: &str = "moved_to";

/// The beginning of a property's name, before the name of a campaign: how many of its sends the ledger
/// has forgotten because it was restored from a copy, or [`TOLD`]. `*` stands for campaigns that the copy
/// does not know.
pub const FORGOTTEN_SENDS: &str = "forgotten_sends:";

/// The user has said that a campaign may go on although sends of it are forgotten.
pub const TOLD: &str = "told";

/// A ledger: what is recorded, the door for evidence, and the way to a run.
#[async_trait]
pub trait Ledger: Send {
    /// Where it is, for people. Holds no password.
    fn place(&self) -> String;

    /// Everything that is recorded of one edition of a campaign, as of one moment.
    async fn snapshot(&mut self, scope: &Scope) -> Result<Snapshot, LedgerError>;

    /// All runs, in the order of their numbers.
    async fn runs(&mut self) -> Result<Vec<RunRecord>, LedgerError>;

    /// Every entry of the journal, in order; of one campaign's runs alone, if one is named.
    async fn journal(
        &mut self,
        campaign: Option<&str>,
        visit: &mut (dyn FnMut(Entry) + Send),
    ) -> Result<(), LedgerError>;

    /// The likeness of every intent of these runs, with its run.
    async fn similarity_digests(
        &mut self,
        runs: &[i64],
        visit: &mut (dyn FnMut(i64, i64) + Send),
    ) -> Result<(), LedgerError>;

    /// Every move of the sends of these runs, in order.
    async fn moves(&mut self, runs: &[i64], visit: &mut (dyn FnMut(Move) + Send)) -> Result<(), LedgerError>;

    /// The chain of the runs, from the ledger's own link on.
    async fn chain(&mut self) -> Result<Vec<Link>, LedgerError>;

    /// Whether the store itself is sound: what the file or the database says of itself.
    async fn sound(&mut self) -> Result<Vec<String>, LedgerError>;

    /// What runs reported that the record could not follow, in order.
    async fn contradictions(&mut self) -> Result<Vec<Contradiction>, LedgerError>;

    /// Weighs evidence and records what it settles, all of it or nothing. One finding for each, in order.
    async fn evidence(&mut self, evidence: &[Evidence]) -> Result<Vec<protocol::Finding>, LedgerError>;

    /// Puts sends into the record that it has lost, all of it or nothing. One finding for each, in order.
    async fn restore_sends(&mut self, lost: &[LostSend]) -> Result<Vec<protocol::Finding>, LedgerError>;

    /// The ledger's id: 32 hexadecimal digits, which a moved ledger keeps.
    async fn id(&mut self) -> Result<String, LedgerError> {
        self.property("ledger_id").await.map(Option::unwrap_or_default)
    }

    /// A text that is kept with the ledger, by its name.
    async fn property(&mut self, name: &str) -> Result<Option<String>, LedgerError>;

    /// Keeps a text with the ledger, or removes it.
    async fn set_property(&mut self, name: &str, value: Option<&str>) -> Result<(), LedgerError>;

    /// Whether a run of this plan could begin now, or who is in its way.
    async fn admits(&mut self, campaign: &str, plan_hash: &str) -> Result<(), LedgerError>;

    /// Starts a run: takes the lease, writes down as `unknown` what dead runs left open.
    /// `snapshot` is what this ledger held when the plan was made. Where one process at a time may
    /// write, a ledger that was written to since is [`LedgerError::Outdated`].
    async fn begin(self: Box<Self>, start: &RunStart, snapshot: &Snapshot) -> Result<Box<dyn RunLedger>, LedgerError>;
}

/// The ledger as the engine sees it during a run.
#[async_trait]
pub trait RunLedger: Send + 'static {
    /// The run's number.
    fn id(&self) -> i64;

    /// The head of the chain as of this run's start.
    fn head(&self) -> Head;

    /// Makes a batch durable, and answers each claim in order. An error means that nothing of the
    /// batch is known to be durable: no request of it may start. After [`LedgerError::Lost`] the
    /// same batch may be offered again, or its claims settled as not sent.
    async fn commit(&mut self, batch: &Arc<Batch>) -> Result<Committed, LedgerError>;

    /// What whoever started the run should know of the store, such as a setting that makes it less
    /// durable than it could be.
    fn warnings(&self) -> &[String] {
        &[]
    }

    /// What says whether the bytes of a granted request may still leave. `None`: as long as the process
    /// lives, nobody else can take the lease.
    fn lease(&self) -> Option<Lease>;

    /// What is shared with other appliers. `None`: this run is alone.
    fn coordinator(&self) -> Option<Arc<dyn Coordinator>>;

    /// Everything recorded of this edition, as of now: for a further round over what others left.
    async fn snapshot(&mut self) -> Result<Snapshot, LedgerError>;

    /// Writes down how the run ended, and lets go of the lease.
    async fn finish(self: Box<Self>, ending: &str, counts: RunCounts) -> Result<Head, LedgerError>;
}

/// What the appliers of one ledger share while they run: the rate of a sender number, and the work.
#[async_trait]
pub trait Coordinator: Send + Sync {
    /// Reserves the next `messages` slots of the sender number's rate: how long it is until the first.
    /// `most` is the largest number of messages that this applier reserves at once.
    ///
    /// A record of the number that lies further in the future than [`MAX_SENDER_PAUSE`] and what live
    /// appliers can have reserved is wrong (the clock was, or a copy was restored), and is not waited for.
    async fn reserve(&self, messages: u32, most: u32) -> Result<Duration, LedgerError>;

    /// Lets nothing leave from the sender number for this long, [`MAX_SENDER_PAUSE`] at most.
    async fn pause_sender(&self, pause: Duration) -> Result<(), LedgerError>;

    /// The number of the next share of the plan that nobody has taken yet. Shares rise.
    async fn next_chunk(&self) -> Result<u64, LedgerError>;

    /// What other live appliers of this plan have under way.
    async fn activity(&self) -> Result<Activity, LedgerError>;
}

/// The longest time for which a sender number is held.
pub const MAX_SENDER_PAUSE: Duration = Duration::from_secs(300);

/// What other live appliers of the same plan do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// How many there are.
    pub appliers: u64,
    /// Their intents without an outcome.
    pub open: u64,
}

/// The number that stands for a state in the journal.
pub(crate) fn state_code(state: SendState) -> i16 {
    match state {
        SendState::Intent => 1,
        SendState::Accepted => 2,
        SendState::Rejected => 3,
        SendState::Unknown => 4,
        SendState::NotSent => 5,
    }
}

/// The state that a number of the journal stands for.
pub(crate) fn state_of(code: i64) -> Result<SendState, LedgerError> {
    SendState::ALL
        .into_iter()
        .find(|state| i64::from(state_code(*state)) == code)
        .ok_or(LedgerError::Newer { found: code, known: 5 })
}

/// The machine that this process runs on.
fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// Who runs this: the pipeline's user, else the machine's.
pub fn actor() -> String {
    ["GITHUB_ACTOR", "GITLAB_USER_LOGIN", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "an unnamed user".to_owned())
}

/// Why an intent of a dead run is unknown.
const ABANDONED: &str = "the run that started it ended without recording an outcome";

/// An instant from the record.
fn instant(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A duration as the record holds it.
fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
