//! `sendform ledger create | adopt | backup | copy | restore`

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
use crate::ledger::sqlite::Forgotten;
use crate::ledger::{self, LedgerError, LedgerKey, LedgerLocation};
use crate::project::memory;
use crate::util::human::grouped;

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The campaign file whose project the ledger is for [default: the project of the current directory]
    campaign: Option<PathBuf>,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Sendform refuses a copy of a ledger's file, because people would get the same offer twice if both files were
used. `ledger adopt` makes this copy the ledger; never use the other file again. A copy that lacks sends is
still refused: see `ledger restore`.

With a campaign, the project also remembers that this is the ledger that the campaign is sent with.")]
pub(super) struct AdoptArgs {
    /// A campaign that was sent with another ledger: its file or its name
    campaign: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The backup is complete even during a run. A plain copy of the file is not: the latest entries are in a log
beside it. The key is written beside the backup, as FILE with the extension `.key`, unless `SENDFORM_KEY` gives
it. Only their owner can read the two files.")]
pub(super) struct BackupArgs {
    /// File to write; it must not exist
    file: PathBuf,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Shows which runs and how many sends the backup lacks, and changes nothing. With that number as
`--forget-sends` it puts the backup in the ledger's place, and keeps the file that was there under another
name. The chain records it, and the next `apply` of each affected campaign refuses to send until it is given
the number as well, because the recipients of missing sends get the offer again.")]
pub(super) struct RestoreArgs {
    /// The backup, written by `ledger backup`
    file: PathBuf,
    /// Number of missing sends to accept, as this command shows it
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

Moves everything: runs, journal, chain, codes, contradictions. The ledger keeps its id and its key. The old
ledger is marked as moved; from then on it can only be read. Name the new one with `--ledger`,
`SENDFORM_LEDGER` or in `sendform.yaml`. If the command was interrupted, run it again.")]
pub(super) struct CopyArgs {
    /// Ledger to move: `sqlite:PATH` or `postgres://USER@HOST/DATABASE`
    from: String,
    /// Location to move it to; there must be no ledger yet
    to: String,
}

pub(super) async fn copy(ui: &Ui, args: &CopyArgs) -> Result<Exit, CommandError> {
    let root = locate(&LedgerArgs::default(), false, Path::new("."))?.project.root;
    let parse =
        |text: &str| LedgerLocation::parse(text, &root).map_err(|problem| CommandError::usage(problem.to_string()));
    let (from, to) = (parse(&args.from)?, parse(&args.to)?);
    let given = env::key();
    let key = match from.existing_key(given.as_deref())? {
        Some(key) => key,
        None => match from.key_file() {
            Some(path) => return Err(key_missing(format!("the ledger's key `{}` is missing", path.display()))),
            None => return Err(LedgerError::KeyNotGiven.into()),
        },
    };
    match to.local_file() {
        Some(path) => {
            session::prepare(path)?;
            if given.is_none() {
                key.clone().keep_beside(path)?;
            }
        }
        None if given.is_none() => {
            return Err(CommandError::from(LedgerError::KeyNotGiven).hint(
                "set it to the content of the file `ledger.key` beside the ledger; keep it where your secrets are, because all appliers need it from now on",
            ));
        }
        None => {}
    }
    ledger::copy::copy(&from, &to, &session::operator(), &key).await?;
    ui.say(&format!("Moved the ledger from `{from}` to `{to}`"));
    Ok(Exit::Done)
}

fn key_missing(problem: String) -> CommandError {
    CommandError::new(Exit::Error, Code::LedgerKeyMissing, problem)
}

pub(super) async fn create(ui: &Ui, args: &CreateArgs) -> Result<Exit, CommandError> {
    let start = args.campaign.clone().unwrap_or_else(|| PathBuf::from("."));
    let located = locate(&args.ledger, args.ledger.sandbox, &start)?;
    if located.ledger.is_shared() {
        // Without its key there is no need to connect to the database.
        session::key(&located.ledger)?;
    }
    if let Some(mut ledger) = located.ledger.open(&session::operator(), None).await? {
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
    located.ledger.adopt(&session::operator())?;
    let mut ledger = session::open_recorded(&located.ledger).await?;
    let id = ledger.id().await?;
    // A renamed campaign may have been sent under either name.
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
        // Also replaces a file that cannot be read.
        if directory == &project.root || !matches!(memory::recall(std::slice::from_ref(directory), name), Ok(None)) {
            memory::remember(directory, name, id, &located.ledger.url()).map_err(fail)?;
        }
    }
    memory::remember(&project.root, name, id, &located.ledger.url()).map_err(fail)
}

pub(super) fn backup(ui: &Ui, args: &BackupArgs) -> Result<Exit, CommandError> {
    let located = locate(&args.ledger, args.ledger.sandbox, Path::new("."))?;
    let given = env::key().is_some();
    let key = if given { None } else { located.ledger.existing_key(None)? };
    located.ledger.backup(&session::operator(), &args.file, key.as_ref())?;
    let with_key = if key.is_some() { ", and its key beside it" } else { "" };
    ui.say(&format!("Wrote `{}`{with_key}", args.file.display()));
    Ok(Exit::Done)
}

pub(super) fn restore(ui: &Ui, args: &RestoreArgs) -> Result<Exit, CommandError> {
    let located = locate(&args.ledger, args.ledger.sandbox, Path::new("."))?;
    let path = located.ledger.restorable()?;
    let given = env::key();
    let key = match located.ledger.existing_key(given.as_deref())? {
        Some(key) => key,
        None => {
            let (beside, of_backup) = (LedgerKey::path(path), args.file.with_extension("key"));
            LedgerKey::in_file(&of_backup)?.ok_or_else(|| {
                key_missing(format!("there is no key, neither `{}` nor `{}`", beside.display(), of_backup.display()))
            })?
        }
    };
    session::prepare(path)?;
    let restore = located.ledger.prepare_restore(&session::operator(), &args.file, &key)?;
    let forgotten = restore.forgotten.clone();
    ui.data(&describe(&forgotten))?;
    let nothing = forgotten.exact && forgotten.sends == 0;
    if args.forget_sends != Some(forgotten.sends) && !(nothing && args.forget_sends.is_none()) {
        return Err(CommandError::new(Exit::Error, Code::NotConfirmed, "nothing was restored").hint(format!(
            "the recipients of missing sends get the offer again, unless you settle those sends first; to restore this backup anyway, pass `--forget-sends {}`",
            forgotten.sends
        )));
    }
    let kept = restore.finish()?;
    if given.is_none() {
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
        out.push_str(&format!("The backup lacks run {} of `{}`, started {:.0}\n", run.id, run.name, run.started_at));
    }
    let sends = grouped(forgotten.sends);
    out.push_str(&match (forgotten.exact, forgotten.blind) {
        (true, _) => format!("The backup lacks {sends} sends\n"),
        (false, false) => format!(
            "The backup lacks at most {sends} sends: that many entries are missing, and the ledger itself cannot be read, so they cannot be identified\n"
        ),
        (false, true) => {
            "There is neither a readable ledger nor its head, so nothing shows what was sent after the backup was made\n".to_owned()
        }
    });
    out
}
