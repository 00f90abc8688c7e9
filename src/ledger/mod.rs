//! The ledger: the durable record of sends, and the gate that each send passes once.
//!
//! # The protocol
//!
//! A send is always in one of these states. Each transition appends an entry to a journal; nothing is
//! changed or removed.
//!
//! ```text
//!              claim               settle
//!  (nothing) ────────▶ intent ───────────────▶ accepted
//!                        ├───────────────────▶ rejected ───claim, on request──▶ intent, next attempt
//!                        ├───────────────────▶ not sent ───claim──────────────▶ intent, next attempt
//!                        ├───────────────────▶ unknown
//!                        │ its run is over       │  evidence, or the late outcome of its own run
//!                        └───────────────────────┼──▶ accepted
//!                                                ├──▶ rejected
//!                                                └──▶ not sent
//!
//!  not sent or rejected, whoever decided so ───late acceptance of an attempt, by its own run───▶ accepted
//!  accepted ───its own run takes it back───▶ unknown
//! ```
//!
//! | transition | who may make it | must be durable before |
//! |---|---|---|
//! | claim | a run that holds the lease and is not fenced off | the first byte of its request leaves |
//! | settle | the run that claimed this attempt | its place in the concurrency goes to another claim |
//! | accepted → unknown | the run that settled it, when it learns that the answer may belong to another request | the run ends |
//! | late settlement | the same run, after it was fenced off: only that run saw the answer | – |
//! | not sent or rejected → accepted | the run that claimed that attempt, or an earlier one | – |
//! | intent → unknown | any process that finds that the run is over: the next run, another applier, `resolve` | any other transition of that send |
//! | evidence | a person's decision, the provider's report, a receipt; never a timer | – |
//!
//! * A claim carries the digest of the message, the coupon and the expiry instant. The same transaction
//!   binds the code to this send for ever.
//! * A claim is granted only from *(nothing)*, from *not sent*, and from *rejected* if the user requests
//!   it, and always for the next attempt. So each attempt starts at most one request, and there is a
//!   further attempt only if the one before provably sent nothing or somebody decided so.
//! * Settlements and claims are committed together: a slot is free for a new claim only when the outcome
//!   that freed it is durable. So there are never more intents without an outcome than the concurrency
//!   allows, whenever the process dies.
//! * Each run has a number that rises: its epoch. A run that was fenced off is granted nothing more. The
//!   bytes of a request leave only while [`RunLedger::lease`] holds, so no request completes after other
//!   processes may have recorded its outcome as unknown.
//! * An acceptance only ever prevents a send, so it is recorded however late it comes. If a later attempt
//!   is open, unknown or accepted, the record cannot follow. Then the record stays as it is, the report of
//!   the run is kept beside it as a [`Contradiction`], and no further attempt is granted. A late rejection
//!   of a send that a person called accepted is kept in the same way. A message id that comes after such a
//!   decision is added to the record.
//! * A code that belongs to one recipient for ever (from a pool, or generated) is unique in the ledger. A
//!   claim with a code that belongs to somebody else is answered with [`Claim::CodeTaken`].
//! * If the record holds no intent for an outcome, it has lost commits that were durable. The run stops and
//!   keeps its outcomes ([`Committed::forgotten`]), and a person records them again
//!   ([`Ledger::restore_sends`]).
//! * After [`LedgerError::Lost`] it is not known whether the batch is durable. The same run may commit it
//!   again: the ledger recognises what is durable already, and grants its claims again, because no request
//!   of theirs can have started.
//! * Nobody can know that a send was not sent while a request of its run may be under way
//!   ([`RunRecord::may_live_for`]). `resolve` and `unlock` wait for that, unless they are forced.
//!
//! [`protocol`] is this state machine as pure functions. Every ledger follows it, and `ledger check` checks
//! a journal against it.

#![warn(missing_docs)]

pub mod chain;
mod columns;
pub mod contract;
pub mod contradiction;
pub mod copy;
pub mod error;
pub mod head;
pub mod key;
mod late_outcomes;
pub mod location;
pub mod lost_send;
pub mod memory;
pub mod postgres;
pub mod protocol;
pub mod query;
pub mod record;
pub mod send_table;
pub mod sqlite;

pub use crate::domain::lease::{Lease, Moment};
pub use crate::domain::send::{
    AttemptResult, BySend, Evidence, EvidenceSource, Intent, Resolution, SendKey, SendState, Settlement,
};
pub use chain::{Link, LinkKind};
pub use contract::{
    Activity, Batch, Claim, Committed, Coordinator, LeaseHolder, Ledger, MAX_SENDER_PAUSE, RunLedger, Scope, Snapshot,
    StateCounts,
};
pub use contradiction::Contradiction;
pub use error::LedgerError;
pub use head::Head;
pub use key::{LedgerKey, SendKeys};
pub use location::LedgerLocation;
pub use lost_send::LostSend;
pub use record::{
    JournalEntry, JournalKind, Operator, RecordedEnding, RecordedIntent, RunCounts, RunRecord, RunStart, Transition,
};
pub use send_table::{ContentPrefix, Cursor, RecordedSend, SendTable, content_prefix};

/// The property of a moved ledger: its new location, without credentials.
pub const MOVED_TO: &str = "moved_to";

/// The beginning of a property's name, before the name of a campaign: how many of its sends the ledger has
/// lost because it was restored from a backup, or [`LOSS_CONFIRMED`]. `*` stands for campaigns that the
/// backup does not hold.
pub const FORGOTTEN_SENDS: &str = "forgotten_sends:";

/// The user has confirmed that a campaign may go on although sends of it were lost.
pub const LOSS_CONFIRMED: &str = "told";
