//! The ledger that each campaign was sent with: one small file per campaign, in `.sendform/campaigns` below
//! the project root.
//!
//! A campaign that is sent with one ledger and then with another reaches everybody twice. `apply` writes
//! the file before a run's first claim, and `plan` and `apply` refuse a ledger with another id. This is a
//! second safeguard: a fresh checkout has none of these files, and everything works without them.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DIRECTORY, create_directory};

/// The version of the file format. A file with a newer version is refused.
const FORMAT: u32 = 1;

/// The ledger that a campaign was sent with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    format: u32,
    /// The ledger's id.
    pub ledger: String,
    /// The ledger's location, without credentials.
    pub at: String,
}

/// The remembered ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file cannot be read or written.
    #[error("cannot {operation} `{path}`, which records the ledger that the campaign was sent with: {source}")]
    Io {
        /// `read` or `write`.
        operation: &'static str,
        path: String,
        source: std::io::Error,
    },
    /// The file has a newer format, or is not one that this program wrote.
    #[error("`{0}`, which records the ledger that the campaign was sent with, is damaged or from a newer version")]
    Unreadable(String),
}

/// The file of a campaign. Campaign names contain no character with a meaning in paths.
fn file(root: &Path, campaign: &str) -> PathBuf {
    root.join(DIRECTORY).join("campaigns").join(format!("{campaign}.json"))
}

/// Returns the ledger that a campaign was sent with, from the first of these directories that has the file.
pub fn recall(directories: &[PathBuf], campaign: &str) -> Result<Option<Remembered>, MemoryError> {
    for directory in directories {
        let path = file(directory, campaign);
        let shown = || path.display().to_string();
        let text = match std::fs::metadata(&path) {
            // Reading a pipe would block.
            Ok(metadata) if !metadata.is_file() => return Err(MemoryError::Unreadable(shown())),
            Ok(_) => std::fs::read_to_string(&path),
            Err(error) => Err(error),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(source) => return Err(MemoryError::Io { operation: "read", path: shown(), source }),
        };
        let found: Remembered = serde_json::from_str(&text).map_err(|_| MemoryError::Unreadable(shown()))?;
        if found.format > FORMAT {
            return Err(MemoryError::Unreadable(shown()));
        }
        return Ok(Some(found));
    }
    Ok(None)
}

/// Records the ledger that a campaign is sent with. It is on disk when this returns.
pub fn remember(root: &Path, campaign: &str, ledger: &str, at: &str) -> Result<(), MemoryError> {
    let path = file(root, campaign);
    let now = Remembered { format: FORMAT, ledger: ledger.to_owned(), at: at.to_owned() };
    if recall(&[root.to_owned()], campaign).is_ok_and(|before| before.as_ref() == Some(&now)) {
        return Ok(());
    }
    let write = || -> std::io::Result<()> {
        let directory = path.parent().unwrap_or(root);
        create_directory(directory)?;
        let mut new = tempfile::NamedTempFile::new_in(directory)?;
        new.write_all(&serde_json::to_vec(&now)?)?;
        new.as_file().sync_all()?;
        new.persist(&path).map_err(|error| error.error)?;
        std::fs::File::open(directory)?.sync_all()
    };
    write().map_err(|source| MemoryError::Io { operation: "write", path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_remembered_ledger_is_recalled_and_a_newer_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let places = [root.join("below"), root.clone()];
        assert_eq!(recall(&places, "diwali").unwrap(), None);
        remember(&root, "diwali", "id-1", "sqlite:/a/ledger.db").unwrap();
        remember(&root, "diwali", "id-2", "postgres://db/offers").unwrap();
        let found = recall(&places, "diwali").unwrap().unwrap();
        assert_eq!((found.ledger.as_str(), found.at.as_str()), ("id-2", "postgres://db/offers"));
        assert_eq!(recall(&places, "other").unwrap(), None);
        std::fs::remove_file(file(&root, "diwali")).unwrap();
        crate::util::fs::make_pipe(&file(&root, "diwali"));
        assert!(matches!(recall(&places, "diwali"), Err(MemoryError::Unreadable(_))), "reading a pipe would block");
        std::fs::remove_file(file(&root, "diwali")).unwrap();
        for wrong in ["", "{}", "{\"format\":2,\"ledger\":\"a\",\"at\":\"b\"}"] {
            std::fs::write(file(&root, "diwali"), wrong).unwrap();
            assert!(matches!(recall(&places, "diwali"), Err(MemoryError::Unreadable(_))), "{wrong}");
        }
    }
}
