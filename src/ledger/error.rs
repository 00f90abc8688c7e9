//! Errors of the ledger.

use std::error::Error;
use std::path::Path;

use super::key::KEY_VARIABLE;
use super::location::LocationError;

type BoxError = Box<dyn Error + Send + Sync>;

/// Why the ledger cannot do what it was asked to do.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another applier holds the lease.
    #[error("the ledger is held by {holder}")]
    Held {
        /// The process that holds it, and since when.
        holder: String,
    },
    /// Another applier fenced this run off, or another process wrote to a ledger that allows one writer.
    /// The run must stop before anything else happens.
    #[error("this run was fenced off: {0}")]
    Fenced(&'static str),
    /// A part of this program that works for the ledger failed. This is a defect of ours.
    #[error("internal error: {0}")]
    Internal(&'static str),
    /// The ledger was created with another key, so the send keys at hand match nobody in it.
    #[error("the ledger was created with another key (its fingerprint is {ledger}; the given key's is {given})")]
    WrongKey {
        /// The fingerprint of the ledger's key.
        ledger: String,
        /// The fingerprint of the given key.
        given: String,
    },
    /// A newer version of this program wrote the ledger.
    #[error("the ledger has format {found}; this version supports formats up to {known}")]
    Newer {
        /// The ledger's format.
        found: i64,
        /// The newest format that this version supports.
        known: i64,
    },
    /// A row holds a value that this version does not know.
    #[error("the ledger `{place}` cannot be read: {value}")]
    UnknownValue {
        /// The file or the database.
        place: String,
        /// The value.
        #[source]
        value: UnknownValue,
    },
    /// The file is not a ledger.
    #[error("`{0}` is not a Sendform ledger")]
    NotALedger(String),
    /// The disk or the database reports an error.
    #[error("the ledger `{place}` cannot be {action}: {problem}")]
    Storage {
        /// The file or the database.
        place: String,
        /// The action that failed, such as `read` or `written`.
        action: &'static str,
        /// The problem, in words.
        problem: String,
        /// The error itself, if there is one.
        #[source]
        source: Option<BoxError>,
    },
    /// The connection broke, or the database asks to try again. The same call may be tried again.
    #[error("the ledger `{place}` does not answer: {problem}")]
    Lost {
        /// The database.
        place: String,
        /// The problem, in words.
        problem: String,
        /// The error itself, if there is one.
        #[source]
        source: Option<BoxError>,
    },
    /// A commit would not survive a crash of the database's server.
    #[error("the ledger `{place}` does not keep what it commits: {problem}")]
    NotDurable {
        /// The database.
        place: String,
        /// The setting, and its consequence.
        problem: String,
    },
    /// Something was written to the ledger after the plan was made, so the plan may be out of date.
    #[error("the ledger was written to after the plan was made")]
    Outdated,
    /// The ledger exists and must not be used: it has lost sends, or is not the ledger that it seems to be.
    #[error("{problem}")]
    Refused {
        /// What is wrong.
        problem: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// Ledgers of this kind cannot do this.
    #[error("{problem}")]
    Unsupported {
        /// What was asked, and of which ledger.
        problem: String,
        /// What the user can do instead.
        hint: &'static str,
    },
    /// The text does not name a ledger.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// A shared ledger's key was not given.
    #[error("a ledger in a database needs its key in `{KEY_VARIABLE}`")]
    KeyNotGiven,
    /// The ledger's key is missing, damaged or cannot be written.
    #[error("the ledger's key {problem}")]
    Key {
        /// What is wrong with it.
        problem: String,
        /// The error itself, if there is one.
        #[source]
        source: Option<BoxError>,
    },
}

/// A value in a row that this version does not know: a newer version wrote it, or the row is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the column `{column}` holds `{value}`, which this version does not know")]
pub struct UnknownValue {
    /// The column.
    pub column: &'static str,
    /// What it holds.
    pub value: String,
}

impl UnknownValue {
    pub(super) fn new(column: &'static str, value: impl ToString) -> Self {
        Self { column, value: value.to_string() }
    }
}

impl LedgerError {
    /// A storage error without an underlying error.
    pub fn storage(place: impl Into<String>, action: &'static str, problem: impl Into<String>) -> Self {
        Self::Storage { place: place.into(), action, problem: problem.into(), source: None }
    }

    /// The ledger does not answer; there is no underlying error.
    pub fn lost(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Lost { place: place.into(), problem: problem.into(), source: None }
    }

    pub(super) fn io(path: &Path, action: &'static str, error: std::io::Error) -> Self {
        Self::Storage {
            place: path.display().to_string(),
            action,
            problem: error.to_string(),
            source: Some(Box::new(error)),
        }
    }

    pub(super) fn refused(problem: String, hint: &'static str) -> Self {
        Self::Refused { problem, hint }
    }

    pub(super) fn no_ledger(place: impl Into<String>) -> Self {
        Self::storage(place, "opened", "there is no ledger")
    }

    pub(super) fn key(problem: impl Into<String>) -> Self {
        Self::Key { problem: problem.into(), source: None }
    }

    pub(super) fn key_io(problem: String, error: std::io::Error) -> Self {
        Self::Key { problem: format!("{problem}: {error}"), source: Some(Box::new(error)) }
    }
}
