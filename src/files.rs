//! Which files a campaign may read, and how they are opened.
//!
//! A manifest often arrives in a pull request, so a path in it must not reach any file that the
//! machine can read. There are three rules:
//!
//! | what names the file | where it may lie |
//! |---|---|
//! | `use:`, a header's `file:` | below the project's root |
//! | a CSV file (`csv:`) | below the root, or below a directory that the operator named with `--data-dir` |
//! | a secret's `file:` | anywhere; only `apply` reads it, and nothing shows it ([`crate::secret`]) |
//!
//! A path is resolved to its canonical form first, so a symbolic link counts as the place that it
//! leads to. Only regular files are opened, without blocking, and the open handle is compared with
//! the canonical path once more, so that a file that is swapped in between is noticed.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::ops::Deref;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::project;

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
    #[error("`{path}` lies outside {trees}")]
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
    #[error("`{path}` has {bytes} bytes; at most {most} are read")]
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
    fn of(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileError::Missing(shown(path)),
            _ => FileError::Unreadable(shown(path), error),
        }
    }

    /// Every code that [`FileError::code`] gives.
    pub const CODES: [&str; 5] = ["no-such-file", "file-outside", "file-twice", "file-too-large", "unreadable-file"];

    /// A stable code for diagnostics.
    pub fn code(&self) -> &'static str {
        match self {
            FileError::Missing(_) => "no-such-file",
            FileError::Outside { .. } => "file-outside",
            FileError::Twice(..) => "file-twice",
            FileError::TooLarge { .. } => "file-too-large",
            FileError::NotRegular(..) | FileError::Replaced(_) | FileError::Unreadable(..) => "unreadable-file",
        }
    }

    /// The error as a finding about the file as a whole.
    pub fn diagnostic(&self, path: &Path) -> Diagnostic {
        let hint = match self {
            FileError::Missing(_) => Some("paths are relative to the file that they are written in"),
            FileError::Twice(..) => Some("remove one of the two, or write the path of the one that is meant"),
            _ => None,
        };
        Diagnostic::error(self.code(), self.to_string()).maybe_hint(hint).in_file(path, None, None)
    }
}

/// A directory whose files may be read.
#[derive(Debug, Clone)]
struct Tree {
    /// As the operator named it.
    named: PathBuf,
    /// Without symbolic links.
    canonical: Arc<Path>,
}

impl Tree {
    fn new(named: PathBuf) -> io::Result<Self> {
        let canonical = std::fs::canonicalize(&named)?;
        Ok(Self { named, canonical: canonical.into() })
    }
}

/// The directories that the files of one campaign may lie in.
#[derive(Debug, Clone)]
pub struct Files {
    root: Tree,
    data: Vec<Tree>,
}

impl Files {
    /// The directories for a campaign: its project's root, and the data directories that the operator named.
    pub fn of_campaign(manifest: &Path, data_dirs: &[PathBuf]) -> Result<Self, Diagnostics> {
        let problem = |error: FileError| Diagnostics::from(error.diagnostic(manifest));
        // The project's search would go on from the directory around a path that leads nowhere.
        std::fs::metadata(manifest).map_err(|error| problem(FileError::of(manifest, error)))?;
        let current = std::env::current_dir().map_err(|error| problem(FileError::of(Path::new("."), error)))?;
        let root = project::find(manifest, &current)?.root;
        let root = Tree::new(root.clone()).map_err(|error| problem(FileError::of(&root, error)))?;
        Self::new(root, data_dirs)
    }

    /// The directories for a file that stands alone: its own directory.
    pub fn beside(file: &Path) -> Result<Self, Diagnostics> {
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let root = Tree::new(directory.to_owned())
            .map_err(|_| Diagnostics::from(FileError::Missing(shown(file)).diagnostic(file)))?;
        Self::new(root, &[])
    }

    fn new(root: Tree, data_dirs: &[PathBuf]) -> Result<Self, Diagnostics> {
        let data = data_dirs
            .iter()
            .map(|directory| {
                let named = directory.display();
                let problem = |message| {
                    Diagnostic::error("data-dir", message)
                        .hint("`--data-dir` and `SENDFORM_DATA_DIR` name directories that hold CSV files")
                };
                let tree = Tree::new(directory.clone())
                    .map_err(|error| problem(format!("cannot read the data directory `{named}`: {error}")))?;
                if tree.canonical.is_dir() {
                    Ok(tree)
                } else {
                    Err(problem(format!("the data directory `{named}` is not a directory")))
                }
            })
            .collect::<Result<_, Diagnostic>>()?;
        Ok(Self { root, data })
    }

    /// A file that `use:` or a header names: below the project's root.
    pub fn project_file(&self, path: PathBuf) -> Result<InputFile, FileError> {
        match self.locate(&path, &[&self.root]) {
            Ok((tree, _)) => Ok(InputFile { path, tree }),
            Err(error) => Err(error),
        }
    }

    /// A CSV file. A relative path is looked up beside the manifest that it is written in, which lies
    /// in `directory`, then below each data directory.
    pub fn data_file(&self, directory: &Path, written: &Path) -> Result<InputFile, FileError> {
        let beside = directory.join(written);
        let mut places = vec![beside.clone()];
        if goes_only_down(written) {
            places.extend(self.data.iter().map(|tree| tree.named.join(written)));
        }
        let trees: Vec<&Tree> = std::iter::once(&self.root).chain(&self.data).collect();
        let mut found: Option<(InputFile, PathBuf)> = None;
        for path in places {
            match self.locate(&path, &trees) {
                Ok((tree, canonical)) => match &found {
                    // The same file by two ways, such as a data directory that is the manifest's own.
                    Some((_, first)) if *first == canonical => {}
                    Some((first, _)) => return Err(FileError::Twice(shown(first), shown(&path))),
                    None => found = Some((InputFile { path, tree }, canonical)),
                },
                Err(FileError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        found.map(|(file, _)| file).ok_or_else(|| FileError::Missing(shown(&beside)))
    }

    /// What to do about a CSV file that is not where it may be.
    pub fn data_hint(&self, error: &FileError) -> Option<String> {
        let directories = || self.data.iter().map(|tree| format!("`{}`", tree.named.display())).collect::<Vec<_>>();
        match error {
            FileError::Missing(_) if self.data.is_empty() => Some(
                "paths are relative to the file that they are written in; `--data-dir DIR` names a directory to look in as well"
                    .to_owned(),
            ),
            FileError::Missing(_) => Some(format!(
                "paths are relative to the file that they are written in, and to {}",
                directories().join(", ")
            )),
            FileError::Outside { .. } => {
                Some("to read data from there, name its directory with `--data-dir DIR` or `SENDFORM_DATA_DIR`".to_owned())
            }
            _ => None,
        }
    }

    /// The tree that a path leads into, and where it leads.
    fn locate(&self, path: &Path, trees: &[&Tree]) -> Result<(Arc<Path>, PathBuf), FileError> {
        let holding = |place: &Path| trees.iter().find(|tree| place.starts_with(&tree.canonical));
        let canonical = match std::fs::canonicalize(path) {
            Ok(canonical) => canonical,
            Err(error) => {
                // Whether there is a file must not be told of places that may not be read.
                let nearest = path.ancestors().skip(1).find_map(|above| match above.as_os_str().is_empty() {
                    true => std::env::current_dir().and_then(std::fs::canonicalize).ok(),
                    false => std::fs::canonicalize(above).ok(),
                });
                return Err(match nearest {
                    Some(nearest) if holding(&nearest).is_none() => outside(path, trees),
                    _ => FileError::of(path, error),
                });
            }
        };
        match holding(&canonical) {
            Some(tree) if !is_of_the_kernel(&canonical) => Ok((Arc::clone(&tree.canonical), canonical)),
            _ => Err(outside(path, trees)),
        }
    }
}

fn outside(path: &Path, trees: &[&Tree]) -> FileError {
    let named: Vec<String> = trees
        .iter()
        .enumerate()
        .map(|(position, tree)| {
            let kind = if position == 0 { "the project's root" } else { "the data directory" };
            format!("{kind} `{}`", tree.named.display())
        })
        .collect();
    FileError::Outside { path: shown(path), trees: named.join(" and ") }
}

/// Whether a path is relative and never goes up.
fn goes_only_down(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}

fn is_of_the_kernel(canonical: &Path) -> bool {
    KERNEL.iter().any(|directory| canonical.starts_with(directory)) && !canonical.starts_with("/dev/shm")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A file that a campaign may read. Each time it is opened, it must still lie in the same tree.
#[derive(Debug, Clone)]
pub struct InputFile {
    path: PathBuf,
    tree: Arc<Path>,
}

impl InputFile {
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

fn read_at_most(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(content)
}

/// Reads a file that the operator named on the command line. It may lie anywhere, but a symbolic link
/// must not lead out of the project that it lies in: what is checked in could point at any file.
pub fn read_named(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let fail = |error| FileError::of(path, error);
    let canonical = std::fs::canonicalize(path).map_err(fail)?;
    let current = std::env::current_dir().map_err(fail)?;
    // Without links, or with one that stays in its directory, the file lies where its path says.
    let typed = project::as_typed(&current.join(path));
    let stays = typed.parent().is_some_and(|directory| canonical.starts_with(directory));
    if !stays {
        let root = project::find(path, &current).ok().and_then(|project| Tree::new(project.root).ok());
        match root {
            Some(root) if canonical.starts_with(&root.canonical) => {}
            Some(root) => return Err(outside(path, &[&root])),
            None => {
                let trees = "the project that it is named in".to_owned();
                return Err(FileError::Outside { path: shown(path), trees });
            }
        }
    }
    read_at_most(File::open(path).map_err(fail)?, most).map_err(fail)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A project with a file, a data directory beside it, and something that neither holds.
    fn places() -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["project/campaigns", "data", "secret"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::fs::write(at("project/sendform.yaml"), "").unwrap();
        std::fs::write(at("project/campaigns/campaign.yaml"), "kind: Campaign\n").unwrap();
        std::fs::write(at("project/people.csv"), "mobile\n").unwrap();
        std::fs::write(at("data/members.csv"), "mobile\n").unwrap();
        std::fs::write(at("secret/key"), "hunter2\n").unwrap();
        let files = Files::of_campaign(&at("project/campaigns/campaign.yaml"), &[at("data")]).unwrap();
        (directory, files)
    }

    #[test]
    fn a_data_file_is_found_beside_its_manifest_then_in_the_data_directories() {
        let (directory, files) = places();
        let campaigns = directory.path().join("project/campaigns");
        let find = |written: &str| files.data_file(&campaigns, Path::new(written));
        assert_eq!(&*find("../people.csv").unwrap(), campaigns.join("../people.csv"));
        assert_eq!(&*find("members.csv").unwrap(), directory.path().join("data/members.csv"));
        assert_eq!(
            &*find(directory.path().join("data/members.csv").to_str().unwrap()).unwrap(),
            directory.path().join("data/members.csv")
        );
        assert!(matches!(find("nobody.csv"), Err(FileError::Missing(_))));
        assert!(matches!(find("../../secret/key"), Err(FileError::Outside { .. })));
        assert!(matches!(find("../../data/../secret/key"), Err(FileError::Outside { .. })));
        // Whether something is there is not told.
        assert!(matches!(find("../../secret/nothing"), Err(FileError::Outside { .. })));
        std::fs::write(campaigns.join("members.csv"), "mobile\n").unwrap();
        assert!(matches!(find("members.csv"), Err(FileError::Twice(..))));
    }

    #[test]
    fn a_symbolic_link_counts_as_the_place_that_it_leads_to() {
        let (directory, files) = places();
        let project = directory.path().join("project");
        symlink(directory.path().join("secret"), project.join("inside")).unwrap();
        symlink("../secret/key", directory.path().join("data/key.csv")).unwrap();
        symlink("people.csv", project.join("same.csv")).unwrap();
        assert!(matches!(files.project_file(project.join("inside/key")), Err(FileError::Outside { .. })));
        assert!(matches!(files.data_file(&project, Path::new("key.csv")), Err(FileError::Outside { .. })));
        let file = files.data_file(&project, Path::new("same.csv")).unwrap();
        assert_eq!(file.open(100).unwrap().read(100).unwrap(), b"mobile\n");
        // A link that is put there later is noticed when the file is opened.
        std::fs::remove_file(project.join("same.csv")).unwrap();
        symlink("../secret/key", project.join("same.csv")).unwrap();
        assert!(matches!(file.open(100), Err(FileError::Outside { .. })));
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_opened() {
        let (directory, files) = places();
        let project = directory.path().join("project");
        let open = |name: &str| files.project_file(project.join(name)).and_then(|file| file.open(1_000)).map(drop);
        assert!(matches!(open("campaigns"), Err(FileError::NotRegular(_, "a directory"))));
        let listener = std::os::unix::net::UnixListener::bind(project.join("socket")).unwrap();
        assert!(matches!(open("socket"), Err(FileError::NotRegular(_, "a socket"))));
        drop(listener);
        assert!(std::process::Command::new("mkfifo").arg(project.join("pipe")).status().unwrap().success());
        assert!(matches!(open("pipe"), Err(FileError::NotRegular(_, "a pipe"))));
        let sparse = File::create(project.join("sparse")).unwrap();
        sparse.set_len(5 << 30).unwrap();
        assert!(matches!(open("sparse"), Err(FileError::TooLarge { .. })));
        assert!(open("people.csv").is_ok());
    }
}
