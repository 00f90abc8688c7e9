//! `sendform ledger`

mod files;

use std::io::Write;
use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::args::Format;
use crate::cli::args::LedgerArgs;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::session;
use crate::cli::ui::Ui;
use crate::domain::diagnostic::Code;
use crate::ledger::postgres::PostgresLedger;
use crate::ledger::{Entry, Head, LedgerLocation, report, sqlite};
use crate::plan::FORMAT_VERSION;
use crate::util::human::{self, grouped};

/// Create, check, back up, restore or unlock the ledger
#[derive(Debug, Args)]
pub(crate) struct LedgerCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hold the whole record against the protocol, and its chain against what was seen of it
    Check(CheckArgs),
    /// Write everything as lines of JSON: runs, chain, and every entry of the journal
    Export(ExportArgs),
    /// Tell who holds the ledger; call a run dead before its lease is over
    Unlock(UnlockArgs),
    /// Make a new ledger, in which nobody is recorded
    Create(files::CreateArgs),
    /// Make a copied file the ledger; say which ledger a campaign is sent with
    Adopt(files::AdoptArgs),
    /// Write a copy of the ledger's file and its key
    Backup(files::BackupArgs),
    /// Move a ledger to another place, between files and databases
    Copy(files::CopyArgs),
    /// Put a copy in the ledger's place, and tell what it has forgotten
    Restore(files::RestoreArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// A head that was printed before: the ledger must hold it
    #[arg(long, value_name = "HEAD")]
    head: Option<Head>,
    /// How it is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Args)]
struct ExportArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Write coupons in full as well; numbers are never stored in full
    #[arg(long)]
    full: bool,
}

#[derive(Debug, Args)]
struct UnlockArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// The run to call dead: it is granted nothing more, and what it left open is unknown
    #[arg(long)]
    run: Option<i64>,
    /// Call the run dead although its requests may still be under way
    #[arg(long, requires = "run")]
    force: bool,
}

pub(crate) fn run(ui: &Ui, args: &LedgerCommand) -> Result<Exit, CommandError> {
    let runtime = session::runtime()?;
    match &args.command {
        Command::Check(args) => runtime.block_on(check(ui, args)),
        Command::Export(args) => runtime.block_on(export(args)),
        Command::Unlock(args) => runtime.block_on(unlock(ui, args)),
        Command::Create(args) => runtime.block_on(files::create(ui, args)),
        Command::Adopt(args) => runtime.block_on(files::adopt(ui, args)),
        Command::Copy(args) => runtime.block_on(files::copy(ui, args)),
        Command::Backup(args) => files::backup(ui, args),
        Command::Restore(args) => files::restore(ui, args),
    }
}

async fn check(ui: &Ui, args: &CheckArgs) -> Result<Exit, CommandError> {
    let place = session::ledger_place(&args.ledger, args.ledger.sandbox, Path::new("."))?;
    let mut ledger = session::open_recorded(&place).await?;
    let mut check = report::check(ledger.as_mut()).await?;
    if let Some(head) = args.head
        && let Some(problem) = report::behind(ledger.as_mut(), head).await?
    {
        check.problems.push(problem);
    }
    let head = report::head(ledger.as_mut()).await?;
    let id = ledger.id().await?;
    match args.format {
        Format::Json => ui.data(&format!(
            "{:#}\n",
            json!({ "format_version": FORMAT_VERSION, "id": id, "head": head.map(|head| head.to_string()), "check": check })
        ))?,
        Format::Text => {
            let of = |number: u64, one: &str, many: &str| {
                format!("{} {}", grouped(number), if number == 1 { one } else { many })
            };
            let unsealed = match check.unsealed {
                0 => String::new(),
                number => format!("; {} ended without a seal", of(number, "run", "runs")),
            };
            ui.data(&format!(
                "{}, {}, {}{unsealed}\n",
                of(check.runs, "run", "runs"),
                of(check.sends, "send", "sends"),
                of(check.entries, "entry", "entries")
            ))?;
            ui.data(&format!("Ledger id   {id}\n"))?;
            if let Some(head) = head {
                ui.data(&format!("Ledger head {head}\n"))?;
            }
            for found in &check.contradicting {
                ui.data(&format!("  contradiction: {found}\n"))?;
            }
            for problem in &check.problems {
                ui.data(&format!("  {problem}\n"))?;
            }
        }
    }
    if check.problems.is_empty() {
        Ok(Exit::Done)
    } else {
        Err(CommandError::new(Exit::Error, Code::LedgerDamaged, format!("the ledger `{place}` is not sound"))
            .hint("send nothing with it; compare it with a backup before anything else is written"))
    }
}

async fn export(args: &ExportArgs) -> Result<Exit, CommandError> {
    let place = session::ledger_place(&args.ledger, args.ledger.sandbox, Path::new("."))?;
    let mut ledger = session::open_recorded(&place).await?;
    let chain: Vec<Value> = ledger.chain().await?.iter().map(report::link_json).collect();
    let runs = ledger.runs().await?;
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let head = json!({ "type": "ledger", "format_version": FORMAT_VERSION, "chain": chain });
    let mut written = writeln!(out, "{head}");
    for run in &runs {
        let mut value = serde_json::to_value(run).unwrap_or_default();
        value["type"] = "run".into();
        written = written.and_then(|()| writeln!(out, "{value}"));
    }
    let full = args.full;
    let mut write = |entry: Entry| {
        if written.is_ok() {
            let mut value = report::entry_json(&entry, full);
            value["type"] = "entry".into();
            written = writeln!(out, "{value}");
        }
    };
    ledger.journal(None, &mut write).await?;
    match written.and_then(|()| out.flush()) {
        // A reader that closes the pipe early has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CommandError::new(Exit::Error, Code::CannotWrite, format!("the export cannot be written: {error}")))
        }
        _ => Ok(Exit::Done),
    }
}

async fn unlock(ui: &Ui, args: &UnlockArgs) -> Result<Exit, CommandError> {
    let place = session::ledger_place(&args.ledger, args.ledger.sandbox, Path::new("."))?;
    let mut ledger = session::open_recorded(&place).await?;
    let runs = ledger.runs().await?;
    let live: Vec<_> = runs.iter().filter(|run| run.live).collect();
    match (&place, args.run) {
        (LedgerLocation::File(path), None) => {
            match sqlite::lease_holder(path) {
                Some(holder) => ui.data(&format!("held by {holder}; the lock goes with that process\n"))?,
                None => ui.data("nobody holds the ledger\n")?,
            }
            Ok(Exit::Done)
        }
        (LedgerLocation::File(path), Some(_)) => match sqlite::lease_holder(path) {
            Some(holder) => {
                Err(CommandError::new(Exit::Held, Code::LedgerHeld, format!("the ledger is held by {holder}"))
                    .hint("the lock goes with that process: end it, with SIGTERM first"))
            }
            None => {
                ui.data("nobody holds the ledger: there is nothing to unlock\n")?;
                Ok(Exit::Done)
            }
        },
        (LedgerLocation::Database(_), None) => {
            if live.is_empty() {
                ui.data("nobody holds the ledger\n")?;
            }
            for run in &live {
                let heard = run.heartbeat_at.map_or_else(String::new, |at| format!(", last heartbeat {at:.0}"));
                ui.data(&format!(
                    "run {} of {}: process {} of {} on {} since {:.0}{heard}\n",
                    run.id, run.name, run.pid, run.actor, run.host, run.started_at
                ))?;
            }
            Ok(Exit::Done)
        }
        (LedgerLocation::Database(url), Some(run)) => {
            let open = runs.iter().find(|other| other.id == run && other.ended_at.is_none());
            if let Some(open) = open.filter(|open| !args.force && !open.may_live_for().is_zero()) {
                return Err(CommandError::new(Exit::Held, Code::LedgerHeld,
                    format!(
                        "run {run} may still be under way: its last sign came {} ago",
                        human::duration(human::whole_seconds(open.silent))
                    ),
                )
                .hint(format!(
                    "in {} no request of it can live any more, unless it gives another sign; `--force` calls it dead now",
                    human::duration(human::whole_seconds(open.may_live_for()))
                )));
            }
            let Some(mut ledger) = PostgresLedger::open_existing(url.expose(), None).await? else {
                return Ok(Exit::Done);
            };
            if ledger.unlock(run).await? {
                ui.data(&format!("run {run} is fenced off; what it left open is unknown\n"))?;
            } else {
                ui.data(&format!("run {run} is over: there is nothing to unlock\n"))?;
            }
            Ok(Exit::Done)
        }
    }
}
