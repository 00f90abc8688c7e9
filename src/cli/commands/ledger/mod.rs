//! `sendform ledger`

mod files;

use std::io::Write;
use std::path::Path;

use clap::{Args, Subcommand};

use crate::cli::args::Format;
use crate::cli::args::LedgerArgs;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::output::FormatVersion;
use crate::cli::output::ledger::{EntryJson, ExportLine, LedgerCheckJson, LinkJson};
use crate::cli::session;
use crate::cli::ui::Ui;
use crate::domain::diagnostic::Code;
use crate::ledger::{Head, JournalEntry, Ledger, query};
use crate::util::human::{self, grouped};

/// Create, check, back up, restore or unlock the ledger
#[derive(Debug, Args)]
pub(crate) struct LedgerCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the whole record against the protocol, and its chain against a head that was seen before
    Check(CheckArgs),
    /// Print everything as lines of JSON: runs, chain, and every entry of the journal
    Export(ExportArgs),
    /// Show who holds the ledger, or fence a run off before its lease is over
    Unlock(UnlockArgs),
    /// Create a new, empty ledger
    Create(files::CreateArgs),
    /// Make a copied file the ledger, or record which ledger a campaign is sent with
    Adopt(files::AdoptArgs),
    /// Back up the ledger's file and its key
    Backup(files::BackupArgs),
    /// Move a ledger to another file or database
    Copy(files::CopyArgs),
    /// Restore a backup, and show what it lacks
    Restore(files::RestoreArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// A head that was printed before; the ledger must contain it
    #[arg(long, value_name = "HEAD")]
    head: Option<Head>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Args)]
struct ExportArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Print coupon codes in full; phone numbers are never stored in full
    #[arg(long)]
    full: bool,
}

#[derive(Debug, Args)]
struct UnlockArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Run to fence off: it can send nothing more, and its open attempts become unknown
    #[arg(long)]
    run: Option<i64>,
    /// Fence the run off although its requests may still be under way
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
    let mut check = query::check(ledger.as_mut()).await?;
    if let Some(head) = args.head
        && let Some(problem) = query::check_head(ledger.as_mut(), head).await?
    {
        check.problems.push(problem);
    }
    let head = query::head(ledger.as_mut()).await?;
    let id = ledger.id().await?;
    match args.format {
        Format::Json => ui.json(&LedgerCheckJson::new(id, head, &check))?,
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
            for found in &check.contradictions {
                ui.data(&format!("  contradiction: send {}: {}\n", found.key, found.sentence()))?;
            }
            for problem in &check.problems {
                ui.data(&format!("  {problem}\n"))?;
            }
        }
    }
    if check.problems.is_empty() {
        Ok(Exit::Done)
    } else {
        Err(CommandError::new(Exit::Error, Code::LedgerDamaged, format!("the ledger `{place}` is damaged"))
            .hint("do not send with it; compare it with a backup before anything else is written to it"))
    }
}

async fn export(args: &ExportArgs) -> Result<Exit, CommandError> {
    let place = session::ledger_place(&args.ledger, args.ledger.sandbox, Path::new("."))?;
    let mut ledger = session::open_recorded(&place).await?;
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let chain = ledger.chain().await?.iter().map(LinkJson::from).collect();
    write_line(&mut out, &ExportLine::Ledger { format_version: FormatVersion::LEDGER_EXPORT, chain })?;
    for run in &ledger.runs().await? {
        write_line(&mut out, &ExportLine::Run(run.into()))?;
    }
    let mut written = Ok(());
    let mut write = |entry: JournalEntry| {
        if written.is_ok() {
            written = write_line(&mut out, &ExportLine::Entry(EntryJson::new(&entry, args.full)));
        }
    };
    ledger.journal(None, &mut write).await?;
    written?;
    out.flush().map_err(CommandError::output)?;
    Ok(Exit::Done)
}

fn write_line(out: &mut impl Write, line: &ExportLine) -> Result<(), CommandError> {
    let text = serde_json::to_string(line)?;
    writeln!(out, "{text}").map_err(CommandError::output)
}

async fn unlock(ui: &Ui, args: &UnlockArgs) -> Result<Exit, CommandError> {
    let place = session::ledger_place(&args.ledger, args.ledger.sandbox, Path::new("."))?;
    let mut ledger = session::open_recorded(&place).await?;
    let Some(run) = args.run else { return list_holders(ui, ledger.as_mut()).await };
    // Where several appliers share a ledger, a request of the run may still be under way on another machine.
    if place.is_shared() && !args.force {
        refuse_early(ledger.as_mut(), run).await?;
    }
    if ledger.unlock(run).await? {
        ui.data(&format!("run {run} is fenced off; its open attempts are unknown\n"))?;
    } else if place.is_shared() {
        ui.data(&format!("run {run} is over: there is nothing to unlock\n"))?;
    } else {
        ui.data("nobody holds the ledger: there is nothing to unlock\n")?;
    }
    Ok(Exit::Done)
}

async fn list_holders(ui: &Ui, ledger: &mut dyn Ledger) -> Result<Exit, CommandError> {
    let holders = ledger.lease_holders().await?;
    if holders.is_empty() {
        ui.data("nobody holds the ledger\n")?;
    }
    for holder in &holders {
        match holder.can_be_unlocked {
            true => ui.data(&format!("{}\n", holder.description))?,
            false => {
                ui.data(&format!("held by {}; the lock is released when that process ends\n", holder.description))?
            }
        }
    }
    Ok(Exit::Done)
}

/// Refuses to fence a run off while a request of it may be under way.
async fn refuse_early(ledger: &mut dyn Ledger, run: i64) -> Result<(), CommandError> {
    let runs = ledger.runs().await?;
    let open = runs.iter().find(|other| other.id == run && other.ended_at.is_none());
    let Some(open) = open.filter(|open| !open.may_live_for().is_zero()) else { return Ok(()) };
    Err(CommandError::new(
        Exit::Held,
        Code::LedgerHeld,
        format!(
            "run {run} may still be under way: its last sign of life came {} ago",
            human::duration(human::whole_seconds(open.silent))
        ),
    )
    .hint(format!(
        "wait {}: then no request of it can be under way, unless it gives another sign of life; `--force` fences it off now",
        human::duration(human::whole_seconds(open.may_live_for()))
    )))
}
