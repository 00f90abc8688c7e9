//! The one place that prints.

use std::io::{IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};

use super::Colour;
use crate::domain::diagnostic::Diagnostic;

/// Standard output for data, standard error for everything else.
pub struct Ui {
    choice: ColorChoice,
}

impl Ui {
    /// With the user's choice of colour, and as much log as asked for.
    pub fn new(colour: Colour, verbose: u8) -> Self {
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
        Self { choice }
    }

    /// Prints data. A reader that closes the pipe early ends it quietly.
    pub fn data(&self, text: &str) {
        let mut out = AutoStream::new(std::io::stdout(), self.choice);
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Tells something.
    pub fn say(&self, text: &str) {
        let mut out = AutoStream::new(std::io::stderr(), self.choice);
        let _ = writeln!(out, "{text}");
    }

    /// Tells what is wrong.
    pub fn problems(&self, problems: &[Diagnostic]) {
        for (position, problem) in problems.iter().enumerate() {
            if position > 0 {
                self.say("");
            }
            self.say(&problem.render(true));
        }
    }

    /// Whether somebody sits in front of it.
    pub fn is_terminal(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// Asks whether to send. `None` if there is nobody to ask.
    pub fn confirm(&self, question: &str) -> Option<bool> {
        self.confirm_that(question, "sends")
    }

    /// Asks, and takes `yes` for yes. `effect` says what a yes does. `None` if there is nobody to ask.
    pub fn confirm_that(&self, question: &str, effect: &str) -> Option<bool> {
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
