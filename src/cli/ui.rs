//! The one place that prints.

use std::io::{IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};

use super::args::Colour;
use super::error::{CommandError, Kind};
use super::exit::Exit;
use super::output::diagnostics;
use crate::domain::diagnostic::Diagnostic;
use crate::ledger::location;

/// An answer to a question that an interruption may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
    Interrupted,
}

/// Standard output for data, standard error for everything else.
pub(super) struct Ui {
    choice: ColorChoice,
    verbose: u8,
}

impl Ui {
    /// Uses colour as the user chose, and logs more with each `-v`.
    pub(crate) fn new(colour: Colour, verbose: u8) -> Self {
        let choice = match colour {
            Colour::Auto => ColorChoice::Auto,
            Colour::Always => ColorChoice::Always,
            Colour::Never => ColorChoice::Never,
        };
        if verbose > 0 {
            let level = if verbose > 1 { "debug" } else { "info" };
            let _ = tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::new(format!("warn,sendform={level}")))
                .with_writer(std::io::stderr)
                .with_ansi(false)
                // A terminal that has closed takes no more lines; to say so there would be a panic.
                .log_internal_errors(false)
                .try_init();
        }
        Self { choice, verbose }
    }

    /// Prints data on standard output. A reader that closes the pipe early has seen enough, and the command
    /// goes on; that nothing else can be written is an error.
    pub(super) fn data(&self, text: &str) -> Result<(), CommandError> {
        let mut out = AutoStream::new(std::io::stdout(), self.choice);
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CommandError::output) {
            Err(error) if error.kind() == Kind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    /// Prints a value as an indented JSON document.
    pub(super) fn json(&self, value: &impl serde::Serialize) -> Result<(), CommandError> {
        self.data(&format!("{}\n", serde_json::to_string_pretty(value)?))
    }

    /// Prints a message on standard error.
    pub(crate) fn say(&self, text: &str) {
        let mut out = AutoStream::new(std::io::stderr(), self.choice);
        let _ = writeln!(out, "{text}");
    }

    /// Prints diagnostics on standard error.
    pub(crate) fn problems(&self, problems: &[Diagnostic]) {
        for (position, problem) in problems.iter().enumerate() {
            if position > 0 {
                self.say("");
            }
            self.say(&diagnostics::text(problem, true));
        }
    }

    /// Prints why a command ends early, and returns how the program exits.
    pub(super) fn error(&self, error: &CommandError) -> Exit {
        if error.kind() != Kind::BrokenPipe {
            self.problems(error.problems());
            if self.verbose > 0 {
                error.causes().iter().for_each(|cause| self.say(&format!("  caused by: {cause}")));
            }
        }
        error.exit()
    }

    /// Prints what is wrong with the command line, or the help that it asks for.
    pub(super) fn usage(&self, error: &clap::Error) -> Exit {
        let text = error.render();
        // An argument in the wrong place may be a URL with a password.
        let redacted = location::redact(&text.to_string());
        let text = if redacted == text.to_string() { text.ansi().to_string() } else { redacted };
        if error.use_stderr() {
            self.say(text.trim_end());
            return Exit::Usage;
        }
        self.data(&text).map_or_else(|error| self.error(&error), |()| Exit::Done)
    }

    /// Whether standard error is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// Asks for confirmation; only `yes` confirms. `effect` says what a yes does. `None` if standard input is no
    /// terminal.
    pub(crate) fn confirm(&self, question: &str, effect: &str) -> Option<bool> {
        self.prompt(question, effect).then(|| answer().unwrap_or(false))
    }

    /// As [`Ui::confirm`], for when signals are caught: an interruption ends the question at once.
    pub(crate) async fn confirm_unless(
        &self,
        question: &str,
        effect: &str,
        interrupted: impl Future<Output = ()>,
    ) -> Option<Answer> {
        if !self.prompt(question, effect) {
            return None;
        }
        let (sender, answered) = tokio::sync::oneshot::channel();
        // Nothing ends a read from a terminal. The thread ends with the program.
        std::thread::spawn(move || sender.send(answer().unwrap_or(false)));
        Some(tokio::select! {
            () = interrupted => Answer::Interrupted,
            answer = answered => if answer == Ok(true) { Answer::Yes } else { Answer::No },
        })
    }

    /// Shows a question, if somebody can answer it.
    fn prompt(&self, question: &str, effect: &str) -> bool {
        if !std::io::stdin().is_terminal() {
            return false;
        }
        let mut out = AutoStream::new(std::io::stderr(), self.choice);
        let _ = write!(out, "{question} Only `yes` {effect}: ").and_then(|()| out.flush());
        true
    }
}

/// Reads a line of standard input: whether it is `yes`.
fn answer() -> std::io::Result<bool> {
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}
