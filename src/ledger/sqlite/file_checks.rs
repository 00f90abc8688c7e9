//! Checks before a ledger's file is opened. SQLite writes first to a log beside the file, which it finds by the
//! file's name. So a file with two names has two logs, and each of them looks complete.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ledger::error::LedgerError;

/// Refuses a ledger file that has a second name, or is a mount point itself.
pub(super) fn check(ledger: &Path) -> Result<(), LedgerError> {
    let metadata = std::fs::metadata(ledger).map_err(|error| LedgerError::io(ledger, "found", error))?;
    if metadata.nlink() > 1 && !is_unfinished_creation(ledger, &metadata) {
        return Err(LedgerError::Refused {
            problem: format!("the ledger `{}` is one of {} hard links to one file", ledger.display(), metadata.nlink()),
            hint: "a process that uses one name does not see what was written under the other, so people would get the same offer twice; remove the other links, or copy the file with `sendform ledger backup`",
        });
    }
    if is_mount_point(ledger) {
        return Err(LedgerError::Refused {
            problem: format!("the ledger `{}` is a mount point itself", ledger.display()),
            hint: "its write-ahead log would stay behind when the file is unmounted; mount the ledger's directory instead",
        });
    }
    Ok(())
}

/// The name of a ledger file while it is being created.
pub(super) fn unfinished(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Whether the second name was left by a process that was killed while it created this ledger.
fn is_unfinished_creation(ledger: &Path, metadata: &std::fs::Metadata) -> bool {
    metadata.nlink() == 2
        && std::fs::symlink_metadata(unfinished(ledger))
            .is_ok_and(|other| (other.dev(), other.ino()) == (metadata.dev(), metadata.ino()))
}

/// Removes the second name that a process left when it was killed while it created this ledger. Only the
/// holder of the lease may call this.
pub(super) fn finish_creation(ledger: &Path) -> Result<(), LedgerError> {
    let metadata = std::fs::metadata(ledger).map_err(|error| LedgerError::io(ledger, "found", error))?;
    if is_unfinished_creation(ledger, &metadata) {
        std::fs::remove_file(unfinished(ledger)).map_err(|error| LedgerError::io(ledger, "created", error))?;
    }
    Ok(())
}

/// Where there is no ledger, refuses to create one if the log of a former one is still there: SQLite would use it
/// for the new ledger.
pub(super) fn refuse_a_log_without_its_ledger(ledger: &Path) -> Result<(), LedgerError> {
    let mut log = ledger.as_os_str().to_owned();
    log.push("-wal");
    match std::fs::metadata(&log) {
        Ok(metadata) if metadata.len() > 0 => Err(LedgerError::Refused {
            problem: format!(
                "the ledger `{}` is missing, and its log `{}` is still there",
                ledger.display(),
                Path::new(&log).display()
            ),
            hint: "a new ledger would send everything again; put the file back, or a copy of it with `sendform ledger restore FILE`",
        }),
        _ => Ok(()),
    }
}

/// Whether something is mounted on exactly this path, as the kernel lists mounts.
fn is_mount_point(path: &Path) -> bool {
    std::fs::read("/proc/self/mountinfo").is_ok_and(|mounts| lists(&mounts, path))
}

fn lists(mounts: &[u8], path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .any(|mount| unescape(mount) == path.as_os_str().as_bytes())
}

/// Decodes space, tab, line feed and backslash, which are written as a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_path_with_escapes() {
        let mounts = b"36 35 98:0 /a /mnt/plain rw,noatime - ext4 /dev/root rw\n\
                       37 35 98:0 /b /mnt/my\\040offers/ledger.db rw - ext4 /dev/root rw\n";
        assert!(lists(mounts, Path::new("/mnt/my offers/ledger.db")));
        assert!(lists(mounts, Path::new("/mnt/plain")));
        assert!(!lists(mounts, Path::new("/mnt/plain/ledger.db")));
        assert!(!lists(mounts, Path::new("/mnt/my\\040offers/ledger.db")));
    }

    #[test]
    fn a_second_name_is_refused_but_not_the_rest_of_a_killed_creation() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("ledger.db");
        std::fs::write(&ledger, "").unwrap();
        check(&ledger).unwrap();
        std::fs::hard_link(&ledger, unfinished(&ledger)).unwrap();
        check(&ledger).unwrap();
        std::fs::hard_link(&ledger, directory.path().join("other.db")).unwrap();
        assert!(check(&ledger).unwrap_err().to_string().contains("one of 3 hard links"));
        std::fs::remove_file(unfinished(&ledger)).unwrap();
        assert!(check(&ledger).unwrap_err().to_string().contains("one of 2 hard links"));
    }
}
