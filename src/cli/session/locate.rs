//! Which ledger a command uses, whether it is the right one, and whether a new one may be made.
//!
//! A second ledger is the surest way to send everything twice: it knows nobody. So a real `apply` makes
//! one only on request, and says why it found none; and a ledger that is not the one that the project
//! pins, or that the campaign was sent with, is refused.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::cli::args::LedgerArgs;
use crate::cli::env::{self, LEDGER};
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::session;
use crate::cli::ui::Ui;
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::ledger::{Ledger, LedgerKey, LedgerLocation, MOVED_TO};
use crate::plan::Prepared;
use crate::project::memory::{self, MemoryError, Remembered};
use crate::project::{self, LedgerAbove, Project, Search};

/// The project of a command, and the ledger that it uses.
#[derive(Debug)]
pub(crate) struct Located {
    /// The project.
    pub project: Project,
    /// The ledger.
    pub ledger: LedgerLocation,
    /// What names the ledger.
    pub source: Source,
    /// The directory that the command was started in.
    current: PathBuf,
    /// A ledger above the project. It is not used, but creating a second one below it may be a mistake.
    ledger_above: Option<String>,
}

/// What names a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// `--ledger`.
    Option,
    /// `SENDFORM_LEDGER`.
    Environment,
    /// `sendform.yaml`.
    ProjectFile,
    /// Nothing: it is the project's own.
    Default,
    /// It is the sandbox's, which holds no real sends.
    Sandbox,
}

/// Finds the project of a path and the ledger that is used for it.
pub(crate) fn locate(args: &LedgerArgs, sandbox: bool, start: &Path) -> Result<Located, CommandError> {
    let current = std::env::current_dir().map_err(|error| {
        CommandError::new(Exit::Error, Code::UnreadableFile, format!("cannot read the current directory: {error}"))
    })?;
    let project = project::find(start, &current)?;
    let named = match &args.ledger {
        Some(url) => Some((url.clone(), Source::Option)),
        None => env::ledger().map(|url| (url, Source::Environment)),
    };
    let (ledger, source) = match named {
        // A trial has a ledger of its own, whatever the environment names for real runs.
        _ if sandbox => {
            let path = project.root.join(project::DIRECTORY).join("sandbox").join("ledger.db");
            let location = LedgerLocation::File(path);
            // It holds no real sends, so a copy of it may be used.
            location.adopt_copy(&session::operator())?;
            (location, Source::Sandbox)
        }
        Some((url, source)) => {
            let location = LedgerLocation::parse(&url, &project.root).map_err(|problem| {
                let from = if source == Source::Option { "--ledger" } else { LEDGER };
                CommandError::usage(format!("`{from}`: {problem}"))
                    .hint("such as `sqlite:/var/lib/offers/ledger.db` or `postgres://USER@HOST/DATABASE`")
            })?;
            (location, source)
        }
        None => match configured(&project)? {
            Some(location) => (location, Source::ProjectFile),
            None => (LedgerLocation::File(project.default_ledger()), Source::Default),
        },
    };
    // Below the current directory a short path is easier to read.
    let ledger = ledger.relative_to(&current);
    let ledger_above = ledger_above(&project.search);
    Ok(Located { project, ledger, source, current, ledger_above })
}

/// The ledger that `sendform.yaml` names.
fn configured(project: &Project) -> Result<Option<LedgerLocation>, Diagnostics> {
    let Some(url) = &project.ledger_url else { return Ok(None) };
    let file = project.root.join(project::FILE);
    let location = LedgerLocation::parse(url, &project.root)
        .map_err(|problem| Diagnostic::error(Code::InvalidLedgerUrl, problem.to_string()).in_file(&file, None, None))?;
    // The file is under version control.
    if location.has_password() {
        return Err(Diagnostic::error(Code::SecretLiteral, "the ledger's URL contains a password")
            .hint("set the environment variable `SENDFORM_LEDGER` from your secret store instead")
            .in_file(&file, None, None)
            .into());
    }
    Ok(Some(location))
}

/// The nearest ledger above the project that exists, or that is in a database.
fn ledger_above(search: &Search) -> Option<String> {
    search.ledgers_above.iter().find_map(|above| match above {
        LedgerAbove::File(path) => Some(path.display().to_string()),
        LedgerAbove::Named { root, url } => {
            let location = LedgerLocation::parse(url, root).ok()?;
            let counts = match location.local_file() {
                Some(path) => path.symlink_metadata().is_ok(),
                None => !location.has_password(),
            };
            counts.then(|| location.to_string())
        }
    })
}

impl Located {
    /// Refuses a ledger that is not the one that the project pins, that the campaign was sent with, or
    /// that was moved elsewhere.
    pub(crate) async fn check(&self, ledger: &mut dyn Ledger, campaign: &Prepared) -> Result<(), CommandError> {
        refuse_moved(ledger, &self.ledger).await?;
        if self.source == Source::Sandbox {
            return Ok(());
        }
        let id = ledger.id().await?;
        if let Some(pinned) = self.project.pinned_id.as_ref().filter(|pinned| **pinned != id) {
            return Err(CommandError::new(Exit::Error, Code::LedgerAnother,
                format!("`{}` pins the ledger {pinned}, and `{}` is the ledger {id}; nothing was sent", project::FILE, self.ledger),
            )
            .hint("use the ledger that is pinned; in another one nobody is recorded, and recipients would get the offer twice"));
        }
        match self.recall(&session::names(campaign))? {
            Some(before) if before.ledger != id => Err(CommandError::new(Exit::Error, Code::LedgerAnother,
                format!(
                    "the campaign `{}` was sent with the ledger {} at `{}`, and this is another ledger: {id} at `{}`; nothing was sent",
                    campaign.name, before.ledger, before.at, self.ledger
                ),
            )
            .hint(format!(
                "recipients would get the offer twice: name the first ledger with `--ledger` or `{LEDGER}`; if this one records everything that was sent, confirm that with `sendform ledger adopt {}`",
                campaign.path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Where there is no ledger: refuses to take that for a first start if the project knows of one.
    pub(crate) fn check_absent(&self, names: &[String]) -> Result<(), CommandError> {
        if self.source == Source::Sandbox {
            return Ok(());
        }
        let known = match (&self.project.pinned_id, self.recall(names)?) {
            (Some(pinned), _) => format!("`{}` pins the ledger {pinned}", project::FILE),
            (None, Some(before)) => {
                format!(
                    "the campaign `{}` was sent with the ledger {} at `{}`",
                    names.first().map_or("", String::as_str),
                    before.ledger,
                    before.at
                )
            }
            (None, None) => return Ok(()),
        };
        Err(CommandError::new(
            Exit::Error,
            Code::LedgerMissing,
            format!("{known}, and there is no ledger at `{}`; nothing was sent", self.ledger),
        )
        .hint(format!("a new ledger would send everything again: name the first one with `--ledger` or `{LEDGER}`")))
    }

    fn recall(&self, names: &[String]) -> Result<Option<Remembered>, CommandError> {
        for name in names {
            if let Some(found) =
                memory::recall(&self.project.search.directories, name).map_err(|error| unusable(&error))?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps which ledger the campaign is sent with, before the first claim.
    pub(crate) fn remember(&self, ui: &Ui, campaign: &str, id: &str) -> Result<(), CommandError> {
        if self.source == Source::Sandbox {
            return Ok(());
        }
        match memory::remember(&self.project.root, campaign, id, &self.ledger.url()) {
            Ok(()) => Ok(()),
            // A checkout that cannot be written to, with a ledger elsewhere: there is nothing to keep it in.
            Err(MemoryError::Io { source: error, .. })
                if self.source != Source::Default
                    && matches!(
                        error.kind(),
                        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
                    ) =>
            {
                ui.say(&format!(
                    "Note: `{}` cannot be written to, so it is not kept there which ledger `{campaign}` was sent with",
                    self.project.root.display()
                ));
                Ok(())
            }
            Err(error) => Err(unusable(&error)),
        }
    }

    /// Which ledger would be made, and why there is none.
    pub(crate) fn why_none(&self) -> String {
        let mut why = format!("There is no ledger at `{}`. ", self.full());
        let search = &self.project.search;
        let _ = match self.source {
            Source::Option => write!(why, "`--ledger` names it."),
            Source::Environment => write!(why, "`{LEDGER}` names it."),
            Source::ProjectFile => write!(why, "`{}` names it.", self.project.root.join(project::FILE).display()),
            Source::Sandbox => write!(why, "It is the sandbox's."),
            Source::Default if search.marked => {
                write!(why, "It is the ledger of the project `{}`.", self.project.root.display())
            }
            Source::Default => {
                let bound = match &search.stopped_at {
                    Some(repository) => format!("up to the Git repository `{}`", repository.display()),
                    None => "above it".to_owned(),
                };
                write!(
                    why,
                    "Neither `--ledger`, `{LEDGER}` nor a `{}` names one, and no directory from `{}` {bound} holds one.",
                    project::FILE,
                    search.start.display()
                )
            }
        };
        for mark in &search.ignored {
            let _ = write!(why, " `{}` does not count: another user owns it.", mark.display());
        }
        if let Some(other) = &self.ledger_above {
            let _ = write!(why, " Further up there is the ledger `{other}`, which belongs to another project.");
        }
        if let Some(key) = self.ledger.key_file().filter(|key| key.exists()) {
            let _ = write!(
                why,
                " Its key `{}` exists: either `plan` created it to generate codes, or the ledger was deleted.",
                key.display()
            );
        }
        why
    }

    fn full(&self) -> String {
        self.ledger.shown_from(&self.current)
    }

    /// Refuses a second ledger below one that is further up, unless it is named.
    pub(crate) fn refuse_below_another(&self) -> Result<(), CommandError> {
        match &self.ledger_above {
            Some(other) if self.source == Source::Default => Err(CommandError::new(Exit::Error, Code::LedgerAnother,
                format!(
                    "there is a ledger further up, `{other}`, and a second one below it would not know what was sent with that one; nothing was sent"
                ),
            )
            .hint(format!(
                "use it with `--ledger`, or name the new one: `--ledger sqlite:{}`",
                self.full()
            ))),
            _ => Ok(()),
        }
    }

    /// Makes the ledger of an `apply`: a real one only if the user asks for it. Returns its key and its id.
    pub(crate) async fn create_on_request(
        &self,
        ui: &Ui,
        requested: bool,
    ) -> Result<(LedgerKey, String), CommandError> {
        if self.source != Source::Sandbox {
            let why = self.why_none();
            if requested {
                self.refuse_below_another()?;
                ui.say(&why);
            } else {
                match ui.confirm(&format!("\n{why}\nCreate a new ledger there? It records no sends yet."), "creates it")
                {
                    Some(true) => {}
                    Some(false) => {
                        return Err(CommandError::new(
                            Exit::Error,
                            Code::NotConfirmed,
                            "no ledger was created; nothing was sent",
                        ));
                    }
                    None => {
                        return Err(CommandError::new(Exit::Error, Code::LedgerMissing, format!("{why} Nothing was sent")).hint(
                            "if this is the first campaign, create it with `sendform ledger create`, or pass `--new-ledger` for this run; otherwise name the ledger that was used before with `--ledger`",
                        ));
                    }
                }
            }
        }
        self.create(ui).await
    }

    /// Makes the ledger. Returns its key and its id.
    pub(crate) async fn create(&self, ui: &Ui) -> Result<(LedgerKey, String), CommandError> {
        let key = session::key(&self.ledger)?;
        let operator = session::operator();
        self.ledger.create(&operator, &key).await?;
        let id = match self.ledger.open(&operator, Some(&key)).await? {
            Some(mut ledger) => ledger.id().await?,
            None => {
                return Err(CommandError::new(
                    Exit::Error,
                    Code::LedgerMissing,
                    format!("the ledger `{}` was removed again", self.ledger),
                ));
            }
        };
        if self.source != Source::Sandbox {
            ui.say(&format!("Created the ledger {id} at `{}`", self.ledger));
        }
        Ok((key, id))
    }
}

fn unusable(error: &MemoryError) -> CommandError {
    CommandError::new(Exit::Error, Code::UnreadableFile, format!("{error}; nothing was sent"))
        .hint("the file guards against sending a campaign with two ledgers; remove it if you know which ledger is the right one")
}

/// Refuses a ledger that was moved to another place.
pub(crate) async fn refuse_moved(ledger: &mut dyn Ledger, at: &LedgerLocation) -> Result<(), CommandError> {
    match ledger.property(MOVED_TO).await? {
        Some(place) => Err(CommandError::new(
            Exit::Error,
            Code::LedgerMoved,
            format!("the ledger `{at}` was moved to `{place}`; nothing was written"),
        )
        .hint("use it there; this copy is kept for reading only, and does not know what was sent since")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_the_project_file_is_refused_and_never_shown() {
        let project = |url: &str| Project {
            root: PathBuf::from("/srv/offers"),
            ledger_url: Some(url.to_owned()),
            pinned_id: None,
            search: Search::default(),
        };
        for (url, expected) in [
            ("postgres://me:hunter@db/offers", "contains a password"),
            ("postgres://db/offers?password=hunter", "contains a password"),
            ("postgres://me:hun?ter@db/offers", "`%3F`"),
        ] {
            let error = configured(&project(url)).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter"), "{error}");
        }
        let location = configured(&project("postgres://me@db/offers?sslmode=require")).unwrap().unwrap();
        assert_eq!(location.to_string(), "postgres://db:5432/offers");
        let location = configured(&project("sqlite:record/sends.db")).unwrap().unwrap();
        assert_eq!(location, LedgerLocation::File(PathBuf::from("/srv/offers/record/sends.db")));
    }
}
