//! Regular files, opened without blocking and compared with their canonical path.
//!
//! Only regular files are opened, and the open handle is compared with the canonical path once more,
//! so that a file that is swapped in between is noticed.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest CSV file that is read: far more than the rows that a campaign can be sent to.
pub const MAX_DATA_BYTES: u64 = 4 << 30;

/// How often a file that is replaced while it is opened is tried again.
const ATTEMPTS: usize = 3;

/// File systems of the kernel. Their files look regular, and hold the machine's state.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Why a file is not read. Holds nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not exist.
    #[error("there is no file `{0}`")]
    Missing(String),
    /// It lies outside the directories that may be read, perhaps through a symbolic link.
    #[error("`{path}` is outside {trees}")]
    Outside {
        /// The path as it was written.
        path: String,
        /// The directories that may be read.
        trees: String,
    },
    /// A relative path leads to a file in two places.
    #[error("`{0}` and `{1}` both exist")]
    Twice(String, String),
    /// A directory, a device, a pipe or a socket.
    #[error("`{0}` is {1}, not a regular file")]
    NotRegular(String, &'static str),
    /// It is larger than anything that belongs there.
    #[error("`{path}` has {bytes} bytes; the maximum is {most}")]
    TooLarge {
        /// The path as it was written.
        path: String,
        /// Its size.
        bytes: u64,
        /// The largest size.
        most: u64,
    },
    /// It was replaced again and again while it was opened.
    #[error("`{0}` was replaced while it was opened")]
    Replaced(String),
    /// The system refuses.
    #[error("cannot read `{0}`: {1}")]
    Unreadable(String, io::Error),
}

impl FileError {
    pub(crate) fn of(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileError::Missing(shown(path)),
            _ => FileError::Unreadable(shown(path), error),
        }
    }
}

/// Whether a file belongs to a file system of the kernel.
pub(crate) fn is_of_the_kernel(canonical: &Path) -> bool {
    KERNEL.iter().any(|directory| canonical.starts_with(directory)) && !canonical.starts_with("/dev/shm")
}

/// Writes a file that appears whole or not at all, with these permissions.
pub fn write_atomically(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        .tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Reads a regular file of at most `most` bytes that the user named, wherever it is. Does not wait for a pipe, and
/// does not open a device.
pub fn read_regular(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let fail = |error| FileError::of(path, error);
    let canonical = std::fs::canonicalize(path).map_err(fail)?;
    let directory = canonical.parent().unwrap_or(&canonical);
    let file = InputFile::found(path.to_owned(), directory.into()).open(most)?;
    file.read(most).map_err(fail)
}

/// A path as it is shown in messages.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A file that a campaign may read. Each time it is opened, it must still lie in the same tree.
#[derive(Debug, Clone)]
pub struct InputFile {
    path: PathBuf,
    tree: Arc<Path>,
}

impl InputFile {
    /// A file that was found below `tree`, a canonical directory.
    pub(crate) fn found(path: PathBuf, tree: Arc<Path>) -> Self {
        Self { path, tree }
    }

    /// A file below a directory, for tests and benchmarks.
    pub fn below(directory: &Path, path: impl Into<PathBuf>) -> io::Result<Self> {
        Ok(Self { path: path.into(), tree: std::fs::canonicalize(directory)?.into() })
    }

    /// Opens the file if it is a regular one of at most `most` bytes.
    pub fn open(&self, most: u64) -> Result<OpenFile, FileError> {
        for _ in 0..ATTEMPTS {
            if let Some(file) = self.try_open()? {
                return file.limited(&self.path, most);
            }
        }
        Err(FileError::Replaced(shown(&self.path)))
    }

    /// The open file, or nothing if another one was put into its place meanwhile.
    fn try_open(&self) -> Result<Option<OpenFile>, FileError> {
        let path = &self.path;
        let fail = |error| FileError::of(path, error);
        let canonical = std::fs::canonicalize(path).map_err(fail)?;
        if !canonical.starts_with(&self.tree) || is_of_the_kernel(&canonical) {
            return Err(FileError::Outside { path: shown(path), trees: format!("`{}`", self.tree.display()) });
        }
        // To open a device may do something, so it is not opened at all.
        regular(path, std::fs::symlink_metadata(&canonical).map_err(fail)?.file_type())?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY)
            .open(&canonical)
            .map_err(fail)?;
        let opened = file.metadata().map_err(fail)?;
        regular(path, opened.file_type())?;
        let same = |there: Metadata| there.dev() == opened.dev() && there.ino() == opened.ino();
        let still_there = std::fs::canonicalize(&canonical).is_ok_and(|now| now == canonical)
            && std::fs::symlink_metadata(&canonical).is_ok_and(same);
        Ok(still_there.then(|| OpenFile { len: opened.len(), file }))
    }
}

/// Refuses what is not a regular file.
fn regular(path: &Path, kind: FileType) -> Result<(), FileError> {
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(FileError::NotRegular(shown(path), what))
}

impl Deref for InputFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for InputFile {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl From<&InputFile> for PathBuf {
    fn from(file: &InputFile) -> Self {
        file.path.clone()
    }
}

/// An open regular file.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    len: u64,
}

impl OpenFile {
    fn limited(self, path: &Path, most: u64) -> Result<Self, FileError> {
        if self.len > most {
            return Err(FileError::TooLarge { path: shown(path), bytes: self.len, most });
        }
        Ok(self)
    }

    /// How many bytes it had when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it was empty when it was opened.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The handle.
    pub fn into_file(self) -> File {
        self.file
    }

    /// The whole content. A file that grew beyond `most` bytes since it was opened is an error.
    pub fn read(self, most: u64) -> io::Result<Vec<u8>> {
        read_at_most(self.file, most)
    }
}

/// Reads a file of at most `most` bytes.
pub(crate) fn read_at_most(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(content)
}

/// Makes a named pipe, which a test must not wait for.
#[cfg(test)]
pub(crate) fn make_pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}
