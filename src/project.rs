//! The project: where the ledger is.
//!
//! A ledger that depended on the directory one happens to stand in would send everything again
//! from another. So it belongs to the project, which is found from the campaign's file upwards:
//! the nearest directory with `sendform.yaml` or `.sendform`, else with `.git`, else the directory
//! one stands in if the campaign is below it, else the campaign's own.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::manifest::yaml;

/// The project file's name.
pub const FILE: &str = "sendform.yaml";

/// The directory of what is not checked in.
pub const DIRECTORY: &str = ".sendform";

/// `sendform.yaml`: settings that all campaigns of a project share.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectFile {
    /// Where sends are recorded: `sqlite:PATH`, relative to this file, or `postgres://HOST/DATABASE`.
    pub ledger: Option<String>,
}

/// Where a project keeps its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its root.
    pub root: PathBuf,
    /// The ledger that is used without `--ledger`.
    pub ledger: Place,
}

/// Where a ledger is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// A database, by its URL, which may hold a password.
    Database(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Database(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
                let rest = rest.split('?').next().unwrap_or_default();
                write!(f, "{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
            }
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Finds the project of a path: a campaign's file, or the directory one stands in.
pub fn find(start: &Path, current: &Path) -> Result<Project, Diagnostics> {
    let start = current.join(start);
    let directory = if start.is_dir() { start.as_path() } else { start.parent().unwrap_or(current) };
    let up = |marks: &[&str]| {
        directory.ancestors().find(|ancestor| marks.iter().any(|mark| ancestor.join(mark).exists())).map(Path::to_owned)
    };
    let root = up(&[FILE, DIRECTORY])
        .or_else(|| up(&[".git"]))
        .unwrap_or_else(|| if directory.starts_with(current) { current.to_owned() } else { directory.to_owned() });
    let file = root.join(FILE);
    let settings = if file.exists() { read(&file)? } else { ProjectFile::default() };
    let ledger = match settings.ledger {
        Some(url) => {
            match ledger_place(&url)
                .map_err(|problem| Diagnostic::error("ledger", problem).in_file(&file, None, None))?
            {
                Place::File(path) => Place::File(root.join(path)),
                // This file is checked in.
                Place::Database(url) if has_password(&url) => {
                    return Err(Diagnostic::error("literal-secret", "the ledger's URL holds a password")
                        .hint("give the URL in the environment variable `SENDFORM_LEDGER`, from where your secrets are")
                        .in_file(&file, None, None)
                        .into());
                }
                database => database,
            }
        }
        None => Place::File(root.join(DIRECTORY).join("ledger.db")),
    };
    Ok(Project { root, ledger })
}

fn read(file: &Path) -> Result<ProjectFile, Diagnostics> {
    let problem =
        |message: String| Diagnostics::from(Diagnostic::error("project-file", message).in_file(file, None, None));
    let text = yaml::read(file).map_err(|error| problem(format!("cannot read `{}`: {error}", file.display())))?;
    if text.trim().is_empty() {
        return Ok(ProjectFile::default());
    }
    yaml::parse_as(&text).map_err(|error| problem(format!("`{}` is wrong: {error}", file.display())))
}

/// Where a ledger URL leads.
pub fn ledger_place(url: &str) -> Result<Place, String> {
    match url.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => {
            Ok(Place::File(PathBuf::from(path.strip_prefix("//").unwrap_or(path))))
        }
        Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => Ok(Place::Database(url.to_owned())),
        // What it holds may be a password: only its beginning is told.
        Some((scheme, _)) => {
            Err(format!("`{scheme}:…` is not a ledger; write `sqlite:PATH` or `postgres://HOST/DATABASE`"))
        }
        None => Err(format!("`{url}` is not a ledger; write `sqlite:PATH` or `postgres://HOST/DATABASE`")),
    }
}

fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) || url.contains("password=")
}

/// Makes the directory of a ledger. One called `.sendform` ignores itself in Git.
pub fn prepare(ledger: &Path) -> std::io::Result<()> {
    let Some(directory) = ledger.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(directory)?;
    let own = directory.ancestors().find(|ancestor| ancestor.file_name().is_some_and(|name| name == DIRECTORY));
    if let Some(own) = own {
        let ignore = own.join(".gitignore");
        if !ignore.exists() {
            std::fs::write(ignore, "# The record of sends is not for Git.\n*\n")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_found_from_the_campaign_upwards() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let campaigns = root.join("campaigns/a");
        std::fs::create_dir_all(&campaigns).unwrap();
        let manifest = campaigns.join("campaign.yaml");
        // Nothing marks the project yet: where one stands, if the campaign is below.
        assert_eq!(find(&manifest, root).unwrap().root, root);
        assert_eq!(find(&manifest, &std::env::temp_dir().join("elsewhere")).unwrap().root, campaigns);
        // Once there is a record, it is found from anywhere.
        std::fs::create_dir(root.join(DIRECTORY)).unwrap();
        assert_eq!(find(&manifest, &campaigns).unwrap().root, root);
        std::fs::write(root.join(FILE), "ledger: sqlite:record/sends.db\n").unwrap();
        assert_eq!(find(&manifest, &campaigns).unwrap().ledger, Place::File(root.join("record/sends.db")));
        std::fs::write(root.join(FILE), "ledger: postgres://me:secret@db/offers\n").unwrap();
        assert!(find(&manifest, &campaigns).is_err());
        std::fs::write(root.join(FILE), "ledger: postgres://me@db/offers?sslmode=require\n").unwrap();
        let place = find(&manifest, &campaigns).unwrap().ledger;
        assert_eq!(place.to_string(), "postgres://db/offers");
        std::fs::write(root.join(FILE), "leger: x\n").unwrap();
        assert!(find(&manifest, &campaigns).is_err());
    }
}
