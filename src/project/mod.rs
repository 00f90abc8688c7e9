//! The project: the root directory, the settings in `sendform.yaml`, and the files that a campaign may read.
//!
//! If the ledger depended on the current directory, running a campaign from another directory would send
//! everything again. Therefore the ledger belongs to the project, and the project is found from the campaign
//! file upwards: see [`find`]. [`memory`] records which ledger a campaign was sent with, and [`files`]
//! says which files a campaign may read.

pub mod files;
mod find;
pub mod memory;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::util::yaml::{self, Refusal};
pub use find::{as_typed, find};

/// The name of the project file.
pub const FILE: &str = "sendform.yaml";

/// The directory for everything that is not under version control.
pub const DIRECTORY: &str = ".sendform";

/// `sendform.yaml`: settings that all campaigns of a project share.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectFile {
    /// Where sends are recorded: `sqlite:PATH`, relative to this file, or `postgres://HOST/DATABASE`.
    /// With `url` and `id`, only the ledger with that id is used.
    #[serde(default, deserialize_with = "ledger_setting")]
    pub ledger: Option<LedgerSetting>,
}

/// The ledger of a project.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum LedgerSetting {
    /// The ledger's URL.
    Url(String),
    /// The ledger's URL, and the id that it must have.
    Pinned(PinnedLedger),
}

/// A ledger that is pinned to its id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinnedLedger {
    /// Where sends are recorded: `sqlite:PATH`, relative to this file, or `postgres://HOST/DATABASE`.
    pub url: String,
    /// The ledger's id, as `ledger create` and `ledger check` print it.
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub id: String,
}

/// The problem with any value of `ledger` that is not a [`LedgerSetting`].
const INVALID_LEDGER: &str =
    "`ledger` must be a URL, or a mapping with `url` and `id`, where `id` has 32 hexadecimal digits";

/// Reads both forms without serde's own errors, which would quote a password in the URL.
fn ledger_setting<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<LedgerSetting>, D::Error> {
    use serde::de::Error;
    match serde_yaml::Value::deserialize(deserializer)? {
        serde_yaml::Value::Null => Ok(None),
        serde_yaml::Value::String(url) => Ok(Some(LedgerSetting::Url(url))),
        mapping @ serde_yaml::Value::Mapping(_) => {
            let pinned: PinnedLedger = serde_yaml::from_value(mapping).map_err(|_| D::Error::custom(INVALID_LEDGER))?;
            let hexadecimal = pinned.id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if pinned.id.len() == 32 && hexadecimal {
                Ok(Some(LedgerSetting::Pinned(pinned)))
            } else {
                Err(D::Error::custom(INVALID_LEDGER))
            }
        }
        _ => Err(D::Error::custom(INVALID_LEDGER)),
    }
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The root directory, with symbolic links resolved.
    pub root: PathBuf,
    /// The URL of the ledger, from `sendform.yaml`. A relative path in it is relative to the root.
    pub ledger_url: Option<String>,
    /// The id that the ledger must have, from `sendform.yaml`.
    pub pinned_id: Option<String>,
    /// How the search found this root.
    pub search: Search,
}

impl Project {
    /// The ledger file that is used if nothing names a ledger.
    pub fn default_ledger(&self) -> PathBuf {
        self.root.join(DIRECTORY).join("ledger.db")
    }

    /// The path of a file relative to the root, with `/`, or only the file's name if it is outside the root.
    pub fn path_below(&self, file: &Path) -> String {
        let canonical = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let below = canonical.strip_prefix(&self.root).ok().or_else(|| canonical.file_name().map(Path::new));
        let parts: Vec<_> =
            below.unwrap_or(&canonical).components().map(|part| part.as_os_str().to_string_lossy()).collect();
        parts.join("/")
    }
}

/// What the search for a project found, for messages and for the check against a second ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// The directory in which the search started.
    pub start: PathBuf,
    /// Whether a marker was found. Otherwise, the root is `start`.
    pub marked: bool,
    /// The directory with `.git` at which the search stopped.
    pub stopped_at: Option<PathBuf>,
    /// Markers that do not count because of their owner.
    pub ignored: Vec<PathBuf>,
    /// Ledgers above the root, the nearest first. They are not used, but creating a second one below may be a mistake.
    pub ledgers_above: Vec<LedgerAbove>,
    /// The directories that were searched, from the start upwards, without those whose `.sendform` belongs to somebody
    /// whose markers do not count.
    pub directories: Vec<PathBuf>,
}

/// A ledger above the root of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerAbove {
    /// A file in the `.sendform` of a directory.
    File(PathBuf),
    /// The ledger that the `sendform.yaml` of a directory names. It may not exist.
    Named {
        /// The directory.
        root: PathBuf,
        /// The URL.
        url: String,
    },
}

/// Reads the URL of a project's ledger and the id that the ledger must have.
fn settings(root: &Path) -> Result<(Option<String>, Option<String>), Diagnostics> {
    let file = root.join(FILE);
    if !find::may_exist(&file) {
        return Ok((None, None));
    }
    Ok(match read(&file)?.ledger {
        None => (None, None),
        Some(LedgerSetting::Url(url)) => (Some(url), None),
        Some(LedgerSetting::Pinned(pinned)) => (Some(pinned.url), Some(pinned.id)),
    })
}

fn read(file: &Path) -> Result<ProjectFile, Diagnostics> {
    let problem = |message: String| {
        Diagnostics::from(Diagnostic::error(Code::InvalidProjectFile, message).in_file(file, None, None))
    };
    let text = yaml::read(file).map_err(|error| problem(format!("cannot read `{}`: {error}", file.display())))?;
    if text.trim().is_empty() {
        return Ok(ProjectFile::default());
    }
    yaml::parse_as(&text).map_err(|refusal| {
        let shown = file.display();
        let Refusal::Yaml(error) = refusal else { return problem(format!("`{shown}` is invalid: {refusal}")) };
        let (line, column) = error.location().map(|at| (at.line() as u64, at.column() as u64)).unzip();
        let why = explain_error(&text, &error.to_string());
        Diagnostic::error(Code::InvalidProjectFile, format!("`{shown}` is invalid: {why}"))
            .in_file(file, line, column)
            .into()
    })
}

/// Explains why a project file is refused. The file may be a symbolic link to any other file, so the
/// explanation quotes nothing of it except a key that looks like one.
fn explain_error(text: &str, error: &str) -> String {
    if error.contains(INVALID_LEDGER) {
        return INVALID_LEDGER.to_owned();
    }
    let keys: Vec<String> = match yaml::parse(text) {
        Ok(serde_yaml::Value::Mapping(mapping)) => {
            mapping.keys().map(|key| key.as_str().unwrap_or_default().to_owned()).collect()
        }
        _ => Vec::new(),
    };
    let plain = |key: &String| {
        (1..=40).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_lowercase() || b"_-".contains(&byte))
    };
    match keys.iter().find(|key| *key != "ledger") {
        Some(unknown) if keys.iter().all(plain) => format!("unknown key `{unknown}`; the only key is `ledger`"),
        _ => "the only key is `ledger`, and this file contains something else".to_owned(),
    }
}

/// Creates the directory of a ledger, if it is missing.
pub fn prepare(ledger: &Path) -> std::io::Result<()> {
    let Some(directory) = ledger.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    create_directory(directory)
}

/// Creates a directory and its missing parents, and flushes them to disk: a power failure that loses a new
/// directory would lose the ledger in it. A new `.sendform` gets a `.gitignore` that ignores everything in it.
pub(crate) fn create_directory(directory: &Path) -> std::io::Result<()> {
    let sync = |directory: &Path| std::fs::File::open(directory).and_then(|opened| opened.sync_all());
    let mut missing = Vec::new();
    for ancestor in directory.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
        if ancestor.exists() {
            break;
        }
        missing.push(ancestor);
    }
    std::fs::create_dir_all(directory)?;
    let own = directory.ancestors().find(|ancestor| ancestor.file_name().is_some_and(|name| name == DIRECTORY));
    if let Some(own) = own {
        match std::fs::File::create_new(own.join(".gitignore")) {
            Ok(mut ignore) => ignore.write_all(b"# The ledger does not belong in Git.\n*\n")?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    for new in missing.into_iter().rev() {
        sync(new)?;
        match new.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => sync(parent)?,
            None => sync(Path::new("."))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ProjectFile, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_ledger_can_be_pinned_by_its_id_and_an_error_does_not_quote_its_url() {
        let id = "0123456789abcdef".repeat(2);
        let pinned = parse(&format!("ledger: {{ url: postgres://db/offers, id: {id} }}")).unwrap();
        let expected = PinnedLedger { url: "postgres://db/offers".to_owned(), id: id.clone() };
        assert_eq!(pinned.ledger, Some(LedgerSetting::Pinned(expected)));
        let plain = parse("ledger: sqlite:a.db").unwrap();
        assert_eq!(plain.ledger, Some(LedgerSetting::Url("sqlite:a.db".to_owned())));
        assert_eq!(parse("ledger:\n").unwrap().ledger, None);
        for wrong in [
            "ledger: [postgres://me:secret@db/offers]".to_owned(),
            "ledger: { url: postgres://me:secret@db/offers }".to_owned(),
            "ledger: { url: postgres://me:secret@db/offers, id: secret }".to_owned(),
            format!("ledger: {{ url: postgres://me:secret@db/offers, id: {id}, secret: 1 }}"),
        ] {
            let error = parse(&wrong).unwrap_err();
            assert!(error.contains("mapping with `url` and `id`") && !error.contains("secret"), "{error}");
        }
    }
}
