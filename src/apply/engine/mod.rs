//! The engine: a state machine, and the driver that carries out what it decides.
//!
//! [`state`] holds everything that a run knows. Inputs go in (a reply, a commit's result, the time), and
//! actions come out (commit this batch, start this request, wait until then). One synchronous method,
//! [`state::State::handle`], changes the state. [`driver`] is the only asynchronous part: it waits for the
//! next input and carries out the actions. What the state is made of has files of its own: the queue
//! ([`intake`]), commits and their repetition ([`committer`]), pauses ([`backoff`]), files under way
//! ([`uploads`]), and what the run remembers ([`recent`], [`recent_ids`]).

mod backoff;
mod committer;
mod driver;
mod intake;
mod next_round;
mod outcomes;
mod recent;
mod recent_ids;
mod recording;
mod state;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

pub use self::driver::Engine;
pub use self::next_round::NextRound;
pub use self::recent::LostOutcome;
use super::{Event, Progress, ShutdownRequest};
use crate::domain::campaign::Delivery;
use crate::domain::clock::Clock;
use crate::gateway::Gateway;
use crate::ledger::{MAX_SENDER_PAUSE, RunLedger};
use crate::plan::{Approved, Desired};

/// How often one send is attempted, if each attempt provably sent nothing.
const MAX_TRIES: u32 = 8;

/// The same while nothing was accepted and the provider was not reached: its address may be wrong.
const MAX_FIRST_TRIES: u32 = 4;

/// The first pause after a failed connection or a 429; each further one in a row is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause that the engine chooses itself.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The longest `Retry-After` of a provider that the engine follows.
const MAX_RETRY_AFTER: Duration = MAX_SENDER_PAUSE;

/// A pause that is shorter is not reported.
const MIN_REPORTED_PAUSE: Duration = Duration::from_secs(2);

/// How long the engine waits for a ledger that does not answer.
const LEDGER_PATIENCE: Duration = Duration::from_secs(600);

/// The same once the run is asked to stop, or has failed otherwise.
const FINAL_PATIENCE: Duration = Duration::from_secs(2);

/// What an engine works with.
pub struct Setup {
    /// The record of the run, with the lease held.
    pub ledger: Box<dyn RunLedger>,
    /// The provider.
    pub gateway: Arc<dyn Gateway>,
    /// How fast messages leave, and when the run stops by itself.
    pub delivery: Delivery,
    /// What was approved: nothing else is sent.
    pub approved: Arc<Approved>,
    /// The last instant at which a message may leave.
    pub leave_by: Option<Timestamp>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether the user asks to stop.
    pub shutdown: watch::Receiver<ShutdownRequest>,
    /// Receives what happens.
    pub events: mpsc::UnboundedSender<Event>,
    /// Receives the figures.
    pub figures: watch::Sender<Progress>,
}

/// A message that waits for its turn, or is being sent.
#[derive(Debug)]
struct QueuedSend {
    desired: Box<Desired>,
    attempt: u32,
    /// How many attempts of this run provably sent nothing.
    tries: u32,
}
