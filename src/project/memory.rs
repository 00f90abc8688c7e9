//! Which ledger each campaign was sent with: one small file for each campaign, below `.sendform/campaigns`
//! in the project's root.
//!
//! A campaign that is sent with one ledger and then with another reaches everybody twice. The file is
//! written before a run's first claim, and `plan` and `apply` refuse a ledger of another id. It is a
//! second safeguard: a fresh checkout has none of these files, and everything works without them.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DIRECTORY, create_directory};

/// The format of the files. A newer one is refused.
const FORMAT: u32 = 1;

/// The ledger that a campaign was sent with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    format: u32,
    /// The ledger's id.
    pub ledger: String,
    /// Where it was, without credentials.
    pub at: String,
}

/// Why the memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// It cannot be read or written.
    #[error("cannot {doing} `{path}`, which keeps the ledger that the campaign was sent with: {error}")]
    Io {
        /// Read or write.
        doing: &'static str,
        /// Which file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is not what this program writes.
    #[error("`{0}`, which keeps the ledger that the campaign was sent with, is damaged or of a newer version")]
    Unreadable(String),
}

/// The file of a campaign. Campaign names hold no character that means something in a path.
fn file(root: &Path, campaign: &str) -> PathBuf {
    root.join(DIRECTORY).join("campaigns").join(format!("{campaign}.json"))
}

/// The ledger that a campaign was sent with, if that is known in one of these directories.
pub fn recall(directories: &[PathBuf], campaign: &str) -> Result<Option<Remembered>, MemoryError> {
    for directory in directories {
        let path = file(directory, campaign);
        let shown = || path.display().to_string();
        let text = match std::fs::metadata(&path) {
            // A pipe would never end.
            Ok(metadata) if !metadata.is_file() => return Err(MemoryError::Unreadable(shown())),
            Ok(_) => std::fs::read_to_string(&path),
            Err(error) => Err(error),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(MemoryError::Io { doing: "read", path: shown(), error }),
        };
        let found: Remembered = serde_json::from_str(&text).map_err(|_| MemoryError::Unreadable(shown()))?;
        if found.format > FORMAT {
            return Err(MemoryError::Unreadable(shown()));
        }
        return Ok(Some(found));
    }
    Ok(None)
}

/// Keeps the ledger that a campaign is sent with. It is on the disk when this returns.
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
        new.write_all(serde_json::to_string(&now).unwrap_or_default().as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(&path).map_err(|error| error.error)?;
        std::fs::File::open(directory)?.sync_all()
    };
    write().map_err(|error| MemoryError::Io { doing: "write", path: path.display().to_string(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_recalled_and_a_newer_format_is_refused() {
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
        assert!(std::process::Command::new("mkfifo").arg(file(&root, "diwali")).status().unwrap().success());
        assert!(matches!(recall(&places, "diwali"), Err(MemoryError::Unreadable(_))), "a pipe would never end");
        std::fs::remove_file(file(&root, "diwali")).unwrap();
        for wrong in ["", "{}", "{\"format\":2,\"ledger\":\"a\",\"at\":\"b\"}"] {
            std::fs::write(file(&root, "diwali"), wrong).unwrap();
            assert!(matches!(recall(&places, "diwali"), Err(MemoryError::Unreadable(_))), "{wrong}");
        }
    }
}
