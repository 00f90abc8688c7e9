//! The end of a run: written down, told, and turned into an exit code.

use std::path::{Path, PathBuf};

use super::count;
use crate::apply::{Ending, Progress};
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::ui::Ui;
use crate::domain::diagnostic::Code;
use crate::ledger::location::{DatabaseUrl, redact};
use crate::ledger::{RunCounts, RunLedger};
use crate::util::human::{self, grouped};

/// A command of this program, for a shell. Passwords of URLs are left out.
fn command(arguments: impl IntoIterator<Item = String>) -> String {
    let mut command = "sendform".to_owned();
    for argument in arguments {
        let (option, value) = match argument.split_once('=') {
            Some(("--ledger", value)) => ("--ledger=", value),
            _ => ("", argument.as_str()),
        };
        let argument = match DatabaseUrl::parse(value) {
            Ok(url) => format!("{option}{}", url.without_password()),
            Err(_) => redact(&argument),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@+,%".contains(&byte);
        command.push(' ');
        if !argument.is_empty() && argument.bytes().all(plain) {
            command.push_str(&argument);
        } else {
            command.push_str(&format!("'{}'", argument.replace('\'', r"'\''")));
        }
    }
    command
}

/// The option that names the ledger, as it was typed.
fn ledger_option(mut arguments: impl Iterator<Item = String>) -> Vec<String> {
    match arguments.find(|argument| argument == "--ledger" || argument.starts_with("--ledger=")) {
        Some(option) if option == "--ledger" => [option].into_iter().chain(arguments.next()).collect(),
        option => option.into_iter().collect(),
    }
}

pub(super) struct Report<'a> {
    pub(super) ui: &'a Ui,
    pub(super) manifest: &'a Path,
    pub(super) sandbox: bool,
    pub(super) done: Progress,
    pub(super) elapsed: std::time::Duration,
    pub(super) planned: u64,
    /// How many sends of the campaign are in doubt, earlier ones and those of others included.
    pub(super) unknown: u64,
    /// Whether other appliers may have worked on the same plan.
    pub(super) shared: bool,
    /// How many outcomes the record could not take.
    pub(super) not_taken: u64,
    /// Outcomes that the ledger has forgotten: the file that they are kept in, or its text.
    pub(super) forgotten: Option<Result<PathBuf, String>>,
}

impl Report<'_> {
    /// Writes down how the run ended, and says it.
    pub(super) async fn close(self, ending: &Ending, run: Box<dyn RunLedger>) -> Result<Exit, CommandError> {
        let done = self.done;
        let own = done.accepted + done.rejected + done.unknown;
        let left = self.planned.saturating_sub(own);
        // A shared run that came to its end has seen that nobody is left: the others have the rest.
        let others = if self.shared && *ending == Ending::Finished { left - done.not_sent.min(left) } else { 0 };
        let pending = left - others;
        let unknown = self.unknown;
        let word = match ending {
            Ending::Finished if pending == 0 && unknown == 0 && done.rejected == 0 && self.not_taken == 0 => "complete",
            Ending::Finished => "partial",
            Ending::Interrupted => "interrupted",
            _ => "stopped",
        };
        let id = run.id();
        let counts = RunCounts {
            accepted: done.accepted,
            rejected: done.rejected,
            unknown: done.unknown,
            not_sent: done.attempts_not_sent,
        };
        let finished = run.finish(word, counts).await;
        let seconds = self.elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { own as f64 / seconds } else { 0.0 };
        self.ui.say(&format!(
            "\nRun {id} {word}: {} of {} accepted in {seconds:.1} s, {rate:.0}/s",
            grouped(done.accepted),
            count(self.planned)
        ));
        let figures = [("rejected", done.rejected), ("unknown", unknown), ("pending", pending), ("by others", others)];
        for (name, number) in figures.into_iter().filter(|(_, number)| *number > 0) {
            self.ui.say(&format!("  {name:<15}{:>11}", grouped(number)));
        }
        if let Ok(head) = &finished {
            self.ui.say(&format!("Ledger head {head}"));
        }
        if unknown > 0 {
            self.ui.say(&format!("Unknown sends may have arrived, so they are never sent again by themselves. `{}` lists them with their rows; `sendform resolve` settles them.", self.list_unknown()));
        }
        match &self.forgotten {
            None => {}
            Some(Ok(path)) => self.ui.say(&format!("Outcomes that the ledger has lost: {}", path.display())),
            Some(Err(text)) => {
                self.ui.say(&format!("Outcomes that the ledger has lost; keep this as a file:\n\n{text}"))
            }
        }
        if pending > 0 && self.forgotten.is_none() && *ending != Ending::Forgotten {
            self.ui.say("Run the same command again to send what is left; nobody gets it twice:");
            self.ui.say(&format!("  {}", command(std::env::args().skip(1))));
        }
        self.exit(ending, unknown, pending, finished.err().map(CommandError::from))
    }

    /// The command that lists the unknown sends, on the same ledger.
    fn list_unknown(&self) -> String {
        let ledger = if self.sandbox { vec!["--sandbox".to_owned()] } else { ledger_option(std::env::args().skip(1)) };
        let list = ["sends".to_owned(), "list".to_owned(), self.manifest.display().to_string()];
        command(list.into_iter().chain(["--state".to_owned(), "unknown".to_owned()]).chain(ledger))
    }

    fn exit(
        &self,
        ending: &Ending,
        unknown: u64,
        pending: u64,
        unfinished: Option<CommandError>,
    ) -> Result<Exit, CommandError> {
        let done = self.done;
        if self.forgotten.is_some() || *ending == Ending::Forgotten {
            return Err(self.has_forgotten());
        }
        if self.not_taken > 0 {
            return Err(self.was_overruled());
        }
        let nothing_sent = done.accepted + done.unknown + done.rejected == 0;
        let partly = || {
            if nothing_sent {
                Exit::Error
            } else if unknown > 0 {
                Exit::Unknown
            } else {
                Exit::Partial
            }
        };
        Err(match ending {
            Ending::Interrupted => return Ok(Exit::Interrupted),
            Ending::Finished => {
                if let Some(stop) = unfinished {
                    return Err(stop);
                }
                return Ok(if unknown > 0 {
                    Exit::Unknown
                } else if done.rejected > 0 || pending > 0 {
                    Exit::Partial
                } else {
                    Exit::Done
                });
            }
            Ending::Account(reason) => {
                CommandError::new(Exit::Account, Code::AccountRefused, format!("the provider refuses the account or the kind of request: {reason}"))
                    .hint("check the SID, the key, the balance, the IP addresses that the key may be used from, and `base_url`")
            }
            Ending::MixedAnswers(reason) => CommandError::new(Exit::Unknown, Code::MixedAnswers, format!("{reason}; nothing more was sent")).hint(
                "ask the provider, and whoever runs a proxy on the way; compare what this run recorded with the provider's report before the next one",
            ),
            Ending::Late(reason) => {
                CommandError::new(Exit::Limit, Code::ExpiryTooClose, reason.clone()).hint("raise `edition` with a later end to reach the rest")
            }
            Ending::TooManyUnknown(reason) => CommandError::new(Exit::Limit, Code::TooManyUnknown, reason.clone()).hint(format!(
                "`{}` shows the reason of each. Run the same command again once the cause is gone: it sends what is left. \
                 `delivery.stop_when.unknown` sets another bound; `100%` sets none",
                self.list_unknown()
            )),
            Ending::Limit(reason) => CommandError::new(Exit::Limit, Code::FailureLimit, reason.clone())
                .hint("`sendform sends list` tells what happened; run it again once the cause is gone"),
            Ending::Hopeless(reason) => CommandError::new(if unknown > 0 { Exit::Unknown } else { Exit::Limit }, Code::TooManyFailures,
                reason.clone(),
            )
            .hint(
                "compare the template, the parameters and the address with the provider's console before the next try",
            ),
            Ending::Unreachable(reason) => {
                CommandError::new(partly(), Code::ProviderUnreachable, format!("the provider cannot be reached, or takes nothing more: {reason}"))
            }
            Ending::Ledger(problem) => CommandError::new(partly(), Code::LedgerUnreachable, format!("{problem}; nothing more was sent")),
            Ending::Fenced(problem) => CommandError::new(Exit::Held, Code::LedgerFenced, format!("{problem}; nothing more was sent"))
                .hint("run it again: it sends what is left, and nobody gets it twice"),
            Ending::Changed => CommandError::new(partly(), Code::InputsChanged,
                "the campaign's files changed while it was sent; what was not approved was not sent",
            ),
            Ending::Forgotten => self.has_forgotten(),
            Ending::Outdated => CommandError::new(if nothing_sent { Exit::PlanMismatch } else { partly() }, Code::CodeTaken,
                "a code of the plan went to somebody else since the plan was made; nothing more was sent",
            )
            .hint("another campaign shares the pool; make a new plan"),
        })
    }
}

impl Report<'_> {
    fn has_forgotten(&self) -> CommandError {
        let stop = CommandError::new(
            Exit::Unknown,
            Code::OutcomesLost,
            "the ledger has lost sends of this run that it had called durable, as after a failover to a standby; nothing more was sent",
        );
        match &self.forgotten {
            Some(Ok(path)) => stop.hint(format!(
                "the next `apply` would send to these people again: first run `sendform resolve --file {}`",
                path.display()
            )),
            Some(Err(_)) => stop.hint(
                "the next `apply` would send to these people again: keep the outcomes above as a file, and run `sendform resolve --file FILE` first",
            ),
            None => stop.hint("compare the ledger with the provider's report before the next `apply`"),
        }
    }

    fn was_overruled(&self) -> CommandError {
        CommandError::new(
            Exit::Held,
            Code::OutcomesNotRecorded,
            format!(
                "{} of this run could not be recorded: somebody had settled {} otherwise before the answer came",
                human::count(usize::try_from(self.not_taken).unwrap_or(usize::MAX), "outcome"),
                if self.not_taken == 1 { "that send" } else { "those sends" },
            ),
        )
        .hint("`sendform status` lists what contradicts the record; nothing is sent again because of it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_as_it_can_be_typed_without_its_password() {
        let told = |arguments: &[&str]| command(arguments.iter().map(|argument| (*argument).to_owned()));
        assert_eq!(
            told(&["apply", "my offer.yaml", "--ledger", "postgres://me:secret@db/offers", "--var", "who=it's"]),
            r"sendform apply 'my offer.yaml' --ledger postgres://me@db/offers --var 'who=it'\''s'"
        );
        assert_eq!(
            told(&["apply", "--ledger=postgres://db/offers?user=me&password=secret&sslmode=disable"]),
            "sendform apply '--ledger=postgres://db/offers?user=me&sslmode=disable'"
        );
        assert_eq!(told(&["--ledger=postgres://me:se?cr@et@db/offers"]), "sendform --ledger=postgres://me@db/offers");
    }
}
