//! Exit codes.

use std::process::ExitCode;

/// How the program ends. Frozen: pipelines rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// An error; nothing was sent.
    Error = 1,
    /// `plan --detailed-exitcode` found something to send.
    PlanHasSends = 2,
    /// The input is invalid.
    Invalid = 3,
    /// The provider refuses the account; the run was stopped.
    Account = 4,
    /// Partly done; safe to run again.
    Partial = 5,
    /// Stopped by a limit.
    Limit = 6,
    /// There are sends with an unknown outcome.
    Unknown = 7,
    /// Another process holds the ledger.
    Held = 8,
    /// The plan is not the one that was approved.
    PlanMismatch = 9,
    /// The command line is wrong.
    Usage = 64,
    /// Interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
