//! The project: where the ledger is.
//!
//! A ledger that depended on the directory one happens to stand in would send everything again
//! from another. So it belongs to the project, which is found from the campaign's file upwards:
//! the nearest directory with `sendform.yaml` or `.sendform`, else with `.git`, else the directory
//! one stands in if the campaign is below it, else the campaign's own.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::{Diagnostic, Diagnostics};

/// The project file's name.
pub const FILE: &str = "sendform.yaml";

/// The directory of what is not checked in.
pub const DIRECTORY: &str = ".sendform";

/// `sendform.yaml`: settings that all campaigns of a project share.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectFile {
    /// Where sends are recorded: `sqlite:PATH`, relative to this file.
    pub ledger: Option<String>,
}

/// Where a project keeps its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its root.
    pub root: PathBuf,
    /// The ledger that is used without `--ledger`.
    pub ledger: PathBuf,
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
        Some(url) => root.join(
            ledger_path(&url).map_err(|problem| Diagnostic::error("ledger", problem).in_file(&file, None, None))?,
        ),
        None => root.join(DIRECTORY).join("ledger.db"),
    };
    Ok(Project { root, ledger })
}

fn read(file: &Path) -> Result<ProjectFile, Diagnostics> {
    let problem =
        |message: String| Diagnostics::from(Diagnostic::error("project-file", message).in_file(file, None, None));
    let text =
        std::fs::read_to_string(file).map_err(|error| problem(format!("cannot read `{}`: {error}", file.display())))?;
    if text.trim().is_empty() {
        return Ok(ProjectFile::default());
    }
    serde_yaml::from_str(&text).map_err(|error| problem(format!("`{}` is wrong: {error}", file.display())))
}

/// The path in a ledger URL.
pub fn ledger_path(url: &str) -> Result<PathBuf, String> {
    match url.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => Ok(PathBuf::from(path.strip_prefix("//").unwrap_or(path))),
        _ => Err(format!("`{url}` is not a ledger; write `sqlite:PATH`")),
    }
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
        assert_eq!(find(&manifest, &campaigns).unwrap().ledger, root.join("record/sends.db"));
        std::fs::write(root.join(FILE), "leger: x\n").unwrap();
        assert!(find(&manifest, &campaigns).is_err());
    }
}
