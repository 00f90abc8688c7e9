//! The command line: arguments, one file for each command, exit codes.
//!
//! Data goes to standard output, everything else to standard error. Only [`ui`] prints.
//! A command imports no other command; what several need is here or in [`output`].

mod args;
mod campaign_argument;
mod clock;
mod commands;
mod env;
mod error;
mod exit;
mod output;
mod owner;
mod progress;
mod recipients;
mod session;
mod signals;
mod ui;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use args::Colour;
use commands::{apply, completions, init, ledger, plan, preview, resolve, sandbox, schema, sends, status, validate};
use exit::Exit;
use ui::Ui;

/// WhatsApp offers as code: plan, review, apply, and never send twice.
#[derive(Debug, Parser)]
#[command(
    name = "sendform",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  sendform init my-offer                            write a campaign to start from
  sendform plan my-offer/campaign.yaml              show who gets which message
  sendform apply my-offer/campaign.yaml --sandbox   try it with a stand-in provider

Exit codes:
  0  done                                  6  stopped by a limit
  1  error, nothing sent                   7  some outcomes are unknown
  2  plan --detailed-exitcode: has sends   8  another process holds the ledger
  3  invalid input                         9  the plan is not the approved one
  4  account refused by the provider      64  wrong command line
  5  partly done, safe to run again      130  interrupted"
)]
pub struct Cli {
    /// When to use colour; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
    /// Log more, and show the causes of an error; twice for requests
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a campaign that can be planned and applied in the sandbox right away
    Init(init::InitArgs),
    /// Check campaigns offline: schema, WhatsApp's limits, expressions, CSV files
    Validate(validate::ValidateArgs),
    /// Show who gets which message, and who gets none and why
    Plan(plan::PlanArgs),
    /// Send the messages of a plan; run it again to resume
    Apply(apply::ApplyArgs),
    /// Show one rendered message and the exact request
    Preview(preview::PreviewArgs),
    /// Show what the ledger has recorded of each campaign
    Status(status::StatusArgs),
    /// List sends, or show everything that is recorded of one
    Sends(sends::SendsArgs),
    /// Settle sends with an unknown outcome by a recorded decision
    Resolve(resolve::ResolveArgs),
    /// Create, check, back up, restore or unlock the ledger
    Ledger(ledger::LedgerCommand),
    /// Run a stand-in provider on this machine, with an inbox page
    Sandbox(sandbox::SandboxArgs),
    /// Print a JSON Schema, for editors and pipelines
    Schema(schema::SchemaArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs the program.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return Ui::new(Colour::Auto, 0).usage(&error).into(),
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
        Command::Schema(args) => schema::run(&ui, &args),
        Command::Completions(args) => completions::run(&ui, &args, &mut Cli::command()),
    };
    outcome.unwrap_or_else(|error| ui.error(&error)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
