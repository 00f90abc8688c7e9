//! How a run ends.

use std::fmt;
use std::sync::Arc;

use crate::domain::diagnostic::Diagnostics;
use crate::ledger::LedgerError;

/// Why a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEnding {
    /// Every message of the plan was handled.
    Finished,
    /// The user asked to stop.
    Interrupted,
    /// The provider refuses the account, or every request of this form.
    AccountRefused(String),
    /// The offer would end too soon after a message that leaves now.
    ExpiryTooClose(String),
    /// Nothing was accepted, again and again.
    TooManyFailures(String),
    /// Two messages had one id, so answers may have reached the wrong requests.
    MixedAnswers(String),
    /// Too many sends ended unknown.
    TooManyUnknown(String),
    /// A bound of `delivery.stop_when` was reached.
    LimitReached(String),
    /// The provider could not be reached, or asked to slow down, for too long.
    Unreachable(String),
    /// The ledger failed, so nothing more may be sent.
    LedgerFailed(Shared<LedgerError>),
    /// Another applier fenced this run off, so it is granted nothing more.
    Fenced(Shared<LedgerError>),
    /// The ledger has lost commits of this run that were durable.
    LedgerLostSends,
    /// The input files changed during the run: a message is not one of the approved plan's, or the
    /// files cannot be read a second time.
    InputsChanged,
    /// The input files of a round cannot be opened.
    InputsUnreadable(Shared<Diagnostics>),
    /// Since the plan was made, a code of it was given to a recipient of another campaign.
    CodeTaken,
    /// Another plan of the same campaign was applied after this one was made.
    PlanSuperseded,
    /// A part of this program failed. This is a defect of ours.
    Internal(String),
}

/// An error that several places hold. Two are equal if they say the same.
#[derive(Debug)]
pub struct Shared<E>(Arc<E>);

impl<E> Shared<E> {
    /// Shares an error.
    pub fn new(error: E) -> Self {
        Self(Arc::new(error))
    }

    /// The error itself, if nobody else holds it.
    pub fn into_inner(self) -> Result<E, Self> {
        Arc::try_unwrap(self.0).map_err(Self)
    }
}

impl<E> Clone for Shared<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> std::ops::Deref for Shared<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.0
    }
}

impl<E: fmt::Debug> PartialEq for Shared<E> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || format!("{:?}", self.0) == format!("{:?}", other.0)
    }
}

impl RunEnding {
    /// The ending that follows from an error of the ledger.
    pub(super) fn of_ledger(error: LedgerError) -> Self {
        match error {
            LedgerError::Fenced(_) => RunEnding::Fenced(Shared::new(error)),
            LedgerError::Internal(problem) => RunEnding::Internal(problem.to_owned()),
            _ => RunEnding::LedgerFailed(Shared::new(error)),
        }
    }
}

/// Why a run did not begin: nothing was sent, and nothing is recorded.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The ledger does not let the run begin.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}
