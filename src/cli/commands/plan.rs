//! `sendform plan`

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Format;
use crate::cli::args::LedgerArgs;
use crate::cli::args::VarArgs;
use crate::cli::clock;
use crate::cli::env;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::owner;
use crate::cli::owner::OwnerArgs;
use crate::cli::session;
use crate::cli::session::locate::locate;
use crate::cli::ui::Ui;
use crate::domain::diagnostic::Code;
use crate::ledger::LedgerLocation;
use crate::plan::build::{Basis, build};
use crate::plan::view::{json, text};
use crate::plan::{Inputs, rename_guard};
use crate::util::fs::write_atomically;

/// Show who gets which message, and who gets none and why
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform plan campaign.yaml
  sendform plan campaign.yaml --out plan.json --detailed-exitcode
  sendform apply --plan plan.json

The plan holds no phone number, no coupon code and no secret. `apply --plan` sends only what has the
plan's hash.")]
pub(crate) struct PlanArgs {
    /// Campaign file
    campaign: PathBuf,
    #[command(flatten)]
    vars: VarArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Write the plan to a file, for `apply --plan`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Exit with code 2 if there are messages to send
    #[arg(long)]
    detailed_exitcode: bool,
    /// List each row that gets no message, with its line and the reason
    #[arg(long)]
    list_blocked: bool,
    /// Plan to send again what the provider rejected before
    #[arg(long)]
    retry_rejected: bool,
    /// Do not read a ledger: every recipient counts as new
    #[arg(long, conflicts_with_all = ["ledger", "sandbox"])]
    no_ledger: bool,
    #[command(flatten)]
    owner: OwnerArgs,
}

pub(crate) fn run(ui: &Ui, args: &PlanArgs) -> Result<Exit, CommandError> {
    let now = clock::now();
    let given = args.vars.read()?;
    let mut campaign = session::campaign(ui, &args.campaign, &given, now)?;
    let located = locate(&args.ledger, args.ledger.sandbox, &args.campaign)?;
    let runtime = session::runtime()?;
    let inputs = Inputs::open(&campaign);
    let place = &located.ledger;
    let mut record = match args.no_ledger {
        true => session::read_nothing(place, &campaign)?,
        false => runtime.block_on(session::read(&located, &mut campaign))?,
    };
    if record.ledger.is_none() {
        without_a_record(ui, place, args)?;
    }
    owner::check(&record.runs, &owner::subject(&campaign, args.ledger.sandbox), args.owner)?;
    let mut built = build(
        &campaign,
        inputs,
        Basis {
            snapshot: &record.snapshot,
            key: record.key.as_ref(),
            now,
            planned_at: None,
            retry_rejected: args.retry_rejected,
            sandbox: args.ledger.sandbox,
            list_blocked: args.list_blocked,
            collect_newcomers: rename_guard::has_others(&record.runs, &campaign.record_name),
        },
    )?;
    let repeats = runtime.block_on(record.repeats(&campaign, &mut built))?;
    let plan = built.file.with_ledger(record.head, repeats)?;
    match args.format {
        Format::Text => ui.data(&text::render(&plan))?,
        Format::Json => ui.data(&json::render(&plan)?)?,
    }
    if let Some(out) = &args.out {
        write_atomically(out, &json::render(&plan)?, 0o644).map_err(|error| {
            CommandError::new(
                Exit::Error,
                Code::CannotWrite,
                format!("cannot write the plan to `{}`: {error}", out.display()),
            )
        })?;
        ui.say(&format!("Wrote {}. To send it: sendform apply --plan {}", out.display(), out.display()));
    }
    Ok(if args.detailed_exitcode && plan.counts.send > 0 { Exit::PlanHasSends } else { Exit::Done })
}

/// In a pipeline, a missing ledger is most likely a missing setting, so a plan without one must be asked for.
fn without_a_record(ui: &Ui, place: &LedgerLocation, args: &PlanArgs) -> Result<(), CommandError> {
    match (place.local_file(), env::pipeline()) {
        _ if args.no_ledger || args.ledger.sandbox => {}
        (Some(path), Some(variable)) => {
            return Err(CommandError::new(Exit::Invalid, Code::LedgerMissing,
                format!(
                    "there is no ledger at `{}`, so this plan would show every recipient as new (`{variable}` is set)",
                    path.display()
                ),
            )
            .hint("set `SENDFORM_LEDGER` or `--ledger` to the ledger that `apply` uses; before the first run, pass `--no-ledger`"));
        }
        (None, _) => ui.say(&format!("The database `{place}` holds no ledger yet")),
        (Some(_), None) => {}
    }
    Ok(())
}
