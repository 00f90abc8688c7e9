//! The one place that prints.

use std::io::{IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};

use super::args::Colour;
use super::error::{CommandError, Kind};
use super::exit::Exit;
use super::output::diagnostics;
use crate::domain::diagnostic::Diagnostic;
use crate::ledger::location;

/// Standard output for data, standard error for everything else.
pub(super) struct Ui {
    choice: ColorChoice,
    verbose: u8,
}

impl Ui {
    /// With the user's choice of colour, and as much log as asked for.
    pub(super) fn new(colour: Colour, verbose: u8) -> Self {
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

    /// Tells something.
    pub(super) fn say(&self, text: &str) {
        let mut out = AutoStream::new(std::io::stderr(), self.choice);
        let _ = writeln!(out, "{text}");
    }

    /// Tells what is wrong.
    pub(super) fn problems(&self, problems: &[Diagnostic]) {
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

    /// Whether somebody sits in front of it.
    pub(super) fn is_terminal(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// Asks whether to send. `None` if there is nobody to ask.
    pub(super) fn confirm(&self, question: &str) -> Option<bool> {
        self.confirm_that(question, "sends")
    }

    /// Asks, and takes `yes` for yes. `effect` says what a yes does. `None` if there is nobody to ask.
    pub(super) fn confirm_that(&self, question: &str, effect: &str) -> Option<bool> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        let mut out = AutoStream::new(std::io::stderr(), self.choice);
        let _ = write!(out, "{question} Only `yes` {effect}: ").and_then(|()| out.flush());
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).ok()?;
        Some(answer.trim() == "yes")
    }
}
