//! The command line: arguments, one file for each command, exit codes.
//!
//! Data goes to standard output, everything else to standard error. Only [`ui`] prints.

mod commands;
mod context;
mod env;
mod located;
mod owner;
mod progress;
mod rows;
mod signals;
mod ui;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::domain::diagnostic::{Diagnostic, Diagnostics};
use crate::ledger::{LedgerError, location};
use crate::plan::PlanError;
use commands::{apply, init, ledger, plan, preview, resolve, sandbox, sends, status, validate};
use ui::Ui;

/// How the program ends. Frozen: pipelines rely on it.
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
    Partly = 5,
    /// Stopped by a limit.
    Limit = 6,
    /// There are sends whose outcome cannot be told.
    Unknown = 7,
    /// The ledger is held by another.
    Held = 8,
    /// The plan's hash differs.
    Differs = 9,
    /// The command line is wrong.
    Usage = 64,
    /// Interrupted.
    Interrupted = 130,
}

/// What stops a command: told in one place, in one style.
#[derive(Debug)]
pub struct Stop {
    pub(crate) exit: Exit,
    pub(crate) problems: Vec<Diagnostic>,
}

impl Stop {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, problems: vec![Diagnostic::error(code(exit), message)] }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(last) = self.problems.pop() {
            self.problems.push(last.hint(hint));
        }
        self
    }
}

fn code(exit: Exit) -> &'static str {
    match exit {
        Exit::Account => "account-refused",
        Exit::Limit => "limit",
        Exit::Unknown => "unknown-outcomes",
        Exit::Held => "ledger-held",
        Exit::Differs => "plan-differs",
        Exit::Usage => "usage",
        Exit::Invalid => "invalid",
        _ => "error",
    }
}

impl From<Diagnostics> for Stop {
    fn from(diagnostics: Diagnostics) -> Self {
        Self { exit: Exit::Invalid, problems: diagnostics.0 }
    }
}

impl From<PlanError> for Stop {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Input(diagnostics) => diagnostics.into(),
            PlanError::Limit(message) => {
                Stop::new(Exit::Limit, message).hint("raise the limit in the manifest, in review")
            }
        }
    }
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        let message = error.to_string();
        match error {
            LedgerError::Held { .. } => {
                Stop::new(Exit::Held, message).hint("wait for it to end; the lease goes with its process, or with its heartbeat")
            }
            LedgerError::Internal(_) => Stop::new(Exit::Error, message).hint("please report this"),
            LedgerError::Fenced(_) => Stop::new(Exit::Held, message).hint("run it again; nobody gets anything twice"),
            LedgerError::Lost { .. } => Stop::new(Exit::Error, message).hint("nothing is sent without the ledger; try again when it answers"),
            LedgerError::Newer { .. } => Stop::new(Exit::Error, message).hint("use the newer version of sendform that wrote it"),
            LedgerError::WrongKey { .. } => {
                Stop::new(Exit::Error, message).hint("with another key nobody could tell who got an offer already; give the key that the ledger was made with")
            }
            LedgerError::NotALedger(_) => Stop::new(Exit::Error, message).hint("name another file with `--ledger sqlite:PATH`"),
            LedgerError::Storage { .. } => Stop::new(Exit::Error, message).hint("the ledger must be on a disk that can be written to; nothing is sent without it"),
            LedgerError::NotDurable { .. } => Stop::new(Exit::Error, message).hint("set `fsync = on` in the server's configuration; nothing was sent"),
            LedgerError::Outdated => Stop::new(Exit::Held, message).hint("run it again: it plans with what is recorded now"),
            LedgerError::Refused { hint, .. } => Stop::new(Exit::Error, message).hint(hint),
            LedgerError::Key(_) | LedgerError::Location(_) => Stop::new(Exit::Error, message),
        }
    }
}

/// WhatsApp offers as code: plan, review, apply, and never send twice.
#[derive(Debug, Parser)]
#[command(
    name = "sendform",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  sendform init my-offer                        write a campaign to start from
  sendform plan my-offer/campaign.yaml          show who would get what
  sendform apply my-offer/campaign.yaml --sandbox   try it against a stand-in provider

Exit codes: 0 done, 1 error and nothing sent, 2 plan found sends, 3 invalid input, 4 account refused,
5 partly done, 6 stopped by a limit, 7 unknown outcomes, 8 ledger held, 9 plan differs, 64 usage, 130 interrupted"
)]
pub struct Cli {
    /// When to use colour; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
    /// Tell more about what is done; twice for requests
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a project that plans and applies against the sandbox as it stands
    Init(init::InitArgs),
    /// Check campaigns offline: schema, WhatsApp's limits, expressions, CSV files
    Validate(validate::ValidateArgs),
    /// Show who would get what, and why
    Plan(plan::PlanArgs),
    /// Send what the plan says; run again to resume
    Apply(apply::ApplyArgs),
    /// Show one rendered message and the exact request
    Preview(preview::PreviewArgs),
    /// Show what happened, from the ledger
    Status(status::StatusArgs),
    /// List single sends, or show all that is known of one
    Sends(sends::SendsArgs),
    /// Settle sends whose outcome cannot be told, by a recorded decision
    Resolve(resolve::ResolveArgs),
    /// Create, check, back up, restore or unlock the ledger
    Ledger(ledger::LedgerCommand),
    /// Run a stand-in provider on loopback, with an inbox page
    Sandbox(sandbox::SandboxArgs),
    /// Print a JSON Schema, for editors
    Schema(SchemaArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// What campaigns are given from outside.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct VarArgs {
    /// Set a variable of the campaign
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub(crate) vars: Vec<String>,
    /// Set variables from a YAML file; `--var` comes after it
    #[arg(long, value_name = "FILE")]
    pub(crate) var_file: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// Where personal data lies.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DataArgs {
    /// Look for CSV files in this directory as well, outside the project; may be given several times
    /// [default: those in `SENDFORM_DATA_DIR`, separated by colons]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Vec<PathBuf>,
}

/// Which record is used.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LedgerArgs {
    /// The ledger, as `sqlite:PATH` or `postgres://USER@HOST/DATABASE` [default: `SENDFORM_LEDGER`, else from `sendform.yaml`, else `.sendform/ledger.db`]
    #[arg(long, value_name = "URL", conflicts_with = "sandbox")]
    pub(crate) ledger: Option<String>,
    /// Use an embedded stand-in provider and a ledger of its own
    #[arg(long)]
    pub(crate) sandbox: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// campaign, project, plan, decisions, or a block: gateway, template, audience, coupons, expiry, delivery
    #[arg(default_value = "campaign")]
    pub(crate) kind: String,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Runs the program.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // An argument in the wrong place may be a URL with a password.
            let text = error.render().to_string();
            if location::redact(&text) == text {
                let _ = error.print();
            } else {
                Ui::new(Colour::Auto, 0).say(location::redact(&text).trim_end());
            }
            return ExitCode::from(if error.use_stderr() { Exit::Usage as u8 } else { Exit::Done as u8 });
        }
    };
    let ui = Ui::new(cli.color, cli.verbose);
    let outcome = match cli.command {
        Command::Init(args) => init::run(&ui, &args),
        Command::Validate(args) => validate::run(&ui, &args),
        Command::Plan(args) => plan::run(&ui, &args),
        Command::Apply(args) => apply::run(&ui, &args),
        Command::Preview(args) => preview::run(&ui, &args),
        Command::Status(args) => status::run(&ui, &args),
        Command::Sends(args) => sends::run(&ui, &args),
        Command::Resolve(args) => resolve::run(&ui, &args),
        Command::Ledger(args) => ledger::run(&ui, &args),
        Command::Sandbox(args) => sandbox::run(&ui, &args),
        Command::Schema(args) => schema(&ui, &args),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "sendform", &mut script);
            ui.data(&String::from_utf8_lossy(&script));
            Ok(Exit::Done)
        }
    };
    let exit = outcome.unwrap_or_else(|stop| {
        ui.problems(&stop.problems);
        stop.exit
    });
    ExitCode::from(exit as u8)
}

fn schema(ui: &Ui, args: &SchemaArgs) -> Result<Exit, Stop> {
    let known = crate::manifest::schema::KINDS.join(", ");
    let schema = crate::manifest::schema::for_editors(&args.kind).ok_or_else(|| {
        Stop::new(Exit::Usage, format!("there is no schema `{}`", args.kind)).hint(format!("kinds: {known}"))
    })?;
    ui.data(&format!("{}\n", serde_json::to_string_pretty(&schema).unwrap_or_default()));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
