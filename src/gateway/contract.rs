//! What the engine asks of a provider.

use async_trait::async_trait;

use crate::domain::expiry::ExpiresAt;
use crate::domain::lease::Lease;
use crate::domain::message::Message;
use crate::domain::phone::E164;
use crate::domain::send::{NotSent, Outcome};

/// One request: a message to one recipient, or the same message to several.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The recipients; at least one.
    pub to: Vec<E164>,
    /// The message.
    pub message: &'a Message,
    /// When the offer ends, as the intent fixed it.
    pub expires: Option<ExpiresAt>,
    /// The send key, if the request is for one recipient.
    pub reference: Option<String>,
    /// Bytes of the request may leave only while the run holds this lease. `None`: as long as this process lives.
    pub lease: Option<Lease>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The provider took a decision, or may have: one outcome for each recipient, in order.
    Settled(Vec<Outcome>),
    /// Provably nothing was sent.
    NotSent(NotSent),
    /// The provider refuses the account, and it is uncertain what became of this request.
    Refused {
        /// One outcome for each recipient, in order.
        outcomes: Vec<Outcome>,
        /// The provider's explanation.
        reason: String,
    },
}

/// A provider.
///
/// A gateway starts at most one request per call and never repeats it. It may return [`Reply::NotSent`] only if it is
/// *proven* that the provider did not take the message.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// Starts at most one request and returns what became of it.
    async fn send(&self, request: Request<'_>) -> Reply;

    /// How many bytes of files may be in flight together now. The caller respects it; one request with a file is
    /// always allowed.
    fn upload_budget(&self) -> u64 {
        u64::MAX
    }

    /// A notice for the user about this provider. Each notice is returned once.
    fn take_notice(&self) -> Option<String> {
        None
    }
}
