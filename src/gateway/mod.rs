//! Gateways: the code that speaks to one provider.
//!
//! The contract is one question with an honest answer: what became of this request? A gateway
//! starts at most one request per call and never tries again by itself. [`Reply::NotSent`] may
//! only be given when it is *proven* that the provider did not take the message.

pub mod kaleyra;
pub mod redact;

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::expiry::ExpiresAt;
use crate::domain::message::Message;
use crate::domain::phone::E164;
use crate::ledger::Lease;

/// One request: a message to one recipient, or the same message to several.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Whom it goes to; at least one.
    pub to: Vec<E164>,
    /// What they get.
    pub message: &'a Message,
    /// When the offer ends, fixed by the intent.
    pub expires: Option<ExpiresAt>,
    /// The send key, if the request carries one send alone.
    pub reference: Option<String>,
    /// Bytes of it may leave only while this holds. `None`: as long as this process lives.
    pub lease: Option<Lease>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The provider took a decision, or may have: one outcome for each recipient, in order.
    Settled(Vec<Outcome>),
    /// Provably nothing was sent.
    NotSent(NotSent),
    /// The provider refuses the account, and what became of this request is not certain.
    Refused {
        /// One outcome for each recipient, in order.
        outcomes: Vec<Outcome>,
        /// The provider's words.
        reason: String,
    },
}

/// What became of one send. Recorded, and final but for evidence that settles an `unknown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it, under this id.
    Accepted {
        /// The provider's id of the message to this recipient.
        message_id: String,
    },
    /// The provider refused it: provably not sent.
    Rejected {
        /// In the provider's words.
        reason: String,
    },
    /// It cannot be told.
    Unknown {
        /// What happened instead of an answer.
        reason: String,
    },
}

/// Why provably nothing was sent, by what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSent {
    /// The provider asks to slow down. Try again later.
    Throttled {
        /// The provider's words.
        reason: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// No connection could be made. Try again later.
    Unreachable {
        /// What failed.
        reason: String,
    },
    /// The provider refuses the account, or every request of this form, so that every further one
    /// would fail as well.
    Account {
        /// The provider's words.
        reason: String,
    },
    /// The request could not be built: the offer has ended.
    Expired {
        /// When it ended.
        reason: String,
    },
}

impl NotSent {
    /// What happened, in words.
    pub fn reason(&self) -> &str {
        match self {
            NotSent::Throttled { reason, .. }
            | NotSent::Unreachable { reason }
            | NotSent::Account { reason }
            | NotSent::Expired { reason } => reason,
        }
    }
}

/// A provider.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// Starts at most one request and tells what became of it.
    async fn send(&self, request: Request<'_>) -> Reply;

    /// How many bytes of files may be under way together now. The caller keeps to it; one request
    /// with a file may always be under way.
    fn upload_budget(&self) -> u64 {
        u64::MAX
    }

    /// Something that the user should know about this provider; told once.
    fn take_notice(&self) -> Option<String> {
        None
    }
}
