//! Gateways: the code that speaks to one provider.
//!
//! The contract is one question with an honest answer: what became of this request? A gateway
//! starts at most one request per call and never tries again by itself. [`Reply::NotSent`] may
//! only be given when it is *proven* that the provider did not take the message.

pub mod kaleyra;
pub mod redact;

use async_trait::async_trait;

use crate::domain::expiry::ExpiresAt;
use crate::domain::message::Message;
use crate::domain::phone::E164;
pub use crate::domain::send::{NotSent, Outcome};
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
