//! Why a command ends early.
//!
//! Each layer has narrow errors of its own; they become a [`CommandError`] once, here. It knows what the
//! user sees (diagnostics with a code and a hint), how the program exits, and the errors that caused it,
//! which `-v` shows.

use std::error::Error;
use std::io;

use super::exit::Exit;
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::ledger::LedgerError;
use crate::plan::PlanError;

/// What a [`CommandError`] means for the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The command failed for a reason that the user can act on.
    Failed,
    /// The reader of standard output closed the pipe: it has seen enough. Nothing is printed.
    BrokenPipe,
    /// This program has a bug.
    Internal,
}

/// Why a command ends early.
#[derive(Debug)]
pub(super) struct CommandError {
    kind: Kind,
    exit: Exit,
    problems: Vec<Diagnostic>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CommandError {
    /// A failure with one message. `exit` is how the program ends.
    pub(super) fn new(exit: Exit, code: Code, message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, exit, problems: vec![Diagnostic::error(code, message)], source: None }
    }

    /// The command line is wrong.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, Code::Usage, message)
    }

    /// A bug in this program: something happened that cannot happen.
    pub(super) fn internal(message: impl std::fmt::Display) -> Self {
        let problem = Diagnostic::error(Code::Internal, format!("this is a bug in sendform: {message}"))
            .hint("run it again with `-v` and report what it prints; `apply` never sends a recorded message twice");
        Self { kind: Kind::Internal, exit: Exit::Error, problems: vec![problem], source: None }
    }

    /// Standard output cannot be written to.
    pub(super) fn output(error: io::Error) -> Self {
        let (kind, exit) = match error.kind() {
            io::ErrorKind::BrokenPipe => (Kind::BrokenPipe, Exit::Done),
            _ => (Kind::Failed, Exit::Error),
        };
        let problem = Diagnostic::error(Code::CannotWrite, format!("cannot write to standard output: {error}"));
        Self { kind, exit, problems: vec![problem], source: Some(Box::new(error)) }
    }

    /// Ends the program in another way.
    #[must_use]
    pub(super) fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(last) = self.problems.pop() {
            self.problems.push(last.hint(hint));
        }
        self
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub(super) fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What it means for the process.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// How the program ends.
    pub(super) fn exit(&self) -> Exit {
        self.exit
    }

    /// What the user sees.
    pub(super) fn problems(&self) -> &[Diagnostic] {
        &self.problems
    }

    /// The errors that caused this one, the nearest first, without those that only repeat the message.
    pub(super) fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> = Vec::new();
        let mut next = self.source.as_deref().map(|error| error as &dyn Error);
        while let Some(error) = next {
            let text = error.to_string();
            let repeats = match causes.last() {
                Some(last) => *last == text,
                None => self.problems.iter().any(|problem| problem.message == text),
            };
            if !repeats {
                causes.push(text);
            }
            next = error.source();
        }
        causes
    }
}

impl From<Diagnostics> for CommandError {
    fn from(diagnostics: Diagnostics) -> Self {
        Self { kind: Kind::Failed, exit: Exit::Invalid, problems: diagnostics.0, source: None }
    }
}

impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(format_args!("the output cannot be written as JSON: {error}")).source(error)
    }
}

impl From<PlanError> for CommandError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Input(diagnostics) => diagnostics.into(),
            PlanError::Json(error) => error.into(),
            PlanError::Limit(message) => {
                Self::new(Exit::Limit, Code::SendLimit, message).hint("raise the limit in the manifest, in review")
            }
        }
    }
}

impl From<LedgerError> for CommandError {
    fn from(error: LedgerError) -> Self {
        let (exit, code, hint) = match &error {
            LedgerError::Internal(what) => return Self::internal(what),
            LedgerError::Held { .. } => (
                Exit::Held,
                Code::LedgerHeld,
                "wait until that run ends; its lease ends with its process or with its heartbeat",
            ),
            LedgerError::Fenced(_) => {
                (Exit::Held, Code::LedgerFenced, "run the command again; no recorded message is sent twice")
            }
            LedgerError::Lost { .. } => (
                Exit::Error,
                Code::LedgerUnreachable,
                "nothing is sent without the ledger; run the command again when the database answers",
            ),
            LedgerError::Newer { .. } | LedgerError::UnknownValue { .. } => {
                (Exit::Error, Code::LedgerTooNew, "use the newer version of sendform that wrote the ledger")
            }
            LedgerError::WrongKey { .. } => (
                Exit::Error,
                Code::WrongLedgerKey,
                "use the key that the ledger was created with; with another key the ledger recognises no recipient",
            ),
            LedgerError::NotALedger(_) => {
                (Exit::Error, Code::NotALedger, "name another file with `--ledger sqlite:PATH`")
            }
            LedgerError::Storage { .. } => (
                Exit::Error,
                Code::LedgerStorage,
                "the ledger must be on a disk that can be written to; nothing is sent without it",
            ),
            LedgerError::NotDurable { .. } => (
                Exit::Error,
                Code::LedgerNotDurable,
                "set `fsync = on` in the server's configuration; nothing was sent",
            ),
            LedgerError::Outdated => {
                (Exit::Held, Code::LedgerChanged, "run the command again: it plans with what is recorded now")
            }
            LedgerError::Refused { hint, .. } => (Exit::Error, Code::LedgerRefused, *hint),
            LedgerError::Unsupported { hint, .. } => (Exit::Usage, Code::IsADatabase, *hint),
            LedgerError::KeyNotGiven => (
                Exit::Error,
                Code::LedgerKeyMissing,
                "all appliers need the same 64 hexadecimal digits, for as long as the ledger lives; create them once with `openssl rand -hex 32`",
            ),
            LedgerError::Key { .. } => (Exit::Error, Code::InvalidLedgerKey, ""),
            LedgerError::Location(_) => (Exit::Error, Code::InvalidLedgerUrl, ""),
        };
        let command_error = Self::new(exit, code, error.to_string());
        if hint.is_empty() { command_error.source(error) } else { command_error.hint(hint).source(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        #[source]
        below: Option<Box<Layer>>,
    }

    #[test]
    fn the_chain_of_causes_goes_to_the_bottom_and_repeats_nothing() {
        let bottom = Layer { text: "the disk is full", below: None };
        let middle = Layer { text: "cannot write `ledger.db`", below: Some(Box::new(bottom)) };
        let top = Layer { text: "the ledger fails", below: Some(Box::new(middle)) };
        let error = CommandError::new(Exit::Error, Code::LedgerStorage, top.to_string()).source(top);
        assert_eq!(error.causes(), ["cannot write `ledger.db`", "the disk is full"]);
    }

    #[test]
    fn only_a_closed_pipe_is_silent() {
        let closed = CommandError::output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((closed.kind(), closed.exit()), (Kind::BrokenPipe, Exit::Done));
        let full = CommandError::output(io::ErrorKind::StorageFull.into());
        assert_eq!((full.kind(), full.exit()), (Kind::Failed, Exit::Error));
        let bug = CommandError::internal("a thread panicked");
        assert_eq!((bug.kind(), bug.exit()), (Kind::Internal, Exit::Error));
    }
}
