//! `sendform ledger create | adopt | backup | restore`: what makes, keeps and replaces a ledger.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::args::LedgerArgs;
use crate::cli::campaign_argument;
use crate::cli::env;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::session;
use crate::cli::session::locate::{Located, locate};
use crate::cli::ui::Ui;
use crate::domain::diagnostic::Code;
use crate::ledger::key::KEY_VARIABLE;
use crate::ledger::sqlite::{self, Forgotten, Restore};
use crate::ledger::{LedgerKey, LedgerLocation};
use crate::project::{self, memory};
use crate::util::human::grouped;

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// A campaign that the ledger is for, by its file [default: the project of the current directory]
    campaign: Option<PathBuf>,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A ledger's file that was copied is refused, because people would get the same offer twice if both went on.
`ledger adopt` makes this copy the ledger; the other one must not be used again. A copy that has forgotten
sends is still refused: see `ledger restore`.

With a campaign, the project also remembers that this is the ledger that the campaign is sent with.")]
pub(super) struct AdoptArgs {
    /// A campaign that was sent with another ledger, by its file or its name
    campaign: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The copy is complete even while a run is under way. A plain copy of the file is not: the latest entries are
in a log beside it. The key is written beside the copy, as FILE with the ending `.key`, unless `SENDFORM_KEY`
gives it. Both can be read by their owner only.")]
pub(super) struct BackupArgs {
    /// The file to write; it must not exist
    file: PathBuf,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Shows which runs and how many sends the copy does not know, and changes nothing. With that number as
`--forget-sends` it puts the copy in the ledger's place, and keeps the file that was there under another
name. The chain gets a link that says so, and the next `apply` of each campaign that is concerned refuses
until it is given the number, too: whoever is forgotten gets the offer again.")]
pub(super) struct RestoreArgs {
    /// The copy, made with `ledger backup`
    file: PathBuf,
    /// How many sends may be forgotten, as this command shows the number
    #[arg(long, value_name = "N")]
    forget_sends: Option<u64>,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform ledger copy sqlite:.sendform/ledger.db postgres://offers@db.example.com/offers
  sendform ledger copy postgres://offers@db.example.com/offers sqlite:/var/lib/offers/ledger.db

Everything goes along: runs, journal, chain, codes, contradictions; the ledger keeps its id and its key. The old
ledger is marked as moved and is for reading alone from then on. Name the new one with `--ledger`,
`SENDFORM_LEDGER` or in `sendform.yaml`. If it was interrupted, run the same command again.")]
pub(super) struct CopyArgs {
    /// The ledger to move, as `sqlite:PATH` or `postgres://USER@HOST/DATABASE`
    from: String,
    /// The new ledger; it must not exist yet
    to: String,
}

pub(super) async fn copy(ui: &Ui, args: &CopyArgs) -> Result<Exit, CommandError> {
    let root = locate(&LedgerArgs::default(), false, Path::new("."))?.project.root;
    let parse =
        |text: &str| LedgerLocation::parse(text, &root).map_err(|problem| CommandError::usage(problem.to_string()));
    let (from, to) = (parse(&args.from)?, parse(&args.to)?);
    let given = env::key();
    let key = match (&given, &from) {
        (Some(given), _) => LedgerKey::parse(given)?,
        (None, LedgerLocation::Database(_)) => session::key(&from)?,
        (None, LedgerLocation::File(path)) => {
            let beside = LedgerKey::path(path);
            LedgerKey::in_file(&beside)?.ok_or_else(|| {
                CommandError::new(
                    Exit::Error,
                    Code::LedgerKeyMissing,
                    format!("the ledger's key `{}` is missing", beside.display()),
                )
            })?
        }
    };
    match &to {
        LedgerLocation::Database(_) if given.is_none() => {
            return Err(CommandError::new(Exit::Error, Code::LedgerKeyMissing, format!("a ledger in a database needs its key in `{KEY_VARIABLE}`")).hint(
                "it is in the file `ledger.key` beside the ledger; all appliers need it from now on, from where your secrets are",
            ));
        }
        LedgerLocation::File(path) => {
            project::prepare(path).map_err(|error| {
                CommandError::new(
                    Exit::Error,
                    Code::CannotWrite,
                    format!("cannot make the ledger's directory: {error}"),
                )
            })?;
            if given.is_none() {
                key.clone().keep_beside(path)?;
            }
        }
        LedgerLocation::Database(_) => {}
    }
    crate::ledger::copy::copy(&from, &to, &key).await?;
    ui.say(&format!("Moved the ledger from `{from}` to `{to}`"));
    Ok(Exit::Done)
}

pub(super) async fn create(ui: &Ui, args: &CreateArgs) -> Result<Exit, CommandError> {
    let start = args.campaign.clone().unwrap_or_else(|| PathBuf::from("."));
    let located = locate(&args.ledger, args.ledger.sandbox, &start)?;
    if located.ledger.is_shared() {
        // Without its key the database need not be asked.
        session::key(&located.ledger)?;
    }
    if let Some(mut ledger) = located.ledger.open(None).await? {
        let id = ledger.id().await?;
        return Err(CommandError::new(
            Exit::Error,
            Code::LedgerExists,
            format!("there is a ledger at `{}` already: {id}", located.ledger),
        ));
    }
    if let Some(campaign) = args.campaign.as_deref().filter(|path| path.is_file()) {
        let (name, _) = campaign_argument::identity(campaign)?;
        located.check_absent(&[name])?;
    } else {
        located.check_absent(&[])?;
    }
    located.refuse_below_another()?;
    located.create(ui).await?;
    Ok(Exit::Done)
}

pub(super) async fn adopt(ui: &Ui, args: &AdoptArgs) -> Result<Exit, CommandError> {
    let (start, name, _) = campaign_argument::parse(args.campaign.as_deref())?;
    let located = locate(&args.ledger, args.ledger.sandbox, &start)?;
    if let LedgerLocation::File(path) = &located.ledger {
        sqlite::adopt(path)?;
    }
    let mut ledger = session::open_recorded(&located.ledger).await?;
    let id = ledger.id().await?;
    // A renamed campaign is remembered under the name that it was sent with: that may be either.
    let mut names: Vec<String> = name.into_iter().collect();
    if let Some(manifest) = args.campaign.as_deref().map(Path::new).filter(|path| path.is_file()) {
        names.insert(0, campaign_argument::identity(manifest)?.0);
        names.dedup();
    }
    for name in &names {
        remember(&located, name, &id)?;
    }
    if let Some(name) = names.first() {
        ui.say(&format!("`{name}` is sent with the ledger {id} at `{}` from now on", located.ledger));
    } else {
        ui.say(&format!("`{}` is the ledger {id}", located.ledger));
    }
    Ok(Exit::Done)
}

fn remember(located: &Located, name: &str, id: &str) -> Result<(), CommandError> {
    let fail = |error: memory::MemoryError| CommandError::new(Exit::Error, Code::CannotWrite, error.to_string());
    let project = &located.project;
    for directory in &project.search.directories {
        // A file of another form is replaced as well.
        if directory == &project.root || !matches!(memory::recall(std::slice::from_ref(directory), name), Ok(None)) {
            memory::remember(directory, name, id, &located.ledger.url()).map_err(fail)?;
        }
    }
    memory::remember(&project.root, name, id, &located.ledger.url()).map_err(fail)
}

/// The path of a ledger that is a file.
fn file<'a>(located: &'a Located, instead: &str) -> Result<&'a Path, CommandError> {
    match &located.ledger {
        LedgerLocation::File(path) => Ok(path),
        LedgerLocation::Database(_) => {
            Err(CommandError::usage(format!("the ledger `{}` is a database", located.ledger)).hint(instead))
        }
    }
}

pub(super) fn backup(ui: &Ui, args: &BackupArgs) -> Result<Exit, CommandError> {
    let located = locate(&args.ledger, args.ledger.sandbox, Path::new("."))?;
    let path = file(&located, "back it up with the database's own tools, such as `pg_dump --schema=sendform`")?;
    let given = env::key().is_some();
    let key = if given { None } else { Some(LedgerKey::of(path, None)?) };
    sqlite::backup(path, &args.file, key.as_ref())?;
    let with_key = if given { "" } else { ", and its key beside it" };
    ui.say(&format!("Wrote `{}`{with_key}", args.file.display()));
    Ok(Exit::Done)
}

pub(super) fn restore(ui: &Ui, args: &RestoreArgs) -> Result<Exit, CommandError> {
    let located = locate(&args.ledger, args.ledger.sandbox, Path::new("."))?;
    let path = file(
        &located,
        "restore it with the database's own tools, and give `apply` the last head that was printed with `--ledger-head`",
    )?;
    let key = match env::key() {
        Some(given) => LedgerKey::parse(&given)?,
        None => {
            let beside = LedgerKey::path(path);
            let of_copy = args.file.with_extension("key");
            LedgerKey::in_file(&beside)?.or(LedgerKey::in_file(&of_copy)?).ok_or_else(|| {
                CommandError::new(
                    Exit::Error,
                    Code::LedgerKeyMissing,
                    format!("there is no key, neither `{}` nor `{}`", beside.display(), of_copy.display()),
                )
            })?
        }
    };
    project::prepare(path).map_err(|error| {
        CommandError::new(Exit::Error, Code::CannotWrite, format!("cannot make the ledger's directory: {error}"))
    })?;
    let restore = Restore::prepare(path, &args.file, &key)?;
    let forgotten = restore.forgotten.clone();
    ui.data(&describe(&forgotten))?;
    let nothing = forgotten.exact && forgotten.sends == 0;
    if args.forget_sends != Some(forgotten.sends) && !(nothing && args.forget_sends.is_none()) {
        return Err(CommandError::new(Exit::Error, Code::NotConfirmed, "nothing was restored").hint(format!(
            "whoever is forgotten gets the offer again, unless it is settled first; to put this copy in place all the same, pass `--forget-sends {}`",
            forgotten.sends
        )));
    }
    let kept = restore.finish()?;
    if env::key().is_none() {
        key.keep_beside(path)?;
    }
    ui.say(&format!("Restored `{}` from `{}`", path.display(), args.file.display()));
    if let Some(kept) = kept {
        ui.say(&format!("The file that was there is kept as `{}`", kept.display()));
    }
    Ok(Exit::Done)
}

fn describe(forgotten: &Forgotten) -> String {
    let mut out = String::new();
    for run in &forgotten.runs {
        out.push_str(&format!(
            "The copy does not know run {} of `{}`, started {:.0}\n",
            run.id, run.name, run.started_at
        ));
    }
    let sends = grouped(forgotten.sends);
    out.push_str(&match (forgotten.exact, forgotten.blind) {
        (true, _) => format!("It has forgotten {sends} sends\n"),
        (false, false) => format!(
            "It has forgotten at most {sends} sends: that many entries are missing, and the ledger itself cannot be read to tell which\n"
        ),
        (false, true) => {
            "Nothing tells what was sent after the copy was made: neither the ledger nor its head is there\n".to_owned()
        }
    });
    out
}
