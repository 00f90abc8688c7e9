//! The end of a run: shown, and turned into an exit code.

use std::path::{Path, PathBuf};

use super::count;
use crate::apply::{Progress, RunEnding, RunSummary};
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::ui::Ui;
use crate::domain::diagnostic::{Code, Diagnostics};
use crate::ledger::location::{DatabaseUrl, redact};
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
    pub(super) summary: RunSummary,
    /// Outcomes that the ledger has lost: the file that they are kept in, or its text.
    pub(super) lost: Option<Result<PathBuf, String>>,
}

impl Report<'_> {
    /// Shows how the run ended, and turns it into an exit code.
    pub(super) fn close(self) -> Result<Exit, CommandError> {
        let summary = &self.summary;
        let done = summary.progress;
        if nothing_began(&summary.ending) && done == Progress::default() {
            return self.exit();
        }
        let own = done.accepted + done.rejected + done.unknown;
        let seconds = summary.elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { own as f64 / seconds } else { 0.0 };
        self.ui.say(&format!(
            "\nRun {} {}: {} of {} accepted in {seconds:.1} s, {rate:.0}/s",
            summary.run,
            summary.result.recorded().as_str(),
            grouped(done.accepted),
            count(summary.planned)
        ));
        let figures = [
            ("rejected", done.rejected),
            ("unknown", summary.unknown),
            ("pending", summary.pending),
            ("by others", summary.by_others),
        ];
        for (name, number) in figures.into_iter().filter(|(_, number)| *number > 0) {
            self.ui.say(&format!("  {name:<15}{:>11}", grouped(number)));
        }
        if let Ok(head) = &summary.sealed {
            self.ui.say(&format!("Ledger head {head}"));
        }
        if summary.unknown > 0 {
            self.ui.say(&format!("Unknown sends may have arrived, so they are never sent again by themselves. `{}` lists them with their rows; `sendform resolve` settles them.", self.list_unknown()));
        }
        match &self.lost {
            None => {}
            Some(Ok(path)) => self.ui.say(&format!("Outcomes that the ledger has lost: {}", path.display())),
            Some(Err(text)) => {
                self.ui.say(&format!("Outcomes that the ledger has lost; keep this as a file:\n\n{text}"))
            }
        }
        if summary.pending > 0 && self.lost.is_none() && summary.ending != RunEnding::LedgerLostSends {
            self.ui.say("Run the same command again to send what is left; nobody gets it twice:");
            self.ui.say(&format!("  {}", command(std::env::args().skip(1))));
        }
        self.exit()
    }

    /// The command that lists the unknown sends, on the same ledger.
    fn list_unknown(&self) -> String {
        let ledger = if self.sandbox { vec!["--sandbox".to_owned()] } else { ledger_option(std::env::args().skip(1)) };
        let list = ["sends".to_owned(), "list".to_owned(), self.manifest.display().to_string()];
        command(list.into_iter().chain(["--state".to_owned(), "unknown".to_owned()]).chain(ledger))
    }

    fn exit(self) -> Result<Exit, CommandError> {
        let summary = &self.summary;
        let (done, unknown) = (summary.progress, summary.unknown);
        if self.lost.is_some() || summary.ending == RunEnding::LedgerLostSends {
            return Err(self.has_forgotten());
        }
        if summary.overruled > 0 {
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
        Err(match summary.ending.clone() {
            RunEnding::Interrupted => return Ok(Exit::Interrupted),
            RunEnding::Finished => {
                if let Err(error) = self.summary.sealed {
                    return Err(error.into());
                }
                return Ok(if unknown > 0 {
                    Exit::Unknown
                } else if done.rejected > 0 || summary.pending > 0 {
                    Exit::Partial
                } else {
                    Exit::Done
                });
            }
            RunEnding::AccountRefused(reason) => {
                CommandError::new(Exit::Account, Code::AccountRefused, format!("the provider refuses the account or the kind of request: {reason}"))
                    .hint("check the SID, the key, the balance, the IP addresses that the key may be used from, and `base_url`")
            }
            RunEnding::MixedAnswers(reason) => CommandError::new(Exit::Unknown, Code::MixedAnswers, format!("{reason}; nothing more was sent")).hint(
                "ask the provider, and the operator of any proxy on the way; compare what this run recorded with the provider's report before the next one",
            ),
            RunEnding::ExpiryTooClose(reason) => {
                CommandError::new(Exit::Limit, Code::ExpiryTooClose, reason).hint("raise `edition` with a later end to reach the rest")
            }
            RunEnding::TooManyUnknown(reason) => CommandError::new(Exit::Limit, Code::TooManyUnknown, reason).hint(format!(
                "`{}` shows the reason of each. Run the same command again once the cause is gone: it sends what is left. \
                 `delivery.stop_when.unknown` sets another bound; `100%` sets none",
                self.list_unknown()
            )),
            RunEnding::LimitReached(reason) => CommandError::new(Exit::Limit, Code::FailureLimit, reason)
                .hint("`sendform sends list` shows the reason of each send; run it again once the cause is gone"),
            RunEnding::TooManyFailures(reason) => CommandError::new(if unknown > 0 { Exit::Unknown } else { Exit::Limit }, Code::TooManyFailures,
                reason,
            )
            .hint(
                "compare the template, the parameters and the address with the provider's console before the next try",
            ),
            RunEnding::Unreachable(reason) => {
                CommandError::new(partly(), Code::ProviderUnreachable, format!("the provider cannot be reached, or takes nothing more: {reason}"))
            }
            RunEnding::LedgerFailed(problem) => CommandError::new(partly(), Code::LedgerUnreachable, format!("{}; nothing more was sent", *problem)),
            RunEnding::Fenced(problem) => CommandError::new(Exit::Held, Code::LedgerFenced, format!("{}; nothing more was sent", *problem))
                .hint("run it again: it sends what is left, and nobody gets it twice"),
            RunEnding::InputsChanged => CommandError::new(partly(), Code::InputsChanged,
                "the campaign's files changed while it was sent; what was not approved was not sent",
            ),
            RunEnding::InputsUnreadable(diagnostics) => {
                let error = CommandError::from(Diagnostics(diagnostics.0.clone()));
                if nothing_sent { error } else { error.with_exit(partly()) }
            }
            RunEnding::LedgerLostSends => self.has_forgotten(),
            RunEnding::CodeTaken => CommandError::new(if nothing_sent { Exit::PlanMismatch } else { partly() }, Code::CodeTaken,
                "a code of the plan went to somebody else since the plan was made; nothing more was sent",
            )
            .hint("another campaign shares the pool; make a new plan"),
            RunEnding::PlanSuperseded => CommandError::new(Exit::PlanMismatch, Code::PlanMismatch,
                "another plan of this campaign was applied after this one was made; nothing was sent",
            )
            .hint("make a new plan"),
            RunEnding::Internal(problem) => {
                CommandError::internal(format_args!("{problem}; nothing more was sent")).with_exit(partly())
            }
        })
    }
}

/// Whether a run that ended so and did nothing is not worth a summary.
fn nothing_began(ending: &RunEnding) -> bool {
    matches!(ending, RunEnding::PlanSuperseded | RunEnding::InputsUnreadable(_))
}

impl Report<'_> {
    fn has_forgotten(&self) -> CommandError {
        let stop = CommandError::new(
            Exit::Unknown,
            Code::OutcomesLost,
            "the ledger has lost sends of this run that it had called durable, as after a failover to a standby; nothing more was sent",
        );
        match &self.lost {
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
                human::count(usize::try_from(self.summary.overruled).unwrap_or(usize::MAX), "outcome"),
                if self.summary.overruled == 1 { "that send" } else { "those sends" },
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
