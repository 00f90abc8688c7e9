//! Which files a campaign may read.
//!
//! A manifest often arrives in a pull request, so a path in it must not reach every file on the machine.
//! There are three rules:
//!
//! | named by | allowed location |
//! |---|---|
//! | `use:`, a header's `file:` | below the project root |
//! | a CSV file (`csv:`) | below the root, or below a directory that the operator named with `--data-dir` |
//! | a secret's `file:` | anywhere; only `apply` reads it, and nothing prints it ([`crate::gateway::kaleyra::account`]) |
//!
//! The rules apply to the canonical path, so a symbolic link counts as its target. [`crate::util::fs`] opens
//! the files.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::project;
use crate::util::fs::{FileError, InputFile, is_of_the_kernel, read_at_most, shown};

/// A directory whose files may be read.
#[derive(Debug, Clone)]
struct Tree {
    /// The path that the operator gave.
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

/// The directories from which one campaign may read files.
#[derive(Debug, Clone)]
pub struct Files {
    root: Tree,
    data: Vec<Tree>,
}

impl Files {
    /// The directories for a campaign: its project root, and the data directories that the operator named.
    pub fn of_campaign(manifest: &Path, data_dirs: &[PathBuf]) -> Result<Self, Diagnostics> {
        let problem = |error: FileError| Diagnostics::from(error.diagnostic(manifest));
        // Without this check, the search for the project would start at the parent of a missing file.
        std::fs::metadata(manifest).map_err(|error| problem(FileError::of(manifest, error)))?;
        let current = std::env::current_dir().map_err(|error| problem(FileError::of(Path::new("."), error)))?;
        let root = project::find(manifest, &current)?.root;
        let root = Tree::new(root.clone()).map_err(|error| problem(FileError::of(&root, error)))?;
        Self::new(root, data_dirs)
    }

    /// The directories for a file without a project: its own directory.
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
                    Diagnostic::error(Code::UnreadableDataDir, message)
                        .hint("`--data-dir` and `SENDFORM_DATA_DIR` name directories with CSV files")
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

    /// Finds a file that `use:` or a header names, below the project root.
    pub fn project_file(&self, path: PathBuf) -> Result<InputFile, FileError> {
        match self.locate(&path, &[&self.root]) {
            Ok((tree, _)) => Ok(InputFile::found(path, tree)),
            Err(error) => Err(error),
        }
    }

    /// Finds a CSV file. A relative path is looked up in `directory`, which contains the manifest, and then
    /// in each data directory.
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
                    // Both paths lead to the same file, for example if a data directory is the manifest's own.
                    Some((_, first)) if *first == canonical => {}
                    Some((first, _)) => return Err(FileError::Twice(shown(first), shown(&path))),
                    None => found = Some((InputFile::found(path, tree), canonical)),
                },
                Err(FileError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        found.map(|(file, _)| file).ok_or_else(|| FileError::Missing(shown(&beside)))
    }

    /// A hint for a CSV file that is missing or outside the allowed directories.
    pub fn data_hint(&self, error: &FileError) -> Option<String> {
        let directories = || self.data.iter().map(|tree| format!("`{}`", tree.named.display())).collect::<Vec<_>>();
        match error {
            FileError::Missing(_) if self.data.is_empty() => Some(
                "paths are relative to the file in which they are written; `--data-dir DIR` adds a directory to search"
                    .to_owned(),
            ),
            FileError::Missing(_) => Some(format!(
                "paths are relative to the file in which they are written, and to {}",
                directories().join(", ")
            )),
            FileError::Outside { .. } => Some(
                "to read data from there, pass its directory with `--data-dir DIR` or `SENDFORM_DATA_DIR`".to_owned(),
            ),
            _ => None,
        }
    }

    /// Finds the tree that contains a path, and the canonical path.
    fn locate(&self, path: &Path, trees: &[&Tree]) -> Result<(Arc<Path>, PathBuf), FileError> {
        let holding = |place: &Path| trees.iter().find(|tree| place.starts_with(&tree.canonical));
        let canonical = match std::fs::canonicalize(path) {
            Ok(canonical) => canonical,
            Err(error) => {
                // The error must not reveal whether a file exists outside the allowed directories.
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
            let kind = if position == 0 { "the project root" } else { "the data directory" };
            format!("{kind} `{}`", tree.named.display())
        })
        .collect();
    FileError::Outside { path: shown(path), trees: named.join(" and ") }
}

/// Whether a path is relative and contains no `..`.
fn goes_only_down(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}

/// Reads a file that the operator named on the command line. It may be anywhere, but a symbolic link must not
/// lead out of its project, because a link under version control could point to any file.
pub fn read_named(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let fail = |error| FileError::of(path, error);
    let canonical = std::fs::canonicalize(path).map_err(fail)?;
    let current = std::env::current_dir().map_err(fail)?;
    // Allowed: no symbolic link, or one whose target is in the same directory or below it.
    let typed = project::as_typed(&current.join(path));
    let stays = typed.parent().is_some_and(|directory| canonical.starts_with(directory));
    if !stays {
        let root = project::find(path, &current).ok().and_then(|project| Tree::new(project.root).ok());
        match root {
            Some(root) if canonical.starts_with(&root.canonical) => {}
            Some(root) => return Err(outside(path, &[&root])),
            None => {
                let trees = "its project".to_owned();
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

    /// A project with a file, a data directory beside it, and a file outside both.
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
        // The error does not reveal whether a file exists there.
        assert!(matches!(find("../../secret/nothing"), Err(FileError::Outside { .. })));
        std::fs::write(campaigns.join("members.csv"), "mobile\n").unwrap();
        assert!(matches!(find("members.csv"), Err(FileError::Twice(..))));
    }

    #[test]
    fn a_symbolic_link_counts_as_its_target() {
        let (directory, files) = places();
        let project = directory.path().join("project");
        symlink(directory.path().join("secret"), project.join("inside")).unwrap();
        symlink("../secret/key", directory.path().join("data/key.csv")).unwrap();
        symlink("people.csv", project.join("same.csv")).unwrap();
        assert!(matches!(files.project_file(project.join("inside/key")), Err(FileError::Outside { .. })));
        assert!(matches!(files.data_file(&project, Path::new("key.csv")), Err(FileError::Outside { .. })));
        let file = files.data_file(&project, Path::new("same.csv")).unwrap();
        assert_eq!(file.open(100).unwrap().read(100).unwrap(), b"mobile\n");
        // A symbolic link that replaces the file later is noticed when the file is opened.
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
        crate::util::fs::make_pipe(&project.join("pipe"));
        assert!(matches!(open("pipe"), Err(FileError::NotRegular(_, "a pipe"))));
        let sparse = File::create(project.join("sparse")).unwrap();
        sparse.set_len(5 << 30).unwrap();
        assert!(matches!(open("sparse"), Err(FileError::TooLarge { .. })));
        assert!(open("people.csv").is_ok());
    }
}
